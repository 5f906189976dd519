"""HDF5 files of addtt/object-centric-library, and multi_object_datasets converted to HDF5 at any size.

M pictures of K entities (data/datasets.py there; files are called ``clevr_10-full.hdf5`` and alike):

    image               (M, H, W, C) uint8
    mask                (M, H, W, 1) uint8, the number of the entity that is seen
                        or (M, K, H, W[, 1]) uint8, a mask per entity, as multi_object_datasets have them
    visibility          (M, K) or (M, K, 1)
    num_actual_objects  (M, 1); may be missing
    shape, color, …     (M, K) or (M, K, A) numbers: factors; may be missing, as in Objects Room

The first entity is the background; where no factor is known (Objects Room), the first four are. CLEVR with
masks at its full size of 240 x 320 is read by `inference.images.clevr`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference.images.clevr import PICTURE, SUFFIXES
from inference.images.multi_object import ROOM
from inference.images.objects import Found, ObjectsConfig, Pictures, factors, seen, words

if TYPE_CHECKING:
    import h5py

CHUNK = 64
"""Pictures that are read at once."""
OTHERS = ("image", "mask", "visibility", "num_actual_objects", "num_objects_visible")
"""Fields that are no factors."""
TITLES = {
    "clevr": "CLEVR",
    "multidsprites": "Multi-dSprites",
    "multi_dsprites": "Multi-dSprites",
    "objects_room": "Objects Room",
    "shapestacks": "ShapeStacks",
    "tetrominoes": "Tetrominoes",
}
"""By how a file's name begins; the longest counts."""


def takes(source: Any) -> bool:
    """Whether a path is that of an HDF5 file of pictures and masks, but none for `inference.images.clevr`."""
    if not isinstance(source, str | Path) or Path(source).suffix.lower() not in SUFFIXES:
        return False
    import h5py

    try:
        with h5py.File(source) as file:
            return _fits(file)
    except OSError:
        return False


def _fits(file: h5py.File) -> bool:
    import h5py

    if not all(isinstance(file.get(name), h5py.Dataset) for name in ("image", "mask")):
        return False
    image, mask = file["image"], file["mask"]
    if any(array.dtype != np.uint8 for array in (image, mask)) or image.ndim != 4:
        return False
    numbered = mask.shape == (*image.shape[:3], 1)
    apart = mask.ndim in (4, 5) and (mask.shape[0], *mask.shape[2:4]) == image.shape[:3]
    return numbered or (apart and image.shape[1:3] != PICTURE)


def read(source: str | Path, config: ObjectsConfig) -> Found:
    """What the file holds.

    Raises:
        ValueError: it has no entity that is an object.
    """
    import h5py

    path = Path(source)
    with h5py.File(path) as file:
        numbered = file["mask"].shape == (*file["image"].shape[:3], 1)
        entities = _entities(file, numbered)
        names = _factor_names(file, entities)
        background = 1 if names else ROOM
        first = {name: file[name][:1] for name in names}
    if entities <= background:
        raise ValueError(
            f"{str(path)!r} has {entities} entities per picture, of which {background} are the background"
        )
    title = max((k for k in TITLES if path.name.startswith(k)), key=len, default=None)
    known = ("masks", *words(factors(first, background)))
    batches = _batches(path, config, names, background)
    return Found(TITLES.get(title, path.name), known, entities - background, batches)


def _entities(file: h5py.File, numbered: bool) -> int:
    """K."""
    if not numbered:
        return file["mask"].shape[1]
    seen_ones = file.get("visibility")
    if seen_ones is not None and seen_ones.ndim in (2, 3):
        return seen_ones.shape[1]
    return 1 + int(file["mask"][:].max())


def _factor_names(file: h5py.File, entities: int) -> list[str]:
    import h5py

    return [
        name
        for name, array in file.items()
        if name not in OTHERS
        and isinstance(array, h5py.Dataset)
        and array.dtype.kind in "iufb"
        and array.ndim in (2, 3)
        and array.shape[:2] == (len(file["image"]), entities)
    ]


def _batches(
    path: Path, config: ObjectsConfig, names: list[str], background: int
) -> Iterator[Pictures]:
    import h5py

    with h5py.File(path) as file:
        number = min(len(file["image"]), config.pictures)
        for start in range(0, number, CHUNK):
            rows = slice(start, min(start + CHUNK, number))
            found = factors({name: file[name][rows] for name in names}, background)
            image, mask = file["image"][rows], file["mask"][rows]
            if mask.shape == (*image.shape[:3], 1):
                labels = (mask[..., 0].astype(np.int64) - (background - 1)).clip(0).astype(np.uint8)
            else:
                labels = seen(mask.reshape(*mask.shape[:4]), background)
            yield Pictures(image, labels, None, found.category, found.depth, found.attributes)
