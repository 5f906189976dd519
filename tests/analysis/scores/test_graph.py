"""Edge embeddings of a scene, by hand."""

import math

import pytest
import torch

from analysis.scores.graph import scene_graph
from programs.blocks import render
from programs.scene import Nodes, Scene


@pytest.fixture
def scene():
    """Two images: three objects of which the middle one is absent, and one object."""
    where = torch.tensor([[[0.0, 0.0], [0.9, 0.9], [0.3, -0.4]], [[0.1, 0.2], [0, 0], [0, 0]]])
    scale = torch.tensor([[[0.1], [0.5], [0.2]], [[0.3], [0.5], [0.5]]])
    angle = torch.tensor([[3.0, 0.0, -3.0], [1.0, 0.0, 0.0]])
    pres = torch.tensor([[1.0, 0, 1], [1, 0, 0]])
    nodes = Nodes(
        pres, render.pose(where, scale, angle), pres, pres.long(),
        category=torch.tensor([[2, -1, 2], [0, -1, -1]]),
        attributes=torch.tensor([[[1.0, 0], [9, 9], [4, 4]], [[0, 0], [9, 9], [9, 9]]]),
    )  # fmt: skip
    return Scene(torch.zeros(2, 1, 4, 4), (nodes,))


def test_nodes_are_the_objects_present(scene):
    nodes = scene_graph(scene).nodes
    assert nodes["image"].tolist() == [0, 0, 1] and nodes["slot"].tolist() == [0, 2, 0]
    torch.testing.assert_close(nodes["extent"], torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]))


def test_edges_join_objects_of_an_image_both_ways_and_say_how_they_differ(scene):
    edges = scene_graph(scene).edges
    assert list(zip(edges["source"].tolist(), edges["target"].tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
    ]
    torch.testing.assert_close(edges["offset"], torch.tensor([[0.3, -0.4], [-0.3, 0.4]]))
    torch.testing.assert_close(edges["distance"], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(edges["size"][0], torch.full((2,), math.log(2)))
    torch.testing.assert_close(edges["turn"], torch.tensor([2 * math.pi - 6, 6 - 2 * math.pi]))
    torch.testing.assert_close(edges["attributes"], torch.tensor([5.0, 5.0]))
    assert edges["same_category"].all()


def test_what_a_scene_has_not_is_not_in_its_graph():
    nodes = Nodes(*(torch.ones(1, 2), torch.rand(1, 2, 2, 3), torch.ones(1, 2), torch.zeros(1, 2)))
    graph = scene_graph(Scene(torch.zeros(1, 1, 4, 4), (nodes,)))
    assert "category" not in graph.nodes and "same_category" not in graph.edges
    assert len(graph.edges["source"]) == 2


def test_nodes_and_edges_in_words(scene):
    graph = scene_graph(scene)
    first, second, other = graph.node_rows({2: "ring"})
    assert first == {
        **{"image": 1, "node": 1, "category": "ring", "x": 0.5, "y": 0.5, "size": 0.1},
        **{"angle": 3.0, "attr1": 1.0, "attr2": 0.0},
    }
    assert (second["node"], second["x"], second["y"]) == (2, 0.65, 0.3)
    assert (other["image"], other["node"], other["category"]) == (2, 1, "category 0")
    there, back = graph.edge_rows()
    assert there == {
        **{"image": 1, "from": 1, "to": 2, "dx": 0.15, "dy": -0.2, "distance": 0.25},
        **{"same": "yes", "attributes": 5.0},
    }
    assert (back["from"], back["dx"], back["dy"]) == (2, -0.15, 0.2)


def test_a_graph_of_networkx_holds_the_same(scene):
    pytest.importorskip("networkx")
    graph = scene_graph(scene).to_networkx(0)
    assert set(graph.nodes) == {0, 1} and set(graph.edges) == {(0, 1), (1, 0)}
    assert graph.edges[0, 1]["distance"] == pytest.approx(0.5)
    assert graph.nodes[1]["category"] == 2
    assert len(scene_graph(scene).to_networkx(1).edges) == 0
