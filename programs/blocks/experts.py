"""Networks of experts: K networks of one shape, each row of a batch through that of its own expert.

Experts of rows are one-hot (N, K), or None for as many rows of one expert after another.

Shape legend: N rows, K experts, C channels, S pixels per side, E features of a pixel, L latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.distributions import positive

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"elu": F.elu, "relu": F.relu}


@torch.no_grad()
def he(weight: Tensor, inputs: int) -> Tensor:
    """Let weights begin such that layers keep the variance of their `inputs` (He et al., 2015)."""
    bound = math.sqrt(6 / inputs)
    return weight.uniform_(-bound, bound)


class ExpertConv(nn.Module):
    """A convolution for each of K experts.

    A row's weights are picked out and all rows are one grouped convolution, which on a CPU takes as long as a
    network that all rows share; K networks on all rows take K times as long.
    """

    def __init__(
        self, experts: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        self.shape, self.stride = (outputs, inputs, kernel, kernel), stride
        numbers = inputs * outputs * kernel**2
        self.weight = nn.Parameter(he(torch.empty(experts, numbers), inputs * kernel**2))
        self.bias = nn.Parameter(torch.zeros(experts, outputs))

    def forward(self, x: Tensor, cat: Tensor | None) -> Tensor:
        """(N, inputs, H, W), experts -> (N, outputs, H / stride, W / stride)."""
        outputs, inputs, kernel, _ = self.shape
        if cat is None:
            return self.in_turn(x)
        weight, bias = cat @ self.weight, cat @ self.bias
        if kernel == 1:
            flat = torch.baddbmm(bias.unsqueeze(-1), weight.view(-1, outputs, inputs), x.flatten(2))
            return flat.unflatten(-1, x.shape[-2:])
        wide = x.reshape(1, -1, *x.shape[-2:])
        weight = weight.view(-1, inputs, kernel, kernel)
        y = F.conv2d(wide, weight, bias.flatten(), self.stride, kernel // 2, groups=len(x))
        return y.view(len(x), outputs, *y.shape[-2:])

    def in_turn(self, x: Tensor) -> Tensor:
        """Rows of one expert after another: a convolution per expert, in a third of the time on a CPU."""
        weights = self.weight.view(-1, *self.shape)
        trios = zip(x.chunk(len(weights)), weights, self.bias, strict=True)
        padding = self.shape[-1] // 2
        return torch.cat([F.conv2d(part, w, b, self.stride, padding) for part, w, b in trios])


class ExpertLinear(nn.Module):
    """A linear layer for each of K experts: all are applied, and a row keeps its own's result."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.experts = experts
        self.all = nn.Linear(inputs, experts * outputs)
        he(self.all.weight, inputs)
        nn.init.zeros_(self.all.bias)

    def forward(self, x: Tensor, cat: Tensor | None) -> Tensor:
        """(N, inputs), experts -> (N, outputs)."""
        if cat is None:  # each expert has its own rows
            weights, biases = (t.unflatten(0, (self.experts, -1)) for t in self.all.parameters())
            rows = x.unflatten(0, (self.experts, -1))
            return torch.baddbmm(biases.unsqueeze(1), rows, weights.mT).flatten(0, 1)
        return (self.all(x).unflatten(-1, (self.experts, -1)) * cat.unsqueeze(-1)).sum(-2)


