import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import max_pool2d

from analysis.scores import scene_metrics
from inference.images.worlds import world_dataset
from programs.blocks import render
from programs.worlds import groups2d
from programs.worlds.groups2d import Config, world

N = 1200


def make(number=N, seed=0, **kwargs):
    return world(number, torch.Generator().manual_seed(seed), Config(**{"size": 64, **kwargs}))


@pytest.fixture(scope="module")
def scenes():
    return make()


def uniform(count, n):
    """Whether counts of n draws are uniform: each within four standard errors."""
    share = 1 / len(count)
    return ((count - n * share).abs() < 4 * math.sqrt(n * share * (1 - share))).all()


def test_the_same_seed_draws_the_same_world_at_any_size():
    a, b, c, d = make(20), make(20), make(20, seed=1), make(20, size=128)
    assert torch.equal(a.image, b.image) and torch.equal(a.parts.pose, b.parts.pose)
    assert not torch.equal(a.image, c.image)
    assert torch.equal(a.parts.pose, d.parts.pose)
    assert d.image.shape == (20, 3, 128, 128)


def test_numbers_types_sizes_and_angles_are_uniform(scenes):
    g = scenes.levels[0]
    counts = g.present.sum(1).bincount(minlength=5)
    assert counts[0] == 0 and uniform(counts[1:], N)
    assert uniform(g.present.sum(0), int(g.present.sum()))  # by quadrant
    n, kind = int(g.present.sum()), g.category[g.present]
    assert uniform(kind.bincount(minlength=6), n)
    factor = g.extent[g.present][:, 0] / (groups2d.UNIT * groups2d.HALF[kind])
    for share in (g.rotation[g.present] / (2 * math.pi) + 0.5, (factor - 0.85) / 0.3):
        assert share.min() > -1e-4 and share.max() < 1 + 1e-4
        assert uniform((share * 8).long().clamp(0, 7).bincount(minlength=8), n)
    two = make(50, min_groups=2, max_groups=2)
    assert (two.objects.pres.sum(1) == 2).all()


def test_a_type_of_group_has_its_objects_and_those_their_parts(scenes):
    g, o, p = scenes.levels
    members = o.category.unflatten(1, (4, 3))[g.present]
    for kind, group in enumerate(groups2d.TYPES):
        expected = [k for k, _, _ in group] + [-1] * (3 - len(group))
        assert (members[g.category[g.present] == kind] == torch.tensor(expected)).all()
    shapes = p.category.unflatten(1, (12, 2))[o.present]
    for kind, parts in enumerate(groups2d.OBJECT_TYPES):
        expected = [part[0] for part in parts] + [-1] * (2 - len(parts))
        assert (shapes[o.category[o.present] == kind] == torch.tensor(expected)).all()


def test_the_tree_is_consistent(scenes):
    """A node is there exactly if a child of it is."""
    for above, nodes in itertools.pairwise(scenes.levels):
        assert (nodes.pres <= above.pres.gather(1, nodes.parent)).all()
        assert torch.equal(above.present, _any_child(nodes, above.pres.shape[1]))


def _any_child(nodes, number):
    return torch.zeros(N, number).scatter_add(1, nodes.parent, nodes.pres) > 0


@pytest.mark.parametrize("level", [0, 1], ids=["groups", "objects"])
def test_a_centre_is_that_of_the_box_in_its_own_orientation(level):
    """Pixels, in a node's frame, reach as far on the left as on the right, above as below."""
    nodes = make(300, size=128).levels[level]
    image, slot, row, column = nodes.mask.nonzero(as_tuple=True)
    pose = nodes.pose[image, slot]
    x = torch.stack([column, row], -1).add(0.5) / 64 - 1
    local = torch.linalg.solve(pose[..., :2], x - pose[..., 2])
    index = (image * nodes.pres.shape[1] + slot)[:, None].expand(-1, 2)
    low, high = (
        torch.zeros(nodes.pres.numel(), 2).scatter_reduce(0, index, local, how, include_self=False)
        for how in ("amin", "amax")
    )
    present, extent = nodes.present.flatten(), nodes.extent[nodes.present] * 64  # pixels
    assert local.abs().max() < 1 + 1e-4
    assert ((low + high)[present] / 2 * extent).abs().max() < 1
    assert ((high - low)[present].amax(1) > 2 - 4 / extent[:, 0]).all()


def test_masks_are_disjoint_and_a_node_is_the_union_of_its_children(scenes):
    g, o, p = (nodes.mask for nodes in scenes.levels)
    assert p.sum(1).max() == 1
    assert torch.equal(p.unflatten(1, (12, 2)).any(2), o)
    assert torch.equal(o.unflatten(1, (4, 3)).any(2), g)
    area = p.flatten(2).sum(2)
    assert torch.equal(area > 0, scenes.parts.present)
    assert area[scenes.parts.present].min() >= 9  # pixels, at 64 x 64


