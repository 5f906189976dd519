"""The largest structure accuracy that a scene graph can reach in a world.

    python -m analysis.papers.gsgn.ceiling WORLD [--scenes N] [--seed S]

A child's centre is within `reach` of its cell's, in cells (GSGN eq. 15), each cell has one child, and a
window has half a side of at most .59 (eq. 16). Windows are taken to be the true boxes. Children in
neighbouring cells can be separated only if their centres differ along that axis: two parts on the border of
their cells would need a window at exactly one place. In shipped runs of GSGN, parts less than .25
half-sides apart were found in 1 % of cases, .25 to .4 apart in 14 %, farther apart in 41 %.

Shape legend: B images, N nodes, K children per node, W assignments of cells to them.
"""

from __future__ import annotations

import itertools
import sys

import torch
from torch import Tensor

from analysis.command import positive
from inference.command import command_line, told
from inference.images.worlds import world_dataset
from programs.blocks import render
from programs.scene import Scene

REACH, LARGEST = 0.55, 0.59
APART = (0.0, 0.4)
"""Least distance of two children along the axis on which their cells are neighbours: objects, parts."""


def held(truth: Scene, apart: tuple[float, float] = APART, side: int = 2) -> Tensor:
    """(B, N) whether the true objects, with all their parts, fit into a graph of out-degree `side`²."""
    objects, parts = truth.objects, truth.parts
    degree = parts.pres.shape[1] // objects.pres.shape[1]
    inside = render.chain(
        render.inverse(objects.pose).repeat_interleave(degree, 1), parts.pose
    )  # parts in their objects' frames; slots of one object are side by side
    pairs = (-1, degree)
    local = inside[..., 2].unflatten(1, pairs)
    good = fits(local, parts.present.unflatten(1, pairs), apart[1], side)
    good &= objects.extent.amax(-1) <= LARGEST
    good &= fits(objects.centre, objects.present, apart[0], side)[:, None]
    return good | ~objects.present


def ceiling(truth: Scene, apart: tuple[float, float] = APART, side: int = 2) -> float:
    """The share of scenes in which all objects are `held`."""
    return float(held(truth, apart, side).all(1).float().mean())


def fits(place: Tensor, there: Tensor, apart: float, side: int = 2) -> Tensor:
    """(...) whether the children at `place` (..., K, 2) in [-1, 1]² that are `there` can get a cell each."""
    number = place.shape[-2]
    axis = (2 * torch.arange(side) + 1) / side - 1
    cells = torch.cartesian_prod(axis, axis)
    ways = torch.tensor([*itertools.permutations(range(side**2), number)])  # (W, K)
    reached = (place[..., None, :] - cells).abs().amax(-1)  # (..., K, cells)
    near = reached <= REACH * 2 / side + 1e-6
    near |= ~there[..., None]
    good = torch.stack([near[..., k, ways[:, k]] for k in range(number)]).all(0)
    for i, j in itertools.combinations(range(number), 2):
        side_of = (cells[ways[:, j]] - cells[ways[:, i]]).sign()  # (W, 2)
        step = (place[..., j, :] - place[..., i, :])[..., None, :] * side_of
        neighbours = (side_of == 0).any(-1)
        far = (step >= apart - 1e-6).where(side_of != 0, torch.tensor(True)).all(-1) | ~neighbours
        good &= far | ~(there[..., i] & there[..., j])[..., None]
    return good.any(-1)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("analysis.papers.gsgn.ceiling", __doc__)
    a.add_argument("world", metavar="WORLD", help="a world of objects with parts")
    a.add_argument("--scenes", type=positive, default=500, metavar="N")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    o = a.parse_args(arguments)
    truth = world_dataset(o.world, o.scenes, "test", o.seed).truth()
    if len(truth.levels) != 2:
        raise ValueError(f"{o.world} has {len(truth.levels)} levels: expected objects and parts")
    for words, apart in (("by reach alone", (0.0, 0.0)), ("parts .4 apart", APART)):
        print(f"structure accuracy that {o.world} allows, {words}: {ceiling(truth, apart):.3f}")


if __name__ == "__main__":
    sys.exit(main())
