"""The training objective: evidence lower bound, KL weights, auxiliary KLs, and penalties on the Scene.

An objective is three tables, two of them keyed by patterns of site names (``"z_pres*"``, ``"z_scale_1"``):

* `weights` multiply a site's log-densities in program and guide, and so its KL;
* `auxiliary` holds fixed priors r; every matching site pays KL(q ‖ r) besides its own KL (GSGN D.3);
* `penalties` holds functions by name, from the program's Scene and the images to nats per image
  (SPACE's boundary loss).

All are effect handlers. An auxiliary KL is a factor -KL(q ‖ r) beside its site, under the same
plates and gates. A penalty is a factor ``penalty/NAME`` in the plate ``batch``. So every estimator
treats both as further costs downstream of the sites that they depend on, and `weights` may name
them (``"penalty/boundary"``). Without tables the objective is the plain ELBO (GSGN eq. 11), which
is the paper's No-Aux ablation.
"""

from inference.objectives.objective import (
    AuxiliaryKL,
    Batch,
    Objective,
    Term,
    Weigh,
    check_match,
    cost_terms,
    in_common,
    is_aside,
    is_auxiliary,
    is_plate,
    log_prob_per_image,
    lookup,
    penalised,
    per_image,
)
from inference.objectives.penalties import (
    Background,
    Boundary,
    Compatibility,
    Inscribed,
    Penalty,
    Reconstruction,
    Upright,
    boxes_of,
)
from inference.objectives.priors import Gaussian, Mixture, Prior, Sparse

__all__ = [
    "AuxiliaryKL",
    "Background",
    "Batch",
    "Boundary",
    "Compatibility",
    "Gaussian",
    "Inscribed",
    "Mixture",
    "Objective",
    "Penalty",
    "Prior",
    "Reconstruction",
    "Sparse",
    "Term",
    "Upright",
    "Weigh",
    "boxes_of",
    "check_match",
    "cost_terms",
    "in_common",
    "is_aside",
    "is_auxiliary",
    "is_plate",
    "log_prob_per_image",
    "lookup",
    "penalised",
    "per_image",
]
