"""Training on two processes is training on one: steps, data, buffers, checkpoints, stops and errors."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path

import pyro
import pytest
import tiny
import torch
from discrete_programs import Bits, Steps
from discrete_programs import make as make_problem
from PIL import Image
from torch.overrides import TorchFunctionMode

from analysis.evaluate import SceneEvaluator
from inference import checkpoint, svi
from inference.estimators import ESTIMATORS, estimator
from inference.loading import ROOT
from inference.log import read_log
from inference.machine import distributed
from inference.plan import Plan, Run
from inference.recipes import Recipe
from inference.svi import main
from inference.trainer import Trainer

CPU = torch.device("cpu")


def begin_two():
    return [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(2)]


def end(pools):
    for process in [p for pool in pools for p in pool._processes.values()]:
        process.kill()  # one that waits for the other would never end
    for pool in pools:
        pool.shutdown()


@pytest.fixture(scope="module")
def pair():
    """Two processes; ``pair(task, …)`` runs ``task(rank, …)`` in both at once, as torchrun does."""
    pools = begin_two()

    def run(task, *args):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        futures = [pool.submit(_work, r, port, task, args) for r, pool in enumerate(pools)]
        try:
            return [f.exception(timeout=100) or f.result() for f in futures]
        except TimeoutError:
            end(pools)
            pools[:] = begin_two()
            raise

    yield run
    end(pools)


def _work(rank, port, task, args):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    pyro.clear_param_store()
    pyro.enable_validation(True)
    with pyro.settings.context(module_local_params=True):
        try:
            return task(rank, *args)
        finally:
            distributed.leave()


class Ends(SceneEvaluator):
    """Notes that a training has come to its end, and measures nothing there."""

    def finish(self, t, data, out):
        (out / "finished").touch()


def test_one_process_is_the_first_of_one():
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.agree(True, False) == [True, False]
    assert distributed.gather("me") == ["me"] and distributed.share("me") == "me"
    assert distributed.part(torch.arange(4)).tolist() == [0, 1, 2, 3]


def test_the_average_of_equal_buffers_is_what_they_were_bit_for_bit(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: 3)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda t: t.copy_(t + t + t))
    module = torch.nn.Module()
    module.register_buffer("constant", torch.rand(1000))
    module.register_buffer("unknown", torch.tensor([math.nan, math.inf, -math.inf]))
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    distributed.average([module])
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer.view(torch.int32), before[name].view(torch.int32))


class WholeNoise(TorchFunctionMode):
    """Draws noise for the images of all processes, and hands out this one's rows."""

    def __init__(self, images):
        super().__init__()
        self.images = images

    def rows(self, like):
        copies, n = len(like) // self.images, distributed.world()
        whole = torch.rand(copies, n, self.images, *like.shape[1:], dtype=like.dtype)
        return whole[:, distributed.rank()].flatten(0, 1)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.rand_like:
            return self.rows(args[0])
        if func is torch.bernoulli:
            return (self.rows(args[0]) < args[0]).to(args[0].dtype)
        if func is torch.multinomial:
            return (args[0] / -self.rows(args[0]).log()).argmax(1, keepdim=True)
        return func(*args, **(kwargs or {}))


def five_steps(problem, name):
    """Parameters and buffers after five steps on eight images, in double precision."""
    program, guide, _ = make_problem(problem)
    method = estimator(name)
    torch.manual_seed(5)
    images = torch.rand(5, 8, 1, 16, 16)
    method.prepare(program, guide, images[0])
    trainer = Trainer(
        Plan(None, None, "", Recipe(clip=0.05), None, None, None, 0, CPU), program, guide, method
    )
    for step, x in enumerate(images):
        torch.manual_seed(step)
        mine = distributed.part(x)
        with WholeNoise(len(mine)):
            trainer.update(mine)
    modules = trainer.modules.items()
    return {f"{m}.{k}": v.numpy() for m, module in modules for k, v in module.state_dict().items()}


def all_five_steps(rank, cases):
    distributed.start(CPU)
    torch.set_default_dtype(torch.float64)
    try:
        return [five_steps(*case) for case in cases]
    finally:
        torch.set_default_dtype(torch.float32)


