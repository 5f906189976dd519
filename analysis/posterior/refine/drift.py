"""Hamiltonian moves of the continuous latents, in their unconstrained space (Duane et al., 1987; Neal, 2011).

One leap is the Metropolis-adjusted Langevin algorithm. Every element has its own unit, the guide's standard
deviation at the start, and every image its own step, in such units, which follows the share of accepted moves.
Elements that do not exist stand still: no move depends on them.

Shape legend: R rows, which are chains times images; B images.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from analysis.posterior.refine.latents import Values, sum_rows
from analysis.posterior.refine.target import Move, State, Target

WANTED = {1: 0.574}
"""Best share of accepted moves of one leap (Roberts and Rosenthal, 1998), and of more below."""
OF_MORE = 0.651
"""Best share of accepted moves of several leaps (Beskos et al., 2013)."""
FIRST = 0.3
"""Step at the start, in standard deviations of the guide."""
DECAY = 0.6
"""Adaptation moves a logarithm of the step by n^-DECAY at its n-th time (Robbins and Monro)."""


class Drift(Move):
    """Moves of all continuous latents together.

    Args:
        scales: site -> (R, *S, *E) the guide's standard deviations at the start; 1 for sites that are not in
            it.
        leaps: steps of the leapfrog per move.
    """

    name = "drift"

    def __init__(self, target: Target, scales: Mapping[str, Tensor], leaps: int = 2) -> None:
        self.target, self.leaps = target, leaps
        images = len(target.images) // target.chains
        self.scales = {n: _of_images(s, target.chains) for n, s in scales.items()}
        self.log_step = torch.full((images,), FIRST).log().to(target.images)
        self.wanted, self.times = WANTED.get(leaps, OF_MORE), 0

    def __call__(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """One move, and the step's adaptation."""
        state, share = super().__call__(state, beta)
        self.adapt(share)
        return state, share

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """See `Move.propose`."""
        step = self.log_step.exp().repeat(self.target.chains)
        free = self.free(state.values)
        alive = {n: fit(state.exists[n], x) for n, x in free.items()}
        speed = {n: torch.randn_like(x) * alive[n] for n, x in free.items()}
        energy = sum(0.5 * sum_rows(p.square()) for p in speed.values())
        moved, speed = self.leap(state.values, free, speed, alive, step, beta)
        new = self.target.state(state.values | self.bound(moved), bool((beta < 1).any()))
        energy = energy - sum(0.5 * sum_rows(p.square()) for p in speed.values())
        ratio = self.target.along(new, beta) + self.volume(moved, state)
        ratio = ratio - self.target.along(state, beta) - self.volume(free, state) + energy
        return new, ratio

    def leap(
        self,
        values: Values,
        free: Values,
        speed: Values,
        alive: Values,
        step: Tensor,
        beta: Tensor,
    ) -> tuple[Values, Values]:
        """The leapfrog: unconstrained values and speeds after all steps."""
        force = self.force(values, free, alive, beta)
        for _ in range(self.leaps):
            speed = {n: p + 0.5 * fit(step, p) * force[n] for n, p in speed.items()}
            free = {n: x + fit(step, x) * self.scale(n, x) * speed[n] for n, x in free.items()}
            force = self.force(values, free, alive, beta)
            speed = {n: p + 0.5 * fit(step, p) * force[n] for n, p in speed.items()}
        return free, speed

    def force(self, values: Values, free: Values, alive: Values, beta: Tensor) -> Values:
        """Gradient of log π_β and of the logarithm of the volume, in units of the scales."""
        slopes = self.target.slopes(values | self.bound(free), beta)
        for name, x in free.items():
            transform = self.target.latents[name].transform
            if transform is not None:
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    bound = transform(x)
                    inner = (bound * slopes[name]).sum() + transform.log_abs_det_jacobian(
                        x, bound
                    ).sum()
                    slopes[name] = torch.autograd.grad(inner, x)[0]
        return {n: slopes[n] * self.scale(n, x) * alive[n] for n, x in free.items()}

    def free(self, values: Values) -> Values:
        """Unconstrained values of the continuous latents."""
        latents = self.target.latents
        return {
            n: values[n] if latents[n].transform is None else latents[n].transform.inv(values[n])
            for n in self.target.moving
        }

    def bound(self, free: Values) -> Values:
        """The inverse of `free`."""
        latents = self.target.latents
        return {
            n: x if latents[n].transform is None else latents[n].transform(x)
            for n, x in free.items()
        }

    def volume(self, free: Values, state: State) -> Tensor:
        """(R,) log |d value / d unconstrained value|, of the elements that exist."""
        total = torch.zeros_like(state.log_p)
        for name, x in free.items():
            transform, marks = self.target.latents[name].transform, state.exists[name]
            if transform is not None:
                each = transform.log_abs_det_jacobian(x, transform(x))
                each = each.reshape(*marks.shape, -1).sum(-1)
                total = total + sum_rows(torch.where(marks, each, 0.0))
        return total

    def scale(self, name: str, x: Tensor) -> Tensor:
        """Unit of every element of a site."""
        return self.scales.get(name, x.new_ones(()))

    def adapt(self, share: Tensor) -> None:
        """Move every image's step towards the best share of accepted moves (R,)."""
        self.times += 1
        of_image = share.view(self.target.chains, -1).mean(0)
        self.log_step = self.log_step + self.times**-DECAY * (of_image - self.wanted)


def _of_images(scale: Tensor, chains: int) -> Tensor:
    """The mean over the chains of an image, so that a unit does not depend on where a chain began."""
    parts = scale.unflatten(0, (chains, -1))
    return parts.mean(0, keepdim=True).expand_as(parts).flatten(0, 1)


def fit(x: Tensor, other: Tensor) -> Tensor:
    """Leading dimensions of a tensor so that they broadcast against another's."""
    return x.view(*x.shape, *[1] * (other.ndim - x.ndim))
