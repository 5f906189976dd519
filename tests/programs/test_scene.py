import math

import numpy as np
import pytest
import torch

from programs.scene import Nodes, Scene, concatenate


def scene(batch=3, patch=True):
    """Two objects and three parts, every tensor different in every image."""

    def nodes(number):
        return Nodes(
            pres=torch.rand(batch, number),
            pose=torch.randn(batch, number, 2, 3),
            depth=torch.rand(batch, number),
            parent=torch.zeros(batch, number, dtype=torch.int64),
            patch=torch.rand(batch, number, 4, 5, 5) if patch else None,
        )

    return Scene(torch.rand(batch, 3, 8, 8), (nodes(2), nodes(3)))


@pytest.mark.parametrize("index", [1, np.int64(1), torch.tensor(1), np.array(1)])
def test_one_image_of_a_batch_is_a_slice(index):
    with pytest.raises(TypeError, match=r"write scene\[1:2\]"):
        scene()[index]
    assert len(scene()[torch.tensor([0, 2])]) == 2 and len(scene()[1:2]) == 1


def test_a_scene_of_global_latents_has_no_objects():
    with pytest.raises(ValueError, match="no objects"):
        Scene(torch.rand(2, 3, 8, 8), ()).objects  # noqa: B018


def tilted():
    """One node at (0.2, -0.4), half-widths (0.5, 0.25), turned by 30 degrees."""
    c, s = math.sqrt(3) / 2, 0.5
    pose = torch.tensor([[[[0.5 * c, -0.25 * s, 0.2], [0.5 * s, 0.25 * c, -0.4]]]])
    one = torch.ones(1, 1)
    return Nodes(one, pose, one, torch.zeros(1, 1, dtype=torch.int64))


def test_centre_extent_and_rotation_are_read_off_the_pose():
    node = tilted()
    torch.testing.assert_close(node.centre, torch.tensor([[[0.2, -0.4]]]))
    torch.testing.assert_close(node.extent, torch.tensor([[[0.5, 0.25]]]))
    torch.testing.assert_close(node.rotation, torch.tensor([[math.pi / 6]]))


def test_corners_go_round_the_box_from_the_upper_left():
    c, s = math.sqrt(3) / 2, 0.5
    expected = torch.tensor(
        [
            [0.2 - 0.5 * c + 0.25 * s, -0.4 - 0.5 * s - 0.25 * c],
            [0.2 + 0.5 * c + 0.25 * s, -0.4 + 0.5 * s - 0.25 * c],
            [0.2 + 0.5 * c - 0.25 * s, -0.4 + 0.5 * s + 0.25 * c],
            [0.2 - 0.5 * c - 0.25 * s, -0.4 - 0.5 * s + 0.25 * c],
        ]
    )
    torch.testing.assert_close(tilted().corners[0, 0], expected)


def test_half_is_not_present():
    nodes = scene(1).objects
    nodes = Nodes(torch.tensor([[0.5, 0.51]]), nodes.pose, nodes.depth, nodes.parent)
    assert nodes.present.tolist() == [[False, True]]


def test_indexing_takes_the_same_images_of_every_tensor():
    whole = scene()
    part = whole[torch.tensor([2, 0])]
    assert (len(whole), len(part), len(whole[1:2])) == (3, 2, 1)
    assert torch.equal(part.image, whole.image[[2, 0]])
    for got, full in zip(part.levels, whole.levels, strict=True):
        for name in ("pres", "pose", "depth", "parent", "patch"):
            assert torch.equal(getattr(got, name), getattr(full, name)[[2, 0]])


def test_one_image_is_asked_for_as_a_slice():
    with pytest.raises(TypeError, match=r"scene\[1:2\]"):
        scene()[1]


def test_map_reaches_every_tensor_and_leaves_none_alone():
    whole = scene(patch=False)
    doubled = whole.map(lambda t: t * 2)
    assert torch.equal(doubled.image, whole.image * 2)
    assert torch.equal(doubled.levels[1].pose, whole.levels[1].pose * 2)
    assert doubled.background is None and doubled.objects.patch is None


def test_concatenate_undoes_slicing():
    whole = scene()
    joined = concatenate([whole[:1], whole[1:]])
    assert torch.equal(joined.image, whole.image)
    for got, full in zip(joined.levels, whole.levels, strict=True):
        assert torch.equal(got.pres, full.pres) and torch.equal(got.patch, full.patch)
    with pytest.raises(ValueError, match="empty list"):
        concatenate([])


def test_parts_are_the_leaves_and_missing_with_one_level():
    whole = scene()
    assert whole.objects is whole.levels[0] and whole.parts is whole.levels[1]
    assert Scene(whole.image, whole.levels[:1]).parts is None


def test_with_masks_wants_a_mask_a_level():
    whole = scene()
    masks = tuple(torch.rand(3, n.pres.shape[1], 8, 8) for n in whole.levels)
    assert whole.with_masks(masks).parts.mask is masks[1]
    with pytest.raises(ValueError):
        whole.with_masks(masks[:1])
