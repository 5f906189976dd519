"""The quick presets learn. A quarter of an hour each: `python -m pytest -m slow`."""

import json

import pytest
from training import train

from inference.plan import Run

PROMISED = {
    "gsgn": {"object_count_accuracy": 0.95, "object_f1": 0.92, "part_count_accuracy": 0.75, "part_f1": 0.90},
    "air": {"object_count_accuracy": 0.95},
    "discrete_air": {"object_count_accuracy": 0.95, "category_correspondence": 0.85},
    "discrete_air_mnist": {"object_count_accuracy": 0.95},
    "econ": {"ari_fg": 0.95, "ari": 0.90, "expert_purity": 0.6},
    "econ_random": {"ari_fg": 0.85, "ari": 0.85},
    "gnm": {"ap50": 0.85, "object_f1": 0.95},
    "denf": {"ari_fg": 0.8},
    "space": {"object_f1": 0.88, "object_count_accuracy": 0.7},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("variant", PROMISED)
def test_the_quick_preset_learns(variant, tmp_path):
    program = variant.removesuffix("_mnist").removesuffix("_random")
    out = train(Run(f"programs/{program}.py", tmp_path, variant=variant, seed=7))
    metrics = json.loads((out / "metrics.json").read_text())
    for name, least in PROMISED[variant].items():
        assert metrics[name] >= least, metrics
