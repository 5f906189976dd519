"""Handwritten digits for worlds of digits, white on black, 28 x 28.

``mnist``: the four published files, from the folder ``$SCENE_PROGRAMS_MNIST``, else downloaded once
into the cache. Their MD5 sums are checked.

``embedded``: the 1,797 digits that come with scikit-learn (the test part of UCI's "optical
recognition of handwritten digits"), 8 x 8, enlarged to MNIST's 20 x 20 within 28 x 28 by bicubic
interpolation and sharpened until strokes are about as thick as MNIST's. They are the handwriting of 13
people, and replace MNIST where it is missing.

Splits share no image. MNIST's validation digits are the last 5,000 of its training file. The embedded
digits are split by index, because a writer's digits lie together.

Shape legend: M digits.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from programs.blocks.names import unknown
from programs.worlds import cache

SIDE = 28
FOLDER = "SCENE_PROGRAMS_MNIST"
"""Environment variable with the folder of MNIST's files."""
URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SUMS = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""MD5 sums of the files as published."""
MNIST = {
    "train": ("train", slice(0, 55_000)),
    "validation": ("train", slice(55_000, 60_000)),
    "test": ("t10k", slice(0, 10_000)),
}
"""File and range of digits of each split."""
EMBEDDED = {"train": slice(0, 1297), "validation": slice(1297, 1497), "test": slice(1497, 1797)}
SPLITS = tuple(EMBEDDED)
SOURCES = ("mnist", "embedded")


class Digits(NamedTuple):
    """Images of digits and their labels."""

    images: Tensor
    """(M, 28, 28) uint8"""
    labels: Tensor
    """(M,) int64, 0 to 9"""


def resolve(source: str) -> str:
    """The source, with ``auto`` replaced: mnist if its folder is given, else embedded.

    Raises:
        ValueError: there is no such source.
    """
    if source == "auto":
        return "mnist" if os.environ.get(FOLDER) else "embedded"
    if source not in SOURCES:
        raise ValueError(unknown("digits", source, ("auto", *SOURCES)))
    return source


@functools.cache
def announce(source: str) -> None:
    """Print the source of the digits, once."""
    hint = f"set {FOLDER} to a folder with MNIST's four files for MNIST"
    said = {"mnist": "MNIST", "embedded": f"the 1,797 of scikit-learn, enlarged; {hint}"}
    print(f"handwritten digits: {said[source]}", file=sys.stderr)


@functools.cache
def digits(source: str, split: str) -> Digits:
    """The digits of a source (mnist or embedded) and split, read once.

    Raises:
        ValueError: MNIST's files are missing, damaged, or cannot be downloaded.
    """
    return {"mnist": _mnist, "embedded": _embedded}[source](split)


def resizing(side: Tensor, offset: Tensor, size: int) -> Tensor:
    """(..., S, 28) weights with which 28 pixels in a line enter each of S pixels, if the line is resized to
    `side` (...) pixels that begin at `offset` (...): a normalised triangle as wide as two pixels of the
    coarser grid, as in Pillow's bilinear resizing."""
    side, place = side[..., None, None], torch.arange(size)[:, None] - offset[..., None, None]
    step = SIDE / side
    reach = ((place + 0.5) * step - (torch.arange(SIDE) + 0.5)).abs() / step.clamp(min=1)
    weight = (1 - reach).clamp(min=0)
    inside = (place >= 0) & (place < side)
    return torch.where(inside, weight / weight.sum(-1, keepdim=True).clamp(min=1e-6), 0.0)


def _mnist(split: str) -> Digits:
    part, which = MNIST[split]
    images = _read(f"{part}-images-idx3-ubyte.gz", header=16).view(-1, SIDE, SIDE)
    labels = _read(f"{part}-labels-idx1-ubyte.gz", header=8).long()
    return Digits(images[which].clone(), labels[which])


def _read(name: str, header: int) -> Tensor:
    """The bytes of one of MNIST's files after its header."""
    folder = os.environ.get(FOLDER)
    path = Path(folder) / name if folder else _download(name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"cannot read {str(path)!r}: {error.strerror or error}; {FOLDER} must be a folder with "
            f"MNIST's four files, {', '.join(SUMS)}"
        ) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != SUMS[name]:
        raise ValueError(
            f"{str(path)!r} is not MNIST's file as published: its MD5 checksum is {found}, expected "
            f"{SUMS[name]}; get it again, or use the embedded digits"
        )
    return torch.frombuffer(bytearray(gzip.decompress(content)), dtype=torch.uint8, offset=header)


def _download(name: str) -> Path:
    import pooch

    folder = cache() / "mnist"
    try:
        return Path(pooch.retrieve(URL + name, f"md5:{SUMS[name]}", name, folder))
    except (OSError, ValueError) as error:  # no connection; another file than expected
        raise ValueError(
            f"cannot download MNIST's {name} into {str(folder)!r} ({error}); set {FOLDER} to a folder "
            "with MNIST's four files, or use the embedded digits"
        ) from error


def _embedded(split: str) -> Digits:
    from scipy.ndimage import gaussian_filter
    from sklearn.datasets import load_digits

    small = load_digits()
    cells = torch.from_numpy(small.images[EMBEDDED[split]] / 16)[:, None]
    cells = F.pad(cells, (2, 2, 2, 2))  # 12 x 12 become 30 x 30, of which the middle is kept
    wide = F.interpolate(cells, scale_factor=2.5, mode="bicubic")[:, 0].numpy()
    sharp = wide + 1.5 * (wide - gaussian_filter(wide, (0, 2.5, 2.5)))
    ink = ((sharp[:, 1:-1, 1:-1] - 0.35) / 0.5).clip(0, 1)
    images = torch.from_numpy(ink).mul(255).round().to(torch.uint8)
    return Digits(images, torch.from_numpy(small.target[EMBEDDED[split]]).long())
