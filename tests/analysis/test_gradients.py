"""The study of estimators: against a program whose gradients are known, and from the command line."""

import csv
import math

import pytest
import tiny
import torch

from analysis import gradients, studies
from analysis.command import write_json
from analysis.gradients import Learner, Moments, compare, main, race, times
from analysis.studies import beside, summary
from inference.plan import plan
from inference.runs import read_json


@pytest.fixture
def learner(tmp_path):
    p = plan(tiny.run("air", tmp_path, set=("steps=2",)))
    return Learner(p, "nvil", 0, p.training_images())


def test_running_moments_are_those_of_the_whole():
    x = torch.randn(30, 5)
    moments = Moments()
    for row in x:
        moments.add(row)
    torch.testing.assert_close(moments.mean, x.mean(0))
    torch.testing.assert_close(moments.variance, x.var(0))


def test_a_row_tells_bias_variance_and_cost(learner):
    x = learner.images(0)[:4]
    rows = {
        r["estimator"]: r for r in compare(learner, ["enumerate", "reinforce", "rloo:3"], 30, 0, x)
    }
    assert {r["reference"] for r in rows.values()} == {"enumerate"}
    for row in rows.values():
        assert row["bias"] < 3 * row["bias_error"] + 1e-6  # all of them are unbiased
    assert rows["reinforce"]["variance"] > 2 * rows["rloo:3"]["variance"]
    # 2 coins, 4 joint values; one run an image; three copies; at calls 2, 4, 8, 16 one more of scores
    more = 4 / 30
    assert [rows[n]["evaluations"] for n in rows] == pytest.approx([4, 1 + more, 3 + more])
    assert {"snr guide.cell", "snr program.decoder"} <= rows["reinforce"].keys()


def test_at_step_0_the_objective_is_as_scheduled(tmp_path):
    p = plan(tiny.run("econ", tmp_path))
    learner = Learner(p, p.recipe.estimator, 0, p.training_images())
    weights = {name: float(w) for name, w in learner.trainer.weights.items()}
    assert weights["z_cat*"] == 0 and learner.trainer.step == 0
    learner.update()
    after = {name: float(w) for name, w in learner.trainer.weights.items()}
    assert after == weights  # those of step 0


def test_a_gradients_time_stands_beside_that_of_nvil():
    rows = [{"estimator": "rloo", "seconds": 3.0}, {"estimator": "nvil", "seconds": 2.0}]
    assert [row["times nvil"] for row in beside(rows)] == [1.5, 1.0]
    assert beside(rows[:1]) == rows[:1]


def test_where_nothing_can_be_enumerated_the_reference_is_many_draws(learner, monkeypatch):
    monkeypatch.setattr(gradients, "LIMIT", 16)
    rows = list(compare(learner, ["rloo:3"], 8, 0, learner.images(0)[:2]))
    assert rows[0]["reference"] == "rloo:8"


def test_a_race_is_the_same_training_for_the_same_seed_and_counts_what_it_costs(learner):
    p, data = learner.plan, learner.data
    validation = p.validation_images()
    rows = list(race(p, "gumbel", 3, data, validation, minutes=0.01, points=2))
    assert len(rows) == 2 and rows[1]["step"] > rows[0]["step"] > 0
    # every step one run: what depends on what is followed for scores alone
    assert rows[1]["seconds"] >= 0.6 and rows[0]["evaluations"] == 8 * rows[0]["step"]
    assert math.isfinite(rows[1]["elbo"]) and rows[1]["iwae"] >= rows[1]["elbo"]


def test_steps_are_timed_by_turns_and_without_what_follows_origins(learner):
    rows = {
        row["estimator"]: row for row in times(learner.plan, ["nvil", "rloo:3"], learner.data, 3)
    }
    assert [row["evaluations"] for row in rows.values()] == [1, 3]
    assert rows["nvil"]["times nvil"] == 1 and rows["rloo:3"]["seconds"] > 0


def row(name, seed, seconds, step, elbo, count):
    return {"estimator": name, "seed": seed, "seconds": seconds, "step": step, "evaluations": step} | {
        "elbo": elbo, "object_count_accuracy": count}  # fmt: skip


def test_the_summary_reads_curves_at_equal_budgets():
    rows = [row("a", s, t, 10 * t, e + s, 0.9) for s in (0, 1, 2) for t, e in ((1, 0.0), (2, 10.0))]
    rows += [row("b", s, t, 5 * t, e, 0.2) for s in (0, 1, 2) for t, e in ((1, 4.0), (2, 6.0))]
    a, b = summary(rows)
    assert a["elbo at equal seconds"] == 11 and b["elbo at equal seconds"] == 6
    assert a["elbo at equal step"] == 1 and b["elbo at equal step"] == 6  # 10 steps each
    assert a["collapsed"] == 0 and b["collapsed"] == 1
    assert a["count accuracy"] == pytest.approx(0.9)


def test_the_command_writes_tables_and_figures(tmp_path, capsys, monkeypatch):
    words = ["programs/air.py", "--estimators", "nvil,gumbel", "--points", "0,3", "--images", "3"]
    words += ["--draws", "3", "--minutes", "0.01", "--seeds", "1", "--out", str(tmp_path)]
    words += ["--measured", "3", "--scenes", "5", "--times", "2", "--record", "small"]
    monkeypatch.setattr(studies, "RECORDS", tmp_path)
    assert main([*words, "--preset", "tiny", "--set", "steps=2"]) == 0
    for name, length in (("gradients.csv", 4), ("training.csv", 6), ("times.csv", 2)):
        with open(tmp_path / name) as file:
            assert len(list(csv.DictReader(file))) == length
    assert (tmp_path / "bias_variance.png").exists() and (tmp_path / "training.png").exists()
    assert "bias_variance.png" in capsys.readouterr().out
    lines = "\n".join(studies.render(tmp_path))
    assert f"python -m analysis.gradients programs/air.py {words[1]}" in lines
    assert "| `gumbel` |" in lines and "(measured/small.png)" in lines
    kept = read_json(tmp_path / "small.json")
    first = [row for row in kept["training"] if row["estimator"] == "nvil"]
    write_json(tmp_path / "small.json", kept | {"training": first})
    assert main([*words, "--preset", "tiny", "--set", "steps=2"]) == 0
    again = read_json(tmp_path / "small.json")
    assert again["gradients"] == kept["gradients"] and again["times"] == kept["times"]
    assert again["training"][:3] == first and len(again["training"]) == 6
    capsys.readouterr()
    assert main(["programs/air.py", "--estimators", "magic"]) == 2
    assert "unknown estimator 'magic'" in capsys.readouterr().err


def test_what_training_counts_stands_still_while_gradients_are_compared(tmp_path):
    """ECON's prices move with every step of a training, and with nothing else."""
    # three experts cannot win eight layers alike
    p = plan(tiny.run("econ", tmp_path, set=("experts=3", "layers=2")))
    learner = Learner(p, "z_cat*=competition,z_mask*=mean", 0, p.training_images())
    learner.guide.balance.fill_(0.5)
    learner.update()
    before = learner.guide.price.clone()
    list(
        compare(
            learner,
            ["z_cat*=competition,z_mask*=mean", "rloo:2"],
            2,
            1,
            learner.images(0),
            "rloo:2",
        )
    )
    gradients.measure(learner, p.validation_images())
    assert (before != 0).any() and torch.equal(learner.guide.price, before)
    learner.update()
    assert not torch.equal(learner.guide.price, before)
