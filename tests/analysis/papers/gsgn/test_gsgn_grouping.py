"""Objects from overlapping boxes, against components found by hand."""

import itertools

import pytest
import torch

from analysis.papers.gsgn.grouping import group, leaders
from analysis.scores import scene_metrics
from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.worlds import shapes2d


def flat(boxes, pres=None):
    """One image with boxes (x, y, half width, half height)."""
    boxes = torch.tensor([boxes])
    pres = torch.ones(boxes.shape[:2]) if pres is None else torch.tensor([pres])
    pose = render.pose(boxes[..., :2], boxes[..., 2:], torch.zeros_like(pres))
    depth = torch.arange(1.0, pres.shape[1] + 1).expand_as(pres)
    nodes = Nodes(pres, pose, depth, torch.zeros_like(pres).long())
    return Scene(torch.zeros(1, 3, 32, 32), (nodes,))


def test_boxes_that_overlap_are_one_object_and_so_are_chains_of_them():
    chain = [
        (-0.6, 0.0, 0.2, 0.1),
        (0.5, 0.5, 0.1, 0.1),
        (-0.3, 0.0, 0.2, 0.1),
        (0.0, 0.0, 0.2, 0.3),
    ]
    scene = group(flat(chain))
    assert scene.parts.parent.tolist() == [[0, 1, 0, 0]]
    assert scene.objects.pres.tolist() == [[1.0, 1.0, 0.0, 0.0]]
    torch.testing.assert_close(scene.objects.centre[0, 0], torch.tensor([-0.3, 0.0]))
    torch.testing.assert_close(scene.objects.extent[0, 0], torch.tensor([0.5, 0.3]))
    torch.testing.assert_close(scene.objects.pose[0, 1], scene.parts.pose[0, 1])
    assert scene.objects.depth[0, :2].tolist() == [1.0, 2.0]


def test_boxes_that_touch_or_overlap_along_one_axis_alone_are_two():
    touching = [(-0.2, 0.0, 0.2, 0.2), (0.2, 0.0, 0.2, 0.2), (-0.2, 0.5, 0.2, 0.2)]
    assert group(flat(touching)).parts.parent.tolist() == [[0, 1, 2]]


def test_an_absent_part_joins_nothing():
    row = [(-0.3, 0.0, 0.2, 0.1), (0.0, 0.0, 0.2, 0.1), (0.3, 0.0, 0.2, 0.1)]
    scene = group(flat(row, [1.0, 0.0, 1.0]))
    assert scene.objects.pres.tolist() == [[1.0, 0.0, 1.0]]
    assert scene.parts.parent.tolist() == [[0, 1, 2]]
    assert scene.objects.pose.isfinite().all() and scene.objects.depth.isfinite().all()


def test_a_turned_part_has_the_upright_box_around_it():
    turned = flat([(0.0, 0.0, 0.2, 0.2), (0.45, 0.0, 0.2, 0.2)])
    eighth = torch.full((1, 2), torch.pi / 4)
    pose = render.pose(
        torch.tensor([[[0.0, 0.0], [0.45, 0.0]]]), torch.full((1, 2, 2), 0.2), eighth
    )
    (nodes,) = turned.levels
    turned = Scene(turned.image, (Nodes(nodes.pres, pose, nodes.depth, nodes.parent),))
    assert group(turned).parts.parent.tolist() == [[0, 0]]


def test_components_are_those_of_a_search():
    generator = torch.Generator().manual_seed(0)
    joined = torch.rand(30, 9, 9, generator=generator) < 0.08
    joined = joined | joined.mT
    for relation, found in zip(joined, leaders(joined), strict=True):
        component = list(range(9))
        for _, (i, j) in itertools.product(range(9), relation.nonzero().tolist()):
            component[i] = component[j] = min(component[i], component[j])
        assert found.tolist() == component


def test_true_parts_of_one_part_objects_make_the_true_tree():
    truth = shapes2d.world(batch=60, generator=torch.Generator().manual_seed(0))
    single = torch.zeros(60).bool()
    for b in range(60):
        parts = truth.parts.parent[b][truth.parts.present[b]]
        single[b] = len(parts) == len(parts.unique())
    truth = truth[single]
    found = scene_metrics(group(Scene(truth.image, (truth.parts,))), truth)
    assert len(truth) > 3
    assert found["structure_accuracy"] == found["part_f1"] == found["object_f1"] == 1.0


def test_a_tree_is_refused():
    truth = shapes2d.world(batch=2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="2 levels"):
        group(truth)
