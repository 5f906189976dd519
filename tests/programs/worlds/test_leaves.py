"""Dead leaves of any size, turn, texture and number, and shapes of one's own."""

import math

import numpy as np
import pytest
import torch

from inference.images.worlds import load_world, world_dataset
from inference.settings import override, settings
from programs.worlds import dead_leaves
from programs.worlds.made_of import leaves

HEART = '''
def heart(u, v):
    """(u² + v² - 1/2)³ ≤ u² v³, v up."""
    return (u.square() + v.square() - 0.5) ** 3 <= -u.square() * v**3


def nothing(u, v):
    return u > 2
'''


def drawn(number=60, seed=0, **changes):
    config = dead_leaves.Config(**{"size": 32, **changes})
    return dead_leaves.world(number, torch.Generator().manual_seed(seed), config)


def test_sides_follow_a_power_law():
    """The log-log slope of the histogram; each bin of n leaves has an error of 1 / √n in the log."""
    for power in (2.0, 3.0):
        scene = drawn(
            4000,
            size=16,
            repeats=True,
            max_objects=8,
            min_objects=8,
            smallest=0.05,
            scale=0.5,
            power=power,
        )
        side = scene.objects.extent[..., 0].flatten().double()
        assert side.min() >= 0.05 - 1e-6 and side.max() <= 0.5 + 1e-6
        edges = torch.logspace(math.log10(0.05), math.log10(0.5), 9, dtype=torch.float64)
        count = torch.histogram(side, edges).hist
        density = (count / edges.diff()).log()
        middle = (edges[1:] * edges[:-1]).log() / 2
        weight = count / count.sum()
        x, y = (t - (weight * t).sum() for t in (middle, density))
        slope = float((weight * x * y).sum() / (weight * x * x).sum())
        error = float((count.sum() * (weight * x * x).sum()) ** -0.5)
        assert abs(slope + power) < 4 * error + 0.05, (slope, error)  # bins are wide


def test_leaves_cover_everything_and_their_power_spectrum_falls_as_that_of_natural_images():
    """About 1/f² for sides of density ∝ s^-3 (Lee, Mumford, Huang, 2001)."""
    scene = drawn(
        16, size=64, cover=True, max_objects=400, smallest=0.1, scale=0.9, colour="random",
        classes=("circle",), bright=(0, 256),
    )  # fmt: skip
    nodes = scene.objects
    assert (nodes.mask.sum(1) == 1).all()  # coverage 1, and every pixel shows one leaf
    assert torch.equal(nodes.present, nodes.mask.flatten(2).any(-1))
    assert (nodes.shape & nodes.mask == nodes.mask).all() and (
        nodes.category[nodes.present] == 0
    ).all()
    front = (nodes.shape.long() * torch.arange(400, 0, -1)[:, None, None]).argmax(1)
    assert torch.equal(
        front, nodes.mask.long().argmax(1)
    )  # the first slot of those that reach a pixel
    with pytest.raises(ValueError, match="more leaves show"):
        drawn(4, cover=True, max_objects=3)
    grey = scene.image.mean(1).double()
    spectrum = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square().mean(0)
    f = torch.fft.fftfreq(64, dtype=torch.float64) * 64
    radius = (f[:, None].square() + f.square()).sqrt()
    rings = [(r, float(spectrum[(radius - r).abs() < 0.5].mean())) for r in range(2, 11)]
    slope, _ = np.polyfit(*np.log(np.array(rings)).T, 1)
    assert -2.6 < slope < -1.6, slope


def test_depth_and_full_masks_come_back_from_the_number_of_the_visible_slot(tmp_path, monkeypatch):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    few = {"size": 32, "repeats": True, "min_objects": 8, "turn": True, "aspect": 2.0}
    one, other = (drawn(20, max_objects=n, **few) for n in (8, 8))
    config = dead_leaves.Config(max_objects=8, **few)
    scene, labels = dead_leaves.draw(20, torch.Generator().manual_seed(0), config)
    index = torch.zeros(labels.shape, dtype=torch.int16)
    for k in reversed(range(8)):
        index[one.objects.mask[:, k]] = k + 1
    again = dead_leaves.with_masks(scene, index, config)
    for field in ("mask", "shape"):
        assert torch.equal(getattr(again.objects, field), getattr(one.objects, field)), field
        assert torch.equal(getattr(other.objects, field), getattr(one.objects, field)), field
    many = dead_leaves.Config(size=32, repeats=True, min_objects=20, max_objects=40, scale=0.2)
    truth = world_dataset("dead_leaves", 5, "train", 0, many, progress=False).truth()
    assert truth.objects.present.sum(1).ge(20).all() and truth.objects.shape.shape[1] == 40
    assert (truth.objects.mask.sum(1) <= 1).all()
    assert torch.equal(truth.objects.shape.flatten(2).any(2), truth.objects.present)


