"""CLEVR with masks, the published pictures, from an HDF5 file (``--images FILE.hdf5``).

The file holds the fields of google-deepmind/multi_object_datasets' `clevr_with_masks`, under their names, M
pictures of K entities each (there 100,000 and 11), the first entity the background:

    image         (M, 240, 320, 3) uint8
    mask          (M, K, 240, 320) or (M, K, 240, 320, 1) uint8, 0 where the entity is not seen
    visibility    (M, K) float, 0 where there is no entity
    pixel_coords  (M, K, 3) float, the last the distance from the camera; may be missing
    shape         (M, K) uint8; may be missing

Any script that writes each field of that package's `dataset(…)` to the data set of its name makes such a file.

Pictures are cut and scaled as Greff et al. do: rows 29 to 221, columns 64 to 256, bilinearly, masks to the
nearest pixel. The first 70 % are for training, then 15 % each for validation and tests (70,000 and
15,000 there).

Truth: entity k is in slot k - 1, present if one pixel of it is left; its pose is the box around what is seen,
its depth the distance, its category the number that the file calls its shape (0 and 0 if it has none).

Shape legend: B pictures, N = K - 1 slots, S pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from inference.images.dataset import SPLITS, Dataset
from programs.blocks import render

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5")
NEEDED = ("image", "mask", "visibility")
PICTURE = (240, 320)
ROWS, COLUMNS = slice(29, 221), slice(64, 256)
SIDE = 192
SHARES = (0.7, 0.85, 1.0)
"""Where the splits end."""
CHUNK = 64
"""Pictures that are read at once."""


@dataclass(frozen=True)
class ClevrConfig:
    """How the file is read."""

    size: int = 128  # pixels a side
    max_objects: int = 10  # 6 for CLEVR6: pictures with more are left out

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: expected at least 1 pixel a side")
        if self.max_objects < 1:
            raise ValueError(f"max_objects={self.max_objects}: expected at least 1")


@dataclass(frozen=True)
class ClevrFile:
    """The file as `inference.images.source.Images`."""

    path: Path
    title = "the images"

    @staticmethod
    def takes(path: str | Path) -> bool:
        """Whether a path is that of an HDF5 file, by its name."""
        return Path(path).suffix.lower() in SUFFIXES

    def config(self, **changes: Any) -> ClevrConfig:
        """How the file is read."""
        return ClevrConfig(**changes)

    def split(
        self, name: str, config: ClevrConfig, number: int | None = None, seed: int = 0
    ) -> Dataset:
        """Pictures of a split, all of them for training."""
        return clevr_with_masks(self.path, name, None if name == "train" else number, config)


def clevr_with_masks(
    path: str | Path,
    split: str = "train",
    number: int | None = None,
    config: ClevrConfig = ClevrConfig(),
) -> Dataset:
    """The first `number` pictures of a split, all by default, with at most so many objects.

    Raises:
        ValueError: no such file, or one that does not hold what is said above.
    """
    import h5py

    try:
        with h5py.File(path) as file:
            _check(file, path)
            chosen = _chosen(file, split, config)[:number]
            if not len(chosen):
                raise ValueError(
                    f"{path} has no picture with at most {config.max_objects} objects for {split}; "
                    "set world.max_objects higher"
                )
            return _read(file, chosen, config, {"images": str(path), "split": split})
    except OSError as error:
        raise ValueError(f"cannot read {path} as an HDF5 file: {error}") from error


def _check(file: h5py.File, path: str | Path) -> None:
    if missing := [name for name in NEEDED if name not in file]:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(file)}: expected "
            f"{', '.join(NEEDED)}, see inference/images/clevr.py"
        )
    _check_types(file, path)
    image, mask = file["image"].shape, file["mask"].shape
    number, entities = file["visibility"].shape
    if image != (number, *PICTURE, 3) or mask[:4] != (number, entities, *PICTURE):
        raise ValueError(
            f"{path} has image {image}, mask {mask}, visibility {(number, entities)}: expected "
            f"(M, {PICTURE[0]}, {PICTURE[1]}, 3), (M, K, {PICTURE[0]}, {PICTURE[1]}) and (M, K)"
        )


def _check_types(file: h5py.File, path: str | Path) -> None:
    """The fields must be arrays of the types that are read, of as many dimensions as are read."""
    import h5py

    expected = {
        "image": (("u1",), (4,)),
        "mask": (("u1", "b1"), (4, 5)),
        "visibility": (("b", "i", "u", "f"), (2,)),
        "pixel_coords": (("f",), (3,)),
        "shape": (("i", "u"), (2,)),
    }
    for name, (kinds, ranks) in expected.items():
        if name not in file:
            continue
        data = file[name]
        kind = data.dtype.str[1:] if isinstance(data, h5py.Dataset) else "no array"
        if not kind.startswith(kinds):
            raise ValueError(
                f"{path}: {name} is {kind}, expected {' or '.join(kinds)} in NumPy's letters, see "
                "inference/images/clevr.py"
            )
        if data.ndim not in ranks:
            raise ValueError(
                f"{path}: {name} has {data.ndim} dimensions, expected {' or '.join(map(str, ranks))}"
            )


def _chosen(file: h5py.File, split: str, config: ClevrConfig) -> np.ndarray:
    """Numbers of the split's pictures that have few enough objects, in order."""
    objects = (file["visibility"][:, 1:] > 0).sum(1)
    ends = [0, *(round(share * len(objects)) for share in SHARES)]
    k = SPLITS.index(split)
    return ends[k] + (objects[ends[k] : ends[k + 1]] <= config.max_objects).nonzero()[0]


