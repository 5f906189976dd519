"""dSprites: one white shape on black, from the file of google-deepmind/dsprites-dataset.

    dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz
        imgs             (737280, 64, 64) uint8, 0 or 1
        latents_classes  (737280, 6) int64
        latents_values   (737280, 6) float64: colour, shape (1 square, 2 ellipse, 3 heart), scale (0.5 to 1),
                         orientation (radians), x and y of the middle (0 to 1)
        metadata         a pickled table, which is not read

The file is in the order of the factors, so its pictures are shuffled, always alike. The shape is the mask.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from inference.images.objects import Found, ObjectsConfig, Pictures

ARRAYS = {"imgs.npy", "latents_values.npy"}
ATTRIBUTES = ("scale", "orientation", "x", "y")
SHAPE, FIRST = 1, 2
"""Columns of the factors: the shape, and the first of the attributes."""
CHUNK = 1024
"""Pictures that are read at once."""


def takes(source: Any) -> bool:
    """Whether a path is that of an .npz file with dSprites' arrays."""
    if not isinstance(source, str | Path) or Path(source).suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(source) as file:
            return {*file.namelist()} >= ARRAYS
    except (OSError, zipfile.BadZipFile):
        return False


def read(source: str | Path, config: ObjectsConfig) -> Found:
    """What the file holds; pictures are a fixed random choice of ``config.pictures``, in a random order."""
    known = ("masks", "shapes", *ATTRIBUTES)
    return Found("dSprites", known, 1, _batches(Path(source), config.pictures))


def _batches(path: Path, most: int) -> Iterator[Pictures]:
    try:
        with zipfile.ZipFile(path) as file:
            with file.open("latents_values.npy") as member:
                values = np.lib.format.read_array(member, allow_pickle=False)
            chosen = np.random.default_rng(0).permutation(len(values))[:most]
            with file.open("imgs.npy") as member:
                images = _rows(member, np.sort(chosen))
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {str(path)!r} as dSprites: {error}") from error
    if values.ndim != 2 or values.shape[1] != FIRST + len(ATTRIBUTES):
        raise ValueError(f"{str(path)!r}: latents_values are {values.shape}, expected (M, 6)")
    place = np.argsort(np.argsort(chosen))
    for start in range(0, len(chosen), CHUNK):
        rows = slice(start, start + CHUNK)
        shown, factors = images[place[rows]], values[chosen[rows]]
        yield Pictures(
            255 * shown[..., None],
            shown,
            category=factors[:, None, SHAPE].astype(np.int64),
            attributes=factors[:, None, FIRST:],
        )


def _rows(member: IO[bytes], chosen: np.ndarray) -> np.ndarray:
    """(n, H, W) uint8, 0 or 1: rows of an .npy file, in order, without holding the whole (3 GB).

    Raises:
        ValueError: it holds no pictures of 8 bits.
    """
    version = np.lib.format.read_magic(member)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else None
    shape, by_columns, kind = (header or np.lib.format.read_array_header_2_0)(member)
    if len(shape) != 3 or by_columns or kind.itemsize != 1:
        raise ValueError(f"imgs are {kind} {shape}, expected uint8 (M, H, W)")
    found: np.ndarray = np.empty((len(chosen), *shape[1:]), np.uint8)
    pixels = shape[1] * shape[2]
    for start in range(0, shape[0], CHUNK):
        part = np.frombuffer(member.read(min(CHUNK, shape[0] - start) * pixels), np.uint8)
        rows = slice(*(int(np.searchsorted(chosen, end)) for end in (start, start + CHUNK)))
        found[rows] = part.reshape(-1, *shape[1:])[chosen[rows] - start]
    return (found > 0).astype(np.uint8)