class ExpertUNet(nn.Module):
    """MONet's U-Net (Burgess et al., 2019) for each of K experts, from 4 channels to E features of a pixel.

    # differs: instance normalisation without learned scale and shift.

    Args:
        size: S.
        channels: channels of the blocks' outputs on the way down, by scale.
        context: width of the layer that sees the whole image.
        features: E.
        patch: pixels per side read as one.
        faint: factor of the last layer's initial weights.
        reach: initial logit of `near`, for a network whose features are compared; None without.
    """

    def __init__(
        self,
        experts: int,
        size: int,
        channels: Sequence[int],
        context: int,
        features: int,
        patch: int = 1,
        faint: float = 1.0,
        reach: float | None = None,
    ) -> None:
        super().__init__()
        self.patch = patch
        pairs = list(pairwise((4 * patch**2, *channels)))
        self.down = nn.ModuleList([ExpertConv(experts, a, b) for a, b in pairs])
        pixels = (size // patch // 2 ** (len(pairs) - 1)) ** 2 * channels[-1]
        self.inside = ExpertLinear(experts, pixels, context)
        self.outside = ExpertLinear(experts, context, pixels)
        ends = reversed(list(zip(channels, [channels[0], *channels[:-1]], strict=True)))
        self.up = nn.ModuleList([ExpertConv(experts, 2 * a, b) for a, b in ends])
        self.out = ExpertConv(experts, channels[0], features * patch**2, 1)
        self.out.weight.data.mul_(faint)
        if reach is not None:
            self.reach = nn.Parameter(torch.full((experts, 1), reach))

    def forward(self, seen: Tensor, cat: Tensor | None) -> Tensor:
        """(N, 4, S, S), experts -> (N, E, S, S)."""
        x, skipped = F.pixel_unshuffle(seen, self.patch), []
        for i, block in enumerate(self.down):
            x = F.instance_norm(block(x[..., ::2, ::2] if i else x, cat)).relu()
            skipped.append(x)
        context = self.inside(x.flatten(1), cat).relu()
        x = self.outside(context, cat).relu().view_as(x)
        for i, block in enumerate(self.up):
            if i:
                x = F.interpolate(x, scale_factor=2)
            x = torch.cat([x, skipped.pop()], 1)
            x = F.instance_norm(block(x, cat)).relu()
        return F.pixel_shuffle(self.out(x, cat), self.patch)

    def near(self, features: Tensor, at: Tensor, cat: Tensor | None) -> Tensor:
        """Logits (N, S, S) that fall from `reach` with the square distance to the pixel `at` (N,).

        Args:
            features: (N, E', S, S) of every pixel.
            at: the pixel's index, row by row.
        """
        index = at[:, None, None].expand(-1, features.shape[1], 1)
        distance = (features - features.flatten(2).gather(2, index).unsqueeze(-1)).square().sum(1)
        each = len(at) // len(self.reach)
        reach = self.reach.repeat_interleave(each, 0) if cat is None else cat @ self.reach
        return reach.unsqueeze(-1) - distance


class ExpertEncoder(nn.Module):
    """From the pixels of a region to the mean and deviation of latents, for each of K experts (ECON, C.2.1).

    Args:
        size: S.
        features: channels of every block.
        blocks: number of blocks, each of which halves the picture.
        hidden: width of the layer before the last.
        latents: L.
        patch: pixels per side read as one.
        span: the picture is seen from the middle of the region, and the first two means count from there, in
            units of `span` half sides of the image; None: neither.
        pooling: max pooling, else convolutions of stride 2.
        activation: a name in `ACTIVATIONS`.
        offset: added to deviations before the softplus.
    """

    def __init__(
        self,
        experts: int,
        size: int,
        features: int,
        blocks: int,
        hidden: int,
        latents: int,
        patch: int = 1,
        span: float | None = None,
        pooling: bool = False,
        activation: str = "relu",
        offset: float = 0.0,
    ) -> None:
        super().__init__()
        self.patch, self.span, self.pooling, self.offset = patch, span, pooling, offset
        self.activation = ACTIVATIONS[activation]
        pairs, stride = pairwise([4 * patch**2, *[features] * blocks]), 1 if pooling else 2
        self.blocks = nn.ModuleList([ExpertConv(experts, a, b, stride=stride) for a, b in pairs])
        pixels = (size // patch // 2**blocks) ** 2
        self.register_buffer("grid", render.pixel_axes(size), persistent=False)
        self.hidden = ExpertLinear(experts, pixels * features, hidden)
        self.out = ExpertLinear(experts, hidden, 2 * latents)

    def forward(self, images: Tensor, region: Tensor, cat: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S), (N, S, S), experts -> two (N, L)."""
        region = region.unsqueeze(1)
        seen = torch.cat([images * region, region], 1)
        if self.span is not None:
            centre = (region * self.grid).sum((-2, -1)) / region.sum((-2, -1)).clamp(min=1)
            window = (self.grid + centre[..., None, None]).movedim(1, -1)
            seen = F.grid_sample(seen, window, align_corners=False)
        x = F.pixel_unshuffle(seen, self.patch)
        for block in self.blocks:
            x = self.activation(block(x, cat))
            x = F.max_pool2d(x, 2) if self.pooling else x
        x = self.activation(self.hidden(x.flatten(1), cat))
        loc, raw = self.out(x, cat).chunk(2, -1)
        if self.span is not None:
            loc = loc + F.pad(centre / self.span, (0, loc.shape[1] - 2))
        return loc, positive(raw + self.offset)
