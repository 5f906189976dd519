"""Inference that uses the program: from the guide's draws to the posterior, by moves that the program judges.

`refine` is the one function to call; `watch` is the same, sweep by sweep. Its parts, from the ground up:
`latents` (tables of values, and handlers that give them to program and guide), `target` (log p and log q of a
state), `drift`, `flips`, `objects` (moves that keep the target), `anneal` (the path from guide to program),
`refined` (what is kept).
"""

from analysis.posterior.refine.refined import Refined, Watched, refine, watch

__all__ = ["Refined", "Watched", "refine", "watch"]
