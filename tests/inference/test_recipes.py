"""Recipes: found by program, variant and world, whole, and every one of them trains."""

import json
from dataclasses import fields, replace
from fnmatch import fnmatchcase

import pytest

from inference.images.worlds import load_world
from inference.loading import load, own_programs
from inference.log import read_log
from inference.recipes import Recipe, key_of, recipe, recipes_of, tiny
from inference.recipes.gsgn import to_scale
from inference.runs import built, find_run, read_config, shipped
from inference.settings import override
from inference.svi import main

TABLES = [(program, name) for program in own_programs() for name in recipes_of(program)]
VARIANTS = [(p, v, None) for p in own_programs() for v in load(f"programs/{p}.py").variants]
WORLDS = [(p, *name.split("/")) for p, name in TABLES if "/" in name]


@pytest.mark.parametrize(("program", "variant", "world"), VARIANTS + WORLDS)
def test_every_program_and_variant_trains_with_the_tiny_preset(program, variant, world, tmp_path):
    words = [f"programs/{program}.py", "--variant", variant, "--preset", "tiny", "--device", "cpu"]
    words += ["--world", world] if world else []
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    (record,) = [r for r in read_log(tmp_path / "run" / "log.jsonl") if "loss" in r]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["step"] == record["step"] == 4 and metrics["scenes"] == 12
    assert metrics["iwae"] >= metrics["elbo"] and "mse" in metrics
    assert (tmp_path / "run" / "prior_scenes.png").stat().st_size > 0


@pytest.mark.parametrize(("program", "name"), TABLES)
def test_a_table_has_the_tiny_preset_in_a_world_that_has_its_options(program, name):
    presets = recipes_of(program)[name]
    assert presets["tiny"].steps <= 20 and presets["tiny"].scenes <= 100
    for chosen in presets.values():
        known = {f.name for f in fields(load_world(chosen.world).config())}
        assert {*chosen.options} <= known
    assert any(tiny_of(p, presets["tiny"]) for n, p in presets.items() if n != "tiny")


@pytest.mark.parametrize(("program", "variant", "world"), VARIANTS + WORLDS)
def test_every_preset_of_a_variant_has_a_config(program, variant, world):
    """Also the presets that no test can train: the program takes their fields."""
    config = load(f"programs/{program}.py").variants[variant]
    table = recipes_of(program)
    for chosen in table[key_of(table, program, variant, world)].values():
        changed = override(config, chosen.program, program)
        assert {k: getattr(changed, k) for k in chosen.program} == {**chosen.program}


@pytest.mark.parametrize("run", shipped())
def test_a_shipped_run_has_a_config(run):
    config = read_config(find_run(run))
    assert built(config)[2] is not None


def tiny_of(larger, smaller):
    """Whether two recipes have the same schedules and objective."""
    names = ("schedules", "auxiliary", "penalties", "estimator")
    return all(getattr(larger, n) == getattr(smaller, n) for n in names)


def test_tiny_changes_sizes_and_numbers_alone():
    whole = Recipe(steps=900, scenes=5000, estimator="nvil", clip=3.0, world="clevr6")
    small = tiny(whole, {"size": 32}, options={"samples": 1})
    assert small.program == {"size": 32} and small.options == {"samples": 1}
    same = ("schedules", "estimator", "clip", "world", "auxiliary", "penalties", "precision")
    assert all(getattr(small, name) == getattr(whole, name) for name in same)
    assert small.steps < 10 and small.test_scenes < 20


@pytest.mark.parametrize(
    "name", ["steps", "batch", "scenes", "validation_scenes", "test_scenes", "evaluate_every"]
)
def test_a_recipe_refuses_numbers_that_cannot_be(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
        replace(Recipe(), **{name: 0})
    with pytest.raises(ValueError, match=r"rate=-1\.0 must be above 0"):
        Recipe(rate=-1.0)
    with pytest.raises(ValueError, match="rate=inf must be above 0 and finite"):
        Recipe(rate=float("inf"))


def test_no_pattern_of_a_recipe_is_hidden_by_one_before_it():
    """`lookup` takes the first pattern that matches: later ones that it covers would never count."""
    tables = [recipes_of(program) for program in own_programs()]
    for name, presets in (entry for table in tables for entry in table.items()):
        for preset, some in presets.items():
            weights = [key for key in some.schedules if key.startswith("weight.")]
            for patterns in (list(some.auxiliary), weights):
                for i, pattern in enumerate(patterns):
                    covering = [p for p in patterns[:i] if fnmatchcase(pattern, p)]
                    assert not covering, f"{name} {preset}: {covering[0]} hides {pattern}"


def test_a_world_may_have_a_recipe_of_its_own():
    assert recipe("gsgn", "gsgn", "quick") is recipes_of("gsgn")["gsgn"]["quick"]
    own = recipes_of("gsgn")["gsgn/compositional_clevr"]["quick"]
    assert recipe("gsgn", "mem", "quick", "compositional_clevr") is own
    nine = recipe("gsgn", "gsgn9", "paper", "compositional_clevr")
    assert set(nine.auxiliary) - set(own.auxiliary) == {"z_what_1"}
    assert recipe("gsgn", "gsgn", "quick", "multi_mnist") is recipes_of("gsgn")["gsgn"]["quick"]
    with pytest.raises(
        ValueError, match="of gsgn/compositional_clevr7 'long'; known are paper, quick"
    ):
        recipe("gsgn", "gsgn", "long", "compositional_clevr7")


def test_parts_weigh_more_for_a_while_with_seven_of_them():
    schedules = recipes_of("gsgn")["gsgn/compositional_clevr7"]["paper"].schedules
    epoch = 1000
    for name in ("weight.z_pres_2", "weight.aux/z_pres_2", "weight.z_theta_2"):
        values = [schedules[name](n * epoch) for n in (0, 50, 65, 80)]
        assert values == [1.0, 1.0, 3.0, 1.0]
    assert "weight.z_pres_1" not in schedules


def test_the_likelihood_of_a_small_image_counts_as_a_large_ones_in_the_end():
    schedules = to_scale(
        recipes_of("gsgn")["gsgn/compositional_clevr"]["quick"], 200, 100
    ).schedules
    assert [schedules["weight.images"](s) for s in (0, 200, 250, 300, 999)] == pytest.approx(
        [1, 1, 2, 4, 4]
    )
