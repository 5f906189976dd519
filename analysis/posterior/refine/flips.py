"""Metropolis moves for any program: a discrete value changed, and the rest of the guide drawn anew.

Where a change makes elements exist that did not, such as the latents of an object that appears, the guide
draws them given the others; where they cease to exist, its density of them pays for the way back.

Shape legend: R rows, which are chains times images; K elements of all discrete sites.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from analysis.posterior.refine.latents import Latent, Marks, Propose, Values
from analysis.posterior.refine.target import Move, State, Target


class Flip(Move):
    """Change one element of the discrete sites, chosen at random among those that exist.

    Args:
        names: sites of Bernoullis or categories.
    """

    name = "flip"

    def __init__(self, target: Target, names: Sequence[str]) -> None:
        self.target, self.latents = target, [target.latents[n] for n in names]

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """See `Move.propose`."""
        marks = self.marks(state)
        some = marks.any(1)
        index = torch.multinomial(marks.float() + ~some[:, None], 1)[:, 0]
        values, guided = self.changed(state.values, index), bool((beta < 1).any())
        new = self.target.state(values, guided)
        paid = torch.zeros_like(state.log_p)
        if any((new.exists[n] != e).any() for n, e in state.exists.items()):
            new, paid = self.completed(state, values, guided)
        ratio = self.target.along(new, beta) - self.target.along(state, beta) + paid
        ratio = ratio + marks.sum(1).log() - self.marks(new).sum(1).log()
        return new, ratio.where(some, -torch.inf)

    def completed(self, state: State, values: Values, guided: bool) -> tuple[State, Tensor]:
        """The state with what newly exists drawn by the guide, and (R,) log-density of the way back less
        forth."""
        t, everywhere = self.target, torch.ones_like(state.log_p, dtype=torch.bool)
        proposal = Propose(t.latents, values, state.exists, everywhere)
        values, forth = proposal.run(t.guide, t.images)
        new = t.state(values, guided)
        # what ceased to exist is drawn on the way back
        _, back = Propose(t.latents, state.values, new.exists, ~everywhere).run(t.guide, t.images)
        return new, back - forth

    def marks(self, state: State) -> Tensor:
        """(R, K) bool: elements that exist."""
        return torch.cat([_flat(state.exists[x.name]) for x in self.latents], 1)

    def changed(self, values: Values, index: Tensor) -> Values:
        """Values with another one at the element of this index (R,)."""
        found, start = dict(values), 0
        for latent in self.latents:
            value = values[latent.name]
            flat = _flat(value, value.shape[-1]) if latent.one_hot else _flat(value)
            mine = torch.arange(start, start + flat.shape[1], device=index.device) == index[:, None]
            found[latent.name] = other(latent, flat, mine).view_as(value)
            start += flat.shape[1]
        return found


def other(latent: Latent, value: Tensor, mine: Tensor) -> Tensor:
    """Another value at the elements that are `mine`, each of the others with the same probability."""
    if latent.choice == 2 and not latent.one_hot:
        return torch.where(mine, 1 - value, value)
    shift = torch.randint(1, latent.choice, mine.shape, device=value.device)
    if not latent.one_hot:
        return torch.where(mine, (value + shift) % latent.choice, value)
    index = (value.argmax(-1) + shift) % latent.choice
    turned = torch.nn.functional.one_hot(index, latent.choice).to(value)
    return torch.where(mine.unsqueeze(-1), turned, value)


def _flat(x: Tensor, *last: int) -> Tensor:
    """(R, K) the elements of each row; (R, K, A) if the last dimension A is given."""
    return x.reshape(len(x), -1, *last)


class Resimulate(Move):
    """Draw anew by the guide, given the image, all sites from a random one on."""

    name = "resimulate"

    def __init__(self, target: Target) -> None:
        self.target = target

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """See `Move.propose`."""
        t = self.target
        cut = int(torch.randint(len(t.order), ()))
        keep: Marks = {n: torch.full_like(state.exists[n], i < cut) for i, n in enumerate(t.order)}
        yes = torch.ones_like(state.log_p, dtype=torch.bool)
        values, forth = Propose(t.latents, state.values, keep, yes).run(t.guide, t.images)
        _, back = Propose(t.latents, state.values, keep, ~yes).run(t.guide, t.images)
        new = t.state(values, bool((beta < 1).any()))
        ratio = t.along(new, beta) - t.along(state, beta) + back - forth
        return new, ratio
