"""The sleep phase alone: its minimum is the posterior, in whatever order objects are explained."""

import math
from itertools import permutations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from inference.estimators import estimator
from inference.estimators.dreams import dream, orders, reordered, steps_of
from inference.estimators.sleep import log_sum_by_row
from inference.objectives import Objective
from programs.blocks.distributions import gate

NOISE = 0.5


def slope(images=None, batch=1):
    """z ~ N(0, 1), x ~ N(z, NOISE²): the posterior is N(x / (1 + NOISE²), NOISE² / (1 + NOISE²))."""
    batch = batch if images is None else len(images)
    with pyro.plate("batch", batch, dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros(batch), 1.0))
        pyro.sample("images", dist.Normal(z.view(-1, 1, 1, 1), NOISE).to_event(3), obs=images)


class Line(nn.Module):
    """q(z | x) = N(a x + b, exp(c)²)."""

    def __init__(self):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([0.0, 0.5, -1.5]))

    def forward(self, images, batch=1):
        a, b, c = self.numbers
        with pyro.plate("batch", len(images), dim=-1):
            pyro.sample("z", dist.Normal(a * images.flatten() + b, c.exp()))


def test_a_guide_that_was_too_sure_becomes_the_posterior():
    pyro.set_rng_seed(0)
    guide, method = Line(), estimator("sleep")
    images = torch.zeros(400, 1, 1, 1)
    method.prepare(slope, guide, images)
    adam = torch.optim.Adam(guide.parameters(), lr=0.05)
    for step in range(400):
        adam.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        loss, terms = method(slope, guide, images, Objective())
        adam.zero_grad()
        (loss / len(images)).backward()
        adam.step()
    a, b, c = guide.numbers.detach()
    var = NOISE**2 / (1 + NOISE**2)
    assert a == pytest.approx(1 / (1 + NOISE**2), abs=0.02) and abs(b) < 0.02
    assert c.exp() == pytest.approx(math.sqrt(var), rel=0.03)
    entropy = 0.5 * math.log(2 * math.pi * math.e * var)
    assert float(terms["dreams"]) / len(images) == pytest.approx(entropy, abs=0.15)


def two(images=None, batch=1):
    """At most two numbers, one after the other."""
    batch = batch if images is None else len(images)
    with pyro.plate("batch", batch, dim=-1):
        exists, total = torch.ones(batch), torch.zeros(batch)
        for t in (1, 2):
            with gate(exists):
                pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(torch.full((batch,), 0.7)))
            exists = exists * pres
            with gate(exists):
                total = total + exists * pyro.sample(
                    f"z_where_{t}", dist.Normal(torch.zeros(batch), 1.0)
                )
        pyro.sample("images", dist.Normal(total.view(-1, 1, 1, 1), 1.0).to_event(3), obs=images)


def test_a_dream_has_the_orders_of_its_objects():
    pyro.set_rng_seed(1)
    found = dream(two, "images", torch.Size([50, 1, 1, 1]))
    rows, values = reordered(found)
    number = torch.stack([found.values[f"z_pres_{t}"] for t in (1, 2)]).cumprod(0).sum(0).long()
    assert rows.bincount().tolist() == [math.factorial(n) for n in number.tolist()]
    for row in (number == 2).nonzero().flatten()[:5]:
        pair = [float(found.values[f"z_where_{t}"][row]) for t in (1, 2)]
        mine = torch.stack([values["z_where_1"], values["z_where_2"]], 1)[rows == row]
        assert sorted(mine.tolist()) == sorted([list(p) for p in permutations(pair)])
    assert steps_of({"z_pres": found.trace.nodes["z_pres_1"]}) == ([], {})


def test_the_loss_counts_both_orders():
    def guide(images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            exists, x = torch.ones(len(images)), images.flatten()
            for t in (1, 2):
                with gate(exists):
                    pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(logits=x))
                exists = exists * pres
                with gate(exists):
                    pyro.sample(f"z_where_{t}", dist.Normal(t * x, 1.0))

    method, images = estimator("sleep"), torch.zeros(200, 1, 1, 1)
    method.prepare(two, guide, images)
    pyro.set_rng_seed(2)
    loss, _ = method(two, guide, images, Objective())
    pyro.set_rng_seed(2)
    found = dream(two, "images", images.shape)
    x, v = found.images.flatten(), found.values
    on = [v[f"z_pres_{t}"] for t in (1, 2)]
    count = on[0] + on[0] * on[1]
    log_n = torch.where(count > 0, x.sigmoid().log(), (-x).sigmoid().log())
    log_n += torch.where(count == 2, x.sigmoid().log(), (-x).sigmoid().log()).where(count > 0, 0.0)
    place = lambda a, t: dist.Normal(t * x, 1.0).log_prob(v[f"z_where_{a}"])
    both = torch.logaddexp(place(1, 1) + place(2, 2), place(2, 1) + place(1, 2))
    exact = log_n + torch.where(count == 2, both, place(1, 1).where(count == 1, 0.0))
    assert float(loss) == pytest.approx(-float(exact.sum()), rel=1e-5)


def test_three_objects_have_six_orders_and_absent_ones_stay():
    rows, order = orders(torch.tensor([3, 0, 2]), 4)
    assert rows.tolist() == [0] * 6 + [1] + [2] * 2
    assert {tuple(o) for o in order[:6].tolist()} == {(*p, 3) for p in permutations(range(3))}
    assert order[6:].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 0, 2, 3]]


def test_probabilities_of_orders_add_up():
    x = torch.tensor([-1000.0, -1001.0, 0.3], requires_grad=True)
    total = log_sum_by_row(x, torch.tensor([0, 0, 1]), 2)
    assert total.tolist() == pytest.approx([-1000 + math.log(1 + math.exp(-1)), 0.3])
    total.sum().backward()
    assert x.grad.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e), 1.0])
