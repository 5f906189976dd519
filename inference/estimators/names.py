"""Estimators by name."""

from __future__ import annotations

from torch import nn

from inference.estimators.bounds import VIMCO, TraceGraph, Whole
from inference.estimators.controls import REBAR, RELAX, MuProp
from inference.estimators.doubly import DoublyRWS, DoublyVIMCO, DReG
from inference.estimators.estimator import Enumerate, Estimator
from inference.estimators.handlers import COPIES
from inference.estimators.importance import IWAE, Listed
from inference.estimators.pathwise import (
    Competition,
    GappedST,
    Gumbel,
    GumbelRao,
    GumbelSparsemax,
    GumbelST,
    Mean,
    ReinMax,
)
from inference.estimators.reruns import ARMS, DisARM, Expect, SumAndSample, Unordered
from inference.estimators.score import NVIL, RLOO, PublishedNVIL, Reinforce
from inference.estimators.sites import Method
from inference.estimators.sleep import Sleep
from inference.estimators.taylor import DoubleCV
from inference.estimators.wake import RWS, DefensiveRWS, SleepingRWS
from inference.settings import choose

ESTIMATORS: dict[str, type[Method | Whole]] = {
    "gumbel": Gumbel,
    "gumbel_sparsemax": GumbelSparsemax,
    "gumbel_st": GumbelST,
    "gumbel_rao": GumbelRao,
    "gapped_st": GappedST,
    "reinmax": ReinMax,
    "mean": Mean,
    "competition": Competition,
    "reinforce": Reinforce,
    "nvil": NVIL,
    "nvil_published": PublishedNVIL,
    "rloo": RLOO,
    "double_cv": DoubleCV,
    "relax": RELAX,
    "muprop": MuProp,
    "rebar": REBAR,
    "disarm": DisARM,
    "arms": ARMS,
    "unordered": Unordered,
    "sum_and_sample": SumAndSample,
    "expect": Expect,
    "enumerate": Enumerate,
    "tracegraph": TraceGraph,
    "vimco": VIMCO,
    "vimco_dreg": DoublyVIMCO,
    "iwae": IWAE,
    "dreg": DReG,
    "rws": RWS,
    "rws_dreg": DoublyRWS,
    "rws_sleep": SleepingRWS,
    "rws_defensive": DefensiveRWS,
    "sleep": Sleep,
}


def estimator(text: str) -> nn.Module:
    """From ``nvil``, ``rloo:8``, ``z_pres*=nvil,z_cat*=gumbel`` or, of a bound on 5 samples, ``iwae:5+nvil``.

    >>> {name: type(m).__name__ for name, m in estimator("z_pres*=rloo:8,z_cat*=gumbel").by_pattern.items()}
    {'z_pres*': 'RLOO', 'z_cat*': 'Gumbel'}

    Raises:
        ValueError: an unknown name, a bad number, a bound among other methods, two methods for one pattern.
    """
    bound, plus, methods = text.partition("+")
    if not plus:
        return _listed(text)
    make = choose(ESTIMATORS, bound.partition(":")[0].strip(), "estimator")
    if not issubclass(make, Listed):
        names = " or ".join(name for name, m in ESTIMATORS.items() if issubclass(m, Listed))
        raise ValueError(f"--estimator {text!r}: only {names} take methods after a +")
    inner = _listed(methods)
    if not isinstance(inner, Estimator):
        raise ValueError(
            f"--estimator {text!r}: after the + comes a method for discrete sites, not a bound"
        )
    return _method(bound.strip(), inner)


def _listed(text: str) -> nn.Module:
    pairs = [part.rpartition("=") for part in text.split(",")]
    patterns = [pattern.strip() or "*" for pattern, _, _ in pairs]
    if len({*patterns}) < len(patterns):
        raise ValueError(
            f"--estimator {text!r} has several methods for the same sites: give one, or one a pattern as in "
            "'z_pres*=nvil,z_cat*=gumbel'"
        )
    methods = {p: _method(name.strip()) for p, (_, _, name) in zip(patterns, pairs, strict=True)}
    numbers = {m.copies for m in methods.values() if isinstance(m, RLOO | DoubleCV)}
    if len(numbers) > 1:
        raise ValueError(
            f"--estimator {text!r}: an image has the same number of copies at all sites, here {numbers}"
        )
    wholes = [m for m in methods.values() if isinstance(m, Whole)]
    if wholes and (len(methods) > 1 or "*" not in methods):
        alone = ", ".join(name for name, m in ESTIMATORS.items() if issubclass(m, Whole))
        raise ValueError(f"--estimator {text!r}: {alone} are for all sites, give one alone")
    return wholes[0] if wholes else Estimator(methods)


def _method(text: str, *inner: Estimator) -> Method | Whole:
    name, colon, number = text.partition(":")
    make = choose(ESTIMATORS, name, "estimator")
    if not colon:
        return make(COPIES, *inner) if inner else make()
    if not make.takes:
        names = [name for name, m in ESTIMATORS.items() if m.takes]
        raise ValueError(
            f"--estimator {text!r}: only {', '.join(names[:-1])} and {names[-1]} take a number, as in rloo:8"
        )
    if not number.isdigit():
        raise ValueError(f"--estimator {text!r}: expected a number of {make.takes}, as in {name}:4")
    return make(int(number), *inner)
