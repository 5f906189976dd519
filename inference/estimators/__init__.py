"""x"""
from inference.estimators.bounds import RWS, VIMCO, Bound, TraceGraph, Whole
from inference.estimators.control import Control
from inference.estimators.controls import REBAR, RELAX, MuProp
from inference.estimators.estimator import ESTIMATORS, LIMIT, Enumerate, Estimator, estimator
from inference.estimators.handlers import Choose, Detach, Fix, Relax, Share, several
from inference.estimators.origins import downstream, provenance, unseen
from inference.estimators.pathwise import Competition, Pathwise
from inference.estimators.reruns import ARMS, DisARM, Expect, Unordered
from inference.estimators.score import NVIL, RLOO, PublishedNVIL, Reinforce, Score
from inference.estimators.sites import (
    Method,
    Place,
    Site,
    alternatives,
    choice,
    is_discrete,
    plain,
    reachable,
)
