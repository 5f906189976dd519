"""The tables of GSGN: which scenes they measure, and what a row says of them."""

import math

import pytest
import torch
from tiny import untrained

from analysis.papers.gsgn.items import ITEMS
from analysis.papers.gsgn.tables import (
    TESTS,
    Selection,
    bounded,
    hidden,
    least_visible,
    measure,
    selected,
)
from analysis.papers.gsgn.trainings import training
from analysis.papers.item import Request, show
from analysis.papers.published import PUBLISHED
from inference.images.worlds import load_world
from inference.plan import plan
from inference.runs import open_run
from inference.settings import override
from programs.worlds import shapes2d

TABLES = [name for name in ITEMS if name.startswith("table")]


@pytest.mark.parametrize("name", TABLES)
def test_every_row_can_be_trained_and_every_case_be_drawn(name, tmp_path):
    rows = ITEMS[name].trainings
    runs = {model: row.runs(model, Request(tmp_path))[-1] for model, row in rows.items()}
    assert len({run.out for run in runs.values()}) == len(runs)
    for model, run in runs.items():
        found = plan(run)
        assert found.recipe.world == rows[model].world
        for test in TESTS.values():
            override(found.image_config, test.options, found.images.title)
    aux = [bool(plan(r).recipe.auxiliary) for m, r in runs.items() if m.startswith("GSGN")]
    assert aux.count(False) == ("GSGN-No-Aux" in runs)


def test_rows_of_two_tables_share_a_training_where_it_is_the_same(tmp_path):
    one, two, three = (
        ITEMS[t].trainings["GSGN"].runs("GSGN", Request(tmp_path))[-1].out
        for t in ("table2", "table3", "table5")
    )
    assert one == two != three


def test_scenes_are_told_apart_by_their_least_visible_part():
    scene = shapes2d.world(40, torch.Generator().manual_seed(0), shapes2d.Config(size=64))
    least = least_visible(scene)
    for image in range(40):
        parts = scene.parts.mask[image][scene.parts.present[image]]
        assert least[image] == 4 * min(int(mask.sum()) for mask in parts)
    bins = [selected(scene, TESTS[case].least) for case in ("below 100", "100 to 200", "above 200")]
    assert sorted(torch.cat(bins).tolist()) == list(range(40))


def test_numbers_of_objects_can_be_left_out():
    config = shapes2d.Config(size=32, max_objects=3, without=(2,))
    number = shapes2d.world(200, torch.Generator().manual_seed(0), config).objects.present.sum(1)
    assert set(number.tolist()) == {1, 3}
    assert abs(float((number == 1).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(200)
    with pytest.raises(ValueError, match="leave out less than 2 to 2 objects"):
        shapes2d.Config(min_objects=2, max_objects=2, without=(2,))


def test_a_row_is_measured_on_the_scenes_of_each_case(monkeypatch):
    monkeypatch.setitem(TESTS, "few", Selection(least=(0, 150)))
    monkeypatch.setitem(TESTS, "none", Selection(least=(0, 1)))
    found = measure(open_run("gsgn-shapes2d"), ("", "few", "none"), 30)
    assert found[""]["scenes"] == 30 > found["few"]["scenes"] > 0
    assert found[""]["part_recall"] > 0.8 and 3 < found[""]["elbo_per_pixel"] < 4.16
    assert found["none"] == {"scenes": 0}


def test_space_p_finds_parts_which_are_grouped_to_objects():
    assert hidden("SPACE-P", "object_f1") and not hidden("SPACE-P", "part_f1")
    assert not hidden("SPACE-O", "object_f1")
    chosen = training("SPACE-P", "shapes2d")
    assert (chosen.program, chosen.variant) == ("space", "space_p")


def test_a_table_is_made_from_the_runs_that_there_are():
    """The metrics of SPACE-P, of which parts are asked alone, and dashes for what is not trained."""
    run = open_run("gsgn-shapes2d")
    made = ITEMS["table1"].make({"GSGN": run}, Request(scenes=6))
    rows = {(row.model, row.metric): row for row in made.rows}
    assert rows["GSGN", "part_f1"].ours > 0.9 and rows["GSGN", "part_f1"].scenes == 6
    assert rows["GSGN", "part_f1"].paper == PUBLISHED["gsgn", "table1"].figure("GSGN", "part_f1")
    assert rows["SPACE-P", "part_f1"].ours is None and rows["SPACE-P", "part_f1"].paper == 0.9673
    shown = show(made.rows)
    assert "- (0.9673)" in shown and "6 scenes" in shown


def test_the_parts_of_space_p_are_grouped(monkeypatch):
    """A flat run's nodes are parts of objects after that, so that the structure can be measured."""
    run = untrained("space", "space_p", "shapes2d")
    torch.nn.init.constant_(run.guide.cell_head[-1].bias, 3.0)  # some are there
    data = run.unseen(2)
    _, scene, truth = bounded(run, data, 0, parts=True)
    assert scene.parts is not None and len(truth) == 2
    _, flat, _ = bounded(run, data, 0, parts=False)
    assert flat.parts is None
    assert torch.equal(scene.parts.pose, flat.objects.pose)


def test_a_rows_draws_follow_the_seed():
    """Those of the ELBO do; the mode has no draws."""
    run = untrained("gsgn", "gsgn", "shapes2d")
    data = run.unseen(2)
    one, again, other = (bounded(run, data, seed, parts=False) for seed in (0, 0, 1))
    assert torch.equal(one[0], again[0]) and not torch.equal(one[0], other[0])
    assert torch.equal(one[1].image, other[1].image)


@pytest.mark.parametrize("name", TABLES)
def test_worlds_of_the_tables_leave_numbers_out(name):
    for chosen in ITEMS[name].trainings.values():
        assert "without" in vars(load_world(chosen.world).config())
