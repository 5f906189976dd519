"""The trainings of the models of the GSGN paper."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.papers.item import Training

MODELS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "SPACE-O": ("space", "space", ()),
    "SPACE-P": ("space", "space_p", ()),
    "GSGN": ("gsgn", "gsgn", ()),
    "GSGN-9": ("gsgn", "gsgn9", ()),
    "GSGN-No-Share": ("gsgn", "no_share", ()),
    "GSGN-No-Aux": ("gsgn", "gsgn", ("train.auxiliary={}",)),
    "GSGN-Mem": ("gsgn", "mem", ()),
}
"""Program, variant and settings by model.

# differs: No-Aux leaves out only the auxiliary KLs; KL weights of the recipe stay.
"""
WORLDS = {"2D Shapes": "shapes2d", "Compositional CLEVR": "compositional_clevr"}
"""Worlds by the paper's names."""
ONE_AND_THREE = ("world.max_objects=3", "world.without=(2,)")
"""Settings of a training on scenes with 1 and 3 objects (Tables 4 and 5)."""


def training(model: str, world: str, set_: tuple[str, ...] = ()) -> Training:
    """The training of a model; items share equal trainings.

    Args:
        set_: further settings besides the model's own, as in ``--set``.
    """
    program, variant, own = MODELS[model]
    shipped = None if own or set_ else f"{variant}-{world}"
    label = "1and3" if set_ == ONE_AND_THREE else ""
    return Training(
        program, variant, world, (*own, *set_), shipped=shipped, label=label, name=model
    )


def on_worlds(models: Iterable[str]) -> dict[str, Training]:
    """Trainings of models in both worlds, by names such as "GSGN on 2D Shapes"."""
    return {f"{m} on {title}": training(m, w) for m in models for title, w in WORLDS.items()}
