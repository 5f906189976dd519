"""A factor beside the likelihood, and a latent that is a von Mises angle."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))


def model(images):
    n = len(images)
    row, column = torch.meshgrid(
        torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij"
    )
    with pyro.plate("n", n):
        angle = pyro.sample("angle", dist.VonMises(torch.zeros(n), 0.5))
        ramp = angle.cos()[:, None, None] * row + angle.sin()[:, None, None] * column
        mean = (0.5 + 0.5 * ramp)[:, None].expand(-1, 3, -1, -1)
        pyro.sample("x", dist.Normal(mean, 0.4).to_event(3), obs=images)
        pyro.factor("upright", 0.1 * angle.cos())


def guide(images):
    pyro.module("encoder", encoder)
    x, y, spread = encoder(images).unbind(-1)
    with pyro.plate("n", len(images)):
        fn = dist.VonMises(torch.atan2(y, x), spread.exp() + 0.1)
        pyro.sample("angle", fn)
