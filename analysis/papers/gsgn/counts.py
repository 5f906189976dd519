"""Number of scene graphs of Compositional CLEVR, from the world's table of types (GSGN, appendix G).

A scene is a multiset of 1 to 4 objects. Objects differ by their number of parts (structures), or also by the
relative places and sizes of parts (poses), or also by the kinds, colours and materials of parts (objects).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from analysis.papers.item import Made, Request, Row
from analysis.papers.published import PUBLISHED
from inference.runs import Trained
from programs.worlds import compositional_clevr as world

MATERIALS = 2
"""Rubber and metal."""
WORLD = "Compositional CLEVR"


def scenes_of(objects: int, most: int = world.OBJECTS) -> int:
    """Number of multisets of 1 to `most` objects out of `objects` different ones."""
    return sum(math.comb(objects + n - 1, n) for n in range(1, most + 1))


def arrangement(parts: tuple[world.Part, ...]) -> tuple[tuple[float, ...], ...]:
    """Relative places and sizes of an object's parts: those of all but the first, in units of its size."""
    first = parts[0][1]
    return tuple((size / first, x, y, below) for _, size, x, y, below in parts[1:])


def counts(types: tuple[tuple[world.Part, ...], ...]) -> dict[str, int]:
    """The numbers of appendix G by the columns of `PUBLISHED`."""
    looks = len(world.HUES) * MATERIALS
    objects = sum(looks ** len(parts) for parts in types)
    return {
        "structures": scenes_of(len({len(parts) for parts in types})),
        "structures_with_poses": scenes_of(len({arrangement(parts) for parts in types})),
        "objects": objects,
        "scene_graphs": scenes_of(objects),
    }


def appendix_g(runs: Mapping[str, Trained], request: Request) -> Made:
    """The numbers beside the paper's; they need no training and no scenes."""
    printed = PUBLISHED["gsgn", "appendixG"]
    found = counts(world.TYPES[3])
    return Made(
        tuple(Row(WORLD, m, float(found[m]), printed.figure(WORLD, m)) for m in printed.columns)
    )
