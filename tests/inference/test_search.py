"""Seeds are compared after a while, and the best goes on."""

import json
import math
from dataclasses import replace

import pytest
import tiny

from inference import checkpoint, search
from inference.plan import plan
from inference.trainer import Training


def test_the_seed_of_the_lowest_validation_loss_goes_on_as_if_it_had_never_stopped(tmp_path):
    run = tiny.run("econ", tmp_path / "all", set=("train.steps=2",))
    chosen = search.search(run, (0, 1), trial=1)
    found = json.loads((tmp_path / "all" / "search.json").read_text())
    losses = {int(seed): loss for seed, loss in found["losses"].items()}
    assert len(losses) == 2 and losses[0] != losses[1]
    best = min(losses, key=losses.get)
    assert chosen == tmp_path / "all" / f"seed{best}" and found["seed"] == best
    steps = {
        s: checkpoint.load(tmp_path / "all" / f"seed{s}" / "checkpoint.ckpt")["step"]
        for s in (0, 1)
    }
    assert steps == {best: 2, 1 - best: 1}
    alone = search.svi.train(tiny.run("econ", tmp_path / "one", seed=best, set=("train.steps=2",)))
    one, other = (
        checkpoint.load(f / "checkpoint.ckpt")["modules"]["program"] for f in (chosen, alone)
    )
    assert all((one[k] == other[k]).all() for k in one)
    assert search.search(run, (0, 1), trial=1) == chosen
    with pytest.raises(ValueError, match="different seeds"):
        search.search(run, (1, 1), trial=1)


def test_a_search_that_is_stopped_in_a_trial_does_not_choose(tmp_path):
    run = tiny.run("econ", tmp_path / "all", set=("train.steps=2",))
    search.search(replace(run, minutes=0.0), (0, 1), trial=2)
    assert not (tmp_path / "all" / "search.json").exists()
    search.search(run, (0, 1), trial=2)
    assert (tmp_path / "all" / "search.json").exists()


def test_a_trial_ends_where_the_training_does(tmp_path):
    run = tiny.run("econ", tmp_path / "all", steps=1)
    chosen = search.search(run, (0, 1), trial=150)
    assert json.loads((tmp_path / "all" / "search.json").read_text())["trial"] == 1
    for seed in (0, 1):
        path = tmp_path / "all" / f"seed{seed}" / "checkpoint.ckpt"
        assert checkpoint.load(path)["step"] == 1
    assert search.search(run, (0, 1), trial=150) == chosen


def test_seeds_are_compared_with_an_estimator_that_differentiates(tmp_path):
    run = tiny.run("air", tmp_path / "all", estimator="relax", steps=1)
    search.search(run, (0, 1), trial=1)
    losses = json.loads((tmp_path / "all" / "search.json").read_text())["losses"]
    assert all(math.isfinite(loss) for loss in losses.values()) and len({*losses.values()}) == 2


def test_another_search_or_a_run_in_the_folder_is_refused(tmp_path, capsys):
    run = tiny.run("econ", tmp_path / "all", set=("train.steps=2",))
    search.search(run, (0, 1), trial=1)
    for seeds, trial in (((5, 6), 1), ((0, 1, 2), 1), ((0, 1), 2)):
        with pytest.raises(ValueError, match="compares seeds 0,1 after 1 steps: give these, or"):
            search.search(run, seeds, trial)
    with pytest.raises(ValueError, match="seed0 is the folder of a run: give --out another"):
        search.search(replace(run, out=tmp_path / "all" / "seed0"), (0, 1), trial=1)
    assert search.main(["programs/econ.py", "--seed", "7"]) == 2
    assert "--seed 7: seeds are compared, so give --seeds" in capsys.readouterr().err


def test_minutes_are_for_all_seeds_together(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(search, "loss_of", lambda _: float(len(given)))
    train = search.svi.train
    monkeypatch.setattr(search.svi, "train", lambda r, *j: given.append(r.minutes) or train(r, *j))
    search.search(tiny.run("econ", tmp_path, minutes=60.0, set=("train.steps=1",)), (0, 1), trial=1)
    assert 60 > given[0] > given[1] > given[2] > 50


def test_a_plateau_is_in_the_checkpoint(tmp_path):
    """A rate of next to nothing: no validation is better than the first by more than noise."""
    words = ("train.steps=400", "train.rate=1e-12")
    run = tiny.run("econ", tmp_path, variant="econ_plain", set=words)
    p = plan(run)
    assert p.recipe.plateau.every == 100
    training = Training(p)
    for loss in (3.0, 4.0, 4.0):
        training.trainer.falls.add(loss)
    state = training.trainer.state()
    other = Training(p).trainer
    other.restore(state)
    assert other.falls.state() == {"best": 3.0, "waited": 2, "falls": 0}
    for _ in range(5 * 5):
        other.falls.add(5.0)
    rate = other.schedules["learning_rate"](0)
    assert rate == pytest.approx(5e-4 * 1e-12 * 10**-2.5) and other.falls.over
