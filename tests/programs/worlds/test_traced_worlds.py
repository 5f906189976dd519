"""The worlds that the ray tracer draws."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from analysis.papers.gsgn.ceiling import ceiling, fits
from analysis.scores import scene_metrics
from inference.images import worlds as data
from inference.images.dataset import generator_of
from inference.images.worlds import load_world, world_dataset
from programs.worlds import arrow_room, clevr6, compositional_clevr
from programs.worlds.made_of import studio, tracer

WORLDS = {
    name: load_world(name)
    for name in ("compositional_clevr", "compositional_clevr7", "clevr6", "arrow_room")
}
SMALL = 64
TRUTH = ("pres", "pose", "depth", "parent", "category", "mask", "attributes")


def make(name, number=40, seed=0, size=SMALL, samples=1, **changes):
    config = WORLDS[name].config(size=size, samples=samples, **changes)
    return WORLDS[name].scenes(number, torch.Generator().manual_seed(seed), config)


@pytest.fixture(scope="module")
def unlit():
    """Scenes with their truth at 128 x 128, but black: drawing them takes most of the time."""

    def draw(name, number, seed=0, **changes):
        patch = pytest.MonkeyPatch()
        with patch.context() as m:
            black = lambda solids, *_: torch.zeros(len(solids.shape), 3, 128, 128)
            m.setattr(tracer, "picture", black)
            return make(name, number, seed, size=128, **changes)

    return draw


@pytest.fixture(scope="module")
def many(unlit):
    return unlit("compositional_clevr", 800)


def edges(nodes):
    """(B, N, 2) low and high corners of the boxes, in the image frame."""
    return nodes.centre - nodes.extent, nodes.centre + nodes.extent


def mean_is(values, expected, errors=4):
    """Whether the mean is within so many of its standard errors."""
    values = values.double()
    return abs(values.mean() - expected) < errors * values.std() / math.sqrt(len(values))


def share_is(share, expected, number, errors=4):
    slack = errors * math.sqrt(expected * (1 - expected) / number)
    assert abs(float(share) - expected) < slack, f"{float(share)}, n = {number}"


@pytest.mark.parametrize("name", WORLDS)
def test_the_same_seed_draws_the_same_scenes_at_any_size(name):
    first, again, other, large = (
        make(name, 8),
        make(name, 8),
        make(name, 8, 1),
        make(name, 8, size=96),
    )
    assert torch.equal(first.image, again.image) and not torch.equal(first.image, other.image)
    assert large.image.shape == (8, 3, 96, 96)
    for a, b, c in zip(first.levels, again.levels, large.levels, strict=True):
        for field in TRUTH:
            if getattr(a, field) is not None:
                assert torch.equal(getattr(a, field), getattr(b, field)), field
                assert field == "mask" or torch.equal(getattr(a, field), getattr(c, field)), field


def test_the_scenes_do_not_depend_on_the_number_of_processes(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "BATCH", 2)
    sets, config = [], compositional_clevr.Config(size=32, samples=1)
    for processes in (1, 2):
        monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / str(processes)))
        sets.append(world_dataset("compositional_clevr", 19, "train", 3, config, processes))
    assert torch.equal(sets[0].images, sets[1].images)
    assert torch.equal(sets[0].tables[1]["pose"], sets[1].tables[1]["pose"])


@pytest.mark.parametrize("name", WORLDS)
def test_a_cached_set_holds_the_truth_of_the_world(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    world, config = WORLDS[name], WORLDS[name].config(size=32, samples=1)
    made = world_dataset(name, 6, "test", 0, config, progress=False)
    scene, truth = world.scenes(6, generator_of(0, 2, 0), config), made.truth(slice(0, 6))
    assert (truth.image - scene.image).abs().max() <= 0.5 / 255 + 1e-6
    for a, b in zip(scene.levels, truth.levels, strict=True):
        for field in TRUTH:
            one, two = getattr(a, field), getattr(b, field)
            assert one is two is None or torch.equal(one, two), field


@pytest.mark.parametrize("name", WORLDS)
def test_masks_are_disjoint_inside_their_boxes_and_of_what_is_there(name):
    """Pixels' middles are in the box around the whole projection, exactly."""
    scene = make(name, 60)
    axis = (2 * torch.arange(SMALL) + 1) / SMALL - 1
    for nodes in scene.levels:
        assert (nodes.mask.sum(1) <= 1).all()
        assert (nodes.mask.flatten(2).any(2) == nodes.present).all()
        assert torch.equal(nodes.category >= 0, nodes.present)
        assert (nodes.depth[nodes.present] > 4).all() and (nodes.rotation == 0).all()
        low, high = edges(nodes)
        image, slot, row, column = nodes.mask.nonzero(as_tuple=True)
        at = torch.stack([axis[column], axis[row]], -1)
        assert (at > low[image, slot] - 1e-5).all() and (at < high[image, slot] + 1e-5).all()


