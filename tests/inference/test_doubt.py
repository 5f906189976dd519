"""A finish has the Config of the run that it starts from; that of the guide alone leaves the program."""

import json
import shutil
from dataclasses import replace

import pytest
import tiny
import torch
from PIL import Image
from pyro import poutine
from training import train, weights

from guides import air
from inference import svi
from inference.plan import Run, plan
from inference.recipes import Recipe
from inference.runs import open_run

AIR = "programs/air.py"
FEW = ("train.scenes=16", "train.validation_scenes=4", "train.test_scenes=6")


def doubting(out, start, *more):
    """A few steps of AIR's preset `doubt`."""
    return Run(
        AIR, out, preset="doubt", steps=3, batch=8, device="cpu", start=start, set=(*FEW, *more)
    )


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    return train(tiny.run("air", tmp_path_factory.mktemp("doubt") / "begun"))


def test_the_guide_learns_and_the_program_stays(begun, tmp_path):
    out = train(doubting(tmp_path / "out", str(begun)))
    before, after = weights(begun), weights(out)
    moved = {
        name for name in after if not torch.equal(after[name], before.get(name, after[name] + 1))
    }
    assert moved and all(name.startswith("guide.") for name in moved)
    was, now = (json.loads((path / "config.json").read_text()) for path in (begun, out))
    assert now["config"] == was["config"] | {"second_look": True}
    assert now["started"]["command"] == was["command"]


def test_a_second_look_is_at_first_the_guide_as_it_was(begun):
    narrow, images = open_run(begun), torch.rand(3, 1, 40, 40)
    config = replace(narrow.program.config, second_look=True)
    guide = air.Guide(type(narrow.program)(config))
    missing, foreign = guide.load_state_dict(narrow.guide.state_dict(), strict=False)
    assert not foreign and {n.partition(".")[0] for n in missing} == {"look_head", "lean_head"}
    with torch.no_grad():
        drawn = poutine.trace(narrow.guide).get_trace(images)
        again = poutine.trace(poutine.replay(guide, trace=drawn)).get_trace(images)
    exact, found = (float(t.log_prob_sum()) for t in (drawn, again))
    assert found == pytest.approx(exact, rel=1e-5)


def test_without_a_run_to_start_from_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match="finishes a run: give --from RUN"):
        train(doubting(tmp_path / "out", None, "size=40"))


def test_a_run_of_another_program_is_refused(begun, tmp_path):
    other = Run(
        "programs/vae.py",
        tmp_path / "out",
        preset="tiny",
        start=str(begun),
        set=("train.continues=True",),
    )
    with pytest.raises(ValueError, match=r"is a run of programs/air\.py, variant air"):
        train(other)


def test_a_recipe_trains_program_or_guide():
    with pytest.raises(ValueError, match="expected program, guide or both"):
        Recipe(trained=("decoder",))
    with pytest.raises(ValueError, match="only a finish"):
        Recipe(trained=("guide",))


def test_a_finish_goes_on_with_the_runs_images(begun, tmp_path):
    sprites = train(tiny.run("air", tmp_path / "sprites", world="multi_sprites"))
    finish = Run(AIR, tmp_path / "out", preset="doubt", start=str(sprites))
    p = plan(finish)
    assert p.images.title == "world multi_sprites" and p.image_config.size == 40
    assert plan(replace(finish, start=str(begun))).image_config.digits == "embedded"
    words = [AIR, "--preset", "doubt", "--from", str(sprites)]
    assert svi.parse(words).out.name == "air-multi_sprites-doubt"
    assert plan(replace(finish, world="multi_mnist")).recipe.world == "multi_mnist"
    one = ("world.max_objects=1",)
    assert plan(replace(finish, set=one)).image_config.max_objects == 1


def test_a_finish_goes_on_with_the_runs_folder(tmp_path):
    for k in range(12):
        Image.new("L", (40, 40), 20 * k).save(tmp_path / f"{k}.png")
    own = train(tiny.run("air", tmp_path / "own", images=tmp_path))
    p = plan(Run(AIR, tmp_path / "out", preset="doubt", start=str(own)))
    assert p.path == str(tmp_path) and p.image_config.size == 40


def test_a_finish_of_both_takes_the_runs_config_too(begun, tmp_path):
    out = train(replace(doubting(tmp_path / "out", str(begun)), preset="finish", steps=1))
    was, now = (json.loads((path / "config.json").read_text()) for path in (begun, out))
    assert now["config"] == was["config"]


def test_a_finish_goes_on_without_the_run_that_it_started_from(begun, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(begun, source)
    run = doubting(tmp_path / "out", str(source))
    train(replace(run, steps=1))
    shutil.rmtree(source)
    for start in (str(source), None):
        train(replace(run, resume=True, start=start))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["started"] and f"--from {source}" in config["command"]
    with pytest.raises(ValueError, match="is no run"):
        plan(replace(run, out=tmp_path / "new"))
