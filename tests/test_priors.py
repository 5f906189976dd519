"""Priors that are learned, and their fit to draws of a guide."""

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch.distributions import Normal, kl_divergence

from inference.empirical import Settings, cached, fit
from programs.priors import LearnedGaussian, LearnedMixture, learned


class Program(PyroModule):
    """z ~ a learned prior, w ~ N(A z, 1), and pixels that must not be computed."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.linear = prior, torch.nn.Linear(2, 1)

    def forward(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-2):
            z = pyro.sample("z", self.prior())
            pyro.sample("w", dist.Normal(self.linear(z), 1.0).to_event(1))
            assert images is not None, "what follows is not needed"


def two_kinds(images):
    """z is near (4, 0) or (-4, 0), by the image's first pixel."""
    sign = 2.0 * (images[:, 0, 0, 0] > 0.5).float() - 1
    loc = torch.stack([4 * sign, torch.zeros_like(sign)], -1).unsqueeze(1)
    with pyro.plate("batch", len(images), dim=-2):
        z = pyro.sample("z", dist.Normal(loc, 0.5).to_event(1))
        pyro.sample("w", dist.Normal(3.0 * z[..., :1] + 1.0, 1.0).to_event(1))


HOW = Settings(draws=2, steps=300, batch=200, rate=0.03)


@pytest.fixture
def draws():
    pyro.set_rng_seed(0)
    images = torch.zeros(600, 1, 2, 2)
    images[200:] = 1.0
    return cached(two_kinds, images, HOW.draws)


def entropy():
    """Of the aggregate posterior in z: log 2 shares of a third and two, and two features of deviation 0.5."""
    return float(
        dist.Categorical(torch.tensor([1 / 3, 2 / 3])).entropy()
        + 2 * Normal(0.0, torch.tensor(0.5)).entropy()
    )


def test_a_mixture_of_two_becomes_the_aggregate_posterior_and_a_gaussian_cannot(draws):
    mixed, plain = Program(learned(2, 2)), Program(learned(2))
    after = [fit(p, draws, {"z": p.prior}, 600, HOW).after for p in (mixed, plain)]
    assert after[0] == pytest.approx(-entropy(), abs=0.1)
    assert after[1] < after[0] - 0.5
    order = mixed.prior.loc[:, 0].argsort()
    means = mixed.prior.loc[order].detach()
    torch.testing.assert_close(means, torch.tensor([[-4.0, 0], [4.0, 0]]), rtol=0, atol=0.2)
    share = mixed.prior.logits.softmax(0)[order].detach()
    torch.testing.assert_close(share, torch.tensor([1 / 3, 2 / 3]), rtol=0, atol=0.05)
    assert mixed.prior().mode.tolist() == pytest.approx([4, 0], abs=0.2)


def test_a_mixture_begins_at_clusters_that_few_of_many_features_tell_apart():
    torch.manual_seed(1)
    centre = torch.tensor([-9.0, 0.0, 9.0])[torch.randint(3, (3000,))]
    draws = torch.randn(3000, 20) * 5
    draws[:, 7] = centre + 0.5 * torch.randn(3000)
    mixture = learned(20, 8)
    mixture.begin(draws)
    entropy = Normal(0.0, 5.0).entropy() * 19 + Normal(0.0, 0.5).entropy() + math.log(3)
    assert mixture().log_prob(draws).mean().item() == pytest.approx(-entropy.item(), abs=0.3)


def test_only_what_is_named_is_fitted_and_gradients_are_as_before(draws):
    program = Program(learned(2, 3))
    old = [p.detach().clone() for p in program.prior.parameters()]
    found = fit(program, draws, {"w": program.linear}, 600, replace(HOW, rate=0.1))
    assert found.after > found.before
    assert program.linear.weight[0, 0].item() == pytest.approx(3.0, abs=0.1)
    assert all(torch.equal(a, b) for a, b in zip(old, program.prior.parameters(), strict=True))
    assert all(p.requires_grad for p in program.parameters())


def test_a_fit_names_sites_and_modules_that_are_there(draws):
    program = Program(learned(2))
    with pytest.raises(ValueError, match="'v' matches none of z, w"):
        fit(program, draws, {"v": program.prior}, 600)
    with pytest.raises(ValueError, match="no parameters"):
        fit(program, draws, {"z": torch.nn.Identity()}, 600)


@pytest.mark.parametrize("prior", [LearnedGaussian(3), LearnedMixture(3, 4)])
def test_priors_are_distributions_of_pyro(prior):
    with pyro.plate("batch", 5, dim=-2), pyro.plate("nodes", 4, dim=-1):
        z = pyro.sample("z", prior())
    assert z.shape == (5, 4, 3)
    assert prior().log_prob(z).shape == (5, 4)
    assert prior().mode.shape == (3,)


def test_one_component_is_a_gaussian_whose_kl_is_known():
    q = dist.Normal(torch.ones(3), 1.0).to_event(1)
    assert kl_divergence(q, learned(3)()).item() == pytest.approx(1.5, abs=1e-3)
    with pytest.raises(NotImplementedError):
        kl_divergence(q, learned(3, 2)())  # the objective takes it by the draw
