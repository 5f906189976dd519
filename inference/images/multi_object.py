"""TFRecord files of google-deepmind/multi_object_datasets: Multi-dSprites, Objects Room, Tetrominoes, CLEVR
with masks.

Each file is GZIP-compressed; features per picture (multi_dsprites.py, objects_room.py, tetrominoes.py and
clevr_with_masks.py there), strings of one byte each but for the numbers:

    ==============  =========  ==================  ==========================================================
    file            image      mask                numbers of K entities
    ==============  =========  ==================  ==========================================================
    multi_dsprites  64, 64, C  64, 64, K, 1        x, y, shape, color (C), visibility, orientation, scale
    objects_room    64, 64, 3  K, 64, 64, 1        none
    tetrominoes     35, 35, 3  4, 35, 35, 1        x, y, shape, color (3), visibility
    clevr           240, 320   11, 240, 320, 1     x, y, z, pixel_coords (3), rotation, visibility; as bytes
                                                   size, material, shape, color
    ==============  =========  ==================  ==========================================================

Multi-dSprites have K = 4 (binarized, C = 1), 6 (colored_on_grayscale, C = 3) or 5 (colored_on_colored, C =
3); Objects Room 7 (train), 10 (six_objects, identical_color) or 4 (empty_room). The first entity is the
background; of Objects Room the first four are: sky, floor and two walls. # differs: where one wall alone is
seen, the file counts three, so its fourth entity is taken for an object if it touches neither side of the
picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from inference.images.objects import Found, ObjectsConfig, Pictures, factors, seen, words
from inference.images.tfrecord import examples

BATCH = 64
"""Pictures that are decoded at once."""
ROOM = 4
"""Entities of Objects Room that are its sky, floor and walls."""


class Layout(NamedTuple):
    """How a record is laid out."""

    title: str
    height: int
    width: int
    colours: int
    entities: int
    masks_first: bool = True
    background: int = 1


def takes(source: Any) -> bool:
    """Whether a path is that of a TFRecord file, by its name."""
    if not isinstance(source, str | Path) or Path(source).is_dir():
        return False
    return ".tfrecord" in Path(source).name.lower()


def read(source: str | Path, config: ObjectsConfig) -> Found:
    """What the file holds.

    Raises:
        ValueError: it cannot be read, or is none of the four.
    """
    records = examples(source)
    first = next(records, None)
    if first is None:
        raise ValueError(f"{str(source)!r} holds no record")
    layout = layout_of(first, source)
    known = words(factors(_numbers([first], layout), layout.background))
    every = islice(chain([first], records), config.pictures)
    batches = (_pictures(part, layout, source) for part in _batched(every))
    return Found(layout.title, ("masks", *known), layout.entities - layout.background, batches)


def _batched(records: Iterator[dict[str, np.ndarray]]) -> Iterator[list[dict[str, np.ndarray]]]:
    while part := list(islice(records, BATCH)):
        yield part


def layout_of(record: Mapping[str, np.ndarray], source: str | Path) -> Layout:
    """The layout of a file, by the features of a record.

    Raises:
        ValueError: it is of another data set; the message says what it has.
    """
    pixels, masks = (len(record.get(name, ())) for name in ("image", "mask"))
    if "orientation" in record and pixels in (64 * 64, 3 * 64 * 64):
        layout = Layout("Multi-dSprites", 64, 64, pixels // 64**2, masks // 64**2, False)
    elif "pixel_coords" in record and pixels == 240 * 320 * 3:
        layout = Layout("CLEVR with masks", 240, 320, 3, masks // (240 * 320))
    elif pixels == 35 * 35 * 3:
        layout = Layout("Tetrominoes", 35, 35, 3, masks // 35**2)
    elif pixels == 64 * 64 * 3 and len(record) == 2:
        layout = Layout("Objects Room", 64, 64, 3, masks // 64**2, background=ROOM)
    else:
        layout = None
    if layout is None or not masks or masks % (layout.height * layout.width):
        sizes = ", ".join(f"{name} ({len(values):,})" for name, values in sorted(record.items()))
        raise ValueError(
            f"{str(source)!r} is none of Multi-dSprites, Objects Room, Tetrominoes and CLEVR with masks: its "
            f"records have {sizes or 'nothing'}, see inference/images/multi_object.py"
        )
    return layout


def _pictures(records: list[dict[str, np.ndarray]], layout: Layout, source: str | Path) -> Pictures:
    """A batch of records as pictures.

    Raises:
        ValueError: a record has other features than the first.
    """
    b, (_, height, width, colours, entities, masks_first, background) = len(records), layout
    try:
        image = np.stack([r["image"] for r in records]).reshape(b, height, width, colours)
        masks = np.stack([r["mask"] for r in records])
        if masks_first:
            masks = masks.reshape(b, entities, height, width)
        else:
            masks = np.moveaxis(masks.reshape(b, height, width, entities), -1, 1)
        fields = _numbers(records, layout)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{str(source)!r}: its records are not alike ({error})") from error
    found = factors(fields, background)
    labels = seen(masks, background)
    if background == ROOM:
        labels = np.where(_fourth_is_object(masks), masks.argmax(1) - 2, labels).clip(0)
    return Pictures(
        image, labels.astype(np.uint8), None, found.category, found.depth, found.attributes
    )


def _numbers(records: list[dict[str, np.ndarray]], layout: Layout) -> dict[str, np.ndarray]:
    """(B, K, …) what is said of entities."""
    names = records[0].keys() - {"image", "mask", "visibility"}
    columns = {name: np.stack([record[name] for record in records]) for name in names}
    return {n: c.reshape(len(records), layout.entities, -1) for n, c in columns.items()}


def _fourth_is_object(masks: np.ndarray) -> np.ndarray:
    """(B, 1, 1) whether the fourth entity of Objects Room is no wall: it touches neither side."""
    sides = masks[:, ROOM - 1, :, [0, -1]]  # NumPy puts the pair first
    return ~(sides > 0).any((0, 2))[:, None, None]
