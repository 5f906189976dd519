"""How gradients pass discrete sites: one method a site, chosen by a pattern of its name.

Programs say ``Bernoulli(logits=…)`` and ``OneHotCategorical(logits=…)``. An `Estimator` runs guide and
program under effect handlers and returns a number to differentiate. ``--estimator nvil`` uses one method
for every discrete site, ``--estimator 'z_pres*=nvil,z_cat*=gumbel'`` one for each pattern.

==============  =====================================================================================
pathwise        a differentiable sample in the place of the discrete one; biased
``gumbel``      relaxed (Jang et al., 2017; Maddison et al., 2017): what GSGN, SPACE, GNM, Discrete-AIR train
``gumbel_st``   the same, rounded to a corner on the way forward (straight-through)
``reinmax``     an exact sample, a gradient of second order in the logits (Liu et al., 2023)
``mean``        the probability itself, without noise: what MONet and ECON train masks with
``competition`` an exact sample, and no gradient: of who won, nothing is learned (ECON, section 5.2)

score           cost × ∇ log q, minus a control variate; unbiased
``reinforce``   no control variate: the yardstick (Williams, 1992)
``nvil``        a learned, input-dependent baseline and running mean (Mnih & Gregor, 2014)
``rloo``        K = 4 copies, each with the mean of the others as baseline (Kool et al., 2019)
``relax``       a learned function of a relaxed sample (RELAX; Grathwohl et al., 2018)
``disarm``      antithetic pairs of Bernoullis (Dong et al., 2020; Yin et al., 2020)

exact           ``enumerate``: the sum over all joint values of the sites; small spaces, and beside it pathwise
                methods only
bounds          K = 4 copies, for all sites alike, continuous ones too
``vimco``       gradient of the IWAE bound, leave-one-out control variates (Mnih & Rezende, 2016)
``rws``         reweighted wake-sleep, wake-phase both (Bornschein & Bengio, 2015; Le et al., 2019)
==============  =====================================================================================

``rloo:8`` sets K. Score methods are Rao-Blackwellised as Pyro's ``TraceGraph_ELBO`` is: the cost of a
sample is what depends on it, by provenance (Schulman et al., 2015); KLs are in closed form where there is
one. Nothing here is *reported* as an ELBO: see `analysis.evaluate`.

Shape legend: B images, K copies of each (the images repeated: any program runs them), S shape of a site
without its batch dimension, A alternatives of a discrete choice (2 for a Bernoulli).
"""

from inference.estimators.bounds import RWS, VIMCO, Bound
from inference.estimators.estimator import ESTIMATORS, LIMIT, Enumerate, Estimator, estimator
from inference.estimators.handlers import Choose, Detach, Fix, Relax, several
from inference.estimators.pathwise import Competition, Pathwise
from inference.estimators.score import NVIL, RELAX, RLOO, Control, DisARM, Score
from inference.estimators.sites import (
    Method,
    Site,
    alternatives,
    choice,
    conditional,
    downstream,
    is_discrete,
    plain,
    provenance,
    reachable,
    see,
)

__all__ = [
    "ESTIMATORS",
    "LIMIT",
    "NVIL",
    "RELAX",
    "RLOO",
    "RWS",
    "VIMCO",
    "Bound",
    "Choose",
    "Competition",
    "Control",
    "Detach",
    "DisARM",
    "Enumerate",
    "Estimator",
    "Fix",
    "Method",
    "Pathwise",
    "Relax",
    "Score",
    "Site",
    "alternatives",
    "choice",
    "conditional",
    "downstream",
    "estimator",
    "is_discrete",
    "plain",
    "provenance",
    "reachable",
    "see",
    "several",
]
