"""Items of the papers: their trainings, what was recorded, their state, and the command."""

import json
import signal
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from analysis.evaluate import SceneEvaluator
from analysis.papers import item as it
from analysis.papers.__main__ import main
from analysis.papers.item import Item, Made, Request, Row, Training, items
from analysis.papers.published import PUBLISHED
from inference import svi
from inference.plan import plan
from inference.recipes import recipes_of
from inference.runs import TRAINED, shipped

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
        preset = "quick" if training.world != "arrow_room" else "paper"  # GNM's only one there
        run, *finish = training.runs(label, Request(tmp_path, preset))
        assert plan(run).variant == training.variant and run.resume
        assert all(last.preset in recipes_of(training.program)[training.variant] for last in finish)


def test_an_item_is_made_recorded_and_listed(one, tmp_path, capsys):
    words = ["gsgn", "table1", "--scenes", "3", "--runs", str(tmp_path / "runs")]
    assert main([*words[:1], "--runs", words[-1]]) == 0
    assert "can be made: GSGN" in capsys.readouterr().out
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


def test_trainings_of_one_folder_are_one_training(tmp_path):
    seen = {}
    for paper, name in ALL:
        for label, training in items(paper)[name].trainings.items():
            for run in training.runs(label, Request(tmp_path)):
                assert seen.setdefault((paper, run.out), run) == run, (paper, name, label)


def test_a_preset_may_follow_the_one_that_is_asked_for(tmp_path):
    training = Training("gnm", "gnm", "mnist4", preset="{}_beta2", name="GNM 2")
    (run,) = training.runs("GNM on MNIST-4", Request(tmp_path, "paper", seed=3))
    assert run.preset == "paper_beta2"
    assert run.out == tmp_path / "paper_beta2" / "gnm_2-mnist4-seed3"


def test_a_training_goes_on_with_its_finish_from_the_run_before(tmp_path):
    training = Training("discrete_air", "discrete_air_mnist", "multi_mnist", finish="finish")
    first, last = training.runs("digits", Request(tmp_path))
    assert (first.preset, first.start, first.out.parent.name) == ("quick", None, "quick")
    assert (last.preset, last.start) == ("finish", str(first.out))
    assert last.out == tmp_path / "finish" / "digits-multi_mnist-seed0"
    assert len(training.runs("digits", Request(tmp_path, "paper"))) == 1


@pytest.fixture
def two(monkeypatch):
    """An item of two trainings of a moment, and the words that make it."""
    trainings = {
        "A": Training("vae", "vae", "multi_sprites"),
        "B": Training("vae", "vae", "multi_sprites", seed=1),
    }
    chosen = {"table1": Item("Table 1", trainings, lambda runs, request: Made())}
    monkeypatch.setattr(it, "items", lambda paper: chosen)
    few = {"steps": 4, "evaluate_every": 1, "batch": 4, "scenes": 8, "test_scenes": 4}
    words = [word for field, number in few.items() for word in ("--set", f"train.{field}={number}")]
    return ["gsgn", "table1", "--train", "--preset", "tiny", *words]


class Stops(SceneEvaluator):
    """Ends the training by a signal."""

    def briefly(self, t, data):
        signal.raise_signal(signal.SIGTERM)
        return super().briefly(t, data)


def in_no_time(run, evaluator):
    return svi.train(replace(run, minutes=0), evaluator)


