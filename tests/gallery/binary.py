"""Pixels that are bright, with a probability per image and colour (Beta-Bernoulli)."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Linear(3, 6)


def model(images):
    bright = (images > 0.5).float()
    with pyro.plate("images", len(images)):
        p = pyro.sample("p", dist.Beta(torch.ones(len(images), 3), 1.0).to_event(1))
        pyro.sample(
            "bright",
            dist.Bernoulli(p[:, :, None, None].expand(-1, -1, 16, 16)).to_event(3),
            obs=bright,
        )


def guide(images):
    pyro.module("encoder", encoder)
    a, b = nn.functional.softplus(encoder(images.mean((2, 3)))).add(1).chunk(2, -1)
    with pyro.plate("images", len(images)):
        pyro.sample("p", dist.Beta(a, b).to_event(1))
