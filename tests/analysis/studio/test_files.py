"""Saved scenes."""

import json

import pytest
import torch

from analysis.studio import files
from analysis.studio.actions import ACTIONS
from analysis.studio.state import Selection


def reopened(made, other):
    files.restore(other, json.loads(files.dump(made, "run")))
    return other


def test_a_scene_of_latents_comes_back(bench):
    made = bench()
    made.change(ACTIONS["nudge"](made, {"by": [0.05, 0.05]}))
    other = reopened(made, bench(index=0))
    assert torch.allclose(other.seen.scene.image, made.seen.scene.image, atol=1e-6)
    assert torch.allclose(other.seen.told.log_prior, made.seen.told.log_prior)
    assert torch.equal(other.image, made.image)


def test_a_scene_of_edits_comes_back(bench):
    made = bench("econ-sprites_unique")
    made.select(Selection(0, 0))
    for name, arguments in (("copy", {}), ("remove", {}), ("paste", {}), ("restack", {"way": 1})):
        hand = ACTIONS[name](made, arguments)
        made.change(hand)
    other = reopened(made, bench("econ-sprites_unique", 0))
    assert torch.allclose(other.seen.scene.image, made.seen.scene.image, atol=1e-6)


@pytest.mark.parametrize("content", [{}, {"format": 1}, {"format": 99, "run": "x"}])
def test_other_files_are_refused(bench, content):
    with pytest.raises(ValueError, match="no scene that the studio saved"):
        files.restore(bench(), content)


def test_a_damaged_scene_leaves_the_bench_as_it_was(bench):
    made = bench()
    content = json.loads(files.dump(made, "run"))
    content["latents"]["z_where_1"]["shape"] = [1, 2]
    before = made.hand
    with pytest.raises(ValueError, match="cannot be opened"):
        files.restore(made, content)
    assert made.hand is before
    content = json.loads(files.dump(made, "run"))
    content["edits"] = [{"name": "render", "slot": 0, "level": 0, "number": [], "source": None}]
    with pytest.raises(ValueError, match="an edit named 'render'"):
        files.restore(made, content)
    assert made.hand is before
