"""A mixture of templates whose assignments are marked for enumeration, as the tutorial on GMMs marks them."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import config_enumerate
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))


def model(data):
    weights = pyro.param("weights", torch.full((3,), 1 / 3), constraint=dist.constraints.simplex)
    locs = pyro.param("locs", lambda: torch.rand(3, 768))
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.OneHotCategorical(weights))
        pyro.sample("obs", dist.Normal(assignment @ locs, 0.5).to_event(1), obs=data.flatten(1))


@config_enumerate
def guide(data):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(data)):
        pyro.sample("assignment", dist.OneHotCategorical(logits=encoder(data)))
