"""The VAE: its evidence by numerical integration."""

import math

import pyro
import torch
from torch.distributions import Normal

from analysis.posterior import log_weights
from guides.vae import Guide
from inference.objectives import Objective, cost_terms, per_image
from programs.vae import Config, Program

TINY = Config(size=8, z_global=1, sigma=0.5, channels=(4,), head=4, decoder=((8, 4, 1),))


def test_importance_samples_agree_with_the_integral_over_the_latent():
    pyro.set_rng_seed(3)
    program = Program(TINY)
    guide = Guide(program)
    with torch.no_grad():
        guide.head[-2].weight.mul_(0.1)
        guide.head[-2].bias.copy_(torch.tensor([0.2, 1.0]))  # about N(0.2, 1.3²)
        x = program(batch=4).image + 0.1 * torch.randn(4, 1, 8, 8)
        z = torch.linspace(-8, 8, 4001)[:, None]
        means = program.decoder(z[..., None, None]).sigmoid()
        log_joint = Normal(0.0, 1.0).log_prob(z).squeeze(-1) + Normal(means, 0.5).log_prob(
            x.unsqueeze(1)
        ).sum((2, 3, 4))
        evidence = log_joint.logsumexp(1) + math.log(16 / 4000)
    n = 4000
    weights = log_weights(program, guide, x, n)
    relative = (weights - weights.logsumexp(0)).exp() * n  # of mean 1
    error = relative.std(0) / math.sqrt(n)
    estimate = weights.logsumexp(0) - math.log(n)
    assert ((estimate - evidence).abs() < 4 * error).all(), (estimate, evidence, error)
    assert (error < 0.1).all()
    assert (weights.mean(0) < evidence).all()  # the ELBO is below


@torch.no_grad()
def test_the_kl_is_that_to_the_standard_normal():
    program = Program(TINY)
    guide = Guide(program)
    traces = Objective().traces(program, guide, torch.rand(3, 1, 8, 8))
    q = traces[1].nodes["z_global"]["fn"].base_dist
    expected = 0.5 * (q.scale**2 + q.loc**2 - 1) - q.scale.log()
    torch.testing.assert_close(per_image(cost_terms(*traces)["kl/z_global"]), expected[:, 0])
