"""Relaxed draws: straight-through values, and how often they are one."""

import pyro.distributions as dist
import torch

from inference.estimators.relaxations import Relaxed, gumbel, gumbel_st


def test_straight_through_values_are_exactly_zero_or_one_and_carry_a_gradient():
    logits = torch.zeros(1000, requires_grad=True)
    value = Relaxed(dist.Bernoulli(logits=logits), gumbel_st, 0.5).rsample()
    assert set(value.unique().tolist()) == {0.0, 1.0}
    value.sum().backward()
    assert (logits.grad >= 0).all() and (logits.grad > 0).float().mean() > 0.9


def test_relaxed_samples_are_one_as_often_as_the_bernoulli():
    logits = torch.tensor([-2.0, 0.0, 1.0]).expand(20_000, 3)
    share = (Relaxed(dist.Bernoulli(logits=logits), gumbel, 0.7).rsample() > 0.5).float().mean(0)
    p = logits[0].sigmoid()
    assert ((share - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all()
