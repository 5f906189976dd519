import itertools
import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from programs.blocks.distributions import (
    PixelMixture,
    bounded,
    doubtful,
    gate,
    in_front,
    leaning,
    normal,
    pairs,
    product,
)


def mixture(images=3, colours=3, size=2, sigma=(0.3, 0.1, 0.2)):
    means, log_weights = torch.rand(images, colours, size, size), torch.randn(images, size, size)
    return PixelMixture(means, log_weights.log_softmax(-3), torch.tensor(sigma))


def by_loops(d, x):
    """The log-density pixel by pixel, in Python's own numbers."""
    total = 0.0
    for j, i in itertools.product(range(x.shape[-2]), range(x.shape[-1])):
        density = 0.0
        for k, sigma in enumerate(d.sigma.tolist()):
            part = math.exp(float(d.log_weights[k, j, i]))
            for c in range(len(x)):
                z = float(x[c, j, i] - d.means[k, c, j, i]) / sigma
                part *= math.exp(-0.5 * z * z) / (sigma * math.sqrt(2 * math.pi))
            density += part
        total += math.log(density)
    return total


@pytest.mark.parametrize(("images", "colours"), [(1, 3), (2, 1), (3, 3)])
def test_pixel_mixture_density_agrees_with_a_loop_over_pixels(images, colours):
    d = mixture(images, colours, sigma=(0.3, 0.1, 0.2)[:images])
    x = torch.rand(colours, 2, 2)
    assert float(d.log_prob(x)) == pytest.approx(by_loops(d, x), rel=1e-4)
    # of one foreground and one image behind it, the two as GSGN's eq. 7 has them
    fg, bg, m = torch.rand(3, 2, 2), torch.rand(3, 2, 2), torch.rand(1, 2, 2)
    two = PixelMixture(torch.stack([fg, bg]), in_front(m), torch.tensor([0.3, 0.1]))
    x = torch.rand(3, 2, 2)
    expected = oracles.mixture_log_prob(x, fg, bg, m, 0.3, 0.1)
    assert float(two.log_prob(x)) == pytest.approx(expected, rel=1e-4)


def test_pixel_mixture_density_integrates_to_one():
    # importance sampling of one pixel of one channel, uniform proposals on [-2, 3]
    n = 200_000
    means = torch.tensor([0.3, 0.7])[:, None, None, None]
    d = PixelMixture(means, in_front(torch.tensor([[[0.4]]])), torch.tensor([0.3, 0.1]))
    x = torch.rand(n, 1, 1, 1) * 5 - 2
    values = 5 * d.expand((n,)).log_prob(x).exp()
    error = values.std() / math.sqrt(n)
    assert abs(values.mean() - 1) < 4 * error
    assert error < 0.01


def test_pixel_mixture_samples_have_its_mean_and_variance():
    n, d = 20_000, mixture()
    draws = d.expand((n,)).sample()
    sigma = d.sigma[:, None, None, None]
    second = (d.log_weights.exp()[:, None] * (d.means**2 + sigma**2)).sum(0)
    variance = second - d.mean**2
    assert ((draws.mean(0) - d.mean).abs() < 4.5 * (variance / n).sqrt()).all()
    torch.testing.assert_close(draws.var(0), variance, rtol=0.05, atol=1e-3)


def test_the_channels_of_a_pixel_are_of_one_image():
    means = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    d = PixelMixture(means, in_front(torch.full((1, 4, 4), 0.5)), 0.01)
    drawn = d.expand((50,)).sample().round()
    assert (drawn == drawn[:, :1]).all() and 0.3 < float(drawn.mean()) < 0.7


def test_one_sigma_is_that_of_every_image():
    d = mixture(sigma=(0.2, 0.2, 0.2))
    one = PixelMixture(d.means, d.log_weights, 0.2)
    x = torch.rand(3, 2, 2)
    torch.testing.assert_close(one.log_prob(x), d.log_prob(x))


def test_in_front_leaves_the_rest_to_what_is_behind():
    mixing = torch.tensor([[[0.0, 0.25, 1.0]]])
    behind = torch.tensor([0.2, 0.8]).log()[:, None, None].expand(2, 1, 3)
    weights = in_front(mixing, behind).exp()
    expected = torch.tensor([[0.0, 0.25, 1.0], [0.2, 0.15, 0.0], [0.8, 0.6, 0.0]])[:, None]
    torch.testing.assert_close(weights, expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(
        in_front(mixing).exp(), torch.cat([mixing, 1 - mixing]), atol=2e-6, rtol=0
    )


def test_pixel_mixture_gradient_is_finite_where_the_mixing_weight_is_zero_or_one():
    m = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    means = torch.stack([torch.zeros(3, 1, 2), torch.ones(3, 1, 2)])
    PixelMixture(means, in_front(m), torch.tensor([0.3, 0.1])).log_prob(
        torch.ones(3, 1, 2)
    ).backward()
    assert m.grad.isfinite().all()


def test_the_likelihood_of_a_sharp_mixture_far_away_is_finite():
    means = torch.zeros(2, 1, 2, 2, requires_grad=True)
    pixels = PixelMixture(means, torch.zeros(2, 2, 2).log_softmax(0), 0.01)
    log_prob = pixels.log_prob(torch.ones(1, 2, 2))  # exp(-5000) is 0
    log_prob.backward()
    assert log_prob.isfinite() and means.grad.isfinite().all()
    assert float(log_prob.detach()) == pytest.approx(
        4 * (-5000 - math.log(0.01 * math.sqrt(2 * math.pi))), rel=1e-5
    )


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


def test_a_leaning_gaussian_has_the_covariance_of_its_factor():
    loc, scale, lean = torch.randn(2, 3), torch.rand(2, 3) + 0.5, torch.randn(2, 3)
    d = leaning(loc, scale, lean)
    factor = torch.eye(3).repeat(2, 1, 1)
    factor[:, 1, 0], factor[:, 2, 0], factor[:, 2, 1] = lean.unbind(-1)
    factor = scale.unsqueeze(-1) * factor
    exact = dist.MultivariateNormal(loc, covariance_matrix=factor @ factor.mT)
    x = torch.randn(2, 3)
    assert d.log_prob(x).tolist() == pytest.approx(exact.log_prob(x).tolist(), rel=1e-4)
    upright = leaning(loc, scale, torch.zeros(2, 3))
    assert upright.log_prob(x).tolist() == pytest.approx(leaning(loc, scale).log_prob(x).tolist())


def test_a_doubtful_gaussian_is_two_of_different_widths():
    loc, scale, lean = torch.randn(2, 3), torch.rand(2, 3) + 0.5, torch.randn(2, 3)
    doubt = torch.tensor([-2.0, 0.5])
    d = doubtful(loc, scale, lean, doubt, wider=4.0)
    x = torch.randn(5, 2, 3)
    parts = [leaning(loc, k * scale, lean).log_prob(x) for k in (1.0, 4.0)]
    rare = doubt.sigmoid()
    exact = ((1 - rare) * parts[0].exp() + rare * parts[1].exp()).log()
    assert d.batch_shape == (2,) and d.event_shape == (3,)
    assert d.log_prob(x).flatten().tolist() == pytest.approx(exact.flatten().tolist(), rel=1e-4)
    assert pairs(3) == lean.shape[-1]
