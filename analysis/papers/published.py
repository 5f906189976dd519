"""What the papers report, by variant and world, under the keys of metrics.json; shares in [0, 1].

Their data sets were mostly never published, so figures stand side by side, not against each other.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A paper's figures."""

    source: str
    metrics: dict[str, float]


PUBLISHED: dict[str, Published] = {
    "gsgn-shapes2d": Published(
        "Deng et al., ICLR 2021, Table 1 and section 4: 2D Shapes, 128 by 128",
        {
            "object_count_accuracy": 0.9976,
            "object_f1": 0.9985,
            "part_count_accuracy": 0.9954,
            "part_f1": 0.9991,
            "structure_accuracy": 1.0,
            "elbo_per_pixel": 3.96,
        },
    ),
    "gsgn-compositional_clevr": Published(
        "Deng et al., ICLR 2021, Table 2 and section 4: Compositional CLEVR, 128 by 128",
        {
            "object_count_accuracy": 0.9866,
            "object_f1": 0.9937,
            "part_count_accuracy": 0.9863,
            "part_f1": 0.9977,
            "structure_accuracy": 0.99,
            "elbo_per_pixel": 3.49,
        },
    ),
    "space-compositional_clevr": Published(
        "Deng et al., ICLR 2021, Table 2: SPACE-O on Compositional CLEVR, 128 by 128",
        {"object_count_accuracy": 0.9802, "object_f1": 0.9917, "elbo_per_pixel": 3.50},
    ),
    "gnm-mnist4": Published(
        "Jiang, Ahn, NeurIPS 2020, Table 2: MNIST-4, 128 by 128", {"ap50": 0.905, "ap50_95": 0.487}
    ),
    "gnm-mnist10": Published(
        "Jiang, Ahn, NeurIPS 2020, Table 2: MNIST-10, 128 by 128", {"ap50": 0.905, "ap50_95": 0.459}
    ),
    "air-multi_mnist": Published(
        "Wang et al., 2019, Table 1: AIR on Multi-MNIST", {"object_count_accuracy": 0.985}
    ),
    "air-multi_sprites": Published(
        "Wang et al., 2019, Table 1: AIR on Multi-Sprites", {"object_count_accuracy": 0.981}
    ),
    "discrete_air-multi_sprites": Published(
        "Wang et al., 2019, Table 1: Multi-Sprites",
        {"object_count_accuracy": 0.985, "category_correspondence": 0.945},
    ),
    "discrete_air_mnist-multi_mnist": Published(
        "Wang et al., 2019, Table 1: Multi-MNIST",
        {"object_count_accuracy": 0.984, "category_correspondence": 0.87},
    ),
}