def test_turned_and_stretched_frames_hold_their_objects_inside_the_image():
    scene = drawn(
        300,
        turn=True,
        aspect=3.0,
        smallest=0.1,
        scale=0.3,
        classes=("square",),
        max_objects=1,
        min_objects=1,
    )
    nodes = scene.objects
    assert (nodes.corners.abs() <= 1 + 1e-5).all()
    ratio = (nodes.extent[..., 0] / nodes.extent[..., 1]).flatten()
    assert ratio.max() > 2 and ratio.min() < 0.5 and ratio.log().abs().max() <= math.log(3) + 1e-4
    assert nodes.rotation.std() > 1.5  # of a uniform angle π / √3
    area = nodes.shape.flatten(2).sum(-1) / 32**2
    expected = nodes.extent.prod(-1)
    assert float(area.mean()) == pytest.approx(float(expected.mean()), rel=0.03)
    cut = drawn(300, inside=False, classes=("square",), max_objects=1, min_objects=1).objects
    beyond = (cut.corners.abs() > 1).flatten(2).any(-1)
    assert 0.3 < beyond.float().mean() < 0.8 and cut.mask.flatten(2).any(-1).all()


def test_colours_come_from_the_chosen_ranges():
    scene = drawn(100, colour="random", dark=(100, 128), bright=(128, 140))
    levels = (scene.image * 255).round()
    assert levels.min() >= 100 and levels.max() < 140
    there = scene.objects.mask.any(1)[:, None].expand_as(levels)
    assert levels[there].min() >= 128 > levels[~there].max()


def test_leaves_of_noise_and_of_pictures_are_not_flat(tmp_path):
    from PIL import Image

    seen = []
    Image.fromarray(np.full((40, 40, 3), (10, 200, 30), np.uint8)).save(tmp_path / "a.png")
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(tmp_path / "b.png")
    for texture in ("flat", "noise", str(tmp_path)):
        scene = drawn(100, texture=texture, max_objects=1, min_objects=1, scale=0.5)
        inside = scene.image[scene.objects.mask.expand(-1, 3, -1, -1)]
        seen.append(inside)
        spread = [
            x[:, m[0]].std(1).mean() for x, m in zip(scene.image, scene.objects.mask, strict=True)
        ]
        assert (max(spread) > 0.02) == (texture != "flat")
    assert abs(float(seen[1].mean() - seen[0].mean())) < 0.05  # noise is around the colours
    colours = {
        tuple((x[:, m[0]].mean(1) * 255).round().int().tolist())
        for x, m in zip(scene.image, scene.objects.mask, strict=True)
    }
    assert (10, 200, 30) in colours and len(colours) > 1
    with pytest.raises(ValueError, match="folder with pictures"):
        dead_leaves.Config(texture=str(tmp_path / "none"))


def test_there_are_more_classes_than_colours_in_the_palette(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(HEART)
    classes = (*leaves.SHAPES, f"{file}:heart")
    scene = drawn(200, classes=classes, min_objects=7, max_objects=7, scale=0.3)
    assert scene.objects.category.unique().tolist() == list(range(7))
    colours = leaves.palette(40)
    assert len(colours.unique(dim=0)) == 40 and torch.equal(colours[:6], leaves.PALETTE)
    heart = scene.objects.shape[scene.objects.category == 6].sum((-2, -1)).float() / (0.3 * 32) ** 2
    assert 0.2 < heart.mean() < 0.6


def test_a_shape_of_ones_own_is_drawn_by_worker_processes_and_kept_by_its_source(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "own.py"
    file.write_text(HEART)
    pair = f"world.classes=('circle', '{file}:heart')"
    words = settings([pair, "world.max_objects=2", "world.min_objects=1", "world.size=16"])
    world = load_world("dead_leaves")
    config = override(world.config(), words["world"], "world")
    made = world_dataset("dead_leaves", 9 * 256, "train", 0, config, processes=2, progress=False)
    assert made.truth(slice(0, 300)).objects.category.unique().tolist() == [-1, 0, 1]
    before = world.identity(config)
    file.write_text(HEART + "\n# changed\n")
    assert world.identity(config) != before
    for name in ("heart", f"{file}:lung", "no_such_module:heart"):
        with pytest.raises(ValueError, match="classes="):
            dead_leaves.Config(classes=("circle", name), max_objects=2, min_objects=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smallest": 0.5}, "0 to scale"),
        ({"aspect": 0.5}, "ratio of 1 or more"),
        ({"scale": 0.9, "turn": True}, "set inside=False"),
        ({"dark": (5, 5)}, r"dark=\(5, 5\)"),
        ({"bright": (0, 300)}, "bright"),
        ({"max_objects": 2000, "repeats": True}, "1 to 1000"),
    ],
)
def test_impossible_leaves_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dead_leaves.Config(**changes)
