"""A run as the user asks for it (`Run`), and with all settings resolved (`Plan`)."""

from __future__ import annotations

import json
import math
import platform
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pyro
import torch

from inference.command import new_folder
from inference.estimators import estimator
from inference.images import worlds
from inference.images.dataset import Dataset
from inference.images.hugging_face import name_of
from inference.images.source import Images, images_of
from inference.loading import Source, load
from inference.machine import distributed, networks
from inference.recipes import Recipe, recipe
from inference.runs import find_run, kind, read_config
from inference.settings import choose, override, settings
from programs.blocks.names import unknown

OPTIONS = {"start": "from"}
"""Options of the command line whose name differs from the field of `Run`."""
DEVICES = ("auto", "cpu", "cuda")
DECIDES = ("variant", "config", "world", "images", "pictures", "seed")
"""Fields of config.json that must not change when a run is resumed."""
DECIDES_OF_RECIPE = ("world", "batch", "scenes", "estimator", "trained")
"""Fields of the recipe in config.json that must not change when a run is resumed."""
TABLES_OF_RECIPE = ("schedules", "auxiliary", "penalties", "moves")
"""Tables of the recipe in config.json that must neither change nor gain or lose an entry."""
BEGUN = ("config.json", "log.jsonl")
"""Files that a run writes before its first checkpoint."""
TERMS = ("auxiliary", "penalties")
"""Tables of a recipe whose terms a run may leave out."""


@dataclass(frozen=True)
class Run:
    """One training run: all settings that affect its result."""

    program: str
    """path of the program file"""
    out: Path
    variant: str | None = None
    preset: str = "quick"
    world: str | None = None
    images: Any = None
    """path of files; from Python also a data set of the library `datasets`"""
    estimator: str | None = None
    steps: int | None = None
    minutes: float = math.inf
    batch: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    start: str | None = None
    """run whose weights the training starts from: ``--from``"""
    log: str | None = None
    """kind of the second log beside log.jsonl: csv or tensorboard"""
    set: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Plan:
    """A `Run` with all settings resolved, as `config.json` records it."""

    source: Source
    config: Any
    """the program's Config"""
    variant: str
    recipe: Recipe
    images: Images
    image_config: Any
    """the Config by which the images are drawn or read"""
    path: Any
    """path of the images, or a data set; None if a world draws them"""
    seed: int
    device: torch.device

    def training_images(self) -> Dataset:
        """Images that the program is trained on."""
        return self.images.split("train", self.image_config, self.recipe.scenes)

    def validation_images(self) -> Dataset | None:
        """Scenes with their truth, or None if the images have no truth."""
        return self.images.split("validation", self.image_config, self.recipe.validation_scenes)

    def test_images(self) -> Dataset:
        """Images that the trained program is measured on."""
        return self.images.split("test", self.image_config, self.recipe.test_scenes)


def plan(run: Run) -> Plan:
    """Look up everything that a run names.

    Raises:
        ValueError: a name is unknown, or a value is bad; the message lists the known ones.
    """
    if not run.minutes >= 0:
        raise ValueError(f"minutes={run.minutes} must be at least 0")
    if not 0 <= run.seed < 2**32:
        raise ValueError(f"seed={run.seed} must be 0 to 2**32 - 1")
    before = goes_on_from(run)
    pyro.set_rng_seed(run.seed)  # a file may make its networks while it is imported
    source, tables = load(run.program), settings(run.set)
    variant = run.variant or next(iter(source.variants))
    config = choose(source.variants, variant, "variant")
    chosen = chosen_recipe(run, source, variant, tables["train"])
    options = chosen.options if run.images is None else {}
    if before is not None and chosen.continues:
        config = started(before, source, variant, config)
        if run.world is None and run.images is None:
            path, world, options = images_before(before)
            run = replace(run, images=path, world=world)
            chosen = chosen_recipe(run, source, variant, tables["train"])
    images = images_of(chosen.world, run.images)
    elsewhere = [*_fields("world", images.config()), *_fields("train", chosen)]
    changes = {**chosen.program, **tables["program"]}
    config = override(config, changes, f"program {source.name}", elsewhere)
    image_config = configure(images, config, options, tables["world"])
    device = choose_device(run.device)
    chosen = chosen.for_config(config)
    return Plan(source, config, variant, chosen, images, image_config, run.images, run.seed, device)


