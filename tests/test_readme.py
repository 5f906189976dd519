"""The READMEs are true: their code runs, their commands are understood, the files they name are there."""

import importlib
import importlib.util
import inspect
import math
import pkgutil
import re
import shlex
import shutil
from pathlib import Path

import pyro
import pytest
import torch
from classic import make_pictures
from readme import (
    CLASSIC,
    FILES,
    FLOW,
    OWN,
    READING,
    SNOW,
    TEXTS,
    TRUSTING,
    USING,
    commands,
    modules,
)
from training import train

from analysis import command, report
from analysis.papers.item import PAPERS, items
from analysis.scores import scene_metrics
from inference import command as shared
from inference import svi
from inference.images.worlds import world_dataset
from inference.loading import ROOT
from inference.log import read_log
from inference.plan import Run, plan
from inference.svi import parse

OUTSIDE = ("pip", "venv", "pytest", "http.server")
"""Modules that commands run and that are not the project's."""


def test_the_front_door_is_small():
    assert len(TEXTS["README.md"].encode()) <= 12_000


def test_a_flow_is_fitted_to_digits_as_shown():
    """Every parameter is trained, the density is far above the base's, and f⁻¹ of a scored image is free."""
    pyro.set_rng_seed(0)
    names = {}
    with pyro.settings.context(module_local_params=False):
        exec(FLOW, names)
    flow, digits = names["flow"], names["digits"]
    store = pyro.get_param_store()
    assert {n.removeprefix("flow$$$") for n in store} == {n for n, _ in flow.named_parameters()}
    fresh = names["Coupling"](4, 16)
    assert (flow.layers.layers[2].one.last.weight - fresh.one.last.weight).abs().max() > 0.01
    x = (digits[:64] + 0.5) / 17
    base = torch.distributions.Normal(torch.zeros(4, 4, 4), 1.0)
    with torch.no_grad():
        z = flow.inv(x)
        log_p = base.log_prob(z).sum((1, 2, 3)) - flow.log_abs_det_jacobian(z, x)
        assert torch.equal(z, flow.inv(x)) and (flow(z.clone()) - x).abs().max() < 1e-4
    # a Gaussian per pixel, as the base through the first layers alone, has less
    plain = torch.distributions.Normal(0.5, 0.4).log_prob(x).sum((1, 2, 3))
    assert log_p.mean() > plain.mean() + 20 and names["loss"] < 0
    pyro.clear_param_store()


def test_a_program_is_read_and_trained_by_pyro_as_shown():
    names = {}
    with pyro.settings.context(module_local_params=False):  # Pyro's default
        exec(READING, names)
    assert names["prior"].image.shape == (4, 3, 128, 128)
    assert math.isfinite(names["loss"])


def test_the_shipped_run_is_used_and_trusted_as_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(USING, names)
    assert (tmp_path / "scene_graphs.png").stat().st_size > 10_000
    assert names["samples"].shape == (16, 3, 64, 64) and names["weights"].shape == (50, 4)
    assert names["scene"].image.sub(names["images"]).square().mean() < 0.01
    assert names["moved"].image.sub(names["scene"].image[:1]).abs().max() > 0.5
    out = capsys.readouterr().out
    assert "part_f1" in out and "n_parts[3]" in out
    (tmp_path / "posterior.nc").unlink()
    exec(TRUSTING, names)
    assert (tmp_path / "posterior.nc").exists() and names["weights"].shape == (50, 4)
    assert names["moved"].image.shape == names["resampled"].image.shape == (1, 3, 64, 64)
    out = capsys.readouterr().out
    assert "n_parts[3]" in out and "edge_energy" in out and "coverage80_n_objects" in out


@pytest.mark.parametrize("estimator", ["nvil", "gumbel"])
def test_the_example_of_an_own_program_learns(tmp_path, estimator):
    assert len(OWN.strip().splitlines()) < 40
    (tmp_path / "layers.py").write_text(OWN)
    set_ = ("train.scenes=64", "train.validation_scenes=8", "train.test_scenes=8")
    path, out = str(tmp_path / "layers.py"), tmp_path / "run"
    train(Run(path, out, steps=60, estimator=estimator, set=set_, device="cpu"))
    losses = [r["loss"] for r in read_log(out / "log.jsonl") if "loss" in r]
    assert losses[-1] < losses[0]
    assert (out / "reconstructions.png").exists() and (out / "prior_scenes.png").exists()


