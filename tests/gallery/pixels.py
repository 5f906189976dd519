"""A plate over pixels that the guide does not open, and a point estimate for a guide."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))


def model(images):
    with pyro.plate("batch", len(images), dim=-2):
        grey = pyro.sample("grey", dist.Normal(torch.zeros(len(images), 1), 1.0))
        with pyro.plate("pixels", 768, dim=-1):
            mean = grey.expand(-1, 768)
            pyro.sample("images", dist.Normal(mean, 0.5), obs=images.flatten(1))


def guide(images):
    pyro.module("encoder", encoder)
    with pyro.plate("batch", len(images), dim=-2):
        pyro.sample("grey", dist.Delta(encoder(images)))