def goes_on_from(run: Run) -> Path | None:
    """The run whose Config and images a finish has: its own if it is resumed, else that of ``--from``.

    Raises:
        ValueError: ``--from`` names no run.
    """
    if run.resume and (run.out / "config.json").is_file():
        with suppress(ValueError):  # lost or damaged: it is written again
            read_config(run.out)
            return run.out
    return None if run.start is None else find_run(run.start)


def started(run: Path, source: Source, variant: str, config: Any) -> Any:
    """The program's Config of the run that a training finishes.

    Raises:
        ValueError: it is a run of another program or variant.
    """
    before = read_config(run)
    if kind(before) != (source.stem or Path(source.named).stem, variant):
        raise ValueError(
            f"{run} is a run of {before['program']}, variant {before['variant']}, and this preset "
            f"finishes a run: give that program, and --variant {before['variant']}"
        )
    return override(config, before["config"], f"the run {run}")


def images_before(run: Path) -> tuple[str | None, str, dict[str, Any]]:
    """Images (a path), world and their options of a run; a finish goes on with them."""
    config = read_config(run)
    return config.get("images"), config["recipe"]["world"], config["world"]


def _fields(prefix: str, config: Any) -> list[str]:
    """How ``--set`` names the fields of a Config."""
    return [f"{prefix}.{f.name}" for f in fields(config)]


