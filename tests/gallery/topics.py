"""Amortised topics of a bag of colours (ProdLDA; Srivastava and Sutton, 2017): counts under a multinomial."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Linear(64, 16), nn.Softplus(), nn.BatchNorm1d(16), nn.Linear(16, 8))
beta = nn.Linear(4, 64, bias=False)


def words(images):
    """(B, 64) how many pixels have each of 64 colours."""
    levels = (images * 3.999).floor().clamp(0, 3)
    code = (levels * torch.tensor([16.0, 4.0, 1.0])[:, None, None]).sum(1).long()
    return nn.functional.one_hot(code.flatten(1), 64).sum(1).float()


def model(images):
    pyro.module("decoder", beta)
    docs = words(images)
    with pyro.plate("documents", docs.shape[0]):
        prior = dist.Normal(docs.new_zeros(docs.shape[0], 4), 1.0).to_event(1)
        theta = pyro.sample("logtheta", prior).softmax(-1)
        count = int(docs[0].sum())
        pyro.sample("obs", dist.Multinomial(count, beta(theta).softmax(-1)), obs=docs)


def guide(images):
    pyro.module("encoder", encoder)
    docs = words(images)
    with pyro.plate("documents", docs.shape[0]):
        loc, spread = encoder(docs).chunk(2, -1)
        pyro.sample("logtheta", dist.Normal(loc, (0.5 * spread).exp()).to_event(1))
