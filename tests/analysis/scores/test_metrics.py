"""All metrics of scenes at once."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from scenes_by_hand import graph, level, two_objects

from analysis import scores as m
from programs.scene import Nodes, concatenate
from programs.worlds import shapes2d

KEYS = {
    f"{level}_{name}" for level in ("object", "part") for name in ("count_accuracy", "f1", "recall")
} | {"structure_accuracy", "ari_fg", "ap50", "ap50_95"}


def world(batch=16, seed=0):
    return shapes2d.world(
        batch, torch.Generator().manual_seed(seed), shapes2d.Config(size=64, min_objects=2)
    )


def shuffle(scene, generator):
    """The same graphs with slots in another order, and parents' indices accordingly."""
    orders = [torch.randperm(n.pres.shape[1], generator=generator) for n in scene.levels]
    moved = [_take(nodes, order) for nodes, order in zip(scene.levels, orders, strict=True)]
    back = orders[0].argsort()
    return replace(scene, levels=(moved[0], replace(moved[1], parent=back[moved[1].parent])))


def _take(nodes, order):
    fields = {k: v[:, order] for k, v in vars(nodes).items() if v is not None}
    return Nodes(**fields)


def disturb(scene, generator, spread=0.03):
    """A plausible inference: centres moved, nodes lost, parents mistaken."""
    levels = []
    for nodes in scene.levels:
        pose, pres = nodes.pose.clone(), nodes.pres
        pose[..., 2] += spread * torch.randn(pose.shape[:-1], generator=generator)
        lost = torch.rand(pres.shape, generator=generator) < 0.05
        levels.append(replace(nodes, pose=pose, pres=pres * ~lost))
    stray = torch.rand(levels[1].parent.shape, generator=generator) < 0.05
    levels[1] = replace(levels[1], parent=(levels[1].parent + stray) % 4)
    return replace(scene, levels=tuple(levels))


def test_truth_scores_one_and_another_images_truth_does_not():
    truth = world()
    assert m.scene_metrics(truth, truth) == dict.fromkeys(
        KEYS | {"ari", "category_correspondence"}, 1.0
    )
    assert m.mse(truth, truth.image) == 0
    other = m.scene_metrics(truth[torch.roll(torch.arange(16), 1)], truth)
    assert all(other[key] < 0.6 for key in KEYS), other


@pytest.mark.parametrize("seed", range(5))
def test_no_metric_depends_on_the_order_of_slots(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = world(seed=seed)
    found = disturb(truth, generator)
    expected = m.scene_metrics(found, truth)
    assert 0 < expected["structure_accuracy"] < 1
    moved = m.scene_metrics(shuffle(found, generator), shuffle(truth, generator))
    assert moved == pytest.approx(expected, abs=1e-12)


def test_metrics_are_those_that_scene_and_truth_allow():
    whole, flat = two_objects(), graph(level([(-0.5, 0.0), (0.5, 0.0)]))
    objects = {"object_count_accuracy", "object_f1", "object_recall"}
    assert set(m.scene_metrics(whole, whole)) == KEYS - {"ari_fg", "ap50", "ap50_95"}
    assert set(m.scene_metrics(flat, whole)) == set(m.scene_metrics(whole, flat)) == objects
    with pytest.raises(ValueError, match="one level"):
        m.structure_accuracy(flat, whole)


def test_scenes_of_other_images_are_refused():
    with pytest.raises(ValueError, match="2 inferred scenes but 1 true"):
        m.scene_metrics(concatenate([two_objects()] * 2), two_objects())


def test_metrics_need_neither_pyro_nor_matplotlib():
    code = (
        "import sys, analysis.scores; "
        "assert not {'pyro', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
