"""A Beta-Bernoulli map of pixels that are bright, by `AutoDiagonalNormal`."""

import pyro
import pyro.distributions as dist
from pyro.infer.autoguide import AutoDiagonalNormal


def model(images):
    bright = (images.mean(1) > 0.5).float()
    with pyro.plate("rows", 16, dim=-2), pyro.plate("columns", 16, dim=-1):
        p = pyro.sample("p", dist.Beta(2.0, 2.0))
    with pyro.plate("images", len(images), dim=-1):
        pyro.sample("bright", dist.Bernoulli(p).to_event(2), obs=bright)


guide = AutoDiagonalNormal(model)
