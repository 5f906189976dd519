"""One `PyroModule` with methods model and guide, as Pyro's examples of VAEs have it."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.ReLU(), nn.Linear(16, 8))
        self.decoder = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 768)
        )

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            zeros = x.new_zeros(x.shape[0], 4)
            z = pyro.sample("latent", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            mean = self.decoder(z).sigmoid()
            obs = x.reshape(-1, 768).round()
            pyro.sample("obs", dist.Bernoulli(mean, validate_args=False).to_event(1), obs=obs)
            return mean

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, spread = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, spread.exp()).to_event(1))


vae = VAE()
model, guide = vae.model, vae.guide
