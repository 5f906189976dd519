"""A map of brightness and an intercept at their most probable values, by `AutoDelta`."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoDelta


def model(images):
    brightness = pyro.sample("brightness", dist.Normal(torch.zeros(16, 16), 1.0).to_event(2))
    tint = pyro.sample("tint", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("photos", len(images), dim=-1):
        mean = brightness * tint[:, None, None]
        pyro.sample("pixels", dist.Normal(mean, 0.4).to_event(3), obs=images)


guide = AutoDelta(model)
