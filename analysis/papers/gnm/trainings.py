"""The trainings of the models of GNM's supplement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from analysis.papers.item import Training


class Model(NamedTuple):
    """A model of the paper."""

    program: str
    variant: str
    preset: str = "{}"
    """preset, with {} for the requested preset"""
    set: tuple[str, ...] = ()
    """settings, as in ``--set``"""


MODELS: dict[str, Model] = {
    "GNM": Model("gnm", "gnm"),
    "GNM-8": Model("gnm", "gnm8"),
    "GNM-β-2": Model("gnm", "gnm", "{}_beta2"),
    "GNM-8-β-2": Model("gnm", "gnm8", "{}_beta2"),
    "GENESIS": Model("genesis", "genesis"),
    "ConvDRAW": Model("convdraw", "convdraw"),
    "ConvDRAW-8": Model("convdraw", "convdraw8"),
    "ConvDRAW-β-10": Model("convdraw", "convdraw", "{}_beta10"),
    "ConvDRAW-8-β-10": Model("convdraw", "convdraw8", "{}_beta10"),
    "VAE": Model("vae", "vae"),
    "SPACE": Model("space", "space", set=("colours=1",)),
}
"""Models by the names of the published tables."""
WORLDS = {"MNIST-4": "mnist4", "MNIST-10": "mnist10", "Arrow room": "arrow_room"}
"""Worlds by the paper's names."""


def training(model: str, world: str) -> Training:
    """The training of a model; items share equal trainings."""
    program, variant, preset, changes = MODELS[model]
    shipped = f"{variant}-{world}" if preset == "{}" and not changes else None
    return Training(program, variant, world, changes, preset, shipped, name=variant)


def on_worlds(models: Iterable[str], worlds: Iterable[str] = WORLDS) -> dict[str, Training]:
    """Trainings of models in several worlds, by names such as "GNM on MNIST-4"."""
    worlds = list(worlds)
    return {f"{m} on {w}": training(m, WORLDS[w]) for m in models for w in worlds}
