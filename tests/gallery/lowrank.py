"""A logistic regression of rows that are bright on the image's mean, by `AutoLowRankMultivariateNormal`."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal


def model(images):
    scale = pyro.sample("scale", dist.HalfCauchy(torch.tensor(1.0)))
    with pyro.plate("features", 16):
        slope = pyro.sample("slope", dist.Normal(0.0, scale))
        offset = pyro.sample("offset", dist.StudentT(3.0))
    with pyro.plate("images", len(images), dim=-2):
        mean = images.mean((1, 2, 3))[:, None]
        bright = (images.mean((1, 3)) > 0.5).float()
        with pyro.plate("rows", 16, dim=-1):
            pyro.sample("bright", dist.Bernoulli(logits=mean * slope + offset), obs=bright)


guide = AutoLowRankMultivariateNormal(model, rank=2)