def chosen_recipe(run: Run, source: Source, variant: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe of the run's preset, with the changes of the run and of ``--set train.FIELD``.

    Raises:
        ValueError: an unknown preset, estimator or field, or a value that a recipe cannot have.
    """
    if "schedules" in changes:
        raise ValueError(
            "train.schedules cannot be given here: write others in inference/recipes; train.rate is a "
            "factor of the learning rate"
        )
    if "plateau" in changes:
        raise ValueError("train.plateau cannot be given here: write a recipe with a Plateau")
    world = None if run.world is None else worlds.named(run.world)
    named: dict[str, Any] = {"steps": run.steps, "batch": run.batch, "world": world}
    named["estimator"] = run.estimator
    given = run.estimator or "estimator" in changes
    named["where"] = {} if given else None  # what is given is whole
    own = getattr(source.program, "RECIPES", None)
    base = recipe(source.stem, variant, run.preset, world, own)
    base = replace(base, **{k: v for k, v in named.items() if v is not None})
    fewer = {k: some_of(getattr(base, k), v, k) for k, v in changes.items() if k in TERMS}
    chosen = override(base, {**changes, **fewer}, "the training recipe")
    estimator(chosen.estimator)
    networks.check(chosen.precision, chosen.layout)
    return chosen


def some_of(terms: Mapping[str, Any], given: Any, name: str) -> dict[str, Any]:
    """The terms of a recipe that ``--set train.NAME=ONE,TWO`` keeps; ``{}`` keeps none.

    Raises:
        ValueError: the recipe has no such term.
    """
    chosen = given.split(",") if isinstance(given, str) else [] if given == {} else None
    if chosen is None or not {*chosen} <= {*terms}:
        raise ValueError(
            f"train.{name}={given}: expected {{}}, or names of those of the recipe that are to be kept, of "
            f"{', '.join(terms) or 'which it has none'}; write others in inference/recipes"
        )
    return {term: terms[term] for term in chosen}


def configure(
    images: Images, config: Any, options: Mapping[str, Any], changes: Mapping[str, Any]
) -> Any:
    """The images' Config: the recipe's options at the program's size, with the run's changes."""
    defaults = images.config()
    known = {f.name for f in fields(defaults)}
    shared = {name: getattr(config, name, None) for name in ("size", "colours")}
    given = {**options, **{k: v for k, v in shared.items() if v is not None}}
    fitting = {k: v for k, v in given.items() if k in known}
    return override(defaults, {**fitting, **changes}, images.title)


def choose_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: the name is unknown, or torch finds no such device.
    """
    name = {"gpu": "cuda"}.get(name, name)
    if name not in DEVICES:
        raise ValueError(unknown("device", name, DEVICES))
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError(
            "--device cuda was asked for, but torch finds no CUDA device; use cpu or auto"
        )
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def command(run: Run) -> str:
    """The command line of a run, without --resume."""
    words = [
        "python -m inference.svi",
        shlex.quote(run.program),
        "--out",
        shlex.quote(str(run.out)),
    ]
    for f in fields(Run):
        value = getattr(run, f.name)
        given = f.name not in ("program", "out", "resume", "set") and value is not f.default
        if given and isinstance(value, str | int | float | Path) and value != f.default:
            words += [f"--{OPTIONS.get(f.name, f.name)}", shlex.quote(str(value))]
    return " ".join([*words, *(f"--set {shlex.quote(pair)}" for pair in run.set)])


def describe(p: Plan, run: Run) -> dict[str, Any]:
    """The plan as plain values for config.json."""
    return {
        "command": command(run),
        "program": str(p.source.named),
        "variant": p.variant,
        "config": asdict(p.config) if p.config is not None else {},
        "recipe": asdict(p.recipe)
        | {"schedules": {k: repr(v) for k, v in p.recipe.schedules.items()}}
        | {"auxiliary": {k: repr(v) for k, v in p.recipe.auxiliary.items()}}
        | {"penalties": {k: repr(v) for k, v in p.recipe.penalties.items()}},
        "world": asdict(p.image_config),
        "images": where(p.path),
        "seed": p.seed,
        "processes": distributed.world(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {"pyro": pyro.__version__},
    }


def where(path: Any) -> str | None:
    """Where images are: an absolute path, or what stands for a data set's object."""
    if path is None:
        return None
    return str(Path(path).resolve()) if isinstance(path, str | Path) else name_of(path)


def check_split(p: Plan) -> None:
    """Check that the number of processes divides the batch.

    Raises:
        ValueError: it does not.
    """
    batch, number = p.recipe.batch, distributed.world()
    if batch % number:
        raise ValueError(
            f"a batch of {batch} images cannot be split evenly over {number} processes: give --batch "
            f"{max(batch // number, 1) * number}, or torchrun another --nproc-per-node"
        )


def check_pictures(p: Plan, data: Dataset) -> None:
    """Check that the images have the colours and pixels per side that the program draws.

    Raises:
        ValueError: they do not.
    """
    _, colours, size, _ = data.images.shape
    for field_name, there in (("colours", colours), ("size", size)):
        wanted = getattr(p.config, field_name, there)
        if wanted != there:
            raise ValueError(
                f"the images have {field_name}={there}, {p.source.name} draws {field_name}={wanted}: choose "
                f"another --world, or --set {field_name}={there}"
            )


def check_same(path: Path, ours: dict[str, Any]) -> None:
    """Check that the settings that decide of a training are those with which the run began, by its config.json.

    Raises:
        ValueError: they are not; the message names the settings that differ, and the first command.
    """
    try:
        begun = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return  # lost or damaged: it is written again
    ours = json.loads(json.dumps(ours))
    pairs = [(n, begun.get(n), ours.get(n)) for n in DECIDES]
    recipes = begun.get("recipe", {}), ours["recipe"]
    pairs += [(n, *(recipe.get(n) for recipe in recipes)) for n in DECIDES_OF_RECIPE]
    differing = [name for name, old, new in pairs if old is not None and _differ(old, new)]
    tables = [(n, *(recipe.get(n) for recipe in recipes)) for n in TABLES_OF_RECIPE]
    differing += [name for name, old, new in tables if old is not None and old != new]
    if differing:
        raise ValueError(
            f"{path.parent} was begun with another {', '.join(dict.fromkeys(differing))}: give --out another "
            f"folder, or go on with its own settings: {begun.get('command')} --resume"
        )


def _differ(old: Any, new: Any) -> bool:
    """Whether two values differ; fields that only one table has do not count, as versions may add them."""
    if isinstance(old, dict) and isinstance(new, dict):
        return any(_differ(old[k], new[k]) for k in old.keys() & new.keys())
    return old != new


@contextmanager
def open_folder(run: Run) -> Iterator[Path]:
    """The run folder, made if needed; a run that ends by an error before its first record leaves nothing.

    Raises:
        ValueError: the folder cannot be written, or it is not empty and --resume was not given.
    """
    with new_folder(run.out) as out:
        before = {path.name for path in out.iterdir()}
        try:
            (out / ".writable").touch()
            (out / ".writable").unlink()
        except OSError as error:
            raise ValueError(
                f"cannot write to {out}: {error.strerror}; give another --out"
            ) from error
        if not run.resume and before - {*BEGUN}:
            raise ValueError(
                f"{out} is not empty: continue it with --resume, or give another --out"
            )
        try:
            yield out
        except Exception:
            if not before:
                forget(out)
            raise


def forget(folder: Path) -> None:
    """Delete what a run writes before its first record, if it has no record and nothing else is there."""
    names = {path.name for path in folder.iterdir()}
    log = folder / "log.jsonl"
    if not names - {*BEGUN} and not (log.is_file() and log.stat().st_size):
        for name in names:
            (folder / name).unlink()
