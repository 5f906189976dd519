"""Pictures of graphs, tables and maps: what is drawn where."""

import pytest
import torch

from analysis import plots
from programs.blocks import render
from programs.scene import Nodes, Scene


def scene_of(*numbers, category=None):
    """Scenes of so many objects of at most three, in the corners of 16 x 16 images."""
    where = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]]).expand(len(numbers), 3, 2)
    pose = render.pose(where, torch.full((3, 1), 0.3), torch.zeros(3))
    pres = (torch.arange(3) < torch.tensor(numbers)[:, None]).float()
    root = torch.zeros_like(pres).long()
    nodes = Nodes(pres, pose, pres, root, category)
    return Scene(torch.rand(len(numbers), 1, 16, 16), (nodes,))


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_a_graph_has_a_node_per_object_and_an_edge_per_pair():
    scene = scene_of(3, 1, 0, category=torch.tensor([[0, 1, 0], [1, -1, -1], [-1, -1, -1]]))
    figure = plots.graph_figure(scene.image, scene, {0: "ring"}, count=3)
    three, one, none = (figure.axes[4 * row + 2] for row in range(3))
    assert [len(axes.collections) for axes in (three, one, none)] == [3, 1, 0]
    assert [len(axes.lines) for axes in (three, one, none)] == [3, 0, 0]
    assert words(three).count("ring") == 2 and "category 1" in words(one)
    assert sorted(text for text in words(three) if text.startswith("(")) == sorted(
        ["(+0.50, +0.00)", "(+0.00, +0.50)\nCatEq", "(-0.50, +0.50)"]
    )
    codes = words(figure.axes[3])[0]
    assert "1 ring" in codes and "x=0.25 y=0.25 size=0.30 angle=0.00" in codes
    assert [words(figure.axes[4 * row])[-1] for row in range(3)] == ["3", "1", "0"]


def test_edges_of_programs_without_categories_say_places_alone():
    scene = scene_of(2)
    figure = plots.graph_figure(scene.image, scene)
    assert "(+0.50, +0.00)" in words(figure.axes[2])


def test_a_matrix_shows_the_shares_of_its_rows():
    figure = plots.matrix_figure(torch.tensor([[3, 1], [0, 0]]), ["a", "b"], ["x", "y"])
    assert words(figure.axes[0]) == ["0.75", "0.25", "0.00", "0.00"]


def test_maps_are_below_each_other_from_the_least_to_the_greatest():
    pictures, scene = torch.rand(2, 3, 16, 16), scene_of(2, 1)
    rows = {
        "image": pictures,
        "boxes": pictures,
        "norm": torch.tensor([[[0.0, 2.0]], [[4.0, 2.0]]]),
    }
    figure = plots.maps_figure(rows, {"boxes": scene})
    image, _, boxes, other, norm, _ = figure.axes
    assert (len(image.patches), len(boxes.patches), len(other.patches)) == (0, 2, 1)
    assert words(norm) == ["norm\n0 to 4"] and words(image) == ["image"]
    least = plots.heat(torch.zeros(1, 1, 1))[0, :, 0, 0]
    torch.testing.assert_close(least, VIRIDIS, atol=1e-3, rtol=0)


VIRIDIS = torch.tensor([0.267, 0.005, 0.329])
"""The colour of 0."""


def test_regions_have_their_slots_colours():
    masks = torch.eye(4)[:2].view(2, 2, 2)
    found = plots.coloured(masks, torch.tensor([True, False]))
    assert found[:, 0, 0].tolist() == pytest.approx([1.0, 0x9F / 255, 0x1C / 255])
    assert found[:, 0, 1].sum() == 0
