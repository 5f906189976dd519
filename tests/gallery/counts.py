"""Photons per pixel: Poisson counts with a rate per image that is a gamma."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Linear(1, 2)


def model(images):
    counts = (10 * images).round()
    with pyro.plate("exposures", len(images)):
        rate = pyro.sample("rate", dist.Gamma(torch.full((len(images),), 2.0), 0.4))
        mean = rate[:, None, None, None].expand(-1, 3, 16, 16)
        pyro.sample("counts", dist.Poisson(mean).to_event(3), obs=counts)


def guide(images):
    pyro.module("encoder", encoder)
    a, b = nn.functional.softplus(encoder(images.mean((1, 2, 3))[:, None])).add(0.1).unbind(-1)
    with pyro.plate("exposures", len(images)):
        pyro.sample("rate", dist.Gamma(a, b))
