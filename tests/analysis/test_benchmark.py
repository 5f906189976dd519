"""Timing: what is reported is what was run, and the other implementation is asked for by name."""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch

from analysis import benchmark
from analysis.benchmark import Phases, alternate, learner, main, work
from analysis.papers.air import pyro_air
from inference.plan import Run, plan

SMALL = ["--preset", "tiny", "--set", "steps=1", "--batch", "4", "--device", "cpu"]


def slow(images):
    """Another implementation's step."""
    assert images.shape == (4, 1, 40, 40) and 0 < images.max() <= 1
    return lambda: time.sleep(0.2)


def test_two_implementations_take_turns(monkeypatch):
    turns = []
    monkeypatch.setattr(benchmark, "ROUNDS", 3)
    monkeypatch.setattr(benchmark, "STEPS", 2)
    steps = {name: lambda name=name: turns.append(name) for name in "ab"}
    times = alternate(steps, torch.device("cpu"))
    assert "".join(turns) == "aabb" * 3
    assert {name: len(t) for name, t in times.items()} == {"a": 2, "b": 2}


def test_a_step_is_timed_beside_another(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "ROUNDS", 2)
    monkeypatch.setattr(benchmark, "STEPS", 1)
    monkeypatch.setitem(sys.modules, "another", sys.modules[__name__])
    target = tmp_path / "row.json"
    arguments = [
        "programs/air.py",
        *SMALL,
        "--estimator",
        "nvil",
        "--against",
        "another:slow",
        "--json",
        str(target),
    ]
    assert main(arguments) == 0
    (row,) = json.loads(target.read_text())
    assert row["program"] == "air" and row["batch"] == 4
    assert row["their milliseconds"] > 199
    assert row["ratio"] == pytest.approx(row["milliseconds"] / row["their milliseconds"])
    assert row["images_per_second"] == pytest.approx(4000 / row["milliseconds"])
    assert row["parameters"] < row["parameters with baselines"]
    assert "ratio" in capsys.readouterr().out
    assert row["operations"] > 100 and row["peak MiB"] > 50
    assert 0 < row["share of a matrix product"] < 1 and 0 <= row["python share"] < 1


def small(**changes):
    return tiny.run("air", "unused", batch=4, set=("steps=1",), **changes)


def test_the_phases_are_the_whole_step_and_each_is_where_it_should_be(monkeypatch):
    """A guide, an optimiser and a data set that are made slow are found to be."""
    ours = learner(small())

    def slow(seconds):
        return lambda *_: time.sleep(seconds)

    phases = Phases(ours)
    ours.guide.register_forward_pre_hook(slow(0.3))
    ours.program.register_forward_pre_hook(slow(0.2))
    step, images = ours.trainer.optimiser.step, ours.images
    monkeypatch.setattr(ours, "images", lambda n: (time.sleep(0.1), images(n))[1])
    started = time.perf_counter()
    found = phases.measure(2)
    whole = 1000 * (time.perf_counter() - started) / 2
    assert list(found) == [f"ms {name}" for name in Phases.NAMES]
    assert sum(found.values()) == pytest.approx(whole, rel=0.05)
    assert (
        found["ms guide"] > 300
        and found["ms data"] > 100
        and 200 < found["ms program"] < found["ms guide"]
    )
    assert ours.trainer.step == 2 and not ours.trainer.optimiser._optimizer_step_pre_hooks
    assert step == ours.trainer.optimiser.step


def test_work_is_counted():
    """A product of (8, 32) and (32, 16) is 2 · 8 · 32 · 16 operations, its transposition one more call."""
    a, b = torch.randn(8, 32), torch.randn(16, 32)
    found = work(lambda: a @ b.t(), torch.device("cpu"))
    assert found["gigaflop"] == pytest.approx(2 * 8 * 32 * 16 / 1e9)
    assert found["operations"] == 2
    idle = work(lambda: (time.sleep(0.05), a @ b.t()), torch.device("cpu"))
    assert idle["python share"] > 0.9


