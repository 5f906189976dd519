"""Metrics of images alone: errors, Fréchet distances, bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from programs.scene import Scene


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Squared Fréchet distance of two Gaussians with the samples' means and covariances (Heusel et al., 2017).

    It is called FID with Inception's features, FID-like with those of another net.

    Args:
        features: (N, F), N at least 2.
        others: (M, F).
    """
    (mean, root), (other_mean, other) = map(_moments, (features, others))
    # tr (Σ₁ Σ₂)^½ = tr (Σ₁^½ Σ₂ Σ₁^½)^½, the latter symmetric
    values, vectors = torch.linalg.eigh(root)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    common = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + values.sum() + other.trace() - 2 * common
    return float(distance)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"features of shape {tuple(features.shape)}: expected (N, F) of at least 2 images"
        )
    features = features.detach().cpu().double()
    return features.mean(0), features.T.cov()


def bits_per_dimension(log_prob: Tensor, numbers: int, values: int = 256) -> float:
    """Mean bits per number of an image, each with `values` possible values, by a bound on its
    log-probability.

    Args:
        log_prob: (B,) nats, log-density of dequantised images in [0, 1].
        numbers: number of values in an image, C · H · W.
    """
    return float(math.log2(values) - log_prob.double().mean() / (numbers * math.log(2)))


def change_outside(image: Tensor, edited: Tensor, pose: Tensor) -> float:
    """Mean absolute change of the pixels outside boxes, the fidelity of an edit.

    Args:
        image, edited: (B, C, H, W) in [0, 1].
        pose: (B, 2, 3) the box in each image that is meant to change; a turned one is enclosed by an
            upright one.
    Raises:
        ValueError: no pixel is outside.
    """
    chosen = outside(pose, image.shape[-1]).unsqueeze(1).expand_as(image)
    if not chosen.any():
        raise ValueError("the boxes cover the images: there is nothing outside")
    return float((image - edited).abs()[chosen].mean(dtype=torch.float64))


def outside(pose: Tensor, size: int) -> Tensor:
    """(B, S, S) bool: the pixels outside of the upright boxes around those of (B, 2, 3)."""
    axis = (2 * torch.arange(size, device=pose.device) + 1) / size - 1
    extent = pose[..., :2].abs().sum(-1)
    inside = (axis - pose[..., 2:]).abs() <= extent.unsqueeze(-1)  # (B, 2, size)
    return ~(inside[:, 1, :, None] & inside[:, 0, None, :])


def mse(scene: Scene, images: Tensor) -> float:
    """Mean squared error per pixel and channel against images (B, C, H, W) in [0, 1]."""
    if scene.image.shape != images.shape:
        raise ValueError(
            f"mse compares like with like: scene.image is {tuple(scene.image.shape)}, "
            f"images {tuple(images.shape)}"
        )
    return float((scene.image - images).square().mean(dtype=torch.float64))
