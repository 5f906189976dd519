"""A plate called as the project calls the observed site, and a site called x."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 8))
decoder = nn.Linear(4, 768)


def model(images):
    decode = pyro.module("decoder", decoder)
    with pyro.plate("images", len(images)):
        batch = pyro.sample("batch", dist.Normal(torch.zeros(len(images), 4), 1.0).to_event(1))
        mean = decode(batch).view(-1, 3, 16, 16)
        pyro.sample("x", dist.Laplace(mean, 0.3).to_event(3), obs=images)


def guide(images):
    encode = pyro.module("encoder", encoder)
    loc, spread = encode(images).chunk(2, -1)
    with pyro.plate("images", len(images)):
        pyro.sample("batch", dist.Normal(loc, spread.exp()).to_event(1))
