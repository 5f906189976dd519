"""ECON: an ensemble of competing object nets (von Kügelgen, Ustyuzhaninov, Gehler, Bethge, Schölkopf, 2020).

Dead leaves: objects, each of a class with its own decoder (an expert), are placed on an empty canvas
from the back, t = 1, to the front, t = T.

    k_t      ~ Uniform{1, …, K}                       object class, `z_cat_t`, one-hot
    z_t      ~ N(0, 1)                                its properties, the first two its place, `z_what_t`
    m_t      ~ Bernoulli(m̃_k_t(z_t))                  its full shape, hidden or not, `z_mask_t`     (4)
    x_t      has the mean μ_k_t(z_t)                  its appearance                                (5)
    m_1      = 1                                      the background covers the canvas              (footnote 2)
    s_T      = 1,  s_t = s_t+1 ⊙ (1 - m_t+1)          scope: pixels not covered from in front       (1)
    r_t      = s_t ⊙ m_t                              region: its visible pixels                    (2)
    x        ~ N(Σ_t r_t ⊙ μ_k_t(z_t), σ²)            the canvas                                    (3, 6)

Layers are independent, so the program draws the front first, and updates the scope (1) at each layer. The
part of an object outside its scope is in no picture: with `gate`, m_t has the density of r_t given s_t,

    p(r_t | s_t, z_t, k_t) = Bernoulli(s_t ⊙ m̃_k_t(z_t))                                            (7)

so a decoder pays nothing for the hidden part of a shape.

Regions are binary. Where an estimator replaces them by means, the likelihood is the linear extension Σ_t
r_t log N(x | μ_t, σ²), the paper's (10), and the density of a shape is that of (7) times the scope.
# differs: in (12) soft scopes enter the Bernoullis. Here they multiply the densities, which gives the mean
over binary scopes; for binary scopes both are the same.

# differs: with `placed`, a decoder's coordinates are relative to the place given by the first two latents. So
an object looks the same wherever it lies, and experts do not divide the image between them.

# differs: with `empty`, layers t > 1 may be empty, and the rest of a layer is left out where it is,

    e_t      ~ Bernoulli(1/2)                         whether there is an object, `z_layer_t`

so a scene may have fewer objects than layers. In the paper every layer has one; spare ones are "simply
ignored".

# differs: the paper says that p(k_t) is categorical, and gives no probabilities.

`monet` has one expert: MONet as a generative model (section 5.1). No parameter depends on T: `placing` lets a
trained program have any number of layers, and `arrange` samples chosen experts in a chosen order.

Shape legend: B images, T layers, K experts, L latents, N rows (an image, or an image and an expert), F
features, C = 3 colours, S pixels per side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.config import (
    check_idle,
    check_learned,
    check_odd,
    check_positive,
    near_multiples,
)
from programs.blocks.distributions import LayeredPixels, gate, normal
from programs.blocks.experts import ACTIVATIONS, ExpertConv
from programs.blocks.priors import LearnedBernoulli, LearnedCategory, learned
from programs.scene import Nodes, Scene

SPAN = 0.4
"""Fraction of the image's half side by which an object moves if a latent of its place changes by 1."""
LEAST = 0.004
"""Smallest share of the image that a shape covers; an object with less is absent."""


