"""Nested plates: a shade per image, and in it one per row and per column."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, 2 * (1 + 16 + 16)))


def model(images):
    n = len(images)
    with pyro.plate("images", n, dim=-3):
        shade = pyro.sample("shade", dist.Normal(torch.full((n, 1, 1), 0.5), 0.3))
        with pyro.plate("rows", 16, dim=-2):
            row = pyro.sample("row", dist.Normal(shade, 0.1))
        with pyro.plate("columns", 16, dim=-1):
            column = pyro.sample("column", dist.Normal(torch.zeros(n, 1, 16), 0.1))
        with pyro.plate("rows_", 16, dim=-2), pyro.plate("columns_", 16, dim=-1):
            pyro.sample("grey", dist.Normal(row + column, 0.2), obs=images.mean(1))


def guide(images):
    pyro.module("encoder", encoder)
    loc, spread = encoder(images).chunk(2, -1)
    parts = [(slice(0, 1), (-1, 1, 1)), (slice(1, 17), (-1, 16, 1)), (slice(17, 33), (-1, 1, 16))]
    shade, row, column = (
        dist.Normal(loc[:, k].reshape(shape), spread[:, k].exp().reshape(shape))
        for k, shape in parts
    )
    with pyro.plate("images", len(images), dim=-3):
        pyro.sample("shade", shade)
        with pyro.plate("rows", 16, dim=-2):
            pyro.sample("row", row)
        with pyro.plate("columns", 16, dim=-1):
            pyro.sample("column", column)
