"""Items of the papers: their trainings, what was recorded, their state, and the command."""

import json

import matplotlib.pyplot as plt
import pytest

from analysis.papers import item as it
from analysis.papers.__main__ import main
from analysis.papers.item import Item, Made, Request, Row, Training, items
from inference.plan import plan

ALL = [(paper, name) for paper in it.PAPERS for name in items(paper)]


@pytest.fixture
def one(monkeypatch, tmp_path):
    """One item of GSGN's, and a folder for what is recorded of it."""

    def make(runs, request):
        figure = plt.figure()
        ours = float(len(runs["GSGN"].unseen(request.scenes).images))
        rows = Row("GSGN", "part_f1", ours, 0.5), Row("SPACE-P", "part_f1", None, 0.25)
        return Made(rows, {"one": figure}, "a sentence")

    training = {"GSGN": Training("gsgn", "gsgn", "shapes2d", shipped="gsgn-shapes2d")}
    chosen = {"table1": Item("Table 1", training, make)}
    monkeypatch.setattr(it, "items", lambda paper: chosen)
    monkeypatch.setattr(it, "measured", lambda paper: tmp_path / "measured")
    return chosen["table1"]


@pytest.mark.parametrize(("paper", "name"), ALL)
def test_every_training_of_an_item_can_be_planned(paper, name, tmp_path):
    item = items(paper)[name]
    assert item.title and "\n" not in item.title
    for label, training in item.trainings.items():
        run = training.run(label, Request(tmp_path))
        assert plan(run).variant == training.variant and run.resume


def test_an_item_is_made_recorded_and_listed(one, tmp_path, capsys):
    words = ["gsgn", "table1", "--scenes", "3", "--runs", str(tmp_path / "runs")]
    assert main([*words[:1], "--runs", words[-1]]) == 0
    assert "can be made from what is there" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "out"), "--record"]) == 0
    shown = capsys.readouterr().out
    assert "Table 1" in shown and "a sentence" in shown and "- (0.2500)" in shown
    assert "3.00 (0.5000)" in shown
    assert (tmp_path / "out" / "rows.csv").read_text().count("part_f1") == 2
    assert (tmp_path / "out" / "one.png").stat().st_size > 0
    kept = json.loads((tmp_path / "measured" / "table1.json").read_text())
    assert kept["rows"][0]["ours"] == 3 and kept["runs"]["GSGN"]["step"] > 0
    assert kept["command"].startswith("python -m analysis.papers gsgn table1")
    assert main(["gsgn"]) == 0
    assert "measured: GSGN" in capsys.readouterr().out


def test_what_is_not_trained_is_lacking(one, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(it, "ROOT", tmp_path)  # nothing is shipped there
    assert it.state("gsgn", "table1", Request(tmp_path)) == "lacks GSGN"
    assert main(["gsgn", "table1", "--runs", str(tmp_path)]) == 2
    assert "nothing is trained for Table 1: give --train" in capsys.readouterr().err


def test_unknown_papers_and_items_are_named(capsys):
    assert main(["iclr"]) == 2
    assert "unknown paper 'iclr'; known are air, denf" in capsys.readouterr().err
    assert main(["gsgn", "table0"]) == 2
    assert "unknown item of gsgn 'table0'; known are" in capsys.readouterr().err


@pytest.mark.parametrize("paper", it.PAPERS)
def test_none_says_measured_that_is_not(paper):
    for name in items(paper):
        kept = it.recorded(paper, name)
        said = it.state(paper, name, Request())
        assert said.startswith("measured") == (kept is not None)
