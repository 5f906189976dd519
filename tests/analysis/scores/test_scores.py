import itertools
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from analysis import scores as m
from analysis.scores.counts import OBJECT_RADIUS, PART_RADIUS
from programs.blocks import render
from programs.scene import Nodes, Scene, concatenate
from programs.worlds import shapes2d

KEYS = {
    f"{level}_{name}" for level in ("object", "part") for name in ("count_accuracy", "f1", "recall")
} | {"structure_accuracy", "ari_fg", "ap50", "ap50_95"}


def level(centres, pres=None, parent=None):
    """One image's nodes at the centres [(x, y), …]."""
    where = torch.tensor(centres, dtype=torch.float32).view(1, -1, 2)
    number = where.shape[1]
    pres = torch.ones(1, number) if pres is None else torch.tensor([pres], dtype=torch.float32)
    parent = torch.tensor([parent or [0] * number]).long()
    pose = render.pose(where, torch.full((1, number, 2), 0.1), torch.zeros(1, number))
    return Nodes(pres, pose, torch.ones(1, number), parent)


def graph(*levels):
    return Scene(torch.zeros(1, 3, 8, 8), levels)


def two_objects(parent=(0, 0, 1)):
    """Objects left and right, the left of two parts and the right of one."""
    objects = level([(-0.5, 0.0), (0.5, 0.0)])
    return graph(objects, level([(-0.6, 0.0), (-0.3, 0.0), (0.5, 0.1)], parent=list(parent)))


def world(batch=16, seed=0):
    return shapes2d.world(
        batch, torch.Generator().manual_seed(seed), shapes2d.Config(size=64, min_objects=2)
    )


def shuffle(scene, generator):
    """The same graphs with slots in another order, and parents' indices accordingly."""
    orders = [torch.randperm(n.pres.shape[1], generator=generator) for n in scene.levels]
    moved = [_take(nodes, order) for nodes, order in zip(scene.levels, orders, strict=True)]
    back = orders[0].argsort()
    return replace(scene, levels=(moved[0], replace(moved[1], parent=back[moved[1].parent])))


def _take(nodes, order):
    fields = {k: v[:, order] for k, v in vars(nodes).items() if v is not None}
    return Nodes(**fields)


def disturb(scene, generator, spread=0.03):
    """A plausible inference: centres moved, nodes lost, parents mistaken."""
    levels = []
    for nodes in scene.levels:
        pose, pres = nodes.pose.clone(), nodes.pres
        pose[..., 2] += spread * torch.randn(pose.shape[:-1], generator=generator)
        lost = torch.rand(pres.shape, generator=generator) < 0.05
        levels.append(replace(nodes, pose=pose, pres=pres * ~lost))
    stray = torch.rand(levels[1].parent.shape, generator=generator) < 0.05
    levels[1] = replace(levels[1], parent=(levels[1].parent + stray) % 4)
    return replace(scene, levels=tuple(levels))


# what the numbers are


def test_count_accuracy_compares_numbers_not_slots():
    truth = concatenate([graph(level([(0, 0), (0, 0), (0, 0)], p)) for p in ([1, 1, 0], [1, 0, 0])])
    found = concatenate([graph(level([(0, 0), (0, 0), (0, 0)], p)) for p in ([0, 1, 1], [1, 1, 0])])
    assert m.count_accuracy(found.objects, truth.objects) == 0.5


@pytest.mark.parametrize(
    ("radius", "pixels"), [(OBJECT_RADIUS, 10), (PART_RADIUS, 5)], ids=["objects", "parts"]
)
def test_a_centre_is_near_up_to_and_with_the_papers_pixels(radius, pixels):
    truth = level([(0.0, 0.0)])
    for shift, expected in ((pixels - 0.01, 1), (pixels, 1), (pixels + 0.01, 0)):
        found = level([(0.0, shift * 2 / 128)])
        assert m.precision_recall_f1(found, truth, radius).f1 == expected


def test_precision_recall_f1_by_hand():
    """Three inferred, two of them right; four true: 2/3, 2/4 and 2·2/7."""
    truth = level([(0, 0), (0.5, 0), (-0.5, 0), (0, 0.5)])
    found = level([(0.01, 0), (0.5, 0.01), (-0.9, -0.9)])
    assert m.precision_recall_f1(found, truth, 0.1) == (2 / 3, 1 / 2, 4 / 7)


