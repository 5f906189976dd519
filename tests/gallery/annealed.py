"""KLs are annealed by `poutine.scale`, with a factor that is a buffer of a module."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import nn


class Nets(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 8))
        self.decoder = nn.Linear(4, 768)
        self.register_buffer("steps", torch.zeros(()))

    @property
    def factor(self):
        return (0.2 + self.steps / 10).clamp(max=1.0)


nets = Nets()


def model(images):
    pyro.module("nets", nets)
    with pyro.plate("data", len(images)):
        with poutine.scale(scale=nets.factor):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(images), 4), 1.0).to_event(1))
        mean = nets.decoder(z).view(-1, 3, 16, 16)
        pyro.sample("x", dist.Normal(mean, 0.3).to_event(3), obs=images)


def guide(images):
    pyro.module("nets", nets)
    if nets.training:
        nets.steps += 1
    loc, spread = nets.encoder(images).chunk(2, -1)
    with pyro.plate("data", len(images)), poutine.scale(scale=nets.factor):
        pyro.sample("z", dist.Normal(loc, spread.exp()).to_event(1))
