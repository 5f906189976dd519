"""Inference that uses the program: from the guide's draws to the posterior, by moves that the program judges.

`refine` finds the best state of every image; `watch` is the same, sweep by sweep. `local` draws around such
states, with weights, and `measured` has the quantities of their scenes. Their parts, from the ground up:
`latents` (tables of values, and handlers that give them to program and guide), `target` (log p and log q of a
state, and what a move is), `drift`, `flips`, `objects` (moves that keep the target), `anneal` (the path from
guide to program), `hops` (from one maximum to another), `refined` (what is kept), `laplace` (from a Gaussian).
"""

from analysis.posterior.refine.laplace import Local, local
from analysis.posterior.refine.refined import Refined, Watched, measured, refine, watch

__all__ = ["Local", "Refined", "Watched", "local", "measured", "refine", "watch"]
