"""A mixture of templates: a discrete latent in a plate called as nobody expects."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))


def model(images):
    templates = pyro.param("templates", lambda: torch.rand(3, 3, 16, 16))
    with pyro.plate("pictures", len(images)):
        k = pyro.sample("k", dist.OneHotCategorical(logits=torch.zeros(len(images), 3)))
        mean = torch.einsum("...k,kchw->...chw", k, templates)
        pyro.sample("picture", dist.Normal(mean, 0.5).to_event(3), obs=images)


def guide(images):
    pyro.module("encoder", encoder)
    with pyro.plate("pictures", len(images)):
        pyro.sample("k", dist.OneHotCategorical(logits=encoder(images)))
