"""What is learned about costs: a network that predicts them, and how much of a control variate to take."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks.nets import ConvEncoder, mlp


class Control(nn.Module):
    """Predicts the cost at a site from the images, and from a relaxed sample where there are alternatives.

    Args:
        image: (C, H, W) of the images.
        sites: S.
        alternatives: A, or 0 for a baseline, which must not see the sample.
        earlier: D, numbers in the values of all earlier latents, or 0 for what sees images only.
    """

    decay = 0.99

    def __init__(
        self, image: torch.Size, sites: torch.Size, alternatives: int = 0, earlier: int = 0
    ) -> None:
        super().__init__()
        self.sites, hidden = sites, 64
        self.encoder = ConvEncoder(32, 4, (8, 16, 16), inputs=image[0])
        self.body = mlp(16 * self.encoder.outputs, [hidden], hidden)
        self.sample = nn.Linear(max(alternatives, 1), hidden)
        self.place = nn.Parameter(torch.randn(sites.numel(), hidden))
        self.head = mlp(hidden, [hidden], 1)
        self.history = nn.Linear(earlier, hidden) if earlier else None
        self.register_buffer("mean", torch.zeros(sites))
        self.register_buffer("square", torch.zeros(sites))
        self.register_buffer("weight", torch.zeros(sites if earlier else ()))

    def forward(
        self, images: Tensor, sample: Tensor | None = None, earlier: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W)[, (B, *S, A)][, (B, D)] -> (B, *S) nats."""
        small = F.adaptive_avg_pool2d(images, 32)
        hidden = self.body(self.encoder(small).flatten(1))[:, None] + self.place
        if sample is not None:
            hidden = hidden + self.sample(sample.reshape(*hidden.shape[:-1], -1))
        if self.history is not None and earlier is not None:
            hidden = hidden + self.history(earlier)[:, None]
        raw = self.head(F.celu(hidden)).view(len(images), *self.sites)
        return self.mean / self.weight.clamp(min=1e-8) + self.spread() * raw

    def spread(self) -> Tensor:
        """(*S) running standard deviation of the cost, at least 1."""
        seen = self.weight.clamp(min=1e-8)
        return (self.square / seen - (self.mean / seen).square()).clamp(min=1.0).sqrt()

    @torch.no_grad()
    def watch(self, cost: Tensor) -> None:
        """Let costs (B, *S) into the running moments."""
        rate = 1 - self.decay
        self.mean.lerp_(cost.mean(0), rate)
        self.square.lerp_(cost.square().mean(0), rate)
        self.weight.lerp_(torch.ones_like(self.weight), rate)

    @torch.no_grad()
    def watch_present(self, cost: Tensor, exists: Tensor) -> None:
        """Let costs (B, *S) in, but of rows that do not exist; a mean over processes is that of the batch."""
        rate = 1 - self.decay
        for moment, new in (
            (self.mean, cost),
            (self.square, cost.square()),
            (self.weight, exists),
        ):
            moment += rate * (exists * (new - moment)).mean(0)


class Scaled(nn.Module):
    """η of control variates: the least-squares one of the gradients so far, held back while they are few.

    Args:
        number: M, of control variates.
    """

    decay = 0.99
    caution = 10.0  # calls after which η is half of what least squares says

    def __init__(self, number: int = 1) -> None:
        super().__init__()
        self.register_buffer("cross", torch.zeros(number))
        self.register_buffer("square", torch.zeros(number, number))
        self.register_buffer("calls", torch.zeros(()))

    @torch.no_grad()
    def forward(self, plain: Tensor, controls: Tensor) -> Tensor:
        """plain (B, …) + Σ η_m controls (M, B, …): η is from earlier calls, later ones see these."""
        ridge = torch.diag(1e-6 * self.square.diagonal() + 1e-12)
        eta = -torch.linalg.solve_ex(self.square + ridge, self.cross)[0]
        eta = eta * self.calls / (self.calls + self.caution)
        found = plain + torch.tensordot(eta.to(controls.dtype), controls, 1)
        flat = controls.flatten(1)
        cross, square = flat @ plain.flatten() / plain.numel(), flat @ flat.T / plain.numel()
        self.cross.lerp_(cross.to(self.cross.dtype), 1 - self.decay)
        self.square.lerp_(square.to(self.square.dtype), 1 - self.decay)
        self.calls += 1
        return found
