"""Scenes of simulated worlds, drawn once and cached.

A set is a folder of .npy files under ``$SCENE_PROGRAMS_CACHE`` (default ~/.cache/scene-programs), named by a
hash of everything that decides it: world, version, configuration, split, seed and number, and for a world file
of one's own its source. It is written under a temporary name and renamed when whole. Scenes are drawn in
batches with a generator each, so the set does not depend on how many processes drew it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import programs.worlds
from inference.images.dataset import SPLITS, Dataset, generator_of
from inference.images.stored import damaged, digest, read_set, write_set
from inference.loading import ROOT, import_file
from inference.settings import choose, override
from programs.blocks.names import meant_file, unknown
from programs.scene import Nodes, Scene
from programs.worlds import cache, with_visible_masks

BATCH = 256
MANY = 1000
"""Number of scenes whose drawing is announced where there is no progress bar."""
TABLES = ("pres", "pose", "depth", "parent", "category")
OPTIONAL = ("attributes",)
"""Truth of some worlds."""
HALF_LEVEL = 0.5 / 255
"""How far a pixel may lie outside of [0, 1], for rounding takes it back."""
EXPECTED = "expected a Scene of images (B, C, S, S) and labels (B, S, S) uint8"


@dataclass(frozen=True)
class World:
    """A simulator as `inference.images.source.Images`; `programs/worlds/__init__.py` says what a world has."""

    name: str
    """as in ``--world``"""
    module: ModuleType
    changes: Mapping[str, Any]
    """the fields of its Config that the variant changes"""

    @property
    def title(self) -> str:
        """What error messages call it."""
        return f"world {self.name}"

    @property
    def version(self) -> str:
        """Changes with what is drawn."""
        return getattr(self.module, "VERSION", "1")

    def config(self, **changes: Any) -> Any:
        """The world's Config, as the variant has it and then as asked for."""
        return self.module.Config(**{**self.changes, **changes})

    def with_masks(self, config: Any) -> Callable[[Scene, Tensor], Scene]:
        """Adds the masks that labels of scenes of this Config hold."""
        found: Callable[..., Scene] = getattr(self.module, "with_masks", with_visible_masks)
        if "config" in inspect.signature(found).parameters:
            return partial(found, config=config)
        return found

    def scenes(self, number: int, generator: torch.Generator, config: Any = None) -> Scene:
        """Scenes drawn now, with their truth."""
        config = config or self.config()
        return self.with_masks(config)(*self.draw(number, generator, config))

    def draw(self, number: int, generator: torch.Generator, config: Any) -> tuple[Scene, Tensor]:
        """Scenes drawn now, and the labels (B, H, W) that hold their masks.

        Raises:
            ValueError: the world's `draw` returns something else; the message says what.
        """
        drawn = self.module.draw(number, generator, config)
        if not isinstance(drawn, tuple) or len(drawn) != 2 or not isinstance(drawn[0], Scene):
            raise ValueError(f"{self.title}: draw returned {type(drawn).__name__}, {EXPECTED}")
        scene, labels = drawn
        shape = scene.image.shape
        if len(scene) != number or labels.shape != (number, *shape[2:]):
            raise ValueError(
                f"{self.title}: draw returned images {tuple(shape)} and labels {tuple(labels.shape)} for "
                f"{number} scenes, {EXPECTED}"
            )
        self._check_pixels(scene.image)
        for level, nodes in enumerate(scene.levels):
            self._check_nodes(level, nodes, number)
        return scene, labels

    def _check_pixels(self, images: Tensor) -> None:
        if not images.is_floating_point():
            raise ValueError(f"{self.title}: draw returned images of {images.dtype}, {EXPECTED}")
        low, high = map(float, images.aminmax())
        if not -HALF_LEVEL < low <= high < 1 + HALF_LEVEL:
            raise ValueError(
                f"{self.title}: draw returned pixels from {low:g} to {high:g}: expected [0, 1]"
            )

    def _check_nodes(self, level: int, nodes: Nodes, number: int) -> None:
        if missing := [name for name in TABLES if getattr(nodes, name) is None]:
            raise ValueError(f"{self.title}: level {level} lacks {' and '.join(missing)}")
        pres, pose = tuple(nodes.pres.shape), tuple(nodes.pose.shape)
        if len(pres) != 2 or pres[0] != number or pose != (*pres, 2, 3):
            raise ValueError(
                f"{self.title}: level {level} has pres of shape {pres} and pose of shape {pose} for {number} "
                "scenes: expected (B, N) and (B, N, 2, 3)"
            )
        if not nodes.pose.isfinite().all():
            raise ValueError(f"{self.title}: poses of level {level} are not finite")

    def split(self, name: str, config: Any, number: int | None = None, seed: int = 0) -> Dataset:
        """`number` scenes, from the cache or drawn now."""
        if number is None:
            raise ValueError(f"{self.title} is drawn: say how many scenes")
        return world_dataset(self.name, number, name, seed, config)

    def identity(self, config: Any) -> dict[str, Any]:
        """What decides its scenes besides the configuration: name and version, and contents of files."""
        known = {"world": self.name, "version": self.version}
        if self.name.endswith(".py"):
            known["source"] = hashlib.sha256(Path(self.name).read_bytes()).hexdigest()
        files: list[Path] = getattr(self.module, "sources", lambda _: [])(config)
        if files:
            parts = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
            known["files"] = hashlib.sha256(parts).hexdigest()
        return known


def worlds() -> list[str]:
    """Names of the project's worlds, variants included."""
    return sorted(_variants())


