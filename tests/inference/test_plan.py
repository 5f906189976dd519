"""A plan: a run as it was asked for, worked out."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from training import GSGN, OWN

from inference.plan import Run, command, plan
from inference.recipes import Recipe
from inference.svi import parse


def test_the_command_line_is_what_is_promised():
    words = (
        "p.py --variant v --preset paper --world w --estimator e --steps 7 --minutes 2.5 --batch 3"
    )
    words += " --seed 4 --device cpu --out o --resume --set a=1 --set world.b=2"
    expected = {"variant": "v", "preset": "paper", "world": "w", "images": None, "estimator": "e"}
    expected |= {"steps": 7, "minutes": 2.5, "batch": 3, "seed": 4, "device": "cpu", "resume": True}
    run = parse(words.split())
    assert run == Run("p.py", Path("o"), **expected, set=("a=1", "world.b=2"))
    assert parse(["p.py", "--world", "w", "--images", "d"]).images == Path("d")
    assert parse([GSGN]).out == Path("runs/gsgn-shapes2d")
    assert parse([GSGN, "--preset", "tiny"]).out == Path("runs/gsgn-shapes2d-tiny")
    assert parse(shlex.split(command(run))[3:]) == replace(run, resume=False)


def test_the_steps_of_a_run_bend_no_schedule():
    short, long = (plan(Run(GSGN, Path("x"), steps=n)).recipe for n in (10, 100_000))
    assert short.schedules == long.schedules
    assert isinstance(short, Recipe)


def test_a_files_own_recipe_names_the_folder(tmp_path):
    own = (
        "from inference.recipes import Recipe\nRECIPES = {'p': {'quick': Recipe(world='mnist4')}}\n"
    )
    (tmp_path / "p.py").write_text(OWN + own)
    assert parse([str(tmp_path / "p.py")]).out == Path("runs/p-mnist4")


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
@pytest.mark.parametrize("variant", ["econ", "econ_random", "econ_plain", "monet"])
def test_a_recipe_has_methods_for_sites_that_a_setting_adds(variant, preset):
    def chosen(*words, **options):
        return plan(
            tiny.run("econ", "x", variant=variant, preset=preset, set=words, **options)
        ).recipe.estimator

    usual = "z_cat*=competition,z_mask*=mean"
    assert chosen() == usual  # a run from before goes on
    assert chosen("empty=True") == f"{usual},z_layer*=reinmax"
    assert chosen("empty=True", estimator="nvil") == "nvil"
    assert chosen("empty=True", "train.estimator=nvil") == "nvil"
