"""Networks shared by programs and guides. Each takes any leading dimensions: (..., C, H, W) or (..., D).

Shape legend: C channels, H x W pixels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers with CELU between them, on (..., inputs)."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.CELU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


ABSENT = 1e-4
"""A node that exists less than this takes no part in a training step on a CPU."""
FEW = 0.1
"""Share of absent nodes up to which picking out the others costs more than it saves."""


def where_present(exists: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """function(*inputs), computed for the nodes that exist, where that saves time; zeros for the others.

    Nothing depends on what an absent node looks like: it is multiplied by its presence (GSGN eq. 4). Half of
    all slots are empty in a typical scene. On a GPU, which wants shapes that stay, and without gradients,
    where an edit may fill a slot later, all nodes are computed.

    Args:
        exists: (...) presence, hard or relaxed.
        inputs: (..., *S), with the same leading dimensions.
    """
    if exists.device.type != "cpu" or not torch.is_grad_enabled():
        return function(*inputs)
    present = exists.detach().flatten() > ABSENT
    present[0] = True  # not every network takes an empty batch
    rows = present.nonzero().squeeze(-1)
    if len(rows) > (1 - FEW) * exists.numel():
        return function(*inputs)
    found = function(*(x.flatten(0, exists.ndim - 1)[rows] for x in inputs))
    everyone = found.new_zeros(exists.numel(), *found.shape[1:])
    return everyone.index_copy(0, rows, found).unflatten(0, exists.shape)


def groups(channels: int) -> int:
    """Groups of a group normalisation: one for every 16 channels (the paper leaves it open)."""
    return max(1, channels // 16)


class ConvEncoder(nn.Module):
    """Strided convolutions from an image to a square feature map of side `side`.

    Every stage halves the picture (4x4 kernel, stride 2, group normalisation, CELU).

    Args:
        size: pixels a side of the input, `side` times a power of two.
        channels: width of the first stages; the last repeats if more are needed.
    """

    def __init__(self, size: int, side: int, channels: Sequence[int], inputs: int = 3) -> None:
        super().__init__()
        stages = (size // side).bit_length() - 1
        if side * 2**stages != size:
            raise ValueError(f"size {size} is not side {side} times a power of two")
        widths = [channels[min(i, len(channels) - 1)] for i in range(stages)]
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(nn.Conv2d(inputs, width, 4, stride=2, padding=1))
            layers += [nn.GroupNorm(groups(width), width), nn.CELU(inplace=True)]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.outputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., outputs, side, side)."""
        return self.layers(x.reshape(-1, *x.shape[-3:])).unflatten(0, x.shape[:-3])


class SubpixelDecoder(nn.Module):
    """A small picture from a vector: a linear seed of 4x4, then sub-pixel convolutions (Shi et al., 2016).

    Args:
        inputs: features of the vector.
        size: pixels a side of the output, 4 times a power of two.
        channels: width of the seed; it halves at every doubling, never below 8.
        outputs: channels of the picture, unsquashed.
    """

    def __init__(self, inputs: int, size: int, channels: int, outputs: int) -> None:
        super().__init__()
        doublings = (size // 4).bit_length() - 1
        if 4 * 2**doublings != size:
            raise ValueError(f"size {size} is not 4 times a power of two")
        self.seed = nn.Linear(inputs, channels * 16)
        layers: list[nn.Module] = []
        for _ in range(doublings):
            width = max(8, channels // 2)
            layers += [
                nn.CELU(inplace=True),
                nn.Conv2d(channels, 4 * width, 3, padding=1),
                nn.PixelShuffle(2),
            ]
            layers.append(nn.GroupNorm(groups(width), width))
            channels = width
        self.layers = nn.Sequential(
            *layers, nn.CELU(inplace=True), nn.Conv2d(channels, outputs, 3, padding=1)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., outputs, size, size)."""
        seed = self.seed(z.reshape(-1, z.shape[-1])).unflatten(-1, (-1, 4, 4))
        return self.layers(seed).unflatten(0, z.shape[:-1])


class BroadcastDecoder(nn.Module):
    """A smooth picture from a vector: the spatial broadcast decoder (Watters et al., 2019).

    The vector and the pixel's coordinates go through 1x1 convolutions on a grid whose cells are `cell`
    pixels a side, which is then enlarged bilinearly.
    """

    def __init__(self, inputs: int, size: int, channels: int, outputs: int, cell: int = 4) -> None:
        super().__init__()
        self.size = size
        self.net = mlp(inputs + 2, [channels, channels], outputs)
        side = max(1, size // cell)
        axis = (2 * torch.arange(side) + 1) / side - 1
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
        self.register_buffer("grid", grid.reshape(-1, 2), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., outputs, size, size)."""
        side = int(len(self.grid) ** 0.5)
        z = z.unsqueeze(-2).expand(*z.shape[:-1], len(self.grid), z.shape[-1])
        pixels = self.net(torch.cat([z, self.grid.expand(*z.shape[:-1], 2)], -1))
        picture = pixels.mT.unflatten(-1, (side, side))
        flat = picture.reshape(-1, *picture.shape[-3:])
        large = F.interpolate(flat, size=self.size, mode="bilinear", align_corners=False)
        return large.unflatten(0, z.shape[:-2])


class RecurrentCell(nn.Module):
    """An LSTM whose input is an unchanging part, read once, and one that changes at every step."""

    def __init__(self, fixed: int, inputs: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.fixed = nn.Linear(fixed, 4 * units)
        self.changing = nn.Linear(inputs + units, 4 * units, bias=False)

    def look(self, x: Tensor) -> Tensor:
        """(B, fixed) -> (B, 4 · units), for all steps."""
        return self.fixed(x)

    def start(self, batch: int) -> tuple[Tensor, Tensor]:
        """Empty memory: two (B, units)."""
        zeros = self.fixed.weight.new_zeros(batch, self.units)
        return zeros, zeros

    def forward(
        self, seen: Tensor, x: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One step: what `look` returned, inputs (B, inputs), output and cell before -> those after."""
        gates = seen + self.changing(torch.cat([x, state[0]], -1))
        forget, write, show, new = gates.chunk(4, -1)
        cell = forget.sigmoid() * state[1] + write.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell
