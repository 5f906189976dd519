"""Moves of whole objects: births, deaths, objects drawn anew, one as two, and two that change places.

A birth is proposed by the guide where it looks at what is unexplained: the image less what the other objects
draw. With this proposal's density b, and the numbers of ways there and back, a birth is accepted with (Green,
1995)

    min(1, π(z, u) / (π(z) b(u | z)) · ways to remove / ways to add)

Two kinds of programs have objects. In a program of steps (z_pres_1, z_pres_2, …, the first 0 ends it) an
object may be removed from, and put into, any place of the sequence, and the guide's first step proposes it. In
a program of slots (a plate) an object has the slot that it has, and what hangs below it comes and goes with it.

Shape legend: R rows, which are chains times images; T steps; N slots; S, E as in `latents`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from analysis.posterior.refine.latents import Marks, Propose, Values, choose
from analysis.posterior.refine.target import Move, State, Target

PRESENCE = re.compile(r"z_pres(?:_(\d+))?")
"""Names of presence sites, by the vocabulary of `programs.scene`."""


class Objects(Protocol):
    """What the moves ask of a kind of program."""

    @property
    def presences(self) -> tuple[str, ...]:
        """Names of its presence sites."""

    @property
    def parts(self) -> int:
        """Number of sites of an object from any of which on it can be drawn anew."""

    def present(self, state: State) -> Tensor:
        """(R, N) bool: places with an object that can be removed."""

    def vacant(self, state: State) -> Tensor:
        """(R, N) bool: places that an object can be put into."""

    def without(self, state: State, place: Tensor) -> Values:
        """Values without the object at a place (R,)."""

    def proposed(
        self,
        state: State,
        base: State,
        images: Tensor,
        place: Tensor,
        fresh: Tensor,
        cut: int = 0,
    ) -> tuple[Values, Tensor]:
        """Values with an object at a place (R,), and (R,) log b of its sites from `cut` on.

        Where `fresh` (R,) is false, or in sites before `cut`, it is the object that `state` has there.
        """


@dataclass(frozen=True)
class Steps:
    """Objects one after the other, each a row of sites with the step as suffix."""

    target: Target
    presences: tuple[str, ...]
    families: dict[str, tuple[str, ...]]
    """site's name without the step -> its T names; in the guide's order"""

    @property
    def parts(self) -> int:
        """Sites per object."""
        return len(self.families)

    def number(self, state: State) -> Tensor:
        """(R,) int64 number of objects."""
        on = torch.stack([state.values[n] for n in self.presences], 1)
        return on.cumprod(1).sum(1).long()

    def present(self, state: State) -> Tensor:
        """(R, T)."""
        steps = torch.arange(len(self.presences), device=state.log_p.device)
        return steps < self.number(state)[:, None]

    def vacant(self, state: State) -> Tensor:
        """(R, T) places from the first to that behind the last."""
        steps = torch.arange(len(self.presences), device=state.log_p.device)
        number = self.number(state)[:, None]
        return (steps <= number) & (number < len(self.presences))

    def without(self, state: State, place: Tensor) -> Values:
        """The later objects move up by a step."""
        steps = torch.arange(len(self.presences), device=place.device)
        source = (steps + (steps >= place[:, None])).clamp(max=len(self.presences) - 1)
        found = self.ordered(state.values, source)
        return found | self.counted(state.values, self.number(state) - 1)

    def proposed(
        self,
        state: State,
        base: State,
        images: Tensor,
        place: Tensor,
        fresh: Tensor,
        cut: int = 0,
    ) -> tuple[Values, Tensor]:
        """The guide's first step proposes; the later objects move down by a step."""
        t, rows = self.target, torch.arange(len(place), device=place.device)
        first: Values = dict(base.values)
        for names in self.families.values():
            own = torch.stack([state.values[n] for n in names], 1)
            first[names[0]] = own[rows, place]
        first[self.presences[0]] = torch.ones_like(first[self.presences[0]])
        keep: Marks = {n: torch.ones_like(e) for n, e in base.exists.items()}
        new = [names[0] for names in self.families.values()][cut:]
        if not new:
            drawn, score = first, torch.zeros_like(base.log_p)
        else:
            keep |= {n: torch.zeros_like(keep[n]) for n in new}
            proposal = Propose(t.latents, first, keep, fresh, last=new[-1])
            drawn, score = proposal.run(t.guide, images)
        steps = torch.arange(len(self.presences), device=place.device)
        source = (steps - (steps > place[:, None]).long()).clamp(min=0)
        found = self.ordered(base.values, source)
        here = steps == place[:, None]
        for names in self.families.values():
            for i, name in enumerate(names):
                found |= choose(here[:, i], {name: drawn[names[0]]}, {name: found[name]})
        return found | self.counted(base.values, self.number(base) + 1), score

    def ordered(self, values: Values, source: Tensor) -> Values:
        """Values with each step's object from step `source` (R, T)."""
        rows, found = torch.arange(len(source), device=source.device)[:, None], dict(values)
        for names in self.families.values():
            moved = torch.stack([values[n] for n in names], 1)[rows, source]
            found |= dict(zip(names, moved.unbind(1), strict=True))
        return found

    def counted(self, values: Values, number: Tensor) -> Values:
        """Presences of this `number` (R,) of objects."""
        return {n: (number > i).to(values[n]) for i, n in enumerate(self.presences)}


