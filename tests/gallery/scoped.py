"""Names with slashes, as Pyro's scopes make them, a constrained parameter and a latent without a mode."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn
from torch.distributions import SigmoidTransform, constraints

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))


def squashed(loc, scale):
    return dist.TransformedDistribution(dist.Normal(loc, scale), [SigmoidTransform()])


def model(images):
    noise = pyro.param("noise", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("n", len(images)):
        grey = pyro.sample("scene/grey", squashed(torch.zeros(len(images)), 1.0))
        mean = grey[:, None, None, None].expand(-1, 3, 16, 16)
        pyro.sample("scene/pixels", dist.Normal(mean, noise).to_event(3), obs=images)


def guide(images):
    pyro.module("encoder", encoder)
    loc, spread = encoder(images).unbind(-1)
    with pyro.plate("n", len(images)):
        pyro.sample("scene/grey", squashed(loc, spread.exp()))
