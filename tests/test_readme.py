"""The README is true: its code runs, its commands are understood, the files it names are there."""

import math
import re
import shlex
from pathlib import Path

import pyro
import pytest
from readme import INFERRING, OWN, READING, TEXT, TRUSTING
from training import train

from inference.loading import ROOT
from inference.log import read_log
from inference.plan import Run
from inference.svi import parse

COMMANDS = re.findall(r"^python -m inference\.svi (?!PROGRAM)(.*?)$", TEXT, re.M)


def test_a_program_is_read_and_trained_by_pyro_as_shown():
    names = {}
    with pyro.settings.context(module_local_params=False):  # Pyro's default
        exec(READING, names)
    assert names["prior"].image.shape == (4, 3, 128, 128)
    assert math.isfinite(names["loss"])


def test_the_shipped_run_infers_as_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(READING.split("program =")[0] + INFERRING, names)
    assert (tmp_path / "scene_graphs.png").stat().st_size > 10_000
    assert names["bound"].shape == (20,) and names["fantasy"].shape[:2] == (16, 3)
    assert names["scene"].image.sub(names["images"]).square().mean() < 0.01
    assert "part_f1" in capsys.readouterr().out
    exec(TRUSTING, names)
    assert (tmp_path / "posterior.nc").exists() and names["weights"].shape == (50, 4)
    assert names["moved"].image.shape == names["dreamt"].image.shape == (1, 3, 64, 64)
    out = capsys.readouterr().out
    assert "n_parts[3]" in out and "edge_energy" in out and "coverage80_n_objects" in out


@pytest.mark.parametrize("estimator", ["nvil", "gumbel"])
def test_the_example_of_an_own_program_learns(tmp_path, estimator):
    assert len(OWN.strip().splitlines()) < 45
    (tmp_path / "layers.py").write_text(OWN)
    set_ = ("train.scenes=64", "train.validation_scenes=8", "train.test_scenes=8")
    path, out = str(tmp_path / "layers.py"), tmp_path / "run"
    train(Run(path, out, steps=60, estimator=estimator, set=set_, device="cpu"))
    losses = [r["loss"] for r in read_log(out / "log.jsonl") if "loss" in r]
    assert losses[-1] < losses[0]
    assert (out / "reconstructions.png").exists() and (out / "prior_scenes.png").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers.py").write_text(OWN)
    parse(shlex.split(command.split("#")[0]))


def test_there_are_commands():
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize(
    "name",
    sorted(set(re.findall(r"\b(?:programs|guides|inference|analysis|tests)/[\w/.-]+", TEXT))),
)
def test_the_files_it_names_exist(name):
    assert (ROOT / Path(name.rstrip("."))).exists()
