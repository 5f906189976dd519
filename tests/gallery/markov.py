"""A deep Markov model of the rows of an image, with a latent per row (Krishnan et al., 2017)."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

transition, emission = nn.Linear(3, 6), nn.Linear(3, 48)
rnn, combiner = nn.GRU(48, 8, batch_first=True), nn.Linear(3 + 8, 6)


def rows(images):
    return images.permute(0, 2, 1, 3).flatten(2)


def model(images):
    for name, net in (("transition", transition), ("emission", emission)):
        pyro.module(name, net)
    xs = rows(images)
    z = torch.zeros(len(xs), 3)
    with pyro.plate("z_minibatch", len(xs)):
        for t in pyro.markov(range(16)):
            loc, spread = transition(z).chunk(2, -1)
            z = pyro.sample(f"z_{t + 1}", dist.Normal(loc, spread.tanh().exp()).to_event(1))
            pyro.sample(f"obs_x_{t + 1}", dist.Normal(emission(z), 0.3).to_event(1), obs=xs[:, t])


def guide(images):
    for name, net in (("rnn", rnn), ("combiner", combiner)):
        pyro.module(name, net)
    hidden, _ = rnn(rows(images).flip(1))
    z = torch.zeros(len(images), 3)
    with pyro.plate("z_minibatch", len(images)):
        for t in pyro.markov(range(16)):
            loc, spread = combiner(torch.cat([z, hidden[:, 15 - t]], -1)).chunk(2, -1)
            z = pyro.sample(f"z_{t + 1}", dist.Normal(loc, spread.tanh().exp()).to_event(1))
