"""Gradient estimators against exact enumeration on a program small enough to sum over."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import nn

from inference.estimators import ESTIMATORS, Relaxed
from inference.objectives import Gaussian, Mixture, Objective, Sparse, closed_form_terms
from programs.distributions import gate

SITES = 3
COPIES = 64  # of every image in a batch: draws by the batch are cheaper than by the call


class Bits(nn.Module):
    """z_pres_1 (3 bits), then z_pres_2 gated by them, then one pixel a bit: 2^6 scenes."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))
        self.colour = nn.Parameter(torch.tensor([0.9, 0.4, -0.7]))

    def forward(self, images):
        with pyro.plate("batch", len(images), dim=-2):
            with pyro.plate("nodes", SITES, dim=-1):
                a = pyro.sample(
                    "z_pres_1", dist.Bernoulli(logits=self.prior.expand(len(images), -1))
                )
                with gate(a):
                    b = pyro.sample("z_pres_2", dist.Bernoulli(logits=-self.prior.expand_as(a)))
            mean = (a * (1 + b) * self.colour).unsqueeze(-2)
            flat = images.flatten(1)[:, :SITES].unsqueeze(1)
            pyro.sample("images", dist.Normal(mean, 0.6).to_event(1), obs=flat)


class BitsGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.2, -0.6, 0.1]))
        self.second = nn.Parameter(torch.tensor([0.7, 0.3, -0.4]))

    def forward(self, images):
        x = images.flatten(1)[:, :SITES]
        with pyro.plate("batch", len(images), dim=-2), pyro.plate("nodes", SITES, dim=-1):
            a = pyro.sample("z_pres_1", dist.Bernoulli(logits=self.first + 0.5 * x))
            with gate(a):
                pyro.sample("z_pres_2", dist.Bernoulli(logits=self.second - x))


def log_bernoulli(logit, bit):
    return nn.functional.logsigmoid(logit if bit else -logit)


def exact_loss(program, guide, images, sparse=None):
    """The negative ELBO by summing over all bits of every pixel, written out without Pyro."""
    total = 0.0
    for x in images.flatten(1)[:, :SITES]:
        for k in range(SITES):
            q1, q2 = guide.first[k] + 0.5 * x[k], guide.second[k] - x[k]
            p1, p2 = program.prior[k], -program.prior[k]
            for a, b in itertools.product((0, 1), repeat=2):
                weight = (log_bernoulli(q1, a) + log_bernoulli(q2, b)).exp()
                mean = a * (1 + b) * program.colour[k]
                cost = 0.5 * ((x[k] - mean) / 0.6) ** 2 + math.log(0.6 * math.sqrt(2 * math.pi))
                cost = cost + log_bernoulli(q1, a) - log_bernoulli(p1, a)
                cost = cost + a * (log_bernoulli(q2, b) - log_bernoulli(p2, b))
                total = total + weight * cost
            if sparse is not None:
                for gate_weight, q in ((1.0, q1), (q1.sigmoid(), q2)):
                    p = q.sigmoid()
                    r = torch.tensor(sparse)
                    kl = p * (log_bernoulli(q, 1) - log_bernoulli(r, 1))
                    kl = kl + (1 - p) * (log_bernoulli(q, 0) - log_bernoulli(r, 0))
                    total = total + gate_weight * kl
    return total


@pytest.fixture
def problem():
    torch.manual_seed(3)
    return Bits(), BitsGuide(), torch.rand(2, 1, 16, 16)


