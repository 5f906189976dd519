"""Pictures of a folder, made square and resized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from PIL.Image import Image
from inference.images.dataset import Dataset
from inference.machine import distributed

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".tif", ".tiff")
EVEN = 0.4
"""Median brightness, of 1, of pictures that are made equally bright."""


@dataclass(frozen=True)
class FolderConfig:
    """How the pictures of a folder are read."""

    size: int = 64  # pixels a side
    colours: int = 3  # or 1, for shades of grey
    cut: bool = True  # square around the middle; False: whole pictures, squeezed into a square
    even: bool = False  # pictures are made equally bright, for a camera that sets its own exposure

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: expected at least 1 pixel a side")
        if self.colours not in (1, 3):
            raise ValueError(f"colours={self.colours}: expected 1 or 3")


@dataclass(frozen=True)
class Folder:
    """Pictures as `inference.images.source.Images`: all of them for training and tests, none for validation."""

    path: Path
    title = "the images"

    @staticmethod
    def takes(path: str | Path) -> bool:
        """Any path: what is no folder is refused when it is read."""
        return True

    def config(self, **changes: Any) -> FolderConfig:
        """How pictures are read."""
        return FolderConfig(**changes)

    def split(
        self, name: str, config: FolderConfig, number: int | None = None, seed: int = 0
    ) -> Dataset | None:
        """All pictures; what is read for training is said."""
        if name == "validation":
            return None
        data = image_folder(self.path, config)
        if name == "train" and distributed.rank() == 0:
            print(_sentence(self.path, data, config))
        return data


def image_folder(path: str | Path, config: FolderConfig = FolderConfig()) -> Dataset:
    """All pictures of a folder and its sub-folders, made square as the Config says, as RGB or grey.

    Of 16 bits a pixel the upper 8 are kept; what is transparent is shown on black, as worlds are.

    Raises:
        ValueError: no such folder, no picture in it, or one that cannot be read.
    """
    path = Path(path)
    if path.is_file():
        raise ValueError(
            f"{str(path)!r} is no file of a kind that --images reads: expected a folder of pictures, a video, "
            "or a published data set"
        )
    if not path.is_dir():
        raise ValueError(f"no folder {str(path)!r}; expected a folder of pictures")
    files = sorted(pictures_in(path))
    if not files:
        raise ValueError(
            f"no pictures in {str(path)!r}; expected files ending in {', '.join(SUFFIXES)}"
        )
    images = torch.empty(len(files), config.colours, config.size, config.size, dtype=torch.uint8)
    for i, file in enumerate(tqdm(files, desc="reading", unit="image", disable=None)):
        images[i] = read_picture(file, config)
    return Dataset(images, {"images": str(path), "number": len(files), "size": config.size})


def _sentence(path: Path, data: Dataset, config: FolderConfig) -> str:
    shape = "cut square" if config.cut else "made square"
    colour = "in colour" if config.colours == 3 else "in grey (the program has colours=1)"
    read = f"{len(data.images):,} pictures of {path}, {shape}, {config.size} by {config.size}, {colour}"
    others = [file.suffix.lower() for file in _files(path, set()) if not _is_picture(file)]
    kinds = ", ".join(sorted({*others} - {""})) or "without a suffix"
    return f"{read}; not read: {len(others):,} other files ({kinds})" if others else read


def pictures_in(folder: Path) -> Iterator[Path]:
    """The picture files in a folder and its sub-folders, without hidden ones and those of run folders."""
    return (file for file in _files(folder, set()) if _is_picture(file))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _files(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """The files that `pictures_in` looks at; a folder to which several links lead is read once.

    Args:
        seen: folders that were read, to which this one is added.
    """
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if not of_runs(path):
                yield from _files(path, seen)
        elif path.is_file():
            yield path


def of_runs(folder: Path) -> bool:
    """Whether a folder is that of a run, or is called ``runs`` and holds one, and what is made of it."""
    runs = folder.glob("*/config.json") if folder.name == "runs" else ()
    return (folder / "config.json").is_file() or any(runs)


def read_picture(file: Path, config: FolderConfig) -> Tensor:
    """(C, S, S) uint8 of a file.

    Raises:
        ValueError: it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture)
            return _square(_eight_bits(upright), config)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the picture {str(file)!r}: {error}") from error


def square(frame: np.ndarray, config: FolderConfig) -> Tensor:
    """(C, S, S) uint8 of (H, W, 3) uint8, made square as the Config says."""
    from PIL import Image

    return _square(Image.fromarray(frame), config)


def _square(picture: Image, config: FolderConfig) -> Tensor:
    from PIL import Image, ImageOps

    plain = picture.convert("RGB" if config.colours == 3 else "L")
    side, filtered = (config.size, config.size), Image.Resampling.BICUBIC
    small = ImageOps.fit(plain, side) if config.cut else plain.resize(side, filtered)
    x = torch.from_numpy(np.array(small)).view(config.size, config.size, -1).permute(2, 0, 1)
    return evened(x) if config.even else x


def evened(x: Tensor) -> Tensor:
    """(C, S, S) uint8 scaled so that the median of its pixels' brightness is `EVEN`; a black one stays."""
    middle = x.float().mean(0).median()
    factor = torch.where(middle > 0, 255 * EVEN / middle, 1.0)
    return (factor * x).round().clamp(max=255).to(torch.uint8)


def _eight_bits(picture: Image) -> Image:
    """A picture of whatever mode, opaque and with 8 bits a channel.

    Raises:
        ValueError: its numbers have no range that is known.
    """
    from PIL import Image

    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError(
                f"its numbers go from {values.min()} to {values.max()}; expected 16 bits"
            )
        return Image.fromarray((values >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise ValueError("its numbers are floating-point; save it with 8 or 16 bits a channel")
    if picture.has_transparency_data:
        black = Image.new("RGBA", picture.size, "black")
        return Image.alpha_composite(black, picture.convert("RGBA"))
    return picture
