"""Bounds on several samples, by any method and doubly reparametrised."""

import math

import pytest
import torch
from discrete_programs import Bits, Steps, gradients, make
from judging import BOUNDS, in_double, judge  # noqa: F401
from random_programs import Latent, Spec, enumerate_states, exact_bound
from small_programs import conjugate, posterior
from test_random_programs import spread

from inference.estimators import estimator
from inference.objectives import Objective

SEEING = Spec(
    (
        Latent("normal"),
        Latent(parents=(0,)),
        Latent("normal", parents=(0, 1), weight=0.5),
    ),
    nodes=1,
    taken=1,
    seed=11,
)
"""A Gaussian that sees another, and a bit between them."""


@pytest.mark.parametrize(
    "name", ["vimco:2", "vimco_dreg:2", "iwae:2+expect", "dreg:2+expect", "dreg:2+nvil"]
)
def test_gaussians_may_see_each_other_and_a_bit_between(name):
    judge(name, SEEING, exact_bound, rows=1500)


@pytest.mark.parametrize("name", ["rws:2", "rws_dreg:2"])
def test_so_too_in_wake_sleep(name):
    judge(name, SEEING, BOUNDS[name], rows=1500)


@pytest.mark.parametrize("name", ["dreg:2+expect", "vimco_dreg:2", "rws_dreg:2"])
def test_what_bits_behind_a_gaussian_say_of_it_is_counted(name):
    """Without ∇_Z log q_D the Gaussian's own parameters are off by 5 to 20 standard errors here."""
    latents = Latent("normal"), Latent(parents=(0,)), Latent(parents=(0,))
    judge(name, Spec(latents, nodes=1, taken=1, seed=11), BOUNDS[name], rows=20_000)


@pytest.mark.parametrize("name", ["vimco_dreg:3", "dreg:3", "rws_dreg:3"])
def test_the_guides_gradient_vanishes_at_the_posterior(name):
    """Where all weights are alike a doubly reparametrised gradient has no noise; a plain one has."""
    sd = torch.tensor(math.sqrt(0.2), requires_grad=True)
    images = torch.randn(5)
    grads = {}
    for method in (name, name.replace("_dreg", "").replace("dreg", "iwae")):
        found = estimator(method)
        found.prepare(conjugate, posterior(sd), images)
        loss, _ = found(conjugate, posterior(sd), images, Objective())
        grads[method] = float(torch.autograd.grad(loss, sd)[0])
    doubly, plain = grads.values()
    assert abs(doubly) < 1e-8 and abs(plain) > 1e-3


def test_double_reparametrisation_keeps_its_signal_as_samples_grow():
    spec = Spec((Latent("normal"),), nodes=1, taken=1, seed=5)
    ratio = {k: spread(f"dreg:{k}", spec) / spread(f"iwae:{k}", spec) for k in (2, 16)}
    assert ratio[2] < 1 and ratio[16] < 0.5 * ratio[2]


@pytest.mark.parametrize("name", ["iwae:3+expect", "dreg:3+nvil", "vimco:3", "vimco_dreg:3"])
def test_bounds_of_three_samples(name):
    spec = Spec((Latent(), Latent("onehot", parents=(0,))), nodes=1, taken=1, seed=11)
    judge(name, spec, exact_bound_of_three)


def exact_bound_of_three(spec, theta, x, subset):
    """The negative bound, over all triples of joint values."""
    states = enumerate_states(spec, theta, x, subset)
    chance = states.log_chance[:, None, None] + states.log_chance[:, None] + states.log_chance
    triples = torch.broadcast_tensors(
        -states.cost[:, None, None], -states.cost[:, None], -states.cost
    )
    return -(chance.exp() * (torch.stack(triples).logsumexp(0) - math.log(3))).sum()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iwae:4+vimco", "after the . comes a method for discrete sites"),
        ("nvil+rloo", "only iwae or dreg take methods"),
        ("iwae:1+nvil", "at least 2"),
        ("iwae:4+magic", "unknown estimator 'magic'"),
        ("iwae:4+z_a=rloo:2,z_b=double_cv:3", "same number of copies"),
    ],
)
def test_bad_names_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        estimator(text)


def test_what_has_no_bound_is_refused_before_the_first_step():
    torch.set_default_dtype(torch.float32)
    for text, words in (
        ("iwae:2", r"no estimator for the discrete site 'z_pres_1': give one as in iwae:4\+nvil"),
        ("iwae:2+enumerate", "cannot be enumerated"),
        ("dreg:2+gumbel", "have no density of their own"),
        ("iwae:2+z_pres*=nvil", "no estimator for the discrete site 'z_cat_1'"),
    ):
        with pytest.raises(ValueError, match=words):
            estimator(text).prepare(*make(Steps))


def test_relaxed_values_train_a_bound_too():
    torch.set_default_dtype(torch.float32)
    problem = make(Bits)
    for name in ("gumbel", "gumbel_st", "reinmax", "mean"):
        method = estimator(f"iwae:3+{name}")
        method.prepare(*problem)
        method.temperature.fill_(0.5)
        loss, terms = method(*problem, Objective())
        found = gradients(loss, problem[:2])
        assert found.isfinite().all() and (found != 0).any() and "kl/z_pres_1" in terms
