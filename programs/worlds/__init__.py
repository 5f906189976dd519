"""Simulators: programs without learned parameters that return a Scene with the truth in it.

A world is a Python file: one in this folder, or any other that ``--world FILE.py`` names. It must have

``Config``
    A frozen dataclass with a default for every field and a field ``size``, pixels per side. Its values
    are plain (numbers, strings, tuples of them): they are part of a data set's name in the cache. It raises
    a ValueError for an impossible value.
``draw(batch, generator, config)``
    Returns `batch` scenes drawn with the torch.Generator, as a Scene and labels (B, size, size) uint8 or int16.
    The Scene has its image (B, C, size, size) in [0, 1], and on every level pres, pose, depth, parent
    and category, but no masks: labels hold them. All random numbers must come from the generator, and no
    state may be kept between calls, because several processes draw batches in any order.

and may have

``VERSION``
    A string, part of the cache key; raise it with every change of the drawn scenes. For a file outside the
    project the key includes the whole source.
``VARIANTS``
    Names of variants in this folder, each with the fields of Config that it changes; a literal.
``with_masks(scene, labels)``
    The Scene with the masks that labels hold. By default labels are 0 where no object is visible, else 1 +
    the slot of the visible leaf (`with_visible_masks`). `pack` and `unpack` code leaves that overlap. A third
    argument ``config``, if there is one, is the Config with which the scenes were drawn.
``sources(config)``
    Paths of further files that decide how scenes look; their contents are part of the cache key.
``prepare(config)``
    Called once before scenes are drawn, for example to download pictures.
``obeys(nodes, config)``
    (B,) bool: whether objects follow the world's rule, which ``Config.lawful = False`` breaks.

Other code reads these fields of Config: ``split`` is set to train, validation or test, for worlds whose
objects differ between them; ``colours`` is set to the program's; ``digits`` names the source of digits, and
``classes`` the kinds of objects; for worlds with ``lawful`` the structure of images is judged
(`analysis.papers.gnm.judges`), for worlds with ``repeats`` the classes of objects are counted
(`analysis.papers.econ.validity`).

This file holds the code that worlds share: the folder of generated and downloaded files, and the label maps
of scenes whose objects may overlap.

Shape legend: B images, N slots, H x W pixels.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from programs.scene import Scene


def cache() -> Path:
    """``$SCENE_PROGRAMS_CACHE``, or ~/.cache/scene-programs.

    Raises:
        ValueError: neither is there.
    """
    if chosen := os.environ.get("SCENE_PROGRAMS_CACHE"):
        return Path(chosen)
    try:
        return Path.home() / ".cache" / "scene-programs"
    except RuntimeError as error:
        raise ValueError(
            "there is no home folder to keep generated scenes in: set SCENE_PROGRAMS_CACHE to a folder"
        ) from error


def numbers(config: Any, most: int) -> list[int]:
    """The possible numbers of objects: from `min_objects` to `max_objects`, except those in `without`.

    Args:
        most: number of slots.
    Raises:
        ValueError: no number remains, or one is larger than `most`.
    """
    if not 1 <= config.min_objects <= config.max_objects <= most:
        raise ValueError(
            f"min_objects={config.min_objects}, max_objects={config.max_objects}: "
            f"expected 1 <= min_objects <= max_objects <= {most}"
        )
    every = range(config.min_objects, config.max_objects + 1)
    found = [number for number in every if number not in config.without]
    if not found:
        raise ValueError(
            f"without={config.without}: expected to leave out less than {config.min_objects} to "
            f"{config.max_objects} objects, all there are"
        )
    return found


def pack(masks: Tensor) -> Tensor:
    """Masks (B, N, H, W) bool of at most 8 slots as a map (B, H, W) uint8: bit k is of slot k."""
    return (masks * _bits(masks.shape[1])).sum(1, dtype=torch.uint8)


def unpack(labels: Tensor, number: int) -> Tensor:
    """The masks (B, N, H, W) bool of `number` slots that `pack` coded as `labels` (B, H, W)."""
    return labels[:, None] & _bits(number) != 0


def _bits(number: int) -> Tensor:
    """(N, 1, 1) uint8."""
    assert number <= 8, f"{number} slots do not fit the 8 bits of a label"
    return torch.tensor([1 << k for k in range(number)], dtype=torch.uint8)[:, None, None]


def with_visible_masks(scene: Scene, labels: Tensor) -> Scene:
    """Add masks (bool) from a map (B, H, W) uint8: 0, or 1 + the slot of the visible leaf."""
    leaves = scene.levels[-1]
    slots = torch.arange(1, leaves.pres.shape[1] + 1)
    masks = (labels[:, None] == slots[:, None, None],)
    for nodes, above in zip(scene.levels[:0:-1], scene.levels[-2::-1], strict=True):
        own = nodes.parent[..., None] == torch.arange(above.pres.shape[1])
        union = torch.einsum("bnhw,bnm->bmhw", masks[0].float(), own.float()) > 0
        masks = (union, *masks)
    return scene.with_masks(masks)
