"""A mean image and a spread for all images, whose posterior `AutoNormal` approximates."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal


def model(images):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3, 16, 16), 1.0).to_event(3))
    spread = pyro.sample("spread", dist.LogNormal(torch.tensor(-1.0), 1.0))
    with pyro.plate("images", len(images)):
        pyro.sample("x", dist.Normal(mean, spread).to_event(3), obs=images)


guide = AutoNormal(model)
