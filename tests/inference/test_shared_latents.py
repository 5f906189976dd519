"""Latents that are of all images: their terms count once, as in Pyro, and their draws are independent."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.distributions import kl_divergence

from analysis.posterior import draw, log_weights
from inference.adapt import Names, rename
from inference.estimators import estimator
from inference.loading import Function
from inference.objectives import Objective, check_match

IMAGES = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def classic():
    with pyro.settings.context(module_local_params=False):
        yield


def conjugate(images):
    mean = pyro.sample("mean", dist.Normal(torch.zeros(4), 1.0).to_event(1))
    with pyro.plate("batch", len(images), dim=-1):
        pyro.sample("images", dist.Normal(mean, 0.5).to_event(1), obs=images.flatten(1))


def exact(images):
    """The posterior of that mean: every image has precision 4."""
    pyro.sample("mean", dist.Normal(*posterior(IMAGES)).to_event(1))


def posterior(images):
    precision = 1 + 4 * len(images)
    return 4 * images.flatten(1).sum(0) / precision, precision**-0.5


def evidence(images):
    """log p of all images, by the dense covariance of each pixel over images."""
    covariance = torch.ones(len(images), len(images)) + 0.25 * torch.eye(len(images))
    joint = torch.distributions.MultivariateNormal(torch.zeros(len(images)), covariance)
    return joint.log_prob(images.flatten(1).T).sum()


def test_weights_of_the_exact_posterior_sum_to_the_evidence_of_all_images():
    weights = log_weights(conjugate, exact, IMAGES, 30)
    torch.testing.assert_close(weights.sum(1), evidence(IMAGES).expand(30), atol=1e-3, rtol=0)


def test_every_draw_of_them_is_its_own_and_the_same_for_all_images():
    drawn = draw(conjugate, exact, IMAGES, 400)
    means = drawn.latents["mean"]
    assert drawn.shared == ("mean",) and means.shape == (400, 4, 4)
    assert torch.equal(means[:, :1].expand_as(means), means)
    mean, deviation = posterior(IMAGES)
    assert ((means[:, 0].mean(0) - mean) / deviation * 20).abs().max() < 4  # 400 draws
    assert abs(means[:, 0].std(0).mean() / deviation - 1) < 4 / math.sqrt(2 * 1600)


def constrained(images):
    share = pyro.sample("share", dist.Beta(2.0, 3.0))
    spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
    with pyro.plate("batch", len(images), dim=-1):
        fn = dist.Normal(share, spread).expand([4]).to_event(1)
        pyro.sample("images", fn, obs=images.flatten(1))


@pytest.mark.parametrize("make", [AutoNormal, AutoMultivariateNormal])
@pytest.mark.parametrize("name", ["gumbel", "tracegraph"])
def test_the_loss_of_an_automatic_guide_is_pyros(make, name):
    """With the density of what is transformed, which is no closed-form KL's."""
    guide = make(constrained)
    guide(IMAGES)
    pyro.set_rng_seed(1)
    expected = Trace_ELBO().loss(constrained, guide, IMAGES)
    program, own = Function(constrained), Function(guide)
    check_match(*Objective().traces(program, own, IMAGES))
    method = estimator(name)
    method.prepare(program, own, IMAGES)
    pyro.set_rng_seed(1)
    _, terms = method(program, own, IMAGES, Objective())
    assert float(sum(terms.values())) == pytest.approx(expected, rel=1e-5)


def test_copies_of_a_batch_count_them_once():
    """rloo runs 4 copies of every image, with one draw of what is of all images."""

    def program(images):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("batch", len(images), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(torch.full((len(images),), 0.5)))
            pyro.sample("images", dist.Normal(mean + 0 * z, 1.0), obs=images[:, 0, 0, 0])

    def guide(images):
        pyro.sample("mean", dist.Normal(2.0, 1.0))
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z", dist.Bernoulli(torch.full((len(images),), 0.5)))

    for name in ("rloo:4", "nvil", "enumerate"):
        method = estimator(name)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "nothing observed depends")
            method.prepare(program, guide, IMAGES)
            _, terms = method(program, guide, IMAGES, Objective())
        assert float(terms["kl/mean"]) == pytest.approx(2.0)  # (2 - 0)² / 2


def test_bounds_per_image_are_refused():
    method = estimator("vimco")
    with pytest.raises(ValueError, match="mean are of all images"):
        method.prepare(conjugate, exact, IMAGES)


def test_svi_reaches_the_exact_posterior():
    def guide(images):
        loc, log_scale = (pyro.param(n, torch.zeros(4)) for n in ("loc", "log_scale"))
        pyro.sample("mean", dist.Normal(loc, log_scale.exp()).to_event(1))

    program, own, method = Function(conjugate), Function(guide), estimator("gumbel")
    for function in (own, program):
        function(IMAGES)
    parameters = [*own.parameters()]
    optimiser = torch.optim.Adam(parameters, 0.05)
    for step in range(500):
        optimiser.param_groups[0]["lr"] = 0.05 * 0.99**step
        loss, _ = method(program, own, IMAGES, Objective())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = dist.Normal(pyro.param("loc").detach(), pyro.param("log_scale").detach().exp())
    wanted = dist.Normal(*posterior(IMAGES))
    start = kl_divergence(dist.Normal(torch.zeros(4), 1.0), wanted).sum()
    assert kl_divergence(found, wanted).sum() < 0.01 * start


def test_a_latent_called_as_something_known_here_gets_another_name():
    def model(images):
        with pyro.plate("images", len(images)):
            z = pyro.sample("batch", dist.Normal(torch.zeros(len(images)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=images[:, 0, 0, 0])

    module = Function(model)
    rename(Names("images", "x"), module)
    trace = pyro.poutine.trace(module).get_trace(IMAGES)
    assert [n for n in trace.nodes if trace.nodes[n]["type"] == "sample"] == [
        "batch",
        "batch_",
        "images",
    ]
    assert {f.name for f in trace.nodes["images"]["cond_indep_stack"]} == {"batch"}
