"""Discrete-AIR (Wang, Jamnik, Liò, 2019): AIR whose objects are a category, attributes and an affine map.

    n            ~ Geometric:  z_pres_t ~ Bernoulli(ρ),  the first 0 ends it, at most T
    z_where_t    ~ N(0, σ²)          size and aspect, position
    z_cat_t      ~ Uniform{1, …, K}, one-hot
    z_theta_t    ~ N(0, σ²)          angle, shears
    z_attr_t     ~ N(0, 1)
    o_t          = f(f_t(z_cat_t) + f_a(z_attr_t))       or the product of f_t and f_a        (section 2.1)
    C_t          = C_t-1 + z_pres_t ST(o_t, T_t)                                                (C.1)
    T            = T_st T_r T_k = diag(s_x, s_y) R(ω) [1 + k_x k_y, k_x; k_y, 1],  then + (t_x, t_y)    (1)
    x            ~ N(C_T, σ_x²)                                                                  (4)

# differs: s_x, s_y = s exp(size ± aspect), ω = π tanh(z): the paper does not say how they follow from
Gaussians. A narrow prior of the aspect keeps one category from standing for another that is longer.
# differs: all templates begin as discs. If the disc is bright, the guide leaves digits out, so digits begin
with a dim one; dim ones are stacked on a digit, so one more digit is improbable (ρ = 0.0001, 9 nats per
object).
# differs: z_attr is Gaussian; the paper's may be discrete too (section 2).
# differs: the decoder shuffles pixels from 4 x 4 to the window, with half as many channels at every stage from
`decoder` on. The paper's has transposed convolutions of 64, 48, 32 and 1 channels after 128 and 1,024 units
(table 2).
# differs: one spatial transformer draws an object and one reads it, by the product of the paper's two maps.
# differs: group normalisation instead of batch normalisation; the paper's batch statistics would tie the
images of a batch to each other, so no image would have its own density.

Shape legend: B images, T steps, K categories, A attributes, C channels, H x W pixels, h x w of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks import render
from programs.blocks.config import check_idle, check_learned, check_odd, check_positive, check_sides
from programs.blocks.distributions import gate, normal
from programs.blocks.nets import SubpixelDecoder, where_present
from programs.blocks.priors import (
    LearnedBernoulli,
    LearnedCategory,
    LearnedGaussian,
    learned,
    step_row,
)
from programs.blocks.segments import with_opacity
from programs.scene import Nodes, Scene


@dataclass(frozen=True)
class Config:
    """Configuration for Multi-Sprites; `discrete_air_mnist` in VARIANTS is for the paper's other data set."""

    size: int = 64  # pixels per side of the image
    colours: int = 1  # C
    steps: int = 3  # T
    window: int = 32  # h, w
    categories: int = 3  # K, the number of glyphs
    attributes: int = 0  # A
    spread: float = 0.3  # σ of the templates' first embeddings; with a large one some stay unused
    disc: float = 4.0  # logit in the middle of the disc as which all templates begin
    combine: str = "add"  # or "multiply": how category and attributes are combined
    shear: bool = False
    presence: float = 0.5  # ρ
    scale: float = 0.32  # s, half the side of a window, half the image's side being 1
    where_sd: tuple[float, ...] = (0.1, 0.01, 0.5, 0.5)  # σ of size, aspect, x, y
    theta_sd: tuple[float, ...] = (1.0, 0.3, 0.3)  # σ of the raw angle and the shears, if any
    sigma: float = 0.3  # σ_x
    hidden: int = 128
    decoder: int = 64  # channels of the decoder at 4 x 4
    memory: int = 256  # units of the guide's LSTM
    angles: int = 24  # angles that the guide tries, at equal steps of the prior's probability
    shears: int = 1  # horizontal shears that it tries with each angle
    aspects: int = 1  # aspects that it tries with each of them, an odd number
    shifts: int = 1  # places per axis that it tries around that of the LSTM, an odd number
    sought: tuple[float, ...] = ()  # sizes z at which the guide seeks templates to look there
    together: int = 1  # places of templates that it finds together, of which it looks at the best
    pool: int = 1  # pixels per side that the LSTM reads as one
    embedding: tuple[int, ...] = (16, 24, 32)  # channels that embed the difference image
    encoder: tuple[int, ...] = (48, 64, 96)  # channels that read a window
    # differs: q(z_pres) reads how much a template explains where it fits best
    weighed: bool = False
    second_look: bool = False  # differs: q(z_where) is corrected by the window at its first mean
    # differs: components of p(z_attr), with which all other priors are learned too; 0: the paper's priors
    learned: int = 0
    # differs: where priors are learned, a ρ per step; False: one ρ, a geometric law
    stopping: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "attributes", "spread", "disc", "learned", "sought")
        check_learned(
            self, "" if self.attributes else "p(z_attr) is the only mixture, and attributes=0"
        )
        check_sides(self, "window")
        check_odd(self, "aspects", "shifts")
        self._check_idle()
        if self.combine not in ("add", "multiply"):
            raise ValueError(f"combine={self.combine!r}: expected add or multiply")
        if not 0 < self.presence < 1:
            raise ValueError(f"presence={self.presence}: expected a probability between 0 and 1")
        if self.categories < 2 or self.attributes < 0 or self.spread < 0:
            raise ValueError(
                f"categories={self.categories}, attributes={self.attributes}, spread={self.spread}: "
                "expected at least 2, 0 and 0"
            )
        if len(self.where_sd) != 4 or len(self.theta_sd) < self.theta:
            raise ValueError(
                f"where_sd={self.where_sd}, theta_sd={self.theta_sd}: expected 4 of size, aspect, x and y, "
                f"and {self.theta} of angle and shears"
            )
        if not all(-2 <= size <= 2 for size in self.sought):
            raise ValueError(
                f"sought={self.sought}: expected sizes z, so that s exp(z) is near the objects' half sides"
            )
        if not self.embedding or not self.encoder:
            raise ValueError(
                f"embedding={self.embedding}, encoder={self.encoder}: expected channels of at least one layer"
            )
        if self.window < 2 ** len(self.encoder):
            raise ValueError(
                f"window={self.window}, encoder={self.encoder}: every layer halves the window, so it must "
                f"have {2 ** len(self.encoder)} pixels per side"
            )

    def _check_idle(self) -> None:
        """Raises a ValueError for a field that has no effect beside the others."""
        check_idle(self, "learned", 0, "stopping")
        check_idle(self, "attributes", 0, "combine")
        check_idle(self, "shear", False, "shears")
        check_idle(self, "sought", (), "together")

    @property
    def theta(self) -> int:
        """Numbers in z_theta."""
        return 3 if self.shear else 1


