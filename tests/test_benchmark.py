"""Timing: what is reported is what was run, and the other implementation is asked for by name."""

import json
import sys
import time
from itertools import pairwise

import pytest
import torch

from analysis import benchmark
from analysis.benchmark import alternate, main

SMALL = ["--set", "steps=1", "--set", "hidden=(8,)", "--set", "memory=8", "--set", "z_what=2"]
SMALL += ["--batch", "4", "--device", "cpu"]


def slow(images):
    """Another implementation's step."""
    assert images.shape == (4, 1, 50, 50) and 0 < images.max() <= 1
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
    arguments = ["programs/air.py", *SMALL, "--against", "another:slow", "--json", str(target)]
    assert main(arguments) == 0
    row = json.loads(target.read_text())
    assert row["program"] == "air" and row["batch"] == 4
    assert row["their milliseconds"] > 199
    assert row["ratio"] == pytest.approx(row["milliseconds"] / row["their milliseconds"])
    assert row["images_per_second"] == pytest.approx(4000 / row["milliseconds"])
    assert row["parameters"] < row["parameters with baselines"]
    assert "ratio" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nowhere:step", "analysis.benchmark:nothing", "step"])
def test_what_cannot_be_timed_is_named(name, capsys):
    assert main(["programs/air.py", *SMALL, "--against", name]) == 2
    assert f"--against {name!r}: expected MODULE:CALLABLE" in capsys.readouterr().err


def test_pyros_example_is_found_by_its_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PYRO_EXAMPLES", str(tmp_path))
    assert main(["programs/air.py", *SMALL, "--against", "analysis.pyro_air:step"]) == 2
    assert "set PYRO_EXAMPLES" in capsys.readouterr().err


def test_the_examples_prior_makes_every_object_less_probable_by_one_factor():
    from analysis.pyro_air import PRESENCE, presence

    stay = [presence(t) for t in range(3)]
    p = [1 - stay[0], stay[0] * (1 - stay[1]), stay[0] * stay[1] * (1 - stay[2])]
    p.append(stay[0] * stay[1] * stay[2])
    assert sum(p) == pytest.approx(1)
    assert [b / a for a, b in pairwise(p)] == pytest.approx([PRESENCE] * 3)
