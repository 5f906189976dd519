"""Images to learn from: worlds, generated once and cached, or a folder of the user's own.

(Published pictures with truth are read by `inference.clevr`, frames of a camera by `inference.clips`.)

A world's set is a folder of .npy files under ``$SCENE_PROGRAMS_CACHE`` (default
~/.cache/scene-programs), named by a hash of all that decides it: world, version, configuration,
split, seed and number. It is written under a temporary name and renamed when whole. Scenes are
drawn in batches with a generator each, so that the set does not depend on how many processes drew
it.

A world whose scenes are made of collected things (handwriting, say) has two things more: a field
`split` in its Config, which a set fills in, so that no two splits show the same; and a function
``prepare(config)`` that sees to it that they are there, called once before processes draw.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from programs.scene import Nodes, Scene
from programs.worlds import cache, with_visible_masks

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 256
SPLITS = ("train", "validation", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
TABLES = ("pres", "pose", "depth", "parent", "category")
OPTIONAL = ("attributes",)
"""Truth of some worlds."""


@dataclass(frozen=True)
class Dataset:
    """Images and, for worlds, the truth about them."""

    images: Tensor
    """(B, C, H, W) uint8; may be mapped from disk"""
    description: dict[str, Any]
    """what made them"""
    tables: tuple[dict[str, Tensor], ...] = ()
    """truth by level, without masks; empty for a folder of images"""
    labels: Tensor | None = None
    """(B, H, W) uint8, which the world's `with_masks` reads the masks from; 0 is background"""

    def first(self, number: int) -> Dataset:
        """The first images, and the truth about them."""
        tables = tuple({k: t[:number] for k, t in table.items()} for table in self.tables)
        labels = None if self.labels is None else self.labels[:number]
        return Dataset(self.images[:number], self.description, tables, labels)

    def truth(self, index: slice) -> Scene:
        """The true scenes of some images, masks included.

        Raises:
            ValueError: there is no truth.
        """
        if self.labels is None:
            raise ValueError("these images come from a folder: nothing is known about them")
        image = self.images[index].float() / 255
        levels = tuple(Nodes(**{k: t[index] for k, t in table.items()}) for table in self.tables)
        scene, world = Scene(image, levels, torch.zeros_like(image)), self.description.get("world")
        add = load_world(world).with_masks if world else with_visible_masks
        return add(scene, self.labels[index])


def worlds() -> list[str]:
    """Names of the worlds there are."""
    import programs.worlds

    folder = Path(programs.worlds.__file__).parent
    return sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")


def load_world(name: str) -> ModuleType:
    """The module of a world.

    Raises:
        ValueError: there is no such world.
    """
    if name not in worlds():
        raise ValueError(f"unknown world {name!r}; known are {', '.join(worlds())}")
    return importlib.import_module(f"programs.worlds.{name}")


def world_dataset(
    name: str,
    number: int,
    split: str = "train",
    seed: int = 0,
    config: Any = None,
    processes: int | None = None,
    progress: bool = True,
) -> Dataset:
    """`number` scenes of a world, from the cache or drawn now (and cached).

    Args:
        split: train, validation or test; the same seed gives other scenes in each.
        config: the world's Config; None for its defaults.
        processes: how many draw at once; None for one a core. The scenes do not depend on it.
        progress: show a bar where there is a terminal.
    Raises:
        ValueError: unknown world or split, a bad number or seed, a cache that cannot be written.
        RuntimeError: a process died; scripts that draw are read again by each, so they need a guard.
    """
    module = load_world(name)
    config = module.Config() if config is None else config
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    if number < 1:
        raise ValueError(f"number={number} scenes of {name}: expected at least 1")
    if not 0 <= seed < 2**32:  # a longer one would run into the split's place in the batches' seeds
        raise ValueError(f"seed={seed}: expected 0 to 2**32 - 1")
    if hasattr(config, "split"):
        config = replace(config, split=split)
    description = {"world": name, "version": module.VERSION, "config": asdict(config)}
    description |= {"split": split, "seed": seed, "number": number}
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache() / f"{name}-{split}-{key}"
    if not folder.exists():
        if hasattr(module, "prepare"):
            module.prepare(config)
        _generate(folder, description, config, processes, progress)
    return _open(folder)


def _generate(
    folder: Path, description: dict[str, Any], config: Any, processes: int | None, progress: bool
) -> None:
    number = description["number"]
    jobs = [(description, config, i, min(BATCH, number - i)) for i in range(0, number, BATCH)]
    hidden = {"prefix": folder.name + ".", "dir": folder.parent, "ignore_cleanup_errors": True}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(**hidden) as temporary:
            whole = Path(temporary) / folder.name
            whole.mkdir()
            _write(whole, number, _draw_all(jobs, processes, progress))
            (whole / "description.json").write_text(json.dumps(description, indent=2))
            _publish(whole, folder)
    except OSError as error:
        raise ValueError(
            f"cannot write the cache {folder.parent}: {error.strerror or error}; "
            "set SCENE_PROGRAMS_CACHE to a folder that can be written and has room"
        ) from error


def _write(folder: Path, number: int, batches: Iterable[dict[str, np.ndarray]]) -> None:
    """Write the batches one after the other, an .npy file a field.

    By plain writes: a full disk is an OSError to them, to a memory map the end of the process.
    """
    form, files = np.lib.format, {}
    with ExitStack() as stack:
        for arrays in batches:
            for name, array in arrays.items():
                if name not in files:
                    files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                    header = form.header_data_from_array_1_0(array)
                    header["shape"] = (number, *array.shape[1:])
                    form.write_array_header_1_0(files[name], header)
                files[name].write(array.data)


