"""Kill -9, full disks, damaged files: a run goes on as if nothing had been, or says what to do."""

import errno
import hashlib
import io
import itertools
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from training import OWN

from analysis import evaluate
from inference import checkpoint, runs, svi
from inference.loading import ROOT
from inference.log import read_log
from inference.svi import main
from inference.trainer import Trainer

SECONDS = ("seconds", "images_per_second")


def prepare_process():
    """Small and quick, a checkpoint every second step."""
    torch.set_num_threads(1)
    svi.LOG_EVERY, svi.SAVE_SECONDS = 2, 0
    evaluate.pictures = lambda *_: []


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(svi, "LOG_EVERY", 2)
    monkeypatch.setattr(svi, "SAVE_SECONDS", 0)
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with everything imported, and nothing run."""
    context = multiprocessing.get_context("forkserver")
    late = ["torch._dynamo", "torch.onnx"]  # which torch imports when an optimiser is made
    context.set_forkserver_preload(["inference.svi", "analysis.evaluate", *late])
    return context


@pytest.fixture
def own(tmp_path):
    """Arguments of a tiny run."""
    (tmp_path / "own.py").write_text(OWN.replace("8, 8", "32, 32"))
    options = ["--batch", "4", "--steps", "6", "--device", "cpu", "--resume"]
    settings = ("scenes=16", "evaluate_every=4", "validation_scenes=4", "test_scenes=4")
    for setting in ("world.size=32", *(f"train.{s}" for s in settings)):
        options += ["--set", setting]
    return [str(tmp_path / "own.py"), *options]


def job(arguments, out, before=None, *how):
    """A run in a process of its own; what it says goes to a file."""
    prepare_process()
    if before:
        before(out, *how)
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
        code = main([*arguments, "--out", str(out)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path(f"{out}.said").write_text(said.getvalue())
    sys.exit(code)


def run(processes, arguments, out, *how, seconds=None):
    """A run's exit code; None if it was killed after `seconds`."""
    process = processes.Process(target=job, args=(arguments, out, *how))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def readable(out):
    """Whatever is in a run folder can be read, and used."""
    assert all(isinstance(record["step"], int) for record in read_log(out / "log.jsonl"))
    if (out / "config.json").exists():
        runs.read_config(out)
    if checkpoint.exists(out / "checkpoint.ckpt"):
        runs.open_run(out)
    if (out / "metrics.json").exists():
        runs.read_json(out / "metrics.json")


def bits(content):
    """The same with the bytes of tensors in their places."""
    if isinstance(content, torch.Tensor):
        return content.dtype, content.shape, content.numpy().tobytes()
    if isinstance(content, dict):
        return {key: bits(value) for key, value in content.items()}
    return [bits(value) for value in content] if isinstance(content, list | tuple) else content


def left(out):
    """All that a run leaves, but for what tells the time and where it is."""
    files = {p.name for p in out.iterdir()}
    log = [{k: v for k, v in r.items() if k not in SECONDS} for r in read_log(out / "log.jsonl")]
    metrics = runs.read_json(out / "metrics.json")
    config = {**runs.read_config(out), "command": None}
    return {
        "files": files | {"checkpoint.previous.ckpt"},
        "checkpoint": bits(checkpoint.load(out / "checkpoint.ckpt")),
        "lines": len((out / "log.jsonl").read_text().splitlines()),
        "log": log,
        "metrics": {k: v for k, v in metrics.items() if k not in SECONDS},
        "config": config,
    }