@pytest.mark.parametrize(("name", "stand_in"), [("SceneEvaluator", Stops), ("train", in_no_time)])
def test_a_stopped_training_ends_the_command_and_goes_on_with_the_next(
    two, tmp_path, monkeypatch, capsys, name, stand_in
):
    words = [*two, "--runs", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(it, name, stand_in)
        assert main(words) == 2
    said = capsys.readouterr()
    assert "A: the training in" in said.err and "of 4" in said.err and "goes on" in said.err
    assert "B: python" not in said.out
    assert main(words) == 0
    assert "B: python" in capsys.readouterr().out
    for seed in (0, 1):
        (file,) = tmp_path.glob(f"*/*-seed{seed}/metrics.json")
        assert json.loads(file.read_text())["step"] == 4


def test_missing_runs_are_trained_in_order(one, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(it, "train", lambda run, judge: trained.append(run.preset))
    monkeypatch.setattr(it, "check_end", lambda *_: None)
    digits = Training("discrete_air", "discrete_air_mnist", "multi_mnist", finish="finish")
    item = Item("Table", {**one.trainings, "digits": digits}, one.make)
    it.train_missing(item, Request(tmp_path))
    assert trained == ["quick", "finish"]


def test_all_items_are_listed_with_their_state(tmp_path, capsys):
    assert main(["--runs", str(tmp_path)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for paper, name in ALL:
        title = next(k for k, line in enumerate(lines) if items(paper)[name].title in line)
        assert lines[title].startswith(name), (paper, name)
        assert lines[title + 1].startswith(("measured: ", "can be made: ", "lacks ")), (paper, name)


@pytest.mark.parametrize(("paper", "table"), [key for key in PUBLISHED if items(key[0])])
def test_every_published_table_has_an_item(paper, table):
    assert table in items(paper)


def test_what_was_recorded_without_a_training_lacks_it(one, tmp_path, monkeypatch):
    two = {**one.trainings, "SPACE-P": Training("space", "space_p", "shapes2d")}
    chosen = {"table1": Item("Table 1", two, one.make)}
    monkeypatch.setattr(it, "items", lambda paper: chosen)
    request = Request(tmp_path / "runs", scenes=3)
    assert it.state("gsgn", "table1", request) == "can be made: GSGN; lacks SPACE-P"
    it.record("gsgn", "table1", *it.make(chosen["table1"], request), request, "words")
    assert it.state("gsgn", "table1", request) == "measured: GSGN; lacks SPACE-P"


def test_programs_and_worlds_may_be_files(tmp_path):
    training = Training("some/own.py", "own", "some/leaves.py")
    (run,) = training.runs("A row", Request(tmp_path, seed=2))
    assert (run.program, run.world) == ("some/own.py", "some/leaves.py")
    assert run.out == tmp_path / "quick" / "a_row-leaves-seed2"


@pytest.mark.parametrize(
    "words",
    [
        *("--preset paper --seed 0", "--preset quick --seed 7"),
        *("--preset quick --seed 0 --set size=32", "--preset paper --seed 7 --set size=32"),
    ],
)
def test_a_shipped_run_stands_for_no_other_training(one, tmp_path, capsys, words):
    request = ["--runs", str(tmp_path), *words.split()]
    assert main(["gsgn", *request]) == 0
    assert "lacks GSGN" in capsys.readouterr().out
    assert main(["gsgn", "table1", "--scenes", "2", *request]) == 2
    assert f"with {words}: it lacks GSGN; give --train" in capsys.readouterr().err


def test_shipped_runs_stand_for_what_is_trained_by_default(tmp_path):
    request = Request(tmp_path)
    for paper, name in ALL:
        for label, training in items(paper)[name].trainings.items():
            folder, there = it.folder_of(label, training, request), training.shipped in shipped()
            assert folder == (TRAINED / training.shipped if there else None), (paper, name, label)


def test_a_row_that_lacks_is_named(one, tmp_path, capsys, monkeypatch):
    two = {**one.trainings, "SPACE-P": Training("space", "space_p", "shapes2d")}
    monkeypatch.setattr(it, "items", lambda paper: {"table1": Item("Table 1", two, one.make)})
    words = ["gsgn", "table1", "--scenes", "2", "--runs", str(tmp_path)]
    assert main(words) == 0
    assert "not trained: SPACE-P" in capsys.readouterr().out
    assert main([*words, "--only", "GSGN"]) == 0
    assert "not trained" not in capsys.readouterr().out


def test_a_preset_may_stand_for_quick(tmp_path):
    training = Training("air", "air", "multi_mnist", quick="long", shipped="air-multi_mnist")
    presets = {p: training.runs("AIR", Request(tmp_path, p))[0].preset for p in ("quick", "tiny")}
    assert presets == {"quick": "long", "tiny": "tiny"}
    folders = {p: it.folder_of("AIR", training, Request(tmp_path, p)) for p in ("long", "tiny")}
    assert folders == {"long": TRAINED / "air-multi_mnist", "tiny": None}


def test_what_is_not_trained_is_lacking(one, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(it, "TRAINED", tmp_path)  # nothing is shipped there
    assert it.state("gsgn", "table1", Request(tmp_path)) == "lacks GSGN"
    assert main(["gsgn", "table1", "--runs", str(tmp_path)]) == 2
    assert "nothing is trained for Table 1" in capsys.readouterr().err


def test_unknown_papers_and_items_are_named(capsys):
    assert main(["iclr"]) == 2
    assert "unknown paper 'iclr'; known are air, denf" in capsys.readouterr().err
    assert main(["gsgn", "table0"]) == 2
    assert "unknown item of gsgn 'table0', did you mean table10? known" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--train"], []])
def test_a_pattern_that_fits_nothing_is_refused(one, tmp_path, capsys, words):
    asked = ["gsgn", "table1", "--only", "nonsense*", "--runs", str(tmp_path), *words]
    assert main(asked) == 2
    assert "--only 'nonsense*' fits no row or column of Table 1; it has GSGN" in (
        capsys.readouterr().err
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", ["--train", "--record", "--only GSGN", "--scenes 3", "--out somewhere"]
)
@pytest.mark.parametrize("paper", [[], ["gsgn"]])
def test_options_of_an_item_are_refused_without_one(paper, words, capsys):
    assert main([*paper, *words.split()]) == 2
    assert f"{words.split()[0]} is of one item: give PAPER and ITEM" in capsys.readouterr().err


@pytest.mark.parametrize("paper", it.PAPERS)
def test_what_is_recorded_is_there_and_of_an_items_trainings(paper):
    folder, pictures = it.measured(paper), set()
    assert {path.stem for path in folder.glob("*.json")} <= {*items(paper)}
    for name, item in items(paper).items():
        if (kept := it.recorded(paper, name)) is None:
            continue
        assert f"-m analysis.papers {paper} {name} " in kept["command"]
        assert {*kept["runs"]} <= {*item.trainings}, name
        assert kept["rows"] or kept["pictures"], name
        pictures |= {*kept["pictures"]}
    assert pictures == {path.name for path in folder.glob("*.png")}