def test_with_every_estimator_two_processes_step_as_one_on_the_whole_batch(pair):
    """Given the same noise: parameters, baselines and running moments; and both hold the same bits."""
    dreamless = [name for name in ESTIMATORS if "sleep" not in name]  # Bits does not dream
    cases = [(Bits, tiny.OF_BOUNDS.get(name, name)) for name in dreamless]
    cases += [(Steps, "z_pres*=nvil,z_cat*=relax"), (Steps, "gumbel_st"), (Steps, "rloo:2")]
    ones, twos = all_five_steps(0, cases), pair(all_five_steps, cases)
    for case, one, *two in zip(cases, ones, *twos, strict=True):
        for name, value in one.items():
            assert (two[0][name] == two[1][name]).all(), (case, name)
            assert two[0][name] == pytest.approx(value, rel=1e-6, abs=1e-9), (case, name)


BITS = """
import os

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        rank = int(os.environ.get("RANK", 0))
        self.prior = nn.Parameter(torch.tensor([0.3, -0.2, 0.5]) + rank)  # they begin as the first
        self.colours = nn.Parameter(torch.tensor([0.5, 0.4, -0.3]))
        self.register_buffer("brightness", torch.zeros(()))

    def forward(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        if images is not None and torch.is_grad_enabled():
            self.brightness.lerp_(images.mean(), 0.1)
        with pyro.plate("batch", batch, dim=-2):
            with pyro.plate("bits", 3, dim=-1):
                z = pyro.sample("z_pres", dist.Bernoulli(logits=self.prior.expand(batch, 3)))
            mean = (z * self.colours).unsqueeze(-2)
            seen = None if images is None else images[:, :, 0, 0].unsqueeze(1)
            pyro.sample("images", dist.Normal(mean, 0.3).to_event(1), obs=seen)


class Guide(nn.Module):
    def __init__(self, program):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.2, -0.6, 0.1]))

    def forward(self, images, batch=1):
        with pyro.plate("batch", len(images), dim=-2), pyro.plate("bits", 3, dim=-1):
            pyro.sample("z_pres", dist.Bernoulli(logits=self.logits + images[:, :, 0, 0]))
"""


@pytest.fixture(scope="module")
def bits(tmp_path_factory):
    """A run on 13 pictures, three batches of four an epoch; its noise is summed out."""
    folder = tmp_path_factory.mktemp("bits")
    (folder / "bits.py").write_text(BITS)
    (folder / "pictures").mkdir()
    for i in range(13):
        colour = (i * 20, 255 - i * 15, (i * 77) % 256)
        Image.new("RGB", (4, 4), colour).save(folder / "pictures" / f"{i}.png")
    common = {"images": folder / "pictures", "device": "cpu", "estimator": "enumerate"}

    def run(out, **kwargs):
        settings = ("world.size=4", "train.clip=0.01")
        options = {"batch": 4, "steps": 8, "set": settings, **common, **kwargs}
        return Run(str(folder / "bits.py"), Path(out), **options)

    return run


def train_in(rank, run, third=None, **of_second):
    """Train, and return what was printed; the second has a folder that it must not touch.

    Args:
        third: what happens in the second process at its third step: (loss, terms) -> (loss, terms).
        of_second: how its run differs.
    """
    update, out = Trainer.update, StringIO()

    def changed(self, x):
        result = update(self, x)
        return third(*result) if self.step == 3 else result

    if rank == 1:
        run = replace(run, out=run.out.with_name(f"{run.out.name}-second"), **of_second)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        if rank == 1 and third:
            patch.setattr(Trainer, "update", changed)
        svi.train(run, Ends())
    assert rank == 0 or not run.out.exists()
    return out.getvalue()


def alone(run):
    return svi.train(run, Ends())


def state(out):
    return checkpoint.load(Path(out) / "checkpoint.ckpt")


def weights(out):
    modules = state(out)["modules"]
    return {f"{m}.{k}": v for m, module in modules.items() for k, v in module.items()}


