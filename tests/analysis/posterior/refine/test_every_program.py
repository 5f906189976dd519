"""Every program of the project can be refined, or says why it cannot."""

import pyro
import pytest
import torch
from tiny import build, images

from analysis.posterior.refine import local, refine
from analysis.posterior.refine.anneal import moves_of
from analysis.posterior.refine.hops import Hops
from analysis.posterior.refine.target import Target
from inference.loading import own_programs

MOVING = {"denf", "gsgn", "space", "gnm", "air", "discrete_air"}
"""Programs with objects that come and go."""


@pytest.mark.parametrize("name", own_programs())
def test_it_moves_and_its_best_state_is_scored_right(name):
    program, guide = build(name)
    program.eval(), guide.eval()
    x = images(2, program)
    found = refine(program, guide, x, sweeps=4, chains=2, keep=2, tempering=0.5, progress=False)
    assert found.log_p.isfinite().all()
    assert found.evidence.isfinite().all()
    assert found.weights.shape == (2, 2)
    assert all(0 <= share <= 1 for share in found.accepted.values())
    assert ("birth or death" in found.accepted) == (name in MOVING)

    target = Target(program, guide, x, 1)
    target.start()
    with torch.no_grad():
        scored = target.state(found.best).log_p
    torch.testing.assert_close(scored, found.log_p, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", own_programs())
def test_a_hop_leads_to_a_higher_state(name):
    pyro.set_rng_seed(0)
    program, guide = build(name)
    program.eval(), guide.eval()
    target = Target(program, guide, images(2, program), 1)
    state, scales = target.start()
    hops = Hops(target, moves_of(target, state, scales, 2).hops)
    first = hops(state)
    second = hops(first)
    assert (first.log_p >= state.log_p).all() and (first.log_p > state.log_p).any()
    assert (second.log_p >= first.log_p).all()


@pytest.mark.parametrize("name", ["air", "discrete_air", "vae"])
def test_draws_around_the_best_state_have_its_objects(name):
    pyro.set_rng_seed(0)
    program, guide = build(name)
    program.eval(), guide.eval()
    x = images(2, program)
    found = refine(program, guide, x, sweeps=2, chains=2, progress=False)
    around = local(program, guide, x, found.best, 5, 1, progress=False)
    assert around.weights.shape == (5, 2) and around.weights.isfinite().all()
    target = Target(program, guide, x, 5)
    target.start()
    with torch.no_grad():
        values = {n: v.flatten(0, 1) for n, v in around.draws.items()}
        scored = target.state(values).log_p
    assert scored.isfinite().all()
    still = [n for n in found.best if n not in target.moving]
    assert all(
        torch.equal(around.draws[n], found.best[n].expand_as(around.draws[n])) for n in still
    )
