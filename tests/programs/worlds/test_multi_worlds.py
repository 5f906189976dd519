"""Multi-Sprites, Multi-MNIST and the handwriting it shows."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import max_pool2d, pad

from analysis.scores import scene_metrics
from inference.images.dataset import generator_of
from inference.images.worlds import world_dataset
from programs.scene import concatenate
from programs.worlds import multi_mnist, multi_sprites, pack, unpack
from programs.worlds.made_of import digits as handwriting

N = 2000
WORLDS = {
    "multi_sprites": (multi_sprites, multi_sprites.Config()),
    "multi_mnist": (multi_mnist, multi_mnist.Config(digits="embedded")),
}
SQUARE, TRIANGLE, ELLIPSE = range(3)
AREA = torch.tensor([4.0, math.sqrt(3), 0.6 * math.pi])
"""Of sprites with half their side, in units of its square."""


def make(name, number=N, seed=0, **changes):
    """In batches, as sets are drawn: it is faster."""
    module, config = WORLDS[name]
    config, generator = replace(config, **changes), torch.Generator().manual_seed(seed)
    sizes = [min(250, number - i) for i in range(0, number, 250)]
    return concatenate([module.world(size, generator, config) for size in sizes])


@pytest.fixture(scope="module")
def sprites():
    return make("multi_sprites")


@pytest.fixture(scope="module")
def mnist():
    return make("multi_mnist")


@pytest.fixture(params=WORLDS)
def both(request, sprites, mnist):
    return request.param, {"multi_sprites": sprites, "multi_mnist": mnist}[request.param]


def bins_are_level(share, number=8):
    """Each of `number` bins of [0, 1] holds its part of the values, within 4 standard errors."""
    assert share.min() >= -1e-5 and share.max() <= 1 + 1e-5
    count, n = (share * number).long().clamp(0, number - 1).bincount(minlength=number), len(share)
    error = math.sqrt(n * (1 - 1 / number) / number)
    assert ((count - n / number).abs() < 4 * error).all(), f"n = {n}"


def edges(line):
    """First and last true entry (..., ) along the last dimension."""
    index = torch.arange(line.shape[-1])
    return torch.where(line, index, 999).amin(-1), torch.where(line, index, -1).amax(-1)


# both worlds


def test_the_same_seed_draws_the_same_scenes(both):
    name, scene = both
    again, other = make(name), make(name, seed=1)
    assert torch.equal(scene.image, again.image) and not torch.equal(scene.image, other.image)
    for field in ("pres", "pose", "depth", "parent", "category", "mask"):
        assert torch.equal(getattr(scene.objects, field), getattr(again.objects, field)), field


def test_a_scene_is_one_level_of_slots_filled_from_the_first(both):
    _, scene = both
    slots = scene.objects
    assert scene.parts is None and scene.image.shape[1] == 1 and not scene.background.any()
    assert scene.image.min() == 0 and scene.image.max() == 1
    assert torch.equal(slots.pres, slots.pres.sort(1, descending=True).values)
    assert torch.equal(slots.mask.flatten(2).any(2), slots.present)
    assert torch.equal(slots.category >= 0, slots.present)
    assert slots.parent.eq(0).all() and slots.depth.eq(1).all()
    assert (torch.linalg.det(slots.pose[..., :2]) > 0).all()  # of empty slots, too


def test_the_number_of_objects_is_uniform(both):
    name, scene = both
    slots = scene.objects.pres.shape[1]
    bins_are_level((scene.objects.pres.sum(1) + 0.5) / (slots + 1), slots + 1)
    three = make(name, 40, min_objects=3, max_objects=3)
    assert three.objects.pres.eq(1).all() and three.objects.pres.shape == (40, 3)


def test_truth_against_truth_is_one_and_shuffled_truth_is_not(both):
    some, other = both[1][:150], both[1][150:300]
    assert set(scene_metrics(some, some).values()) == {1.0}
    assert max(scene_metrics(other, some).values()) < 0.5


def test_a_cached_set_holds_the_truth_of_the_world(both, tmp_path, monkeypatch):
    name, _ = both
    module, config = WORLDS[name]
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    made = world_dataset(name, 30, "train", 0, config, progress=False)
    scene, truth = module.world(30, generator_of(0, 0, 0), config), made.truth(slice(0, 30))
    assert made.images.shape == (30, 1, config.size, config.size)
    assert (truth.image - scene.image).abs().max() <= 0.5 / 255 + 1e-6
    for field in ("pres", "pose", "depth", "parent", "category", "mask"):
        assert torch.equal(getattr(scene.objects, field), getattr(truth.objects, field)), field


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("multi_sprites", {"size": 16}, "at least 32"),
        ("multi_sprites", {"min_objects": 3, "max_objects": 2}, "min_objects <= max_objects"),
        ("multi_sprites", {"max_objects": 6}, "1 to 5"),
        ("multi_sprites", {"overlap": 0.0}, r"overlap=0\.0: .*over 0"),
        ("multi_mnist", {"size": 32}, "at least 40"),
        ("multi_mnist", {"min_objects": -1}, "0 <= min_objects"),
        ("multi_mnist", {"min_objects": 0, "max_objects": 0}, "1 to 4"),
        ("multi_mnist", {"digits": "roman"}, "known are auto, mnist, embedded"),
        ("multi_mnist", {"split": "exam"}, "known are train, validation, test"),
    ],
)
def test_bad_settings_are_refused(name, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        replace(WORLDS[name][1], **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WORLDS)
def test_the_version_is_raised_with_the_world(name):
    """Cached sets are found by the version: with other scenes under the old one, those of before
    would be taken for them. If this fails, raise VERSION and put the new numbers here."""
    scene = make(name, 64)
    there = scene.objects.present
    drawn = [scene.image.sum(), scene.objects.pose[there].square().sum(), scene.objects.mask.sum()]
    known = {
        "multi_sprites 1": [16809.611, 38.038029, 16838.0],
        "multi_mnist 1": [5305.7842, 30.230400, 7560.0],
    }
    version = WORLDS[name][0].VERSION
    assert [float(x) for x in drawn] == pytest.approx(known[f"{name} {version}"], rel=1e-4)


def test_a_label_holds_a_bit_a_slot():
    masks = torch.rand(3, 8, 5, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    labels = pack(masks)
    assert labels.dtype == torch.uint8 and torch.equal(unpack(labels, 8), masks)
    assert labels[0, 2, 3] == sum(2**k for k in range(8) if masks[0, k, 2, 3])


# Multi-Sprites


def test_sprites_lie_at_the_same_places_at_any_size(sprites):
    large = make("multi_sprites", size=96, number=N)
    assert large.image.shape == (N, 1, 96, 96)
    assert torch.equal(large.objects.pose, sprites.objects.pose)


def test_all_classes_are_as_frequent(sprites):
    """Of every slot: the class is kept when a sprite is drawn again."""
    for k in range(3):
        category = sprites.objects.category[:, k]
        bins_are_level((category[category >= 0] + 0.5) / 3, 3)


def test_places_sizes_and_angles_are_uniform(sprites):
    """Those of the first sprite; the next are drawn again, small ones less often."""
    first = sprites[sprites.objects.present[:, 0]].objects
    x, y = first.centre[:, 0].T
    bins_are_level((x / 0.6 + 1) / 2)
    bins_are_level((y / 0.6 + 1) / 2)
    bins_are_level((first.extent[:, 0, 0] - 0.185) / (0.32 - 0.185))
    bins_are_level(first.rotation[:, 0] / (2 * math.pi) + 0.5)
    later = sprites.objects.present
    assert sprites.objects.centre[later].abs().max() < 0.6 + 1e-6
    sizes = sprites.objects.extent[later][:, 0]
    assert sizes.min() > 0.185 - 1e-6 and sizes.max() < 0.32 + 1e-6


def test_extents_are_those_of_the_classes(sprites):
    o = sprites.objects
    sides = o.extent[o.present]
    expected = torch.tensor([1.0, math.sqrt(0.75), 0.6])[o.category[o.present]]
    assert torch.allclose(sides[:, 1] / sides[:, 0], expected, atol=1e-5)


def shared(scene):
    """Part of the smaller area that each pair of present sprites shares, by counting pixels."""
    masks, present = scene.objects.mask.flatten(2).float(), scene.objects.present
    both, area = masks @ masks.mT, masks.sum(2)
    pairs = present[:, :, None] & present[:, None] & ~torch.eye(present.shape[1]).bool()
    return (both / torch.minimum(area[:, :, None], area[:, None]).clamp(min=1))[pairs]


def test_sprites_share_less_than_the_threshold(sprites):
    part = shared(sprites)
    assert part.max() < 0.1 and 0.05 < (part > 0).float().mean() < 0.5
    assert shared(make("multi_sprites", 300, overlap=1e-4)).max() == 0
    assert 0.3 < shared(make("multi_sprites", 300, overlap=0.5)).max() < 0.5


def test_as_many_sprites_are_drawn_again_as_stated(monkeypatch):
    """A quarter of the second and 46 % of the third, within 4 standard errors."""
    drawn, distance = [], multi_sprites._distance
    count = lambda kind, *rest: (drawn.append(len(kind)), distance(kind, *rest))[1]
    monkeypatch.setattr(multi_sprites, "_distance", count)
    kind, generator = torch.randint(3, (N, 3)), torch.Generator().manual_seed(0)
    multi_sprites._places(torch.ones(N, 3).bool(), kind, 0.1, generator)
    _, second, third = (i for i, number in enumerate(drawn) if number == N)
    for draws, share in ((drawn[second:third], 0.25), (drawn[third:], 0.46)):
        error = math.sqrt(share * (1 - share) / sum(draws))
        assert abs(1 - N / sum(draws) - share) < 4 * error, f"n = {sum(draws)}"


def test_masks_are_the_bright_pixels_and_the_image_their_union(sprites):
    o = sprites.objects
    assert torch.equal(o.mask.any(1), sprites.image[:, 0] >= 0.5)
    sprites = sprites[:250]
    o = sprites.objects
    inner = max_pool2d(pad((~o.mask).float(), (1, 1, 1, 1), value=1.0), 3, 1) == 0
    assert (sprites.image.expand(-1, 3, -1, -1)[inner] == 1).all()
    near = max_pool2d(o.mask.any(1, keepdim=True).float(), 5, 1, 2) > 0  # tips are thin
    assert (sprites.image[~near] == 0).all()


def inside_the_image(nodes):
    """Present nodes whose frame is wholly inside."""
    return nodes.present & (nodes.corners.abs().amax((-2, -1)) < 1)


def test_areas_are_those_of_the_shapes(sprites):
    """|mean error| of a class < 4 standard errors; by masks, and by the image where alone."""
    o, whole = sprites.objects, inside_the_image(sprites.objects)
    exact = AREA[o.category.clamp(min=0)] * (o.extent[..., 0] * 32) ** 2
    alone = whole & (o.pres.sum(1, keepdim=True) == 1)
    painted = sprites.image.sum((1, 2, 3))[:, None] - exact
    for category in range(3):
        error = (o.mask.sum((2, 3)) - exact)[whole & (o.category == category)]
        assert error.mean().abs() < 4 * error.std() / math.sqrt(len(error)), f"n = {len(error)}"
        assert error.abs().max() < 21  # a row of pixels of the largest
        smooth = painted[alone & (o.category == category)]
        assert smooth.abs().max() < 3, "anti-aliased edges leave the area as it is"


def test_no_sprite_is_smaller_than_sixty_pixels_or_cut_by_more_than_stated(sprites):
    o = sprites.objects
    exact = AREA[o.category.clamp(min=0)] * (o.extent[..., 0] * 32) ** 2
    assert exact[o.present].min() >= 60 and exact[o.present].max() < 420
    assert (o.corners[o.present].abs().amax() - 1) * 32 < 1.7


def test_sprites_fill_their_boxes(sprites):
    """The pixels of a sprite, seen in its frame, reach to within 1.5 pixels of all four sides."""
    o = sprites.objects
    image, slot, row, column = o.mask.nonzero(as_tuple=True)
    x = torch.stack([column, row], -1).add(0.5) / 32 - 1
    pose = o.pose[image, slot]
    local = torch.linalg.solve(pose[..., :2], x - pose[..., 2])
    assert local.abs().max() < 1 + 1e-4
    reach = torch.zeros(2, N * 3, 2)
    for side, how in enumerate(("amin", "amax")):
        index = (image * 3 + slot)[:, None].expand(-1, 2)
        reach[side].scatter_reduce_(0, index, local, how, include_self=False)
    whole = inside_the_image(o)
    missing = (1 - reach[:, whole.flatten()].abs()) * o.extent[whole] * 32
    assert missing.max() < 2.5 and missing.mean() < 0.8


def test_a_triangle_points_up_at_angle_zero():
    kind, none = torch.tensor([TRIANGLE]), torch.zeros(1)
    inside = multi_sprites._distance(kind, torch.zeros(1, 2), none + 0.5, none, 64)[0] <= 0
    widths = inside.sum(1)[inside.any(1)]
    assert widths[0] <= 2 and widths[-1] >= 31 and (widths.diff() >= 0).all()


# Multi-MNIST


def test_sides_and_offsets_are_the_published_generators():
    """Of white squares, whose side and place can be seen; 4 standard errors."""
    n = 4000
    white = torch.full((n, 1, 28, 28), 255.0)
    placed = multi_mnist._place(white, 50, torch.Generator().manual_seed(0))[:, 0] == 255
    (left, right), (top, bottom) = (edges(placed.any(axis)) for axis in (1, 2))
    side = right - left + 1
    assert torch.equal(side, bottom - top + 1) and torch.equal(placed.sum((1, 2)), side**2)
    below = lambda scale: 0.5 * (1 + math.erf((scale - 1.3) / 0.1 / math.sqrt(2)))
    for k in range(17, 29):  # side k: 28 / (k + 1) < scale <= 28 / k
        share = below(28 / k) - below(28 / (k + 1))
        assert abs((side == k).sum() - n * share) < 4 * math.sqrt(n * share) + 1, k
    for offset in (left, top):
        assert (offset < 50 - side).all()
        bins_are_level((offset + torch.rand(n)) / (50 - side), 6)
        twenty = offset[side == 21]
        assert set(twenty.tolist()) == set(range(29))
    assert torch.corrcoef(torch.stack([left, top]).float())[0, 1].abs() < 4 / math.sqrt(n)


def test_classes_are_the_sources_where_nothing_is_drawn_again(mnist):
    o = mnist.objects
    alone = o.category[o.pres.sum(1) == 1, 0].bincount(minlength=10)
    labels = handwriting.digits("embedded", "train").labels.bincount(minlength=10)
    expected = labels / labels.sum() * alone.sum()
    assert ((alone - expected).abs() < 4 * expected.sqrt()).all()
    assert (expected / alone.sum() - 0.1).abs().max() < 0.01


def test_digits_are_added_and_never_exceed_white(mnist):
    grey = mnist.image[:, 0] * 255
    assert (grey - grey.round()).abs().max() < 1e-4 and grey.max() <= 255 + 1e-4
    o = mnist.objects
    one = o.pres.sum(1) == 1
    assert torch.equal(o.mask[one, 0], grey[one].round() >= 26)
    outside = grey[~o.mask.any(1)]
    assert outside.max() <= 2 * 25
    assert o.mask.all(1).any(), "faint edges may lie on each other"


def test_a_box_is_the_tight_one_around_a_digits_ink(mnist):
    o = mnist.objects
    corners = (o.corners[o.present] + 1) * 25
    mask = o.mask[o.present]
    for axis, line in enumerate((mask.any(1), mask.any(2))):
        low, high = edges(line)
        assert (corners[..., axis].amin(1) - low).abs().max() < 1e-4
        assert (corners[..., axis].amax(1) - high - 1).abs().max() < 1e-4
    assert o.rotation[o.present].eq(0).all()
    height = (2 * o.extent[o.present][:, 1] * 25).mean()
    assert 14 < height < 18, "20 of 28 pixels, through 1.3"


def test_a_third_of_the_scenes_with_two_digits_are_drawn_again(monkeypatch):
    drawn, place = [], multi_mnist._place
    count = lambda images, *rest: (drawn.append(len(images)), place(images, *rest))[1]
    monkeypatch.setattr(multi_mnist, "_place", count)
    make("multi_mnist", 1000, min_objects=2)
    n = sum(drawn)
    assert abs(1 - 1000 / n - 0.35) < 4 * math.sqrt(0.35 * 0.65 / n)


# whose handwriting
