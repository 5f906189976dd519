"""The papers' figures: a table is whole, and a run finds its own."""

import pytest

from analysis.papers.published import PUBLISHED, RUNS


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
