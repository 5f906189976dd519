"""Small classic Pyro models as they are: each trains, is measured, opened again, exported and reported."""

import json
import re

import numpy as np
import pytest
import torch
from classic import GALLERY, make_pictures, train

from analysis import report
from analysis.posterior import log_weights, samples
from analysis.posterior.to_arviz import to_inference_data
from inference.runs import open_run

MODELS = sorted(path.stem for path in GALLERY.glob("*.py"))
ESTIMATORS = {"enumerated": "enumerate", "baselines": "tracegraph", "factors": "nvil"}
"""Of those that cannot be trained by the default."""
NAMES = {
    "batchnorm": ("images_plate", "x"),
    "lowrank": ("images", "bright"),
    "markov": ("z_minibatch", "obs_x_1"),
    "named_images": ("images", "x"),
    "pixels": ("batch", "images"),
    "scoped": ("n", "scene/pixels"),
    "steps": ("data", "obs"),
    "vae": ("data", "obs"),
}
"""What some call the plate of the images and the observed site."""
SHARED = {
    "autodelta": ["brightness", "tint"],
    "autodiagonal": ["p"],
    "autoiaf": ["colour", "spread"],
    "autolist": ["mean", "noise"],
    "autonormal": ["mean", "spread"],
    "lowrank": ["scale", "slope", "offset"],
    "regression": ["weights", "bias", "sigma"],
}
"""Those with latents that are of all images, which their guides have no network for."""
REPORTED = ("autonormal", "cvae", "steps")
"""Those whose report is made in every run of the tests; the others' are made by hand."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("pictures"))


def train_model(name, pictures, out):
    more = ["--estimator", ESTIMATORS[name]] if name in ESTIMATORS else []
    assert train(name, pictures, out, *more) == 0


def test_there_are_thirty():
    assert len(MODELS) >= 30 and {*NAMES, *SHARED, *REPORTED, *ESTIMATORS} <= {*MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_is_measured_opened_and_exported(name, pictures, tmp_path):
    train_model(name, pictures, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert tuple(config["names"].values()) == NAMES.get(name, tuple(config["names"].values()))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert np.isfinite(metrics["elbo"]) and ("iwae" in metrics) == (name not in SHARED)
    run, x = open_run(tmp_path), torch.rand(3, 3, 16, 16)
    weights = log_weights(run.program, run.guide, x, 30)
    assert weights.shape == (30, 3) and weights.isfinite().all() and not samples(run.program)
    data = to_inference_data(run.program, run.guide, x, num_samples=25)
    data.to_netcdf(tmp_path / "posterior.nc")
    for latent, values in data["posterior"].data_vars.items():
        assert ("image" in values.dims) == (latent not in SHARED.get(name, []))
    seen, again = data["observed_data"]["images"], data["posterior_predictive"]["images"]
    assert again.shape[2:] == seen.shape


@pytest.mark.parametrize(
    "name", [m if m in REPORTED else pytest.param(m, marks=pytest.mark.slow) for m in MODELS]
)
def test_a_model_is_reported(name, pictures, tmp_path):
    train_model(name, pictures, tmp_path)
    assert report.main([str(tmp_path), "--images", "3", "--draws", "25"]) == 0
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for heading in ("Posterior", "Predictive checks", "Training"):
        assert f"<h2>{heading}</h2>" in page


HEAD = "import pyro, torch\nimport pyro.distributions as dist\nfrom pyro import poutine\n"
HEAD += "from pyro.infer.autoguide import AutoNormal\n"
LOCAL = f"""{HEAD}
def model(images):
    with pyro.plate("data", len(images)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(images)), 1.0))
        mean = z[:, None, None, None].expand(-1, 3, 16, 16)
        pyro.sample("x", dist.Normal(mean, 0.3).to_event(3), obs=images)

guide = AutoNormal(model)
"""
SUMMED = f"""{HEAD}
def model(images):
    locs = pyro.sample("locs", dist.Normal(torch.zeros(3, 768), 1.0).to_event(2))
    with pyro.plate("data", len(images)):
        k = pyro.sample("k", dist.Categorical(torch.ones(3)), infer={{"enumerate": "parallel"}})
        pyro.sample("x", dist.Normal(locs[k], 0.3).to_event(1), obs=images.flatten(1))

guide = AutoNormal(poutine.block(model, hide=["k"]))
"""


@pytest.mark.parametrize(
    "source, words",
    [
        (LOCAL, "AutoNormal keeps numbers of z.*by a network"),
        (SUMMED, "has no site 'k'.*enumerate"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(source, words, pictures, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(source)
    assert train(tmp_path / "mine.py", pictures, tmp_path / "run") == 2
    found = capsys.readouterr()
    assert re.search(words, found.err)
    assert "step" not in found.out and found.err.count("\n") == 1
