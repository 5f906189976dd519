"""Hops between maxima of log p(x, z): basin hopping (Wales and Doye, 1997), for programs.

A hop proposes another arrangement by one of the moves that change one, climbs from there by the gradient of all
continuous latents, and stays if that is higher than where it began. Where two objects that touch are taken for
a large one, no other category and no birth pays before places and sizes have followed. A hop does not keep the
posterior: it seeks.

Shape legend: R rows, which are chains times images; S chains, B images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from analysis.posterior.refine.drift import Drift, fit
from analysis.posterior.refine.target import Move, State, Target, of_chains

STEPS = 40
"""Gradient steps of a climb."""
RATE = 0.1
"""First step of a climb, in units of the unconstrained latents; steps fall linearly to 0."""
BETAS = (0.8, 0.9)
"""Adam's, for so few steps."""
CLOSE = 20.0
"""Nats below its image's best at which a chain goes on from the best."""


class Hops:
    """Hops of every row; those of one image seek apart.

    Args:
        moves: what proposes arrangements, one after the other.
    """

    def __init__(self, target: Target, moves: Sequence[Move]) -> None:
        self.target, self.moves = target, moves
        self.drift = Drift(target, {})
        self.done = 0

    def __call__(self, state: State) -> State:
        """One hop; the first one climbs from where the rows are."""
        new = self.climbed(self.proposed(state) if self.done else state)
        self.done += 1
        return new.where(new.log_p > state.log_p, state)

    def proposed(self, state: State) -> State:
        """Another arrangement, the same one in rows where none can be proposed."""
        move = self.moves[(self.done - 1) % len(self.moves)]
        new, log_ratio = move.propose(state, torch.ones_like(state.log_p))
        return new.where(log_ratio.isfinite(), state)

    def climbed(self, state: State) -> State:
        """The state after `STEPS` steps up log p(x, z)."""
        drift, all_of_p = self.drift, torch.ones_like(state.log_p)
        free = {n: x.clone() for n, x in drift.free(state.values).items()}
        alive = {n: fit(state.exists[n], x) for n, x in free.items()}
        if not free:
            return state
        adam = torch.optim.Adam(list(free.values()), lr=RATE, betas=BETAS)
        for step in range(STEPS):
            adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
            for name, force in drift.force(state.values, free, alive, all_of_p).items():
                free[name].grad = -force
            adam.step()
        return self.target.state(state.values | drift.bound(free), guided=False)


def gathered(state: State, chains: int) -> State:
    """The state with every row that is not `CLOSE` to the best one of its image there."""
    table = state.log_p.view(chains, -1).nan_to_num(nan=-torch.inf)
    high, best = table.max(0)
    own = torch.arange(chains, device=best.device)[:, None]
    return of_chains(state, torch.where(table < high - CLOSE, best, own))