VARIANTS: dict[str, Config] = {
    "discrete_air": Config(),
    "discrete_air_mnist": Config(
        size=50,
        categories=10,
        attributes=2,  # differs: the paper has one (section 3.2); two name digits better
        shear=True,
        scale=0.36,
        spread=1.0,
        disc=1.0,
        presence=1e-4,
        where_sd=(0.1, 0.1, 0.5, 0.5),
        theta_sd=(0.05, 0.3, 0.1),
        angles=3,
        shears=8,
        aspects=3,
    ),
}


class Object(NamedTuple):
    """The object that one step sampled, for every image."""

    exists: Tensor
    """(B) z_pres of this step and of all before"""
    where: Tensor
    """(B, 4)"""
    theta: Tensor
    """(B, 1 or 3)"""
    cat: Tensor
    """(B, K) one-hot"""
    attr: Tensor
    """(B, A)"""


class Priors(NamedTuple):
    """Priors of the latents of one step's object, of batch shape (B)."""

    where: dist.TorchDistribution
    cat: dist.OneHotCategorical
    theta: dist.TorchDistribution
    attr: dist.TorchDistribution | None
    """None where there are no attributes"""


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("where_sd", torch.tensor(c.where_sd))
        self.register_buffer("theta_sd", torch.tensor(c.theta_sd[: c.theta]))
        self.register_buffer("go_on", torch.tensor(math.log(c.presence / (1 - c.presence))))
        self.register_buffer("sigma", torch.tensor(c.sigma))
        self.template = nn.Linear(c.categories, c.hidden)
        nn.init.normal_(self.template.weight, std=c.spread)
        self.attribute = nn.Linear(c.attributes, c.hidden) if c.attributes else None
        axis = (2 * torch.arange(c.window) + 1) / c.window - 1
        disc = c.disc - (c.disc + 4) * (axis[:, None].square() + axis.square())
        self.register_buffer("disc", disc, persistent=False)
        self.decoder = nn.Sequential(
            nn.CELU(), SubpixelDecoder(c.hidden, c.window, c.decoder, c.colours)
        )
        if c.learned:
            self.pres_prior = LearnedBernoulli(self.go_on, c.steps if c.stopping else 1)
            self.where_prior = LearnedGaussian(4, sd=self.where_sd)
            self.cat_prior = LearnedCategory(c.categories)
            self.theta_prior = LearnedGaussian(c.theta, sd=self.theta_sd)
            self.attr_prior = learned(c.attributes, c.learned) if c.attributes else None

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, C, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-1):
            exists, objects = torch.ones(batch, device=self.sigma.device), []
            for t in range(1, self.config.steps + 1):
                objects.append(self.step(t, exists))
                exists = objects[-1].exists
            all_steps = Object(*(torch.stack(values, 1) for values in zip(*objects, strict=True)))
            patches, drawn = self.draw(all_steps)
            canvas = drawn.sum(1)
            pyro.sample("images", dist.Normal(canvas, self.sigma).to_event(3), obs=images)
        return self.scene(all_steps, patches, canvas)

    def step(self, t: int, exists: Tensor) -> Object:
        """p(z_pres_t, z_where_t, z_theta_t, z_cat_t, z_attr_t | no stop before t)."""
        c, attr = self.config, exists.new_zeros(*exists.shape, self.config.attributes)
        with gate(exists):
            pres = pyro.sample(f"z_pres_{t}", self.p_pres(t, exists))
        p = self.priors(exists)
        with gate(exists * pres):
            where = pyro.sample(f"z_where_{t}", p.where)
            cat = pyro.sample(f"z_cat_{t}", p.cat)
            theta = pyro.sample(f"z_theta_{t}", p.theta)
            if c.attributes:
                attr = pyro.sample(f"z_attr_{t}", p.attr)
        return Object(exists * pres, where, theta, cat, attr)

    def p_pres(self, t: int, exists: Tensor) -> dist.Bernoulli:
        """p(z_pres_t) of images (B): one ρ, or one per step."""
        if not self.config.learned:
            return dist.Bernoulli(logits=self.go_on.expand_as(exists))
        return self.pres_prior(step_row(t, len(self.pres_prior.logits), exists))

    def priors(self, exists: Tensor) -> Priors:
        """Priors of a present object, for images (B)."""
        c, shape = self.config, exists.shape
        if c.learned:
            families = (self.where_prior, self.cat_prior, self.theta_prior, self.attr_prior)
            return Priors(*(None if p is None else p().expand(shape) for p in families))
        zeros = [exists.new_zeros(*shape, n) for n in (4, c.categories, c.theta, c.attributes)]
        where, cat, theta, attr = zeros
        return Priors(
            where=normal(where, self.where_sd),
            cat=dist.OneHotCategorical(logits=cat),
            theta=normal(theta, self.theta_sd),
            attr=normal(attr, torch.ones_like(attr)) if c.attributes else None,
        )

    def draw(self, objects: Object) -> tuple[Tensor, Tensor]:
        """Patches (..., C, h, w), and the picture that each adds to the canvas (..., C, H, W)."""
        pose = self.pose(objects.where, objects.theta)
        patches = where_present(objects.exists, self.decode, objects.cat, objects.attr)
        return patches, self.place(patches, pose, objects.exists)

    def place(self, patches: Tensor, pose: Tensor, exists: Tensor) -> Tensor:
        """z_pres_t ST(o_t, T_t) of eq. C.1: patches (..., C, h, w) on the canvas, (..., C, H, W)."""
        put = partial(render.place, size=self.config.size)
        return exists[..., None, None, None] * where_present(exists, put, patches, pose)

    def decode(self, cat: Tensor, attr: Tensor) -> Tensor:
        """f: (..., K) and (..., A) -> (..., C, h, w) in [0, 1], a disc before training."""
        features = self.template(cat)
        if self.attribute is not None:
            other = self.attribute(attr)
            features = features + other if self.config.combine == "add" else features * other
        return (self.disc + self.decoder(features)).sigmoid()

    def pose(self, where: Tensor, theta: Tensor) -> Tensor:
        """Eq. 1: (..., 4) and (..., 1 or 3) -> (..., 2, 3)."""
        log_size, aspect, middle = where.split([1, 1, 2], -1)
        size = self.config.scale * (log_size + torch.cat([aspect, -aspect], -1)).exp()
        angle, shears = math.pi * theta[..., 0].tanh(), theta[..., 1:]
        kx, ky = shears.unbind(-1) if self.config.shear else 2 * [torch.zeros_like(angle)]
        turn = _matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
        skew = _matrix(1 + kx * ky, kx, ky, torch.ones_like(angle))
        return torch.cat([size.unsqueeze(-1) * turn @ skew, middle.unsqueeze(-1)], -1)

    def scene(self, objects: Object, patches: Tensor, canvas: Tensor) -> Scene:
        """The sampled objects as a Scene of one level, all of the same depth, as they are added up."""
        zeros = torch.zeros_like(objects.exists)
        category = objects.cat.argmax(-1).where(objects.exists > 0.5, -1)
        pose, patch = self.pose(objects.where, objects.theta), with_opacity(patches)
        attributes = objects.attr if self.config.attributes else None
        nodes = Nodes(objects.exists, pose, zeros, zeros.long(), category, attributes, patch=patch)
        return Scene(canvas.clamp(max=1), (nodes,))

    def redraw(self, scene: Scene) -> Scene:
        """The image of a Scene, perhaps an edited one, from its patches, poses and presences."""
        nodes = scene.objects
        patches = nodes.patch[..., :-1, :, :] * nodes.patch[..., -1:, :, :]
        canvas = self.place(patches, nodes.pose, nodes.pres).sum(1)
        return replace(scene, image=canvas.clamp(max=1))


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], -1), torch.stack([c, d], -1)], -2)
