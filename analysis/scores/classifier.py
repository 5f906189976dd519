"""Trains the small judge networks: one learning-rate cycle, reproducible from the seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A net whose initial weights depend on the seed alone; the global generator is not changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def fit(
    net: nn.Module,
    loss: Callable[[Tensor], Tensor],
    number: int,
    *,
    batch: int,
    steps: int,
    rate: float,
    seed: int,
    decay: float = 0.01,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Train `net` by AdamW, the learning rate rising to `rate` and falling once (Smith and Topin, 2018).

    Args:
        loss: from indices (`batch`,) of examples to their mean loss.
        number: number of examples; a batch is drawn with replacement.
        decay: weight decay.
        after: function called with the number of every step, from 1.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps)
    net.train()
    for step in range(1, steps + 1):
        value = loss(torch.randint(number, (batch,), generator=generator))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
        after(step)
    net.eval()
