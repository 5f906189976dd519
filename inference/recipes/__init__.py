"""How programs are trained, as data: a `Recipe` per preset, in a file per program with the program's stem.

A file holds ``RECIPES``, a table of presets by variant or program; the entry ``NAME/WORLD`` is for
one world. These names are looked up in order, VARIANT/WORLD, VARIANT, PROGRAM/WORLD, PROGRAM; the
first one found is used.

`tiny` takes a few steps of a very small network on few scenes, in seconds: it only shows that a training
works. `quick` is made for two CPU cores and a quarter of an hour, `long` trains the same networks on more
scenes for an hour, `paper` is the paper's configuration for a GPU. A user's program may have a table
``RECIPES`` in its file; a program without an entry trains with `DEFAULT`. Where a paper has a separate
objective for a world, the recipe of that world has it. Schedules are written in steps; the keys of
`schedules` are ``learning_rate``, ``estimator.BUFFER`` (``estimator.temperature``), ``program.BUFFER``,
``guide.BUFFER`` (any buffer of program or guide), ``weight.PATTERN`` (for KLs by site name,
``weight.z_cat*``, and for penalties, ``weight.penalty/boundary``), ``rate.program`` and
``rate.guide`` (factors of the learning rate of a module: with 0 it rests).
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inference.objectives import Penalty, Prior
from inference.schedules import Constant, Exponential, Linear, Plateau, Schedule, WarmupDecay
from programs.blocks.names import unknown


@dataclass(frozen=True)
class Recipe:
    """Everything a training run needs besides the program, the seed and the device."""

    steps: int = 2000
    """training step at which the run ends; no schedule depends on it"""
    batch: int = 32
    program: Mapping[str, Any] = field(default_factory=dict)
    """fields of the program's Config that the preset changes"""
    world: str = "shapes2d"
    options: Mapping[str, Any] = field(default_factory=dict)
    """fields of the world's Config, for worlds that have them; the program's `size` takes precedence"""
    scenes: int = 8000
    """training scenes"""
    validation_scenes: int = 200
    """validation scenes, on which the training is measured at intervals"""
    test_scenes: int = 500
    """test scenes, on which the training is measured at its end"""
    estimator: str = "gumbel"
    where: Mapping[str, str] = field(default_factory=dict)
    """further methods of `estimator`, by the field of the program's Config that must be set for their sites"""
    trained: tuple[str, ...] = ("program", "guide")
    """modules that learn"""
    continues: bool = False
    """whether it is a finish of a run, which must be given and whose Config the program has"""
    schedules: Mapping[str, Schedule] = field(
        default_factory=lambda: {"learning_rate": Constant(1e-3)}
    )
    auxiliary: Mapping[str, Prior] = field(default_factory=dict)
    """fixed priors of auxiliary KLs by site-name pattern; ``{}`` is the ablation No-Aux"""
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    """functions of the Scene, one number per image; schedules ``weight.penalty/NAME`` convert it to nats"""
    plateau: Plateau | None = None
    """when the learning rate falls and the training ends by the validation loss; None: never"""
    moves: Mapping[int, str] = field(default_factory=dict)
    """methods of the guide, by the step before which they are called on training images: changes of weights
    that no gradient finds"""
    rate: float = 1.0
    """factor of the learning rate"""
    clip: float = 1.0
    """largest infinity norm of the gradient of the loss per image"""
    evaluate_every: int = 1000
    """steps between evaluations on the validation scenes"""
    capture: bool = True
    """whether steps on CUDA are replayed from a graph (`inference.machine.capture`)"""
    precision: str = "float32"
    """number format of the networks in training: float32, bf16 or auto (`inference.machine.networks`)"""
    layout: str = "contiguous"
    """memory layout of the convolutions' weights: contiguous, channels_last or auto"""
    bf16_holds: bool = False
    """whether trainings in bf16 were measured to reach the same metrics, so that auto may take it"""
    compile: bool = False
    """whether the networks are compiled"""

    def __post_init__(self) -> None:
        numbers = ("steps", "batch", "scenes", "validation_scenes", "test_scenes", "evaluate_every")
        for name in numbers:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.trained or not {*self.trained} <= {"program", "guide"}:
            raise ValueError(f"trained={self.trained}: expected program, guide or both")
        if {*self.trained} < {"program", "guide"} and not self.continues:
            raise ValueError(
                f"trained={self.trained}: only a finish, with continues=True, trains one module"
            )
        if not self.clip > 0:
            raise ValueError(f"clip={self.clip} must be above 0")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate={self.rate} must be above 0 and finite")

    def for_config(self, config: Any) -> Recipe:
        """The recipe whose estimator has the methods of the sites that a program has by its Config."""
        more = [methods for name, methods in self.where.items() if getattr(config, name, False)]
        return replace(self, estimator=",".join([self.estimator, *more]))