def test_what_can_be_varied_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "ROUNDS", 2)
    monkeypatch.setattr(benchmark, "STEPS", 1)
    arguments = ["programs/air.py", *SMALL, "--scaling", str(tmp_path / "s.png")]
    assert main([*arguments, "--json", str(tmp_path / "s.json")]) == 0
    (row,) = json.loads((tmp_path / "s.json").read_text())
    assert list(row["scaling"]) == ["batch", "nodes", "image size"]
    assert list(row["scaling"]["batch"]) == ["1", "2", "4", "8"]
    assert all(ms > 0 for axis in row["scaling"].values() for ms in axis.values())
    assert (tmp_path / "s.png").stat().st_size > 10_000


@pytest.mark.parametrize("program", benchmark.SCALING)
def test_every_variation_is_a_configuration(program):
    for labels in benchmark.SCALING[program].values():
        for settings in labels.values():
            plan(Run(f"programs/{program}.py", Path(), set=settings, device="cpu"))


@pytest.mark.parametrize("name", ["nowhere:step", "analysis.benchmark:nothing", "step"])
def test_what_cannot_be_timed_is_named(name, capsys):
    assert main(["programs/air.py", *SMALL, "--against", name]) == 2
    assert f"--against {name!r}: expected MODULE:CALLABLE" in capsys.readouterr().err


def test_pyros_example_is_found_by_its_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PYRO_EXAMPLES", str(tmp_path))
    assert main(["programs/air.py", *SMALL, "--against", "analysis.papers.air.pyro_air:step"]) == 2
    assert "set PYRO_EXAMPLES" in capsys.readouterr().err
    assert pyro_air.main(["--steps", "1"]) == 2
    assert "set PYRO_EXAMPLES" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "name"), [("gnm", "GNM_CHECKOUT"), ("space", "SPACE_CHECKOUT")]
)
def test_official_code_is_found_by_its_folder(program, name, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(name, str(tmp_path))
    against = f"analysis.papers.official:{program}"
    assert main(["programs/air.py", *SMALL, "--against", against]) == 2
    assert f"set {name}" in capsys.readouterr().err


def test_what_the_official_code_anneals_is_at_its_end():
    from analysis.papers.official import Attributes, at_the_end

    train = Attributes(a_anneal_start_value=1, a_anneal_end_value=2, a_anneal_end_step=9)
    train |= {"b_anneal_start_value": 3, "b_anneal_end_value": 4, "b_anneal_end_step": 0}
    at_the_end(train)
    assert (train.a, train["b"]) == (2, 3)
    with pytest.raises(AttributeError):
        train.c  # noqa: B018


def test_the_examples_prior_makes_every_object_less_probable_by_one_factor():
    from analysis.papers.air.pyro_air import PRESENCE, presence

    stay = [presence(t) for t in range(3)]
    p = [1 - stay[0], stay[0] * (1 - stay[1]), stay[0] * stay[1] * (1 - stay[2])]
    p.append(stay[0] * stay[1] * stay[2])
    assert sum(p) == pytest.approx(1)
    assert [b / a for a, b in pairwise(p)] == pytest.approx([PRESENCE] * 3)


def test_settings_are_timed_beside_the_base(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "ROUNDS", 2)
    monkeypatch.setattr(benchmark, "STEPS", 1)
    target, setting = tmp_path / "row.json", "train.precision=bf16 train.layout=channels_last"
    arguments = ["programs/air.py", *SMALL, "--cpu-time", "--json", str(target)]
    assert main([*arguments, "--beside", setting, "--beside", "steps=3"]) == 0
    (row,) = json.loads(target.read_text())
    for name in (setting, "steps=3"):
        expected = row[f"milliseconds, {name}"] / row["milliseconds"]
        assert row[f"ratio, {name}"] == pytest.approx(expected)
    assert row["ratio, steps=3"] > 1.2  # three objects instead of one
    assert "eager milliseconds" not in row  # a CPU


def test_kernels_are_what_ran_on_the_gpu():
    cuda, cpu = torch.autograd.DeviceType.CUDA, torch.autograd.DeviceType.CPU
    kernel = SimpleNamespace(device_type=cuda)
    span = SimpleNamespace(device_type=cuda, is_user_annotation=True)
    host = SimpleNamespace(device_type=cpu)
    assert benchmark.kernels([kernel, span, host, kernel]) == [kernel, kernel]


def test_cpu_time_does_not_count_what_waits():
    step = {"a": lambda: time.sleep(0.02)}
    own = alternate(step, torch.device("cpu"), time.process_time)["a"]
    assert own.max() < 10 and alternate(step, torch.device("cpu"))["a"].min() > 19
