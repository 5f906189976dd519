"""A sigmoid belief network of binary latents whose guide brings baselines of its own."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 6))
decoder = nn.Linear(6, 768)
baseline = nn.Sequential(nn.Flatten(), nn.Linear(768, 1), nn.Flatten(0))


def model(images):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(images)):
        z = pyro.sample("z", dist.Bernoulli(torch.full((len(images), 6), 0.5)).to_event(1))
        mean = decoder(z).view(-1, 3, 16, 16)
        pyro.sample("x", dist.Normal(mean, 0.5).to_event(3), obs=images)


def guide(images):
    pyro.module("encoder", encoder)
    pyro.module("baseline", baseline)
    with pyro.plate("data", len(images)):
        infer = {"baseline": {"nn_baseline": baseline, "nn_baseline_input": images}}
        pyro.sample("z", dist.Bernoulli(logits=encoder(images)).to_event(1), infer=infer)
