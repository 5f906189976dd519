"""A bench: its history, and what it keeps when a change fails."""

from dataclasses import replace

import pytest
import torch

from analysis.studio.state import Change, Selection


def slid(bench, by):
    values = dict(bench.hand.values)
    values["z_bg"] = values["z_bg"] + by
    return replace(bench.hand, values=values)


def test_undo_and_redo_go_through_the_scenes(bench):
    made = bench()
    first = made.seen.scene.image
    made.change(slid(made, 1.0))
    second = made.seen.scene.image
    made.change(slid(made, 1.0))
    assert not torch.equal(first, second)
    made.undo()
    assert torch.equal(made.seen.scene.image, second)
    made.undo()
    assert torch.equal(made.seen.scene.image, first)
    with pytest.raises(ValueError, match="nothing to undo"):
        made.undo()
    made.redo()
    assert torch.equal(made.seen.scene.image, second)
    made.change(slid(made, -1.0))
    with pytest.raises(ValueError, match="nothing to do again"):
        made.redo()


def test_a_drag_is_one_change(bench):
    made = bench()
    for by in (0.1, 0.2, 0.3):
        made.change(slid(made, by), "drag")
    made.change(slid(made, 0.5), "another")
    assert len(made.past) == 3
    made.undo()
    made.change(slid(made, 0.5), "drag")  # undo ends a drag
    assert len(made.past) == 3


def test_a_scene_that_cannot_be_drawn_changes_nothing(bench):
    made = bench("econ-sprites_unique")
    before = made.hand
    with pytest.raises(ValueError, match="slot=9"):
        made.change(replace(before, edits=(Change("remove", 9, 0),)))
    assert made.hand is before and len(made.past) == 1


def test_a_selection_is_no_change(bench):
    made = bench()
    known = made.seen
    made.select(Selection(1, 3))
    assert made.hand.selection == Selection(1, 3)
    assert len(made.past) == 1 and made.seen is known
