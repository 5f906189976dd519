"""Objects one after the other, in a loop over steps, as the tutorial on AIR has them."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

STEPS = 3
encoder = nn.Sequential(nn.Flatten(), nn.Linear(768 + 3, 16), nn.ReLU(), nn.Linear(16, 1 + 2 * 4))
decoder = nn.Sequential(nn.Linear(4, 768), nn.Sigmoid())


def model(data):
    pyro.module("decode", decoder)
    n = data.size(0)
    with pyro.plate("data", n, device=data.device):
        x, present = torch.zeros(n, 768), torch.ones(n)
        for t in range(STEPS):
            prior = dist.Bernoulli(0.5 * present)
            present = pyro.sample(f"z_pres_{t}", prior) * present
            what = dist.Normal(torch.zeros(n, 4), 1.0).to_event(1).mask(present.bool())
            z = pyro.sample(f"z_what_{t}", what)
            x = x + decoder(z) * present[:, None]
        pyro.sample("obs", dist.Normal(x, 0.3).to_event(1), obs=data.flatten(1))


def guide(data):
    pyro.module("encode", encoder)
    n = data.size(0)
    with pyro.plate("data", n, device=data.device):
        present = torch.ones(n)
        for t in range(STEPS):
            step = torch.eye(STEPS)[t].expand(n, -1)
            h = encoder(torch.cat([data.flatten(1), step], 1))
            logit, (loc, spread) = h[:, 0], h[:, 1:].chunk(2, -1)
            probability = logit.sigmoid().clamp(1e-3, 1 - 1e-3) * present
            present = pyro.sample(f"z_pres_{t}", dist.Bernoulli(probability)) * present
            what = dist.Normal(loc, spread.exp()).to_event(1).mask(present.bool())
            pyro.sample(f"z_what_{t}", what)