def gradients(loss, modules):
    parameters = [p for m in modules for p in m.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def draws(name, problem, objective, number, temperature=None):
    """`number` values and gradients, each the mean of COPIES draws."""
    program, guide, images = problem
    images = images.repeat(COPIES, 1, 1, 1)
    pyro.enable_validation(False)
    estimator = ESTIMATORS[name]()
    estimator.prepare(program, guide, images)
    if temperature:
        estimator.temperature.fill_(temperature)
    values, grads = [], []
    for _ in range(number):
        loss, terms = estimator(program, guide, images, objective)
        grads.append(gradients(loss, (program, guide)) / COPIES)
        values.append(sum(terms.values()).detach() / COPIES)
    return torch.stack(values), torch.stack(grads)


@pytest.mark.parametrize("sparse", [None, -2.0])
def test_nvil_is_unbiased_with_and_without_auxiliary_kl(problem, sparse):
    objective = Objective(auxiliary={} if sparse is None else {"z_pres*": Sparse(sparse)})
    n = 100
    values, grads = draws("nvil", problem, objective, n)
    exact = exact_loss(*problem, sparse=sparse)
    expected = gradients(exact, problem[:2])
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(n)
    error = grads.std(0) / math.sqrt(n)
    assert ((grads.mean(0) - expected).abs() < 4 * error + 1e-6).all()
    assert error.max() < 0.2 * expected.abs().max()  # or the line above could not fail


def test_a_fitted_baseline_lowers_the_variance_of_the_gradient(problem):
    program, guide, images = problem
    pyro.enable_validation(False)
    spread = {}
    for fitted in (False, True):
        torch.manual_seed(0)
        nvil = ESTIMATORS["nvil"]()
        nvil.prepare(program, guide, images)
        optimiser = torch.optim.Adam(nvil.parameters(), 1e-2)
        for _ in range(150 if fitted else 0):
            optimiser.zero_grad()
            nvil(program, guide, images, Objective())[0].backward()
            optimiser.step()
        moments = {k: v.clone() for k, v in nvil.state_dict().items()}
        grads = []
        for _ in range(300):
            nvil.load_state_dict(moments)  # an unfitted baseline stays at zero
            loss, _ = nvil(program, guide, images, Objective())
            grads.append(gradients(loss, (guide,)))
        spread[fitted] = torch.stack(grads).var(0).sum()
    assert spread[True] < 0.8 * spread[False]


def test_gumbel_gradients_point_along_the_exact_ones_and_are_biased(problem):
    n = 100
    _, grads = draws("gumbel", problem, Objective(), n, temperature=0.5)
    expected = gradients(exact_loss(*problem), problem[:2])
    mean, error = grads.mean(0), grads.std(0) / math.sqrt(n)
    assert nn.functional.cosine_similarity(mean, expected, dim=0) > 0.9
    assert (
        (mean - expected).abs() > 4 * error
    ).any()  # documented: the relaxed program is another one


def test_straight_through_values_are_exactly_zero_or_one_and_carry_a_gradient():
    logits = torch.zeros(1000, requires_grad=True)
    value = Relaxed(logits, 0.5, hard=True).rsample()
    assert set(value.unique().tolist()) == {0.0, 1.0}
    value.sum().backward()
    assert (logits.grad >= 0).all() and (logits.grad > 0).float().mean() > 0.9


def test_straight_through_loss_is_a_true_estimate_of_the_bound(problem):
    n = 100
    values, _ = draws("gumbel_st", problem, Objective(), n, temperature=0.5)
    assert abs(values.mean() - exact_loss(*problem)) < 4 * values.std() / math.sqrt(n)


def test_relaxed_samples_are_one_as_often_as_the_bernoulli():
    logits = torch.tensor([-2.0, 0.0, 1.0]).expand(20_000, 3)
    share = (Relaxed(logits, 0.7, hard=False).rsample() > 0.5).float().mean(0)
    p = logits[0].sigmoid()
    assert ((share - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all()


def test_relaxing_a_categorical_is_refused_by_name():
    def program(images):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z_cat", dist.Categorical(logits=torch.zeros(len(images), 3)))

    with pytest.raises(ValueError, match=r"z_cat.*Categorical.*nvil"):
        ESTIMATORS["gumbel"]()(program, program, torch.zeros(2, 1, 4, 4), Objective())


def test_estimators_of_a_program_with_gaussians_only_give_the_closed_form_loss():
    def program(images):
        with pyro.plate("batch", len(images), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(images)), 1.0))
            pyro.sample("images", dist.Normal(z, 1.0), obs=images)

    def guide(images):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z", dist.Normal(images / 2, math.sqrt(0.5)))  # the exact posterior

    x = torch.tensor([0.3, -1.2])
    trace = Objective().traces(program, guide, x)
    terms = closed_form_terms(*trace)
    kl = 0.5 * (0.5 + (x / 2) ** 2 - 1 - math.log(0.5))
    torch.testing.assert_close(terms["kl/z"], kl.sum())


def test_auxiliary_kls_agree_with_numerical_integration():
    q = dist.Normal(torch.tensor([0.4]), torch.tensor([0.3]))
    z = torch.linspace(-4, 4, 40_001)
    density = q.log_prob(z).exp()
    mixture = Mixture((0.2, 0.8), (-0.2, -1.2), (0.1, 0.2))
    log_r = torch.logsumexp(
        torch.stack(
            [
                math.log(w) + dist.Normal(m, v).log_prob(z)
                for w, m, v in ((0.2, -0.2, 0.1), (0.8, -1.2, 0.2))
            ]
        ),
        0,
    )
    expected = torch.trapezoid(density * (q.log_prob(z) - log_r), z)
    values = torch.stack([mixture.kl(q) for _ in range(200)])
    error = values.std() / math.sqrt(200)
    assert abs(values.mean() - expected) < 4 * error
    log_r = dist.Normal(4.0, 2.0).log_prob(z)
    expected = torch.trapezoid(density * (q.log_prob(z) - log_r), z)
    assert float(Gaussian(4, 2).kl(q)) == pytest.approx(float(expected), rel=1e-4)


def test_mixture_treats_the_features_of_a_site_jointly():
    q = dist.Normal(torch.zeros(1, 2), torch.full((1, 2), 1e-3)).to_event(1)
    mixture = Mixture((0.5, 0.5), (0.0, 1.0), (0.2, 0.2))
    joint = math.log(0.5 * math.exp(-0.0) + 0.5 * math.exp(-25.0)) - math.log(2 * math.pi * 0.04)
    assert float(mixture.kl(q)) == pytest.approx(float(-q.entropy()) - joint, abs=1e-2)


def test_weights_scale_a_site_and_leave_the_likelihood(problem):
    program, guide, images = problem
    program_trace, guide_trace = Objective(weights={"z_*": 0.0}).traces(program, guide, images)
    assert guide_trace.log_prob_sum().item() == 0.0
    images_only = program_trace.log_prob_sum(lambda name, site: name == "images")
    assert program_trace.log_prob_sum().item() == pytest.approx(images_only.item())
    plain = poutine.trace(poutine.replay(program, trace=guide_trace)).get_trace(images)
    assert plain.log_prob_sum().item() != pytest.approx(images_only.item())