@dataclass(frozen=True)
class Config:
    """Fields of the program, then of the guide; `econ_plain` in VARIANTS has the paper's values."""

    colours: ClassVar[int] = 3  # C
    size: int = 64  # pixels per side of the image
    layers: int = 4  # T
    experts: int = 4  # K
    # L: the paper's 2 (with random colours 5), and two for the place if there is one
    latents: int = 4
    sigma: float = 0.1  # σ, which the paper does not give
    features: int = 32  # F of encoders and decoders
    blocks: int = 4  # layers of encoders and decoders
    hidden: int = 64  # width of the encoders' layer before the latents; 0: the paper's 4 L
    kernel: int = 3  # pixels per side that a decoder's convolution sees
    patch: int = 1  # pixels per side read as one; decoders enlarge as much, bilinearly
    activation: str = "elu"  # of encoders and decoders; the paper has relu
    attention: tuple[int, ...] = (32, 64, 64, 64)  # channels of the attention network, by scale
    context: int = 128  # width of the attention network's layer that sees the whole image
    placed: bool = True  # the first two latents are the object's place
    empty: bool = False  # layers may be empty
    # differs: components of p(z_t | k_t), with which p(k_1) and p(k_t>1) are learned too; 0: the paper's priors
    learned: int = 0
    ground: bool = False  # differs: with learned priors, p(z_1 | k_1) is another than p(z_t | k_t)
    # the guide
    appearance: float = 1.0  # λ: the weight of appearance in the competition, that of shape being 1
    # to pixels like a seed; the paper's is "network": a_k is the U-Net's output
    attend: str = "likeness"
    compete: str = "ratio"  # cost per explained nat; the paper's is "cost"
    looks: int = 2  # at every object; the paper's is 1
    judged: int = 2  # looks after which experts are compared
    detached: bool = False  # no gradient passes the first look's shape
    behind: bool = True  # what lies in front of the chosen object goes first
    pooling: bool = False  # encoders have max pooling, as in the paper, instead of strides
    # offset of z's raw deviations: they begin at 0.1, and do not hide z from decoders
    narrow: float = -2.3
    sharpness: float = 10.0  # factor of C_k in q(k_t); recipes schedule it
    # power of the first look's shape in the second look's region; recipes may schedule it
    trust: float = 0.5
    balance: float = 0.0  # gain of the experts' prices; recipes schedule it
    # nats per pixel added to costs and gains, so no expert wins by explaining nothing
    little: float = 10 / 1024
    # largest C_k of a possible object: its cost is less than half of what it explains
    worth: float = -0.7
    # attention by likeness
    embedding: int = 3  # features of a pixel besides its place and colour, from the U-Net
    faint: float = 0.2  # factor of the U-Net's last initial weights
    spread: float = 3.0  # factor of coordinates in [-1, 1]
    contrast: float = 10.0  # factor of colours in [0, 1]; more parts like colours, but textures too
    # initial logit of the seed, and so the squared distance at which attention is 1/2
    reach: float = 2.0
    # sides, in those of the image, of the two squares whose mean errors choose the seed
    crumb: float = 0.1
    wide: float = 0.25

    def __post_init__(self) -> None:
        free = "appearance", "learned", "hidden", "narrow", "trust", "balance", "worth", "sharpness"
        check_positive(self, *free)
        check_learned(self)
        self._check_choices()
        self._check_idle()
        if not 0 <= self.appearance < math.inf:
            raise ValueError(f"appearance={self.appearance}: expected 0 or more, and finite")
        if self.latents < 3 and self.placed:
            raise ValueError(f"latents={self.latents}: expected at least 3, two of them the place")
        if self.layers < 2:
            raise ValueError(f"layers={self.layers}: expected at least 2, one of them the last")
        check_odd(self, "kernel")
        if not self.attention:
            raise ValueError("attention=(): expected channels of at least one scale")
        step = self.patch * 2 ** max(self.blocks, len(self.attention) - 1)
        if self.size % step:
            raise ValueError(
                f"size={self.size}, patch={self.patch}, blocks={self.blocks}, attention={self.attention}: "
                f"every block and scale halves the image, so its size must be a multiple of {step}, such as "
                f"{near_multiples(self.size, step)}"
            )

    def _check_choices(self) -> None:
        """Raises a ValueError for an unknown choice, or choices that exclude each other."""
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: expected {' or '.join(map(str, known))}"
                )
        if self.judged > self.looks:
            raise ValueError(f"judged={self.judged}: there are looks={self.looks}")
        if self.behind and (self.attend, self.compete) != ("likeness", "ratio"):
            raise ValueError(
                f"behind=True, attend={self.attend}, compete={self.compete}: what lies in front is found by "
                "attend=likeness and compete=ratio; else set behind=False"
            )

    def _check_idle(self) -> None:
        """Raises a ValueError for a field that has no effect beside the others."""
        check_idle(self, "learned", 0, "ground")
        check_idle(self, "looks", 1, "detached", "trust")
        check_idle(self, "attend", "network", "spread", "contrast", "reach", "crumb", "wide")
        check_idle(self, "compete", "cost", "little")
        check_idle(self, "behind", False, "worth")


CHOICES: dict[str, Sequence[Any]] = {
    "activation": tuple(ACTIVATIONS),
    "attend": ("likeness", "network"),
    "compete": ("ratio", "cost"),
    "looks": (1, 2),
    "judged": (1, 2),
}
"""Known values of fields."""
PLAIN = {
    "activation": "relu",
    "hidden": 0,
    "placed": False,
    "attend": "network",
    "compete": "cost",
    "looks": 1,
    "judged": 1,
    "behind": False,
    "pooling": True,
    "narrow": 0.0,
    "sharpness": 1.0,
    "faint": 1.0,
}
"""The paper's values of fields that have others by default."""

