"""Importance weights: the evidence, bounds of it, and whether they can be trusted."""

import math
from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import small_programs
import tiny
import torch
from small_programs import conjugate, posterior

from analysis.posterior import (
    ess,
    iwae,
    khat,
    log_weights,
    to_arviz,
    weights,
)
from programs.blocks import nets

SMALL = pytest.mark.parametrize("small", small_programs.ALL.values(), ids=small_programs.ALL)


def simulate(small, number):
    return small_programs.simulate(small, number)[0]


@SMALL
def test_weights_under_the_exact_guide_are_the_evidence_in_every_draw_and_column(small):
    x = simulate(small, 7)
    weights = log_weights(small.program, small.guide(), x, draws=5, rows=3)
    torch.testing.assert_close(weights, small.evidence(x).expand(5, 7), atol=1e-4, rtol=0)


@SMALL
@pytest.mark.parametrize("sharpness", [0.6, 1.5])
def test_iwae_converges_to_the_evidence_and_the_elbo_stays_below(small, sharpness):
    """4 standard errors, 20 images: a false alarm in about 1 of 800 runs, were the seed not fixed."""
    x, draws = simulate(small, 20), 4000
    weights = log_weights(small.program, small.guide(sharpness), x, draws)
    evidence = small.evidence(x)
    ratio = (weights - evidence).exp()
    error = ratio.std(0) / draws**0.5
    assert ((iwae(weights) - evidence).abs() < 4 * error + 1e-4).all()
    assert error.max() < 0.05
    assert weights.mean() < evidence.mean() - 0.005
    few = torch.stack([iwae(part) for part in weights.split(10)])
    assert weights.mean() < few.mean() < evidence.mean()


def test_the_elbo_of_a_gaussian_guide_falls_short_by_its_kl():
    small, sharpness = small_programs.Appearance(), 2.25
    x = simulate(small, 50)
    weights = log_weights(small.program, small.guide(sharpness), x, 400)
    kl = 0.5 * (1 / sharpness - 1 + math.log(sharpness))
    gap = small.evidence(x) - weights
    assert abs(float(gap.mean()) - kl) < 4 * float(gap.std()) / gap.numel() ** 0.5


def test_khat_is_low_for_a_good_guide_and_high_for_a_wrong_one():
    """The weights of a Gaussian whose precision is s times the posterior's have k = 1 - 1 / s."""
    small = small_programs.Appearance()
    x = simulate(small, 20)

    def median(sharpness):
        return float(khat(log_weights(small.program, small.guide(sharpness), x, 4000)).median())

    assert median(1.0) == -math.inf
    assert median(0.7) < 0.1
    assert abs(median(1.5) - 1 / 3) < 0.1
    assert abs(median(2.25) - 5 / 9) < 0.1
    assert median(8.0) > 0.7


@pytest.mark.parametrize("name", ["presence", "count"])
def test_ess_judges_masses(name):
    """Weights of few values are bounded and have no tail: their effective number says how good they are."""
    small = small_programs.ALL[name]
    x = simulate(small, 40)
    exact = log_weights(small.program, small.guide(), x, 1000)
    assert (khat(exact) == -math.inf).all() and ess(exact).min() > 999
    wrong = log_weights(small.program, small.guide(5.0), x, 1000)
    assert khat(wrong).isnan().any() and ess(wrong).min() < 300


def test_khat_agrees_with_arviz():
    weights = torch.distributions.StudentT(3.0).sample((2000, 6)).double()
    if to_arviz.is_old():
        psislw = to_arviz.arviz().psislw
    else:
        from arviz_stats.base import array_stats

        psislw = array_stats.psislw
    theirs = np.array([float(psislw(column.numpy())[1]) for column in weights.T])
    np.testing.assert_allclose(khat(weights), theirs, atol=0.02)


def test_equal_weights_are_reported_as_such():
    weights = torch.full((100, 2), -3.0)
    weights[:, 1] += 1e-6 * torch.randn(100)
    assert khat(weights).tolist() == [-math.inf, -math.inf]
    torch.testing.assert_close(ess(weights), torch.full((2,), 100.0))


def test_few_weights_that_stand_out_cannot_be_fitted():
    weights = torch.zeros(1000, 1)
    weights[:3] = 5.0
    assert khat(weights).isnan().all()
    assert ess(weights).item() < 100
    with pytest.raises(ValueError, match="10 draws have no tail to fit: give 25"):
        khat(weights[:10])


def test_ess_is_kongs():
    weights = torch.randn(50, 3)
    w = weights.exp()
    torch.testing.assert_close(ess(weights), w.sum(0).square() / w.square().sum(0))


X = torch.tensor([0.7, -1.4, 0.1])


EVIDENCE = dist.Normal(0.0, math.sqrt(1.25)).log_prob(X)


def test_log_weights_under_the_exact_posterior_are_the_evidence():
    weights = log_weights(conjugate, posterior(math.sqrt(0.2)), X, draws=5)
    torch.testing.assert_close(weights, EVIDENCE.expand(5, 3), atol=1e-4, rtol=1e-4)


def test_elbo_lies_below_iwae_and_iwae_below_and_near_the_evidence():
    pyro.enable_validation(False)
    weights = log_weights(conjugate, posterior(0.9), X, draws=4000)
    q = dist.Normal(X / 1.25, torch.full_like(X, 0.9))
    gap = torch.distributions.kl_divergence(q, dist.Normal(X / 1.25, math.sqrt(0.2)))
    error = weights.std(0) / math.sqrt(4000)
    assert ((weights.mean(0) - (EVIDENCE - gap)).abs() < 4 * error).all()
    assert (iwae(weights) > weights.mean(0)).all()
    torch.testing.assert_close(iwae(weights), EVIDENCE, atol=0.1, rtol=0)


def test_every_image_has_an_equal_share_of_a_latent_of_all_images():
    at = lambda scale: lambda images: pyro.sample("z_global", dist.Normal(0.0, scale))
    weights = log_weights(at(1.0), at(2.0), X, draws=50)
    assert weights.shape == (50, len(X)) and (weights == weights[:, :1]).all()
    total = weights.sum(1)  # log p - log q = log 2 - 3 z² / 8
    assert float(total.max()) <= math.log(2) + 1e-5 and float(total.min()) < 0


@pytest.mark.parametrize("name", ["gsgn", "space", "gnm", "discrete_air"])
def test_absent_nodes_are_left_out_and_no_weight_changes(name, monkeypatch):
    program, guide = (module.eval() for module in tiny.build(name))
    x, computed = tiny.images(6, program), []
    rows = nets.present_rows
    monkeypatch.setattr(nets, "present_rows", lambda e: (computed.append(rows(e)), computed[-1])[1])
    pyro.set_rng_seed(3)
    found = log_weights(program, guide, x, draws=3)
    assert any(chosen is not None for chosen in computed)
    monkeypatch.setattr(weights, "leaving_out_absent", nullcontext)
    computed.clear()
    pyro.set_rng_seed(3)
    torch.testing.assert_close(log_weights(program, guide, x, draws=3), found, rtol=1e-5, atol=1e-3)
    assert computed and all(chosen is None for chosen in computed)
