"""Guide of GSGN: top-down inference of the scene graph (Algorithms 1 to 3).

    q(z | x) = q(z_what_r | x) Π_v q(z_pres_v, z_pose_v | z_what_pa(v), x_pa(v)) ^ Z_pres_pa(v)
               q(z_what_v | z_what_pa(v), x_v) ^ Z_pres_v                                         (9)
    q(z_v | z_what_pa(v), x) ∝ p(z_v | z_what_pa(v)) q_bottom-up(z_v | x)                         (10)
    x_r = x,   x_v = ST(x_pa(v), z_pose_v): the window of v, cropped out of its parent's window

`no_share` replaces the product by one network that reads the parent's appearance and the window. In `mem`,
q(z_cat_v | z_what_pa(v), x_v) comes before q(z_what_v | M[z_cat_v], x_v), both of them such products.

# differs: `upright`. q(z_theta) of inner nodes is read from their windows at angle 0. From the parent's window
angles are not learned: z_theta stays where tanh is flat, and an object's appearance holds its angle.

# differs: one encoder per level reads x_v; heads on it take the roles of ApprEnc of v and of PresPoseEnc of
v's children (and BgEnc at the root). The paper has an encoder for each; their widths are in figures only.

Shape legend as in `programs.gsgn`; x (..., N, 3, h, w) windows of a level, f (..., N, F, 4, 4) their features.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.config import given
from programs.blocks.distributions import bounded, gate, gaussian, positive, product
from programs.blocks.nets import ConvEncoder, mlp, silent, where_present
from programs.gsgn import Branch, Config, Edges, Program, edge_features, edges, start_edges

SURE = -3.0
"""Spread, before softplus, of q(z_theta) as read from upright windows, before training. With an angle that is
mostly noise, nothing tells which way to turn."""


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws a scene graph for every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the prior's parameters belong to the program
        object.__setattr__(self, "program", program)
        c: Config = program.config
        self.config = c
        levels = range(len(c.children) + 1)
        self.encoders = nn.ModuleList([ConvEncoder(s, 4, c.channels) for s in (c.size, *c.crops)])
        widths = [encoder.outputs for encoder in self.encoders]
        self.edge_heads = nn.ModuleList([EdgeHead(c, i, widths[i - 1]) for i in levels[1:]])
        outputs = [2 * features for features in c.z_what]
        heads = [WhatHead(c, i, widths[i], outputs[i]) for i in levels]
        self.what_heads = nn.ModuleList([heads[0], *(h.start(c.what_start) for h in heads[1:])])
        if c.upright:
            self.turns = nn.ModuleList([ConvEncoder(s, 4, c.channels) for s in c.crops[:-1]])
            sizes = [16 * width for width in widths[1:-1]]
            self.turn_heads = nn.ModuleList([silent(mlp(n, [c.hidden], 2)) for n in sizes])
        if c.memory:
            self.cat_head = WhatHead(c, len(c.children), widths[-1], c.memory)
        self.background_head = mlp(widths[0] * 16, [c.hidden], 2 * c.z_bg)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, 3, H, W) in [0, 1]."""
        images = given(images)
        x = images.unsqueeze(-4)
        features = self.encoders[0](x)
        with pyro.plate("batch", images.shape[0], dim=-2):
            root = node = self.root(features)
            root_features = features
            for level in range(1, len(self.config.children) + 1):
                node, x, features = self.offspring(level, node, x, features)
            self.background(root, root_features)

    def root(self, features: Tensor) -> Branch:
        """q(z_what_r | x): Algorithm 1, line 1, without the product with a prior that section 3.2 has for each
        posterior."""
        what = pyro.sample("z_what_0", gaussian(self.what_heads[0](features)))
        ones = torch.ones_like(what[..., 0])
        return Branch(ones, ones, what.new_zeros(*what.shape[:-1], 2, 3), ones, what)

    def offspring(
        self, level: int, parent: Branch, x: Tensor, features: Tensor
    ) -> tuple[Branch, Tensor, Tensor]:
        """GSGN(l + 1): Algorithm 2. Returns the nodes, their windows, and the windows' features."""
        edge_prior, what_prior = self.program.prior(level, parent)
        q = self.posterior_edges(level, edge_prior, parent, features)
        above = self.program.per_child(level, parent.exists)
        with pyro.plate(f"nodes_{level}", above.shape[-1], dim=-1):
            with gate(above):
                pres = pyro.sample(f"z_pres_{level}", q.pres)
            with gate(above * pres):
                where = pyro.sample(f"z_where_{level}", q.where)
                scale = pyro.sample(f"z_scale_{level}", q.scale)
                if self.config.upright and level < len(self.config.children):
                    q_theta = self.angles(level, edge_prior.theta, x, where, scale, above * pres)
                    q = q._replace(theta=q_theta)
                theta = pyro.sample(f"z_theta_{level}", q.theta)
                depth = pyro.sample(f"z_depth_{level}", q.depth)
                pose = self.program.pose(level, where, scale, theta)
                x = self.windows(level, x, pose)
                features = where_present(above * pres, self.encoders[level], x)
                what, cat = self.appearance(level, what_prior, parent, features)
        return Branch(above * pres, pres, pose, F.softplus(depth), what, cat), x, features

    def background(self, root: Branch, features: Tensor) -> None:
        """q(z_bg | z_what_r, x): Algorithm 3, always with the product."""
        q = gaussian(self.background_head(features.flatten(-3)))
        pyro.sample("z_bg", product(self.program.prior_background(root), q))

    def posterior_edges(self, level: int, prior: Edges, parent: Branch, features: Tensor) -> Edges:
        """Algorithm 2, lines 2 and 3."""
        q = self.edge_heads[level - 1](features, parent.what)
        if self.config.share:
            return Edges(*map(product, prior, q))
        return q._replace(pres=dist.Bernoulli(logits=bounded(q.pres.logits)))

    def angles(
        self,
        level: int,
        prior: dist.Normal,
        x: Tensor,
        where: Tensor,
        scale: Tensor,
        exists: Tensor,
    ) -> dist.Normal:
        """q(z_theta) of inner nodes, from their windows at angle 0."""
        pose = self.program.pose(level, where, scale, torch.zeros_like(exists)).detach()
        seen = where_present(exists, self.turns[level - 1], self.windows(level, x, pose))
        loc, raw = self.turn_heads[level - 1](seen.flatten(-3)).unbind(-1)
        return self.posterior(prior, dist.Normal(loc, positive(raw + SURE)))

    def posterior(
        self, prior: dist.TorchDistribution, q: dist.TorchDistribution
    ) -> dist.TorchDistribution:
        """The bottom-up q, times the prior if they share (10)."""
        return product(prior, q) if self.config.share else q

    def appearance(
        self, level: int, prior: dist.TorchDistribution, parent: Branch, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Algorithm 2, lines 6 and 7."""
        above = parent.what.repeat_interleave(self.config.children[level - 1], -2)
        cat = None
        if isinstance(prior, dist.OneHotCategorical):
            q = dist.OneHotCategorical(logits=self.cat_head(features, above))
            cat = pyro.sample(f"z_cat_{level}", self.posterior(prior, q))
            prior = self.program.leaf_decoder.prior(cat)
        q = gaussian(self.what_heads[level](features, above))
        return pyro.sample(f"z_what_{level}", self.posterior(prior, q)), cat

    def windows(self, level: int, x: Tensor, pose: Tensor) -> Tensor:
        """Algorithm 2, line 5: (..., N, 3, h, w) cropped out of the parents' windows."""
        pose = pose.unflatten(-3, (-1, self.config.children[level - 1]))
        return render.crop(x, pose, self.config.crops[level - 1]).flatten(-5, -4)


class EdgeHead(nn.Module):
    """PresPoseEnc: one output cell per child, from a parent's features; without sharing, from z_what too."""

    def __init__(self, config: Config, level: int, features: int) -> None:
        super().__init__()
        side = math.isqrt(config.children[level - 1])
        self.axes, self.share = config.scale_axes[level - 1], config.share
        # a valid convolution of kernel 5 - r leaves r x r cells of the 4 x 4 map
        self.cells = nn.Sequential(nn.Conv2d(features, config.hidden, 5 - side), nn.CELU())
        extra = 0 if config.share else config.z_what[level - 1]
        self.out = mlp(config.hidden + extra, [config.hidden], edge_features(self.axes))
        start_edges(self.out[-1], config, level)

    def forward(self, features: Tensor, what: Tensor) -> Edges:
        """f (..., M, F, 4, 4), z_what of the parents (..., M, D) -> over (..., M · K) children."""
        cells = self.cells(features.flatten(0, -4)).flatten(-2).mT
        cells = cells.unflatten(0, features.shape[:-3])
        if not self.share:
            what = what.unsqueeze(-2).expand(*what.shape[:-1], cells.shape[-2], what.shape[-1])
            cells = torch.cat([cells.expand(*what.shape[:-1], -1), what], -1)
        return edges(self.out(cells).flatten(-3, -2), self.axes)


class WhatHead(nn.Module):
    """ApprEnc: appearance of a node from its own features; without sharing, from its parent's too."""

    def __init__(self, config: Config, level: int, features: int, outputs: int) -> None:
        super().__init__()
        self.extra = 0 if config.share or level == 0 else config.z_what[level - 1]
        self.net = mlp(features * 16 + self.extra, [config.hidden], outputs)

    @torch.no_grad()
    def start(self, spread: float) -> WhatHead:
        """Begin with deviations of about softplus(`spread`).

        # differs: the paper does not give the initial weights. With posteriors as wide as the prior, the
        program receives mostly noise at first, and learns to ignore the latents.
        """
        self.net[-1].bias.chunk(2)[1].add_(spread)
        return self

    def forward(self, features: Tensor, what: Tensor | None = None) -> Tensor:
        """f (..., N, F, 4, 4), and the parents' z_what (..., N, D) -> (..., N, outputs) unsquashed."""
        flat = features.flatten(-3)
        if self.extra:
            flat = torch.cat([flat.expand(*what.shape[:-1], -1), what], -1)
        return self.net(flat)
