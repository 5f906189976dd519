"""Whether objects' types and parts' shapes can be read from their latents (no figure of the paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from analysis.judges import latents
from analysis.papers.gsgn.trainings import training
from analysis.papers.item import Item, Made, Request, Row
from inference.runs import Trained

SCENES = 4000
"""Scenes, of which a fourth is held out."""
LEVELS = {1: "type of an object from z_what_1", 2: "shape of a part from z_what_2"}


def item(title: str, worlds: Mapping[str, str]) -> Item:
    """The item, with one training of GSGN per world.

    Args:
        worlds: title of a world -> its name.
    """
    return Item(title, {name: training("GSGN", world) for name, world in worlds.items()}, told)


def told(runs: Mapping[str, Trained], request: Request) -> Made:
    """Shares of held-out nodes whose class a small net names, and those of the most frequent class."""
    rows = []
    for name, run in runs.items():
        data = run.unseen(request.scenes or SCENES, request.seed)
        for level, what in LEVELS.items():
            found = latents.told(run.program, run.guide, data, level, request.seed)
            if found is None:
                continue
            error = math.sqrt(found.accuracy * (1 - found.accuracy) / found.number)
            case = f"{found.number} nodes"
            rows.append(
                Row(name, what, found.accuracy, case=case, scenes=len(data.images), error=error)
            )
            rows.append(Row(name, "most frequent class", found.chance, case=case))
    return Made(tuple(rows))