def _publish(whole: Path, folder: Path) -> None:
    """Give a set its name, unless another process was quicker with the same scenes."""
    try:
        whole.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _draw_all(
    jobs: list[tuple], processes: int | None, progress: bool
) -> Iterator[dict[str, np.ndarray]]:
    """The batches in order, a progress bar on a terminal beside them."""
    processes = processes or os.cpu_count() or 1
    title = "{world} {split}".format(**jobs[0][0])
    bar = {
        "total": len(jobs),
        "desc": title,
        "unit": "batch",
        "disable": None if progress else True,
    }
    if processes == 1 or len(jobs) <= 8:  # a pool takes longer to start than that
        yield from tqdm(map(_draw, jobs), **bar)
        return
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(processes, spawn, torch.set_num_threads, (1,)) as pool:
            yield from tqdm(pool.map(_draw, jobs), **bar)
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"one of processes={processes} that draw scenes has died: for want of memory, or as each of them "
            'reads the running script again. Ask for scenes in a file, under `if __name__ == "__main__":`, '
            "or with processes=1"
        ) from error


def _draw(job: tuple[dict[str, Any], Any, int, int]) -> dict[str, np.ndarray]:
    description, config, start, number = job
    world, split, seed = (description[k] for k in ("world", "split", "seed"))
    generator = _generator(seed, SPLITS.index(split), start)
    scene, labels = load_world(world).draw(number, generator, config)
    arrays = {"images": (scene.image * 255).round().to(torch.uint8), "labels": labels}
    for level, nodes in enumerate(scene.levels):
        arrays |= {f"{level}.{f}": getattr(nodes, f) for f in TABLES}
        more = {f"{level}.{f}": getattr(nodes, f) for f in OPTIONAL}
        arrays |= {name: t for name, t in more.items() if t is not None}
    return {name: array.contiguous().numpy() for name, array in arrays.items()}


def _generator(*words: int) -> torch.Generator:
    """A generator for every tuple of numbers (on a CPU, torch uses the lower 32 bits of a seed)."""
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


def _open(folder: Path) -> Dataset:
    # mapped copy-on-write: nothing is read before it is used, and nothing is ever written back
    try:
        arrays = {p.stem: torch.from_numpy(np.load(p, mmap_mode="c")) for p in folder.glob("*.npy")}
        description = json.loads((folder / "description.json").read_text())
        levels = 1 + max(int(name.split(".")[0]) for name in arrays if "." in name)
        names = lambda k: [*TABLES, *(f for f in OPTIONAL if f"{k}.{f}" in arrays)]  # noqa: E731
        tables = tuple({f: arrays[f"{k}.{f}"] for f in names(k)} for k in range(levels))
        return Dataset(arrays["images"], description, tables, arrays["labels"])
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"the cached set {folder} is damaged ({error}); remove it, and it is drawn again"
        ) from error


@dataclass(frozen=True)
class FolderConfig:
    """How the pictures of a folder are read."""

    size: int = 64  # pixels a side
    colours: int = 3  # or 1, for shades of grey

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size={self.size}: expected at least 1 pixel a side")
        if self.colours not in (1, 3):
            raise ValueError(f"colours={self.colours}: expected 1 or 3")


def image_folder(path: str | Path, config: FolderConfig = FolderConfig()) -> Dataset:
    """All pictures of a folder and its sub-folders, cut square around the middle, resized, as RGB or grey.

    Of 16 bits a pixel the upper 8 are kept; what is transparent is shown on black, as worlds are.

    Raises:
        ValueError: no such folder, no picture in it, or one that cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise ValueError(f"no folder {str(path)!r}; --images takes a folder of pictures")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise ValueError(
            f"no pictures in {str(path)!r}; expected files ending in {', '.join(SUFFIXES)}"
        )
    images = torch.empty(len(files), config.colours, config.size, config.size, dtype=torch.uint8)
    for i, file in enumerate(tqdm(files, desc="reading", unit="image", disable=None)):
        images[i] = read_picture(file, config)
    return Dataset(images, {"images": str(path), "number": len(files), "size": config.size})


def read_picture(file: Path, config: FolderConfig) -> Tensor:
    """(C, S, S) uint8 of a file.

    Raises:
        ValueError: it cannot be read.
    """
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return _square(_eight_bits(picture), config)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the picture {str(file)!r}: {error}") from error


def square(frame: np.ndarray, config: FolderConfig) -> Tensor:
    """(C, S, S) uint8 of (H, W, 3) uint8, cut square around the middle and resized."""
    from PIL import Image

    return _square(Image.fromarray(frame), config)


def _square(picture: Image, config: FolderConfig) -> Tensor:
    from PIL import ImageOps

    plain = picture.convert("RGB" if config.colours == 3 else "L")
    cut = ImageOps.fit(plain, (config.size, config.size))
    return torch.from_numpy(np.array(cut)).view(config.size, config.size, -1).permute(2, 0, 1)


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


class Sampler:
    """Which images step `n` trains on: a new permutation every epoch, a pure function of the step.

    The last images of an epoch that do not fill a batch are left out.
    """

    def __init__(self, number: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= number:
            raise ValueError(f"batch={batch}: expected 1 to {number}, the number of images")
        self.number, self.batch, self.seed = number, batch, seed
        self._epoch, self._order = -1, torch.empty(0)

    def indices(self, step: int) -> Tensor:
        """(batch,) int64."""
        epoch, place = divmod(step, self.number // self.batch)
        if epoch != self._epoch:
            order = torch.randperm(self.number, generator=_generator(self.seed, epoch))
            self._epoch, self._order = epoch, order
        return self._order[place * self.batch : (place + 1) * self.batch]
