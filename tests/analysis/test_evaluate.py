"""Evaluation of runs: exact bounds where they are known, shipped runs, the command line."""

import json
import math
import os

import pyro
import pytest
import tiny
import torch
from small_programs import conjugate, posterior
from training import train

from analysis import evaluate as module
from analysis.evaluate import evaluate, fid_like, main
from analysis.posterior import infer
from analysis.scores.features import random_convolutions
from inference.images.worlds import world_dataset
from inference.loading import ROOT
from inference.runs import TRAINED, open_run, shipped
from inference.runs import main as release_main
from programs import vae
from programs.scene import Scene
from programs.worlds.made_of.digits import FOLDER
from programs.worlds.shapes2d import Config


def inferred(folder, x):
    run = open_run(folder)
    return infer(run.program, run.guide, x)


class Truthful(torch.nn.Module):
    """A program that returns the truth, to test that perfect inference scores 1."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def forward(self, images=None, batch=1):
        if images is None:
            images = self.data.floats(number=batch)
        conjugate(images.mean((1, 2, 3)))
        number = [int((self.data.floats() - x).abs().sum((1, 2, 3)).argmin()) for x in images]
        return self.data.truth(slice(0, len(self.data.images)))[torch.tensor(number)]


class Anything(torch.nn.Module):
    def forward(self, images, batch=1):
        posterior(0.5)(images.mean((1, 2, 3)))


def test_perfect_inference_scores_one_everywhere():
    data = world_dataset("shapes2d", 20, "test", 0, Config(size=32))
    found = evaluate(Truthful(data), Anything(), data, "cpu", seed=3)
    shares = ("object_count_accuracy", "object_f1", "object_recall", "part_count_accuracy")
    for key in (*shares, "part_f1", "part_recall", "structure_accuracy", "ari_fg"):
        assert found[key] == 1.0, key
    assert found["ap50"] == found["ap50_95"] == 1.0
    assert found["fid_like"] == pytest.approx(0, abs=1e-6)
    assert found["mse"] == 0.0 and found["scenes"] == 20 and found["seed"] == 3


def test_a_program_without_scenes_has_bounds_only():
    class Plain(torch.nn.Module):
        def forward(self, images=None, batch=1):
            conjugate(images.mean((1, 2, 3)))

    data = world_dataset("shapes2d", 6, "test", 0, Config(size=32))
    assert infer(Plain(), Anything(), torch.rand(2, 3, 8, 8)) is None
    found = evaluate(Plain(), Anything(), data, "cpu", seed=0)
    assert "mse" not in found and math.isfinite(found["iwae"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pyro.settings.context(module_local_params=True):
        return train(tiny.run("gsgn", tmp_path_factory.mktemp("run"), steps=3))


def test_evaluate_repeats_what_training_measured(run, tmp_path, capsys):
    file = tmp_path / "metrics.json"
    assert main([str(run), "--scenes", "12", "--json", str(file)]) == 0
    again, first = json.loads(file.read_text()), json.loads((run / "metrics.json").read_text())
    for key in ("elbo", "iwae", "mse", "object_f1", "part_f1"):
        assert again[key] == pytest.approx(first[key], rel=1e-5), key
    assert "part_f1" in capsys.readouterr().out


def test_a_released_run_gives_the_same_scenes(run, tmp_path):
    assert release_main([str(run), str(tmp_path / "shipped")]) == 0
    x = torch.rand(3, 3, 32, 32)
    scenes = [inferred(r, x) for r in (run, tmp_path / "shipped")]
    assert torch.equal(scenes[0].image, scenes[1].image)
    assert not (tmp_path / "shipped" / "checkpoint.ckpt").exists()
    command = json.loads((tmp_path / "shipped" / "config.json").read_text())["command"]
    assert "--out runs/shipped" in command and str(tmp_path) not in command
    assert "--steps 3" in command
    assert release_main([str(run), str(tmp_path / "half"), "--half"]) == 0
    half = inferred(tmp_path / "half", x)
    torch.testing.assert_close(half.image, scenes[0].image, atol=0.02, rtol=0)
    sizes = [(tmp_path / n / "weights.safetensors").stat().st_size for n in ("half", "shipped")]
    assert sizes[0] < 0.6 * sizes[1]


def test_unknown_runs_and_worlds_are_refused(run, capsys):
    assert main(["no-such-run"]) == 2
    assert "is no run" in capsys.readouterr().err
    assert main([str(run), "--world", "moon"]) == 2
    assert "unknown world 'moon'" in capsys.readouterr().err
    assert release_main([str(ROOT / "programs"), "x"]) == 2


@pytest.mark.parametrize("folder", [TRAINED / name for name in shipped()], ids=lambda p: p.name)
def test_a_shipped_run_is_what_its_metrics_say(folder):
    """On a tenth of the scenes: each share within four standard errors, the squared error within a factor."""
    said = json.loads((folder / "metrics.json").read_text())
    run = open_run(folder.name)
    program, guide = run.program, run.guide
    if run.config["world"].get("digits") == "mnist" and not os.environ.get(FOLDER):
        pytest.skip(f"needs MNIST in ${FOLDER}")
    number = 100
    data = run.unseen(number)
    found = module.graph_metrics(program, guide, data, "cpu")
    shares = {"object_count_accuracy", "part_count_accuracy", "structure_accuracy"}
    shares |= {"ari_fg", "shape_iou"}
    assert 0.5 < found["mse"] / said["mse"] < 2
    assert shares & found.keys() == shares & said.keys()
    assert ("object_count_accuracy" in found) == (
        folder.name not in ("vae-mnist4", "convdraw-mnist4")
    )
    for key in shares & found.keys():
        p = said[key]
        error = math.sqrt(max(p * (1 - p), 0.01) / number)
        assert abs(found[key] - p) < 4 * error, key
    assert sum(p.stat().st_size for p in folder.iterdir()) < 8 * 2**20


def test_plain_priors_are_known_where_there_could_be_learned_ones():
    assert module.plain_priors(vae.Program(vae.Config()))
    assert not module.plain_priors(vae.Program(vae.Config(learned=2)))
    assert not module.plain_priors(torch.nn.Linear(2, 2))


def test_the_frechet_distance_ranks_priors_and_takes_any_net():
    images = world_dataset("shapes2d", 60, "test", config=Config(size=32)).floats()

    def same(batch):
        return Scene(images[:batch].flip(0), ())

    def grey(batch):
        return Scene(torch.full((batch, 3, 32, 32), 0.5) + 0.1 * torch.rand(batch, 3, 32, 32), ())

    distances = [fid_like(program, images, random_convolutions) for program in (same, grey)]
    assert distances[0] < 0.01 * distances[1]
    assert fid_like(same, images, lambda x: x.mean((2, 3))) == pytest.approx(0, abs=1e-5)


def test_a_net_that_is_not_there_is_refused(capsys):
    assert (
        main(["gsgn-shapes2d", "--scenes", "2", "--features", "analysis.scores.features:inception"])
        == 2
    )
    assert "--features 'analysis.scores.features:inception': expected MODULE:CALLABLE" in (
        capsys.readouterr().err
    )
    assert main(["gsgn-shapes2d", "--scenes", "2", "--features", "torch:nn"]) == 2
    assert "--features 'torch:nn' is a module: expected MODULE:CALLABLE" in capsys.readouterr().err
