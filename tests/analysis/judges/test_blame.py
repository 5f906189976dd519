"""Sites exchanged between guide and prior."""

import pyro
import pytest
import torch
from pyro import poutine
from tiny import build, images

from analysis.judges import blame


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("air", {"z_pres_*", "z_where_*", "z_what_*"}),
        ("vae", {"z_global"}),
        ("convdraw", {"z_global_1", "z_global_2", "z_global_3", "z_global_4"}),
    ],
)
def test_groups_are_symbols_of_steps_or_single_sites(name, patterns):
    program, guide = build(name)
    assert set(blame.groups(program, guide, images(2, program))) == patterns


def test_levels_of_a_tree_are_told_apart():
    program, guide = build("gsgn")
    found = blame.groups(program, guide, images(2, program))
    assert found["z_scale_1"] == ["z_scale_1"] and "z_scale_2" in found


@torch.no_grad()
def test_all_sites_of_the_guide_are_its_reconstruction_and_none_the_prior():
    program, guide = build("air")
    x = images(3, program)
    found = {(p, w): y for p, w, y in blame.exchanges(program, guide, x)}
    assert len(found) == 2 * (1 + 3)
    pyro.set_rng_seed(0)
    traces = blame.draws(guide, x)
    names = [n for names in blame.groups(program, guide, x).values() for n in names]
    replayed = poutine.replay(program, trace=traces[0])(x)
    torch.testing.assert_close(blame.exchanged(program, traces, names), replayed.image)
    pyro.set_rng_seed(1)
    free = blame.exchanged(program, traces, [])
    pyro.set_rng_seed(1)
    torch.testing.assert_close(free, program(batch=3).image)
