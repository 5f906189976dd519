"""Gradient estimators against exact enumeration on a program small enough to sum over."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from discrete_programs import EXACT, SITES, Bits, Steps, exact_loss, gradients, log_bernoulli, make
from pyro.infer import TraceGraph_ELBO
from torch import nn

from inference.estimators import Fix, estimator
from inference.objectives import (
    Objective,
    Sparse,
    cost_terms,
    log_prob_per_image,
    per_image,
)

COPIES = 64  # of every image in a batch: draws by the batch are cheaper than by the call


@pytest.fixture
def problem():
    return make(Bits)


def draws(name, problem, objective, number, temperature=None):
    """`number` values and gradients, each the mean of COPIES draws."""
    program, guide, images = problem
    images = images.repeat(COPIES, 1, 1, 1)
    pyro.enable_validation(False)
    method = estimator(name)
    method.prepare(program, guide, images)
    if temperature:
        method.temperature.fill_(temperature)
    values, grads = [], []
    for _ in range(number):
        loss, terms = method(program, guide, images, objective)
        grads.append(gradients(loss, (program, guide)) / COPIES)
        values.append(sum(terms.values()).detach() / COPIES)
    return torch.stack(values), torch.stack(grads)


UNBIASED = {
    Bits: ("reinforce", "nvil", "rloo:2", "rloo:5", "relax", "disarm", "z_pres_1=disarm,z_pres_2=rloo"),
    Steps: ("reinforce", "nvil", "rloo", "relax", "z_pres*=disarm,z_cat*=relax", "z_pres*=nvil,z_cat*=rloo"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("program", "name", "sparse"),
    [(p, name, None) for p, names in UNBIASED.items() for name in names]
    + [(Bits, name, -2.0) for name in ("nvil", "rloo", "disarm")],
)
def test_estimators_that_claim_it_are_unbiased(program, name, sparse):
    """Value and every component of the gradient within 4 standard errors of the exact ones."""
    problem, n = make(program), 100
    objective = Objective(auxiliary={} if sparse is None else {"z_pres*": Sparse(sparse)})
    values, grads = draws(name, problem, objective, n)
    exact = EXACT[program](*problem, sparse=sparse)
    expected = gradients(exact, problem[:2])
    assert abs(values.mean() - exact) < 4 * values.std() / math.sqrt(n)
    error = grads.std(0) / math.sqrt(n)
    assert ((grads.mean(0) - expected).abs() < 4 * error + 1e-6).all()
    assert error.max() < 0.2 * expected.abs().max()  # or the line above could not fail


@pytest.mark.parametrize("program", [Bits, Steps])
def test_pyros_trace_graph_has_the_same_mean_and_no_less_variance(program):
    """`reinforce` differs from ``TraceGraph_ELBO`` in its closed-form KLs."""
    problem, n = make(program), 100
    modules, x = problem[:2], problem[2].repeat(COPIES, 1, 1, 1)
    pyro.enable_validation(False)
    theirs = []
    for _ in range(n):
        for module in modules:
            module.zero_grad()
        TraceGraph_ELBO().loss_and_grads(*modules, x)
        theirs.append(
            torch.cat([p.grad.flatten() for m in modules for p in m.parameters()]) / COPIES
        )
    theirs = torch.stack(theirs)
    expected = gradients(EXACT[program](*problem), modules)
    assert ((theirs.mean(0) - expected).abs() < 4 * theirs.std(0) / math.sqrt(n) + 1e-6).all()
    _, ours = draws("reinforce", problem, Objective(), n)
    assert ours.var(0).sum() < 1.2 * theirs.var(0).sum()


@pytest.mark.parametrize("program", [Bits, Steps])
def test_enumeration_is_exact(program):
    problem = make(program)
    method = estimator("enumerate")
    method.prepare(*problem)
    loss, terms = method(*problem, Objective())
    exact = EXACT[program](*problem)
    torch.testing.assert_close(sum(terms.values()), exact.detach())
    torch.testing.assert_close(gradients(loss, problem[:2]), gradients(exact, problem[:2]))


@pytest.mark.parametrize("program", [Bits, Steps])
def test_vimco_follows_the_gradient_of_the_two_sample_bound(program):
    """The bound by enumerating both samples: every image twice, all joint values of both copies."""
    problem, n = make(program), 150
    every = estimator("enumerate")
    every.prepare(*problem)
    images = problem[2]
    x = images.repeat(every.states, 1, 1, 1)
    with Fix(every.values(len(images))):
        program_trace, guide_trace = Objective().traces(*problem[:2], x)
    log_w = (log_prob_per_image(program_trace) - log_prob_per_image(guide_trace)).view(-1, 2)
    chance = every.weight(guide_trace, len(x)).view(-1, 2)
    both = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2)
    expected = gradients(-(chance[:, None] * chance[None] * both).sum(), problem[:2])
    _, grads = draws("vimco:2", problem, Objective(), n)
    error = grads.std(0) / math.sqrt(n)
    assert ((grads.mean(0) - expected).abs() < 4 * error + 1e-6).all()
    assert error.max() < 0.2 * expected.abs().max()


def test_wake_sleep_with_many_samples_follows_the_evidence_and_fits_the_posterior():
    """As K grows the program's gradient becomes that of -log p(x), the guide's that of KL(p || q)."""
    program, guide, images = make(Bits)
    x = images.flatten(1)[:, :SITES]
    evidence, inclusive = 0.0, 0.0
    for row, k in itertools.product(x, range(SITES)):
        joint, log_q = [], []
        for a, b in itertools.product((0, 1), repeat=2):
            mean = a * (1 + b) * program.colour[k]
            log_p = log_bernoulli(program.prior[k], a) + a * log_bernoulli(-program.prior[k], b)
            log_p = log_p - 0.5 * ((row[k] - mean) / 0.6) ** 2
            q2 = log_bernoulli(guide.second[k] - row[k], b)
            joint.append(log_p if a else log_p - math.log(2))  # b is irrelevant where a = 0
            log_q.append(log_bernoulli(guide.first[k] + 0.5 * row[k], a) + a * q2)
        joint, log_q = torch.stack(joint), torch.stack(log_q)
        evidence = evidence - joint.logsumexp(0)
        inclusive = inclusive - (joint.softmax(0).detach() * log_q).sum()
    expected = torch.cat([gradients(evidence, [program]), gradients(inclusive, [guide])])
    _, grads = draws("rws:50", (program, guide, images), Objective(), 30)
    assert nn.functional.cosine_similarity(grads.mean(0), expected, dim=0) > 0.995
    assert (grads.mean(0) - expected).norm() < 0.1 * expected.norm()


def test_control_variates_lower_the_variance_by_the_ratios_that_the_readme_states(problem):
    """Of the guide's gradient at equal images, against the yardstick."""
    spread = {}
    for name in ("reinforce", "nvil", "rloo:2", "disarm"):
        _, grads = draws(name, problem, Objective(), 150)
        spread[name] = grads[:, 6:].var(0).sum()
    assert spread["rloo:2"] < 0.5 * spread["reinforce"]
    assert spread["disarm"] < 0.5 * spread["reinforce"]


