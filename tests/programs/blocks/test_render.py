import math
from dataclasses import replace

import oracles
import pytest
import torch
from pyro.ops.provenance import get_provenance, track_provenance

from programs.blocks import render
from programs.scene import Nodes, Scene


def random_pose(*shape):
    where = torch.rand(*shape, 2) - 0.5
    scale = 0.2 + 0.6 * torch.rand(*shape, 2)
    theta = (2 * torch.rand(shape) - 1) * math.pi
    return render.pose(where, scale, theta)


def test_pose_agrees_with_the_matrix_written_out():
    got = render.pose(torch.tensor([0.1, -0.3]), torch.tensor([0.5, 0.2]), torch.tensor(0.7))
    torch.testing.assert_close(got, oracles.affine([0.1, -0.3], [0.5, 0.2], 0.7))


def test_inverse_undoes_a_pose_and_chain_is_composition_of_maps():
    torch.set_default_dtype(torch.float64)
    try:
        a, b = random_pose(7), random_pose(7)
        identity = torch.eye(2, 3).expand(7, 2, 3)
        torch.testing.assert_close(render.chain(a, render.inverse(a)), identity)
        torch.testing.assert_close(render.chain(render.inverse(a), a), identity)
        u = torch.randn(7, 2, 1)
        apply = lambda m, v: m[..., :2] @ v + m[..., 2:]
        torch.testing.assert_close(apply(render.chain(a, b), u), apply(a, apply(b, u)))
    finally:
        torch.set_default_dtype(torch.float32)


def test_crop_reads_what_a_loop_over_pixels_reads():
    image, pose = torch.rand(3, 9, 9), random_pose(1)
    crop = render.crop(image[None, None], pose[None, None], 5)[0, 0, 0]
    for j in range(5):
        for i in range(5):
            u = torch.tensor([(2 * i + 1) / 5 - 1, (2 * j + 1) / 5 - 1])
            x, y = pose[0, :, :2] @ u + pose[0, :, 2]
            expected = oracles.bilinear(image, float(x), float(y))
            torch.testing.assert_close(crop[:, j, i], expected, atol=1e-5, rtol=1e-4)


def test_place_draws_what_a_loop_over_pixels_draws():
    patch, pose = torch.rand(2, 6, 6), random_pose(1)
    canvas = render.place(patch[None], pose, 9)[0]
    back = torch.linalg.inv(pose[0, :, :2])
    for j in range(9):
        for i in range(9):
            x = torch.tensor([(2 * i + 1) / 9 - 1, (2 * j + 1) / 9 - 1])
            u, v = back @ (x - pose[0, :, 2])
            expected = oracles.bilinear(patch, float(u), float(v))
            torch.testing.assert_close(canvas[:, j, i], expected, atol=1e-5, rtol=1e-4)


def test_crop_after_place_is_the_identity_on_a_window_aligned_with_the_pixels():
    # half the canvas, in its middle: patch pixels fall on canvas pixels, so nothing is interpolated
    patch = torch.rand(1, 1, 3, 8, 8)
    pose = render.pose(torch.zeros(1, 1, 2), torch.full((1, 1, 1), 0.5), torch.zeros(1, 1))
    canvas = render.place(patch, pose, 16)
    torch.testing.assert_close(render.crop(canvas[:, 0:1], pose[:, None], 8)[:, 0], patch)
    assert canvas[..., :4, :].abs().max() < 1e-5  # and nothing is drawn outside the window


def test_a_quarter_turn_moves_right_to_down():
    patch = torch.zeros(1, 1, 4, 4)
    patch[0, 0, 1:3, 3] = 1  # the right edge
    pose = render.pose(torch.zeros(1, 2), torch.ones(1, 1), torch.tensor([math.pi / 2]))
    turned = render.place(patch, pose, 4)[0, 0]
    assert turned[3, 1:3].min() > 0.99  # y points down
    assert turned.sum() == pytest.approx(2.0, abs=1e-4)


