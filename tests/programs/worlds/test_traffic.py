"""The world `traffic` has the truth in it; frames of a camera are split by clip, from folders and videos."""

import pytest
import torch

from inference.images.worlds import world_dataset
from programs.worlds import traffic
from programs.worlds.traffic import Config, street, world


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cars_are_as_many_and_as_large_as_is_said_and_do_not_overlap():
    scene = world(100, generator(), Config(size=128))
    nodes = scene.objects
    number = nodes.present.sum(1)
    assert number.unique().tolist() == [1, 2, 3, 4, 5, 6]
    assert (nodes.mask.sum(1) <= 1).all()
    area = nodes.mask.flatten(2).sum(-1)[nodes.present] / 128**2
    length = 2 * nodes.extent[..., 0][nodes.present]
    assert (length >= traffic.LENGTHS[0] - 1e-5).all() and (length <= traffic.LENGTHS[1]).all()
    inside = nodes.centre[nodes.present][:, 0].abs() < 0.75
    expected = length * traffic.WIDTH / 4
    assert ((area / expected)[inside] > 0.85).all() and ((area / expected)[inside] < 1.15).all()
    assert (nodes.category[~nodes.present] == -1).all()


def test_without_cars_the_street_is_the_same_but_for_its_light():
    scene = world(100, generator(1), Config(size=64))
    assert scene.image.min() >= 0 and scene.image.max() <= 1
    far = torch.nn.functional.max_pool2d(scene.objects.mask.sum(1).float(), 11, 1, 5) == 0
    changed = (scene.image - scene.background).abs().amax(1)
    assert changed[far].max() < 1e-6  # shadows lie close to their cars
    light = scene.background / street(64)
    assert light.mean((1, 2, 3)).std() > 0.03
    middle = street(128).mean(0)
    assert middle.std() > 0.05  # it has texture
    small = torch.nn.functional.avg_pool2d(street(128), 2)
    torch.testing.assert_close(street(64), small, rtol=0, atol=1e-5)


def test_shadows_darken_and_belong_to_nobody():
    scene = world(50, generator(2), Config(size=64, max_objects=1))
    outside = scene.objects.mask[:, 0] == 0
    dark = (scene.image < 0.6 * scene.background).all(1) & outside
    assert (dark.flatten(1).sum(1) > 5).double().mean() > 0.9
    assert not (scene.objects.mask[:, 0] & dark).any()


def test_scenes_repeat_with_their_seed_and_are_cached():
    a, b, c = (world(3, generator(s), Config(size=32)).image for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    data = world_dataset("traffic", 4, "test", config=Config(size=32), processes=1)
    assert data.truth(slice(0, 2)).objects.mask.any()
    for bad in ({"size": 16}, {"max_objects": 9}, {"min_objects": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Config(**bad)
