"""Invertible layers of images, and the distribution that they make of a base (Dinh et al., 2016; DeNF, eq. 1).

    log p(x) = log p_z(f⁻¹(x)) + log |det ∂f⁻¹(x) / ∂x|

A layer is called from the image towards the latents, f⁻¹: it returns what it has made and the logarithm of its
Jacobian's determinant; `inverse` goes back. A base and `Transform(layers)` are a distribution by torch's own
`TransformedDistribution`: ``pyro.sample("images", TransformedDistribution(base, Transform(net)), obs=x)``.

    coupling   a' = a exp(s(b)) + t(b),  b' = b exp(s'(a')) + t'(a'),  a, b the two halves of the channels
    affine     x' = (x - μ) exp(-ρ), μ and ρ learned for every channel
    squeeze    factor x factor pixels of a channel become as many channels (space to depth)
    split      some channels go through one branch, some through another

|s| < `CLAMP`, smoothly. Layers begin close to the identity, but for the last convolution's noise of `START`.

Densities of what computers keep need dequantisation: pixels of 256 values get noise that is uniform over what
was rounded away, `Rounding`, without which a flow may put infinite density on 256 points. `Quantised` are
images of such pixels.

Shape legend: C channels, H x W pixels. Anything may stand to the left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_transform import TransformModule
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F

from programs.blocks.nets import over_pictures

CLAMP = 1.0
"""Bound of a coupling's log-scale."""
LEVELS = 256
"""Values that a pixel's channel can have."""
Shape = tuple[int, ...]
"""(C, H, W)."""
START = 1e-3
"""Largest weight of couplings' last convolutions where training begins: at 0 no other would learn."""


class Rounding(dist.Uniform):
    """Uniform noise whose mode is its middle: torch's own has none."""

    @property
    def mode(self) -> Tensor:
        """The midpoint."""
        return self.mean


