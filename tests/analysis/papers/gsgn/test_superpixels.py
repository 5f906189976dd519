"""Superpixels merged: on pictures whose regions are known, and where scikit-image is not installed."""

import sys
from importlib.util import find_spec

import pytest
import torch
from tiny import shows_something

from analysis.papers.gsgn import superpixels
from analysis.papers.gsgn.items import ITEMS
from analysis.papers.gsgn.trainings import WORLDS
from analysis.papers.item import Request
from inference.runs import open_run

installed = pytest.mark.skipif(find_spec("skimage") is None, reason="needs scikit-image")


def patches():
    """Black with a red square and, apart from it, a green one with a blue corner."""
    labels = torch.zeros(32, 32, dtype=torch.int64)
    labels[4:14, 4:14], labels[16:28, 16:28], labels[22:28, 22:28] = 1, 2, 3
    colours = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0.2, 1]])
    return colours[labels].permute(2, 0, 1), labels


@installed
def test_the_true_number_of_regions_finds_the_true_regions():
    image, truth = patches()
    merged = superpixels.hierarchy(image)
    assert superpixels.agreement(merged.cut(4), truth)["ari"] > 0.95
    for regions in (1, 2, 4, 30):
        assert len(merged.cut(regions).unique()) == regions == int(merged.cut(regions).max()) + 1


@installed
def test_cuts_are_nested():
    merged = superpixels.hierarchy(
        torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    )
    fine, coarse = merged.cut(20), merged.cut(5)
    assert all(len(coarse[fine == k].unique()) == 1 for k in range(20))


@installed
def test_shades_of_grey_too():
    image, truth = patches()
    merged = superpixels.hierarchy(image[:1])
    assert superpixels.agreement(merged.cut(2), (truth == 1).long())["ari"] > 0.95


def test_too_many_regions_are_refused():
    merged = superpixels.Hierarchy(torch.zeros(1, 2).long().numpy(), ((0, 1),))
    with pytest.raises(ValueError, match="regions=3: expected 1 to 2"):
        merged.cut(3)


def test_mean_colours():
    image = torch.tensor([[[0.0, 1.0], [0.25, 0.75]]])
    labels = torch.tensor([[0, 0], [1, 2]])
    assert superpixels.mean_colours(image, labels).tolist() == [[[0.5, 0.5], [0.25, 0.75]]]


def test_agreement_without_foreground_is_of_all_pixels_alone():
    labels = torch.zeros(2, 2, dtype=torch.int64)
    assert superpixels.agreement(labels, labels) == {"ari": 1.0}


@installed
def test_both_worlds_are_cut_and_gsgn_stands_beside():
    item = ITEMS["figure11"]
    runs = {name: open_run(training.shipped) for name, training in item.trainings.items()}
    made = item.make(runs, Request(scenes=2))
    cases = {row.case for row in made.rows}
    assert cases == {f"{w}, {k}" for w in WORLDS for k in ("objects", "parts")}
    assert {row.model for row in made.rows} == {"GSGN", "merged superpixels"}
    ours = {(r.case, r.model): r.ours for r in made.rows if r.metric == "ari_fg"}
    assert ours["2D Shapes, parts", "GSGN"] > 0.9 > ours["2D Shapes, objects", "merged superpixels"]
    assert {*made.figures} == {"2d_shapes", "compositional_clevr"}
    for figure in made.figures.values():
        assert len(figure.axes) == 2 * 5 and shows_something(figure)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.graph", None)
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ValueError, match=r"scene-programs\[superpixels\]"):
        ITEMS["figure11"].make({}, Request())