def test_totals_are_over_the_set_not_means_of_images():
    """1 of 1 in the first image, 0 of 3 in the second: recall is 1/4."""
    spots = [(0, 0), (0.5, 0), (-0.5, 0)]
    truth = concatenate([graph(level(spots, p)) for p in ([1, 0, 0], [1, 1, 1])])
    found = concatenate([graph(level(spots, p)) for p in ([1, 0, 0], [0, 0, 0])])
    assert m.precision_recall_f1(found.objects, truth.objects, 0.1) == (1, 0.25, 0.4)


@pytest.mark.parametrize(
    ("inferred", "true", "expected"),
    [(0, 0, (1, 1, 1)), (0, 1, (1, 0, 0)), (1, 0, (0, 1, 0)), (1, 1, (1, 1, 1))],
)
def test_edge_cases_of_f1(inferred, true, expected):
    found, truth = level([(0, 0)], [inferred]), level([(0, 0)], [true])
    assert m.precision_recall_f1(found, truth, 0.1) == expected


def test_two_inferred_nodes_near_one_true_node_count_once():
    found, truth = level([(0, 0.01), (0, -0.01)]), level([(0, 0), (0.8, 0.8)])
    assert m.precision_recall_f1(found, truth, 0.1) == (0.5, 0.5, 0.5)


def test_more_pairs_are_worth_more_than_nearer_pairs():
    """Nearest first would pair 0.00 with 0.02 and leave the two others over."""
    found, truth = level([(0.0, 0), (-0.09, 0)]), level([(0.02, 0), (0.11, 0)])
    (pairs,) = m.match(found, truth, 0.12)
    assert pairs.tolist() == [[0, 1], [1, 0]]


def test_absent_nodes_are_matched_with_nobody():
    found, truth = level([(0, 0), (0.5, 0)], [0.4, 0.6]), level([(0.5, 0), (0, 0)], [1, 1])
    assert m.match(found, truth, 0.1)[0].tolist() == [[1], [0]]


def test_matching_is_the_best_of_all_permutations():
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        number, true_number = (int(torch.randint(0, 5, (), generator=generator)) for _ in range(2))
        here = torch.rand(number, 2, generator=generator) * 0.5
        there = torch.rand(true_number, 2, generator=generator) * 0.5
        (pairs,) = m.match(level(here.tolist()), level(there.tolist()), 0.2)
        distances = [math.dist(here[i], there[j]) for i, j in pairs.T.tolist()]
        assert len(set(pairs[0].tolist())) == len(set(pairs[1].tolist())) == len(distances)
        assert all(d <= 0.2 for d in distances)
        assert (-len(distances), pytest.approx(sum(distances), abs=1e-6)) == _best(here, there)


def _best(here, there):
    """(minus the number of pairs, their distance), smallest over all ways to pair within 0.2."""
    if len(here) > len(there):
        here, there = there, here
    scores = []
    for order in itertools.permutations(range(len(there)), len(here)):
        near = [d for i, j in enumerate(order) if (d := math.dist(here[i], there[j])) <= 0.2]
        scores.append((-len(near), sum(near)))
    return min(scores)


# trees


def test_a_grouping_error_spoils_the_structure_alone():
    """The second part hangs below the wrong object; all nodes are where they should be."""
    found = m.scene_metrics(two_objects(parent=(0, 1, 1)), two_objects())
    assert found.pop("structure_accuracy") == 0
    assert found == dict.fromkeys(KEYS - {"structure_accuracy", "ari_fg", "ap50", "ap50_95"}, 1)


def test_a_tree_with_other_slots_is_the_same_tree():
    objects = level([(0.0, 0.9), (0.5, 0.0), (-0.5, 0.0)], [0, 1, 1])
    parts = level([(0.5, 0.1), (-0.3, 0.0), (-0.6, 0.0)], parent=[1, 2, 2])
    assert m.structure_accuracy(graph(objects, parts), two_objects()) == 1


@pytest.mark.parametrize("gone", [0, 1], ids=["object", "part"])
def test_a_tree_with_a_node_lost_is_wrong_whichever_side_lost_it(gone):
    whole = two_objects()
    levels = list(whole.levels)
    levels[gone] = replace(levels[gone], pres=torch.tensor([[0.0] + [1.0] * (1 + gone)]))
    assert m.structure_accuracy(graph(*levels), whole) == 0
    assert m.structure_accuracy(whole, graph(*levels)) == 0