@pytest.mark.parametrize(("kills", "steps"), [(3, 8), pytest.param(40, 60, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_ends_as_if_it_had_never_been(
    processes, tmp_path, kills, steps
):
    arguments = ["programs/air.py", "--preset", "tiny", "--steps", str(steps), "--device", "cpu"]
    arguments += ["--set", "train.evaluate_every=4", "--resume"]
    assert run(processes, arguments, tmp_path / "first") == 0  # draws the scenes
    started = time.monotonic()
    assert run(processes, arguments, tmp_path / "whole") == 0
    duration, whole = time.monotonic() - started, left(tmp_path / "whole")
    assert left(tmp_path / "first") == whole
    moments, killed, ended = random.Random(0), 0, 0
    while killed < kills or not ended:
        out = tmp_path / str(ended)
        seconds = moments.uniform(0, duration) if killed < kills else None
        code = run(processes, arguments, out, seconds=seconds)
        if code is None:
            killed += 1
            readable(out) if out.exists() else None
        else:
            assert code == 0
            assert left(out) == whole
            ended += 1


def kill_at(out, number):
    """The process is killed before the operation of this number on a file in the run folder."""
    place, count = f"{out}/", itertools.count(1)
    changes = ("open", "os.rename", "os.remove", "os.mkdir")

    def watch(event, arguments):
        inside = event in changes and f"{arguments[0]}/".startswith(place)
        if inside and (event != "open" or arguments[1] != "r") and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


@pytest.mark.parametrize(
    "numbers",
    [(7, 13, 15), pytest.param(range(1, 99), marks=pytest.mark.slow)],
    ids=("some", "all"),
)
def test_killed_before_any_operation_on_its_files_a_run_ends_as_if_it_had_never_been(
    processes, tmp_path, own, numbers
):
    assert run(processes, own, tmp_path / "whole") == 0
    whole = left(tmp_path / "whole")
    for number in numbers:
        out = tmp_path / f"run{number}"
        code = run(processes, own, out, kill_at, number)
        if code == 0:
            assert number > 20
            break
        assert code == -signal.SIGKILL
        if out.exists():
            readable(out)
        assert run(processes, own, out) == 0
        assert left(out) == whole, number


def sentence(error):
    """The one line that was said."""
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def limit_files(_, size):
    """No file can grow beyond `size` bytes: to who writes, a full disk."""
    svi.SAVE_SECONDS = 60
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize(
    ("size", "file"), [(600, "config.json"), (2000, "log.jsonl"), (9000, "checkpoint.ckpt")]
)
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    processes, tmp_path, own, size, file
):
    own += ["--steps", "24"]
    assert run(processes, own, tmp_path / "whole") == 0
    out = tmp_path / "run"
    assert run(processes, own, out, limit_files, size) == 2
    said = sentence(Path(f"{out}.said").read_text())
    assert f"cannot write {out / file}: File too large" in said and "room" in said
    assert not list(out.glob("*.tmp"))
    readable(out)
    assert run(processes, own, out) == 0
    assert left(out) == left(tmp_path / "whole")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(
    tmp_path, own, monkeypatch, capsys, call
):
    out, arguments = tmp_path / "run", [*own, "--out", str(tmp_path / "run")]
    assert main([*arguments, "--steps", "2"]) == 0
    before, original = (out / "checkpoint.ckpt").read_bytes(), getattr(os, call)

    def fail(what, *rest):
        name = what if call == "replace" else os.readlink(f"/proc/self/fd/{what}")
        if Path(name).name == "checkpoint.ckpt.tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(what, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        assert main(arguments) == 2
    said = sentence(capsys.readouterr().err)
    assert f"cannot write {out}/checkpoint.ckpt: No space left on device" in said
    kept = out / ("checkpoint.ckpt" if call == "fsync" else "checkpoint.previous.ckpt")
    assert f"--resume from {kept}, which is kept" in said
    assert kept.read_bytes() == before and checkpoint.load(out / "checkpoint.ckpt")["step"] == 2
    assert not list(out.glob("*.tmp"))


def test_a_folder_on_a_read_only_disk_is_refused(tmp_path, own, monkeypatch, capsys):
    def touch(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "touch", touch)
    assert main([*own, "--out", str(tmp_path / "run")]) == 2
    said = sentence(capsys.readouterr().err)
    assert f"cannot write to {tmp_path / 'run'}: Read-only file system; give another --out" in said


@pytest.fixture
def trained(tmp_path, own):
    """A run folder with two checkpoints."""
    assert main([*own, "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_named(trained, own, capsys):
    path, older = trained / "checkpoint.ckpt", trained / "checkpoint.previous.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert main([*own, "--out", str(trained)]) == 2
    said = sentence(capsys.readouterr().err)
    assert f"{path} is torn or damaged" in said and f"mv {older} {path}, then" in said
    assert evaluate.main([str(trained)]) == 2
    assert f"{path} is torn or damaged" in sentence(capsys.readouterr().err)
    shutil.move(older, path)
    assert checkpoint.load(path)["step"] == 4
    assert main([*own, "--out", str(trained)]) == 0
    assert [r["step"] for r in read_log(trained / "log.jsonl")] == [2, 4, 4, 6, 6]


def test_without_a_good_checkpoint_none_is_named(trained):
    path, older = trained / "checkpoint.ckpt", trained / "checkpoint.previous.ckpt"
    for file in (path, older):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"ckpt is torn .*; restore a copy of it, or begin again"):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [{}, {"modules": 3}, {"step": 1, "modules": {}}])
def test_a_checkpoint_that_holds_something_else_is_refused(trained, own, capsys, content):
    checkpoint.save(trained / "checkpoint.ckpt", content)
    capsys.readouterr()
    assert main([*own, "--out", str(trained)]) == 2
    assert "the checkpoint does not fit this run" in sentence(capsys.readouterr().err)
    assert evaluate.main([str(trained)]) == 2
    assert "run" in sentence(capsys.readouterr().err)


class Malice:
    """Makes a file where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("where", ["checkpoint.ckpt", "weights.safetensors", "config.json"])
def test_no_file_of_a_run_is_run_as_code(trained, own, tmp_path, capsys, where):
    malice, torch_malice = pickle.dumps(Malice(tmp_path / "touched")), io.BytesIO()
    torch.save({"step": Malice(tmp_path / "touched")}, torch_malice)
    if where == "weights.safetensors":  # which are read where there is no checkpoint
        for file in trained.glob("*.ckpt"):
            file.unlink()
    for content in (malice, torch_malice.getvalue()):
        if where == "checkpoint.ckpt":
            content = checkpoint.MAGIC + hashlib.sha256(content).digest() + content
        (trained / where).write_bytes(content)
        capsys.readouterr()
        assert evaluate.main([str(trained), "--scenes", "2"]) == 2
        assert where in sentence(capsys.readouterr().err)
        if where == "checkpoint.ckpt":
            assert main([*own, "--out", str(trained)]) == 2
            assert "holds more than tensors and plain values" in capsys.readouterr().err
        assert not (tmp_path / "touched").exists()
    pickle.loads(malice)
    assert (tmp_path / "touched").exists()  # it would have been


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[: len(text) // 2], "cannot read"),
        (lambda text: text.replace("air", "\udcff"), "cannot read"),
        (lambda text: "[" * 100_000, "cannot read"),
        (lambda text: "[1]", "holds a list"),
        (lambda text: text.replace('"variant"', '"kind"'), "has no variant"),
        (lambda text: text.replace('"colours"', '"hues"'), "unknown field of program air 'hues'"),
        (
            lambda text: text.replace('"variant": "air"', '"variant": "air2"'),
            "unknown variant 'air2'",
        ),
        (lambda text: text.replace('"steps": 3,', '"steps": "three",'), "'three' is str"),
        (lambda text: text.replace('"memory": 256', '"memory": 128'), "does not fit"),
    ],
)
def test_a_config_that_is_damaged_or_of_a_newer_version_is_refused(tmp_path, capsys, change, words):
    shutil.copytree(ROOT / "programs" / "trained" / "air-multi_mnist", tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    assert evaluate.main([str(tmp_path / "run")]) == 2
    said = sentence(capsys.readouterr().err)
    assert words in said and str(tmp_path / "run") in said


def test_a_run_without_a_checkpoint_yet_is_refused_with_what_to_do(trained, capsys):
    for file in (*trained.glob("*.ckpt"), trained / "weights.safetensors"):
        file.unlink()
    capsys.readouterr()
    assert evaluate.main([str(trained)]) == 2
    assert "checkpoint.ckpt is not there" in sentence(capsys.readouterr().err)


def test_weights_that_are_not_finite_are_never_saved(trained, own, monkeypatch, capsys):
    """The loss of the step that spoils them was still finite."""
    before, update = (trained / "checkpoint.ckpt").read_bytes(), Trainer.update

    def spoiled(self, x):
        found = update(self, x)
        with torch.no_grad():
            self.learned[0].fill_(torch.nan)
        return found

    monkeypatch.setattr(Trainer, "update", spoiled)
    assert main([*own, "--out", str(trained), "--steps", "7"]) == 1
    assert "program.colour is not finite at step 7" in sentence(capsys.readouterr().err)
    assert (trained / "checkpoint.ckpt").read_bytes() == before
