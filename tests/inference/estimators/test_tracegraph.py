"""Pyro's TraceGraph_ELBO in the trainer: the guide's own baselines are honoured."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from discrete_programs import Bits, BitsGuide, exact_loss, gradients, make
from pyro.infer import TraceGraph_ELBO
from torch import nn

from inference.estimators import estimator
from inference.objectives import Objective
from programs.blocks.distributions import gate


class Baselined(nn.Module):
    """`BitsGuide` with baselines as Pyro's documentation has them."""

    def __init__(self, options):
        super().__init__()
        self.inner, self.options = BitsGuide(), options
        self.net = nn.Linear(256, 3)

    def forward(self, images):
        x = images.flatten(1)[:, :3]
        option = {"nn_baseline": self.net, "nn_baseline_input": images.flatten(1)}
        option = {k: v for k, v in option.items() if k in self.options}
        option |= {k: v for k, v in self.options.items() if k not in option}
        with pyro.plate("batch", len(images), dim=-2), pyro.plate("nodes", 3, dim=-1):
            first = dist.Bernoulli(logits=self.inner.first + 0.5 * x)
            a = pyro.sample("z_pres_1", first, infer={"baseline": option})
            with gate(a):
                second = dist.Bernoulli(logits=self.inner.second - x)
                pyro.sample("z_pres_2", second, infer={"baseline": option})


LEARNED = {"nn_baseline": True, "nn_baseline_input": True}


def test_without_baselines_it_is_pyros_gradient_draw_for_draw():
    program, guide, images = make(Bits)
    method = estimator("tracegraph")
    method.prepare(program, guide, images)
    torch.manual_seed(4)
    loss, terms = method(program, guide, images, Objective())
    ours = gradients(loss, (program, guide))
    torch.manual_seed(4)
    theirs = TraceGraph_ELBO().loss_and_grads(program, guide, images)
    grads = [p.grad.flatten() for m in (program, guide) for p in m.parameters()]
    torch.testing.assert_close(ours, torch.cat(grads))
    assert set(terms) == {"kl/z_pres_1", "kl/z_pres_2", "images"} and theirs > 0


def test_a_guides_baseline_is_fitted_and_lowers_the_variance():
    program, _, images = make(Bits)
    images = images[:1].repeat(500, 1, 1, 1)
    torch.manual_seed(0)
    guide, method = Baselined(LEARNED), estimator("tracegraph")
    method.prepare(program, guide, images)
    optimiser = torch.optim.Adam(guide.net.parameters(), 0.1)

    def spread():
        found = []
        for _ in range(60):
            loss, _ = method(program, guide, images[:20], Objective())
            found.append(torch.autograd.grad(loss, guide.inner.first)[0])
        return torch.stack(found)

    with torch.no_grad():
        for parameter in guide.net.parameters():
            parameter.zero_()
    before = spread()
    for _ in range(100):
        optimiser.zero_grad()
        method(program, guide, images, Objective())[0].backward()
        optimiser.step()
    after = spread()
    assert after.var(0).sum() < 0.7 * before.var(0).sum()
    exact = exact_loss(program, guide.inner, images[:1])
    expected = 20 * torch.autograd.grad(exact, guide.inner.first)[0]
    error = after.std(0) / 60**0.5
    assert ((after.mean(0) - expected).abs() < 4.5 * error).all()


@pytest.mark.parametrize("option", ["use_decaying_avg_baseline", "baseline_value"])
def test_other_options_of_a_baseline_are_honoured(option):
    program, _, images = make(Bits)
    value = True if option.startswith("use") else torch.full((2, 3), 5.0)
    guide, method = Baselined({option: value}), estimator("tracegraph")
    method.prepare(program, guide, images)
    torch.manual_seed(1)
    with_it = [
        gradients(method(program, guide, images, Objective())[0], [guide.inner]) for _ in "12"
    ]
    plain = BitsGuide()
    torch.manual_seed(1)
    without = [gradients(method(program, plain, images, Objective())[0], [plain]) for _ in "12"]
    assert not torch.allclose(with_it[1], without[1])


def test_a_wrong_option_is_refused_by_pyro():
    program, _, images = make(Bits)
    guide, method = Baselined({"no_such_option": 1}), estimator("tracegraph")
    method.prepare(program, guide, images)
    with pytest.raises(ValueError, match=r"[Uu]nrecognized baseline"):
        method(program, guide, images, Objective())
