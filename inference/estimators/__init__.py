"""How gradients pass discrete sites: one method a site, chosen by a pattern of its name.

Programs say ``Bernoulli(logits=…)`` and ``OneHotCategorical(logits=…)``. An `Estimator` runs guide and
program under effect handlers and returns a number to differentiate. ``--estimator nvil`` uses one method
for every discrete site, ``--estimator 'z_pres*=nvil,z_cat*=gumbel'`` one for each pattern. Every class says of
itself what it is, how its gradient of the negative ELBO is biased, and how often it runs an image per step;
`table` puts that together, and ``--estimator help`` prints it:

pathwise: a differentiable sample in the place of the discrete one
  gumbel           relaxed (Jang et al., 2017; Maddison et al., 2017)
                   bias: another loss, that of relaxed values; runs: 1
  gumbel_sparsemax the same by sparsemax: values may be exactly 0 or 1 (Martins & Astudillo, 2016)
                   bias: another loss, that of relaxed values; runs: 1
  gumbel_st        the same, rounded to a corner on the way forward (straight-through)
                   bias: of first order in the step to another value; runs: 1
  gumbel_rao       its mean over K = 10 points that round alike (Paulus et al., 2021)
                   bias: that of gumbel_st; runs: 1
  gapped_st        an exact sample, a gradient without Gumbel noise (Gapped ST; Fan et al., 2022)
                   bias: of first order in the step to another value; runs: 1
  reinmax          an exact sample, a gradient of second order (Liu et al., 2023)
                   bias: of second order in the step to another value; runs: 1
  mean             the probability itself: what MONet and ECON train masks with
                   bias: another loss, that of mean values; runs: 1
  competition      an exact sample, and no gradient: nothing is learned (ECON, section 5.2)
                   bias: all of the site's gradient is left out; runs: 1
score: cost times ∇ log q, minus a control variate
  reinforce        no control variate: the yardstick (Williams, 1992)
                   bias: none; runs: 1
  nvil             a learned, input-dependent baseline and running mean (Mnih & Gregor, 2014)
                   bias: none; runs: 1
  nvil_published   the same with normalised signals, and baselines that see earlier latents
                   bias: a site's score is divided by the running deviation of its cost; runs: 1
  rloo             K = 4 copies, each with the mean of the others as baseline (Kool et al., 2019)
                   bias: none; runs: K
  double_cv        K = 4 copies as rloo, with slopes at the others (Double CV; Titsias & Shi, 2022)
                   bias: none; runs: K, and 1 more backward pass
  relax            a learned function of a relaxed sample (RELAX; Grathwohl et al., 2018)
                   bias: none; runs: 1
  muprop           the cost's expansion about the mean (MuProp; Gu et al., 2016)
                   bias: none; runs: 1 + 1 per site, relaxed
  rebar            the program's own relaxed cost (REBAR; Tucker et al., 2017)
                   bias: none, if the program is smooth in relaxed values; runs: 1 + 2 per site, relaxed
  disarm           antithetic pairs of Bernoullis (Dong et al., 2020; Yin et al., 2020)
                   bias: none; runs: 1 + 2 per site
  arms             K = 4 antithetic Bernoullis (ARMS; Dimitriev & Zhou, 2021)
                   bias: none; runs: 1 + K per site
  unordered        K = 2 values without replacement (unordered set; Kool et al., 2020)
                   bias: none; runs: 1 + K per element
  sum_and_sample   the K - 1 likeliest of K = 3 values summed, one of the rest drawn (Liu et al., 2019)
                   bias: none; runs: 1 + K per element
  expect           local expectations: one site's exact sum (Titsias & Lázaro-Gredilla, 2015)
                   bias: none; runs: 1 + A per element
exact
  enumerate        the sum over all joint values of the sites, beside it pathwise methods only
                   bias: none; runs: all joint values
for all sites alike, continuous ones too
  tracegraph       Pyro's own TraceGraph_ELBO, with the guide's own baselines (Schulman et al., 2015)
                   bias: none, unless a latent outside of a plate joins its elements; runs: 1
  vimco            gradient of the IWAE bound, leave-one-out control variates (Mnih & Rezende, 2016)
                   bias: none, of the bound on K samples; runs: K
  vimco_dreg       vimco, Gaussians doubly reparametrised (DReG; Tucker et al., 2019)
                   bias: none, of the bound on K samples; runs: K
  iwae             IWAE bound of K = 4 samples, by any method: iwae:5+nvil (Burda et al., 2016)
                   bias: none, of the bound on K samples; else the method's; runs: K of the method's
  dreg             iwae, Gaussians doubly reparametrised: dreg:5+nvil (DReG; Tucker et al., 2019)
                   bias: none, of the bound on K samples; else the method's; runs: K of the method's
  rws              reweighted wake-sleep, wake-phase both (Bornschein & Bengio, 2015; Le et al., 2019)
                   bias: another loss: KL(p ‖ q) for the guide, of order 1/K from its gradient; runs: K
  rws_dreg         rws, Gaussians doubly reparametrised (DReG; Tucker et al., 2019)
                   bias: that of rws; runs: K
  rws_sleep        the same with a sleep phase: half of the guide's gradient is from dreams
                   bias: another loss: KL(p ‖ q) for the guide, on images and on dreams; runs: K + 1
  rws_defensive    the same on samples of a mixture with a fifth of uniform draws (Le et al., 2019)
                   bias: that of rws; runs: K
  sleep            sleep phase: the guide alone learns, from dreams, in any order of objects
                   bias: another loss: KL(p ‖ q) on dreams, for the guide alone; runs: 1 per order

``rloo:8`` sets K, and ``iwae:5+rloo:8`` trains a bound on 5 samples by that method. Score methods are
Rao-Blackwellised as Pyro's ``TraceGraph_ELBO`` is: the cost of a sample is what depends on it, by provenance
(`inference.estimators.origins`; Schulman et al., 2015); KLs are in closed form where there is one. In bounds
the cost of a sample is the bound. Nothing here is *reported* as an ELBO: see `analysis.evaluate`.

What a program must keep to: every site lies in the plate ``batch``, at any dimension, over all images that are
given; program and guide have the same latents in the same order; what hangs below an absent node stands in
`programs.blocks.distributions.gate`, and nothing reads it where it is absent. What does not is refused in
words. No check sees whether elements of a plate depend on each other's samples within the plate: that biases
score methods, as in Pyro.

Shape legend: B images, K copies of each (the images repeated: any program runs them), S shape of a site
without its batch dimension, A alternatives of a discrete choice (2 for a Bernoulli), D numbers.
"""