@dataclass(frozen=True)
class Slots:
    """Objects that each have a slot of a plate."""

    target: Target
    presence: str
    parts: int

    @property
    def presences(self) -> tuple[str, ...]:
        """The one."""
        return (self.presence,)

    def present(self, state: State) -> Tensor:
        """(R, N)."""
        return (state.exists[self.presence] & (state.values[self.presence] > 0.5)).flatten(1)

    def vacant(self, state: State) -> Tensor:
        """(R, N)."""
        return (state.exists[self.presence] & (state.values[self.presence] <= 0.5)).flatten(1)

    def without(self, state: State, place: Tensor) -> Values:
        """The presence at this slot becomes 0."""
        return state.values | self.switched(state.values, place, 0.0)

    def proposed(
        self,
        state: State,
        base: State,
        images: Tensor,
        place: Tensor,
        fresh: Tensor,
        cut: int = 0,
    ) -> tuple[Values, Tensor]:
        """The guide proposes what newly exists at this slot, and below it."""
        t, keep = self.target, dict(base.exists)
        after = t.order.index(self.presence) + 1
        keep |= {n: torch.ones_like(keep[n]) for n in t.order[after : after + cut]}
        values = choose(fresh, base.values, state.values)
        if cut:
            values |= {n: state.values[n] for n in t.order[after : after + cut]}
        values |= self.switched(values, place, 1.0)
        return Propose(t.latents, values, keep, fresh).run(t.guide, images)

    def switched(self, values: Values, place: Tensor, to: float) -> Values:
        """The presence with a value at this slot."""
        on = values[self.presence]
        return {self.presence: on.flatten(1).scatter(1, place[:, None], to).view_as(on)}


def objects_of(target: Target, state: State) -> list[Objects]:
    """The kinds of objects of a program: none where no presence gates anything."""
    presence = [n for n in target.order if PRESENCE.fullmatch(n) and target.latents[n].choice == 2]
    flat = [n for n in presence if state.values[n].ndim == 1]
    if flat and flat == presence and _sequential(target, state, flat):
        stems: dict[str, list[str]] = {}
        for name in target.order:
            stem, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()
            if number is not None and name not in presence:
                stems.setdefault(stem, []).append(name)
        families = {k: tuple(v) for k, v in stems.items() if len(v) == len(flat)}
        return [Steps(target, tuple(flat), families)]
    if flat:
        return []
    last = {n: len(target.order) - target.order.index(n) - 1 for n in presence}
    return [Slots(target, n, _below(target, state, n)) for n in presence if last[n]]


def _sequential(target: Target, state: State, presence: list[str]) -> bool:
    """Whether the first 0 ends the sequence: later presences do not exist behind it."""
    off = {n: torch.zeros_like(state.values[n]) for n in presence}
    exists = target.state(state.values | off, guided=False).exists
    return all(not exists[n].any() for n in presence[1:]) and len(presence) > 1


def _below(target: Target, state: State, presence: str) -> int:
    """Number of sites that exist in the same slots as a presence."""
    shape, after = state.exists[presence].shape, target.order.index(presence) + 1
    own = [n for n in target.order[after:] if state.exists[n].shape == shape]
    run = [n for n in target.order[after : after + len(own)] if n in own]
    return len(run)


@dataclass(frozen=True)
class Jump(Move):
    """One object more or one less, each with probability 1/2."""

    name: ClassVar[str] = "birth or death"
    target: Target
    objects: Objects

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """See `Move.propose`."""
        t, o, guided = self.target, self.objects, bool((beta < 1).any())
        birth = torch.rand_like(state.log_p) < 0.5
        options = torch.where(birth[:, None], o.vacant(state), o.present(state))
        some, place = options.any(1), _pick(options)
        less = choose(birth, state.values, o.without(state, place))
        base = t.state(less, guided)
        images = looked_at(t, base)
        values, score = o.proposed(state, base, images, place, birth)
        full = t.state(values, guided)
        gain = t.along(full, beta) - t.along(base, beta) - score
        gain = gain + o.vacant(base).sum(1).log() - o.present(full).sum(1).log()
        ratio = torch.where(birth, gain, -gain).where(some, -torch.inf)
        return full.where(birth, base), ratio


