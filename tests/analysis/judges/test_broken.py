"""Scenes that a judge must refuse are broken where objects are."""

import pytest
import torch

from analysis.judges.broken import KINDS, an_object, broken, differs, halves
from programs.worlds import dead_leaves


@pytest.fixture(scope="module")
def truth():
    scene, labels = dead_leaves.draw(40, torch.Generator().manual_seed(0), dead_leaves.Config())
    return dead_leaves.with_masks(scene, labels)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_breaks_most_scenes_and_keeps_their_range(truth, kind):
    x, sure = broken(truth, kind, torch.Generator().manual_seed(0))
    again, _ = broken(truth, kind, torch.Generator().manual_seed(0))
    assert x.shape == truth.image.shape and torch.equal(x, again)
    assert x.min() >= -1e-5 and x.max() <= 1 + 1e-5
    assert sure.double().mean() > 0.3
    assert ((x - truth.image).abs().amax((1, 2, 3)) > 0.1)[sure].all()


def test_what_hardly_differs_is_left_out(truth):
    mask = an_object(truth, torch.Generator().manual_seed(0))
    assert not differs(truth.image, truth.image + 0.01, mask).any()
    assert not differs(truth.image, 1 - truth.image, torch.zeros_like(mask)).any()
    assert differs(truth.image, 1 - truth.image, mask).double().mean() > 0.9


def test_halves_come_from_another_scene_and_only_near_the_object(truth):
    generator = torch.Generator().manual_seed(0)
    mask = an_object(truth, generator)
    other = torch.arange(len(truth)).roll(1)
    drawn = halves(truth.image, mask, other, generator)
    changed = (drawn != truth.image).any(1).double().mean((1, 2))
    assert 0 < changed.mean() < 0.1
