"""Metrics that compare an inferred Scene with the true Scene of the same images in the same order.

Counts, F1 and the tree are measured as in GSGN (ICLR 2021, section 4, tables 1 to 3). A node is
present if its presence exceeds 1/2. An inferred node is a true positive if it is matched one to one
with a true node whose centre is close: 10 pixels for objects, 5 for parts, at 128 x 128. Every number is
exact over all given images.

In a graph with one level, the nodes are the objects; the levels of two are objects and parts, those
of three groups, objects and parts. # differs: the paper has no groups; each level up doubles the
radius, so that of groups is 20 pixels. Levels above groups are called level_1, level_2, … from the
root down.

Shape legend: B images, N inferred slots, M true slots, K matched pairs, C channels, H x W pixels.
"""

from analysis.scores.counts import (
    Detection,
    category_correspondence,
    category_names,
    confusion,
    count_accuracy,
    count_errors,
    level_names,
    match,
    owners,
    precision_recall_f1,
    radii,
    structure_accuracy,
)
from analysis.scores.graph import Graph, scene_graph
from analysis.scores.images import (
    bits_per_dimension,
    change_outside,
    frechet_distance,
    mse,
    outside,
)
from analysis.scores.masks import (
    adjusted_rand_index,
    ari_all,
    ari_fg,
    average_precision,
    intersection_over_union,
    segments,
)
from analysis.scores.metrics import comparable, scene_metrics
from analysis.scores.shapes import ari_of_twins, mutual_information, shape_metrics
from analysis.scores.simple import by_colour, round_objects, simple_scores

__all__ = [
    "Detection",
    "Graph",
    "adjusted_rand_index",
    "ari_all",
    "ari_fg",
    "ari_of_twins",
    "average_precision",
    "bits_per_dimension",
    "by_colour",
    "category_correspondence",
    "category_names",
    "change_outside",
    "comparable",
    "confusion",
    "count_accuracy",
    "count_errors",
    "frechet_distance",
    "intersection_over_union",
    "level_names",
    "match",
    "mse",
    "mutual_information",
    "outside",
    "owners",
    "precision_recall_f1",
    "radii",
    "round_objects",
    "scene_graph",
    "scene_metrics",
    "segments",
    "shape_metrics",
    "simple_scores",
    "structure_accuracy",
]