@dataclass(frozen=True)
class Redraw(Move):
    """An object drawn anew, from a random one of its sites on, by the guide on what the others leave
    unexplained."""

    name: ClassVar[str] = "object drawn anew"
    target: Target
    objects: Objects

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """See `Move.propose`."""
        t, o = self.target, self.objects
        options = o.present(state)
        some, place = options.any(1), _pick(options)
        cut = int(torch.randint(max(1, o.parts), ()))
        base = t.state(o.without(state, place), guided=False)
        base = base.where(some, state)
        images = looked_at(t, base)
        values, forth = o.proposed(state, base, images, place, torch.ones_like(some), cut)
        _, back = o.proposed(state, base, images, place, torch.zeros_like(some), cut)
        new = t.state(choose(some, values, state.values), bool((beta < 1).any()))
        ratio = t.along(new, beta) - t.along(state, beta) + back - forth
        return new, ratio.where(some, -torch.inf)


@dataclass(frozen=True)
class Split(Move):
    """One object drawn anew as two, or two as one, each with probability 1/2.

    Where a guide takes two objects that touch for one large one, neither a birth nor a new draw of the large
    one pays by itself. All objects are drawn by the guide on what the others leave unexplained. Of the one v
    and the two u_1, u_2

        ratio = π(z, u_1, u_2) b(v | z) / (π(z, v) b(u_1 | z) b(u_2 | z, u_1)) · ways back / ways forth
    """

    name: ClassVar[str] = "one as two"
    target: Target
    objects: Objects

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """See `Move.propose`."""
        t, o, guided = self.target, self.objects, bool((beta < 1).any())
        split = torch.rand_like(state.log_p) < 0.5
        gone = _pick(o.present(state))  # v of a split, u_2 of a union
        rest = t.state(o.without(state, gone), guided=False)
        first = _pick(o.present(rest))
        base = t.state(choose(split, rest.values, o.without(rest, first)), guided=False)
        some = o.present(state).any(1) & (split | o.present(rest).any(1))

        images = looked_at(t, base)
        place = torch.where(split, _pick(o.vacant(base)), first)
        values, one = o.proposed(state.where(split, rest), base, images, place, split)
        middle = t.state(values, guided=False)
        some = some & (~split | o.vacant(middle).any(1))
        place = torch.where(split, _pick(o.vacant(middle)), gone)
        values, two = o.proposed(state, middle, looked_at(t, middle), place, split)
        many = t.state(values, guided)
        place = torch.where(split, gone, _pick(o.vacant(base)))
        values, single = o.proposed(state, base, images, place, ~split)
        few = t.state(values, guided)

        gain = t.along(many, beta) - t.along(few, beta) + single - one - two
        gain = gain + o.present(few).sum(1).log() + o.vacant(middle).sum(1).log()
        gain = gain - o.present(many).sum(1).log() - o.present(middle).sum(1).log()
        ratio = torch.where(split, gain, -gain).where(some, -torch.inf)
        return many.where(split, few), ratio


@dataclass(frozen=True)
class Swap(Move):
    """Two objects of a sequence change places."""

    name: ClassVar[str] = "swap"
    target: Target
    objects: Steps

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """See `Move.propose`."""
        present = self.objects.present(state)
        some = present.sum(1) > 1
        pair = torch.multinomial(present.float() + ~some[:, None], 2)
        steps = torch.arange(present.shape[1], device=pair.device).expand(len(pair), -1)
        order = steps.scatter(1, pair, pair.flip(1))
        values = self.objects.ordered(state.values, order)
        new = self.target.state(values, bool((beta < 1).any()))
        ratio = self.target.along(new, beta) - self.target.along(state, beta)
        return new, ratio.where(some, -torch.inf)


def looked_at(target: Target, base: State) -> Tensor:
    """What the guide proposes an object for: what is unexplained, or the image, each in half of the moves."""
    if torch.rand(()) < 0.5:
        return target.unexplained(base)
    return target.images


def _pick(options: Tensor) -> Tensor:
    """(R,) one of the options (R, N), each with the same probability; any where there is none."""
    none = ~options.any(1, keepdim=True)
    return torch.multinomial(options.float() + none, 1)[:, 0]
