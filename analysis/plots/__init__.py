"""Pictures of Scenes and of training, as matplotlib figures; no window is ever opened.

Pictures are drawn in the image frame ([-1, 1], y down), so boxes need no conversion to pixels.

Shape legend: B images, N slots, C channels, H x W pixels of an image, h x w of a patch.
"""

from analysis.plots.curves import (
    bias_variance_figure,
    comparison_figure,
    curves_figure,
    labels_figure,
    race_figure,
    scaling_figure,
)
from analysis.plots.graphs import graph_figure, matrix_figure
from analysis.plots.layers import (
    experts_figure,
    growth_figure,
    layers_figure,
    recombination_figure,
    segments_figure,
    steps_figure,
)
from analysis.plots.maps import heat, maps_figure
from analysis.plots.posterior import calibration_figure, khat_figure, predictive_figure
from analysis.plots.scenes import (
    COLOURS,
    DPI,
    coloured,
    edit_figure,
    memory_figure,
    object_figure,
    pictures_figure,
    reconstruction_figure,
    sample_figure,
    save,
    scene_graph_figure,
    strips_figure,
)

__all__ = [
    "COLOURS",
    "DPI",
    "bias_variance_figure",
    "calibration_figure",
    "coloured",
    "comparison_figure",
    "curves_figure",
    "edit_figure",
    "experts_figure",
    "graph_figure",
    "growth_figure",
    "heat",
    "khat_figure",
    "labels_figure",
    "layers_figure",
    "maps_figure",
    "matrix_figure",
    "memory_figure",
    "object_figure",
    "pictures_figure",
    "predictive_figure",
    "race_figure",
    "recombination_figure",
    "reconstruction_figure",
    "sample_figure",
    "save",
    "scaling_figure",
    "scene_graph_figure",
    "segments_figure",
    "steps_figure",
    "strips_figure",
]
