"""Predictive checks: unsuspicious where program and guide are right, alarmed where one is wrong."""

import pyro
import pytest
import small_programs
import torch

from analysis.posterior import quantities
from analysis.posterior.predictive import (
    aggregate_checks,
    ks_test,
    p_values,
    posterior_check,
    prior_check,
)
from inference.runs import open_run

SMALL = pytest.mark.parametrize("small", small_programs.ALL.values(), ids=small_programs.ALL)


def test_p_values_count_ties_half():
    replicated = torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [3.0, 6.0]])
    assert p_values(torch.tensor([2.0, 5.0]), replicated).tolist() == [0.625, 0.625]
    assert p_values(torch.tensor([9.0, 0.0]), replicated).tolist() == [0.0, 1.0]


def test_ks_is_the_largest_difference_of_distribution_functions():
    distance, p = ks_test(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([3.5, 4.5, 5.5, 6.5]))
    assert distance == pytest.approx(0.75) and 0.05 < p < 0.3


@SMALL
def test_a_right_program_passes_all_checks(small):
    """11 p-values a program; the smallest of 33 falls below 0.001 in 3 of 100 runs, were the seed not fixed."""
    x, _ = small_programs.simulate(small, 300)
    guide = small.guide()
    checks = prior_check(small.program, x, 300), *aggregate_checks(small.program, guide, x)
    for check in checks:
        for name, row in check.summary().items():
            assert row["p_value"] > 0.001, (check.kind, name, row)
    for name, row in posterior_check(small.program, guide, x, 200).summary().items():
        assert row["extreme"] < 0.08, (name, row)  # 0.05 at most, and 2.5 standard errors


@SMALL
def test_a_wrong_likelihood_is_noticed(small):
    x, _ = small_programs.simulate(small, 300)
    noisy = x + 2 * small.sigma * torch.randn_like(x)
    check = posterior_check(small.program, small.guide(), noisy, 200).summary()
    assert check["edge_energy"]["extreme"] > 0.3 and check["contrast"]["extreme"] > 0.3
    assert prior_check(small.program, noisy, 300).summary()["contrast"]["p_value"] < 1e-6


def test_a_wrong_prior_is_noticed_by_the_scenes_alone():
    """A guide that is right under another prior: replicates fit, scenes do not."""
    small, other = small_programs.Count(), small_programs.Count()
    other.prior = 0.85
    x, _ = small_programs.simulate(other, 300)
    images, scenes = aggregate_checks(small.program, other.guide(), x)
    assert images.summary()["brightness"]["p_value"] > 0.001
    found = scenes.summary()["n_objects"]
    assert found["p_value"] < 1e-6 and found["observed"] > found["replicated"] + 0.5


def test_replicates_are_not_the_images():
    small = small_programs.Appearance()
    x, _ = small_programs.simulate(small, 4)
    check = posterior_check(small.program, small.guide(), x, 50)
    assert check.replicated["brightness"].shape == (50, 4)
    spread = check.replicated["brightness"].std(0)
    torch.testing.assert_close(spread, torch.full((4,), (1 / 7 + 1 / 6) ** 0.5), atol=0.25, rtol=0)


def test_own_quantities_and_arrays_are_taken_apart():
    small = small_programs.Appearance()
    x, _ = small_programs.simulate(small, 4)
    of = {"row": lambda images: images.mean((1, 3))}
    check = posterior_check(small.program, small.guide(), x, 10, of=of)
    assert set(check.p_value) == {"row[0]", "row[1]"}
    torch.testing.assert_close(check.observed["row[1]"], x[:, 0, 1].mean(1))
    assert list(quantities.scalars({"a": torch.zeros(2, 3, 2, 2)}, 2)) == [
        "a[0,0]", "a[0,1]", "a[1,0]", "a[1,1]",
    ]  # fmt: skip


def test_a_shipped_run_can_be_checked():
    with pyro.settings.context(module_local_params=True):
        run = open_run("air-multi_mnist")
        program, guide = run.program, run.guide
    images = run.unseen(20).floats()
    check = posterior_check(program, guide, images, 20)
    assert set(check.summary()) == {"brightness", "contrast", "colour[0]", "edge_energy"}
    assert check.distance["brightness"] < 0.5
