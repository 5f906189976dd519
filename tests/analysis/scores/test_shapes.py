"""Full shapes of objects: found, ordered, explained by experts."""

import math
from dataclasses import replace

import pytest
import torch
from scenes_by_hand import level

from analysis import scores as m
from programs.scene import Nodes, Scene, concatenate


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


def test_objects_that_share_no_pixel_are_no_partners():
    truth, found = strips((0, 2), (1, 3), category=[0, 1]), strips((4, 6), (5, 7), category=[1, 0])
    result = shapes(found, truth)
    assert result["depth_order_accuracy"] == 0 and result["expert_purity"] == 0


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