def test_what_lies_in_front_is_nearer(many):
    """Where another part hides the middle of a part's box, its own middle is nearer as a rule."""
    p = many.parts
    image, slot = (p.present & (p.centre.abs().amax(-1) < 1)).nonzero(as_tuple=True)
    x, y = ((p.centre[image, slot] + 1) * 64).long().T
    shown = p.mask[image, :, y, x]
    assert (shown.sum(1) >= 0.99).float().mean() > 0.98  # something is there
    front, hidden = shown.float().argmax(1), shown.any(1) & ~shown[torch.arange(len(slot)), slot]
    nearer = p.depth[image, front] < p.depth[image, slot]
    assert hidden.sum() > 50 and nearer[hidden].float().mean() > 0.95


def test_pictures_show_the_colours_of_the_studio():
    """The hue of a large rubber thing in the middle of its mask is that of the truth's colour."""
    scene = make("clevr6", 120)
    nodes = scene.objects
    colour, size, material = nodes.attributes.unbind(-1)
    hits = []
    for b, k in (nodes.present & (size == 0) & (material == 0)).nonzero().tolist():
        if nodes.mask[b, k].sum() < 60 or colour[b, k] == 0:  # gray has none
            continue
        seen = scene.image[b, :, nodes.mask[b, k]].mean(1) ** 2.2
        table = studio.COLOURS[1:].float()
        likeness = torch.nn.functional.cosine_similarity(seen[None], table)
        hits.append(int(likeness.argmax()) + 1 == int(colour[b, k]))
    assert len(hits) > 50 and sum(hits) / len(hits) > 0.95


def test_the_floor_has_light_and_dark_regions_and_is_grey():
    scene = make("compositional_clevr", 60, max_objects=1)
    empty = ~scene.objects.mask.any(1)
    far = torch.nn.functional.max_pool2d((~empty).float(), 7, 1, 3) == 0
    floor = scene.image.permute(0, 2, 3, 1)[far]
    assert (floor.amax(1) - floor.amin(1)).max() < 1e-4
    assert floor.quantile(0.05) < 0.55 < floor.mean() < 0.65 < floor.quantile(0.95) < 0.85


def test_the_calibration_is_as_stated(many):
    """0.3, 32.8 and 67.0 % (the paper's 0.4, 29.5, 70.1), 1,247 px an object, boxes overlap in 0.16."""
    number, p, o = len(many), many.parts, many.objects
    pixels = p.mask.sum((2, 3))
    least = pixels.where(p.present, 10**6).amin(1)
    assert least.min() >= compositional_clevr.LEAST_RARE
    share_is((least < compositional_clevr.LEAST).float().mean(), 0.004, number)
    share_is((least <= 200).float().mean(), 0.33, number)
    assert mean_is(o.mask.sum((2, 3))[o.present], 1247)
    assert mean_is(pixels[p.present], 591)
    low, high = edges(o)
    meets = (low[:, :, None] < high[:, None]).all(-1) & (low[:, None] < high[:, :, None]).all(-1)
    meets &= o.present[:, :, None] & o.present[:, None] & ~torch.eye(4, dtype=torch.bool)
    share_is(meets.flatten(1).any(1).float().mean(), 0.159, number)


