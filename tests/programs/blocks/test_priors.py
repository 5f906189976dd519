"""Learned priors: at first the paper's, after a fit the best of their family for the draws."""

from copy import deepcopy

import pyro.distributions as dist
import pytest
import torch
from pyro import plate, sample
from torch.distributions import Normal, kl_divergence

from programs.blocks.prior_nets import NetBernoulli, NetMixture
from programs.blocks.priors import (
    AffineGaussian,
    FullMixture,
    LearnedBernoulli,
    LearnedCategory,
    LearnedGaussian,
    LearnedMixture,
    learned,
    step_row,
)


def rows(number, of):
    """One-hot rows 0, 1, …, repeated: (N, R)."""
    return torch.eye(of)[torch.arange(number) % of]


def test_families_begin_as_the_papers_priors():
    z = torch.randn(50, 3)
    normal = Normal(torch.zeros(3), torch.ones(3))
    expected = normal.log_prob(z).sum(-1)
    torch.testing.assert_close(LearnedGaussian(3)().log_prob(z), expected, atol=1e-4, rtol=1e-4)
    for mixture in (LearnedMixture(3, 4), FullMixture(3, 4)):
        mixture.plain()
        torch.testing.assert_close(mixture().log_prob(z), expected, atol=1e-3, rtol=1e-3)
    narrow = LearnedGaussian(3, rows=2, loc=1.0, sd=torch.tensor([0.1, 0.2, 3.0]))(rows(50, 2))
    assert torch.allclose(narrow.mean, torch.ones(3))
    torch.testing.assert_close(narrow.stddev[7], torch.tensor([0.1, 0.2, 3.0]), atol=1e-4, rtol=0)
    given = torch.cat([z, z.abs() + 0.1, rows(50, 2)], -1)
    own = Normal(z, z.abs() + 0.1)
    torch.testing.assert_close(
        AffineGaussian(3, 2)(given).log_prob(0 * z), own.log_prob(0 * z).sum(-1)
    )
    net = NetMixture(3, 2, 5)(given).log_prob(0 * z)
    torch.testing.assert_close(net, own.log_prob(0 * z).sum(-1), atol=1e-3, rtol=1e-3)
    assert LearnedBernoulli(-4.6)().logits.detach().item() == pytest.approx(-4.6)
    told = torch.cat([torch.full((50, 1), -4.6), z], -1)
    torch.testing.assert_close(NetBernoulli(3)(told).logits, torch.full((50,), -4.6))
    torch.testing.assert_close(LearnedCategory(4)().probs, torch.full((4,), 0.25))


def test_a_gaussian_per_row_has_the_moments_of_its_weighted_draws():
    torch.manual_seed(0)
    z, given = torch.randn(400, 2), rows(400, 3)
    z[given[:, 1] > 0] = 5 + 0.5 * z[given[:, 1] > 0]
    weights = torch.ones(400)
    weights[given[:, 2] > 0] = 0.0
    prior = LearnedGaussian(2, rows=3)
    prior.fit(z, weights, given)
    own = z[given[:, 1] > 0]
    torch.testing.assert_close(prior.loc[1], own.mean(0), atol=1e-4, rtol=0)
    found = prior(given).stddev[1]
    torch.testing.assert_close(found, own.std(0, correction=0), atol=1e-3, rtol=0)
    assert prior.loc[2].tolist() == [0, 0], "a row without draws keeps the paper's prior"


def test_a_mixture_finds_the_kinds_that_a_gaussian_blends():
    torch.manual_seed(0)
    kind = (torch.arange(900) % 3 > 0).float()[:, None]
    z = torch.cat([8 * kind - 4, torch.zeros_like(kind)], -1) + 0.5 * torch.randn(900, 2)
    priors = learned(2), learned(2, 2)
    for prior in priors:
        prior.fit(z, torch.ones(900))
    one, two = (float(p().log_prob(z).mean().detach()) for p in priors)
    shares = dist.Categorical(torch.tensor([1 / 3, 2 / 3])).entropy()
    entropy = float(shares + 2 * Normal(0.0, torch.tensor(0.5)).entropy())
    assert two == pytest.approx(-entropy, abs=0.1) and one < two - 0.5
    order = priors[1].loc[:, 0].argsort()
    expected = torch.tensor([[-4.0, 0], [4.0, 0]])
    torch.testing.assert_close(priors[1].loc[order].detach(), expected, rtol=0, atol=0.15)
    share = priors[1].logits.softmax(0)[order].detach()
    torch.testing.assert_close(share, torch.tensor([1 / 3, 2 / 3]), rtol=0, atol=0.03)
    assert priors[1]().mode.tolist() == pytest.approx([4, 0], abs=0.15)


def test_probabilities_are_the_shares_of_draws():
    ones = (torch.arange(400) % 4 == 0).float()
    steps = rows(400, 2)
    prior = LearnedBernoulli(-4.6, rows=2)
    prior.fit(ones, torch.ones(400), steps)
    expected = torch.tensor([100.5 / 201, 0.5 / 201])
    torch.testing.assert_close(prior.logits.sigmoid().detach(), expected, rtol=1e-4, atol=0)
    category = LearnedCategory(3)
    category.fit(rows(300, 3)[:150], torch.ones(150))
    torch.testing.assert_close(category().probs[0].detach().item(), 1 / 3, rtol=1e-4, atol=0)


