"""Fixed priors of auxiliary KLs, in closed form."""

import math

import pyro.distributions as dist
import pytest
import torch

from inference.objectives import (
    Gaussian,
    Mixture,
)


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