def close(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=1e-4) for k in a)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_training_of_two_is_a_training_of_one(pair, bits, tmp_path):
    """The same images in the same order, averaged before they are clipped, logged as a whole, written once."""
    one, two = alone(bits(tmp_path / "one")), tmp_path / "two"
    printed = pair(train_in, bits(two))
    assert "step 8/8" in printed[0] and printed[1] == ""
    assert (two / "finished").exists()
    assert close(weights(one), weights(two))
    assert weights(two)["program.brightness"] > 0.1
    logs = [read_log(out / "log.jsonl") for out in (one, two)]
    assert [len(log) for log in logs] == [1, 1]
    for key in ("step", "loss", "term/images", "term/kl/z_pres"):
        assert logs[0][0][key] == pytest.approx(logs[1][0][key], rel=1e-4)
    assert json.loads((two / "config.json").read_text())["processes"] == 2


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_another_number_of_processes_can_continue(pair, bits, tmp_path, first, second):
    go = {1: alone, 2: lambda run: pair(train_in, run)}
    whole = weights(alone(bits(tmp_path / "whole")))
    go[first](bits(tmp_path / "parts", steps=3))
    go[second](bits(tmp_path / "parts", resume=True))
    assert state(tmp_path / "parts")["step"] == 8
    assert close(weights(tmp_path / "parts"), whole)


@pytest.mark.parametrize("estimator", ["nvil", "relax", "gumbel"])
def test_stop_and_resume_on_two_processes_equals_never_stopping_bit_for_bit(
    pair, bits, tmp_path, estimator
):
    for out, options in {"whole": {}, "parts": {"steps": 3}}.items():
        pair(train_in, bits(tmp_path / out, estimator=estimator, **options))
    noise = [state(tmp_path / "parts")["random"], *state(tmp_path / "parts")["others"]]
    assert len(noise) == 2 and not torch.equal(noise[0]["torch"], noise[1]["torch"])
    pair(train_in, bits(tmp_path / "parts", estimator=estimator, resume=True))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    pair(train_in, bits(tmp_path / "other", estimator=estimator, seed=1))
    assert not equal(weights(tmp_path / "whole"), weights(tmp_path / "other"))


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_another_number_of_processes_draws_noise_by_seed_step_and_rank(
    pair, bits, tmp_path, first, second
):
    go = {1: alone, 2: lambda run: pair(train_in, run)}
    for out, (seed, step) in {"a": (0, 3), "b": (0, 3), "c": (1, 3), "d": (0, 2)}.items():
        go[first](bits(tmp_path / out, steps=step, estimator="nvil", seed=seed))
        again = {"steps": step + 1, "resume": True, "seed": seed}
        go[second](bits(tmp_path / out, estimator="nvil", **again))
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    states = [state(tmp_path / out) for out in "abcd"]
    noise = [[r["torch"].numpy().tobytes() for r in (s["random"], *s["others"])] for s in states]
    assert len(noise[0]) == second and noise[0] == noise[1]
    assert len({*noise[0], *noise[2], *noise[3]}) == 3 * second


def interrupt(loss, terms):
    os.kill(os.getpid(), signal.SIGINT)
    return loss, terms


def terminate(loss, terms):
    os.kill(os.getpid(), signal.SIGTERM)
    return loss, terms


def poison(loss, terms):
    return loss, {**terms, "images": terms["images"] * math.nan}


def explode(loss, terms):
    raise IndexError("boom")


@pytest.mark.parametrize("third", [interrupt, terminate])
def test_a_signal_to_one_stops_all_at_the_same_step(pair, bits, tmp_path, third):
    printed = pair(train_in, bits(tmp_path / "run"), third)
    assert "stopped at step 3; continue with python -m" in printed[0] and printed[1] == ""
    assert state(tmp_path / "run")["step"] == 3 and not (tmp_path / "run" / "finished").exists()
    pair(train_in, bits(tmp_path / "run", resume=True))
    assert close(weights(tmp_path / "run"), weights(alone(bits(tmp_path / "whole"))))


def test_minutes_end_for_all_when_they_end_for_one(pair, bits, tmp_path):
    pair(partial(train_in, minutes=0.0), bits(tmp_path / "run"))
    assert state(tmp_path / "run")["step"] == 1 and (tmp_path / "run" / "finished").exists()


