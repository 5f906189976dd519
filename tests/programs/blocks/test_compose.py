"""What is compiled agrees with torch's own operations: values and gradients, wherever the boxes lie."""

import math

import pytest
import torch
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.compose import Compose, compilable, compose
from programs.blocks.nets import present_rows, where_present

TIGHT = {torch.float32: {"rtol": 2e-3, "atol": 2e-3}, torch.float64: {"rtol": 1e-9, "atol": 1e-9}}


def families(seed, dtype, lead=(2, 3), children=3, height=5, width=7):
    """Patches, poses, presences and depths of families, with boxes in, across and beyond the canvas."""
    torch.manual_seed(seed)
    shape = (*lead, children)
    patches = torch.rand(*shape, 4, height, width, dtype=dtype)
    where = torch.empty(*shape, 2, dtype=dtype).uniform_(-1.5, 1.5)
    scale = torch.empty(*shape, 2, dtype=dtype).uniform_(0.05, 1.5)
    theta = torch.empty(shape, dtype=dtype).uniform_(-math.pi, math.pi)
    pres, depth = torch.rand(shape, dtype=dtype), 6 * torch.rand(shape, dtype=dtype)
    return [t.requires_grad_() for t in (patches, render.pose(where, scale, theta), pres, depth)]


def reference(patches, pose, pres, depth, size):
    """By `place` and `composite`, without what is compiled."""
    placed = where_present(pres, lambda p, q: render.place(p, q, size), patches, pose)
    return render.composite(placed, pres, depth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_place_and_composite(seed, dtype):
    family, size = families(seed, dtype, lead=((2, 3), (5,), (1, 1, 2), (4,))[seed]), 6 + 3 * seed
    found, expected = compose(*family, size=size), reference(*family, size)
    assert type(found.grad_fn).__name__ == "ComposeBackward"
    torch.testing.assert_close(found, expected, **TIGHT[dtype])
    towards = torch.randn_like(expected)
    pairs = (torch.autograd.grad(image, family, towards) for image in (found, expected))
    for a, b in zip(*pairs, strict=True):
        scale = b.abs().max()
        torch.testing.assert_close(a / scale, b / scale, **TIGHT[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("where", ["beyond", "a hair's breadth", "the whole canvas and more"])
def test_boxes_that_are_empty_or_out_of_range(where, dtype):
    patches, _, pres, depth = families(0, dtype, lead=(2,), height=4, width=4)
    centre, extent = {"beyond": (9.0, 0.2), "a hair's breadth": (0.0, 1e-6)}.get(where, (0.0, 50.0))
    shape = (*pres.shape, 2)
    pose = render.pose(
        torch.full(shape, centre, dtype=dtype),
        torch.full(shape, extent, dtype=dtype),
        torch.zeros(pres.shape, dtype=dtype),
    )
    found, expected = (f(patches, pose, pres, depth, 8) for f in (compose, reference))
    torch.testing.assert_close(found, expected, **TIGHT[dtype])
    assert found.isfinite().all() and (found > 0).any() == (where == "the whole canvas and more")
    given = (patches, pres, depth)
    for a, b in zip(*(torch.autograd.grad(t.sum(), given) for t in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, **TIGHT[dtype])


def test_what_is_no_number_is_not_drawn():
    patches, pose, pres, depth = (t.detach() for t in families(1, torch.float64, lead=(1,)))
    pose[0, 0] = math.nan
    found = compose(patches, pose, pres, depth, size=9)
    gone = pres.clone()
    gone[0, 0] = 0
    pose[0, 0] = torch.eye(2, 3, dtype=pose.dtype)
    torch.testing.assert_close(
        found[..., 3, :, :], reference(patches, pose, gone, depth, 9)[..., 3, :, :]
    )


def test_its_gradient_is_that_of_differences():
    """Also when the gradient is differentiated, which torch's own operations then do."""
    patches, pose, pres, depth = families(
        2, torch.float64, lead=(1,), children=2, height=3, width=3
    )
    inverse = render.inverse(pose).detach().requires_grad_()
    opacity = (pres * (-depth).exp()).detach().requires_grad_()
    shown = torch.ones_like(pres, dtype=torch.bool)
    function = lambda *given: Compose.apply(*given, shown, 5)
    assert torch.autograd.gradcheck(function, (patches, inverse, pres, opacity), atol=1e-5)
    again = lambda p, q: function(patches.detach(), inverse.detach(), p, q)
    assert torch.autograd.gradgradcheck(again, (pres, opacity), atol=1e-5)


def test_absent_children_take_no_part_in_a_step():
    patches, pose, pres, depth = families(3, torch.float64)
    with torch.no_grad():
        pres[..., 1:] = 0.0
    assert present_rows(pres) is not None
    family = (patches, pose, pres, depth)
    found, expected = compose(*family, size=8), reference(*family, 8)
    torch.testing.assert_close(found, expected)
    pairs = (torch.autograd.grad(t.square().sum(), family) for t in (found, expected))
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b)
    assert found.abs().sum() > 0


@pytest.mark.parametrize("case", ["two colours", "mixed types", "half", "vectorised"])
def test_torch_does_what_is_not_compiled(case):
    family = [t.detach() for t in families(0, torch.float32, lead=(2,))]
    if case == "two colours":
        family[0] = family[0][..., 1:, :, :]
    elif case == "mixed types":
        assert not compilable(family[0], family[1].double())
        return
    elif case == "half":
        assert not compilable(*(t.half() for t in family))
        return
    if case == "vectorised":
        each = torch.func.vmap(lambda p, q: F.relu(render.place(p, q, 6)))(*family[:2])
        assert each.shape == (2, 3, 4, 6, 6)
        seen = torch.func.vmap(lambda p: p * compilable(p))(family[0])
        assert (seen == 0).all()
        return
    assert not compilable(*family)
    torch.testing.assert_close(compose(*family, size=6), reference(*family, 6))
