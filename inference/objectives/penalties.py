"""Penalties: functions of the Scene that a program returns and of the images, a number per image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.nets import where_present
from programs.scene import Scene


@dataclass(frozen=True)
class Boundary:
    """Penalises opacity near the borders of objects' boxes, so that objects end inside them (SPACE).

    Σ_ij ½ (α_ij Σ_n pres_n ST⁻¹(border, pose_n)_ij / sd)²,  border 1 at the edges of a square, 0 within

    Boxes are upright.

    # differs: without the constant of the official code's log-density.
    """

    border: int = 6  # pixels, of a square's 32
    sd: float = 0.7168  # the code's 0.7, times 1024 / 1000, since its border is not 1

    def __call__(self, scene: Scene, images: Tensor | None = None) -> Tensor:
        """(B,) nats.

        Raises:
            ValueError: the program's Scene has no opacity.
        """
        if scene.opacity is None or not scene.levels:
            raise ValueError(
                "the penalty Boundary needs a Scene with objects and opacity; this program returns none: "
                "give opacity=..., or --set train.penalties={}"
            )
        nodes, size = scene.objects, scene.image.shape[-1]
        inside = nodes.pres.new_zeros(1, 32 - 2 * self.border, 32 - 2 * self.border)
        border = F.pad(inside, 4 * [self.border], value=1.0).expand(*nodes.pres.shape, -1, -1, -1)
        drawn = where_present(
            nodes.pres, partial(render.place_upright, size=size), border, nodes.pose
        )
        borders = (nodes.pres[..., None, None, None] * drawn).sum(1)
        return 0.5 * (scene.opacity * borders / self.sd).square().sum((1, 2, 3))


@dataclass(frozen=True)
class Background:
    """Penalises a background that no image of the batch shows, pixel by pixel (DeNF eq. 5).

    1/M Σ_j min_b |x_b^j - x̂_bg^j|²,  j over the M pixels

    # differs: without `own`, b is never the image itself; the paper's minimum allows it, and so
    its objects.
    """

    own: bool = True

    def __call__(self, scene: Scene, images: Tensor) -> Tensor:
        """(B,) mean over pixels.

        Raises:
            ValueError: the program's Scene has no background, or there is no other image.
        """
        if scene.background is None:
            raise ValueError(
                "the penalty Background needs a Scene with a background; this program returns none: "
                "give background=..., or --set train.penalties={}"
            )
        far = (scene.background.unsqueeze(1) - images).square().sum(-3)  # (B, B, H, W)
        if not self.own:
            if len(images) < 2:
                raise ValueError(
                    "the penalty Background compares with other images: give --batch 2 or more"
                )
            same = (images[:, None] == images).flatten(2).all(-1)  # estimators repeat images
            same = same & ~same.all(1, keepdim=True)  # all equal: all are others
            far = far.masked_fill(same[..., None, None], math.inf)
        return far.amin(1).mean((-2, -1))


@dataclass(frozen=True)
class Reconstruction:
    """Penalises the difference between the Scene's image and the given one (DeNF eq. 10).

    # differs: a mean over pixels, as in eq. 5, where the paper has a sum.
    """

    def __call__(self, scene: Scene, images: Tensor) -> Tensor:
        """(B,) mean over pixels."""
        return (scene.image - images).square().sum(-3).mean((-2, -1))


@dataclass(frozen=True)
class Compatibility:
    """Penalises the difference between the area of boxes and the area of objects (DeNF eq. 12).

    Σ (ê - e)² / (Σ ê + Σ e),  e the opacity, ê = min(1, number of boxes over a pixel)
    """

    def __call__(self, scene: Scene, images: Tensor | None = None) -> Tensor:
        """(B,) in [0, 1].

        Raises:
            ValueError: the program's Scene has no opacity, or no boxes.
        """
        opacity, boxed = boxes_of("Compatibility", scene)
        boxed = boxed.clamp(max=1)
        apart, total = (boxed - opacity).square(), boxed + opacity
        return apart.sum((1, 2, 3)) / (total.sum((1, 2, 3)) + 1e-6)


@dataclass(frozen=True)
class Inscribed:
    """Makes every box as large as the opaque area around it allows.

    Σ (λ c - (λ + 1) e a) / Σ e,  e the opacity (without gradient), c the number of boxes over a pixel

    a is `Scene.alike`, with which opaque area of another hue counts as transparent. It is c if the Scene has
    none.

    # differs: not in DeNF. Eq. 12 has no gradient where boxes overlap, and boxes as small as a cell solve it.
    """

    outside: float = 2.0
    """λ, the price of transparent area inside a box, in units of opaque area"""

    def __call__(self, scene: Scene, images: Tensor | None = None) -> Tensor:
        """(B,) mean over boxes, in units of the opaque area per box.

        Raises:
            ValueError: the program's Scene has no opacity, or no boxes.
        """
        opacity, boxed = boxes_of("Inscribed", scene)
        opacity = opacity.detach()
        alike = boxed if scene.alike is None else scene.alike
        area = self.outside * boxed - (self.outside + 1) * opacity * alike
        return area.sum((1, 2, 3)) / (opacity.sum((1, 2, 3)) + 1)


@dataclass(frozen=True)
class Upright:
    """Turns the frames of objects so that all objects of a shape stand alike in theirs.

    -Σ_n pres_n Σ_k a_k Re(μ_nk e^(-i k θ_n)),   μ_n1 = E |w|² w,  μ_nk = E w^k

    E is over the mask of an object as the image shows it, w = x + i y its pixels from the mask's centroid with
    E |w|² = 1, and θ the angle of its frame. Only θ has a gradient. A shape is upright where its moments are
    real; one with symmetries, in more than one way.

    # differs: not in GSGN. An angle that is free stays unused, and the appearance of an object then holds
    its angle beside its type.
    """

    moments: tuple[float, ...] = (2.0, 1.0, 1.0, 0.3)
    """a_1, a_2, …: skewness, and symmetries of order 2, 3, …"""

    def __call__(self, scene: Scene, images: Tensor | None = None) -> Tensor:
        """(B,) sum over objects.

        Raises:
            ValueError: the objects of the program's Scene have no patches.
        """
        if not scene.levels or scene.objects.patch is None:
            raise ValueError(
                "the penalty Upright needs a Scene whose objects have patches; this program returns "
                "none: --set train.penalties={}"
            )
        nodes = scene.objects
        mask = nodes.patch[..., -1, :, :].detach().flatten(-2).gt(0.5) + 1e-6
        mask = mask / mask.sum(-1, keepdim=True)
        grid = render.pixel_axes(nodes.patch.shape[-1], mask.device).flatten(1)
        w = torch.complex(*(nodes.pose[..., :2].detach() @ grid).unbind(-2))
        w = w - (mask * w).sum(-1, keepdim=True)
        w = w / (mask * w.abs().square()).sum(-1, keepdim=True).sqrt()
        back = torch.polar(torch.ones_like(nodes.rotation), -nodes.rotation)
        powers = [w.abs().square() * w, *(w**k for k in range(2, len(self.moments) + 1))]
        upright = sum(
            a * ((mask * power).sum(-1) * back**k).real
            for k, (a, power) in enumerate(zip(self.moments, powers, strict=True), start=1)
        )
        return -(nodes.pres.detach() * upright).sum(-1)


def boxes_of(penalty: str, scene: Scene) -> tuple[Tensor, Tensor]:
    """Opacity of a Scene's pixels, and the number of boxes over each.

    Raises:
        ValueError: the program's Scene has no opacity, or no boxes.
    """
    if scene.opacity is None or scene.boxed is None:
        raise ValueError(
            f"the penalty {penalty} needs a Scene with opacity and boxed; this program returns one "
            "without: give them, or --set train.penalties={}"
        )
    return scene.opacity, scene.boxed


Penalty = Callable[[Scene, Tensor], Tensor]
"""From a Scene and its images (B, C, H, W) to (B,), in a unit that a weight converts to nats."""
