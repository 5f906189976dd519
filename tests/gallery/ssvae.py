"""A semi-supervised VAE without labels: a class beside a style, both inferred (Kingma et al., 2014)."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.ReLU())
to_class, to_style = nn.Linear(16, 5), nn.Linear(16 + 5, 8)
decoder = nn.Sequential(nn.Linear(5 + 4, 16), nn.ReLU(), nn.Linear(16, 768), nn.Sigmoid())


def model(xs, ys=None):
    pyro.module("ss_vae_decoder", decoder)
    with pyro.plate("data", len(xs)):
        ys = pyro.sample("y", dist.OneHotCategorical(xs.new_full((len(xs), 5), 0.2)), obs=ys)
        zs = pyro.sample("z", dist.Normal(xs.new_zeros(len(xs), 4), 1.0).to_event(1))
        mean = decoder(torch.cat([zs, ys], -1))
        pyro.sample("x", dist.Normal(mean, 0.3).to_event(1), obs=xs.flatten(1))


def guide(xs, ys=None):
    for name, net in (("encoder", encoder), ("to_class", to_class), ("to_style", to_style)):
        pyro.module(name, net)
    h = encoder(xs)
    with pyro.plate("data", len(xs)):
        if ys is None:
            ys = pyro.sample("y", dist.OneHotCategorical(logits=to_class(h)))
        loc, spread = to_style(torch.cat([h, ys], -1)).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, spread.exp()).to_event(1))
