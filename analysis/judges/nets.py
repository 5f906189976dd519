"""Trains the small judge networks: one learning-rate cycle, reproducible from the seed; keeps their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from inference import checkpoint
from programs.worlds import cache


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


def cached_net(net: nn.Module, key: Mapping[str, object], train: Callable[[], None]) -> None:
    """Train the net by `train`, or load the weights of an earlier training from the cache.

    Args:
        key: everything on which the trained weights depend.
    """
    from safetensors.torch import load, save

    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = cache() / f"judge-{name}.safetensors"
    if path.is_file():
        net.load_state_dict(load(path.read_bytes()))
    else:
        train()
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(path, save(net.state_dict()))
    net.eval()