@pytest.mark.parametrize("name", ["nvil", "relax"])
def test_fitting_lowers_the_variance_of_the_gradient(problem, name):
    program, guide, images = problem
    pyro.enable_validation(False)
    spread = {}
    for fitted in (False, True):
        torch.manual_seed(0)
        method = estimator(name)
        method.prepare(program, guide, images)
        optimiser = torch.optim.Adam(method.parameters(), 1e-2)
        for _ in range(150 if fitted else 0):
            optimiser.zero_grad()
            method(program, guide, images, Objective())[0].backward()
            optimiser.step()
        moments = {k: v.clone() for k, v in method.state_dict().items()}
        grads = []
        for _ in range(300):
            method.load_state_dict(moments)  # an unfitted baseline stays at zero
            loss, _ = method(program, guide, images, Objective())
            grads.append(gradients(loss, (guide,)))
        spread[fitted] = torch.stack(grads).var(0).sum()
    assert spread[True] < 0.8 * spread[False]


BIASED = ("gumbel", "gumbel_st", "reinmax")


@pytest.mark.parametrize("program", [Bits, Steps])
def test_pathwise_gradients_point_along_the_exact_ones_and_are_biased(program):
    """All are, ReinMax less than the straight-through sample: it is of second order, and so exact for Bits,
    whose loss is quadratic in every bit."""
    problem, n, bias = make(program), 100, {}
    expected = gradients(EXACT[program](*problem), problem[:2])
    for name in BIASED:
        _, grads = draws(name, problem, Objective(), n, temperature=0.5)
        mean, error = grads.mean(0), grads.std(0) / math.sqrt(n)
        assert nn.functional.cosine_similarity(mean, expected, dim=0) > 0.7
        biased = ((mean - expected).abs() > 4 * error).any()
        assert biased or name == "reinmax"
        assert not biased or (name, program) != ("reinmax", Bits)
        bias[name] = (mean - expected).norm()
    assert bias["reinmax"] < bias["gumbel_st"]


