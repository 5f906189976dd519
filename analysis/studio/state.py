"""The state of the studio: an image, a scene under the hand, what was done before, and the clipboard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from pyro import poutine
from torch import Tensor

from analysis import edit
from analysis.posterior import Mode
from analysis.studio import latents
from analysis.studio.latents import Told, Values
from programs.scene import Scene

LONGEST = 200
"""Scenes of the history at most; the oldest are dropped."""


@dataclass(frozen=True)
class Selection:
    """A node that is selected; the scene itself if there is no slot."""

    level: int = 0
    slot: int | None = None


@dataclass(frozen=True)
class Change:
    """An edit of a Scene that no latents say, as in programs whose objects have no place of their own."""

    name: str
    """a function of `analysis.edit`"""
    slot: int
    level: int
    number: tuple[float, ...] = ()
    """its numbers: a shift (x, y), a factor, or an angle"""
    source: Scene | None = None
    """the Scene that a node is grafted from"""
    source_slot: int = 0

    def __call__(self, scene: Scene) -> Scene:
        """The scene with this edit."""
        change = getattr(edit, self.name)
        if self.source is not None:
            return change(scene, self.slot, self.source, self.source_slot, self.level)
        numbers = self.number if len(self.number) != 1 else self.number[0]
        return change(scene, self.slot, *([numbers] if self.number else []), level=self.level)


@dataclass(frozen=True)
class Hand:
    """A scene under the hand: latents that a program draws it from, then edits."""

    values: Values
    edits: tuple[Change, ...] = ()
    selection: Selection = Selection()


@dataclass(frozen=True)
class Copied:
    """A node on the clipboard."""

    part: latents.Part
    scene: Scene
    """the Scene that it is from"""
    slot: int
    level: int


@dataclass
class Bench:
    """A program, its guide, an image, and the scenes that were made of it, the newest last."""

    program: Callable
    guide: Callable
    image: Tensor | None = None
    """(1, C, H, W), or None for a scene of the prior"""
    past: list[Hand] = field(default_factory=list)
    future: list[Hand] = field(default_factory=list)
    stroke: str | None = None
    """the drag that the newest scene belongs to"""
    copied: Copied | None = None
    first: Seen | None = None
    """the scene of the beginning, which changes are compared with"""
    _known: tuple[Hand, Seen] | None = None

    @property
    def hand(self) -> Hand:
        """The newest scene.

        Raises:
            ValueError: there is none yet.
        """
        if not self.past:
            raise ValueError("there is no scene yet: choose an image, or dream one")
        return self.past[-1]

    @property
    def seen(self) -> Seen:
        """The newest scene, drawn."""
        hand = self.hand
        known = self._known and self._known[0]
        if not known or known.values is not hand.values or known.edits is not hand.edits:
            self._known = hand, self.look(hand)
        return self._known[1]

    def look(self, hand: Hand) -> Seen:
        """A scene, drawn by the program."""
        told = latents.tell(self.program, hand.values, self.image)
        scene = told.scene
        for change in hand.edits:
            scene = change(scene)
        return Seen(told, edit.render(self.program, scene) if hand.edits else scene, hand.edits)

    def begin(self, image: Tensor | None, values: Values | None = None) -> None:
        """Start over with the scene of an image at the guide's mode, or of given latents.

        Raises:
            ValueError: the program returns no Scene.
        """
        self.image = image
        values = read(self.program, self.guide, image) if values is None else values
        hand = Hand(values)
        self.first = self.look(hand)
        self.past, self.future, self.stroke = [hand], [], None
        self._known = hand, self.first
        self.select(first_present(self.first.scene))

    def change(self, hand: Hand, stroke: str | None = None) -> None:
        """Add a scene to the history; of one drag only the last is kept.

        The scene is drawn first, so one that cannot be drawn changes nothing.
        """
        seen = self.look(hand)
        if stroke is not None and stroke == self.stroke:
            self.past.pop()
        self.past = [*self.past, hand][-LONGEST:]
        self.future, self.stroke = [], stroke
        self._known = hand, seen

    def select(self, selection: Selection) -> None:
        """Select a node; that is no change of the scene."""
        self.past[-1] = replace(self.hand, selection=selection)

    def undo(self) -> None:
        """Go back by one change.

        Raises:
            ValueError: nothing was changed.
        """
        if len(self.past) < 2:
            raise ValueError("there is nothing to undo")
        self.future.append(self.past.pop())
        self.stroke = None

    def redo(self) -> None:
        """Do again what was undone.

        Raises:
            ValueError: nothing was undone.
        """
        if not self.future:
            raise ValueError("there is nothing to do again")
        self.past.append(self.future.pop())
        self.stroke = None


@dataclass(frozen=True)
class Seen:
    """A scene, drawn: what the program says of its latents, and the Scene after the edits."""

    told: Told
    scene: Scene
    edits: tuple[Change, ...]

    @cached_property
    def placed(self) -> bool:
        """Whether objects have places of their own among the latents, `z_where`: no edits are needed."""
        if not self.scene.levels:
            return False
        own = latents.own_sites(self.told, 0, 0)
        return any(name.startswith("z_where") for name in own)


@torch.no_grad()
def read(program: Callable, guide: Callable, image: Tensor) -> Values:
    """Latents of an image (1, C, H, W) at the guide's mode."""
    with Mode():
        trace = poutine.trace(guide).get_trace(image)
    read_by = poutine.trace(poutine.replay(program, trace=trace))
    return latents.values_of(read_by.get_trace(image))


def first_present(scene: Scene) -> Selection:
    """The first present object, or the scene itself."""
    present = scene.objects.present[0].nonzero()[:, 0].tolist() if scene.levels else []
    return Selection(0, present[0] if present else None)
