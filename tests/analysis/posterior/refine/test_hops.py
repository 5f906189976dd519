"""Hops between maxima of log p(x, z)."""

import math

import pyro
import pyro.distributions as dist
import small_programs
import torch

from analysis.posterior.refine import refine
from analysis.posterior.refine.anneal import moves_of
from analysis.posterior.refine.hops import CLOSE, Hops, gathered
from analysis.posterior.refine.target import Target

SIGMA = 0.05


def program(images=None, batch=1):
    """A side s = ±1 and z ~ N(0, 1): five pixels ~ N(s z, σ²), one ~ N(s, σ²)."""
    batch = batch if images is None else len(images)
    with pyro.plate("batch", batch, dim=-1):
        side = 2 * pyro.sample("z_side", dist.Bernoulli(torch.full((batch,), 0.5))) - 1
        z = pyro.sample("z_what", dist.Normal(torch.zeros(batch), 1.0))
        small_programs.observe(torch.stack([side * z] * 5 + [side], -1), SIGMA, images)


def guide(images, batch=1):
    """Sure of the wrong side, for which z has the wrong sign."""
    x = images.flatten(1)
    with pyro.plate("batch", len(x), dim=-1):
        pyro.sample("z_side", dist.Bernoulli((x[:, 5] < 0).float() * 0.98 + 0.01))
        pyro.sample("z_what", dist.Normal(-x[:, 5] * x[:, 0], 0.01))


def images():
    """(4, 1, 2, 3) of sides 1, 1, -1, -1 and z = .6, -.7, .8, -.6."""
    side, z = torch.tensor([1.0, 1, -1, -1]), torch.tensor([0.6, -0.7, 0.8, -0.6])
    return torch.stack([side * z] * 5 + [side], -1).view(4, 1, 2, 3)


def highest(x):
    """(B,) log p(x, z) of the true side at its best z, which is nearly the true one."""
    law = dist.Normal(0.0, SIGMA)
    z = x.flatten(1)[:, 0] * x.flatten(1)[:, 5]
    return 6 * law.log_prob(torch.zeros(())) + dist.Normal(0.0, 1.0).log_prob(z) + math.log(0.5)


def begun(x, chains=2):
    """A target, its moves, and the guide's mode in every row."""
    pyro.set_rng_seed(0)
    target = Target(program, guide, x, chains)
    state, scales = target.start()
    return target, moves_of(target, state, scales, 2), target.mode()


def test_a_hop_frees_what_no_move_by_itself_does():
    x = images()
    target, moves, state = begun(x)
    wrong = state.values["z_side"]
    moved, ones = state, torch.ones_like(state.log_p)
    for _ in range(20):
        moved = moves(moved, ones)
    torch.testing.assert_close(moved.values["z_side"], wrong)
    hops = Hops(target, moves.hops)
    for _ in range(6):
        state = hops(state)
    torch.testing.assert_close(state.values["z_side"], 1 - wrong)
    torch.testing.assert_close(state.log_p, highest(x).repeat(2), atol=1.0, rtol=0)


def test_a_hop_never_goes_down():
    target, moves, state = begun(images())
    hops = Hops(target, moves.hops)
    for _ in range(5):
        new = hops(state)
        assert (new.log_p >= state.log_p).all()
        torch.testing.assert_close(new.log_p, target.state(new.values, guided=False).log_p)
        state = new


def test_refine_hops_where_it_has_no_path():
    x = images()
    pyro.set_rng_seed(1)
    found = refine(program, guide, x, sweeps=16, chains=2, tempering=0.0, progress=False)
    torch.testing.assert_close(found.log_p, highest(x), atol=1.0, rtol=0)
    assert (found.draws["z_side"] == found.best["z_side"]).all()


def test_chains_that_are_far_below_go_on_from_the_best():
    x = images()[:2]
    target, _, state = begun(x, chains=3)
    z = state.values["z_what"] + torch.tensor([0.2, 0, 0, 0, 0.002, 0.2])  # rows of two images
    state = target.state(state.values | {"z_what": z}, guided=False)
    table = state.log_p.view(3, 2)
    far = table < table.amax(0) - CLOSE
    assert far.tolist() == [[True, False], [False, False], [False, True]]
    new = gathered(state, 3).log_p.view(3, 2)
    torch.testing.assert_close(new, table.where(~far, table.amax(0)))


def test_a_program_without_continuous_latents_hops_between_its_states():
    small = small_programs.Presence()
    pyro.set_rng_seed(2)
    x = small_programs.simulate(small, 8)[0]
    target = Target(small.program, small.guide(0.2), x, 2)
    state, scales = target.start()
    hops = Hops(target, moves_of(target, state, scales, 2).hops)
    for _ in range(30):
        state = hops(state)
    best = small.joint(x).amax(1)
    assert (state.log_p > best.repeat(2) - 1e-4).float().mean() > 0.8
