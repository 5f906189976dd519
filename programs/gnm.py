"""GNM: Generative Neurosymbolic Machines (Jiang, Ahn; NeurIPS 2020), after its supplementary material.

A global latent z^g is drawn in L steps (StructDRAW). It is decoded to a map of symbols z^s, one per cell of
a grid, and to the background; symbols are rendered.

    p(z^g)       = Π_l p(z^g_l | z^g_<l),  p(z^g_l | z^g_<l) = N(MLP_int(h_l-1))                  (Algorithm 1)
    h_l          = ConvLSTM(h_l-1, [MLP_g(z^g_l), f_l-1]),  f_l = f_l-1 + CNN_out(h_l),  f_0 = 0
    p(z^b | z^g) = N(MLP(z^g_1, …, z^g_L))
    p(z^s | z^g) = Π_i p(z^pres_i | f) [p(z^where_i | f) p(z^depth_i | f) p(z^what_i | f)] ^ z^pres_i,  f = f_L
    o_i, m_i     = the appearance and mask decoded from z^what_i                                   (Algorithm 2)
    γ_i          ∝ z^pres_i σ(-z^depth_i) ST⁻¹(m_i, z^where_i),  Σ_i γ_i = 1
    M            = min(Σ_i z^pres_i ST⁻¹(m_i, z^where_i), 1)
    p(x | z)     = N(M Σ_i γ_i ST⁻¹(o_i, z^where_i) + (1 - M) x^b, σ²)

    z^where: centre = cell + a d tanh(z_where)      ratio = exp(z_ratio), of height to width
             scale = σ(z_scale), the geometric mean of half height and half width, in half images

`symbols` are the process p(z^s | f). The guide calls them too, with the features of an image: q(z^s | f^x) is
the same network. In the paper's figures z^s is at its mode: write ``with Mode(sites="z_[!g]*")`` around the
program (`analysis.posterior`). ``anew(program, trace, "z_[!g]*")`` draws it again under a fixed z^g
(`analysis.edit`).

# differs: Algorithm 1 leaves out f_l-1 and begins at h_0 = 0. Section 4.1 gives the LSTM f_l-1, as does the
official code, which learns h_0, and e_0 of the guide too. Here both are as in the code.

# differs: a logit of presence is 8.8 tanh(x / 8.8), the official code's 8.8 tanh(x), 8.8 times as steep.

# differs: the official code also counts the KLs of z_where, z_depth and z_what of absent cells, except for
auxiliary KLs. Here latents below an absent node are excluded everywhere.

# differs: Algorithm 2 has no z^pres in M, without which absent objects hide the background, and no M before the
sum, without which a pixel at the edge of a mask has all of its object's colour. Colours are placed with their
masks, o_i m_i at once. The official code draws digits without masks and adds them up; here digits have
masks as all objects do.

Shape legend: B images, N = G² cells row by row, L steps, D features, C colours, H x W pixels, h x w of a patch,
f (..., 1, F, G, G) features of the scene, one column per cell. A particle plate may stand to the left of B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.config import (
    check_enlarged,
    check_grid,
    check_learned,
    check_odd,
    check_positive,
)
from programs.blocks.distributions import bounded, gate, gaussian, normal, positive
from programs.blocks.nets import (
    Drawing,
    Stages,
    SubpixelStack,
    normed,
    normed_mlp,
    over_pictures,
    where_present,
)
from programs.blocks.priors import learned
from programs.scene import Nodes, Scene


@dataclass(frozen=True)
class Config:
    """The official configuration of the MNIST sets, 128 x 128 images of digits on black, 4 x 4 cells."""

    size: int = 128  # pixels per side of the image
    colours: int = 1  # C
    grid: int = 4  # G cells per side
    steps: int = 4  # L
    z_global: int = 32  # features of z^g_l
    z_what: int = 20
    z_bg: int = 0  # 0: the background is black
    glimpse: int = 32  # h, w
    reach: float = 1.0  # a, in cells of side d
    scale_start: float = -1.0  # z_scale where training begins
    sigma: float = 0.2
    # differs: components of a mixture that is p(z^g_1), a prior of its own; 0: the paper's, one Gaussian
    learned: int = 0
    # StructDRAW as in section 4.1; False: Algorithm 1 as printed, without f_l-1
    structured: bool = True
    units: int = 64  # F, of the LSTMs too
    kernel: int = 1  # of the LSTMs  # differs: 3 in Table 7, but the sizes of Table 3 follow from 1
    interaction: tuple[int, ...] = (512, 512)  # MLP_int
    embedding: tuple[int, ...] = (512, 512)  # MLP_g
    channels: tuple[int, ...] = (16, 32, 64, 64, 64)  # of the encoder, by stage
    decoder: Stages = ((64, 4, 1), (64, 2, 1), (32, 2, 1), (16, 2, 1), (8, 1, 3))
    # differs: the background's last convolution has C outputs as in the code; Table 6 has 4
    background: Stages = ((128, 4, 1), (64, 2, 1), (32, 4, 1), (16, 2, 1), (8, 2, 1))
    background_prior: tuple[int, ...] = (128, 64)  # p(z^b | z^g)
    background_hidden: tuple[int, ...] = (512, 256)  # q(z^b | f^x)

    def __post_init__(self) -> None:
        check_positive(self, "z_bg", "scale_start", "learned", "decoder", "background")
        check_learned(self)
        check_odd(self, "kernel")
        check_grid(self, least=1)
        check_enlarged(self, "glimpse", "decoder")
        if self.z_bg:
            check_enlarged(self, "size", "background")
        if self.z_bg < 0 or not math.isfinite(self.scale_start):
            raise ValueError(
                f"z_bg={self.z_bg}, scale_start={self.scale_start}: expected 0 or more "
                "features, and a finite number"
            )
        if not self.channels or self.channels[-1] != self.units:
            raise ValueError(
                f"channels={self.channels}, units={self.units}: the encoder's last channels are compared with "
                "what is drawn, so they are as many as units"
            )


VARIANTS: dict[str, Config] = {"gnm": Config(), "gnm8": Config(steps=8)}


class Symbols(NamedTuple):
    """Distributions of the latents of the N cells."""

    pres: dist.Bernoulli
    """(..., N)"""
    where: dist.TorchDistribution
    """(..., N), event (2)"""
    scale: dist.Normal
    """(..., N)"""
    ratio: dist.Normal
    """(..., N)"""
    depth: dist.Normal
    """(..., N)"""
    what: dist.TorchDistribution
    """(..., N), event (D)"""


class Cells(NamedTuple):
    """Samples of z^s, mapped to their ranges."""

    pres: Tensor
    """(..., N)"""
    pose: Tensor
    """(..., N, 2, 3) in the image frame"""
    depth: Tensor
    """(..., N) softplus(z_depth): the smaller is in front"""
    what: Tensor
    """(..., N, D)"""


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("sigma", torch.tensor(c.sigma))
        self.register_buffer("fixed_mask", torch.tensor(math.nan))  # NaN: m_i as decoded
        self.drawing = Drawing(
            interaction(c),
            embedding(c),
            *(c.units, c.units, c.grid, c.kernel),
            structured=c.structured,
        )
        if c.learned:
            self.first = learned(c.z_global, c.learned)
        self.heads = SymbolHeads(c)
        self.decoder = SubpixelStack(c.z_what, 1, c.glimpse, c.decoder, c.colours + 1)
        if c.z_bg:
            self.background_prior = normed_mlp(c.steps * c.z_global, c.background_prior, 2 * c.z_bg)
            self.background_decoder = SubpixelStack(c.z_bg, 1, c.size, c.background, c.colours)

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, C, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-2):
            z_global, features = self.draw(batch)
            background = self.background(z_global)
            cells = self.symbols(features)
            patches = self.decode(cells)
            mean, opacity = self.render(patches, cells.pres, cells.pose, cells.depth, background)
            pixels = dist.Normal(mean.unsqueeze(-4), self.sigma).to_event(3)
            pyro.sample("images", pixels, obs=None if images is None else images.unsqueeze(-4))
        root = torch.zeros_like(cells.pres, dtype=torch.long)
        nodes = Nodes(cells.pres, cells.pose, cells.depth, root, patch=patches)
        return Scene(mean, (nodes,), background.expand_as(mean), opacity)

    def draw(self, batch: int) -> tuple[Tensor, Tensor]:
        """p(z^g) by StructDRAW (Algorithm 1): z^g (..., 1, L · D) and f_L."""
        canvas, latents = self.drawing.start(batch), []
        for step in range(1, self.config.steps + 1):
            if step == 1 and self.config.learned:
                prior = self.first()
            else:
                prior = gaussian(self.drawing.prior(canvas.output))
            latents.append(pyro.sample(f"z_global_{step}", prior))
            canvas = self.drawing(latents[-1], canvas)
        return torch.cat(latents, -1), canvas.features

    def background(self, z_global: Tensor) -> Tensor:
        """p(z^b | z^g), decoded to (..., C, H, W); black without z^b."""
        c = self.config
        if not c.z_bg:
            return z_global.new_zeros(*z_global.shape[:-2], c.colours, c.size, c.size)
        z_bg = pyro.sample("z_bg", gaussian(self.background_prior(z_global)))
        return self.background_decoder(z_bg[..., None, None]).sigmoid().squeeze(-4)

    def symbols(self, features: Tensor) -> Cells:
        """p(z^s | f), and with the features of an image q(z^s | f^x)."""
        cells = self.heads(features)
        with pyro.plate("nodes_1", self.config.grid**2, dim=-1):
            pres = pyro.sample("z_pres_1", cells.pres)
            with gate(pres):
                where = pyro.sample("z_where_1", cells.where)
                scale = pyro.sample("z_scale_1", cells.scale)
                ratio = pyro.sample("z_ratio_1", cells.ratio)
                depth = pyro.sample("z_depth_1", cells.depth)
                what = pyro.sample("z_what_1", cells.what)
        return Cells(pres, self.pose(where, scale, ratio), F.softplus(depth), what)

    def pose(self, where: Tensor, scale: Tensor, ratio: Tensor) -> Tensor:
        """(..., N, 2, 3) from the raw Gaussians."""
        side = self.config.grid
        cells = render.cells(side, where)
        centre = cells + self.config.reach * (2 / side) * where.tanh()
        stretch = torch.stack([-ratio / 2, ratio / 2], -1).exp()
        return render.pose(centre, scale.sigmoid().unsqueeze(-1) * stretch, torch.zeros_like(ratio))

    def decode(self, cells: Cells) -> Tensor:
        """o_i and, last, m_i: patches (..., N, C + 1, h, w)."""
        column = cells.what[..., None, None]
        colours, mask = (
            where_present(cells.pres, self.decoder, column)
            .sigmoid()
            .split([self.config.colours, 1], -3)
        )
        mask = torch.where(self.fixed_mask.isnan(), mask, self.fixed_mask)
        return torch.cat([colours, mask], -3)

    def render(
        self, patches: Tensor, pres: Tensor, pose: Tensor, depth: Tensor, background: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Algorithm 2: the image's mean (..., C, H, W) and M (..., 1, H, W)."""
        colours, mask = patches.split([self.config.colours, 1], -3)
        # γ is a ratio, so depth may be measured from the nearest present object
        nearest = (depth - pres.clamp(min=1e-12).log()).detach().amin(-1, keepdim=True)
        weight = (pres * (nearest - depth).exp())[..., None, None, None] * mask
        layers = torch.cat([weight * colours, weight, pres[..., None, None, None] * mask], -3)
        drawn = render.place_together(layers, pose, self.config.size)
        shown, total, opacity = drawn.split([self.config.colours, 1, 1], -3)
        opacity = opacity.clamp(max=1)
        return opacity * shown / (total + 1e-8) + (1 - opacity) * background, opacity

    def redraw(self, scene: Scene) -> Scene:
        """The image of a Scene, perhaps an edited one, from its patches, poses and presences."""
        nodes = scene.objects
        mean, opacity = self.render(
            nodes.patch, nodes.pres, nodes.pose, nodes.depth, scene.background
        )
        return replace(scene, image=mean, opacity=opacity)


