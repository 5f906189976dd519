"""The fastest way to compute is found, written down, and kept."""

import json
from dataclasses import replace

import pytest
from training import equal, small, train, weights

from inference.machine import choice
from inference.plan import plan

AUTO = ("train.precision=auto", "train.layout=auto")


@pytest.fixture
def slow(monkeypatch):
    """Seconds of a step by layout, instead of measured ones, and the plans that were asked for."""
    asked, known = [], {"contiguous": 1.0, "channels_last": 0.5}

    def seconds(p, data):
        asked.append((p.recipe.precision, p.recipe.layout))
        assert len(data.images) == p.recipe.scenes
        return known[p.recipe.layout]

    monkeypatch.setattr(choice, "seconds", seconds)
    return known, asked


def written(out):
    recipe = json.loads((out / "config.json").read_text())["recipe"]
    return recipe["precision"], recipe["layout"]


def test_the_fastest_is_written_down_and_kept(tmp_path, slow, capsys):
    known, asked = slow
    run = small(tmp_path / "run", steps=2, set=AUTO)
    train(run)
    assert asked == [("float32", "contiguous"), ("float32", "channels_last")]
    assert written(run.out) == ("float32", "channels_last")
    assert "networks compute in float32, channels_last" in capsys.readouterr().out
    known["channels_last"] = 2.0
    train(replace(run, steps=4, resume=True))
    assert len(asked) == 2 and written(run.out) == ("float32", "channels_last")
    train(small(tmp_path / "said", steps=4, set=("train.layout=channels_last",)))
    assert equal(weights(run.out), weights(tmp_path / "said"))  # bit for bit


def test_a_small_gain_is_not_worth_it_and_bf16_needs_a_recipe_that_says_so(tmp_path, slow):
    known, _ = slow
    known["channels_last"] = 0.97
    p = plan(small(tmp_path, set=AUTO))
    assert choice.fastest(p) == {"precision": "float32", "layout": "contiguous"}
    holds = replace(p, recipe=replace(p.recipe, bf16_holds=True))
    assert [way["precision"] for way in choice.possible(holds)] == ["float32"] * 2 + ["bf16"] * 2


def test_steps_are_really_timed(tmp_path):
    p = plan(small(tmp_path, set=AUTO))
    assert choice.settled(p, tmp_path, False).recipe.layout in ("contiguous", "channels_last")
    plain = plan(small(tmp_path))
    assert choice.settled(plain, tmp_path, False) is plain
