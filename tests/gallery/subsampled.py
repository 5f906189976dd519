"""A plate over pixels of which every step takes some, as Pyro's subsampling has it."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))


def model(images):
    flat = images.flatten(1)
    with pyro.plate("images", len(images), dim=-2):
        shade = pyro.sample("shade", dist.Normal(torch.full((len(images), 1), 0.5), 1.0))
        with pyro.plate("pixels", 768, subsample_size=100, dim=-1) as some:
            pyro.sample("x", dist.Normal(shade, 0.3).expand([len(images), 100]), obs=flat[:, some])


def guide(images):
    pyro.module("encoder", encoder)
    loc, spread = encoder(images).chunk(2, -1)
    with pyro.plate("images", len(images), dim=-2):
        pyro.sample("shade", dist.Normal(loc, spread.exp()))
