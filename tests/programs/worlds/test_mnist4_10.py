"""MNIST-4, MNIST-10 and both: their rules in every scene, and what breaks them."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from inference.images.dataset import generator_of
from inference.images.worlds import load_world, world_dataset
from programs.blocks import render
from programs.worlds import mnist4_10
from programs.worlds.made_of import digits as handwriting

WORLDS = {"mnist4": 4, "mnist10": 10, "mnist4_10": 10}
N = 600
CLOCKWISE = [(False, False), (True, False), (True, True), (False, True)]
"""Whether right of, and below, the middle."""
PAIRS, TRIPLES = ({0, 1}, {8, 9}), ({2, 3, 4}, {5, 6, 7})


def make(name, number=N, seed=0, size=64, **changes):
    world = load_world(name)
    config = world.config(size=size, digits="embedded", **changes)
    return world.scenes(number, torch.Generator().manual_seed(seed), config)


@pytest.fixture(scope="module")
def scenes():
    return {name: make(name) for name in WORLDS}


@pytest.fixture(params=WORLDS)
def world(request, scenes):
    return request.param, scenes[request.param]


def quadrants(nodes, image):
    """The classes in each quadrant, clockwise, by hand."""
    found = [[], [], [], []]
    for slot in nodes.present[image].nonzero()[:, 0].tolist():
        x, y = nodes.centre[image, slot].tolist()
        found[CLOCKWISE.index((x > 0, y > 0))].append(int(nodes.category[image, slot]))
    return found


def test_every_scene_has_the_papers_rules(world):
    name, scene = world
    o = scene.objects
    assert mnist4_10.obeys(o, load_world(name).config()).all()
    fours = 0
    for image in range(N):
        found = quadrants(o, image)
        if int(o.present[image].sum()) == 4:
            fours += 1
            first = found[0][0]
            assert found == [[first + k] for k in range(4)] and first + 3 <= 9
            places = o.centre[image, :4].abs() * 32  # pixels; boxes are placed on whole ones
            assert (places - places.mean(0)).abs().max() <= 1
        else:
            one, three, two, four = map(set, found)
            assert (one, two) in (PAIRS, PAIRS[::-1]) and (three, four) in (TRIPLES, TRIPLES[::-1])
            assert sum(map(len, found)) == 10
    share = {"mnist4": 1, "mnist10": 0, "mnist4_10": 0.5}[name]
    assert abs(fours / N - share) <= 4 * math.sqrt(share * (1 - share) / N)


def test_slots_are_filled_from_the_first_and_digits_stand_apart(world):
    name, scene = world
    o = scene.objects
    assert scene.image.shape == (N, 1, 64, 64) and o.pres.shape == (N, WORLDS[name])
    assert scene.image.min() == 0 and scene.image.max() == 1 and not scene.background.any()
    assert torch.equal(o.pres, o.pres.sort(1, descending=True).values)
    assert torch.equal(o.category >= 0, o.present)
    assert torch.equal(o.mask.flatten(2).any(2), o.present) and o.mask.sum(1).max() == 1
    assert o.corners[o.present].abs().max() <= 1 + 1e-6
    ten = o.present.all(1) if name != "mnist4" else torch.zeros(N).bool()
    centre = o.centre[ten] * 32
    i, j = torch.triu_indices(centre.shape[1], centre.shape[1], 1)
    assert ten.any() == (name != "mnist4")
    assert ((centre[:, i] - centre[:, j]).abs().amax(-1) >= 11 - 1).all()  # of 64, on whole pixels


def test_masks_are_the_digits_ink_and_poses_the_boxes_around_it(world):
    _, scene = world
    o = scene.objects
    bright = scene.image[:, 0] * 255 >= 26 - 1e-3
    assert torch.equal(o.mask.any(1), bright)
    off = (render.box(o.mask.float()) - o.pose)[o.present].abs().amax((1, 2))
    assert (off < 1e-5).float().mean() > 0.98  # blurred ones may lie on each other by a pixel
    large = make("mnist4", 40, size=128).objects
    torch.testing.assert_close(render.box(large.mask.float()), large.pose)
    small = make("mnist4", 40).objects
    assert (large.centre - small.centre).abs().max() < 2 * 1.5 / 64
    assert torch.equal(large.category, small.category)


def test_places_and_digits_are_uniform(scenes):
    """Of halves and fourths, within 4 standard errors."""
    level = lambda share: abs(float(share.float().mean()) - 0.5) < 4 * 0.5 / math.sqrt(len(share))
    four = make("mnist4", 1500).objects
    half = four.centre[:, 0].abs() * 64  # pixels of 128
    assert half.min() > 9 and half.max() < 55
    assert level(half[:, 0] < 32) and level(half[:, 1] < 32)
    assert level((half < 32).all(1) | (half >= 32).all(1)), "width and height are independent"
    first = four.category[:, 0].bincount()
    assert len(first) == 7 and ((first - 1500 / 7).abs() < 4 * math.sqrt(1500 / 7)).all()
    ten = scenes["mnist10"].objects
    up, left = ten.centre[:, 0, 1] < 0, ten.centre[:, 2, 0] < 0
    assert torch.equal(up, ten.centre[:, 8, 1] > 0) and torch.equal(left, ten.centre[:, 5, 0] > 0)
    assert level(up) and level(left) and level(up == left)
    assert level(ten.centre[:, 0, 0] < ten.centre[:, 1, 0])


def test_digits_of_a_class_are_all_shown_and_are_the_splits():
    config = mnist4_10.Config(digits="embedded", split="test")
    source = handwriting.digits("embedded", "test")
    mine = source._replace(images=torch.arange(300).view(-1, 1, 1))
    category = torch.arange(10).repeat(800, 1)
    drawn = mnist4_10._images(mine, category, torch.Generator().manual_seed(0)).long().flatten()
    assert torch.equal(source.labels[drawn], category.flatten())
    assert len(drawn.unique()) == 300
    scene = mnist4_10.world(20, torch.Generator().manual_seed(0), config)
    own = {image.numpy().tobytes() for image in source.images.clamp(min=0)}
    o = scene.objects
    shown = 0
    for image, slot in o.present.nonzero().tolist():
        x, y = ((o.centre[image, slot] + 1) * 64).tolist()
        whole = torch.nn.functional.pad(scene.image[image, 0] * 255, [28] * 4)
        ink = torch.zeros(28, 28)
        for picture in source.images[source.labels == o.category[image, slot]]:
            box = render.box((picture >= 26).float())
            middle = (box[:, 2] + 1) * 14
            left, top = round(x - float(middle[0])) + 28, round(y - float(middle[1])) + 28
            ink = whole[top : top + 28, left : left + 28].round().to(torch.uint8)
            if torch.equal(ink[picture > 0], picture[picture > 0]):
                shown += 1
                assert picture.numpy().tobytes() in own
                break
    assert shown == int(o.present.sum())


def test_the_rule_holds_whatever_the_slots_and_not_after_a_change(world):
    name, scene = world
    o = scene.objects
    obeys = partial(mnist4_10.obeys, config=load_world(name).config())
    order = torch.randperm(o.pres.shape[1], generator=torch.Generator().manual_seed(0))
    changed = lambda **fields: obeys(replace(o, **fields))
    permuted = changed(pres=o.pres[:, order], category=o.category[:, order], pose=o.pose[:, order])
    assert permuted.all()
    assert not changed(category=o.category.roll(1, 1).where(o.present, -1)).any(), "other places"
    fewer = o.pres.clone()
    fewer[:, 2] = 0
    assert not changed(pres=fewer).any()
    nobody = changed(pres=torch.zeros_like(o.pres))
    assert not nobody.any()
    mirrored = o.pose * torch.tensor([-1.0, 1.0])[:, None]
    assert not changed(pose=mirrored).any()
    broken = make(name, 200, lawful=False).objects
    assert not obeys(broken).any()
    assert torch.equal(broken.present, make(name, 200).objects.present)


def test_four_digits_need_a_rectangle(scenes):
    o = scenes["mnist4"].objects
    for pixels, lawful in ((3, True), (8, False)):
        pose = o.pose.clone()
        pose[:, 1, 0, 2] += pixels * 2 / 128
        inside = pose[:, 1, 0, 2] < 1
        assert mnist4_10.obeys_four(replace(o, pose=pose))[inside].float().mean() == lawful


def test_each_world_has_its_own_rule(scenes):
    four, ten = (scenes[name].objects for name in ("mnist4", "mnist10"))
    assert not mnist4_10.obeys(four, mnist4_10.Config(layouts=(10,))).any()
    assert not mnist4_10.obeys(ten, mnist4_10.Config(layouts=(4,))).any()
    assert mnist4_10.obeys(four).all() and mnist4_10.obeys(ten).all()


def test_scenes_are_by_seed_and_kept_with_their_truth(world, tmp_path, monkeypatch):
    name, scene = world
    again, other = make(name), make(name, seed=1)
    assert torch.equal(scene.image, again.image) and not torch.equal(scene.image, other.image)
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    config = load_world(name).config(size=64, digits="embedded")
    made = world_dataset(name, 30, "train", 0, config, progress=False)
    drawn, truth = load_world(name).scenes(30, generator_of(0, 0, 0), config), made.truth()
    assert (truth.image - drawn.image).abs().max() <= 0.5 / 255 + 1e-6
    for field in ("pres", "pose", "depth", "parent", "category", "mask"):
        assert torch.equal(getattr(drawn.objects, field), getattr(truth.objects, field)), field


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 40}, "at least 48"),
        ({"layouts": (4, 5)}, r"layouts=\(4, 5\): expected some of"),
        ({"layouts": ()}, "expected some of"),
        ({"digits": "roman"}, "known are auto, mnist, embedded"),
        ({"split": "exam"}, "known are train, validation, test"),
    ],
)
def test_bad_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        mnist4_10.Config(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WORLDS)
def test_the_version_is_raised_with_the_world(name):
    """Cached sets are found by the version: with other scenes under the old one, those of before
    would be taken for them. If this fails, raise VERSION and put the new numbers here."""
    scene = make(name, 32)
    there = scene.objects.present
    drawn = [scene.image.sum(), scene.objects.pose[there].square().sum(), scene.objects.mask.sum()]
    known = {
        "mnist4 1": [4074.122, 79.1958, 6879.0],
        "mnist10 1": [10263.79, 205.6577, 17238.0],
        "mnist4_10 1": [7644.271, 159.0552, 12810.0],
    }
    version = load_world(name).module.VERSION
    assert [float(x) for x in drawn] == pytest.approx(known[f"{name} {version}"], rel=1e-4)
