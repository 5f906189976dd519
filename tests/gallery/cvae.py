"""A conditional VAE: the lower half of an image, given its upper half (Sohn et al., 2015)."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

prior = nn.Linear(384, 8)
encoder = nn.Linear(768, 8)
decoder = nn.Sequential(nn.Linear(384 + 4, 16), nn.ReLU(), nn.Linear(16, 384))


def halves(images):
    return images[:, :, :8].flatten(1), images[:, :, 8:].flatten(1)


def model(images):
    pyro.module("prior_net", prior)
    pyro.module("generation_net", decoder)
    upper, lower = halves(images)
    with pyro.plate("data", len(images)):
        loc, spread = prior(upper).chunk(2, -1)
        zs = pyro.sample("z", dist.Normal(loc, spread.exp()).to_event(1))
        loc = decoder(torch.cat([upper, zs], -1))
        pyro.sample("y", dist.Normal(loc, 0.3).to_event(1), obs=lower)


def guide(images):
    pyro.module("recognition_net", encoder)
    with pyro.plate("data", len(images)):
        loc, spread = encoder(images.flatten(1)).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, spread.exp()).to_event(1))