SPREAD_START = -2.0
"""Value before softplus of all deviations where training begins: a deviation of 0.13."""


class SymbolHeads(nn.Module):
    """From features of a scene, or of an image, to each cell's latents; the heads share the normalisation."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.widths = [2, 1, 1, 1, c.z_what]  # where, scale, ratio, depth, what
        self.body = nn.Sequential(
            *normed(nn.Conv2d(c.units, c.units, 1)), *normed(nn.Conv2d(c.units, c.units, 1))
        )
        self.pres = nn.Conv2d(c.units, 1, 1)
        self.rest = nn.Conv2d(c.units, 2 * sum(self.widths), 1)
        self.begin(c)

    @torch.no_grad()
    def begin(self, config: Config) -> None:
        """Begin with boxes in the middle of their cells, of one size, almost independent of the input.

        # differs: and with little noise. With the code's deviations of 0.7, z_what is learned late.
        """
        self.pres.bias.zero_()
        weight, bias = (t.unflatten(0, (2, -1)) for t in (self.rest.weight, self.rest.bias))
        weight[:, :4].uniform_(-0.01, 0.01)  # of where, scale and ratio, means and deviations
        bias[:, :4].zero_()
        bias[0, 2] = config.scale_start
        bias[1] = SPREAD_START

    def forward(self, features: Tensor) -> Symbols:
        """f (..., 1, F, G, G) -> distributions over (..., N)."""
        body = over_pictures(self.body, features)
        logit, raw = (
            over_pictures(head, body).flatten(-2).mT.squeeze(-3) for head in (self.pres, self.rest)
        )
        loc, spread = raw.chunk(2, -1)
        means = loc.split(self.widths, -1)
        sds = positive(spread).split(self.widths, -1)
        where, *alone, what = zip(means, sds, strict=True)
        alone = [dist.Normal(loc.squeeze(-1), sd.squeeze(-1)) for loc, sd in alone]
        pres = dist.Bernoulli(logits=bounded(logit.squeeze(-1)))
        return Symbols(pres, normal(*where), *alone, normal(*what))


def embedding(config: Config) -> nn.Module:
    """MLP_g: a z^g_l (..., D) to d_l (..., F, G, G).

    # differs: its last layer too has CELU and layer normalisation, as in the official code; Table 7 says that
    output layers have none.
    """
    c = config
    features = c.units * c.grid**2
    places = nn.Unflatten(-1, (c.units, c.grid, c.grid))
    if not c.structured:
        return nn.Sequential(normed_mlp(c.z_global, c.embedding, features), places)
    last = normed(nn.Linear((c.z_global, *c.embedding)[-1], features))
    body = normed_mlp(c.z_global, c.embedding, features)[:-1]
    return nn.Sequential(*body, *last, places)


def interaction(config: Config) -> nn.Module:
    """MLP_int: from all places of a state (..., F, G, G) to mean and deviation of a z^g_l."""
    c = config
    return nn.Sequential(
        nn.Flatten(-3), normed_mlp(c.units * c.grid**2, c.interaction, 2 * c.z_global)
    )
