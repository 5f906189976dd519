"""The downstream task: labels by hand, nets that do not know slots from each other, curves."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import build

from analysis.papers.gsgn import downstream
from analysis.papers.gsgn.downstream import (
    Classifier,
    GraphNet,
    Graphs,
    Seen,
    Split,
    distinct_shapes,
    learn,
)
from analysis.papers.gsgn.items import ITEMS
from analysis.papers.item import Request
from inference.images.worlds import world_dataset
from inference.runs import open_run
from programs.scene import Nodes, Scene
from programs.worlds import shapes2d


def nodes(pres, parent, category=None):
    pres = torch.tensor(pres)
    kinds = None if category is None else torch.tensor(category)
    pose = torch.eye(2, 3).expand(*pres.shape, 2, 3)
    return Nodes(pres, pose, torch.ones_like(pres), torch.tensor(parent), kinds)


def scene(*levels):
    return Scene(torch.zeros(len(levels[0].pres), 3, 4, 4), levels)


OBJECTS = nodes([[1.0, 1.0, 0.0]], [[0, 0, 0]])
PARENT = [[0, 0, 0, 1, 1, 2]]


@pytest.mark.parametrize(
    ("pres", "category", "label"),
    [
        ([1, 1, 1, 1, 1, 0], [0, 1, 2, 0, 1, -1], 5),  # all different: 3 + 2
        ([1, 1, 1, 1, 1, 0], [0, 0, 2, 1, 1, -1], 3),  # repeats within an object count once
        (
            [1, 1, 0, 1, 0, 0],
            [2, 2, 1, 2, 1, -1],
            2,
        ),  # of different objects they count twice; absent never
        ([0, 0, 0, 0, 0, 0], [-1, -1, -1, -1, -1, -1], 0),
    ],
)
def test_labels_count_shapes_within_objects(pres, category, label):
    parts = nodes([[float(p) for p in pres]], PARENT, [category])
    assert distinct_shapes(scene(OBJECTS, parts)).tolist() == [label]


def test_labels_of_the_world_are_those_of_its_types():
    truth = shapes2d.world(40, torch.Generator().manual_seed(0), shapes2d.Config(size=32))
    of_type = [len({part[0] for part in parts}) for parts in shapes2d.TYPES]
    wanted = [sum(of_type[k] for k in row if k >= 0) for row in truth.objects.category.tolist()]
    assert distinct_shapes(truth).tolist() == wanted


def test_labels_need_parts_with_shapes():
    for truth in (scene(OBJECTS), scene(OBJECTS, nodes([[1.0] * 6], PARENT))):
        with pytest.raises(ValueError, match="shapes2d"):
            distinct_shapes(truth)


def some_graphs(batch=3, graphs=4, number=5, features=6):
    generator = torch.Generator().manual_seed(1)
    what = torch.randn(batch, graphs, number, features, generator=generator)
    there = torch.rand(batch, graphs, number, generator=generator) < 0.6
    return Graphs(what, there)


def test_the_graph_net_knows_neither_order_nor_absent_nodes():
    net, graphs = GraphNet(6, 8), some_graphs()
    order = torch.randperm(5)
    permuted = Graphs(graphs.what[:, :, order], graphs.there[:, :, order])
    torch.testing.assert_close(net(permuted), net(graphs), atol=1e-5, rtol=1e-4)
    other = torch.where(graphs.there[..., None], graphs.what, 1e3 * torch.ones(()))
    torch.testing.assert_close(net(Graphs(other, graphs.there)), net(graphs))
    nobody = Graphs(graphs.what, torch.zeros_like(graphs.there))
    assert (net(nobody) == 0).all()


def test_messages_pass_between_nodes_of_a_graph_and_not_between_graphs():
    net, graphs = GraphNet(6, 8), some_graphs()
    graphs = replace(graphs, there=torch.ones_like(graphs.there))
    apart = Graphs(graphs.what.flatten(1, 2).unsqueeze(2), graphs.there.flatten(1, 2).unsqueeze(2))
    alone = net(apart).unflatten(1, (4, 5)).sum(2)
    assert not torch.allclose(net(graphs), alone, atol=1e-3)
    changed = graphs.what.clone()
    changed[:, 0] += 1
    before, after = net(graphs), net(Graphs(changed, graphs.there))
    assert torch.equal(before[:, 1:], after[:, 1:]) and not torch.equal(before[:, 0], after[:, 0])


def test_the_classifier_knows_neither_the_order_of_objects_nor_absent_ones():
    net, graphs = Classifier(6, 3), some_graphs()
    there = graphs.there.clone()
    there[:, 0] = False
    order = torch.tensor([2, 3, 0, 1])
    permuted = Graphs(graphs.what[:, order], there[:, order])
    torch.testing.assert_close(net(permuted), net(Graphs(graphs.what, there)), atol=1e-5, rtol=1e-4)
    fewer = net(Graphs(graphs.what[:, 1:], there[:, 1:]))
    torch.testing.assert_close(fewer, net(Graphs(graphs.what, there)), atol=1e-5, rtol=1e-4)


def test_parts_come_together_with_their_object():
    what = torch.arange(6.0).view(1, 6, 1)
    there = torch.tensor([[True, False, True, True, True, False]])
    seen = Seen(what, there, torch.tensor([[1, 1, 0, 1, 1, 0]]))
    graphs = seen.together(3)
    assert graphs.there.tolist() == [[[True, False, False], [True] * 3, [False] * 3]]
    assert graphs.what[0, 0, 0].item() == 2 and graphs.what[0, 1, :, 0].tolist() == [0, 3, 4]
    assert seen.apart().what.shape == (1, 6, 1, 1)


@pytest.mark.parametrize(
    ("program", "variant", "levels"),
    [("gsgn", "gsgn", 2), ("gsgn", "mem", 2), ("air", "air", 1), ("econ", "econ", 1)],
)
def test_latents_are_read_by_the_vocabulary(program, variant, levels):
    program, guide = build(program, variant)
    size = program.config.size
    data = world_dataset("shapes2d", 3, config=shapes2d.Config(size=size), progress=False)
    if getattr(program.config, "colours", 3) == 1:
        data = replace(data, images=data.images[:, :1])
    seen = downstream.read(program.eval(), guide.eval(), data)
    assert len(seen) == levels
    for level in seen:
        assert level.what.shape[:2] == level.there.shape == level.owner.shape
    if variant == "mem":  # the address in the memory, and the rest
        assert seen[-1].what.shape[-1] == program.config.memory + program.config.z_what[-1]
    if levels == 2:
        assert seen[-1].owner[0].tolist() == [k // 4 for k in range(16)]


def toy(number, seed):
    """Two nodes of two kinds; whether they are of the same kind."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(2, (number, 1, 2), generator=generator)
    graphs = Graphs(2.0 * kind[..., None] - 1, torch.ones(number, 1, 2, dtype=torch.bool))
    return Split(graphs, (kind[:, 0, 0] == kind[:, 0, 1]).long())


