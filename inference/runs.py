"""A run folder: found, opened, read, and made small enough to ship."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyro
import torch

from inference import checkpoint
from inference.adapt import Names, rename
from inference.checkpoint import write_json
from inference.command import command_line, new_folder, told
from inference.images.dataset import Dataset
from inference.images.source import images_of
from inference.loading import ROOT, Function, Source, load
from inference.settings import choose, override
from programs.blocks.names import meant_file

TRAINED = ROOT / "programs" / "trained"
"""Folder of the runs that ship with the project."""
WEIGHTS = "weights.safetensors"
CONFIG = {"program": str, "variant": str, "config": dict, "world": dict, "recipe": dict}
"""Entries that a config.json must have, with their types."""


@dataclass(frozen=True)
class Trained:
    """A run that was trained: its program and guide, with their weights."""

    folder: Path
    program: torch.nn.Module
    guide: torch.nn.Module
    config: dict[str, Any]
    """its config.json"""

    @property
    def steps(self) -> dict[str, int]:
        """Number of training steps, from its metrics.json: ``{"step": N}``, or empty."""
        file = self.folder / "metrics.json"
        measured = read_json(file) if file.is_file() else {}
        return {k: v for k, v in measured.items() if k == "step"}

    def seen(self, number: int, images: Any = None) -> Dataset:
        """The first of the images that the run was trained on.

        Args:
            images: the data set that it was given from Python.
        """
        scenes = self.config["recipe"].get("scenes")
        return self._split("train", images, scenes).first(number)

    def training(self, number: int, images: Any = None) -> Dataset:
        """Images of the training split, which may be more than the run was trained on: a finish may take few.

        Args:
            images: as in `seen`.
        """
        return self._split("train", images, number).first(number)

    def validation(self, number: int, images: Any = None) -> Dataset | None:
        """Images of the run's world that are neither for training nor for tests; None if it has none.

        Args:
            images: as in `seen`.
        """
        return self._split("validation", images, number)

    def _split(self, name: str, images: Any, number: int | None) -> Any:
        path = self.config.get("images") if images is None else images
        images = images_of(self.config["recipe"].get("world"), path)
        config = override(images.config(), self.config["world"], images.title)
        return images.split(name, config, number)

    def unseen(
        self,
        number: int,
        seed: int = 0,
        world: str | None = None,
        images: Any = None,
        **options: Any,
    ) -> Dataset:
        """Images to measure the run on: scenes of its own world or of another, or its folder's pictures.

        Another world is drawn at the run's size. A folder's pictures are those that the run was trained on.

        Args:
            images: the data set that the run was given from Python.
            options: fields of the world's Config that differ from the run's.
        Raises:
            ValueError: unknown world, or a folder that is no longer there.
        """
        path = images if images is not None else None if world else self.config.get("images")
        own = self.config["recipe"].get("world")
        images = images_of(world or own, path)
        defaults = images.config()
        same_kind = path is not None or world in (None, own)
        known = {f.name for f in fields(defaults)} if same_kind else {"size"}
        same = {k: v for k, v in self.config["world"].items() if k in known}
        config = override(defaults, same | options, images.title)
        return images.split("test", config, number, seed)


def shipped() -> list[str]:
    """Names of the runs that ship with the project."""
    return sorted(path.parent.name for path in TRAINED.glob("*/config.json"))


def find_run(run: str | Path) -> Path:
    """The folder of a run, from its path or the name of a shipped run.

    Raises:
        ValueError: no such run.
    """
    folder = Path(run) if (Path(run) / "config.json").is_file() else TRAINED / str(run)
    if not (folder / "config.json").is_file():
        names = shipped()
        beside = (Path("runs"), Path(run).parent)
        own = [p.parent for at in beside for p in at.glob("*/config.json")]
        near = meant_file(run, [*names, *own], ":")
        raise ValueError(
            f"{str(run)!r} is no run{near} give a folder with config.json, or one of {', '.join(names)}"
        )
    return folder


def open_run(run: str | Path) -> Trained:
    """A trained program and its guide, from a run folder or a shipped run's name.

    Nothing in the folder is run as code; the program file that config.json names is imported.

    >>> run = open_run("gsgn-shapes2d")
    >>> run.steps
    {'step': 6000}
    >>> type(run.program).__name__, run.config["variant"]
    ('Program', 'gsgn')

    Raises:
        ValueError: no such run, files that are damaged or of a newer version, or weights that do not fit the
            program; the message names the file.
    """
    folder = find_run(run)
    config = read_config(folder)
    source = load(config["program"])
    try:
        program, guide, _ = built(config)
    except (ValueError, RuntimeError, TypeError) as error:
        raise _unfit(folder / "config.json", source, error) from error
    weights = read_weights(folder)
    try:
        if isinstance(program, Function):  # plain functions register their parameters when they run
            pyro.clear_param_store()
            size, colours = config["world"]["size"], config["world"].get("colours", 3)
            blank = torch.zeros(1, colours, size, size)
            for function in (guide.eval(), program.eval()):
                function(blank)
        program.load_state_dict(weights["program"])
        guide.load_state_dict(weights["guide"])
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _unfit(folder, source, error) from error
    return Trained(folder, program.eval(), guide.eval(), config)


def built(
    config: Mapping[str, Any], changes: Mapping[str, Any] = MappingProxyType({})
) -> tuple[torch.nn.Module, torch.nn.Module, Any]:
    """Program and guide of a config.json, without weights, and the program's Config.

    Args:
        changes: fields of the program's Config that differ.
    Raises:
        ValueError: no such program, variant or field.
    """
    source = load(config["program"])
    base = choose(source.variants, config["variant"], "variant")
    what = f"program {source.name}"
    own = override(override(base, config["config"], what), changes, what)
    program, guide = source.build(own)
    rename(Names(**config.get("names", {})), program, guide)
    return program, guide, own


def kind(config: Mapping[str, Any]) -> tuple[str, str]:
    """Stem of the program's file, and variant, of a config.json."""
    return Path(config["program"]).stem, config["variant"]


