"""Networks shared by programs and guides. Each takes any leading dimensions: (..., C, H, W) or (..., D).

Shape legend: C channels, H x W pixels, D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import has_torch_function

from programs.blocks.config import doublings, enlargement


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers with CELU between them, on (..., inputs)."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.CELU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


@torch.no_grad()
def silent(net: nn.Sequential) -> nn.Sequential:
    """A network that says 0 before it is trained."""
    for parameter in net[-1].parameters():
        parameter.zero_()
    return net


ABSENT = 1e-4
"""On a CPU, training steps skip nodes whose presence is below this."""
FEW = 0.1
"""Share of absent nodes below which skipping them costs more time than it saves."""


_leaving_out: ContextVar[bool] = ContextVar("leaving_out", default=False)


@contextmanager
def leaving_out_absent() -> Iterator[None]:
    """Inside, absent nodes are skipped without gradients, too: for densities, of which they are no part."""
    token = _leaving_out.set(True)
    try:
        yield
    finally:
        _leaving_out.reset(token)


def present_rows(exists: Tensor) -> Tensor | None:
    """Indices of the nodes that `where_present` computes, of those that exist (...) so much; None for all."""
    wanted = torch.is_grad_enabled() or _leaving_out.get()
    if exists.device.type != "cpu" or not wanted:
        return None
    present = exists.detach().flatten() > ABSENT
    present[0] = True  # not every network takes an empty batch
    rows = present.nonzero().squeeze(-1)
    return None if len(rows) > (1 - FEW) * exists.numel() else rows


def where_present(exists: Tensor, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """function(*inputs), computed only for existing nodes if that saves time; zeros for the others.

    Nothing depends on the appearance of an absent node: it is multiplied by its presence (GSGN eq. 4). Half
    of all slots are empty in a typical scene. All nodes are computed on a GPU, which needs constant shapes,
    and without gradients, because an edit may fill a slot later, but for `leaving_out_absent`.

    Args:
        exists: (...) presence, hard or relaxed.
        inputs: (..., *S), with the same leading dimensions.
    """
    rows = present_rows(exists)
    if rows is None:
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
        size: pixels per side of the input, `side` times a power of two.
        channels: width of the first stages; the last repeats if more are needed.
    """

    def __init__(self, size: int, side: int, channels: Sequence[int], inputs: int = 3) -> None:
        super().__init__()
        stages = doublings(size, side)
        widths = [channels[min(i, len(channels) - 1)] for i in range(stages)]
        layers: list[nn.Module] = []
        for width in widths:
            few = inputs <= COLOURS
            layers.append(
                Halving(inputs, width) if few else nn.Conv2d(inputs, width, 4, stride=2, padding=1)
            )
            layers += [nn.GroupNorm(groups(width), width), nn.CELU(inplace=True)]
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.outputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., outputs, side, side)."""
        return self.layers(x.reshape(-1, *x.shape[-3:])).unflatten(0, x.shape[:-3])


COLOURS = 4
"""Input channels up to which a strided convolution's gradient by its input is slow on a CPU."""


VECTOR = 16
"""Numbers that a CPU computes with at once; convolutions are fast from and to multiples of it."""


class Halving(nn.Conv2d):
    """A convolution of 4x4, stride 2 and padding 1, from few channels.

    On a CPU its gradient by the input is a convolution of stride 1, then a pixel shuffle.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)
        self.register_buffer("spread", _doubled(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H / 2, W / 2)."""
        if torch.compiler.is_compiling() or not (x.requires_grad and x.device.type == "cpu"):
            return super().forward(x)
        plain = has_torch_function((x,)) or torch._C._are_functorch_transforms_active()
        if plain or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        return _Halve.apply(x, self.weight, self.bias, self.spread)


