"""Sampled scenes judged: by a small classifier, and by one that is told."""

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


def test_the_counter_learns(data):
    """Better than the best constant answer, after a short training: one object is one."""
    net = validity.counter(data, scenes=600, steps=60)
    images, numbers = validity.true_scenes(data, 200, 9, min_objects=1, max_objects=1)
    right = (net.count(images) == numbers).all(1).float().mean()
    assert right > 0.7


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