def test_equal_counts_in_other_places_are_a_wrong_tree():
    truth = two_objects()
    moved = replace(truth.parts, pose=truth.parts.pose + 0.1)
    assert m.structure_accuracy(graph(truth.objects, moved), truth) == 0


def test_ownership_passes_through_levels_in_between():
    objects, parts = two_objects().levels
    middle = level([(0.0, 0.0), (0.0, 0.0)], parent=[1, 0])
    crossed = graph(objects, middle, replace(parts, parent=torch.tensor([[1, 1, 0]])))
    assert m.owners(crossed).tolist() == [[0, 0, 1]]
    assert m.structure_accuracy(crossed, two_objects()) == 1


def two_groups(objects=(0, 0, 1), parts=(0, 0, 1, 2)):
    """Groups left and right, of two objects and one; of these the first has two parts."""
    return graph(
        level([(-0.5, 0.0), (0.5, 0.0)]),
        level([(-0.6, 0.3), (-0.4, -0.3), (0.5, 0.0)], parent=list(objects)),
        level([(-0.7, 0.3), (-0.5, 0.3), (-0.4, -0.3), (0.5, 0.0)], parent=list(parts)),
    )


LEVELS = ("group", "object", "part")


def test_a_third_level_is_measured_by_name():
    found = m.scene_metrics(two_groups(), two_groups())
    names = [f"{n}_{k}" for n in LEVELS for k in ("count_accuracy", "f1", "recall")]
    assert found == dict.fromkeys([*names, "structure_accuracy"], 1)
    assert m.level_names(1) == ("object",) and m.level_names(2) == LEVELS[1:]
    assert m.level_names(5) == ("level_1", "level_2", *LEVELS)


def test_radii_double_from_the_parts_up():
    assert m.radii(3) == (40 / 128, OBJECT_RADIUS, PART_RADIUS)
    assert m.radii(2) == m.radii(3)[1:] and m.radii(1) == (OBJECT_RADIUS,)
    truth = two_groups()
    for shift, right in ((0.07, 3), (0.15, 2), (0.3, 1), (0.4, 0)):
        moved = [
            replace(n, pose=n.pose + torch.tensor([0, 0, shift / 2**0.5])) for n in truth.levels
        ]
        found = m.scene_metrics(graph(*moved), truth)
        # matches are one to one, so a node can at most be taken for its neighbour
        whole = [found[f"{n}_recall"] == 1 for n in LEVELS]
        assert whole == [True] * right + [False] * (3 - right)
        assert found["structure_accuracy"] == (right == 3)


@pytest.mark.parametrize(
    ("scene", "broken"),
    [
        (two_groups(parts=(0, 1, 1, 2)), True),  # a part below its neighbour, in the same group
        (
            two_groups(objects=(0, 1, 1), parts=(0, 0, 1, 2)),
            True,
        ),  # an object below the other group
        (two_groups(objects=(0, 0, 1), parts=(0, 0, 1, 2)), False),
    ],
)
def test_structure_follows_ownership_at_every_level(scene, broken):
    found = m.scene_metrics(scene, two_groups())
    assert all(found[f"{n}_f1"] == 1 for n in LEVELS)
    assert found["structure_accuracy"] == (not broken)


def test_a_lost_object_in_the_middle_spoils_its_level_and_the_tree():
    truth = two_groups()
    group, objects, parts = truth.levels
    lost = replace(objects, pres=torch.tensor([[1.0, 1.0, 0.0]]))
    found = m.scene_metrics(graph(group, lost, parts), truth)
    assert found["object_count_accuracy"] == found["structure_accuracy"] == 0
    assert (found["object_recall"], found["object_f1"]) == (2 / 3, 4 / 5)
    assert found["group_f1"] == found["part_f1"] == 1


def test_scenes_of_different_depths_are_compared_as_objects_and_parts():
    deep, flat = two_groups(), two_groups().levels
    two = graph(flat[0], replace(flat[2], parent=torch.tensor([[0, 0, 0, 1]])))
    for found in (m.scene_metrics(deep, two), m.scene_metrics(two, deep)):
        assert set(found) == KEYS - {"ari_fg", "ap50", "ap50_95"}
        assert set(found.values()) == {1.0}