def test_a_line_per_row_is_least_squares():
    torch.manual_seed(0)
    loc, sd, given = torch.randn(600, 2), torch.rand(600, 2) + 0.5, rows(600, 2)
    slope, shift = torch.where(given[:, :1] > 0, 2.0, -1.0), torch.where(given[:, :1] > 0, 0.0, 3.0)
    z = slope * loc + shift + 0.3 * sd * torch.randn(600, 2)
    prior = AffineGaussian(2, 2)
    prior.fit(z, torch.ones(600), torch.cat([loc, sd, given], -1))
    error = 4 * 0.3 * 1.5 / 300**0.5
    assert (prior.slope - torch.tensor([[2.0], [-1.0]])).abs().max() < error
    assert (prior.shift - torch.tensor([[0.0], [3.0]])).abs().max() < error
    torch.testing.assert_close(
        prior.stretch.exp().detach(), torch.full((2, 2), 0.3), rtol=0, atol=4 * 0.3 / 600**0.5
    )


def test_nets_learn_what_is_known_to_decide():
    torch.manual_seed(0)
    known = torch.rand(2000, 2)
    z = torch.where(known[:, :1] > 0.5, 3.0, -3.0) + 0.2 * torch.randn(2000, 1)
    given = torch.cat([torch.zeros_like(z), torch.ones_like(z), known], -1)
    prior = NetMixture(1, 2, 2)
    prior.fit(z, torch.ones(2000), given)
    entropy = float(Normal(0.0, 0.2).entropy())
    assert float(prior(given).log_prob(z).mean().detach()) > -entropy - 0.5
    gate = NetBernoulli(2)
    ones = (known[:, 0] > 0.5).float()
    given = torch.cat([torch.zeros(2000, 1), known], -1)
    gate.fit(ones, torch.ones(2000), given)
    assert float(gate(given).log_prob(ones).mean().detach()) > -0.25


def correlated(number):
    """Draws (N, 2) of two slanted clusters, and the distribution that they are from."""
    lower = torch.tensor([[[1.0, 0.0], [0.9, 0.2]], [[0.5, 0.0], [-0.4, 0.3]]])
    parts = dist.MultivariateNormal(torch.tensor([[3.0, 0.0], [-3.0, 1.0]]), scale_tril=lower)
    true = dist.MixtureSameFamily(dist.Categorical(torch.tensor([0.7, 0.3])), parts)
    torch.manual_seed(0)
    return true.sample((number,)), true


def test_a_full_mixture_finds_slanted_clusters():
    z, true = correlated(4000)
    prior, diagonal = FullMixture(2, 2), LearnedMixture(2, 2)
    weights = torch.ones(4000)
    weights[:2000:2] = 0  # absent ones, far away
    z[:2000:2] = 50.0
    prior.fit(z, weights)
    diagonal.fit(z, weights)
    test, _ = correlated(2000)
    with torch.no_grad():
        found, least = prior().log_prob(test).mean(), diagonal().log_prob(test).mean()
    assert true.log_prob(test).mean() - found < 0.02
    assert found - least > 0.3
    torch.testing.assert_close(
        prior.logits.softmax(0).sort().values, torch.tensor([0.3, 0.7]), atol=0.03, rtol=0
    )


@pytest.mark.parametrize("kind", [LearnedMixture, FullMixture])
def test_components_part_by_gradient(kind):
    """Two clusters, which one Gaussian does not explain: equal components would stay equal."""
    torch.manual_seed(0)
    z = torch.cat([torch.randn(200, 2) - 4, torch.randn(200, 2) + 4])
    prior = kind(2, 2)
    optimiser = torch.optim.Adam(prior.parameters(), 0.1)
    for _ in range(200):
        optimiser.zero_grad()
        (-prior().log_prob(z).mean()).backward()
        optimiser.step()
    assert prior.loc.detach().mean(1).sort().values.tolist() == pytest.approx([-4, 4], abs=0.3)


@pytest.mark.parametrize(
    "prior",
    [LearnedGaussian(2, rows=3), LearnedMixture(2, 2, rows=3), LearnedCategory(2, rows=3)],
)
def test_rows_without_draws_become_the_papers(prior):
    """Also if they were trained or fitted before."""
    plain = deepcopy(prior)
    plain.plain()
    z, given = torch.eye(2)[torch.arange(60) % 2], torch.eye(3)[torch.zeros(60, dtype=torch.long)]
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(1.0)
    prior.fit(z, torch.ones(60), given)
    for row, same in ((0, False), (1, True), (2, True)):
        one = torch.eye(3)[row].expand(60, 3)
        found = torch.allclose(prior(one).log_prob(z), plain(one).log_prob(z))
        assert found == (same or isinstance(prior, LearnedCategory))


@pytest.mark.parametrize("prior", [LearnedGaussian(3), LearnedMixture(3, 4), FullMixture(3, 4)])
def test_priors_are_distributions_of_pyro(prior):
    with plate("batch", 5, dim=-2), plate("nodes", 4, dim=-1):
        z = sample("z", prior())
    assert z.shape == (5, 4, 3) and prior().log_prob(z).shape == (5, 4)
    assert prior().mode.shape == (3,)


def test_mixtures_of_a_row_are_its_own():
    prior = LearnedMixture(2, 3, rows=4)
    given = rows(8, 4)
    for n, p in enumerate(prior(given).component_distribution.mean):
        torch.testing.assert_close(p, prior.loc[n % 4])


def test_one_component_is_a_gaussian_whose_kl_is_known():
    q = dist.Normal(torch.ones(3), 1.0).to_event(1)
    assert kl_divergence(q, learned(3)()).item() == pytest.approx(1.5, abs=1e-3)
    with pytest.raises(NotImplementedError):
        kl_divergence(q, learned(3, 2)())  # the objective takes it by the draw


def test_rows_of_steps():
    like = torch.zeros(2)
    assert step_row(2, 3, like).tolist() == [[0, 1, 0]] * 2
    assert step_row(3, 1, like).tolist() == [[1]] * 2
