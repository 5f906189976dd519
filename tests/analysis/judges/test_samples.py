"""Two samples compared."""

import pytest
import torch

from analysis.judges.samples import precision_recall, told_apart, total_variation


def test_total_variation():
    one, other = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 3, 3])
    assert total_variation(one, one) == 0
    assert total_variation(one, other) == 0.5
    assert total_variation(one, torch.tensor([7])) == 1
    empty = torch.zeros(0, dtype=torch.int64)
    assert total_variation(one, empty) == 1 and total_variation(empty, empty) == 0


def test_what_is_alike_is_not_told_apart():
    torch.manual_seed(0)
    one, alike, other = torch.randn(400, 4), torch.randn(400, 4), 3 + torch.randn(400, 4)
    assert told_apart(one, alike) == pytest.approx(0.5, abs=4 * 0.5 / 800**0.5)
    assert told_apart(one, other) > 0.95


def test_precision_is_of_what_is_drawn_and_recall_of_what_is_true():
    """Draws of one of two clusters are all good, and half of what is true is missing."""
    torch.manual_seed(0)
    kinds = torch.tensor([[0.0, 0.0], [20.0, 0.0]])
    true = kinds.repeat(100, 1) + torch.rand(200, 2)
    precision, recall = precision_recall(torch.rand(200, 2), true)
    assert precision > 0.9 and recall == pytest.approx(0.5, abs=0.06)
    precision, recall = precision_recall(true + torch.tensor([0.0, 9.0]), true)
    assert precision == recall == 0
