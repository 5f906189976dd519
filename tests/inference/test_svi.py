"""The trainer and its command line: exact resume, clean stops, and errors that teach."""

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import tiny
import torch
from training import GSGN, equal, small, train, weights

from inference import checkpoint, svi
from inference.loading import ROOT
from inference.log import read_log
from inference.plan import plan
from inference.recipes.econ import RECIPES
from inference.schedules import Plateau
from inference.svi import main
from inference.trainer import Trainer, Training

FEW = ("train.scenes=16", "train.validation_scenes=4", "train.test_scenes=4", "train.batch=4")


def test_a_run_leaves_all_it_promises(tmp_path, capsys):
    out = train(small(tmp_path / "run"))
    names = {p.name for p in out.iterdir()}
    assert names >= {"config.json", "log.jsonl", "checkpoint.ckpt", "metrics.json"}
    assert names >= {"scene_graphs.png", "prior_scenes.png", "prior_objects.png", "curves.png"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["scenes"] == 12 and metrics["step"] == 4 and metrics["seed"] == 0
    assert metrics["iwae"] >= metrics["elbo"]
    assert 0 <= metrics["structure_accuracy"] <= 1
    config = json.loads((out / "config.json").read_text())
    assert config["config"]["hidden"] == 24 and config["recipe"]["scenes"] == 64
    printed = capsys.readouterr().out
    assert "scene_graphs.png" in printed and "part_f1" in printed


@pytest.mark.parametrize("estimator", ["gumbel", "nvil"])
@pytest.mark.parametrize("stop", [1, 3])
def test_stop_and_resume_equals_never_stopping_bit_for_bit(tmp_path, estimator, stop):
    train(small(tmp_path / "whole", steps=6, estimator=estimator))
    train(small(tmp_path / "parts", steps=stop, estimator=estimator))
    train(small(tmp_path / "parts", steps=6, estimator=estimator, resume=True))
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    train(small(tmp_path / "other", steps=6, estimator=estimator, seed=1))
    assert not equal(weights(tmp_path / "whole"), weights(tmp_path / "other"))


def test_evaluation_during_training_changes_nothing(tmp_path):
    train(small(tmp_path / "often", set=("train.evaluate_every=1",)))
    train(small(tmp_path / "seldom"))
    assert equal(weights(tmp_path / "often"), weights(tmp_path / "seldom"))


def test_resume_in_an_empty_folder_begins(tmp_path):
    train(small(tmp_path / "a", resume=True))
    train(small(tmp_path / "b"))
    assert equal(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.parametrize("variant", ["gsgn", "gsgn9", "no_share", "no_aux", "four_levels"])
def test_twenty_steps_train(tmp_path, variant):
    changes = ("train.auxiliary={}",) if variant == "no_aux" else ()
    name = "gsgn" if variant == "no_aux" else variant
    out = train(small(tmp_path, variant=name, steps=20, set=changes, resume=True))
    records = [r for r in read_log(out / "log.jsonl") if "loss" in r]
    assert records[-1]["step"] == 20 and math.isfinite(records[-1]["loss"])
    assert any(k.startswith("term/aux/") for k in records[-1]) == (variant != "no_aux")
    if variant == "four_levels":
        assert "term/kl/z_pres_3" in records[-1] and "term/aux/z_pres_3" in records[-1]
        metrics = json.loads((out / "metrics.json").read_text())
        assert {"group_f1", "object_f1", "part_f1", "structure_accuracy"} <= set(metrics)


def test_minutes_stops_with_a_checkpoint(tmp_path):
    out = train(small(tmp_path / "run", steps=10_000, minutes=0.02))
    step = checkpoint.load(out / "checkpoint.ckpt")["step"]
    assert 0 < step < 10_000
    assert json.loads((out / "metrics.json").read_text())["step"] == step


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_writes(tmp_path, number):
    command = [sys.executable, "-m", "inference.svi", GSGN, "--preset", "tiny", "--steps", "100000"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run"), "--device", "cpu"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not read_log(log) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "--resume" in out
    assert checkpoint.load(tmp_path / "run" / "checkpoint.ckpt")["step"] >= 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["programs/nothing.py"], ["no program file", "programs/gsgn.py"]),
        (["programs/scene.py"], ["holds no program", "Guide"]),
        (["README.md"], ["not a Python file"]),
        ([GSGN, "--variant", "gsgn7"], ["unknown variant 'gsgn7'", "no_share"]),
        ([GSGN, "--preset", "slow"], ["unknown preset of gsgn 'slow'", "paper"]),
        ([GSGN, "--world", "moon"], ["unknown world 'moon'", "shapes2d"]),
        ([GSGN, "--estimator", "magic"], ["unknown estimator 'magic'", "nvil"]),
        (["programs/vae.py", "--preset", "tiny", "--estimator", "disarm"],
            ["no latent is discrete", "leave it out", "tracegraph"]),
        ([GSGN, "--set", "colour=3"], ["unknown field of program gsgn 'colour'", "children"]),
        ([GSGN, "--set", "hidden=large"], ["hidden='large' is str", "int"]),
        ([GSGN, "--set", "children=(4, 4, 4)"], ["z_what", "needs 4"]),
        ([GSGN, "--set", "children=(4, 5)"], ["out-degrees are squares"]),
        ([GSGN, "--set", "hidden"], ["write FIELD=VALUE"]),
        ([GSGN, "--set", "train.plateau=3"], ["train.plateau cannot be given here"]),
        ([GSGN, "--set", "world.layout=spiral"], ["unknown layout 'spiral'", "quadrants, free"]),
        ([GSGN, "--steps", "0"], ["steps=0 must be at least 1"]),
        ([GSGN, "--batch", "-2"], ["batch=-2"]),
        ([GSGN, "--device", "tpu"], ["unknown device 'tpu'"]),
        ([GSGN, "--images", "no/such/folder"], ["no file or folder 'no/such/folder'"]),
        ([GSGN, "--images", "no.hdf5"], ["no file or folder 'no.hdf5'"]),
        ([GSGN, "--images", "pyproject.toml"], ["'pyproject.toml' is no file of a kind that --images reads"]),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, words, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(word in error for word in words), error


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main([GSGN, "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unwritable_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([GSGN, "--out", str(tmp_path / "file" / "run")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["torn", "foreign", "flipped"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path, capsys, damage):
    out = train(small(tmp_path / "run"))
    path = out / "checkpoint.ckpt"
    body = bytearray(path.read_bytes())
    if damage == "torn":
        body = body[: len(body) // 2]
    elif damage == "foreign":
        body = bytearray(b"PK\x03\x04 something else")
    else:
        body[len(body) // 2] ^= 1
    path.write_bytes(body)
    with pytest.raises(ValueError, match=r"checkpoint\.ckpt is (torn|not a checkpoint)"):
        train(small(tmp_path / "run", steps=6, resume=True))
    assert path.read_bytes() == bytes(body)


def test_a_checkpoint_of_another_variant_is_refused(tmp_path):
    train(small(tmp_path / "run"))
    with pytest.raises(ValueError, match="begun with another variant, config: give --out another"):
        train(small(tmp_path / "run", variant="no_share", resume=True))
    (tmp_path / "run" / "config.json").unlink()  # then only the weights can tell
    with pytest.raises(ValueError, match="does not fit this run"):
        train(small(tmp_path / "run", variant="no_share", resume=True))


def test_a_resumed_run_keeps_its_origin(tmp_path):
    train(small(tmp_path / "other", seed=7))
    run = small(tmp_path / "run", start=str(tmp_path / "other"))
    train(run)
    before = json.loads((tmp_path / "run" / "config.json").read_text())
    train(replace(run, start=None, resume=True, steps=6))
    after = json.loads((tmp_path / "run" / "config.json").read_text())
    assert after["started"] == before["started"] and f"--from {run.start}" in after["command"]
    assert "--steps 6" in after["command"]
    fresh = small(tmp_path / "fresh")
    train(fresh)
    with pytest.raises(ValueError, match="began from fresh weights; leave --from out to go on"):
        train(replace(fresh, start=run.start, resume=True, steps=6))


def test_a_measurement_that_fails_disturbs_no_training(tmp_path):
    training = Training(plan(small(tmp_path)))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with pytest.raises(ValueError, match="no judge"), svi.undisturbed(training):
        torch.rand(5)
        raise ValueError("no judge")
    assert torch.rand(1) == expected and training.guide.training and training.program.training


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"seed": 3}, "seed"),
        ({"set": ("train.batch=3",)}, "batch"),
        ({"estimator": "reinmax"}, "estimator"),
        ({"set": ("world.max_objects=3",)}, "world"),
        ({"set": ("train.auxiliary={}",)}, "auxiliary"),
    ],
)
def test_a_run_goes_on_only_as_it_began(tmp_path, changes, word):
    run = small(tmp_path / "run")
    train(run)
    before = (tmp_path / "run" / "config.json").read_bytes()
    changes = changes | {"set": (*run.set, *changes.get("set", ()))}
    with pytest.raises(ValueError, match=f"begun with another {word}: give --out another"):
        train(replace(run, resume=True, steps=6, **changes))
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    again = replace(run, resume=True, steps=6, set=(*run.set, "train.rate=0.5"))
    train(again)
    log = [r for r in read_log(tmp_path / "run" / "log.jsonl") if "learning_rate" in r]
    rate = plan(run).recipe.schedules["learning_rate"]
    assert log[-1]["step"] == 6 and log[-1]["learning_rate"] == 0.5 * rate(6)


def test_a_run_that_took_no_step_can_be_begun_again(tmp_path):
    run = small(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    train(run)
    with pytest.raises(ValueError, match="not empty"):
        train(run)


def test_a_loss_that_is_not_finite_names_its_site_and_keeps_the_last_checkpoint(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(svi, "LOG_EVERY", 1)
    train(small(tmp_path / "run"))
    before = (tmp_path / "run" / "checkpoint.ckpt").read_bytes()
    original = Trainer.update

    def poisoned(self, x):
        loss, terms = original(self, x)
        return loss * math.nan, {**terms, "images": terms["images"] * math.nan}

    monkeypatch.setattr(Trainer, "update", poisoned)
    with pytest.raises(FloatingPointError, match="step 5: images is nan"):
        train(small(tmp_path / "run", steps=6, resume=True))
    assert (tmp_path / "run" / "checkpoint.ckpt").read_bytes() == before


def test_a_run_goes_on_only_with_its_presets_objective(tmp_path):
    run = tiny.run("denf", tmp_path / "run", preset="quick", steps=1, set=FEW)
    train(run)
    with pytest.raises(ValueError, match="begun with another schedules, penalties: give --out"):
        train(replace(run, preset="likelihood", resume=True, steps=2))
    train(replace(run, resume=True, steps=2, set=(*FEW, "train.rate=0.5", "train.clip=2.0")))


def test_a_training_ends_by_its_plateau_and_stays_ended(tmp_path, monkeypatch):
    """A rate of next to nothing: the loss of validation images does not fall."""
    rule = Plateau(every=1, patience=1, falls=2)
    recipe = replace(RECIPES["econ_plain"]["tiny"], plateau=rule, rate=1e-30, steps=50)
    monkeypatch.setitem(RECIPES, "econ_plain", {"tiny": recipe})
    run = tiny.run("econ", tmp_path / "run", variant="econ_plain")
    train(run)
    step = json.loads((tmp_path / "run" / "metrics.json").read_text())["step"]
    assert 2 <= step < 50
    train(replace(run, resume=True))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] == step
