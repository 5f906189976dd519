"""The trainer and its command line: exact resume, clean stops, and errors that teach."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import GSGN, OWN, equal, small, train, weights

from analysis import evaluate
from inference import checkpoint, svi
from inference.estimators import estimator
from inference.loading import ROOT
from inference.log import keep_until, read_log
from inference.plan import Run, command, plan
from inference.recipes import Recipe
from inference.schedules import (
    Exponential,
    Linear,
    LinearVariance,
    Points,
    Ramp,
    Until,
    WarmupDecay,
)
from inference.svi import main, parse
from inference.trainer import Trainer, largest


def test_a_run_leaves_all_it_promises(tmp_path, capsys):
    out = train(small(tmp_path / "run"))
    names = {p.name for p in out.iterdir()}
    assert names >= {"config.json", "log.jsonl", "checkpoint.ckpt", "metrics.json"}
    assert names >= {"scene_graphs.png", "prior_scenes.png", "prior_objects.png", "curves.png"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["scenes"] == 12 and metrics["step"] == 4 and metrics["seed"] == 0
    assert metrics["iwae"] >= metrics["elbo"]
    assert 0 <= metrics["structure_accuracy"] <= 1
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["hidden"] == 24 and config["recipe"]["scenes"] == 64
    printed = capsys.readouterr().out
    assert "scene_graphs.png" in printed and "part_f1" in printed


@pytest.mark.parametrize("estimator", ["gumbel", "nvil"])
@pytest.mark.parametrize("stop", [1, 3])
def test_stop_and_resume_equals_never_stopping_bit_for_bit(tmp_path, estimator, stop):
    train(small(tmp_path / "whole", steps=6, estimator=estimator))
    train(small(tmp_path / "parts", steps=stop, estimator=estimator))
    train(small(tmp_path / "parts", steps=6, estimator=estimator, resume=True))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    train(small(tmp_path / "other", steps=6, estimator=estimator, seed=1))
    assert not equal(weights(tmp_path / "whole"), weights(tmp_path / "other"))


def test_evaluation_during_training_changes_nothing(tmp_path):
    train(small(tmp_path / "often", set=("train.evaluate_every=1",)))
    train(small(tmp_path / "seldom"))
    assert equal(weights(tmp_path / "often"), weights(tmp_path / "seldom"))


def test_resume_in_an_empty_folder_begins(tmp_path):
    train(small(tmp_path / "a", resume=True))
    train(small(tmp_path / "b"))
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize("variant", ["gsgn", "gsgn9", "no_share", "no_aux", "four_levels"])
def test_twenty_steps_train(tmp_path, variant):
    changes = ("train.auxiliary={}",) if variant == "no_aux" else ()
    name = "gsgn" if variant == "no_aux" else variant
    out = train(small(tmp_path, variant=name, steps=20, set=changes, resume=True))
    records = [r for r in read_log(out / "log.jsonl") if "loss" in r]
    assert records[-1]["step"] == 20 and math.isfinite(records[-1]["loss"])
    assert any(k.startswith("term/aux/") for k in records[-1]) == (variant != "no_aux")
    if variant == "four_levels":
        assert "term/kl/z_pres_3" in records[-1] and "term/aux/z_pres_3" in records[-1]
        metrics = json.loads((out / "metrics.json").read_text())
        assert {"group_f1", "object_f1", "part_f1", "structure_accuracy"} <= set(metrics)


def test_minutes_stops_with_a_checkpoint(tmp_path):
    out = train(small(tmp_path / "run", steps=10_000, minutes=0.02))
    step = checkpoint.load(out / "checkpoint.ckpt")["step"]
    assert 0 < step < 10_000
    assert json.loads((out / "metrics.json").read_text())["step"] == step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_writes(tmp_path, number):
    command = [sys.executable, "-m", "inference.svi", GSGN, "--preset", "tiny", "--steps", "100000"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run"), "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not read_log(log) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "--resume" in out
    assert checkpoint.load(tmp_path / "run" / "checkpoint.ckpt")["step"] >= 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["programs/nothing.py"], ["no program file", "programs/gsgn.py"]),
        (["programs/scene.py"], ["holds no program", "Guide"]),
        (["README.md"], ["not a Python file"]),
        ([GSGN, "--variant", "gsgn7"], ["unknown variant 'gsgn7'", "no_share"]),
        ([GSGN, "--preset", "slow"], ["unknown preset 'slow'", "paper"]),
        ([GSGN, "--world", "moon"], ["unknown world 'moon'", "shapes2d"]),
        ([GSGN, "--estimator", "magic"], ["unknown estimator 'magic'", "nvil"]),
        ([GSGN, "--set", "colour=3"], ["unknown field of program gsgn 'colour'", "children"]),
        ([GSGN, "--set", "hidden=large"], ["hidden='large' is str", "int"]),
        ([GSGN, "--set", "children=(4, 4, 4)"], ["z_what", "needs 4"]),
        ([GSGN, "--set", "children=(4, 5)"], ["out-degrees are squares"]),
        ([GSGN, "--set", "hidden"], ["write FIELD=VALUE"]),
        ([GSGN, "--set", "world.layout=spiral"], ["unknown layout 'spiral'", "quadrants, free"]),
        ([GSGN, "--steps", "0"], ["steps=0 must be at least 1"]),
        ([GSGN, "--batch", "-2"], ["batch=-2"]),
        ([GSGN, "--device", "tpu"], ["unknown device 'tpu'"]),
        ([GSGN, "--images", "no/such/folder"], ["no folder 'no/such/folder'"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([GSGN, "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unwritable_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([GSGN, "--out", str(tmp_path / "file" / "run")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["torn", "foreign", "flipped"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path, capsys, damage):
    out = train(small(tmp_path / "run"))
    path = out / "checkpoint.ckpt"
    body = bytearray(path.read_bytes())
    if damage == "torn":
        body = body[: len(body) // 2]
    elif damage == "foreign":
        body = bytearray(b"PK\x03\x04 something else")
    else:
        body[len(body) // 2] ^= 1
    path.write_bytes(body)
    with pytest.raises(ValueError, match=r"checkpoint\.ckpt is (torn|not a checkpoint)"):
        train(small(tmp_path / "run", steps=6, resume=True))
    assert path.read_bytes() == bytes(body)


def test_a_checkpoint_of_another_variant_is_refused(tmp_path):
    train(small(tmp_path / "run"))
    with pytest.raises(ValueError, match="begun with another variant, config: give --out another"):
        train(small(tmp_path / "run", variant="no_share", resume=True))
    (tmp_path / "run" / "config.json").unlink()  # then only the weights can tell
    with pytest.raises(ValueError, match="does not fit this run"):
        train(small(tmp_path / "run", variant="no_share", resume=True))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seed": 3}, "seed"),
        ({"set": ("train.batch=3",)}, "batch"),
        ({"estimator": "reinmax"}, "estimator"),
        ({"set": ("world.max_objects=3",)}, "world"),
    ],
)
def test_a_run_goes_on_only_as_it_began(tmp_path, changes, word):
    run = small(tmp_path / "run")
    train(run)
    before = (tmp_path / "run" / "config.json").read_bytes()
    changes = changes | {"set": (*run.set, *changes.get("set", ()))}
    with pytest.raises(ValueError, match=f"begun with another {word}: give --out another"):
        train(replace(run, resume=True, steps=6, **changes))
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    again = replace(run, resume=True, steps=6, set=(*run.set, "train.rate=0.5"))
    train(again)
    log = [r for r in read_log(tmp_path / "run" / "log.jsonl") if "learning_rate" in r]
    rate = plan(run).recipe.schedules["learning_rate"]
    assert log[-1]["step"] == 6 and log[-1]["learning_rate"] == 0.5 * rate(6)


def test_a_run_that_took_no_step_can_be_begun_again(tmp_path):
    run = small(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    train(run)
    with pytest.raises(ValueError, match="not empty"):
        train(run)


def test_a_loss_that_is_not_finite_names_its_site_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(svi, "LOG_EVERY", 1)
    train(small(tmp_path / "run"))
    before = (tmp_path / "run" / "checkpoint.ckpt").read_bytes()
    original = Trainer.update

    def poisoned(self, x):
        loss, terms = original(self, x)
        return loss * math.nan, {**terms, "images": terms["images"] * math.nan}

    monkeypatch.setattr(Trainer, "update", poisoned)
    with pytest.raises(FloatingPointError, match="step 5: images is nan"):
        train(small(tmp_path / "run", steps=6, resume=True))
    assert (tmp_path / "run" / "checkpoint.ckpt").read_bytes() == before


def test_plain_functions_train_on_a_folder_of_images_and_resume_exactly(tmp_path):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.new("RGB", (20, 16), (i * 20, 100, 50)).save(tmp_path / "pictures" / f"{i}.png")
    path = tmp_path / "own.py"
    path.write_text(OWN)
    common = {"images": tmp_path / "pictures", "batch": 4, "set": ("world.size=8",)}
    run = lambda out, steps, **kw: train(
        Run(str(path), tmp_path / out, steps=steps, **common, **kw)
    )
    run("whole", 30)
    run("parts", 10)
    run("parts", 30, resume=True)
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert weights(tmp_path / "whole")["program.colour"] != 0  # it began there
    assert {"program.colour", "guide.net$$$weight"} <= weights(tmp_path / "whole").keys()
    written = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert evaluate.main([str(tmp_path / "whole"), "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["elbo"] == pytest.approx(written["elbo"]) and again["scenes"] == 12


def test_a_program_and_guide_that_disagree_are_refused_by_site(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        OWN.replace('pyro.sample("z_what", dist.Normal(loc', 'pyro.sample("z", dist.Normal(loc')
    )
    with pytest.raises(ValueError, match=r"program has z_what of .* guide z of"):
        train(Run(str(path), tmp_path / "run", steps=2, set=("train.scenes=8", "train.batch=4")))


def test_the_command_line_is_what_is_promised():
    words = (
        "p.py --variant v --preset paper --world w --estimator e --steps 7 --minutes 2.5 --batch 3"
    )
    words += " --seed 4 --device cpu --out o --resume --set a=1 --set world.b=2"
    expected = {"variant": "v", "preset": "paper", "world": "w", "images": None, "estimator": "e"}
    expected |= {"steps": 7, "minutes": 2.5, "batch": 3, "seed": 4, "device": "cpu", "resume": True}
    run = parse(words.split())
    assert run == Run("p.py", Path("o"), **expected, set=("a=1", "world.b=2"))
    assert parse(["p.py", "--world", "w", "--images", "d"]).images == Path("d")
    assert parse([GSGN]).out == Path("runs/gsgn-shapes2d")
    assert parse(shlex.split(command(run))[3:]) == replace(run, resume=False)


def test_schedules_take_their_values_at_the_corners():
    assert [Linear(1, 3, 10, begin=5)(s) for s in (0, 5, 10, 15, 99)] == [1, 1, 2, 3, 3]
    decay = Exponential(2.5, 0.5, 100)
    assert decay(0) == pytest.approx(2.5) and decay(100) == pytest.approx(0.5)
    assert decay(50) == pytest.approx(math.sqrt(2.5 * 0.5))
    rate = WarmupDecay(1e-3, warmup=10, half_life=100)
    assert rate(0) == pytest.approx(1e-4) and rate(9) == pytest.approx(1e-3)
    assert rate(110) == pytest.approx(5e-4)
    held = WarmupDecay(1e-3, warmup=10, half_life=100, hold=50)
    assert held(60) == pytest.approx(1e-3) and held(160) == pytest.approx(5e-4)
    variance = LinearVariance(0.15, 0.3, 10, begin=5)
    assert (variance(5), variance(20)) == (0.15, 0.3)
    assert variance(10) ** 2 == pytest.approx((0.15**2 + 0.3**2) / 2)
    ramp = Ramp(1.0, 5.0, 10, begin=5)
    assert [ramp(step) for step in (0, 5, 10, 14, 15)] == [1.0, 1.0, 3.0, 4.6, 1.0]
    points = Points(((10, 1.0), (20, 4.0), (30, 4.0), (40, 0.04)))
    values = [points(step) for step in (0, 10, 15, 20, 25, 35, 40, 99)]
    assert values == pytest.approx([1, 1, 2, 4, 4, 0.4, 0.04, 0.04])
    assert Until(0.1, 3)(2) == 0.1 and math.isnan(Until(0.1, 3)(3))


def test_the_steps_of_a_run_bend_no_schedule():
    short, long = (plan(Run(GSGN, Path("x"), steps=n)).recipe for n in (10, 100_000))
    assert short.schedules == long.schedules
    assert isinstance(short, Recipe)


def test_the_log_forgets_steps_that_will_be_run_again(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 20}\n{"step": 40}\n{"step": 6')
    keep_until(path, 30)
    assert read_log(path) == [{"step": 20}]


def test_a_checkpoint_restores_every_random_state():
    import random

    import numpy as np

    state = checkpoint.random_state()
    draw = lambda: (torch.rand(2).tolist(), random.random(), float(np.random.rand()))
    first = draw()
    assert draw() != first
    checkpoint.set_random_state(state)
    assert draw() == first


def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.ckpt"
    checkpoint.save(path, {"step": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match="disk full"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 1}


def test_a_weight_on_a_schedule_multiplies_the_kl_of_the_sites_it_names(tmp_path):
    p = plan(small(tmp_path))
    plain = {k: v for k, v in p.recipe.schedules.items() if not k.startswith("weight.")}
    plain["learning_rate"] = Linear(0.0, 0.0, 1)
    weighed = {**plain, "weight.z_what*": Linear(0.0, 3.0, 1)}
    found = {}
    for name, schedules in (("plain", plain), ("weighed", weighed)):
        torch.manual_seed(0)
        modules = p.source.build(p.config)
        gradients = estimator("gumbel")
        chosen = replace(p, recipe=replace(p.recipe, schedules=schedules))
        trainer, x = Trainer(chosen, *modules, gradients), torch.rand(2, 3, 32, 32)
        found[name] = [(torch.manual_seed(1), trainer.update(x)[1])[1] for _ in range(2)]
    for before, after, factor in zip(found["plain"], found["weighed"], (0, 3), strict=True):
        for term, value in before.items():
            wanted = factor * value if term.startswith("kl/z_what") else value
            torch.testing.assert_close(after[term], wanted)


def test_gradients_are_clipped_by_their_largest_number():
    parameters = [torch.nn.Parameter(torch.randn(n)) for n in (15, 7, 2)]
    for p in parameters[:2]:
        p.grad = 3 * torch.randn_like(p)
    assert largest(parameters) == torch.cat([p.grad for p in parameters[:2]]).abs().max()
    parameters[1].grad[3] = math.nan
    assert largest(parameters).isnan()