# segments and pixels


def test_ari_agrees_with_scikit_learn():
    from sklearn.metrics import adjusted_rand_score

    generator = torch.Generator().manual_seed(0)
    for number in (1, 2, 5, 100, 20000):
        for segments, others in ((1, 1), (1, 3), (3, 1), (2, 5), (7, 7)):
            one = torch.randint(segments, (number,), generator=generator)
            two = torch.randint(others, (number,), generator=generator)
            two = torch.where(torch.rand(number, generator=generator) < 0.5, one, two)
            expected = adjusted_rand_score(one.numpy(), two.numpy())
            assert m.adjusted_rand_index(one, two) == pytest.approx(expected, abs=1e-12)


def masked(rows, pres=None):
    """Objects of an image of 1 x n pixels, a row of mask each."""
    masks = torch.tensor(rows, dtype=torch.float32)[None, :, None]
    nodes = level([(0.0, 0.0)] * len(rows), pres)
    return graph(replace(nodes, mask=masks))


def test_ari_fg_looks_at_the_foreground_alone():
    truth = masked([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0.5]])  # half is not foreground
    found = masked([[0, 0, 0.9, 0.4, 0.8, 0], [0.3, 0.9, 0.1, 0.3, 0, 0.7]])
    assert m.ari_fg(found, truth) == 1


def test_ari_fg_by_hand_with_a_pixel_missed_and_an_absent_object():
    """Truth aabb, inferred ..aa: {1}{2} | {3, 4}; the third mask is of an object that is absent."""
    truth = masked([[1, 1, 0, 0], [0, 0, 1, 1]])
    found = masked([[0, 0.9, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]], [1, 1, 0])
    # pairs together in both 1, in truth 2, inferred 1, of 6: (1 - 2/6) / (3/2 - 2/6) = 4/7
    assert m.ari_fg(found, truth) == pytest.approx(4 / 7)


def test_ari_fg_without_masks_or_foreground():
    empty, full = masked([[0, 0]], [0]), masked([[1, 1]])
    with pytest.raises(ValueError, match="masks"):
        m.ari_fg(two_objects(), full)
    assert m.ari_fg(full, empty) == 1
    truth = concatenate([empty, masked([[1, 0]])])
    assert m.ari_fg(concatenate([full, full]), truth) == 1


def labelled(*categories):
    """An image's objects of these categories, -1 where absent."""
    nodes = level([(0.1 * i, 0.0) for i in range(len(categories))], [c >= 0 for c in categories])
    return replace(nodes, category=torch.tensor([categories]))


def both(*nodes):
    """A batch of the images' nodes."""
    return concatenate([graph(n) for n in nodes]).objects


def test_category_correspondence_of_the_papers_example():
    assert m.category_correspondence(labelled(1, 4, 2, 2, 3), labelled(4, 0, 1, 1, 5)) == 1


def test_category_correspondence_by_hand():
    """Images of true (0, 1), (0, 0), (1): naming 0 → 0, 1 → 1 finds 2 + 1 + 1, the other way 2 + 1."""
    found = both(labelled(0, 1), labelled(0, 1), labelled(1, -1))
    truth = both(labelled(0, 1), labelled(0, 0), labelled(1, -1))
    assert m.category_correspondence(found, truth) == pytest.approx(4 / 5)
    # a category that was never inferred finds nothing, and one name serves one label only
    assert m.category_correspondence(labelled(0, 0), labelled(0, 1)) == pytest.approx(1 / 2)
    assert m.category_correspondence(labelled(0, 0), labelled(-1, -1)) == 1


def test_category_correspondence_is_the_best_of_all_permutations():
    generator = torch.Generator().manual_seed(0)
    truth, found = (torch.randint(-1, 4, (30, 3), generator=generator) for _ in range(2))
    nodes = [both(*(labelled(*row) for row in t.tolist())) for t in (found, truth)]

    def score(names):
        renamed = [[names[c] for c in row if c >= 0] for row in found.tolist()]
        hits = 0
        for mine, true in zip(renamed, truth.tolist(), strict=True):
            for label in set(mine):
                hits += min(mine.count(label), true.count(label))
        return hits / int((truth >= 0).sum())

    best = max(map(score, itertools.permutations(range(4))))
    assert m.category_correspondence(*nodes) == pytest.approx(best)


