"""Pixels that are not observed are masked away, by a handler and by the distribution."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 8))
decoder = nn.Linear(4, 768)


def model(images):
    pyro.module("decoder", decoder)
    seen = torch.ones(16, 16, dtype=torch.bool)
    seen[4:8, 4:8] = False
    with pyro.plate("data", len(images)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(images), 4), 1.0).to_event(1))
        mean = decoder(z).view(-1, 3, 16, 16)
        with poutine.mask(mask=images.mean((1, 2, 3)) > 0.1):
            fn = dist.Normal(mean, 0.3).mask(seen).to_event(3)
            pyro.sample("x", fn, obs=images)


def guide(images):
    pyro.module("encoder", encoder)
    loc, spread = encoder(images).chunk(2, -1)
    with pyro.plate("data", len(images)):
        pyro.sample("z", dist.Normal(loc, spread.exp()).to_event(1))
