"""A model that returns what it likes, a table, and a guide that returns its latents."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 8))
decoder = nn.Linear(4, 768)


def model(batch, annealing=1.0):
    pyro.module("decoder", decoder)
    with pyro.plate("data", batch.shape[0]):
        z = pyro.sample("z", dist.Normal(torch.zeros(batch.shape[0], 4), annealing).to_event(1))
        mean = decoder(z).sigmoid().view(-1, 3, 16, 16)
        x = pyro.sample("x", dist.Normal(mean, 0.3).to_event(3), obs=batch)
    return {"z": z, "mean": mean, "x": x}


def guide(batch, annealing=1.0):
    pyro.module("encoder", encoder)
    loc, spread = encoder(batch).chunk(2, -1)
    with pyro.plate("data", batch.shape[0]):
        return pyro.sample("z", dist.Normal(loc, spread.exp()).to_event(1)), loc