@pytest.mark.parametrize(("size", "level"), [(64, 1), (128, 2)], ids=["objects", "parts"])
def test_nothing_touches(size, level):
    """Grown by a pixel on every side, no object reaches another; no part, at 128 x 128."""
    masks = make(400, seed=1, size=size).levels[level].mask
    grown = max_pool2d(masks.float(), 3, 1, 1).sum(1)
    assert grown[masks.any(1)].max() == 1


def test_one_group_a_quadrant_and_nothing_is_cut_off(scenes):
    g = scenes.levels[0]
    quadrant = (g.centre > 0).long() @ torch.tensor([1, 2])
    assert (quadrant == torch.arange(4))[g.present].all()
    assert scenes.image[..., 1:-1, 1:-1].sum() / scenes.image.sum() > 0.999


def test_centres_of_parts_are_the_centroids_of_their_masks():
    p = make(100, size=128).parts
    axis = (2 * torch.arange(128) + 1) / 128 - 1
    mask = p.mask.float()
    total = mask.sum((2, 3)).clamp(min=1)
    centroid = torch.stack([(mask * axis).sum((2, 3)), (mask * axis[:, None]).sum((2, 3))], -1)
    distance = (centroid / total[..., None] - p.centre).norm(dim=-1)[p.present] * 64
    assert distance.max() < 1  # pixel


def test_a_graph_of_out_degree_four_represents_it_at_any_angle():
    """A cell's child may lie 5 % of the frame beyond it; frames need not turn with what they hold."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    objects = [groups2d.PLACE[t, : len(group)] for t, group in enumerate(groups2d.TYPES)]
    parts = [groups2d.PART_PLACE[t, : len(o)] for t, o in enumerate(groups2d.OBJECT_TYPES)]
    for places, angle in itertools.product(objects + parts, torch.linspace(0, math.pi / 2, 31)):
        turned = render.pose(torch.zeros(2), torch.ones(1), angle)[:, :2] @ places.T
        allowed = ((corners[:, None] * turned.T) > -0.05).all(-1)  # (cell, child)
        children = range(len(places))
        assert any(
            all(allowed[cell, child] for child, cell in zip(children, own, strict=True))
            for own in itertools.permutations(range(4), len(places))
        )


def test_parts_of_an_object_are_nearer_than_those_of_others():
    """In units: at most 2.9 within an object, at least 5.2 between two of a group."""
    for t, group in enumerate(groups2d.TYPES):
        place, owner = [], []
        for o, (kind, _, _) in enumerate(group):
            for part in range(len(groups2d.OBJECT_TYPES[kind])):
                own = groups2d.SCALE[t, o] * groups2d.PART_PLACE[kind, part]
                place.append((groups2d.PLACE[t, o] + own) * groups2d.HALF[t])
                owner.append(o)
        distance = torch.cdist(torch.stack(place), torch.stack(place))
        same = torch.tensor(owner)[:, None] == torch.tensor(owner)
        assert distance[same].max() < 2.9 and (distance[~same] > 5.2).all()


def test_truth_against_truth_is_one_and_shuffled_truth_is_not(scenes):
    some, other = scenes[:100], scenes[100:200]
    found = scene_metrics(some, some)
    assert {f"{n}_f1" for n in ("group", "object", "part")} <= set(found)
    assert set(found.values()) == {1.0}
    shuffled = scene_metrics(other, some)  # groups' radius is half their size: by chance .54
    assert max(v for k, v in shuffled.items() if "group" not in k) < 0.55
    assert shuffled["group_f1"] < 0.6 and shuffled["structure_accuracy"] < 0.05


def test_the_cache_brings_back_all_three_levels():
    data = world_dataset("groups2d", 12, "test", 0, Config(size=64))
    truth = data.truth(slice(2, 12))
    assert len(truth.levels) == 3 and len(truth) == 10
    assert set(scene_metrics(truth, truth).values()) == {1.0}
    lost = replace(truth.levels[1], pres=truth.levels[1].pres * 0)
    worse = scene_metrics(replace(truth, levels=(truth.levels[0], lost, truth.levels[2])), truth)
    assert worse["group_f1"] == worse["part_f1"] == 1
    assert worse["object_recall"] == worse["structure_accuracy"] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 32}, "at least 64"),
        ({"min_groups": 3, "max_groups": 2}, "min_groups <= max_groups"),
        ({"max_groups": 5}, "<= 4"),
    ],
)
def test_bad_settings_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        Config(**changes)


def test_the_version_is_raised_with_the_world():
    """If this fails, raise VERSION and put the new numbers here (see tests/test_worlds.py)."""
    scene = make(64)
    drawn = [scene.image.sum(), scene.parts.centre[scene.parts.present].square().sum()]
    known = {"2": [20108.34, 282.15695]}
    assert [float(x) for x in drawn] == pytest.approx(known[groups2d.VERSION], rel=1e-4)
