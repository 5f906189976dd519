"""Published data sets, recognised by what is in their files (``--images FILE``), with the truth that they hold.

=================  ==========================================================================================
`multi_object`     Multi-dSprites, Objects Room, Tetrominoes, CLEVR with masks: TFRecord files of
                   google-deepmind/multi_object_datasets
`object_centric`   HDF5 files of addtt/object-centric-library, and the above converted to HDF5
`dsprites`         dSprites: the .npz of google-deepmind/dsprites-dataset
`clevr_scenes`     CLEVR: the folder CLEVR_v1.0 of images and scenes
`coco`             images and instances in COCO's format
`hugging_face`     a data set of the library `datasets`: the object itself, or a folder that it was saved to
=================  ==========================================================================================

A reader is a module with a function ``takes(source)``, and ``read(source, config)``, which gives what it
`Found`; a new one is a file in this folder and an entry of `READERS`. What is read is kept in the cache,
square and resized.

Where the files say what is for training, validation and tests, that counts; else the first 70 % are for
training, then 15 % each for validation and tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from inference.images import (
    clevr_scenes,
    coco,
    dsprites,
    hugging_face,
    multi_object,
    object_centric,
)
from inference.images.dataset import SPLITS, Dataset
from inference.images.objects import Found, ObjectsConfig, arrays_of
from inference.images.stored import stored

READERS: tuple[ModuleType, ...] = (
    hugging_face,
    multi_object,
    object_centric,
    dsprites,
    clevr_scenes,
    coco,
)
VERSION = "1"
"""Raised with every change of what is read."""
SHARES = (0.7, 0.85, 1.0)
"""Where the splits end, if the files do not say."""


def reader_of(source: Any) -> ModuleType | None:
    """What reads a file, a folder or a data set, if anything here does."""
    return next((reader for reader in READERS if reader.takes(source)), None)


@dataclass(frozen=True)
class Published:
    """A published data set as `inference.images.source.Images`."""

    path: Any
    """of a file or folder; or a data set of `datasets`"""
    title = "the images"

    @staticmethod
    def takes(path: Any) -> bool:
        """Whether a reader knows what is there."""
        return reader_of(path) is not None

    def config(self, **changes: Any) -> ObjectsConfig:
        """How pictures are read."""
        return ObjectsConfig(**changes)

    def split(
        self, name: str, config: ObjectsConfig, number: int | None = None, seed: int = 0
    ) -> Dataset | None:
        """Pictures of a split, all of them for training; None if there are none for validation."""
        found = reader_of(self.path).read(self.path, config)
        arrays = self._arrays(found, config)
        total = len(arrays["split"])
        # a training is measured at its end
        for part in (name, "test") if name == "train" else (name,):
            if len(range(*_rows(arrays["split"], part).indices(total))):
                continue
            if part == "validation":
                return None
            raise ValueError(
                f"{_named(self.path)} has {total} pictures with at most {config.max_objects} objects, too few "
                f"for {part}: give more, or set world.max_objects higher"
            )
        rows = _rows(arrays["split"], name)
        data = self._dataset({k: t[rows] for k, t in arrays.items()}, config, name)
        print(_sentence(found, name, len(data.images), total))
        return data if number is None or name == "train" else data.first(number)

    def _arrays(self, found: Found, config: ObjectsConfig) -> dict[str, Tensor]:
        """All pictures, from the cache or read now."""
        about = {"source": _identity(self.path), "config": asdict(config), "version": VERSION}
        about["title"] = found.title
        name = "".join(c if c.isalnum() else "_" for c in _named(self.path))[:40]
        return stored(name, about, lambda: self._read(found, config))

    def _read(self, found: Found, config: ObjectsConfig) -> Iterator[dict[str, np.ndarray]]:
        """Arrays of batch after batch, a progress bar on a terminal beside them.

        Raises:
            ValueError: the files are damaged.
        """
        try:
            for pictures in tqdm(found.batches, desc=found.title, unit="batch", disable=None):
                yield arrays_of(pictures, config, found.slots)
        except OSError as error:
            raise ValueError(f"cannot read {_named(self.path)!r}: {error}") from error

    def _dataset(self, arrays: dict[str, Tensor], config: ObjectsConfig, split: str) -> Dataset:
        number = len(arrays["images"])
        origin = {"images": str(self.path), "split": split, "number": number}
        if not isinstance(self.path, str | Path):
            origin["images"] = hugging_face.name_of(self.path)
        table = {k.partition(".")[2]: t for k, t in arrays.items() if k.startswith("0.")}
        tables = (table,) if table else ()
        return Dataset(arrays["images"], origin | asdict(config), tables, arrays.get("labels"))


def _rows(split: Tensor, name: str) -> slice:
    """Which pictures are of a split."""
    said, k = split.numpy(), SPLITS.index(name)
    if len(said) and said[0] >= 0:  # in order
        return slice(int(np.searchsorted(said, k)), int(np.searchsorted(said, k + 1)))
    ends = [0, *(round(share * len(said)) for share in SHARES)]
    return slice(ends[k], ends[k + 1])


def _sentence(found: Found, name: str, number: int, total: int) -> str:
    known = ", ".join(found.known) or "nothing"
    return (
        f"{found.title}: {number:,} of {total:,} pictures are for {name}; known of objects: {known}"
    )


def _named(source: Any) -> str:
    return Path(source).name if isinstance(source, str | Path) else hugging_face.name_of(source)


def _identity(source: Any) -> str:
    """What changes when files do: paths, sizes and times of a file, or of all files of a folder."""
    if not isinstance(source, str | Path):
        return hugging_face.name_of(source)
    path = Path(source).resolve()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()
