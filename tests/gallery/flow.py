"""A guide that is a flow: a transformed distribution with a learned spline and an affine coupling."""

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import torch
from torch import nn

spline = T.spline(4, count_bins=4)
coupling = T.affine_coupling(4, hidden_dims=[8])
encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 8))
decoder = nn.Linear(4, 768)


def model(images):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(images)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(images), 4), 1.0).to_event(1))
        mean = decoder(z).view(-1, 3, 16, 16)
        pyro.sample("x", dist.Normal(mean, 0.3).to_event(3), obs=images)


def guide(images):
    for name, net in (("encoder", encoder), ("spline", spline), ("coupling", coupling)):
        pyro.module(name, net)
    loc, spread = encoder(images).chunk(2, -1)
    with pyro.plate("data", len(images)):
        base = dist.Normal(loc, spread.exp()).to_event(1)
        pyro.sample("z", dist.TransformedDistribution(base, [coupling, spline]))