def test_what_lies_between_nodes_is_learned_and_by_seed():
    runs = [learn(toy(64, 0), toy(50, 1), 2, 3e-3, 60, seed) for seed in (0, 0, 1)]
    assert runs[0][1].accuracy(*toy(100, 2)) == 1
    first, again, other = (torch.cat([p.flatten() for p in net.parameters()]) for _, net in runs)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_ratio_of_labels():
    points = {64: 0.2, 128: 0.4, 256: 0.6}
    twice = {2 * n: accuracy for n, accuracy in points.items()}
    assert downstream.labels_ratio(points, twice) == pytest.approx(2)
    assert downstream.labels_ratio(twice, points) == pytest.approx(0.5)
    assert math.isnan(downstream.labels_ratio(points, {64: 0.7, 128: 0.9}))
    level = {64: 0.2, 128: 0.4, 192: 0.3, 256: 0.6}  # a size that gains nothing
    assert downstream.labels_ratio(points, level) == pytest.approx(1)


def test_views_say_what_they_need():
    seen = [Seen(torch.ones(1, 2, 3), torch.ones(1, 2).bool(), torch.tensor([[0, 1]]))]
    with pytest.raises(ValueError, match="give 'objects'"):
        downstream.view(seen, "tree")
    nothing = [replace(seen[0], there=torch.zeros(1, 2).bool())]
    with pytest.raises(ValueError, match="train the run first"):
        downstream.view(nothing, "objects")


def test_a_curve_per_view_and_the_labels_that_each_needs(monkeypatch):
    monkeypatch.setattr(downstream, "STEPS", 4)
    run = open_run("gsgn-shapes2d")
    item = ITEMS["figure6"]
    assert {t.world for t in item.trainings.values()} == {"compositional_clevr"}
    both = [item.make({"GSGN": run, "SPACE-O": run}, Request(scenes=52)) for _ in range(2)]
    assert both[0].rows == both[1].rows
    accuracy = [row for row in both[0].rows if row.case == "accuracy"]
    assert [(row.model, row.metric) for row in accuracy] == [
        (name, "64 labels") for name in ("GSGN: tree", "GSGN: parts", "SPACE-O: objects")
    ]
    assert all(0 <= row.ours <= 1 and row.scenes == 52 for row in accuracy)
    needed = {row.model: row for row in both[0].rows if row.metric == "labels_needed"}
    assert [row.paper for row in needed.values()] == [1.0, None, 2.0]
    assert len(both[0].figures["accuracy"].axes[0].get_legend().get_texts()) == 3


def test_the_labels_that_curves_need_are_in_those_of_the_first():
    curves = {"GSGN: tree": {64: 0.2, 128: 0.4}, "SPACE-O: objects": {128: 0.2, 256: 0.4}}
    needed = [row for row in downstream.rows(curves, 9) if row.metric == "labels_needed"]
    assert [row.ours for row in needed] == pytest.approx([1, 2])
    apart = {"GSGN: tree": {64: 0.2, 128: 0.4}, "SPACE-O: objects": {64: 0.5, 128: 0.6}}
    assert [*downstream.rows(apart, 9)][-1].ours is None


def test_a_world_without_parts_is_refused():
    with pytest.raises(ValueError, match="truth has none"):
        next(downstream.study(open_run("air-multi_mnist"), ["objects"], [8], 4, 2, 0))