def _variants() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """By name, the module of a world and the fields that the variant changes; no world is imported for it."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for path in Path(programs.worlds.__file__).parent.glob("*.py"):
        if path.stem != "__init__":
            found[path.stem] = (path.stem, {})
            found |= {name: (path.stem, changes) for name, changes in _table(path).items()}
    return found


def _table(path: Path) -> dict[str, Mapping[str, Any]]:
    """VARIANTS of a world's file, which is a literal."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VARIANTS":
            return ast.literal_eval(node.value)
    return {}


def load_world(name: str) -> World:
    """A world of the project by name, or a Python file with one.

    Raises:
        ValueError: there is no such world, or the file holds none.
    """
    if str(name).endswith(".py"):
        return _own_world(_file(name))
    stem, changes = choose(_variants(), name, "world")
    return World(name, importlib.import_module(f"programs.worlds.{stem}"), changes)


def _own_world(path: Path) -> World:
    if not path.is_file():
        near = meant_file(path, path.parent.glob("*.py"))
        raise ValueError(f"no world file {str(path)!r}{near} the project has {', '.join(worlds())}")
    if path.parent == Path(programs.worlds.__file__).parent:
        return load_world(path.stem)
    module = import_file(path)
    missing = [name for name in ("Config", "draw") if not hasattr(module, name)]
    if not missing and "size" not in getattr(module.Config, "__dataclass_fields__", {}):
        missing = ["a field size of Config"]
    if not missing and any(f.default is f.default_factory for f in fields(module.Config)):
        missing = ["a default for every field of Config"]
    if missing:
        raise ValueError(
            f"{str(path)!r} is no world, it lacks {' and '.join(missing)}: expected a frozen dataclass Config "
            "with a field size, and draw(batch, generator, config), which returns a Scene and its labels"
        )
    return World(str(path), module, {})


def named(world: str) -> str:
    """A world as it is found from any folder: by name, or by its file's path, in this project or absolute."""
    path = _file(world)
    if path.suffix != ".py":
        return world
    if path.parent == Path(programs.worlds.__file__).parent:
        return path.stem
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _file(name: str) -> Path:
    """The absolute path of a file that is named from here, or else from the project's folder."""
    path = Path(name)
    return (path if path.is_file() or not (ROOT / path).is_file() else ROOT / path).resolve()


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

    >>> data = world_dataset("multi_sprites", 4, "test", progress=False)
    >>> tuple(data.images.shape), data.truth().objects.pres.shape[1]
    ((4, 1, 64, 64), 3)

    Args:
        split: train, validation or test; the same seed gives other scenes in each.
        config: the world's Config; None for its defaults.
        processes: how many draw at once; None for one a core. The scenes do not depend on it.
        progress: show a bar where there is a terminal.
    Raises:
        ValueError: unknown world or split, a bad number or seed, a cache that cannot be written.
        RuntimeError: a process died; scripts that draw are read again by each, so they need a guard.
    """
    world = load_world(name)
    config = world.config() if config is None else config
    if split not in SPLITS:
        raise ValueError(unknown("split", split, SPLITS))
    if number < 1:
        raise ValueError(f"number={number} scenes of {name}: expected at least 1")
    if not 0 <= seed < 2**32:  # a longer one would run into the split's place in the batches' seeds
        raise ValueError(f"seed={seed}: expected 0 to 2**32 - 1")
    if hasattr(config, "split"):
        config = replace(config, split=split)
    description = {**world.identity(config), "config": asdict(config)}
    description |= {"split": split, "seed": seed, "number": number}
    folder = cache() / f"{Path(name).stem}-{split}-{digest(description)}"
    if not folder.exists():
        if progress and number >= MANY and not sys.stderr.isatty():  # elsewhere a bar says it
            print(f"drawing {number} scenes of {name} for {split}")
        if hasattr(world.module, "prepare"):
            world.module.prepare(config)
        _generate(folder, description, processes, progress)
    return _open(folder, world)


def _generate(
    folder: Path, description: dict[str, Any], processes: int | None, progress: bool
) -> None:
    number = description["number"]
    jobs = [(description, i, min(BATCH, number - i)) for i in range(0, number, BATCH)]
    write_set(folder, description, lambda: _draw_all(jobs, processes, progress))


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


def _draw(job: tuple[dict[str, Any], int, int]) -> dict[str, np.ndarray]:
    """A batch of scenes as arrays. Its Config is made anew: the class of a file cannot be sent to a process."""
    description, start, number = job
    world, generator = load_world(description["world"]), _generator(description, start)
    scene, labels = world.draw(number, generator, world.config(**description["config"]))
    arrays = {"images": (scene.image * 255).round().to(torch.uint8), "labels": labels}
    for level, nodes in enumerate(scene.levels):
        arrays |= {f"{level}.{f}": getattr(nodes, f) for f in TABLES}
        more = {f"{level}.{f}": getattr(nodes, f) for f in OPTIONAL}
        arrays |= {name: t for name, t in more.items() if t is not None}
    return {name: array.contiguous().numpy() for name, array in arrays.items()}


def _generator(description: dict[str, Any], start: int) -> torch.Generator:
    return generator_of(description["seed"], SPLITS.index(description["split"]), start)


def _open(folder: Path, world: World) -> Dataset:
    arrays, description = read_set(folder)
    try:
        levels = 1 + max(int(name.split(".")[0]) for name in arrays if "." in name)
        names = lambda k: [*TABLES, *(f for f in OPTIONAL if f"{k}.{f}" in arrays)]  # noqa: E731
        tables = tuple({f: arrays[f"{k}.{f}"] for f in names(k)} for k in range(levels))
        config = override(world.config(), description["config"], world.title)
        masks = world.with_masks(config)
        return Dataset(arrays["images"], description, tables, arrays["labels"], masks)
    except (ValueError, KeyError) as error:
        raise damaged(folder, error) from error
