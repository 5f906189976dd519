"""The command that measures a guide's calibration, its table, and that the shipped files are whole."""

import json

import pytest
import torch

from analysis import calibrate
from analysis.calibrate import FILE, INTERVALS, main, render, tails
from inference.runs import TRAINED


def test_weights_of_a_posterior_can_be_trusted_and_those_of_a_narrow_guide_cannot():
    torch.manual_seed(0)
    z = 0.4 * torch.randn(2000, 20)
    narrow = -0.5 * z.square() - torch.distributions.Normal(0.0, 0.4).log_prob(z)
    found = tails(narrow)
    assert found["khat_median"] > 0.7 and found["elbo"] < found["iwae"]
    flat = tails(torch.full((2000, 20), -3.0))
    assert flat["khat_images"] == 0 and "khat_trusted" not in flat
    assert flat["elbo"] == pytest.approx(-3.0) and flat["iwae"] == pytest.approx(-3.0, abs=1e-4)


def test_the_command_measures_a_run_on_both_kinds_of_scenes(tmp_path, capsys):
    target = tmp_path / "runs" / "air" / FILE
    target.parent.mkdir(parents=True)
    words = [
        "air-multi_mnist",
        "--simulations",
        "12",
        "--scenes",
        "8",
        "--draws",
        "9",
        "--weighed",
        "2",
        "--sweeps",
        "2",
        *("--refined", "3", "--chains", "30", "--levels", "3"),
    ]
    main([*words, "--json", str(target)])
    found = json.loads(target.read_text())
    for kind in ("simulated", "world"):
        assert {f"coverage80_{n}" for n in INTERVALS} <= found[kind].keys()
        assert set(found[kind]["rank_p"]) >= {"n_objects", "covered_area", "object_size"}
        assert found[kind]["elbo"] < found[kind]["iwae"] and found[kind]["khat_images"] <= 2
    assert found["data"]["world"] == "multi_mnist" and found["seed"] == 0
    far = found["annealed"]
    assert far["of"] == "world" and far["images"] == 2 and far["chains"] == 30
    assert far["iwae"] > found["world"]["iwae"] - 20
    own = found["refined"]
    assert found["refinements"] == 3 and {"coverage80_n_objects", "sbc_p", "iwae"} <= own.keys()
    assert set(own["rank_p"]) == set(found["simulated"]["rank_p"]) and "elbo" not in own
    assert "coverage80_centre_x" in capsys.readouterr().out
    lines = render(tmp_path / "runs")
    assert sum(line.startswith("| `air`") for line in lines) == 3
    words = "air --weighed 2 --sweeps 2 --refined 3 --chains 30 --levels 3 --draws 9"
    assert f"python -m analysis.calibrate {words}" in lines
    assert render(tmp_path) == []


def test_a_table_has_a_line_per_shipped_file():
    files = list(TRAINED.glob(f"*/{FILE}"))
    lines = render(TRAINED)
    tables = [json.loads(file.read_text()) for file in files]
    kinds = sum(len(calibrate.KINDS.keys() & table.keys()) for table in tables)
    assert sum(line.startswith("| `") for line in lines) == kinds >= 2 * len(files) > 0
    assert calibrate.SIMULATIONS >= 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--refined 3", "--refined asks for --sweeps"),
        ("--refined 30 --sweeps 2 --simulations 20", "--refined 30 of 20 scenes"),
    ],
)
def test_scenes_that_cannot_be_refined_are_refused(words, message, capsys):
    assert main(["air-multi_mnist", *words.split()]) == 2
    assert message in capsys.readouterr().err