def test_some_scenes_have_parts_of_few_pixels(unlit, monkeypatch):
    """In about a tenth of those that may: parts of all numbers between the two limits."""
    monkeypatch.setattr(compositional_clevr, "RARE", 1.0)
    parts = unlit("compositional_clevr", 300).parts
    least = parts.mask.sum((2, 3)).where(parts.present, 10**6).amin(1)
    few = least[least < compositional_clevr.LEAST]
    assert compositional_clevr.LEAST_RARE <= few.min() < 60 and few.max() > 80
    share_is(len(few) / 300, 0.1, 300)


def test_the_seven_part_set_is_as_stated(unlit):
    scene = unlit("compositional_clevr7", 400)
    assert ceiling(scene) == 1
    least = scene.parts.mask.sum((2, 3)).where(scene.parts.present, 10**6).amin(1)
    share_is((least <= 200).float().mean(), 0.336, 400)
    assert mean_is(scene.objects.mask.sum((2, 3))[scene.objects.present], 1144)
    assert set(scene.parts.category[scene.parts.present].tolist()) == set(range(7))


def test_numbers_types_and_parts(many):
    o, p, number = many.objects, many.parts, len(many)
    counts = o.pres.sum(1).long().bincount(minlength=5)
    assert counts[0] == 0
    for k in range(1, 5):
        share_is(counts[k] / number, 0.25, number)
    kinds = o.category[o.present].bincount(minlength=10)
    for k in range(10):
        share_is(kinds[k] / kinds.sum(), 0.1, int(kinds.sum()))
    parts = p.pres.unflatten(1, (4, 3)).sum(2).long()
    by_type = [parts[o.category == t].unique().tolist() for t in range(10)]
    assert by_type == [[1]] * 3 + [[2]] * 3 + [[3]] * 4
    assert set(p.category[p.present].tolist()) == {0, 1, 2}
    assert torch.equal(p.parent[0], torch.arange(12) // 3)
    assert torch.equal(p.mask.unflatten(1, (4, 3)).any(2), o.mask)


def test_an_objects_box_is_that_around_its_parts_and_inside_the_image(many):
    o, p = many.objects, many.parts
    low, high = (x.unflatten(1, (4, 3)) for x in edges(p))
    there = p.present.unflatten(1, (4, 3))[..., None]
    expected = [low.where(there, 9).amin(2), high.where(there, -9).amax(2)]
    for mine, own in zip(edges(o), expected, strict=True):
        assert torch.allclose(mine[o.present], own[o.present], atol=1e-5)
        assert mine[o.present].abs().max() < 1
    assert o.extent[o.present].max() <= compositional_clevr.LARGEST + 1e-5


def test_quadrants_hold_one_object_and_ones_part_each_and_free_places_do_not(many, unlit):
    cells = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
    o = many.objects
    assert ((o.centre * cells).amin(-1)[o.present] > 0).all()
    assert ceiling(many) == 1
    assert ceiling(unlit("compositional_clevr", 100, layout="free")) < 0.9
    free = unlit("compositional_clevr", 100, layout="free").objects
    quadrant = (free.centre > 0).long() @ torch.tensor([1, 2])
    assert max(((quadrant == q) & free.present).sum(1).max() for q in range(4)) > 1
    assert (free.corners.abs()[free.present] < 1).all()


@pytest.mark.parametrize(
    ("places", "apart", "expected"),
    [
        ([(0.0, -0.6), (0.0, 0.6), (9, 9)], 0.4, True),  # two in a column, on the border of both
        ([(0.0, -0.7), (0.0, 0.0), (0.0, 0.7)], 0.4, False),  # a tower of three
        ([(0.0, -0.7), (0.0, 0.0), (0.0, 0.7)], 0.0, True),  # that reach alone would allow
        ([(-0.5, -0.7), (0.04, 0.6), (0.5, -0.6)], 0.4, True),
        ([(-0.19, -0.7), (0.0, 0.6), (0.19, -0.6)], 0.4, False),  # two of a row too near
        ([(-0.5, -0.7), (-0.4, -0.6), (-0.6, 0.5)], 0.0, False),  # two in one cell
    ],
)
def test_what_a_graph_can_hold(places, apart, expected):
    places = torch.tensor([places])
    assert fits(places, places[..., 0] < 2, apart).tolist() == [expected]


@pytest.mark.parametrize("parts", [3, 7])
def test_parts_touch_and_do_not_run_into_each_other(parts):
    """Of every type, by distances between points that are in the parts."""
    types = compositional_clevr._types(compositional_clevr.TYPES[parts])
    zero = torch.zeros(10, dtype=torch.float64)
    frames = types.frames(torch.arange(10), zero + 1, torch.zeros(10, 2).double(), zero)
    unit = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    for t in range(10):
        inner, there = [], int((types.kind[t] >= 0).sum())
        for k in range(there):
            solid = int(compositional_clevr.SOLID[types.kind[t, k]])
            inner.append((solid, frames[t, k, :, :3], frames[t, k, :, 3]))
        assert min(float(c[2] - a[2, 2]) for _, a, c in inner) == pytest.approx(0)  # on the floor
        touches = set()
        for i, j in itertools.permutations(range(there), 2):
            solid, a, c = inner[i]
            mine = unit[_inside(solid, unit)] @ a.T + c
            other, b, e = inner[j]
            for grow, expected in ((0.97, False), (1.12, True)):
                at = (mine - e) @ torch.linalg.inv(b * grow).T
                found = bool(_inside(other, at).any())
                assert expected or not found, (t, i, j)
                if found:
                    touches |= {i, j}
        assert there == 1 or touches == set(range(there)), t


def _inside(solid, p):
    """Whether points are in a solid in its own frame."""
    a, b, c = tracer.QUADRIC[solid]
    planes = torch.from_numpy(tracer.PLANES[solid, : tracer.SIDES[solid]])
    quadric = p[:, 0] ** 2 + p[:, 1] ** 2 + a * p[:, 2] ** 2 + b * p[:, 2] + c <= 0
    return quadric & (p @ planes[:, :3].T <= planes[:, 3]).all(1)


def test_clevr6_keeps_the_distances_and_rates_of_clevr(unlit, monkeypatch):
    kept, pixels = [], studio.pixels
    monkeypatch.setattr(studio, "pixels", lambda s, c, n: kept.append((s, c)) or pixels(s, c, n))
    nodes = unlit("clevr6", 150).objects
    assert (nodes.mask.sum((2, 3))[nodes.present] >= clevr6.LEAST).all()
    counts = nodes.pres.sum(1).long().bincount(minlength=7)
    for k in range(3, 7):
        share_is(counts[k] / 150, 0.25, 150)
    solids, camera = kept[0]
    place, half = solids.frame[..., :2, 3], solids.frame[..., 0, :2].norm(dim=-1)
    pair = (solids.shape >= 0)[:, :, None] & (solids.shape >= 0)[:, None]
    pair &= ~torch.eye(6, dtype=torch.bool)
    step = place[:, :, None] - place[:, None]
    gap = step.norm(dim=-1) - half[:, :, None] - half[:, None]
    assert gap[pair].min() >= 0.25 and place[solids.shape >= 0].abs().max() <= 3
    ahead = camera.axes[:, 2, :2] / camera.axes[:, 2, :2].norm(dim=1, keepdim=True)
    for along in (ahead, ahead.flip(1) * torch.tensor([1, -1])):
        assert (step @ along[:, None, :, None]).abs()[..., 0][pair].min() >= 0.4

    colour, size, material = nodes.attributes[nodes.present].long().T
    for values, number in ((colour, 8), (size, 2), (material, 2)):
        counts = values.bincount(minlength=number)
        for k in range(number):
            share_is(counts[k] / len(values), 1 / number, len(values))
    area = nodes.extent[nodes.present].prod(1)
    assert area[size == 0].mean() > 3 * area[size == 1].mean()


def test_clevr6_with_more_things_than_it_is_called_for(unlit):
    more = unlit("clevr6", 4, min_objects=8, max_objects=8).objects
    assert (more.pres.sum(1) == 8).all()


def test_the_arrow_points_at_the_odd_one(unlit):
    """By the rule, and by what a line along the floor meets first."""
    nodes = unlit("arrow_room", 200).objects
    assert arrow_room.obeys(nodes).all()
    flag, place, heading = (
        nodes.attributes[..., 0],
        nodes.attributes[..., 1:3],
        nodes.attributes[..., 3],
    )
    alike = (nodes.category[:, :3, None] == nodes.category[:, None, :3]).sum(2)
    assert torch.equal(alike.argmin(1), flag.argmax(1)) and torch.equal(
        flag.sum(1), torch.ones(200)
    )
    ray = torch.stack([heading[:, 3].cos(), heading[:, 3].sin()], -1)
    step = place[:, :3] - place[:, 3:]
    along = (step * ray[:, None]).sum(-1)
    across = (step - along[..., None] * ray[:, None]).norm(dim=-1)
    meets = (along > 0) & (across < 0.7 * math.sqrt(0.5))
    assert torch.equal(meets, flag[:, :3] > 0)
    for k in range(3):
        share_is((flag.argmax(1) == k).float().mean(), 1 / 3, 200)
    assert (nodes.category[:, 3] == 3).all() and (nodes.present).all()
    assert (nodes.centre[:, 3, 1:] > nodes.centre[:, :3, 1]).all()  # in front
    order = nodes.centre[:, :3, 0].diff(dim=1)
    assert (order > 0).all()


def test_other_arrows_break_the_rule(unlit):
    nodes = unlit("arrow_room", 40).objects
    turned = nodes.attributes.clone()
    turned[:, 3, 3] += 0.01
    assert not arrow_room.obeys(replace(nodes, attributes=turned)).any()
    same = nodes.category.clone()
    same[:, :3] = 1
    assert not arrow_room.obeys(replace(nodes, category=same)).any()
    others = nodes.category.clone()
    others[:, :3] = others[:, [1, 2, 0]]
    assert not arrow_room.obeys(replace(nodes, category=others)).any()


def test_truth_against_truth_is_one_and_shuffled_truth_is_not(many):
    found = scene_metrics(many[:40], many[:40])
    assert found["object_f1"] == found["part_f1"] == found["ari_fg"] == 1
    assert scene_metrics(many[40:80], many[:40])["object_f1"] < 0.6


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("compositional_clevr", {"size": 16}, "at least 32"),
        ("compositional_clevr", {"layout": "grid"}, "quadrants, free"),
        ("compositional_clevr", {"max_objects": 5}, "<= 4"),
        ("compositional_clevr", {"parts": 5}, "3 or 7"),
        ("compositional_clevr7", {"samples": 9}, "1 to 4"),
        ("clevr6", {"min_objects": 7}, "min_objects=7, max_objects=6"),
        ("clevr6", {"max_objects": 9}, "<= 8"),
        ("arrow_room", {"size": 1}, "at least 32"),
    ],
)
def test_bad_settings_are_refused(name, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        WORLDS[name].config(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WORLDS)
def test_the_version_is_raised_with_the_world(name):
    """Cached sets are found by the version: with other scenes under the old one, those of before
    would be taken for them. If this fails, raise VERSION and put the new numbers here."""
    scene = make(name, 12, samples=2)
    drawn = [float(x) for x in (scene.image.sum(), scene.levels[-1].pose.square().sum())]
    known = {
        "compositional_clevr 3": [83850.22, 190.38315],
        "compositional_clevr7 3": [84350.83, 189.63719],
        "clevr6 2": [83856.94, 57.33961],
        "arrow_room 2": [84174.38, 24.59488],
    }
    assert drawn == pytest.approx(known[f"{name} {WORLDS[name].module.VERSION}"], rel=1e-4)
