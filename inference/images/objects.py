"""Pictures and what a published file says of the objects in them, made into images and tables of a Scene.

A reader gives `Pictures` as the file has them; `arrays_of` cuts them square, resizes them, and works out the
truth. Of a picture with masks an object is present if one pixel of it is left, and its pose is the upright
box around what is seen. Of a picture with boxes alone an object is present if the box's middle is left, and
its pose is that box.

Shape legend: B pictures, H x W pixels, C colours, K entities of a file, N slots of objects, A attributes, S
pixels a side of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from programs.blocks import render

MOST = 255
"""Largest number of objects, since labels are bytes."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a shade of grey (ITU-R BT.601)."""


@dataclass(frozen=True)
class ObjectsConfig:
    """How published pictures are read."""

    size: int = 64  # pixels a side
    colours: int = 3  # or 1, for shades of grey
    max_objects: int = 10  # pictures with more are left out
    pictures: int = 100_000  # of a file at most so many are read

    def __post_init__(self) -> None:
        for name in ("size", "max_objects", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.max_objects > MOST:
            raise ValueError(f"max_objects={self.max_objects}: expected at most {MOST}")
        if self.colours not in (1, 3):
            raise ValueError(f"colours={self.colours}: expected 1 or 3")


class Pictures(NamedTuple):
    """A batch of pictures of one size as their file has them."""

    image: np.ndarray
    """(B, H, W, C) uint8"""
    labels: np.ndarray | None = None
    """(B, H, W) uint8: 0 for the background, or 1 + the slot of the object that is seen"""
    boxes: np.ndarray | None = None
    """(B, N, 4) left, top, right, bottom in pixels, NaN where no object is; read where there are no labels"""
    category: np.ndarray | None = None
    """(B, N) integers"""
    depth: np.ndarray | None = None
    """(B, N), smaller is nearer"""
    attributes: np.ndarray | None = None
    """(B, N, A)"""
    split: int = -1
    """0, 1, 2 for train, validation, test, where the file says so"""


class Found(NamedTuple):
    """What a reader found in a file."""

    title: str
    """the data set's name"""
    known: tuple[str, ...]
    """what is known of its objects, in words"""
    slots: int
    """of objects, N; 0 if nothing is known of them"""
    batches: Iterator[Pictures]


def arrays_of(pictures: Pictures, config: ObjectsConfig, slots: int) -> dict[str, np.ndarray]:
    """Images and truth by the names that `inference.images.stored` keeps them under.

    Pictures with more than ``config.max_objects`` objects are left out.
    """
    cut = Cut.middle(*pictures.image.shape[1:3])
    image = cut.images(pictures.image, config.size)
    arrays = {"images": _coloured(image, config.colours).numpy()}
    if pictures.labels is not None:
        labels = cut.labels(pictures.labels, config.size)
        masks = labels[:, None] == torch.arange(1, slots + 1)[:, None, None]
        pres, pose = masks.flatten(2).any(2), render.box(masks.float())
        arrays["labels"] = labels.numpy()
    elif pictures.boxes is not None:
        pres, pose = cut.poses(torch.from_numpy(pictures.boxes).float())
    else:
        pres, pose = torch.zeros(len(image), slots).bool(), torch.zeros(len(image), slots, 2, 3)
    if slots:
        arrays |= _table(pictures, pres, pose)
    arrays["split"] = np.full(len(image), pictures.split, np.int8)
    few = (pres.sum(1) <= config.max_objects).numpy()
    return {name: array[few] for name, array in arrays.items()}


def _table(pictures: Pictures, pres: Tensor, pose: Tensor) -> dict[str, np.ndarray]:
    """The truth of the objects, level 0."""
    depth = torch.zeros(pres.shape)
    if pictures.depth is not None:
        depth = torch.from_numpy(pictures.depth).float().where(pres, 0.0)
    table = {"pres": pres.float(), "pose": pose, "depth": depth}
    table["parent"] = torch.zeros(pres.shape, dtype=torch.int64)
    if pictures.category is not None:
        table["category"] = torch.from_numpy(pictures.category).long().where(pres, -1)
    if pictures.attributes is not None:
        given = torch.from_numpy(pictures.attributes).float()
        table["attributes"] = given.where(pres.unsqueeze(-1), 0.0)
    return {f"0.{name}": tensor.numpy() for name, tensor in table.items()}


class Cut(NamedTuple):
    """A square of a picture, in its pixels."""

    top: int
    left: int
    side: int

    @classmethod
    def middle(cls, height: int, width: int) -> Cut:
        """The largest in the middle; of CLEVR with masks as Greff et al. cut it (`inference.images.clevr`)."""
        if (height, width) == (240, 320):
            return cls(29, 64, 192)
        side = min(height, width)
        return cls((height - side) // 2, (width - side) // 2, side)

    def _of(self, array: np.ndarray) -> np.ndarray:
        rows, columns = (slice(k, k + self.side) for k in (self.top, self.left))
        return np.ascontiguousarray(array[:, rows, columns])

    def images(self, pictures: np.ndarray, size: int) -> Tensor:
        """(B, C, S, S) uint8 of (B, H, W, C), bilinearly."""
        images = torch.from_numpy(self._of(pictures)).permute(0, 3, 1, 2)
        if self.side == size:
            return images.contiguous()
        smaller = size < self.side
        scaled = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=smaller)
        return scaled.round().clamp(0, 255).to(torch.uint8)

    def labels(self, labels: np.ndarray, size: int) -> Tensor:
        """(B, S, S) uint8 of (B, H, W), by the nearest pixel."""
        nearest: np.ndarray = (2 * np.arange(size) + 1) * self.side // (2 * size)
        return torch.from_numpy(np.ascontiguousarray(self._of(labels)[:, nearest][..., nearest]))

    def poses(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Whether boxes (B, N, 4) have their middle in the square, (B, N), and their poses (B, N, 2, 3)."""
        corner = torch.tensor([self.left, self.top, self.left, self.top])
        low, high = (2 * (boxes - corner) / self.side - 1).chunk(2, -1)
        middle = (low + high) / 2
        inside = (middle.abs() < 1).all(-1)  # false of NaN
        pose = torch.cat([torch.diag_embed((high - low) / 2), middle.unsqueeze(-1)], -1)
        return inside, pose.where(inside[..., None, None], 0.0)


def _coloured(images: Tensor, colours: int) -> Tensor:
    """(B, C, S, S) uint8 with so many colours."""
    if images.shape[1] == colours:
        return images
    if colours == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    grey = (images.float() * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    return grey.round().clamp(0, 255).to(torch.uint8)


def seen(masks: np.ndarray, background: int) -> np.ndarray:
    """(B, H, W) uint8 labels of masks (B, K, H, W), of which the first `background` are no objects.

    A pixel belongs to the entity whose mask is largest there, the first of those alike.
    """
    return (masks.argmax(1).astype(np.int64) - (background - 1)).clip(0).astype(np.uint8)


class Factors(NamedTuple):
    """What a file says of entities besides their masks, of the objects among them."""

    category: np.ndarray | None
    depth: np.ndarray | None
    attributes: np.ndarray | None
    names: tuple[str, ...]
    """of the attributes"""


def factors(fields: Mapping[str, np.ndarray], background: int) -> Factors:
    """Sort fields (B, K) or (B, K, …): ``shape`` is the category, the third of ``pixel_coords`` the depth.

    Args:
        background: how many entities, from the first, are no objects.
    """
    objects = {k: v.reshape(*v.shape[:2], -1)[:, background:] for k, v in fields.items()}
    shape, place = objects.pop("shape", None), objects.pop("pixel_coords", None)
    names = tuple(
        name if values.shape[2] == 1 else f"{name}_{i}"
        for name, values in sorted(objects.items())
        for i in range(values.shape[2])
    )
    columns: list[np.ndarray] = [values.astype(np.float32) for _, values in sorted(objects.items())]
    return Factors(
        None if shape is None else shape[..., 0].round().astype(np.int64),
        None if place is None else place[..., -1].astype(np.float32),
        np.concatenate(columns, -1) if columns else None,
        names,
    )


def words(found: Factors) -> tuple[str, ...]:
    """What factors know, in words."""
    of = [("shapes", found.category), ("distances", found.depth)]
    return (*(word for word, array in of if array is not None), *found.names)
