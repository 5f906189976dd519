"""The tables of the papers: what they say, which scenes they measure, and how they are printed."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from analysis.papers.gsgn.tables import (
    MODELS,
    TABLES,
    Selection,
    cell,
    chosen,
    least_visible,
    main,
    measure,
    rows,
    run_of,
    show,
)
from inference.images.worlds import load_world
from inference.plan import plan
from inference.recipes import recipe
from inference.runs import find_run
from programs.worlds import shapes2d


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_a_figure_for_every_column(name):
    table = TABLES[name]
    for model, figures in table.published.items():
        assert model in MODELS
        assert len(figures) == len(table.metrics) * len(table.tests)
        assert all(figure is None or 0 <= figure < 5 for figure in figures)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_can_be_trained(name, tmp_path):
    table = TABLES[name]
    runs = {model: run_of(table, model, "quick", tmp_path, 0) for model in table.published}
    assert len({run.out for run in runs.values()}) == len(runs)
    for run in runs.values():
        found = plan(run)
        assert found.recipe.world == table.world
        for test in table.tests.values():
            replace(found.image_config, **test.options)
    aux = [bool(plan(r).recipe.auxiliary) for m, r in runs.items() if m.startswith("GSGN")]
    assert aux.count(False) == ("GSGN-No-Aux" in runs)


def test_rows_of_two_tables_share_a_training_where_it_is_the_same(tmp_path):
    one, two, three = (
        run_of(TABLES[t], "GSGN", "quick", tmp_path, 0).out for t in ("table2", "table3", "table5")
    )
    assert one == two != three


def test_scenes_are_told_apart_by_their_least_visible_part():
    scene = shapes2d.world(40, torch.Generator().manual_seed(0), shapes2d.Config(size=64))
    least = least_visible(scene)
    for image in range(40):
        parts = scene.parts.mask[image][scene.parts.present[image]]
        assert least[image] == 4 * min(int(mask.sum()) for mask in parts)
    bins = [(t.least[0] <= least) & (least < t.least[1]) for t in TABLES["table3"].tests.values()]
    assert (torch.stack(bins).sum(0) == 1).all()


def test_numbers_of_objects_can_be_left_out():
    config = shapes2d.Config(size=32, max_objects=3, without=(2,))
    number = shapes2d.world(200, torch.Generator().manual_seed(0), config).objects.present.sum(1)
    assert set(number.tolist()) == {1, 3}
    assert abs(float((number == 1).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(200)
    with pytest.raises(ValueError, match="leave out less than 2 to 2 objects"):
        shapes2d.Config(min_objects=2, max_objects=2, without=(2,))


def test_a_row_is_measured_on_the_scenes_of_each_test(tmp_path):
    table = replace(
        TABLES["table3"],
        world="shapes2d",
        tests={
            "all": Selection(),
            "few": Selection(least=(0, 150)),
            "none": Selection(least=(0, 1)),
        },
    )
    run = replace(run_of(table, "GSGN", "quick", tmp_path, 0), out=find_run("gsgn-shapes2d"))
    everything, few, none = measure(table, "GSGN", run, 30)
    assert everything["scenes"] == 30 > few["scenes"] > 0
    assert everything["part_recall"] > 0.8 and 3 < everything["elbo_per_pixel"] < 4.16
    assert none == {"scenes": 0}


def test_the_parts_of_space_are_grouped_to_objects():
    assert [m for m, model in MODELS.items() if model.parts] == ["SPACE-P"]
    config = MODELS["SPACE-P"]
    assert recipe(config.program, config.variant, "quick").program != {}


def test_what_is_not_trained_is_left_open(tmp_path, capsys):
    assert main(["table3", "--runs", str(tmp_path), "--models", "GSGN,SPACE-P"]) == 0
    shown = capsys.readouterr().out
    assert "Table 3" in shown and "- (0.9592)" in shown and "GSGN-9" not in shown
    assert (tmp_path / "quick" / "table3.csv").read_text().count("GSGN") == 6


def test_a_table_is_printed_with_the_papers_figures_beside(tmp_path):
    table = TABLES["table1"]
    found = list(rows(table, {"SPACE-P": run_of(table, "SPACE-P", "quick", tmp_path, 0)}, 1))
    for row in found:
        if row["metric"] == "part_f1":
            row["ours"] = 0.5
    assert "0.5000 (0.9673)" in show(table, found)
    assert (cell(0.5, None), cell(None, 3.9), cell(None, None)) == ("0.5000 (-)", "- (3.90)", "")


def test_unknown_rows_are_named():
    with pytest.raises(ValueError, match="no row MONet; known are SPACE-O, SPACE-P"):
        chosen(TABLES["table1"], "GSGN,MONet")
    assert set(chosen(TABLES["table10"], None)) == {"SPACE-O", "SPACE-P", "GSGN"}


def test_worlds_of_the_tables_exist():
    for table in TABLES.values():
        assert "without" in vars(load_world(table.world).config())


def test_the_command_lists_its_tables():
    words = [sys.executable, "-m", "analysis.papers.gsgn.tables", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert all(name in shown for name in TABLES)