def test_straight_through_loss_is_a_true_estimate_of_the_bound(problem):
    n = 100
    values, _ = draws("gumbel_st", problem, Objective(), n, temperature=0.5)
    assert abs(values.mean() - exact_loss(*problem)) < 4 * values.std() / math.sqrt(n)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("magic", "unknown estimator 'magic'"),
        ("rloo:1", "at least 2"),
        ("nvil:3", "take a number"),
        ("z_pres*=vimco,z_cat*=nvil", "give one alone"),
    ],
)
def test_bad_names_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        estimator(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "z_pres*=nvil",
            r"the discrete site 'z_cat_1'; patterns are z_pres\*: add z_cat\*=nvil to --est",
        ),
        ("z_*=nvil,z_kind*=rloo", "'z_kind\\*' matches no discrete site"),
        ("z_*=nvil,z_pres*=rloo", "'z_pres\\*' comes after others that match all of its sites"),
        ("disarm", "'z_cat_1' is OneHotCategorical"),
        ("z_pres*=nvil,z_cat*=enumerate", "beside gumbel"),
    ],
)
def test_methods_that_do_not_fit_the_sites_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        estimator(text).prepare(*make(Steps))


def test_a_space_too_large_to_enumerate_is_refused():
    def program(images):
        with pyro.plate("batch", len(images), dim=-2), pyro.plate("nodes", 13, dim=-1):
            pyro.sample("z_pres", dist.Bernoulli(logits=torch.zeros(len(images), 13)))

    with pytest.raises(ValueError, match="8192 joint values"):
        estimator("enumerate").prepare(program, program, torch.zeros(2, 1, 16, 16))


def test_enumerating_some_sites_and_relaxing_others_is_exact_in_the_limit_of_no_choice():
    """With kinds that are all but certain, relaxing them changes nothing: the enumerated gradient."""
    program, guide, images = make(Steps)
    with torch.no_grad():
        guide.kind.copy_(torch.tensor([[30.0, 0, 0], [0, 30.0, 0]]))
    grads = []
    for name in ("enumerate", "z_pres*=enumerate,z_cat*=gumbel_st"):
        method = estimator(name)
        method.prepare(program, guide, images)
        loss, _ = method(program, guide, images, Objective())
        grads.append(gradients(loss, [program]))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_relaxing_a_categorical_is_refused_by_name():
    def program(images):
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z_cat", dist.Categorical(logits=torch.zeros(len(images), 3)))

    with pytest.raises(ValueError, match=r"z_cat.*Categorical.*nvil"):
        estimator("gumbel").prepare(program, program, torch.zeros(2, 1, 4, 4))


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
    terms = {name: per_image(t).sum() for name, t in cost_terms(*trace).items()}
    kl = 0.5 * (0.5 + (x / 2) ** 2 - 1 - math.log(0.5))
    torch.testing.assert_close(terms["kl/z"], kl.sum())