class _Halve(torch.autograd.Function):
    """F.conv2d(x, weight, bias, stride=2, padding=1) with kernels of 4x4."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, spread: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, spread)
        return F.conv2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, spread = ctx.saved_tensors
        options = [len(weight)], [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, True]
        _, d_weight, d_bias = torch.ops.aten.convolution_backward(gradient, x, weight, *options)
        wide = (weight.flatten(2) @ spread).view(len(weight), -1, 3, 3).transpose(0, 1)
        # rounded up with zeros: 12 channels take three times as long as 16
        padded = F.pad(wide, (0,) * 7 + (-len(wide) % VECTOR,))
        d_x = F.conv2d(gradient, padded, padding=1)[:, : len(wide)]
        return F.pixel_shuffle(d_x, 2), d_weight, d_bias, None


def _doubled() -> Tensor:
    """(16, 4 · 9) which entry of a 4x4 kernel acts on one pixel of a 2x2 block from one of 3x3 outputs."""
    line = torch.zeros(4, 2, 3)  # entry, pixel's place in its block, output relative to the block
    for entry, place, output in ((3, 0, 0), (1, 0, 1), (2, 1, 1), (0, 1, 2)):
        line[entry, place, output] = 1
    return torch.einsum("aps,bqt->abpqst", line, line).reshape(16, -1)


class LateShuffle(nn.Sequential):
    """Layers that end with (pixel shuffle by 2, group normalisation,) CELU and a convolution of 3x3.

    On a CPU the shuffle comes last: the same function, at a quarter of the resolution with four times the
    channels. A convolution of 8 channels to 4 takes a third of the time there, with its gradient.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("spread", _spread(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, size, size)."""
        if len(self) < 4 or 4 * self[-1].out_channels >= LANES or x.device.type != "cpu":
            return super().forward(x)
        *first, shuffle, norm, activation, last = self
        for layer in first:
            x = layer(x)
        scale, shift, bias = (t.repeat_interleave(4) for t in (norm.weight, norm.bias, last.bias))
        x = activation(F.group_norm(x, norm.num_groups, scale, shift, norm.eps))
        return shuffle(F.conv2d(x, self.weight(last.weight), bias, padding=1))

    def weight(self, weight: Tensor) -> Tensor:
        """(4 O, 4 I, 3, 3) of the convolution before the shuffle, from that after it (O, I, 3, 3)."""
        outputs, inputs = weight.shape[:2]
        wide = (weight.flatten(2) @ self.spread).view(outputs, inputs, 4, 4, 3, 3)
        return wide.transpose(1, 2).reshape(4 * outputs, 4 * inputs, 3, 3)


LANES = 64
"""Channels above which a convolution on a CPU wastes nothing."""


def _spread() -> Tensor:
    """(9, 4 · 4 · 9) which entry of a 3x3 kernel acts from a pixel of one 2x2 block to one of a neighbour.

    Axes of the second dimension: the output's place in its block, the input's, the neighbour of 3x3.
    """
    line = torch.zeros(3, 2, 2, 3)  # entry, output's place, input's place, neighbour
    for to, source, step in itertools.product((0, 1), (0, 1), (-1, 0, 1)):
        entry = 2 * step + source - to + 1
        if 0 <= entry < 3:
            line[entry, to, source, step + 1] = 1
    both = torch.einsum("apqd,brse->abprqsde", line, line)
    return both.reshape(9, -1)


class SubpixelDecoder(nn.Module):
    """A small picture from a vector: a linear seed of 4x4, then sub-pixel convolutions (Shi et al., 2016).

    Args:
        inputs: features of the vector.
        size: pixels per side of the output, 4 times a power of two.
        channels: width of the seed; it halves at every doubling, never below 8.
        outputs: channels of the picture, unsquashed.
    """

    def __init__(self, inputs: int, size: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.seed = nn.Linear(inputs, channels * 16)
        layers: list[nn.Module] = []
        for _ in range(doublings(size)):
            width = max(8, channels // 2)
            layers += [
                nn.CELU(inplace=True),
                nn.Conv2d(channels, 4 * width, 3, padding=1),
                nn.PixelShuffle(2),
            ]
            layers.append(nn.GroupNorm(groups(width), width))
            channels = width
        self.layers = LateShuffle(
            *layers, nn.CELU(inplace=True), nn.Conv2d(channels, outputs, 3, padding=1)
        )

    def forward(self, z: Tensor) -> Tensor:
        """(..., D) -> (..., outputs, size, size)."""
        seed = self.seed(z.reshape(-1, z.shape[-1])).unflatten(-1, (-1, 4, 4))
        return self.layers(seed).unflatten(0, z.shape[:-1])


class BroadcastDecoder(nn.Module):
    """A smooth picture from a vector: the spatial broadcast decoder (Watters et al., 2019).

    The vector and the pixel's coordinates go through 1x1 convolutions on a grid whose cells are `cell`
    pixels per side, which is then enlarged bilinearly.
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


def strided(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions of 5 x 5 with stride 2, each normalised: (B, C, H, W) to (B, widths[-1], ...)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 5, 2, padding=2), nn.GroupNorm(groups(width), width)]
        layers.append(nn.CELU())
        channels = width
    return nn.Sequential(*layers)


