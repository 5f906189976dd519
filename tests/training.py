"""Trainings as the command line runs them: measured at their end."""

from pathlib import Path

import tiny
import torch

from analysis.evaluate import SceneEvaluator
from inference import checkpoint, svi

GSGN = "programs/gsgn.py"
OWN = """
import pyro
import pyro.distributions as dist
import torch


def model(images=None, batch=1):
    colour = pyro.param("colour", torch.tensor(0.0))
    number = batch if images is None else len(images)
    with pyro.plate("batch", number, dim=-1):
        z = pyro.sample("z_what", dist.Normal(torch.zeros(number, 1), 1.0).to_event(1))
        mean = (z + colour).sigmoid()[..., None, None].expand(-1, 3, 8, 8)
        pyro.sample("images", dist.Normal(mean, 0.2).to_event(3), obs=images)


def guide(images, batch=1):
    net = pyro.module("net", NET)
    with pyro.plate("batch", len(images), dim=-1):
        loc, scale = net(images.mean((1, 2, 3)).unsqueeze(-1)).chunk(2, -1)
        pyro.sample("z_what", dist.Normal(loc, scale.exp()).to_event(1))


torch.manual_seed(0)
NET = torch.nn.Linear(1, 2)
"""


def train(run):
    return svi.train(run, SceneEvaluator())


def small(out, **kwargs):
    """A training of GSGN's `tiny`."""
    return tiny.run("gsgn", out, **kwargs)


def weights(out):
    modules = checkpoint.load(Path(out) / "checkpoint.ckpt")["modules"]
    return {f"{m}.{k}": v for m, state in modules.items() for k, v in state.items()}


def equal(a, b):
    same = lambda x, y: torch.equal(torch.nan_to_num(x), torch.nan_to_num(y))
    return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