def train_impatiently(rank, *args):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svi, "LOG_EVERY", 1)
        patch.setattr(svi, "SAVE_SECONDS", (60, -1)[rank])
        return train_in(rank, *args)


def test_a_checkpoint_is_written_when_it_is_due_for_one(pair, bits, tmp_path):
    pair(train_impatiently, bits(tmp_path / "run"), explode)
    assert state(tmp_path / "run")["step"] == 2


def train_gsgn(rank, out, *settings):
    train_in(rank, tiny.run("gsgn", out, set=settings, steps=3))


def test_evaluation_on_the_first_changes_nothing(pair, tmp_path):
    pair(train_gsgn, tmp_path / "often", "train.evaluate_every=1")
    pair(train_gsgn, tmp_path / "seldom", "train.evaluate_every=3")
    often, seldom = (read_log(tmp_path / n / "log.jsonl") for n in ("often", "seldom"))
    assert [sum("part_f1" in record for record in log) for log in (often, seldom)] == [3, 1]
    assert equal(weights(tmp_path / "often"), weights(tmp_path / "seldom"))


def test_a_loss_that_is_not_finite_on_one_stops_all_with_the_site(pair, bits, tmp_path):
    pair(train_in, bits(tmp_path / "run", steps=2))
    before = (tmp_path / "run" / "checkpoint.ckpt").read_bytes()
    errors = pair(train_in, bits(tmp_path / "run", resume=True), poison)
    assert [type(e) for e in errors] == [FloatingPointError] * 2
    assert all("not finite at step 8: images is nan" in str(e) for e in errors)
    assert (tmp_path / "run" / "checkpoint.ckpt").read_bytes() == before


def test_an_exception_on_one_ends_all(pair, bits, tmp_path):
    first, second = pair(train_in, bits(tmp_path / "run"), explode)
    assert type(first) is distributed.Lost and "process 0 has lost the others" in str(first)
    assert type(second) is IndexError
    assert not (tmp_path / "run" / "checkpoint.ckpt").exists()


def main_in(rank, arguments):
    err = StringIO()
    with redirect_stderr(err):
        code = main(arguments)
    assert distributed.world() == 1  # it has left the others
    return code, err.getvalue()


def test_a_batch_that_cannot_be_split_is_one_sentence_from_one_process(pair, bits, tmp_path):
    run = bits("")
    arguments = [
        run.program,
        "--images",
        str(run.images),
        "--batch",
        "5",
        "--out",
        str(tmp_path / "a"),
    ]
    (code, error), second = pair(main_in, arguments)
    assert code == 2 and second == (2, "") and error.count("\n") == 1
    assert "batch of 5 images" in error and "2 processes" in error and "--batch 4" in error
    assert not (tmp_path / "a").exists()


def test_pictures_that_do_not_fill_a_batch_are_split_evenly(pair, bits, tmp_path):
    pair(train_in, bits(tmp_path / "run", batch=16, steps=2))
    assert close(
        weights(tmp_path / "run"), weights(alone(bits(tmp_path / "one", batch=12, steps=2)))
    )


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"4 processes .* 2 GPUs: .* --nproc-per-node 2"):
        distributed.start(torch.device("cuda"))


def one_first(rank):
    distributed.start(CPU)
    with distributed.one_first():
        started = time.monotonic()
        time.sleep(0.2)
        ended = time.monotonic()
    return started, ended


def test_one_process_fills_the_cache_before_the_others_look(pair):
    first, second = pair(one_first)
    assert first[1] <= second[0]


def test_torchrun_stops_on_a_signal_with_a_checkpoint(bits, tmp_path):
    run, out = bits(""), tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    command += ["-m", "inference.svi", run.program, "--images", str(run.images), "--batch", "4"]
    command += ["--steps", "100000", "--estimator", "nvil", "--device", "cpu", "--out", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    deadline = time.monotonic() + 100
    while not read_log(out / "log.jsonl") and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    printed, errors = process.communicate(timeout=60)
    assert printed.count("continue with python -m inference.svi") == 1, errors
    assert str(out) in printed and "--resume" in printed
    saved = state(out)
    assert saved["step"] >= 20 and len(saved["others"]) == 1
