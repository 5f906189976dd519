"""Parameters under constraints of all kinds, and a guide without a network."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def model(images):
    scale = pyro.param("scale", torch.tensor(0.4), constraint=constraints.greater_than(0.05))
    weights = pyro.param("weights", torch.ones(3) / 3, constraint=constraints.simplex)
    offset = pyro.param("offset", torch.tensor(0.5), constraint=constraints.interval(0.0, 1.0))
    factor = pyro.param("factor", torch.eye(2), constraint=constraints.lower_cholesky)
    number = len(images)
    with pyro.plate("n", number):
        z = pyro.sample("z", dist.MultivariateNormal(torch.zeros(number, 2), scale_tril=factor))
        shade = (offset + 0.1 * z.sum(-1))[:, None, None, None]
        mean = shade + weights[:, None, None] - 1 / 3
        pyro.sample(
            "x", dist.Normal(mean, scale).expand([number, 3, 16, 16]).to_event(3), obs=images
        )


def guide(images):
    slope = pyro.param("slope", torch.zeros(2, 3))
    spread = pyro.param("spread", torch.ones(2), constraint=constraints.positive)
    with pyro.plate("n", len(images)):
        loc = images.mean((2, 3)) @ slope.T
        pyro.sample("z", dist.Normal(loc, spread).to_event(1))
