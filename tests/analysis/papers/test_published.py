"""The papers' figures: a table is whole, and a run finds its own."""

import pytest

from analysis.papers.item import items
from analysis.papers.published import PUBLISHED, RUNS, model_of
from inference.runs import TRAINED, read_config, shipped


@pytest.mark.parametrize("key", PUBLISHED, ids="-".join)
def test_a_table_has_a_figure_or_a_gap_for_every_case_and_column(key):
    table = PUBLISHED[key]
    for model, figures in table.rows.items():
        assert len(figures) == len(table.columns) * len(table.cases), model
        assert any(figure is not None for figure in figures), model
        shown = [table.figure(model, m, case) for case in table.cases for m in table.columns]
        assert tuple(shown) == tuple(figures)
    assert table.figure("no such model", table.columns[0], table.cases[0]) is None


def test_shares_are_shares():
    shares = ("f1", "accuracy", "recall", "ap50", "ap50_95", "s_acc", "correspondence")
    for table in PUBLISHED.values():
        for model in table.rows:
            for case in table.cases:
                for metric in table.columns:
                    figure = table.figure(model, metric, case)
                    if figure is not None and metric.endswith(shares):
                        assert 0 <= figure <= 1, (table.title, model, metric)


def test_every_run_is_referred_to_a_row_that_there_is():
    for run, references in RUNS.items():
        assert references, run
        for r in references:
            table = PUBLISHED[r.paper, r.table]
            assert r.model in table.rows and (r.case in table.cases), run


def printed_for():
    """Shipped runs that an item trains for a row which its paper's table prints, with the row."""
    for (paper, name), table in PUBLISHED.items():
        for label, training in items(paper)[name].trainings.items():
            rows = [row for row in table.rows if label == row or label.startswith(f"{row} ")]
            if training.shipped in shipped() and rows:
                yield training.shipped, (paper, max(rows, key=len))


def test_every_shipped_run_with_a_papers_figures_is_referred_to_them():
    found = {*printed_for()}
    assert {"denf-clevr6", "discrete_air-multi_mnist", "gnm-mnist4"} <= {run for run, _ in found}
    for run, row in found:
        references = RUNS.get(model_of(read_config(TRAINED / run)), ())
        assert row in {(r.paper, r.model) for r in references}, run


def test_programs_and_pictures_of_ones_own_have_no_paper():
    config = read_config(TRAINED / "gsgn-shapes2d")
    assert model_of(config) == "gsgn-shapes2d"
    assert model_of(config | {"images": "my/pictures"}) == ""
    assert model_of(config | {"program": "my/gsgn.py"}) == ""