def square(left, top, side, size=20):
    mask = torch.zeros(size, size)
    mask[top : top + side, left : left + side] = 1
    return mask


def boxes(*masks, pres=None):
    nodes = level([(0.0, 0.0)] * len(masks), pres)
    return replace(nodes, mask=torch.stack(masks)[None])


def test_intersection_over_union_by_hand():
    a = torch.tensor([[0, 0, 4, 4], [0, 0, 2, 2]])
    b = torch.tensor([[2, 0, 6, 4], [10, 10, 12, 12]])
    expected = torch.tensor([[8 / 24, 0], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(m.intersection_over_union(a, b), expected)


def test_average_precision_by_hand():
    """Sure and right, less sure and wrong, least sure and right: 1 up to recall 1/2, then 2/3."""
    truth = boxes(square(0, 0, 8), square(10, 10, 8))
    found = boxes(square(0, 0, 8), square(10, 0, 8), square(10, 10, 8), pres=[0.9, 0.8, 0.7])
    assert m.average_precision(found, truth, 0.5) == pytest.approx((6 + 5 * 2 / 3) / 11)
    # an unsure box is a box
    unsure = replace(found, pres=torch.tensor([[0.9, 0.2, 0.3]]))
    assert m.average_precision(unsure, truth, 0.5) == 1
    # equally sure: precision 2/3 at recall 1
    assert m.average_precision(replace(found, pres=torch.ones(1, 3)), truth, 0.5) == pytest.approx(
        2 / 3
    )


def test_average_precision_asks_for_overlap_and_takes_a_true_box_once():
    truth = boxes(square(0, 0, 8))
    shifted = boxes(square(2, 0, 8))  # 48 of 80 pixels
    assert m.average_precision(shifted, truth, 0.6) == 1
    assert m.average_precision(shifted, truth, 0.65) == 0
    twice = boxes(square(0, 0, 8), square(0, 0, 8), pres=[0.9, 0.8])
    assert m.average_precision(twice, truth, 0.5) == 1  # the second comes when recall is 1 already
    assert m.average_precision(boxes(square(0, 0, 8), pres=[0]), truth, 0.5) == 0
    assert m.average_precision(shifted, boxes(square(0, 0, 8), pres=[0]), 0.5) == 1


def test_frechet_distance_of_gaussians():
    """Between N(0, 1) and N(m, s²), feature by feature: m² + (1 - s)²; correlated, by brute force."""
    from scipy.linalg import sqrtm

    x = torch.randn(4000, 3, dtype=torch.float64)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    assert m.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert m.frechet_distance(x, 2 * x + 0.5) == pytest.approx(3 * (0.25 + 1))
    y = x @ torch.tensor([[1.0, 0.5, 0], [0, 2, 0.3], [0.1, 0, 0.7]], dtype=torch.float64) + 0.2
    x = x @ torch.tensor([[2.0, 0, 0.4], [0, 1, 0], [0.3, 0, 1]], dtype=torch.float64)
    one, other = x.T.cov(), y.T.cov()
    means = (x.mean(0) - y.mean(0)).square().sum()
    root = sqrtm((one @ other).numpy()).real.trace()
    expected = float(means + one.trace() + other.trace()) - 2 * root
    assert m.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"\(3,\): expected \(N, F\)"):
        m.frechet_distance(x[0], y)


def test_mse_is_a_mean_over_pixels_and_channels():
    scene = two_objects()
    image = torch.zeros(1, 3, 8, 8)
    image[0, 1, 2, 3] = 0.5
    assert m.mse(scene, image) == pytest.approx(0.25 / 192)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\)"):
        m.mse(scene, image[:, :1])


# properties


def test_truth_scores_one_and_another_images_truth_does_not():
    truth = world()
    assert m.scene_metrics(truth, truth) == dict.fromkeys(
        KEYS | {"ari", "category_correspondence"}, 1.0
    )
    assert m.mse(truth, truth.image) == 0
    other = m.scene_metrics(truth[torch.roll(torch.arange(16), 1)], truth)
    assert all(other[key] < 0.6 for key in KEYS), other