def _read(file: h5py.File, chosen: np.ndarray, config: ClevrConfig, origin: dict) -> Dataset:
    size, slots = config.size, file["visibility"].shape[1] - 1
    images = torch.empty(len(chosen), 3, size, size, dtype=torch.uint8)
    labels = torch.empty(len(chosen), size, size, dtype=torch.uint8)
    pose = torch.empty(len(chosen), slots, 2, 3)
    pres = torch.empty(len(chosen), slots)
    for i in tqdm(range(0, len(chosen), CHUNK), desc="reading", unit="chunk", disable=None):
        rows = slice(i, i + CHUNK)
        images[rows] = _cut(file["image"][chosen[rows], ROWS, COLUMNS], size)
        labels[rows] = _labels(file["mask"][chosen[rows], :, ROWS, COLUMNS], size)
        masks = labels[rows, None] == torch.arange(1, slots + 1)[:, None, None]
        pres[rows], pose[rows] = masks.flatten(2).any(2).float(), render.box(masks.float())
    depth = (
        _column(file, "pixel_coords", chosen)[..., -1] * pres if "pixel_coords" in file else pres
    )
    kind = (
        _column(file, "shape", chosen).long() if "shape" in file else torch.zeros_like(pres).long()
    )
    table = {"pres": pres, "pose": pose, "depth": depth, "parent": torch.zeros_like(kind)}
    table["category"] = kind.where(pres > 0, -1)
    origin = {**origin, "number": len(chosen), "size": size, "max_objects": config.max_objects}
    return Dataset(images, origin, (table,), labels)


def _column(file: h5py.File, name: str, chosen: np.ndarray) -> Tensor:
    """(B, N, …) what the file says of the objects."""
    return torch.from_numpy(file[name][:][chosen, 1:])


def _cut(pictures: np.ndarray, size: int) -> Tensor:
    """(B, 3, S, S) uint8."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return F.interpolate(images, (size, size), mode="bilinear").round().to(torch.uint8)


def _labels(masks: np.ndarray, size: int) -> Tensor:
    """(B, S, S) uint8, 0 for the background, or 1 + the slot, of masks (B, K, 192, 192[, 1])."""
    nearest: np.ndarray = (2 * np.arange(size) + 1) * SIDE // (2 * size)
    seen = masks.reshape(*masks.shape[:4])[:, :, nearest][..., nearest] > 0
    return torch.from_numpy(seen.argmax(1).astype(np.uint8))