def test_the_example_of_a_classic_model_learns_and_is_reported(tmp_path, capsys):
    pictures, out = tmp_path / "pictures", tmp_path / "run"
    pictures.mkdir()
    (tmp_path / "faces.py").write_text(CLASSIC)
    run = [str(tmp_path / "faces.py"), "--images", str(make_pictures(pictures)), "--out", str(out)]
    assert svi.main([*run, "--steps", "60", "--batch", "10", "--device", "cpu"]) == 0
    losses = [r["loss"] for r in read_log(out / "log.jsonl") if "loss" in r]
    assert losses[-1] < losses[0]
    assert report.main([str(out), "--images", "2", "--draws", "25"]) == 0
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "A face is decoded from twenty numbers." in page and "Posterior" in page


def test_the_example_of_an_own_world_is_drawn_and_trained_on(tmp_path):
    snow, layers = tmp_path / "snow.py", tmp_path / "layers.py"
    snow.write_text(SNOW)
    layers.write_text(OWN)
    truth = world_dataset(str(snow), 50, "test").truth()
    found = scene_metrics(truth, truth)
    assert found["object_f1"] == found["ari_fg"] == found["category_correspondence"] == 1
    objects = truth.objects
    assert set(objects.present.sum(1).tolist()) == {1, 2, 3, 4, 5}
    assert objects.mask.any((2, 3)).equal(objects.present)
    set_ = ("train.scenes=64", "train.validation_scenes=8", "train.test_scenes=8")
    run = Run(str(layers), tmp_path / "run", world=str(snow), steps=2, set=set_)
    assert (train(run) / "metrics.json").exists()


BEFORE = {"fitted": "denf-clevr6", "discrete_air_mnist-multi_mnist": "discrete_air-multi_mnist"}
"""Runs from which commands start, and shipped ones of the same program."""


@pytest.mark.parametrize("words", commands("inference.svi"))
def test_commands_that_train_are_understood(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers.py").write_text(OWN)
    (tmp_path / "faces.py").write_text(CLASSIC)
    (tmp_path / "snow.py").write_text(SNOW)
    (tmp_path / "my" / "pictures").mkdir(parents=True)
    for name, shipped in BEFORE.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        config = ROOT / "programs" / "trained" / shipped / "config.json"
        shutil.copy(config, tmp_path / "runs" / name / "config.json")
    plan(parse(shlex.split(words)))


def test_there_are_commands_that_train():
    assert len(commands("inference.svi")) >= 10


@pytest.mark.parametrize("words", commands("analysis.papers"))
def test_items_of_papers_are_there(words):
    chosen = [word for word in shlex.split(words) if not word.startswith("-")]
    assert {*chosen[:1]} <= {*PAPERS} and all(item in items(chosen[0]) for item in chosen[1:])


@pytest.mark.parametrize("module", modules())
def test_commands_are_of_modules_that_have_the_options(module):
    if module in OUTSIDE:
        assert importlib.util.find_spec(module)
        return
    package = importlib.util.find_spec(module).submodule_search_locations
    source = inspect.getsource(importlib.import_module(f"{module}.__main__" if package else module))
    source += inspect.getsource(command) + inspect.getsource(shared)
    if "svi.parser()" in source:
        source += inspect.getsource(svi)
    lines = [line for text in TEXTS.values() for line in text.splitlines()]
    of_it = [line for line in lines if re.search(rf"-m {re.escape(module)}(?![.\w])", line)]
    options = {o for line in of_it for o in re.findall(r"(?<= |\[)--[a-z-]+", line.split("`|")[0])}
    options -= {"--nproc-per-node"}
    missing = {option for option in options if f'"{option}"' not in source}
    assert not missing


@pytest.mark.parametrize(
    "name",
    sorted(
        {
            path.rstrip(".")
            for text in TEXTS.values()
            for path in re.findall(
                r"(?<![\w/.])(?:programs|guides|inference|analysis|tests)/[\w/.-]+", text
            )
            if not re.search(r"\b[A-Z-]{3,}\b(?!\.md)", path)
        }
    ),
)
def test_the_files_they_name_exist(name):
    assert (ROOT / name).exists()


def imported():
    """Dotted names in backticks, and those that a text says are `from` or `of` a module."""
    module = r"`((?:programs|guides|inference|analysis)(?:\.\w+)+)"
    for text in TEXTS.values():
        yield from re.findall(module, text)
        found = re.findall(rf"`(\w+)(?:\([^`]*\))?`\s+(?:from|of)\s+{module}`", text)
        yield from (f"{where}.{name}" for name, where in found)


@pytest.mark.parametrize("name", sorted({*imported()}))
def test_the_names_that_they_import_are_there(name):
    assert pkgutil.resolve_name(name) is not None


@pytest.mark.parametrize("name", FILES)
def test_their_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)\)", TEXTS[name])
    for link in links:
        assert link.startswith("https://") or (ROOT / Path(name).parent / link).exists(), link
