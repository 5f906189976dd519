"""AIR: Attend, Infer, Repeat (Eslami et al., NeurIPS 2016), as appendix A of Discrete-AIR states it.

Objects are drawn one after the other until a coin flip stops, and are added up on the canvas.

    n            ~ Geometric:  z_pres_t ~ Bernoulli(ρ),  the first 0 ends it, at most T
    z_where_t    ~ N(0, σ²)                        logarithm of the size, position
    z_what_t     ~ N(0, 1)
    y            = Σ_t z_pres_t ST(f_dec(z_what_t), z_where_t)                                     (5)
    x            ~ N(y, σ_x²)                                                                      (4)

# differs: the size is s exp(z_where[0]), never zero or negative, and its σ is 0.2, as in Pyro's example, whose
inverse size is N(3, 0.2²); in appendix A z_where is N(0, I).

Shape legend: B images, T steps, C channels, H x W pixels, h x w of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from programs.blocks import render
from programs.blocks.config import check_idle, check_learned, check_positive
from programs.blocks.distributions import gate, normal
from programs.blocks.nets import mlp
from programs.blocks.priors import FullMixture, LearnedBernoulli, LearnedGaussian, learned, step_row
from programs.blocks.segments import with_opacity
from programs.scene import Nodes, Scene


@dataclass(frozen=True)
class Config:
    """Architecture of Pyro's example, 50 x 50 images of up to three objects."""

    size: int = 50  # pixels per side of the image
    colours: int = 1  # C
    steps: int = 3  # T
    window: int = 28  # h, w
    z_what: int = 50
    presence: float = 0.01  # ρ, the probability of one more object
    scale: float = 1 / 3  # s, half the side of an object, half the image's side being 1
    where_sd: tuple[float, ...] = (0.2, 1.0, 1.0)  # σ of the logarithm of the size, of x and y
    sigma: float = 0.3  # σ_x
    hidden: tuple[int, ...] = (200,)  # of encoder and decoder
    memory: int = 256  # units of the guide's LSTM
    # the guide's LSTM reads what the canvas lacks: Difference-AIR (Eslami et al., 2016)
    difference: bool = False
    # differs: channels of convolutions through which the LSTM reads; AIR's reads pixels
    embedding: tuple[int, ...] = ()
    # differs: q(z_where) is corrected by what is seen at its first mean, as a network that has read the whole
    # image once errs by more than the posterior is wide; with it all Gaussians of q have full covariances
    second_look: bool = False
    # differs: components of p(z_what), with which p(z_pres), p(z_where) are learned too; 0: the paper's priors
    learned: int = 0
    correlated: bool = False  # differs: components of p(z_what) with full covariances
    # differs: where priors are learned, a ρ per step; False: one ρ, a geometric law
    stopping: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "learned")
        check_learned(self)
        check_idle(self, "learned", 0, "correlated", "stopping")
        if not 0 < self.presence < 1:
            raise ValueError(f"presence={self.presence}: expected a probability between 0 and 1")
        if len(self.where_sd) != 3:
            raise ValueError(f"where_sd={self.where_sd}: expected 3, of size, x and y")


VARIANTS: dict[str, Config] = {"air": Config()}


