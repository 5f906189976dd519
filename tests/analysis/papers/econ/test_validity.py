"""Sampled scenes judged: by a small classifier, and by one that is told."""

from dataclasses import replace

import pyro
import pytest
import torch
from tiny import build

from analysis.papers.econ import validity
from inference.images.worlds import load_world, world_dataset
from programs.scene import Nodes, Scene
from programs.worlds import multi_mnist


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path_factory.mktemp("cache")))
    config = load_world("sprites_unique").config(size=32)
    yield world_dataset("sprites_unique", 20, "test", config=config, progress=False)
    patch.undo()


def test_only_worlds_with_repeats_judge(data, tmp_path, monkeypatch):
    assert validity.judges(data)
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    config = multi_mnist.Config()
    digits = world_dataset("multi_mnist", 2, "test", config=config, progress=False)
    assert not validity.judges(digits)


def test_true_scenes_are_counted_as_they_are(data):
    images, numbers = validity.true_scenes(data, 6, 0, min_objects=2, max_objects=2, repeats=True)
    assert images.shape == (6, 3, 32, 32) and numbers.sum(1).tolist() == [2] * 6
    for image, number in zip(images, numbers, strict=True):
        seen = [(image[k] == 1).any() for k in range(3)]
        assert all(number[k] > 0 for k in range(3) if seen[k])


def test_the_counter_learns_and_is_kept(data, tmp_path, monkeypatch):
    """Better than the best constant answer, after a short training: one object is one."""
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    net = validity.counter(data, scenes=600, steps=60)
    images, numbers = validity.true_scenes(data, 200, 9, min_objects=1, max_objects=1)
    right = (net.count(images) == numbers).all(1).float().mean()
    assert right > 0.7
    monkeypatch.setattr(validity, "learn", None)  # no second training
    again = validity.counter(data, scenes=600, steps=60)
    assert torch.equal(again.count(images), net.count(images))


def test_scenes_in_which_an_object_is_hidden_are_left_out(data):
    world = load_world("sprites_unique")
    config = world.config(size=32, scale=0.8)
    scene = world.scenes(200, torch.Generator().manual_seed(0), config)
    there = validity.seen(scene)
    share = scene.objects.mask.float().sum((2, 3)) / scene.objects.shape.float().sum((2, 3))
    assert 0 < there.sum() < 200 and torch.equal(there, (share >= 0.25).all(1))
    nothing = replace(scene.objects, shape=0 * scene.objects.shape, mask=0 * scene.objects.mask)
    assert validity.seen(replace(scene, levels=(nothing,))).all()


def test_scenes_are_drawn_until_enough_are_in_sight(monkeypatch):
    class Painter:
        """Each draw has another colour, and every second scene hides an object."""

        def __init__(self):
            self.draws = 0

        def arrange(self, order, batch):
            self.draws += 1
            scene = one_object([0] * batch, [0] * batch)
            return replace(scene, image=torch.full((batch, 3, 4, 4), float(self.draws)))

    program = Painter()
    monkeypatch.setattr(validity, "seen", lambda scene: torch.arange(len(scene)) % 2 == 0)
    found = validity.in_sight(program, [2, 0], 6)
    assert program.draws == 2 and found[:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    monkeypatch.setattr(validity, "seen", lambda scene: torch.zeros(len(scene), dtype=torch.bool))
    assert len(validity.in_sight(program, [2, 0], 6, tries=3)) == 6 and program.draws == 5


def test_no_scene_is_counted_twice_where_too_few_are_in_sight(monkeypatch):
    class Painter:
        """Each scene has a number of its own."""

        def __init__(self):
            self.number = 0

        def arrange(self, order, batch):
            scene = one_object([0] * batch, [0] * batch)
            own = torch.arange(self.number, self.number + batch).float()
            self.number += batch
            return replace(scene, image=own[:, None, None, None].expand(-1, 3, 4, 4))

    monkeypatch.setattr(validity, "seen", lambda scene: torch.arange(len(scene)) == 0)
    found = validity.in_sight(Painter(), [2, 0], 4, tries=2)
    assert found[:, 0, 0, 0].tolist() == [0, 4, 5, 6]


def test_ragged_edges_move_pixels_by_at_most_one():
    x = torch.zeros(2, 3, 16, 16)
    x[:, :, 4:12, 4:12] = torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    found = validity.ragged(x, torch.Generator().manual_seed(0))
    assert torch.equal(found[..., 5:11, 5:11], x[..., 5:11, 5:11])
    assert not found[..., :3, :].any() and not found[..., 13:].any()
    assert set(found.flatten().tolist()) == set(x.flatten().tolist())
    assert 10 < (found[0, 0] != x[0, 0]).sum() < 60


def one_object(kind, places):
    """(B, 1) objects, the visible masks of which are rows of 4 by 4 pixels."""
    number = len(kind)
    mask = torch.zeros(number, 1, 4, 4)
    for b, row in enumerate(places):
        mask[b, 0, row] = 1
    ones, parent = torch.ones(number, 1), torch.zeros(number, 1, dtype=torch.int64)
    pose = torch.eye(2, 3).expand(number, 1, 2, 3)
    nodes = Nodes(ones, pose, ones, parent, torch.tensor(kind)[:, None], mask=mask)
    return Scene(torch.zeros(number, 3, 4, 4), (nodes,))


def test_experts_are_named_by_what_they_explain():
    truth = one_object([0, 0, 1, 2], [0, 1, 2, 3])
    scene = one_object([3, 3, 1, 0], [0, 1, 2, 0])  # the last explains nothing that is there
    assert validity.names(scene, truth, experts=4, classes=3) == {3: 0, 1: 1}


class Told:
    """A classifier that knows the answers to scenes of three objects of the classes 0, 1 and 2."""

    def count(self, images):
        return torch.ones(len(images), 3, dtype=torch.int64)


def test_shares_are_of_scenes_as_asked_for(data, monkeypatch):
    pyro.set_rng_seed(0)
    program, guide = build("econ", "econ")
    monkeypatch.setattr(validity, "seen", lambda scene: torch.ones(len(scene), dtype=torch.bool))
    monkeypatch.setattr(validity, "ground", lambda program: 2)
    monkeypatch.setattr(validity, "names", lambda *arguments: {0: 1, 1: 2, 2: 0, 3: 0})
    asked, arrange = [], type(program).arrange
    monkeypatch.setattr(
        type(program), "arrange", lambda p, k, b=1: asked.append((k, b)) or arrange(p, k, b)
    )
    found = validity.validity(program, guide, data, 40, Told())
    different, repeated = found.values()
    assert different == dict.fromkeys(("count", "classes", "true_count", "true_classes"), 1.0)
    assert repeated["count"] == 1 and 0 < repeated["classes"] < 1
    chosen = sum(b for order, b in asked if len({*order[1:]}) == 3)
    assert repeated["classes"] == (chosen - 40) / 40
    assert all(order[0] == 2 and 2 not in order[1:] and len(order) == 4 for order, _ in asked)


def test_without_experts_of_objects_nothing_can_be_asked_for(data, monkeypatch):
    program, guide = build("econ", "monet")
    with pytest.raises(ValueError, match="train the program first"):
        validity.validity(program, guide, data, 4, Told())