class RecurrentCell(nn.Module):
    """An LSTM whose input has a constant part, read once, and a part that changes at every step."""

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


class Encoder(nn.Module):
    """Image encoder of GNM and its baselines (GNM, Table 4): every stage halves the picture, then refines it.

    A stage is a 4x4 convolution of stride 2 and, but for the last, a 3x3 one, each followed by CELU and layer
    normalisation.

    # differs: the last is followed by them too, as in the official code; the table has nothing there.

    Args:
        size: pixels per side of the input, `side` times a power of two.
        channels: width of the first stages; the last repeats if more are needed.
    """

    def __init__(self, size: int, side: int, channels: Sequence[int], inputs: int) -> None:
        super().__init__()
        stages = doublings(size, side, least=1)
        layers: list[nn.Module] = []
        for i in range(stages):
            width = channels[min(i, len(channels) - 1)]
            layers += normed(nn.Conv2d(inputs, width, 4, stride=2, padding=1))
            if i < stages - 1:
                layers += normed(nn.Conv2d(width, width, 3, padding=1))
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.outputs = inputs

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, H, W) -> (..., outputs, side, side)."""
        return over_pictures(self.layers, x)


Stages = tuple[tuple[int, int, int], ...]
"""Stages of sub-pixel convolutions, each with channels, enlargement factor and kernel."""


class SubpixelStack(nn.Module):
    """A picture from a small one, by sub-pixel convolutions of any widths (GNM, Tables 5, 6, 8 and 9).

    Each stage is followed by its activation and layer normalisation. A last 3x3 convolution, unsquashed,
    makes the outputs and the remaining enlargement.

    Args:
        side, size: pixels per side of the input and of the output.
    """

    def __init__(
        self,
        inputs: int,
        side: int,
        size: int,
        stages: Stages,
        outputs: int,
        activation: type[nn.Module] = nn.CELU,
    ) -> None:
        super().__init__()
        last = enlargement(stages, side, size)
        layers: list[nn.Module] = []
        for width, factor, kernel in stages:
            layers += [*subpixel(inputs, width, factor, kernel), activation(inplace=True)]
            layers.append(nn.GroupNorm(1, width))
            inputs = width
        self.layers = nn.Sequential(*layers, *subpixel(inputs, outputs, last, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C, side, side) -> (..., outputs, size, size)."""
        return over_pictures(self.layers, x)


