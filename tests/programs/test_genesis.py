"""GENESIS: masks share the pixels, the mixture, one process for training and sampling, and its Scene."""

import pyro
import pytest
import tiny
import torch
from pyro import poutine

from inference.objectives import log_prob_per_image
from programs.blocks.distributions import PixelMixture


def build(**changes):
    return tiny.build("genesis", **changes)


@torch.no_grad()
def test_masks_share_every_pixel_and_the_last_takes_what_is_left():
    program, _ = build(components=4)
    z = 3 * torch.randn(5, 1, 4, 6)
    shares = program.masks.log_shares(z).exp()
    assert shares.shape == (5, 1, 4, 32, 32) and shares.std() > 0.01
    torch.testing.assert_close(shares.sum(2), torch.ones(5, 1, 32, 32))
    left = torch.ones(5, 32, 32)
    for k in range(3):
        stick = program.masks.decoder(z[:, 0, k])[:, 0].sigmoid()
        torch.testing.assert_close(shares[:, 0, k], left * stick, rtol=1e-4, atol=1e-6)
        left = left * (1 - stick)
    torch.testing.assert_close(shares[:, 0, 3], left, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_sampling_and_training_are_one_process():
    """What the prior is when it is drawn from is what it is where images are explained by the same latents."""
    pyro.set_rng_seed(1)
    program, _ = build()
    drawn = poutine.trace(program).get_trace(batch=4)
    x = torch.rand(4, 1, 32, 32)
    scored = poutine.trace(poutine.replay(program, trace=drawn)).get_trace(x)
    names = [name for name in drawn.stochastic_nodes if name.startswith("z_")]
    assert names == ["z_bg_mask_1", "z_bg_mask_2", "z_bg_mask_3", "z_bg"]
    for name in names:
        a, b = (t.nodes[name]["fn"].base_dist for t in (drawn, scored))
        assert torch.equal(a.loc, b.loc) and torch.equal(a.scale, b.scale), name
    torch.testing.assert_close(
        log_prob_per_image(drawn, names), log_prob_per_image(scored, names), rtol=0, atol=0
    )


@torch.no_grad()
def test_a_mask_depends_on_those_before_it_alone():
    program, guide = build()
    for fn, args in ((program, (None, 2)), (guide, (torch.rand(2, 1, 32, 32),))):
        trace = poutine.trace(fn).get_trace(*args)
        other = {"z_bg_mask_2": trace.nodes["z_bg_mask_2"]["value"] + 1.0}
        changed = poutine.trace(
            poutine.condition(poutine.replay(fn, trace=trace), other)
        ).get_trace(*args)
        same = {
            name: torch.equal(trace.nodes[name]["fn"].mean, changed.nodes[name]["fn"].mean)
            for name in ("z_bg_mask_1", "z_bg_mask_2", "z_bg_mask_3", "z_bg")
        }
        assert same == {
            "z_bg_mask_1": True,
            "z_bg_mask_2": True,
            "z_bg_mask_3": False,
            "z_bg": False,
        }


def test_the_largest_component_is_the_background_and_tiny_ones_are_absent():
    program, _ = build()
    shares = torch.full((3, 32, 32), 1e-6)
    shares[0, 4:8, 4:12] = 1.0  # a bar
    shares[1] = 0.9 * (1.0 - shares[0])
    shares[2] += 0.1 * (1.0 - shares[0])  # a tenth everywhere, nowhere most
    colours = torch.tensor([0.9, 0.2, 0.5])[:, None, None, None].expand(3, 1, 32, 32)
    pixels = PixelMixture(colours[None, None], shares.log()[None, None], 0.2)
    scene = program.scene(pixels)
    nodes = scene.objects
    assert nodes.pres.tolist() == [[1.0, 0.0, 0.0]]
    torch.testing.assert_close(scene.background, torch.full((1, 1, 32, 32), 0.2))
    torch.testing.assert_close(nodes.centre[0, 0], torch.tensor([-0.5, -0.625]))
    torch.testing.assert_close(nodes.extent[0, 0], torch.tensor([0.25, 0.125]))
    assert (nodes.mask[0, 1:] == 0).all() and nodes.mask[0, 0].sum() > 31.9
    assert scene.image[0, 0, 5, 5] == pytest.approx(0.9, abs=1e-3)
