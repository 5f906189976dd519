"""Bayesian regression of an image's contrast on its colours, by `AutoMultivariateNormal`."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoMultivariateNormal


def model(images):
    colours = images.mean((2, 3))
    contrast = images.std((1, 2, 3))
    weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    bias = pyro.sample("bias", dist.Normal(0.0, 10.0))
    sigma = pyro.sample("sigma", dist.Uniform(0.0, 2.0))
    with pyro.plate("data", len(images)):
        pyro.sample("obs", dist.Normal(colours @ weights + bias, sigma), obs=contrast)


guide = AutoMultivariateNormal(model)
