"""A guide for some latents by `AutoGuideList`: normal for one, a point for the other."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoGuideList, AutoNormal


def model(images):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    noise = pyro.sample("noise", dist.InverseGamma(3.0, 1.0))
    with pyro.plate("images", len(images)):
        pyro.sample(
            "x", dist.Normal(mean[:, None, None], noise).expand([3, 16, 16]).to_event(3), obs=images
        )


guide = AutoGuideList(model)
guide.append(AutoNormal(poutine.block(model, expose=["mean"])))
guide.append(AutoDelta(poutine.block(model, expose=["noise"])))