def test_crop_and_place_are_differentiable_in_picture_and_pose():
    torch.manual_seed(1)
    image = torch.rand(1, 1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    where = torch.tensor([[[0.13, -0.21]]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[[0.47, 0.61]]], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    crop = lambda im, w, s, t: render.crop(im, render.pose(w, s, t)[:, None], 4)
    place = lambda im, w, s, t: render.place(im, render.pose(w, s, t), 5)
    assert torch.autograd.gradcheck(crop, (image, where, scale, theta), atol=1e-5)
    assert torch.autograd.gradcheck(place, (image, where, scale, theta), atol=1e-5)


def test_composite_agrees_with_a_loop():
    patches = torch.rand(4, 4, 5, 5, dtype=torch.float64)
    pres = torch.tensor([1.0, 0.0, 0.3, 1.0], dtype=torch.float64)
    depth = torch.tensor([3.0, 1.0, 2.0, 4.5], dtype=torch.float64)
    expected = oracles.composite(patches, pres, depth)
    torch.testing.assert_close(
        render.composite(patches, pres, depth), expected, atol=1e-6, rtol=1e-6
    )


def test_the_gradient_of_a_composite_is_that_of_finite_differences():
    torch.manual_seed(2)
    patches = torch.rand(2, 3, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    pres = torch.tensor([[1.0, 0.2, 0.7], [0.4, 1.0, 0.9]], dtype=torch.float64, requires_grad=True)
    depth = torch.tensor(
        [[3.0, 1.0, 2.0], [4.0, 4.5, 4.2]], dtype=torch.float64, requires_grad=True
    )
    assert torch.autograd.gradcheck(render.composite, (patches, pres, depth), atol=1e-6)


@pytest.mark.parametrize("where", range(3))
def test_a_composite_keeps_the_origins_of_what_it_is_made_of(where):
    inputs = [torch.rand(2, 3, 4, 5, 5), torch.rand(2, 3), torch.rand(2, 3)]
    inputs[where] = track_provenance(inputs[where], frozenset({"site"}))
    assert get_provenance(render.composite(*inputs)) == {"site"}


def test_the_nearer_child_hides_the_farther_and_an_absent_one_hides_nothing():
    patches = torch.ones(2, 2, 3, 3)
    patches[0, 0], patches[1, 0] = 0.2, 0.8  # colours; masks are 1
    near_first = render.composite(patches, torch.ones(2), torch.tensor([1.0, 20.0]))
    torch.testing.assert_close(near_first[0], torch.full((3, 3), 0.2), atol=1e-6, rtol=0)
    absent = render.composite(patches, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 20.0]))
    torch.testing.assert_close(absent[0], torch.full((3, 3), 0.8), atol=1e-6, rtol=0)


def disc_scene(depths):
    """Two overlapping discs, each the only part of its object."""
    axis = (2 * torch.arange(32) + 1) / 32 - 1
    disc = ((axis[:, None] ** 2 + axis**2) < 0.8).float()
    patch = torch.cat([torch.ones(3, 32, 32), disc[None]]).expand(1, 2, 4, 32, 32)
    where = torch.tensor([[[-0.2, 0.0], [0.2, 0.0]]])
    pose = render.pose(where, torch.full((1, 2, 1), 0.5), torch.zeros(1, 2))
    ones, zeros = torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.long)
    objects = Nodes(ones, pose, torch.tensor([depths]), zeros, patch=patch)
    parts = Nodes(ones, pose, ones, torch.tensor([[0, 1]]), patch=patch)
    return Scene(torch.zeros(1, 3, 64, 64), (objects, parts))


def test_visible_masks_share_the_image_and_give_the_overlap_to_the_nearer_object():
    for depths, front in (([1.0, 15.0], 0), ([15.0, 1.0], 1)):
        objects, parts = render.visible_masks(disc_scene(depths))
        assert objects.sum(1).max() <= 1 + 1e-5
        torch.testing.assert_close(objects, parts)
        assert objects[0, front, 32, 32] > 0.99
        assert objects[0, 1 - front, 32, 32] < 0.01


def test_visible_masks_depend_on_differences_of_depth_alone():
    near = render.visible_masks(disc_scene([0.5, 2.0]))
    far = render.visible_masks(disc_scene([60.5, 62.0]))
    for one, two in zip(near, far, strict=True):
        torch.testing.assert_close(one, two)
    gone = disc_scene([0.5, 62.0])
    levels = [replace(nodes, pres=torch.tensor([[0.0, 1.0]])) for nodes in gone.levels]
    alone = render.visible_masks(replace(gone, levels=tuple(levels)))
    assert alone[0][0, 0].max() == 0 and alone[0][0, 1].max() > 0.99


def test_masks_that_a_scene_has_are_kept():
    scene = disc_scene([0.5, 2.0])
    seen = scene.with_masks(tuple(torch.rand(1, 2, 64, 64) for _ in range(2)))
    assert all(a is n.mask for a, n in zip(render.visible_masks(seen), seen.levels, strict=True))


def test_visible_masks_without_patches_is_refused():
    scene = disc_scene([1.0, 2.0])
    scene = Scene(
        scene.image,
        (Nodes(*[getattr(scene.objects, f) for f in ("pres", "pose", "depth", "parent")]),),
    )
    with pytest.raises(ValueError, match="patch=None"):
        render.visible_masks(scene)


def test_upright_placing_is_placing_with_its_gradient():
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)
    patches, where, scale = rand(2, 3, 4, 6, 6), 2 * rand(2, 3, 2) - 1, 0.1 + rand(2, 3, 2)
    for t in (patches, where, scale):
        t.requires_grad_()
    placed, gradients = [], []
    for draw in (render.place, render.place_upright):
        pose = render.pose(where, scale, torch.zeros_like(where[..., 0]))
        placed.append(draw(patches, pose, 16))
        cost = (placed[-1] * torch.linspace(-1, 2, 16, dtype=torch.float64)).square().sum()
        gradients.append(torch.autograd.grad(cost, (patches, where, scale)))
    torch.testing.assert_close(*placed)
    torch.testing.assert_close(*gradients)
