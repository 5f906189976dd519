"""The table of methods, from what every class says of itself."""

from __future__ import annotations

from inference.estimators.bounds import Whole
from inference.estimators.estimator import Enumerate
from inference.estimators.names import ESTIMATORS
from inference.estimators.pathwise import Competition, Pathwise
from inference.estimators.score import Score

FAMILIES = {
    "pathwise: a differentiable sample in the place of the discrete one": (Pathwise, Competition),
    "score: cost times ∇ log q, minus a control variate": (Score,),
    "exact": (Enumerate,),
    "for all sites alike, continuous ones too": (Whole,),
}


def table() -> str:
    """What every method is, its bias, and its runs of an image: as ``--estimator help`` shows it."""
    lines = []
    for family, kinds in FAMILIES.items():
        lines.append(family)
        for name, method in ESTIMATORS.items():
            if issubclass(method, kinds):
                lines.append(f"  {name:<16} {method.summary}")
                lines.append(f"  {'':<16} bias: {method.bias}; runs: {method.runs}")
    return "\n".join(lines)


def markdown() -> str:
    """The same for a README."""
    lines = [
        "| `--estimator` | what it is | bias | runs of an image per step |",
        "|---|---|---|---|",
    ]
    for name, method in ESTIMATORS.items():
        words = [w.replace("|", "\\|") for w in (method.summary, method.bias, method.runs)]
        lines.append(f"| `{name}` | {' | '.join(words)} |")
    return "\n".join(lines)