from inference.estimators.baselines import Control
from inference.estimators.bounds import VIMCO, Bound, TraceGraph, Whole
from inference.estimators.checks import check
from inference.estimators.controls import REBAR, RELAX, MuProp
from inference.estimators.doubly import DoublyRWS, DoublyVIMCO, DReG
from inference.estimators.estimator import LIMIT, Enumerate, Estimator
from inference.estimators.field import FIELD, field
from inference.estimators.handlers import Choose, Detach, Fix, Leaves, Relax, Share, several
from inference.estimators.importance import IWAE
from inference.estimators.names import ESTIMATORS, estimator
from inference.estimators.origins import apart, downstream, provenance, unseen
from inference.estimators.passes import Runs
from inference.estimators.pathwise import Competition, Pathwise
from inference.estimators.reruns import ARMS, DisARM, Expect, SumAndSample, Unordered
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
from inference.estimators.sleep import Sleep
from inference.estimators.tables import markdown, table
from inference.estimators.taylor import DoubleCV
from inference.estimators.wake import RWS, DefensiveRWS, SleepingRWS

__all__ = [
    "ARMS",
    "ESTIMATORS",
    "FIELD",
    "IWAE",
    "LIMIT",
    "NVIL",
    "REBAR",
    "RELAX",
    "RLOO",
    "RWS",
    "VIMCO",
    "Bound",
    "Choose",
    "Competition",
    "Control",
    "DReG",
    "DefensiveRWS",
    "Detach",
    "DisARM",
    "DoubleCV",
    "DoublyRWS",
    "DoublyVIMCO",
    "Enumerate",
    "Estimator",
    "Expect",
    "Fix",
    "Leaves",
    "Method",
    "MuProp",
    "Pathwise",
    "Place",
    "PublishedNVIL",
    "Reinforce",
    "Relax",
    "Runs",
    "Score",
    "Share",
    "Site",
    "Sleep",
    "SleepingRWS",
    "SumAndSample",
    "TraceGraph",
    "Unordered",
    "Whole",
    "alternatives",
    "apart",
    "check",
    "choice",
    "downstream",
    "estimator",
    "field",
    "is_discrete",
    "markdown",
    "plain",
    "provenance",
    "reachable",
    "several",
    "table",
    "unseen",
]
