"""Predictive checks: compare a program's images with given ones (Gelman et al., 1996).

=============  =====================================================================================
prior          images of the program, against all given images
posterior      replicates of an image given the guide's draws for it, against that image
aggregate      replicates of all images, against all images; and the scenes of the program, against
               those that the guide finds: a prior that the posterior does not return to
=============  =====================================================================================

A replicate is drawn from the distribution of the site ``images`` given latents, noise included. The posterior
check sees every image twice, once to infer and once to compare, so its p-values gather near 1/2 (Bayarri and
Berger, 2000): extreme p-values are informative; moderate ones are not. The other checks compare
distributions over images.

Shape legend: S draws, B images, N scenes of the prior.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.posterior import Draws, Quantities, draw, draw_prior
from analysis.posterior.quantities import NUMBERS, OF_IMAGES, scalars


@dataclass(frozen=True)
class Check:
    """Test quantities, replicated and observed, with p-values and distances of the observed ones."""

    kind: str
    """prior, posterior, aggregate or scenes"""
    observed: dict[str, Tensor]
    """quantity -> (B,); for the check `scenes` the guide's"""
    replicated: dict[str, Tensor]
    """quantity -> (S, B) for the posterior check, (S · B,) for `aggregate`; else (N,) of the prior"""
    p_value: dict[str, Tensor]
    """quantity -> (B,) in [0, 1], the share of an image's replicates above it, for the posterior check;
    else the p-value of a two-sample test over images, small if the two differ"""
    distance: dict[str, float]
    """quantity -> largest difference of the two distribution functions over images, in [0, 1]"""

    def summary(self) -> dict[str, dict[str, float]]:
        """For each quantity: observed and replicated means, `distance`, and `extreme` or `p_value`.

        `extreme` is the share of images with a p-value below 0.025 or above 0.975.
        """
        rows = {}
        for name, p in self.p_value.items():
            pair = self.observed[name], self.replicated[name]
            row = dict(
                zip(
                    ("observed", "replicated"),
                    (float(t.double().mean()) for t in pair),
                    strict=True,
                )
            )
            row["distance"] = self.distance[name]
            if p.ndim:
                row["extreme"] = float(((p < 0.025) | (p > 0.975)).double().mean())
            else:
                row["p_value"] = float(p)
            rows[name] = row
        return rows


def prior_check(
    program: Callable, images: Tensor, number: int = 200, of: Quantities = OF_IMAGES
) -> Check:
    """Images of the program against images (B, C, H, W) in [0, 1].

    Args:
        number: N.
        of: test quantities of images.
    """
    drawn = draw_prior(program, number, of_images=of)
    replicated = {name: value[:, 0] for name, value in drawn.replicated.items()}
    return _compare("prior", _observed(images, of), scalars(replicated, 1))


def posterior_check(
    program: Callable, guide: Callable, images: Tensor, draws: int = 100, of: Quantities = OF_IMAGES
) -> Check:
    """Replicates of each image against that image.

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        draws: S.
        of: test quantities of images.
    """
    drawn = draw(program, guide, images, draws, of_images=of)
    observed, replicated = _observed_by(drawn, of), scalars(drawn.replicated, 2)
    p = {name: p_values(observed[name], replicated[name]) for name in observed}
    distance = {name: ks_test(observed[name], replicated[name])[0] for name in observed}
    return Check("posterior", observed, replicated, p, distance)


def aggregate_checks(
    program: Callable,
    guide: Callable,
    images: Tensor,
    draws: int = 1,
    of: Quantities = OF_IMAGES,
    of_scenes: Quantities = NUMBERS,
) -> tuple[Check, Check]:
    """All replicates against all images; and scenes of the program against those the guide finds.

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        draws: S, draws per image; the program draws as many scenes as there are images. With more than one,
            the draws of an image resemble each other, and p-values are too small.
        of, of_scenes: test quantities of images and of scenes.
    """
    drawn = draw(program, guide, images, draws, of=of_scenes, of_images=of)
    prior = draw_prior(program, len(images), of=of_scenes)
    replicated = {name: value.flatten(0, 1) for name, value in drawn.replicated.items()}
    found = {name: value[0] for name, value in drawn.quantities.items()}
    expected = {name: value[:, 0] for name, value in prior.quantities.items()}
    return (
        _compare("aggregate", _observed_by(drawn, of), scalars(replicated, 1)),
        _compare("scenes", scalars(found, 1), scalars(expected, 1)),
    )


def p_values(observed: Tensor, replicated: Tensor) -> Tensor:
    """(B,) the share of replicates (S, B) above the observed (B,), ties counted half."""
    above, equal = replicated > observed, replicated == observed
    return above.double().mean(0) + 0.5 * equal.double().mean(0)


def ks_test(observed: Tensor, replicated: Tensor) -> tuple[float, float]:
    """Largest difference of two samples' distribution functions, and its p-value (Kolmogorov-Smirnov).

    With ties the p-value is too large. The samples are treated as independent.
    """
    from scipy.stats import ks_2samp

    found = ks_2samp(observed.flatten().cpu().numpy(), replicated.flatten().cpu().numpy())
    return float(found.statistic), float(found.pvalue)


def _observed(images: Tensor, of: Quantities) -> dict[str, Tensor]:
    return scalars({name: fn(images) for name, fn in of.items()}, 1)


def _observed_by(drawn: Draws, of: Quantities) -> dict[str, Tensor]:
    """Quantities of the images as the program observes them; of none where that is no image."""
    return _observed(drawn.observed, {name: of[name] for name in drawn.replicated})


def _compare(kind: str, observed: dict[str, Tensor], replicated: dict[str, Tensor]) -> Check:
    found = {name: ks_test(observed[name], replicated[name]) for name in observed}
    p = {name: torch.tensor(value) for name, (_, value) in found.items()}
    return Check(kind, observed, replicated, p, {name: d for name, (d, _) in found.items()})
