"""Masks: the adjusted Rand index, intersection over union, average precision."""

from dataclasses import replace

import pytest
import torch
from scenes_by_hand import graph, level, two_objects

from analysis import scores as m
from programs.scene import concatenate


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
    fine = m.average_precision(found, truth, 0.5, points=101)
    assert fine == pytest.approx((51 + 50 * 2 / 3) / 101)
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