def subpixel(inputs: int, outputs: int, factor: int, kernel: int) -> list[nn.Module]:
    """A convolution whose outputs become `factor` times as many rows and columns (Shi et al., 2016)."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs * factor**2, kernel, padding=kernel // 2)]
    return layers + [nn.PixelShuffle(factor)] * (factor > 1)


def normed(layer: nn.Conv2d | nn.Linear) -> list[nn.Module]:
    """A layer, CELU, and a normalisation over all its outputs (GNM, section 4.1)."""
    if isinstance(layer, nn.Conv2d):
        norm: nn.Module = nn.GroupNorm(1, layer.out_channels)
    else:
        norm = nn.LayerNorm(layer.out_features)
    return [layer, nn.CELU(inplace=True), norm]


def normed_mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers, all but the last with CELU and layer normalisation, on (..., inputs)."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += normed(nn.Linear(inputs, width))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def normed_convolutions(
    inputs: int, hidden: Sequence[int], outputs: int, kernel: int
) -> nn.Sequential:
    """Convolutions that keep the size, all but the last with CELU and layer normalisation."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += normed(nn.Conv2d(inputs, width, kernel, padding=kernel // 2))
        inputs = width
    return nn.Sequential(*layers, nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


def over_pictures(net: nn.Module, x: Tensor) -> Tensor:
    """Apply a net for (B, C, H, W) to (..., C, H, W)."""
    return net(x.reshape(-1, *x.shape[-3:])).unflatten(0, x.shape[:-3])


class ConvLSTM(nn.Module):
    """An LSTM whose state is a picture and whose gates are a convolution (Shi et al., 2015)."""

    def __init__(self, inputs: int, units: int, kernel: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + units, 4 * units, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: inputs (..., C, G, G), output and cell (..., units, G, G) before -> those after."""
        output, cell = (s.expand(*x.shape[:-3], *s.shape[-3:]) for s in state)
        gates = over_pictures(self.gates, torch.cat([x, output], -3))
        forget, write, show, new = gates.chunk(4, -3)
        cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
        return show.sigmoid() * cell.tanh(), cell


def first_state(units: int, side: int) -> nn.Parameter:
    """Output and cell (2, units, G, G) of a ConvLSTM with a learned initial state; zeros before training."""
    return nn.Parameter(torch.zeros(2, units, side, side))


class Canvas(NamedTuple):
    """The state of DRAW after its first l steps."""

    features: Tensor
    """(..., C, G, G) f_l"""
    output: Tensor
    """(..., C, G, G) h_dec,l"""
    cell: Tensor
    """(..., C, G, G)"""

    @property
    def state(self) -> tuple[Tensor, Tensor]:
        """The state of the decoder's LSTM."""
        return self.output, self.cell


class Drawing(nn.Module):
    """The generative half of DRAW (Gregor et al., 2016; GNM, Algorithm 1): latents add to a feature map.

    Args:
        prior: h_dec (..., units, G, G) -> (..., 2 D), means and deviations of the next latent.
        embedding: a latent (..., D) -> d (..., inputs, G, G).
        structured: StructDRAW's (GNM, section 4.1): the LSTM takes f_l-1 too, and its first state is learned.
    """

    def __init__(
        self,
        prior: nn.Module,
        embedding: nn.Module,
        inputs: int,
        units: int,
        side: int,
        kernel: int,
        structured: bool = False,
    ) -> None:
        super().__init__()
        self.prior, self.embedding = prior, embedding
        self.shape, self.structured = (units, side, side), structured
        self.lstm = ConvLSTM(inputs + units * structured, units, kernel)
        self.out = nn.Conv2d(units, units, 3, padding=1)
        if structured:
            self.first = first_state(units, side)

    def start(self, batch: int) -> Canvas:
        """The empty canvas, f_0 = 0: (B, 1, C, G, G) each."""
        zeros = self.out.weight.new_zeros(batch, 1, *self.shape)
        if not self.structured:
            return Canvas(zeros, zeros, zeros)
        return Canvas(zeros, *(s.expand_as(zeros) for s in self.first))

    def forward(self, z: Tensor, canvas: Canvas) -> Canvas:
        """One step, with its latent (..., D)."""
        d = self.embedding(z)
        if self.structured:
            f = canvas.features
            d = torch.cat([d, f.expand(*d.shape[:-3], *f.shape[-3:])], -3)
        output, cell = self.lstm(d, canvas.state)
        return Canvas(canvas.features + over_pictures(self.out, output), output, cell)


class Watching(nn.Module):
    """The inference half of DRAW: each latent is inferred from the image and the canvas so far.

    Args:
        posterior: h_enc (..., units, G, G) -> (..., 2 D), means and deviations of the next latent.
        side: G, for a learned initial state; without it, the initial state is the decoder's.
    """

    def __init__(
        self, posterior: nn.Module, units: int, kernel: int, side: int | None = None
    ) -> None:
        super().__init__()
        self.posterior = posterior
        self.lstm = ConvLSTM(3 * units, units, kernel)
        self.first = first_state(units, side) if side else None

    def start(self, canvas: Canvas) -> tuple[Tensor, Tensor]:
        """State before the first step: two of (B, 1, units, G, G)."""
        if self.first is None:
            return canvas.state
        return tuple(s.expand_as(canvas.features) for s in self.first)

    def forward(
        self, x: Tensor, canvas: Canvas, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One step: features of the image f^x, the canvas, state before -> (..., 2 D), state after."""
        seen, drawn = torch.broadcast_tensors(x, canvas.features)
        state = self.lstm(torch.cat([canvas.output, seen, seen - drawn], -3), state)
        return self.posterior(state[0]), state
