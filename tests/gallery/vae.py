"""The VAE of Pyro's tutorial: plate ``data``, latent ``latent``, observed site ``obs`` of flat images."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(768, 16)
        self.loc, self.scale = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        h = self.hidden(x.reshape(-1, 768)).relu()
        return self.loc(h), self.scale(h).exp()


encoder = Encoder()
decoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 768), nn.Sigmoid())


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", x.shape[0]):
        z = pyro.sample("latent", dist.Normal(torch.zeros(x.shape[0], 4), 1.0).to_event(1))
        mean = decoder(z)
        pyro.sample(
            "obs", dist.ContinuousBernoulli(mean).to_event(1), obs=x.reshape(-1, 768).clamp(0, 1)
        )


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", x.shape[0]):
        loc, scale = encoder(x)
        pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
