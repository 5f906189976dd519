"""All metrics that a Scene and its truth allow."""

from __future__ import annotations

from analysis.scores.counts import (
    category_correspondence,
    comparable,
    count_accuracy,
    from_objects,
    level_names,
    precision_recall_f1,
    radii,
    structure_accuracy,
)
from analysis.scores.masks import ari_all, ari_fg, average_precision
from analysis.scores.shapes import shape_metrics
from programs.scene import Nodes, Scene


def scene_metrics(scene: Scene, truth: Scene, soft: Scene | None = None) -> dict[str, float]:
    """Every metric that scene and truth allow: shares in [0, 1], and `ari_fg`, which is at most 1.

    `level_names` names the levels. Scenes of different depths are compared by their first and last levels,
    as objects and parts, or by the first alone if one of them has no other.

    Args:
        scene: the inferred scene.
        truth: the true scene of the same images.
        soft: the inferred scene with probabilities of presence, for average precision; `scene` by default.
    """
    soft = scene if soft is None else soft
    soft, _ = comparable(soft, truth)
    scene, truth = comparable(scene, truth)
    names = level_names(len(scene.levels))
    found: dict[str, float] = {}
    for name, radius, nodes, true_nodes in zip(
        names, radii(len(names)), scene.levels, truth.levels, strict=True
    ):
        found |= _level_metrics(name, nodes, true_nodes, radius)
    if len(names) > 1:
        found["structure_accuracy"] = structure_accuracy(scene, truth)
    return found | _object_metrics(*(from_objects(s) for s in (scene, truth, soft)))


def _object_metrics(scene: Scene, truth: Scene, soft: Scene) -> dict[str, float]:
    """Metrics of the objects alone, which are the first level here."""
    found = {}
    if scene.objects.category is not None and truth.objects.category is not None:
        found["category_correspondence"] = category_correspondence(scene.objects, truth.objects)
    if scene.objects.mask is not None and truth.objects.mask is not None:
        found["ari_fg"] = ari_fg(scene, truth)
        if scene.background is not None:
            found["ari"] = ari_all(scene, truth)
        steps = [average_precision(soft.objects, truth.objects, 0.5 + 0.05 * i) for i in range(10)]
        found |= {"ap50": steps[0], "ap50_95": sum(steps) / len(steps)}
    if scene.objects.shape is not None and truth.objects.shape is not None:
        found |= shape_metrics(scene.objects, truth.objects)
    return found


def _level_metrics(name: str, nodes: Nodes, true_nodes: Nodes, radius: float) -> dict[str, float]:
    detection = precision_recall_f1(nodes, true_nodes, radius)
    return {
        f"{name}_count_accuracy": count_accuracy(nodes, true_nodes),
        f"{name}_f1": detection.f1,
        f"{name}_recall": detection.recall,
    }
