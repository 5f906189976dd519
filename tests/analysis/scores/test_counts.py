"""Numbers, places and ownership of nodes: counts, F1, recall, structure, categories."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from scenes_by_hand import graph, level, two_objects

from analysis import scores as m
from analysis.scores.counts import OBJECT_RADIUS, PART_RADIUS
from programs.scene import concatenate

KEYS = {
    f"{level}_{name}" for level in ("object", "part") for name in ("count_accuracy", "f1", "recall")
} | {"structure_accuracy", "ari_fg", "ap50", "ap50_95"}


# what the numbers are


def test_count_accuracy_compares_numbers_not_slots():
    truth = concatenate([graph(level([(0, 0), (0, 0), (0, 0)], p)) for p in ([1, 1, 0], [1, 0, 0])])
    found = concatenate([graph(level([(0, 0), (0, 0), (0, 0)], p)) for p in ([0, 1, 1], [1, 1, 0])])
    assert m.count_accuracy(found.objects, truth.objects) == 0.5


def test_wrong_counts_are_told_apart_by_sign():
    truth = concatenate([graph(level([(0, 0), (0, 0), (0, 0)], [1, 1, 0]))] * 4)
    pres = ([1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 0, 0])
    found = concatenate([graph(level([(0, 0), (0, 0), (0, 0)], p)) for p in pres])
    errors = m.count_errors(found, truth)
    assert errors == {"object_count_over": 0.25, "object_count_under": 0.5}
    assert sum(errors.values()) == 1 - m.count_accuracy(found.objects, truth.objects)


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


# properties


# full shapes, who draws them, and the background as a segment
