"""The presets learn. A quarter of an hour to an hour each: `python -m pytest -m slow`.

Those on MNIST's digits need `SCENE_PROGRAMS_MNIST`.
"""

import json
import os
from dataclasses import dataclass, field, replace

import pytest
from training import train

from inference.plan import Run


@dataclass(frozen=True)
class Row:
    """A training, and what it promises on unseen scenes of its world."""

    program: str
    metrics: dict
    preset: str = "quick"
    variant: str | None = None
    world: str | None = None
    options: dict = field(default_factory=dict)
    finish: bool = False


MNIST = {"world.digits": "mnist"}
ROWS = {
    "gsgn": Row("gsgn", {"object_f1": 0.98, "part_f1": 0.97, "structure_accuracy": 0.8}),
    "gsgn_clevr": Row(
        "gsgn",
        {"object_f1": 0.98, "part_f1": 0.88, "structure_accuracy": 0.5},
        world="compositional_clevr",
    ),
    "air": Row("air", {"object_count_accuracy": 0.95}),
    "air_sprites": Row("air", {"object_count_accuracy": 0.94}, "long", world="multi_sprites"),
    "air_mnist": Row("air", {"object_count_accuracy": 0.97}, "long", options=MNIST),
    "discrete_air": Row(
        "discrete_air", {"object_count_accuracy": 0.98, "category_correspondence": 0.95}
    ),
    "discrete_air_digits": Row(
        "discrete_air",
        {"object_count_accuracy": 0.97, "category_correspondence": 0.85},
        variant="discrete_air_mnist",
        options={"world.digits": "embedded"},
    ),
    "discrete_air_mnist": Row(
        "discrete_air",
        {"object_count_accuracy": 0.96, "category_correspondence": 0.80},
        variant="discrete_air_mnist",
        options=MNIST,
        finish=True,
    ),
    "econ": Row("econ", {"ari_fg": 0.95, "ari": 0.90, "expert_purity": 0.6}),
    "econ_random": Row("econ", {"ari_fg": 0.85, "ari": 0.85}, variant="econ_random"),
    "gnm": Row("gnm", {"ap50": 0.85, "object_f1": 0.95}),
    "gnm_arrow": Row("gnm", {"ap50": 0.98, "object_f1": 0.98}, world="arrow_room"),
    "denf": Row("denf", {"ari_fg": 0.8}),
    "denf_traffic": Row("denf", {"ari_fg": 0.9, "object_f1": 0.94}, world="traffic"),
    "space": Row("space", {"object_f1": 0.88, "object_count_accuracy": 0.7}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_the_preset_learns(name, tmp_path):
    row = ROWS[name]
    if row.options == MNIST and "SCENE_PROGRAMS_MNIST" not in os.environ:
        pytest.skip("SCENE_PROGRAMS_MNIST does not name MNIST's files")
    options = tuple(f"{key}={value}" for key, value in row.options.items())
    run = Run(
        f"programs/{row.program}.py",
        tmp_path / row.preset,
        variant=row.variant,
        preset=row.preset,
        world=row.world,
        seed=7,
        set=options,
    )
    out = train(run)
    if row.finish:
        out = train(replace(run, preset="finish", start=str(out), out=tmp_path / "finish"))
    metrics = json.loads((out / "metrics.json").read_text())
    for metric, least in row.metrics.items():
        assert metrics[metric] >= least, metrics
