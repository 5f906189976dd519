"""The sleep phase of reweighted wake-sleep, against an integral over dreams."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from inference.estimators import estimator
from inference.objectives import Objective

PRIOR, COLOUR = 0.3, 1.4


def program(images=None, batch=1):
    batch = batch if images is None else len(images)
    with pyro.plate("batch", batch, dim=-1):
        z = pyro.sample("z", dist.Bernoulli(logits=torch.full((batch,), PRIOR)))
        mean = (COLOUR * z).view(-1, 1, 1, 1)
        pyro.sample("images", dist.Normal(mean, 1.0).to_event(3), obs=images)


def guide_with(theta):
    def guide(images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            a, b = theta.repeat(len(images) // len(theta), 1).unbind(1)
            pyro.sample("z", dist.Bernoulli(logits=a + b * images.flatten()))

    return guide


def expected(theta, seen):
    """(2,) of both halves: two samples of the guide, and x on a grid under either z."""
    theta = theta.clone().requires_grad_()
    log_q = lambda z, x: torch.nn.functional.logsigmoid((2 * z - 1) * (theta[0] + theta[1] * x))
    log_p = lambda z: -torch.nn.functional.softplus(torch.tensor((1 - 2 * z) * PRIOR))
    density = lambda x, z: (-0.5 * (x - COLOUR * z) ** 2).exp() / math.sqrt(2 * math.pi)
    x = torch.linspace(-8, 10, 4001)
    asleep = sum(torch.trapezoid(log_p(z).exp() * density(x, z) * log_q(z, x), x) for z in (0, 1))
    q = torch.stack([log_q(z, seen) for z in (0, 1)])
    weight = torch.stack([log_p(z).exp() * density(seen, z) for z in (0, 1)]) / q.exp()
    awake = 0.0
    for i in (0, 1):
        for j in (0, 1):
            share = torch.stack([weight[i], weight[j]]) / (weight[i] + weight[j])
            chance = (q[i] + q[j]).exp().detach()
            awake = awake + chance * (share.detach() * torch.stack([q[i], q[j]])).sum()
    return torch.autograd.grad(-0.5 * (asleep + awake), theta)[0]


def test_half_of_the_guides_gradient_is_from_dreams():
    pyro.enable_validation(False)
    rows, seen = 40_000, torch.tensor(0.4)
    start = torch.tensor([0.2, 0.5])
    theta = start.repeat(rows, 1).requires_grad_()
    images = seen.expand(rows, 1, 1, 1)
    method = estimator("rws_sleep:2")
    method.prepare(program, guide_with(theta), images)
    loss, _ = method(program, guide_with(theta), images, Objective())
    found = torch.autograd.grad(loss, theta)[0]
    right = expected(start, seen)
    error = found.std(0) / math.sqrt(rows)
    assert ((found.mean(0) - right).abs() < 4.5 * error).all()
    assert error.max() < 0.1 * right.abs().max()


def test_a_program_that_does_not_dream_is_refused():
    def awake(images):
        program(images)

    with pytest.raises(ValueError, match="this program does not: let program"):
        guide = guide_with(torch.zeros(2, 2))
        estimator("rws_sleep").prepare(awake, guide, torch.zeros(2, 1, 1, 1))


def test_a_defensive_mixture_tries_what_the_guide_has_given_up():
    sure = torch.tensor([[-30.0, 0.0]]).repeat(500, 1).requires_grad_()
    images = torch.full((500, 1, 1, 1), 1.4)
    grads = {}
    for name in ("rws:8", "rws_defensive:8"):
        method = estimator(name)
        method.prepare(program, guide_with(sure), images)
        loss, _ = method(program, guide_with(sure), images, Objective())
        grads[name] = torch.autograd.grad(loss, sure)[0][:, 0].mean()
    assert grads["rws:8"].abs() < 1e-6 and grads["rws_defensive:8"] < -0.3
