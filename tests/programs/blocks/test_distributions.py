import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from programs.blocks.distributions import PixelMixture, bounded, gate, normal, product


def mixture(sigma_fg=0.3, sigma_bg=0.1, size=2, **kwargs):
    fg, bg, m = torch.rand(3, size, size), torch.rand(3, size, size), torch.rand(1, size, size)
    return PixelMixture(fg, bg, m, sigma_fg, sigma_bg, **kwargs)


def test_pixel_mixture_density_agrees_with_a_loop_over_pixels():
    d = mixture()
    x = torch.rand(3, 2, 2)
    expected = oracles.mixture_log_prob(x, d.foreground, d.background, d.mixing, 0.3, 0.1)
    assert float(d.log_prob(x)) == pytest.approx(expected, rel=1e-4)


def test_pixel_mixture_density_integrates_to_one():
    # importance sampling of one pixel of one channel, uniform proposals on [-2, 3]
    n = 200_000
    one = torch.tensor([[[0.3]]])
    d = PixelMixture(one, 1 - one, torch.tensor([[[0.4]]]), 0.3, 0.1)
    x = torch.rand(n, 1, 1, 1) * 5 - 2
    values = 5 * d.expand((n,)).log_prob(x).exp()
    error = values.std() / math.sqrt(n)
    assert abs(values.mean() - 1) < 4 * error
    assert error < 0.01


def test_pixel_mixture_samples_have_its_mean():
    n, d = 20_000, mixture()
    draws = d.expand((n,)).sample()
    error = draws.std(0) / math.sqrt(n)
    assert ((draws.mean(0) - d.mean).abs() < 5 * error).all()


def test_pixel_mixture_gradient_is_finite_where_the_mixing_weight_is_zero_or_one():
    m = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    d = PixelMixture(torch.zeros(3, 1, 2), torch.ones(3, 1, 2), m, 0.3, 0.1)
    d.log_prob(torch.ones(3, 1, 2)).backward()
    assert m.grad.isfinite().all()


def test_product_of_gaussians_is_the_normalised_product_of_densities():
    p = normal(torch.tensor([[0.3]]), torch.tensor([[0.8]]))
    q = normal(torch.tensor([[-1.0]]), torch.tensor([[0.5]]))
    x = torch.linspace(-6, 6, 4001)[:, None, None]
    density = (p.log_prob(x) + q.log_prob(x)).exp().squeeze()
    density = density / torch.trapezoid(density, x.squeeze())
    torch.testing.assert_close(
        product(p, q).log_prob(x).exp().squeeze(), density, atol=1e-4, rtol=1e-3
    )


def test_product_of_presences_is_the_normalised_product_of_masses():
    p, q = torch.tensor([0.3, 0.5]), torch.tensor([0.6, 0.9])
    expected = p * q / (p * q + (1 - p) * (1 - q))
    got = product(dist.Bernoulli(probs=p), dist.Bernoulli(probs=q)).probs
    torch.testing.assert_close(got, expected, atol=0.05, rtol=0)  # the bound bends large logits
    small = product(
        dist.Bernoulli(logits=torch.tensor(0.2)), dist.Bernoulli(logits=torch.tensor(-0.1))
    )
    assert float(small.logits) == pytest.approx(0.1, abs=1e-4)


def test_product_of_unlike_families_is_refused():
    with pytest.raises(TypeError, match="Laplace"):
        product(dist.Laplace(0.0, 1.0), dist.Laplace(0.0, 1.0))


def test_bounded_logits_stay_within_the_bound_and_keep_a_gradient():
    x = torch.tensor([-40.0, 0.0, 20.0], requires_grad=True)
    y = bounded(x)
    y.sum().backward()
    assert y.abs().max() <= 8.8
    assert (x.grad > 0).all()


def test_a_prior_of_1e_minus_10_costs_23_nats_as_logits_and_only_16_as_a_probability():
    present = dist.Bernoulli(logits=torch.tensor(20.0))
    rare = dist.Bernoulli(logits=torch.tensor(math.log(1e-10)))
    assert float(kl_divergence(present, rare)) == pytest.approx(23.03, abs=0.01)
    clamped = dist.Bernoulli(probs=torch.tensor(1e-10))
    assert float(kl_divergence(present, clamped)) == pytest.approx(15.94, abs=0.01)


def gated(exists):
    with pyro.plate("batch", 3, dim=-1), gate(exists):
        pyro.sample("z", dist.Normal(torch.zeros(3), 1.0))


def test_gate_removes_absent_nodes_exactly_and_scales_soft_ones_differentiably():
    exists = torch.tensor([1.0, 0.0, 0.25], requires_grad=True)
    trace = poutine.trace(gated).get_trace(exists)
    trace.compute_log_prob()
    site = trace.nodes["z"]
    full = dist.Normal(0.0, 1.0).log_prob(site["value"])
    torch.testing.assert_close(site["log_prob"], full * torch.tensor([1.0, 0.0, 0.25]))
    site["log_prob_sum"].backward()
    torch.testing.assert_close(exists.grad, full)


def test_nested_gates_multiply():
    with gate(torch.tensor([1.0, 0.5, 1.0])):
        trace = poutine.trace(gated).get_trace(torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(trace.nodes["z"]["scale"], torch.tensor([0.0, 0.25, 1.0]))


def test_the_kl_of_presences_is_finite_and_right_at_any_logit():
    """Against the sum over both values in double precision; torch's is infinite from a logit of 17."""
    q, p = torch.meshgrid(
        *[torch.tensor([-120.0, -17, -8.8, -1, 0, 2, 17, 120])] * 2, indexing="ij"
    )
    got = kl_divergence(dist.Bernoulli(logits=q), dist.Bernoulli(logits=p))
    q, p = q.double(), p.double()
    log = torch.nn.functional.logsigmoid
    expected = q.sigmoid() * (log(q) - log(p)) + (-q).sigmoid() * (log(-q) - log(-p))
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)
