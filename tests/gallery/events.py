"""Events of several kinds: of no dimension in two plates, of one, of two and of three."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 2 * (3 + 16)))


def model(images):
    n = len(images)
    with pyro.plate("batch", n, dim=-2):
        with pyro.plate("colours", 3, dim=-1):
            tint = pyro.sample("tint", dist.Normal(torch.zeros(n, 3), 0.5))
        blocks = dist.Normal(torch.zeros(n, 1, 4, 4), 0.5).to_event(2)
        shade = pyro.sample("shade", blocks)
        large = nn.functional.interpolate(shade, scale_factor=4)
        mean = (tint[..., None, None] + large).sigmoid()
        pyro.sample("x", dist.Normal(mean[:, None], 0.3).to_event(3), obs=images[:, None])


def guide(images):
    pyro.module("encoder", encoder)
    loc, spread = encoder(images).chunk(2, -1)
    scale = spread.exp()
    with pyro.plate("batch", len(images), dim=-2):
        with pyro.plate("colours", 3, dim=-1):
            pyro.sample("tint", dist.Normal(loc[:, :3], scale[:, :3]))
        shade = [t[:, 3:].view(-1, 1, 4, 4) for t in (loc, scale)]
        pyro.sample("shade", dist.Normal(*shade).to_event(2))