VARIANTS: dict[str, Config] = {
    "econ": Config(),
    "econ_random": Config(latents=7, blocks=3, appearance=0.0),
    "econ_plain": Config(latents=2, **PLAIN),
    "econ_plain_random": Config(latents=5, blocks=3, appearance=0.0, **PLAIN),
    "monet": Config(experts=1),
}


class Layer(NamedTuple):
    """One sampled object, for every image."""

    cat: Tensor
    """(B, K) one-hot"""
    region: Tensor
    """(B, S, S) r_t"""
    shape: Tensor
    """(B, S, S) m̃_t, the probability of the full shape"""
    colours: Tensor
    """(B, C, S, S) μ_t"""


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.layers = c.layers
        self.register_buffer("sigma", torch.tensor(c.sigma))
        self.decoder = Decoder(c)
        if c.learned:
            self.cat_prior = LearnedCategory(c.experts, rows=2)
            self.what_prior = learned(c.latents, c.learned, rows=c.experts * (1 + c.ground))
        if c.learned and c.empty:
            self.pres_prior = LearnedBernoulli(0.0)

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, C, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else len(images)
        size, layers = self.config.size, []
        scope, pixels = self.sigma.new_ones(batch, size, size), Pixels(size)
        with pyro.plate("batch", batch, dim=-3):
            for t in range(self.layers, 0, -1):
                layers.append(self.layer(t, scope, pixels))
                scope = scope - layers[-1].region
            canvas = self.canvas(layers)
            seen = None if images is None else images[:, None, None]
            pyro.sample("images", canvas, obs=seen)
        return self.scene(layers, canvas)

    def layer(self, t: int, scope: Tensor, pixels: Pixels) -> Layer:
        """p(k_t, z_t, m_t), with the part of m_t in the scope (B, S, S); m_1 = 1."""
        pres = self.present(t, scope)
        with nullcontext() if pres is None else gate(pres):
            cat = pyro.sample(f"z_cat_{t}", self.p_cat(t, len(scope)))
            what = pyro.sample(f"z_what_{t}", self.p_what(t, cat))[:, 0, 0]
            cat = cat[:, 0, 0]
            colours, shape = self.decoder(what, cat)
            if t == 1:
                return Layer(cat, scope, torch.ones_like(shape), colours)
            mask = pixels.mask(t, scope, shape)
        region = scope * mask if pres is None else scope * mask * pres
        return Layer(cat, region, shape.sigmoid(), colours)

    def present(self, t: int, scope: Tensor) -> Tensor | None:
        """(B, 1, 1) e_t, or None where the layer cannot be empty."""
        if not self.config.empty or t == 1:
            return None
        half = dist.Bernoulli(logits=scope.new_zeros(len(scope), 1, 1))
        prior = self.pres_prior().expand(half.batch_shape) if self.config.learned else half
        return pyro.sample(f"z_layer_{t}", prior)

    def p_cat(self, t: int, number: int) -> dist.OneHotCategorical:
        """p(k_t): uniform, or one table for the background (t = 1) and another for objects."""
        zeros = self.sigma.new_zeros(number, 1, 1, self.config.experts)
        if not self.config.learned:
            return dist.OneHotCategorical(logits=zeros)
        row = F.one_hot(torch.tensor(int(t > 1), device=zeros.device), 2).to(zeros)
        return self.cat_prior(row.expand(number, 1, 1, -1))

    def p_what(self, t: int, cat: Tensor) -> dist.TorchDistribution:
        """p(z_t | k_t) of classes (B, 1, 1, K): N(0, 1), or the expert's learned prior."""
        if self.config.learned:
            none = torch.zeros_like(cat)
            rows = [none, cat] if t == 1 else [cat, none]
            return self.what_prior(torch.cat(rows, -1) if self.config.ground else cat)
        zeros = cat.new_zeros(*cat.shape[:-1], self.config.latents)
        return normal(zeros, torch.ones_like(zeros))

    def canvas(self, layers: Sequence[Layer]) -> LayeredPixels:
        """Eq. 6, of batch shape (B, 1, 1)."""
        colours = torch.stack([layer.colours for layer in layers], 1)
        regions = torch.stack([layer.region for layer in layers], 1)
        return LayeredPixels(colours[:, None, None], regions[:, None, None], self.sigma)

    def arrange(self, experts: Sequence[int], batch: int = 1) -> Scene:
        """Sample scenes whose layers, from the back to the front, come from these experts (Fig. 1C).

        Raises:
            ValueError: there is no such expert, or fewer than two are given.
        """
        number = self.config.experts
        if len(experts) < 2 or not {*experts} <= {*range(number)}:
            raise ValueError(
                f"experts={list(experts)}: expected at least 2 of 0 to {number - 1}, the back first"
            )
        cats = F.one_hot(torch.tensor(experts, device=self.sigma.device), number).to(
            self.sigma.dtype
        )
        values = {f"z_cat_{t}": cat.expand(batch, 1, 1, -1) for t, cat in enumerate(cats, 1)}
        values |= {f"z_layer_{t}": cats.new_ones(batch, 1, 1) for t in range(2, len(cats) + 1)}
        with self.placing(len(experts)):
            return pyro.poutine.condition(self, data=values)(batch=batch)

    @contextmanager
    def placing(self, layers: int) -> Iterator[None]:
        """Inside, scenes have another number of layers, in program and guide."""
        before, self.layers = self.layers, layers
        try:
            yield
        finally:
            self.layers = before

    def scene(self, layers: Sequence[Layer], canvas: LayeredPixels) -> Scene:
        """The sampled layers as a Scene of one level, the front first; the last layer is the background."""
        *objects, last = layers
        shape = torch.stack([layer.shape for layer in objects], 1)
        mask = torch.stack([layer.region for layer in objects], 1)
        pres = ((mask > 0.5).to(mask.dtype).mean((-2, -1)) >= LEAST).to(mask.dtype)
        category = torch.stack([layer.cat.argmax(-1) for layer in objects], 1).where(pres > 0.5, -1)
        depth = torch.arange(len(objects), dtype=pres.dtype, device=pres.device).expand_as(pres)
        pose, root = render.box(shape), torch.zeros_like(category)
        mask = mask * pres[..., None, None]
        colours = torch.stack([layer.colours for layer in objects], 1)
        whole = torch.cat([colours, shape.unsqueeze(2)], 2)
        patch = render.crop(whole, pose.unsqueeze(2), self.config.size // 2)[:, :, 0]
        nodes = Nodes(pres, pose, depth, root, category, mask=mask, shape=shape, patch=patch)
        return Scene(canvas.mean[:, 0, 0], (nodes,), last.colours)

    def redraw(self, scene: Scene) -> Scene:
        """The image of a Scene, which may be edited, painted from its patches, which hold whole objects.

        It is the mean over possible shapes, at the sharpness of patches, half the image's side.
        """
        nodes = scene.objects
        placed = render.place(nodes.patch, nodes.pose, self.config.size)
        masks = placed[:, :, -1] * nodes.pres[..., None, None]
        canvas = render.paint(scene.background, placed[:, :, :-1], masks, nodes.depth)
        return replace(scene, image=canvas[:, -1])


class Pixels:
    """The plates of an image's rows and columns."""

    def __init__(self, size: int) -> None:
        self.rows, self.columns = (
            pyro.plate("rows", size, dim=-2),
            pyro.plate("columns", size, dim=-1),
        )

    def mask(self, t: int, scope: Tensor, logits: Tensor) -> Tensor:
        """Sample m_t (B, S, S), of which only the part in the scope counts (7)."""
        with self.rows, self.columns, gate(scope):
            return pyro.sample(f"z_mask_{t}", dist.Bernoulli(logits=logits))


class Decoder(nn.Module):
    """f_k: from latents to μ_k and m̃_k, the spatial broadcast decoders of all experts (C.2.1)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.placed, self.activation = c.placed, ACTIVATIONS[c.activation]
        widths = [c.latents + (0 if c.placed else 2), *[c.features] * c.blocks]
        pairs = pairwise(widths)
        self.layers = nn.ModuleList([ExpertConv(c.experts, a, b, c.kernel) for a, b in pairs])
        self.out, self.size = ExpertConv(c.experts, c.features, 4, 1), c.size
        self.register_buffer("grid", render.pixel_axes(c.size // c.patch), persistent=False)

    def forward(self, z: Tensor, cat: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, L), experts -> colours (N, C, S, S) in [0, 1], and logits of the shape (N, S, S)."""
        what, grid = z[..., None, None], self.grid.to(z.dtype).expand(len(z), -1, -1, -1)
        if self.placed:
            where, what = what.split([2, z.shape[1] - 2], 1)
            grid = grid - SPAN * where
        x = torch.cat([what.expand(-1, -1, *grid.shape[-2:]), grid], 1)
        for layer in self.layers:
            x = self.activation(layer(x, cat))
        picture = self.out(x, cat)
        if picture.shape[-1] != self.size:
            picture = F.interpolate(picture, size=self.size, mode="bilinear", align_corners=False)
        colours, shape = picture.split([3, 1], 1)
        return colours.sigmoid(), shape.squeeze(1)