@pytest.mark.parametrize("seed", range(5))
def test_no_metric_depends_on_the_order_of_slots(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = world(seed=seed)
    found = disturb(truth, generator)
    expected = m.scene_metrics(found, truth)
    assert 0 < expected["structure_accuracy"] < 1
    moved = m.scene_metrics(shuffle(found, generator), shuffle(truth, generator))
    assert moved == pytest.approx(expected, abs=1e-12)


def test_metrics_are_those_that_scene_and_truth_allow():
    whole, flat = two_objects(), graph(level([(-0.5, 0.0), (0.5, 0.0)]))
    objects = {"object_count_accuracy", "object_f1", "object_recall"}
    assert set(m.scene_metrics(whole, whole)) == KEYS - {"ari_fg", "ap50", "ap50_95"}
    assert set(m.scene_metrics(flat, whole)) == set(m.scene_metrics(whole, flat)) == objects
    with pytest.raises(ValueError, match="one level"):
        m.structure_accuracy(flat, whole)


def test_scenes_of_other_images_are_refused():
    with pytest.raises(ValueError, match="2 inferred scenes but 1 true"):
        m.scene_metrics(concatenate([two_objects()] * 2), two_objects())


def test_metrics_need_neither_pyro_nor_matplotlib():
    code = (
        "import sys, analysis.scores; "
        "assert not {'pyro', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# full shapes, who draws them, and the background as a segment


def strips(*strips, category=None, depth=None, width=8):
    """One image of 1 x `width` pixels with objects that fill the columns [(from, to), …], front first."""
    column, number = torch.arange(width), len(strips)
    shape = torch.stack([(column >= a) & (column < b) for a, b in strips])[None, :, None]
    mask = shape & ~(shape.long().cumsum(1) - shape.long() > 0)
    depth = torch.tensor([depth or list(range(number))]).float()
    nodes = level([(0.0, 0.0)] * number)
    category = torch.tensor([category or list(range(number))])
    nodes = replace(nodes, depth=depth, category=category, mask=mask.float(), shape=shape.float())
    image = torch.zeros(1, 3, 1, width)
    return Scene(image, (nodes,), image)


def shapes(scene, truth):
    return m.shape_metrics(scene.objects, truth.objects)


def test_full_shapes_by_hand():
    """True: 0-4 in front of 2-6. Found: the first whole, the second from 4 on, its hidden half not."""
    truth, found = strips((0, 4), (2, 6)), strips((0, 4), (4, 6))
    result = shapes(found, truth)
    assert result["shape_iou"] == pytest.approx((1 + 2 / 4) / 2)
    assert result["hidden_iou"] == 0
    assert result["depth_order_accuracy"] == 1
    half = shapes(strips((0, 4), (3, 6)), truth)  # one of two hidden pixels
    assert half["hidden_iou"] == pytest.approx(1 / 2)
    more = shapes(strips((0, 4), (1, 6)), truth)  # one too many, and it is hidden, too
    assert more["hidden_iou"] == pytest.approx(2 / 3)


def test_an_object_not_found_counts_as_nothing():
    truth = strips((0, 4), (2, 6))
    result = shapes(strips((0, 4)), truth)
    assert result["shape_iou"] == pytest.approx(1 / 2)
    assert result["hidden_iou"] == 0 and result["depth_order_accuracy"] == 0
    absent = replace(truth.objects, pres=torch.zeros(1, 2))
    nothing = m.shape_metrics(truth.objects, absent)
    assert nothing["shape_iou"] == nothing["hidden_iou"] == nothing["depth_order_accuracy"] == 1


def test_depth_order_is_of_pairs_that_overlap():
    truth = strips((0, 3), (2, 5), (6, 8))
    swapped = strips((2, 5), (0, 3), (6, 8))
    assert shapes(truth, truth)["depth_order_accuracy"] == 1
    assert shapes(swapped, truth)["depth_order_accuracy"] == 0
    apart = strips((6, 8), (0, 3), (2, 5))  # the third does not overlap: its depth is of no account
    assert shapes(apart, truth)["depth_order_accuracy"] == 1


def test_purity_is_the_information_that_winners_have_about_classes():
    """Two images of two classes: the same expert for both, one each, and mixed up."""
    truth = concatenate([strips((0, 2), (4, 6), category=[0, 1])] * 2)

    def found(*winners):
        scenes = [strips((0, 2), (4, 6), category=list(pair)) for pair in winners]
        return shapes(concatenate(scenes), truth)

    assert found((3, 2), (3, 2))["expert_purity"] == pytest.approx(1)
    assert found((1, 1), (1, 1))["expert_purity"] == 0
    assert found((0, 1), (1, 0))["expert_purity"] == pytest.approx(0, abs=1e-9)
    # of four objects one is by the other class's expert: I = ln 2 - (3 ln 3 - 2 ln 2) / 4 + …, by hand
    joint = {(0, 0): 2 / 4, (1, 0): 1 / 4, (1, 1): 1 / 4}
    rows, columns = {0: 1 / 2, 1: 1 / 2}, {0: 3 / 4, 1: 1 / 4}
    mutual = sum(p * math.log(p / (rows[i] * columns[j])) for (i, j), p in joint.items())
    entropies = [-sum(p * math.log(p) for p in t.values()) for t in (rows, columns)]
    expected = mutual / (sum(entropies) / 2)
    assert found((0, 1), (0, 0))["expert_purity"] == pytest.approx(expected)


def test_experts_alive_are_those_that_explain_a_twentieth_of_the_objects():
    one, other = strips((0, 2), (4, 6), category=[0, 0]), strips((0, 2), (4, 6), category=[0, 1])
    for number, alive in ((9, 2), (10, 1)):  # one object of 20, and of 22
        scene = concatenate([one] * number + [other])
        assert shapes(scene, scene)["experts_alive"] == alive
    assert shapes(one, one)["experts_alive"] == 1


def test_ari_of_all_pixels_counts_the_background_as_a_segment():
    truth = strips((0, 2), (4, 6))
    assert m.ari_all(truth, truth) == 1
    # the second object is taken for background: 2, 2 and 4 pixels against 2 and 6
    found = strips((0, 2))
    pairs = lambda *sizes: sum(n * (n - 1) / 2 for n in sizes)
    together, one, two, total = pairs(2, 2, 4), pairs(2, 2, 4), pairs(2, 6), pairs(8)
    expected = (together - one * two / total) / ((one + two) / 2 - one * two / total)
    assert m.ari_all(found, truth) == pytest.approx(expected)
    assert m.ari_fg(found, truth) == 1  # what is not covered is a segment of its own


def test_shape_metrics_need_shapes_on_both_sides():
    with_shapes = strips((0, 2), (4, 6))
    without = replace(with_shapes, levels=(replace(with_shapes.objects, shape=None),))
    new = {
        "shape_iou",
        "hidden_iou",
        "depth_order_accuracy",
        "expert_purity",
        "experts_alive",
    }
    assert new <= set(m.scene_metrics(with_shapes, with_shapes))
    assert not new & set(m.scene_metrics(without, with_shapes))


def test_the_order_of_objects_that_look_alike_is_a_guess():
    """Two squares on each other: of one colour either may lie in front; of two colours it is seen."""
    shape = torch.zeros(1, 2, 8, 8)
    shape[0, 0, 1:5, 1:5], shape[0, 1, 3:7, 2:6] = 1, 1
    front, back = shape[:, 0], shape[:, 1] * (1 - shape[:, 0])
    ones, zeros = torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.long)
    objects = Nodes(
        ones,
        torch.zeros(1, 2, 2, 3),
        torch.tensor([[0.0, 1.0]]),
        zeros,
        zeros,
        mask=torch.stack([front, back], 1),
        shape=shape,
    )
    truth = Scene(torch.zeros(1, 3, 8, 8), (objects,))
    alike = (front + back)[:, None].expand(-1, 3, -1, -1) * 0.5
    other = alike + 0.25 * back[:, None]
    generator = torch.Generator().manual_seed(0)
    values = {round(m.ari_of_twins(truth, alike, generator), 6) for _ in range(20)}
    under = torch.where(shape[0, 1] > 0, 2, 1)[(front + back)[0] > 0]
    above = torch.where(shape[0, 0] > 0, 1, 2)[(front + back)[0] > 0]
    assert values == {1.0, round(m.adjusted_rand_index(above, under), 6)}
    assert {m.ari_of_twins(truth, other, generator) for _ in range(10)} == {1.0}
