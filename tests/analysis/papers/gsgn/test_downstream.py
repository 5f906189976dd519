"""The downstream task: labels by hand, nets that do not know slots from each other, curves, the command."""

import csv
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
from inference.images.worlds import world_dataset
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
    data = world_dataset("shapes2d", 3, config=shapes2d.Config(size=32), progress=False)
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


def test_the_command(tmp_path, capsys):
    options = ["--views", "tree,parts", "--labels", "16,8", "--scenes", "12", "--steps", "4"]
    run = "gsgn-shapes2d"
    tables = []
    for out in (tmp_path / "one", tmp_path / "two"):
        assert downstream.main([run, *options, "--repeats", "2", "--out", str(out)]) == 0
        tables.append((out / "downstream.csv").read_text())
        assert (out / "downstream.png").stat().st_size > 5_000
    assert tables[0] == tables[1]
    rows = list(csv.DictReader(tables[0].splitlines()))
    seen = [(row["view"], row["labels"], row["repeat"]) for row in rows]
    assert seen == [(v, n, k) for v in ("tree", "parts") for n in ("8", "16") for k in ("0", "1")]
    assert "labels needed" in capsys.readouterr().out
    assert downstream.main([run, "--views", "cells", "--out", str(tmp_path)]) == 2
    assert "known are tree, objects, parts" in capsys.readouterr().err
    assert downstream.main(["air-multi_mnist", *options, "--out", str(tmp_path)]) == 2
    assert "truth has none" in capsys.readouterr().err
