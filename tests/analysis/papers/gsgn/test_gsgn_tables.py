"""The tables of GSGN: which scenes they measure, and what a row says of them."""

import math

import pytest
import torch

from analysis.papers.gsgn.items import ITEMS
from analysis.papers.gsgn.tables import (
    TESTS,
    Selection,
    hidden,
    least_visible,
    measure,
    selected,
    trainings,
)
from analysis.papers.item import Request
from inference.images.worlds import load_world
from inference.plan import plan
from inference.runs import open_run
from inference.settings import override
from programs.worlds import shapes2d

TABLES = [name for name in ITEMS if name.startswith("table")]


@pytest.mark.parametrize("name", TABLES)
def test_every_row_can_be_trained_and_every_case_be_drawn(name, tmp_path):
    rows = ITEMS[name].trainings
    runs = {model: training.run(model, Request(tmp_path)) for model, training in rows.items()}
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
        ITEMS[t].trainings["GSGN"].run("GSGN", Request(tmp_path)).out
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
    training = trainings("shapes2d", ["SPACE-P"])["SPACE-P"]
    assert (training.program, training.variant) == ("space", "space_p")


@pytest.mark.parametrize("name", TABLES)
def test_worlds_of_the_tables_leave_numbers_out(name):
    for training in ITEMS[name].trainings.values():
        assert "without" in vars(load_world(training.world).config())
