"""Networks with buffers and dropout, which behave otherwise once they are trained."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(
    nn.Flatten(),
    nn.Linear(768, 16),
    nn.BatchNorm1d(16),
    nn.ReLU(),
    nn.Dropout(0.5),
    nn.Linear(16, 8),
)
decoder = nn.Sequential(nn.Linear(4, 768), nn.Unflatten(-1, (3, 16, 16)))


def model(images):
    pyro.module("decoder", decoder)
    with pyro.plate("images_plate", len(images)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(images), 4), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(decoder(z), 0.3).to_event(3), obs=images)


def guide(images):
    pyro.module("encoder", encoder)
    loc, spread = encoder(images).chunk(2, -1)
    with pyro.plate("images_plate", len(images)):
        pyro.sample("z", dist.Normal(loc, spread.exp()).to_event(1))
