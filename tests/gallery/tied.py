"""Tied weights: the encoder's matrix is the decoder's, transposed."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(4, 768))
        self.spread = nn.Parameter(torch.zeros(4))

    def encode(self, images):
        return images.flatten(1) @ self.weight.T, self.spread.exp()

    def decode(self, z):
        return (z @ self.weight).view(-1, 3, 16, 16)


net = Tied()


def model(images):
    pyro.module("net", net)
    with pyro.plate("data", len(images)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(images), 4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(net.decode(z), 0.3).to_event(3), obs=images)


def guide(images):
    pyro.module("net", net)
    loc, scale = net.encode(images)
    with pyro.plate("data", len(images)):
        pyro.sample("z", dist.Normal(loc, scale).to_event(1))