class Object(NamedTuple):
    """The object that one step sampled, for every image."""

    exists: Tensor
    """(B) z_pres of this step and of all before"""
    where: Tensor
    """(B, 3)"""
    what: Tensor
    """(B, D)"""


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("where_sd", torch.tensor(c.where_sd))
        self.register_buffer("go_on", torch.tensor(math.log(c.presence / (1 - c.presence))))
        self.register_buffer("sigma", torch.tensor(c.sigma))
        self.decoder = mlp(c.z_what, c.hidden, c.colours * c.window**2)
        if c.learned:
            self.pres_prior = LearnedBernoulli(self.go_on, c.steps if c.stopping else 1)
            self.where_prior = LearnedGaussian(3, sd=self.where_sd)
            family = FullMixture if c.correlated else learned
            self.what_prior = family(c.z_what, c.learned)

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
            patches, canvas = self.render(all_steps)
            pyro.sample("images", dist.Normal(canvas, self.sigma).to_event(3), obs=images)
        return self.scene(all_steps, patches, canvas)

    def step(self, t: int, exists: Tensor) -> Object:
        """p(z_pres_t, z_where_t, z_what_t | no stop before t)."""
        with gate(exists):
            pres = pyro.sample(f"z_pres_{t}", self.p_pres(t, exists))
        with gate(exists * pres):
            where = pyro.sample(f"z_where_{t}", self.p_where(exists))
            what = pyro.sample(f"z_what_{t}", self.p_what(exists))
        return Object(exists * pres, where, what)

    def p_pres(self, t: int, exists: Tensor) -> dist.Bernoulli:
        """p(z_pres_t) of images (B): one ρ, or one per step."""
        if not self.config.learned:
            return dist.Bernoulli(logits=self.go_on.expand_as(exists))
        return self.pres_prior(step_row(t, len(self.pres_prior.logits), exists))

    def p_where(self, exists: Tensor) -> dist.TorchDistribution:
        """p(z_where_t) of images (B)."""
        if self.config.learned:
            return self.where_prior().expand(exists.shape)
        return normal(exists.new_zeros(*exists.shape, 3), self.where_sd)

    def p_what(self, exists: Tensor) -> dist.TorchDistribution:
        """p(z_what_t) of images (B)."""
        if self.config.learned:
            return self.what_prior().expand(exists.shape)
        zeros = exists.new_zeros(*exists.shape, self.config.z_what)
        return normal(zeros, torch.ones_like(zeros))

    def render(self, objects: Object) -> tuple[Tensor, Tensor]:
        """Draw all steps at once: patches (B, T, C, h, w) and the canvas (B, C, H, W)."""
        patches = self.decode(objects.what)
        return patches, self.canvas(patches, self.pose(objects.where), objects.exists)

    def draw(self, step: Object) -> Tensor:
        """What one step adds to the canvas, (B, C, H, W)."""
        alone = Object(*(value.unsqueeze(1) for value in step))
        return self.render(alone)[1]

    def canvas(self, patches: Tensor, pose: Tensor, exists: Tensor) -> Tensor:
        """Eq. 5: patches (B, T, C, h, w) at their poses (B, T, 2, 3) add up to (B, C, H, W)."""
        placed = render.place(patches, pose, self.config.size)
        return (exists[..., None, None, None] * placed).sum(-4)

    def decode(self, what: Tensor) -> Tensor:
        """f_dec: (..., D) -> (..., C, h, w) in [0, 1], dark before training."""
        c = self.config
        return (self.decoder(what) - 2).sigmoid().unflatten(-1, (c.colours, c.window, c.window))

    def pose(self, where: Tensor) -> Tensor:
        """(..., 3) -> (..., 2, 3)."""
        extent = self.config.scale * where[..., :1].exp()
        return render.pose(where[..., 1:], extent, torch.zeros_like(where[..., 0]))

    def scene(self, objects: Object, patches: Tensor, canvas: Tensor) -> Scene:
        """The sampled objects as a Scene of one level, all of the same depth, as they are added up."""
        zeros = torch.zeros_like(objects.exists)
        pose, patch = self.pose(objects.where), with_opacity(patches)
        nodes = Nodes(objects.exists, pose, zeros, zeros.long(), patch=patch)
        return Scene(canvas.clamp(max=1), (nodes,))

    def redraw(self, scene: Scene) -> Scene:
        """The image of a Scene, perhaps an edited one, from its patches, poses and presences."""
        nodes = scene.objects
        patches = nodes.patch[..., :-1, :, :] * nodes.patch[..., -1:, :, :]
        canvas = self.canvas(patches, nodes.pose, nodes.pres)
        return replace(scene, image=canvas.clamp(max=1))