def _unfit(path: Path, source: Source, error: Exception) -> ValueError:
    reason = str(error).replace("\n\t", " ")
    return ValueError(
        f"{path} does not fit {source.path} ({reason}): it may be of a newer version of scene-programs; "
        "update, or train again"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run folder.

    Raises:
        ValueError: the file is damaged, or not the config.json of a run.
    """
    path = folder / "config.json"
    config = read_json(path)
    for name, kind in CONFIG.items():
        if not isinstance(config.get(name), kind):
            raise ValueError(
                f"{path} is not the config.json of a run: it has no {name}; restore a copy of it, or begin "
                "the run again with --resume"
            )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """The table in a JSON file.

    Raises:
        ValueError: the file is missing or damaged, or holds no table.
    """
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {path} ({error}); restore a copy of it") from error
    if not isinstance(table, dict):
        raise ValueError(
            f"{path} holds a {type(table).__name__}, expected a table; restore a copy of it"
        )
    return table


def read_weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """State dictionaries of program and guide, from the checkpoint if there is one, else weights.safetensors.

    Raises:
        ValueError: the file is missing or damaged, or holds something else.
    """
    path, released = folder / "checkpoint.ckpt", folder / WEIGHTS
    if checkpoint.exists(path) or not released.is_file():
        return checkpoint.load(path).get("modules", {})
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        flat = load_file(released)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read {released} ({error}); restore a copy of it") from error
    parts: dict[str, dict[str, torch.Tensor]] = {"program": {}, "guide": {}}
    for name, tensor in flat.items():
        owner, _, key = name.partition("/")
        parts.setdefault(owner, {})[key] = tensor
    return parts


def write_weights(
    folder: Path, modules: Mapping[str, Mapping[str, torch.Tensor]], half: bool = False
) -> None:
    """Write weights.safetensors: the tensors of program and guide by ``program/NAME`` and ``guide/NAME``.

    Args:
        half: store numbers of 32 bits in 16.
    Raises:
        ValueError: the file cannot be written.
    """
    from safetensors.torch import save

    flat = {
        f"{owner}/{name}": tensor.detach().cpu().clone().contiguous()
        for owner in ("program", "guide")
        for name, tensor in modules[owner].items()
    }
    if half:
        flat = {k: v.half() if v.dtype == torch.float32 else v for k, v in flat.items()}
    checkpoint.write(folder / WEIGHTS, save(flat))


LIMIT = 8 * 2**20
KEPT = (
    *("metrics.json", "structure.json", "log.jsonl"),
    *("scene_graphs.png", "reconstructions.png", "prior_scenes.png"),
)


def release(run: Path, target: Path, half: bool = False) -> int:
    """Copy the files of a run folder that others need; returns their size in bytes.

    Args:
        half: store weights in 16 bits. Measure the shipped copy again, with `analysis.evaluate
            --json`.
    Raises:
        ValueError: `run` has no checkpoint, `target` cannot be written, or would exceed 8 MiB.
    """
    path = run / "checkpoint.ckpt"
    if not checkpoint.exists(path) or not (run / "config.json").is_file():
        raise ValueError(
            f"{run} lacks checkpoint.ckpt or config.json: give a folder that inference.svi wrote"
        )
    modules, config = checkpoint.load(path)["modules"], anywhere(read_config(run), target.name)
    with new_folder(target):
        write_weights(target, modules, half)
        write_json(target / "config.json", config)
        try:
            for name in KEPT:
                if (run / name).is_file():
                    shutil.copyfile(run / name, target / name)
        except OSError as error:
            raise checkpoint.unwritable(target, error) from error
    size = sum(p.stat().st_size for p in target.iterdir())
    if size > LIMIT:
        raise ValueError(f"{target} holds {size} bytes; a shipped run is at most {LIMIT}")
    return size


def anywhere(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A config.json whose commands, and those of the runs before it, can be given one after another.

    Trainings before the last are in runs/NAME-1, runs/NAME-2, …, the last in runs/NAME, fits in …-fitted.
    """
    stages = [config]
    while stages[0].get("started"):
        stages.insert(0, stages[0]["started"])
    told: dict[str, Any] = {}
    source = ""
    for number, stage in enumerate(stages, 1):
        out = f"runs/{name}" if stage is config else f"runs/{name}-{number}"
        names = {"--out": out} | ({"--from": source} if told else {})
        stage = stage | {"command": _renamed(stage["command"], names)}
        source = out
        if fitted := stage.get("fitted"):
            source = f"{out}-fitted"
            words = _renamed(fitted["command"], {"inference.fit_prior": out, "--out": source})
            stage["fitted"] = fitted | {"command": words}
        told = stage | ({"started": told} if told else {})
    return told


def _renamed(command: str, names: Mapping[str, str]) -> str:
    """The command with other words after those that `names` has."""
    words = shlex.split(command)
    pairs = zip(["", *words], words, strict=False)
    return shlex.join(names.get(before, word) for before, word in pairs)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("inference.runs", __doc__)
    a.add_argument("run", type=Path, help="folder that inference.svi wrote")
    a.add_argument("target", type=Path, help="programs/trained/VARIANT-WORLD")
    a.add_argument("--half", action="store_true", help="weights in 16 bits: half the size")
    options = a.parse_args(arguments)
    size = release(options.run, options.target, options.half)
    print(f"{options.target}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
