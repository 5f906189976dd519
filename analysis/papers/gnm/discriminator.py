"""D-Steps of GNM's supplement: training steps until a classifier separates a program's images from true ones.

# differs: the paper's classifier is not known; all its figures are multiples of 40 minus one, so it was
evaluated every 40 steps, counted from 0. Here it is `Discriminator`, with batches of `HALF` true and `HALF`
sampled images; a fourth of the images is held out to measure the accuracy. So D-Steps compare models of
this project only.

Shape legend: B images, C colours, S pixels per side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HALF = 32
"""Half the batch size."""
INTERVAL = 40
"""Steps between two evaluations."""
GOAL = 0.9
"""Accuracy to reach."""
LIMIT = 2000
"""Largest number of steps."""
RATE = 3e-4
"""Learning rate."""


class Discriminator(nn.Module):
    """Classifies images as true or sampled: four convolutions of stride 2, and a linear layer."""

    def __init__(self, size: int, colours: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for inputs, width in ((colours, 16), (16, 32), (32, 64), (64, 64)):
                layers += [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (size // 16) ** 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [0, 1] -> logits (B,)."""
        return self.net(images).squeeze(-1)


class Discrimination(NamedTuple):
    """Result of a discrimination: steps and accuracy."""

    steps: int
    """step, from 0, after which the goal was reached; `limit` if it never was"""
    accuracy: float
    """accuracy on held-out images, at the last evaluation"""


def d_steps(true: Tensor, sampled: Tensor, limit: int = LIMIT, seed: int = 0) -> Discrimination:
    """Steps until a classifier separates sampled images from true ones with an accuracy of `GOAL` (D-Steps).

    Args:
        true, sampled: (B, C, S, S) in [0, 1]; the last fourth of each is held out.
    """
    number = min(len(true), len(sampled))
    true, sampled = true[:number], sampled[:number]
    train = number - number // 4
    generator = torch.Generator().manual_seed(seed)
    net = Discriminator(true.shape[-1], true.shape[1], seed)
    optimiser = torch.optim.Adam(net.parameters(), RATE)
    wanted, accuracy = torch.cat([torch.ones(HALF), torch.zeros(HALF)]), 0.5
    for step in range(limit):
        rows = torch.randint(train, (2, HALF), generator=generator)
        logits = net(torch.cat([true[rows[0]], sampled[rows[1]]]))
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(logits, wanted).backward()
        optimiser.step()
        if (step + 1) % INTERVAL == 0:
            with torch.no_grad():
                right = [(_logits(net, true[train:]) > 0), (_logits(net, sampled[train:]) <= 0)]
            accuracy = float(torch.cat(right).double().mean())
            if accuracy >= GOAL:
                return Discrimination(step, accuracy)
    return Discrimination(limit, accuracy)


def _logits(net: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([net(part) for part in images.split(200)])
