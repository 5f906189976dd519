"""Three ways of inference side by side, on a program whose best scenes are known, and the command."""

import json

import pyro
import pytest
import small_programs
import torch
import xarray

from analysis import refine
from analysis.posterior.refine import refine as refined_by
from analysis.posterior.refine.chains import LEAST, chains_to_inference_data, diagnostics
from inference.images.dataset import Dataset


def data_of(x):
    """Pictures without truth, of 8 bits."""
    return Dataset((255 * x.clamp(0, 1)).round().to(torch.uint8), {})


def test_refined_scenes_are_the_most_probable_ones():
    small = small_programs.Presence()
    x = small_programs.simulate(small, 24)[0]
    data = data_of(x)
    seen = data.floats()
    rows, found = refine.side_by_side(
        small.program, small.guide(0.1), data, draws=2, sweeps=25, chains=20, progress=False
    )
    assert [row["inference"] for row in rows] == ["guide's mode", "best of 2 draws", "refined"]
    best = float(small.joint(seen).amax(1).mean())
    mode, of_draws, refined = (row["log_p"] for row in rows)
    assert max(mode, of_draws) < refined <= best + 1e-4
    assert refined > best - 0.05
    truth = float(small.evidence(seen).mean())
    assert "evidence" not in rows[0]
    assert abs(rows[2]["evidence"] - truth) < 0.2
    assert all(row["cpu_seconds"] > 0 and row["seconds"] > 0 for row in rows)
    assert "refined" in refine.table(rows) and "evidence" in refine.table(rows)
    assert len(found.scene) == 24


def test_chains_that_agree_have_an_r_hat_near_one_and_stuck_ones_have_not():
    small = small_programs.Appearance()
    x = small_programs.simulate(small, 3)[0]
    moved = refined_by(
        small.program, small.guide(2.0), x, sweeps=80, chains=8, tempering=0.1, progress=False
    )
    data = chains_to_inference_data(small.program, small.guide(2.0), moved)
    posterior = data["posterior"]
    assert (posterior.sizes["chain"], posterior.sizes["image"]) == (8, 3)
    assert set(data["sample_stats"].data_vars) == {"lp", "evidence", "best_lp"}
    place = diagnostics(data)["centroid"]
    assert place["rhat"].shape == (3, 2)
    assert (place["rhat"][:, 0] < 1.1).all()
    assert (place["ess"][:, 0] > 40).all()
    stuck = {n: v + 10 * torch.arange(8.0).view(8, 1, 1, 1) for n, v in moved.quantities.items()
             if n == "centroid"}  # fmt: skip
    apart = type(moved)(**{**vars(moved), "quantities": stuck})
    found = diagnostics(chains_to_inference_data(small.program, small.guide(), apart))
    assert (found["centroid"]["rhat"][:, 0] > 2).all()


def test_too_small_a_budget_is_said():
    small = small_programs.Appearance()
    x = small_programs.simulate(small, 2)[0]
    nothing = refined_by(
        small.program, small.guide(), x, sweeps=1, chains=2, tempering=1.0, progress=False
    )
    with pytest.raises(ValueError, match="no chain has a draw"):
        chains_to_inference_data(small.program, small.guide(), nothing)
    short = refined_by(
        small.program, small.guide(), x, sweeps=LEAST, chains=2, tempering=0.3, progress=False
    )
    with pytest.raises(ValueError, match="R-hat needs"):
        diagnostics(chains_to_inference_data(small.program, small.guide(), short))


def test_the_command_writes_its_table_and_its_chains(tmp_path, capsys):
    table, chains = tmp_path / "table.json", tmp_path / "chains.nc"
    arguments = ["discrete_air-multi_sprites", "--scenes", "4", "--sweeps", "12", "--chains", "2"]
    arguments += ["--draws", "2", "--json", str(table), "--netcdf", str(chains)]
    try:
        assert refine.main(arguments) == 0
    finally:
        pyro.enable_validation(True)
    said = capsys.readouterr().out
    assert "best of 2 draws" in said and "n_objects: R-hat" in said
    written = json.loads(table.read_text())
    assert written["sweeps"] == 12 and written["chains"] == 2
    assert {"object_count_accuracy", "category_correspondence"} <= written["rows"][2].keys()
    assert written["rows"][2]["log_p"] >= written["rows"][1]["log_p"] - 50
    with xarray.open_dataset(chains, group="posterior") as posterior:
        assert posterior.sizes["chain"] == 2 and posterior.sizes["image"] == 4


def test_a_run_that_is_none_is_said(capsys):
    assert refine.main(["nothing-here"]) == 2
    assert "is no run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--seconds 0", "0: expected a number above 0"),
        ("--seconds -1", "-1: expected a number above 0"),
        ("--seconds nan", "nan: expected a number above 0"),
        ("--seconds inf", "inf: expected a number above 0"),
        ("--tempering 3", "3: expected 0 to 1"),
        ("--tempering -0.5", "-0.5: expected 0 to 1"),
        ("--tempering nan", "nan: expected 0 to 1"),
    ],
)
def test_a_budget_that_is_none_is_refused(words, said, capsys):
    assert refine.main(["no-such-run", *words.split()]) == 2
    assert f"{words.split()[0]}: {said}" in capsys.readouterr().err