class Residual(nn.Module):
    """Two 3x3 convolutions with LeakyReLU, and one that sees the input beside them (Liu et al., 2021)."""

    def __init__(self, inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        self.last = nn.Conv2d(inputs + features, outputs, 3, padding=1)
        nn.init.uniform_(self.last.weight, -START, START)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        hidden = F.leaky_relu(self.first(x), 0.2)
        hidden = F.leaky_relu(self.second(hidden), 0.2)
        both = torch.cat([x, hidden], -3)
        if x.device.type != "cpu":
            return self.last(both)
        # 17 channels to 2 take half the time if channels lie together
        return self.last(both.contiguous(memory_format=torch.channels_last)).contiguous()


class Coupling(nn.Module):
    """A residual affine coupling: each half of the channels changes by what the other is."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        if channels < 2:
            raise ValueError(f"channels={channels}: a coupling needs at least 2, one for each half")
        self.widths = one, two = channels // 2, channels - channels // 2
        self.one = Residual(two, features, 2 * one)
        self.two = Residual(one, features, 2 * two)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C, H, W) -> the same shape, and (...) log-determinants."""
        a, b = x.split(self.widths, -3)
        scale, shift = self._read(self.one, b)
        a, total = a * scale.exp() + shift, scale.sum((-3, -2, -1))
        scale, shift = self._read(self.two, a)
        return torch.cat([a, b * scale.exp() + shift], -3), total + scale.sum((-3, -2, -1))

    def inverse(self, z: Tensor) -> Tensor:
        """Back to the image."""
        a, b = z.split(self.widths, -3)
        scale, shift = self._read(self.two, a)
        b = (b - shift) * (-scale).exp()
        scale, shift = self._read(self.one, b)
        return torch.cat([(a - shift) * (-scale).exp(), b], -3)

    @staticmethod
    def _read(net: Residual, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-scale, held within ±`CLAMP`, and shift."""
        raw, shift = over_pictures(net, x).chunk(2, -3)
        return CLAMP * torch.tanh(raw / CLAMP), shift


class Affine(nn.Module):
    """A shift and a scale for every channel, which begin at those given, so that 0 ± 1 becomes mean ± sd."""

    def __init__(self, mean: Sequence[float], sd: Sequence[float]) -> None:
        super().__init__()
        mean, sd = torch.tensor(mean), torch.tensor(sd)
        self.shift = nn.Parameter((-mean / sd)[:, None, None])
        self.log_scale = nn.Parameter(-sd.log()[:, None, None])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C, H, W) -> the same shape, and (...) log-determinants."""
        total = -self.log_scale.sum() * (x.shape[-2] * x.shape[-1])
        return (x - self.shift) * (-self.log_scale).exp(), total.expand(x.shape[:-3])

    def inverse(self, z: Tensor) -> Tensor:
        """Back to the image."""
        return z * self.log_scale.exp() + self.shift


class Squeeze(nn.Module):
    """Space to depth: (C, H, W) -> (factor² C, H / factor, W / factor)."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Its log-determinant is 0."""
        return F.pixel_unshuffle(x, self.factor), x.new_zeros(x.shape[:-3])

    def inverse(self, z: Tensor) -> Tensor:
        """Back to the image."""
        return F.pixel_shuffle(z, self.factor)

    def made(self, shape: Shape) -> Shape:
        """Of an image (C, H, W)."""
        channels, height, width = shape
        return channels * self.factor**2, height // self.factor, width // self.factor

    def source(self, shape: Shape) -> Shape:
        """Of latents (C, H, W)."""
        channels, height, width = shape
        return channels // self.factor**2, height * self.factor, width * self.factor


class Stack(nn.Module):
    """Layers one after another."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C, H, W) -> the latents, and (...) log-determinants."""
        total = x.new_zeros(x.shape[:-3])
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        """Back to the image."""
        for layer in reversed(self.layers):
            z = layer.inverse(z)
        return z

    def made(self, shape: Shape) -> Shape:
        """Of an image (C, H, W)."""
        return reduce(lambda shape, layer: made(layer, shape), self.layers, tuple(shape))

    def source(self, shape: Shape) -> Shape:
        """Of latents (C, H, W)."""
        return reduce(lambda shape, layer: source(layer, shape), reversed(self.layers), shape)


class Split(nn.Module):
    """Some channels through each branch; all branches make pictures of one size, whose channels are joined.

    Args:
        widths: channels that go into each branch.
        made: channels that come out of each.
    """

    def __init__(
        self, branches: Sequence[nn.Module], widths: Sequence[int], made: Sequence[int]
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.widths, self.counts = list(widths), list(made)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C, H, W) -> the latents, and (...) log-determinants."""
        parts = zip(self.branches, x.split(self.widths, -3), strict=True)
        found, log_dets = zip(*(branch(part) for branch, part in parts), strict=True)
        return torch.cat(found, -3), sum(log_dets)

    def inverse(self, z: Tensor) -> Tensor:
        """Back to the image."""
        parts = zip(self.branches, z.split(self.counts, -3), strict=True)
        return torch.cat([branch.inverse(part) for branch, part in parts], -3)

    def made(self, shape: Shape) -> Shape:
        """Of an image (C, H, W)."""
        _, *sides = made(self.branches[0], (self.widths[0], *shape[1:]))
        return sum(self.counts), *sides

    def source(self, shape: Shape) -> Shape:
        """Of latents (C, H, W)."""
        _, *sides = source(self.branches[0], (self.counts[0], *shape[1:]))
        return sum(self.widths), *sides


class Transform(TransformModule):
    """Layers as a transform of torch's, from latents to images: what was inverted last is remembered.

    So ``log_prob(x)`` runs the layers once, and after it ``inv(x)`` is free, until a parameter changes. It is a
    module: as an attribute of a program, or given to ``pyro.module``, its layers are trained.

    Args:
        layers: called with an image.
        shapes: (C, H, W) of the latents and of the image; by default `made` and `source` of the layers tell.
        cache_size: 0 to remember nothing.
    """

    domain = constraints.independent(constraints.real, 3)
    codomain = constraints.independent(constraints.real, 3)
    bijective = True

    def __init__(
        self, layers: nn.Module, shapes: tuple[Shape, Shape] | None = None, cache_size: int = 1
    ) -> None:
        super().__init__(cache_size=cache_size)
        self.layers, self.shapes = layers, shapes
        self._forget()

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same layers with or without memory."""
        if cache_size == self._cache_size:
            return self
        return Transform(self.layers, self.shapes, cache_size)

    def adopt(self, x: Tensor, y: Tensor, log_det: Tensor) -> None:
        """Remember that latents x are f⁻¹ of images y, with the log-determinants that the layers returned."""
        self._check()
        self._cached_x_y, self.log_det = (x, y), (y, log_det)

    def __call__(self, x: Tensor) -> Tensor:
        """Images of latents (..., C, H, W)."""
        self._check()
        return super().__call__(x)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cached_x_y": (None, None), "log_det": None, "_state": None}

    def _inv_call(self, y: Tensor) -> Tensor:
        self._check()
        return super()._inv_call(y)

    def _call(self, x: Tensor) -> Tensor:
        return self.layers.inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        z, log_det = self.layers(y)
        self.log_det = (y, log_det) if self._cache_size else None
        return z

    def _forget(self) -> None:
        self._cached_x_y, self.log_det, self._state = (None, None), None, None

    def _check(self) -> None:
        """Forget what other values of the parameters made, or what was made without gradients."""
        state = state_of(self.layers.parameters())
        if state != self._state:
            self._forget()
            self._state = state

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the way from latents x to images y."""
        self._check()
        if self.log_det is not None and self.log_det[0] is y:
            return -self.log_det[1]
        return -self.layers(y)[1]

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Of images, given that of latents."""
        return self._exchange(shape, 0, source)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Of latents, given that of images."""
        return self._exchange(shape, 1, made)

    def _exchange(
        self, shape: torch.Size, end: int, of_layers: Callable[[nn.Module, Shape], Shape]
    ) -> torch.Size:
        own = tuple(shape[-3:])
        if self.shapes is None:
            return torch.Size((*shape[:-3], *of_layers(self.layers, own)))
        old, new = self.shapes[end], self.shapes[1 - end]
        if own != tuple(old):
            raise ValueError(f"shape {tuple(shape)}: expected (..., {', '.join(map(str, old))})")
        return torch.Size((*shape[:-3], *new))


def made(layer: nn.Module, shape: Shape) -> Shape:
    """(C, H, W) of what a layer makes of an image (C, H, W); the same unless the layer has a method `made`."""
    return tuple(layer.made(shape)) if hasattr(layer, "made") else tuple(shape)


def source(layer: nn.Module, shape: Shape) -> Shape:
    """(C, H, W) of the image that a layer makes latents (C, H, W) of; `made` the other way round."""
    return tuple(layer.source(shape)) if hasattr(layer, "source") else tuple(shape)


def state_of(parameters: Iterable[Tensor]) -> tuple[Any, ...]:
    """What tells whether parameters have changed, or gradients have been switched on or off."""
    return torch.is_grad_enabled(), *((id(p), p._version) for p in parameters)


class Handed:
    """What one function has computed, for the next that would compute the same; it is taken once.

    It counts for the very same tensors, parameters that have not changed since, and gradients on or off alike.
    """

    def __init__(self) -> None:
        self.given: tuple[tuple[Tensor, ...], tuple[Any, ...], tuple[Tensor, ...]] | None = None

    def __deepcopy__(self, _: object) -> Handed:
        return Handed()

    def __reduce__(self) -> tuple[type[Handed], tuple[()]]:
        return Handed, ()

    def give(
        self,
        inputs: tuple[Tensor, ...],
        parameters: Iterable[Tensor],
        made: tuple[Tensor, ...],
    ) -> None:
        """Keep what was made of inputs and parameters, until it is taken or something else is given."""
        self.given = inputs, state_of(parameters), made

    def take(
        self, inputs: tuple[Tensor | None, ...], parameters: Iterable[Tensor]
    ) -> tuple[Tensor, ...] | None:
        """What was made of the same; None if nothing was."""
        given, self.given = self.given, None
        if given is None or any(a is not b for a, b in zip(given[0], inputs, strict=True)):
            return None
        return given[2] if given[1] == state_of(parameters) else None


class Gated(dist.TorchDistribution):
    """Every cell of a map is of one of two Gaussians, as presence says; channels are independent.

    log p(z | e) = Σ_ij [e_ij log N(z_ij | μ₁, σ₁²) + (1 - e_ij) log N(z_ij | μ₀, σ₀²)]

    A density for presences of 0 and 1, and between them its linear extension.

    Args:
        pres: (..., H, W) in [0, 1], e.
        present, absent: means and deviations of the channels, each two (C,).
    """

    arg_constraints = {"pres": constraints.unit_interval}  # noqa: RUF012
    support = constraints.independent(constraints.real, 3)
    has_rsample = True

    def __init__(
        self,
        pres: Tensor,
        present: tuple[Tensor, Tensor],
        absent: tuple[Tensor, Tensor],
        validate_args: bool | None = None,
    ) -> None:
        self.pres, self.present, self.absent = pres, present, absent
        shape = torch.Size((len(present[0]), *pres.shape[-2:]))
        super().__init__(pres.shape[:-2], shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> Gated:
        """The same distribution over a larger batch."""
        pres = self.pres.expand(torch.Size(batch_shape) + self.pres.shape[-2:])
        return Gated(pres, self.present, self.absent, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(..., C, H, W)."""
        return self._between(self.present[0], self.absent[0])

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """(..., C, H, W)."""
        shape = self._extended_shape(sample_shape)
        noise = torch.randn(shape, dtype=self.pres.dtype, device=self.pres.device)
        return self.mean + self._between(self.present[1], self.absent[1]) * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) of maps (..., C, H, W), in nats."""
        one, none = self.densities(value)
        return (self.pres * one + (1 - self.pres) * none).sum((-2, -1))

    def densities(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """(..., H, W) log-densities of every cell if it is present, and if it is not."""
        return tuple(
            dist.Normal(*(t[:, None, None] for t in pair)).log_prob(value).sum(-3)
            for pair in (self.present, self.absent)
        )

    def _between(self, one: Tensor, none: Tensor) -> Tensor:
        e = self.pres.unsqueeze(-3)
        return e * one[:, None, None] + (1 - e) * none[:, None, None]


def dequantised(images: Tensor, noise: Tensor) -> Tensor:
    """Numbers in [0, 1) of images (..., C, H, W) in [0, 1] and of the noise for what rounding took."""
    return ((LEVELS - 1) * images + noise) / LEVELS


class Quantised(dist.TorchDistribution):
    """Images of `LEVELS` values a channel, whose `dequantised` numbers y are of a flow.

    log p(x | u) = log p(y),  y = (255 x + u) / 256;  draws are y rounded down, and held in [0, 1]

    # differs: a density of y; the probability of x is 256 ^ -CHW E_u p(y) (`metrics.bits_per_dimension`).

    Rounding and clamping lose the y of a draw, so the latents of the last draw are remembered. A distribution
    and its expansions share this memory: a plate of Pyro expands the distribution before it draws or scores.

    Args:
        flow: p(y), of a `Transform`.
        noise: (..., C, H, W) u in [0, 1].
        memory: that of the distribution of which this is an expansion.
    """

    arg_constraints = {"noise": constraints.independent(constraints.unit_interval, 3)}  # noqa: RUF012
    support = constraints.independent(constraints.unit_interval, 3)
    has_rsample = False

    def __init__(
        self,
        flow: dist.TransformedDistribution,
        noise: Tensor,
        validate_args: bool | None = None,
        memory: dict[str, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.flow, self.noise = flow, noise
        self.memory = {} if memory is None else memory
        super().__init__(flow.batch_shape, flow.event_shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> Quantised:
        """The same distribution over a larger batch."""
        noise = self.noise.expand(torch.Size(batch_shape) + self.event_shape)
        flow = self.flow.expand(batch_shape)
        return Quantised(flow, noise, validate_args=False, memory=self.memory)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Images (..., C, H, W)."""
        numbers = self.flow.sample(sample_shape)
        values = (LEVELS * numbers).floor().clamp(0, LEVELS - 1) / (LEVELS - 1)
        self.memory["drawn"] = values, self.flow.transforms[0].inv(numbers)
        return values

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of the dequantised image: nats."""
        return self.flow.log_prob(self.numbers(value))

    def latents(self, value: Tensor) -> Tensor:
        """What the flow made the last draw of, or f⁻¹ of another image; after it `log_prob` is nearly free."""
        drawn = self.memory.get("drawn")
        if drawn is not None and drawn[0] is value:
            return drawn[1]
        return self.flow.transforms[0].inv(self.numbers(value))

    def adopt(self, value: Tensor, numbers: Tensor, latents: Tensor, log_det: Tensor) -> None:
        """Remember y of an image, f⁻¹(y) and its log-determinant, which were computed before."""
        self.memory["scored"] = value, numbers
        self.flow.transforms[0].adopt(latents, numbers, log_det)

    def numbers(self, value: Tensor) -> Tensor:
        """y of an image; those of the last one are remembered, as the `Transform` remembers by identity."""
        last = self.memory.get("scored")
        if last is None or last[0] is not value:
            last = self.memory["scored"] = value, dequantised(value, self.noise)
        return last[1]
