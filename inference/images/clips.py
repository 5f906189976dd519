"""Frames of a camera: folders of frames, one a clip (Real-Traffic, hyenal/relate), or a video (``--images``).

    DIR/f0001/0001.jpg …, DIR/f0002/…     clips: every picture is in a sub-folder whose name ends in a number
    FILE.mp4, .avi, .mov, .mkv, .webm     a video, read by imageio[pyav], where it is installed
    FILE.gif                              an animation, read by Pillow

Clips are split by clip, in the order of their numbers, so that no two splits show the same moment, a video by
time: the first 82 % are for training, the last 18 % for tests. Of the 683 clips of DeNF's Real-Traffic these
are 560 and 123, as in the paper. They have no truth, so none are kept for validation.

A folder of pictures that is no folder of clips is read by `inference.images.folders`, and not split.

Shape legend: B frames, C colours, S pixels a side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.images.dataset import Dataset
from inference.images.folders import (
    SUFFIXES,
    FolderConfig,
    of_runs,
    pictures_in,
    read_picture,
    square,
)
from programs.blocks.names import unknown

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm")
ANIMATIONS = (".gif",)
SHARES = {"train": (0.0, 0.82), "test": (0.82, 1.0)}
"""Where the splits begin and end."""


@dataclass(frozen=True)
class Clips:
    """Frames as `inference.images.source.Images`, without validation: nothing is known of them."""

    path: Path
    title = "the images"

    @staticmethod
    def takes(path: str | Path) -> bool:
        """Whether `is_clips` holds."""
        return is_clips(path)

    def config(self, **changes: Any) -> FolderConfig:
        """How frames are read."""
        return FolderConfig(**changes)

    def split(
        self, name: str, config: FolderConfig, number: int | None = None, seed: int = 0
    ) -> Dataset | None:
        """All frames of the training's or the tests' clips."""
        return None if name == "validation" else clips(self.path, name, config)


def is_clips(path: str | Path) -> bool:
    """Whether a path is that of a video, or of a folder whose pictures are all in folders named by numbers."""
    path = Path(path)
    if path.suffix.lower() in VIDEOS + ANIMATIONS:
        return True
    if not path.is_dir():
        return False
    holders = {file.parent for file in pictures_in(path)}
    return len(holders) > 1 and holders == {*_folders(path)}


def clips(path: str | Path, split: str = "train", config: FolderConfig | None = None) -> Dataset:
    """The frames of a split, in order, made square as the Config says.

    Raises:
        ValueError: no such file or folder, nothing that can be read, or too few clips or frames to split.
    """
    path, config = Path(path), config or FolderConfig()
    if split not in SHARES:
        raise ValueError(unknown("split", split, SHARES))
    if not path.exists():
        raise ValueError(f"no file or folder {str(path)!r}")
    if path.is_dir():
        folders = _folders(path)
        chosen = _part(folders, split, "clips", path)
        print(
            f"{split}: {len(chosen)} of {len(folders)} folders named by numbers, taken for clips of a camera"
        )
        files = [file for folder in chosen for file in _frames(folder)]
        images = [read_picture(file, config) for file in files]
    else:
        images = _part([square(frame, config) for frame in _video(path)], split, "frames", path)
    origin = {"images": str(path), "split": split, "number": len(images), "size": config.size}
    return Dataset(torch.stack(images), origin)


def _part(items: list, split: str, what: str, path: Path) -> list:
    """Those of a split; there must be some for each, so that a training can be measured."""
    parts = {}
    for name, shares in SHARES.items():
        begin, end = (round(share * len(items)) for share in shares)
        parts[name] = items[begin:end]
        if not parts[name]:
            raise ValueError(
                f"{str(path)!r} has {len(items)} {what}, too few for {name}: give 10 or more, or a folder of "
                "pictures that is not split"
            )
    return parts[split]


def _folders(path: Path) -> list[Path]:
    """Sub-folders with frames, in the order of the numbers that their names end in; none hidden or of runs."""
    inside = [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    numbered = [(re.search(r"(\d+)$", p.name), p) for p in inside if not of_runs(p)]
    found = [(int(m[1]), p.name, p) for m, p in numbered if m and _frames(p)]
    return [p for *_, p in sorted(found)]


def _frames(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def _video(path: Path) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8.

    Raises:
        ValueError: nothing here can read it.
    """
    if path.suffix.lower() in ANIMATIONS:
        yield from _animation(path)
        return
    try:
        import imageio.v3

        yield from imageio.v3.imiter(path, plugin="pyav")
    except (ImportError, OSError, ValueError) as error:
        raise ValueError(
            f"cannot read the video {str(path)!r} ({type(error).__name__}): pip install imageio[pyav], or "
            "write its frames to a folder, ffmpeg -i FILE DIR/%05d.png, and give that"
        ) from error


def _animation(path: Path) -> Iterator[np.ndarray]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as picture:
            for frame in ImageSequence.Iterator(picture):
                yield np.asarray(frame.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the animation {str(path)!r}: {error}") from error


def median(images: Tensor) -> Tensor:
    """(C, S, S) in [0, 1] what a camera sees most of the time: the median of its frames (B, C, S, S) uint8."""
    return images.float().median(0).values / 255