DEFAULT = Recipe(options={"size": 64})


def doubt(recipe: Recipe, steps: int, rate: float = 1e-3, **changes: Any) -> Recipe:
    """A finish that lets a guide doubt: it learns from the program's own scenes, and the program stays.

    ``--preset doubt --from RUN``. Images of the world are drawn for the metrics alone. Run
    `inference.fit_prior` before it: what a guide learns from dreams is of use for scenes that look like them.
    """
    falls = WarmupDecay(rate, warmup=50, half_life=steps // 8, hold=steps // 2)
    return replace(
        recipe,
        steps=steps,
        program={},
        scenes=1000,
        estimator="sleep",
        where={},
        trained=("guide",),
        continues=True,
        schedules={"learning_rate": falls},
        auxiliary={},
        penalties={},
        evaluate_every=steps // 4,
        **changes,
    )


def tiny(recipe: Recipe, program: Mapping[str, Any], **changes: Any) -> Recipe:
    """A few steps of a very small network on few scenes, with the schedules and objective of `recipe`.

    Args:
        program: fields of the program's Config that make it small.
        changes: other fields of the recipe, such as a world that can draw small images.
    """
    small = Recipe(steps=4, batch=8, scenes=64, validation_scenes=6, test_scenes=12)
    names = ("steps", "batch", "scenes", "validation_scenes", "test_scenes", "evaluate_every")
    few = {name: getattr(small, name) for name in names}
    return replace(recipe, **few, program=program, **changes)


def with_beta(recipe: Recipe, beta: float, pattern: str = "z_global*") -> Recipe:
    """The recipe with a weight that ends at β for KLs of matching sites (GNM, section 2.1).

    # differs: the supplement does not say which KLs. Here it is that of z^g, the only one of ConvDRAW.
    """
    name = f"weight.{pattern}"
    weight: Schedule
    match recipe.schedules.get(name):
        case None | Constant():
            weight = Constant(beta)
        case Linear() | Exponential() as ramp:
            weight = replace(ramp, end=beta)
        case other:
            raise ValueError(f"{name} has the schedule {other}: expected none, Constant or a ramp")
    return replace(recipe, schedules={**recipe.schedules, name: weight})


def recipes_of(program: str) -> Mapping[str, Mapping[str, Recipe]]:
    """The table RECIPES of ``inference/recipes/PROGRAM.py``; empty if there is no such file."""
    name = f"{__name__}.{program}"
    if not program.isidentifier() or importlib.util.find_spec(name) is None:
        return {}
    return importlib.import_module(name).RECIPES


def key_of(table: Collection[str], program: str, variant: str, world: str | None) -> str | None:
    """The name in a table of recipes under which a variant's presets for a world are; None if there is none."""
    names = [f"{variant}/{world}", variant, f"{program}/{world}", program]
    return next((name for name in names if name in table), None)


def recipe(
    program: str,
    variant: str,
    preset: str,
    world: str | None = None,
    own: Mapping[str, Mapping[str, Recipe]] | None = None,
) -> Recipe:
    """The recipe of a variant or program by preset and world; `DEFAULT` for a program without recipes.

    Args:
        own: the table RECIPES of a program file outside the project; None for the table of `recipes_of`.
    Raises:
        ValueError: the program has recipes, but none of that name, or something else in their place.
    """
    table = recipes_of(program) if own is None else own
    entries = [*table.values()] if isinstance(table, Mapping) else [table]
    if not all(
        isinstance(e, Mapping) and all(isinstance(r, Recipe) for r in e.values()) for e in entries
    ):
        raise ValueError(
            "RECIPES of the program's file: expected a table of presets by variant, such as {'mine': {'quick': "
            "Recipe(steps=500)}} with Recipe from inference.recipes"
        )
    name = key_of(table, program, variant, world)
    if name is None:
        return DEFAULT
    if preset not in table[name]:
        raise ValueError(unknown(f"preset of {name}", preset, sorted(table[name])))
    return table[name][preset]
