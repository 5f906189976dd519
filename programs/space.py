"""SPACE: spatially parallel attention and component extraction (Lin, Wu, Peri et al.; ICLR 2020).

The foreground is a grid of cells that may each hold an object; the background is K segments that share the
pixels left by the foreground. The two are drawn independently.

    p(z_fg)      = Π_i p(z_pres_i) [p(z_where_i) p(z_depth_i) p(z_what_i)] ^ z_pres_i
    x_i, α_i     = the glimpse decoded from z_what_i: colours and opacity, placed by ST⁻¹ at z_where_i
    w_i          ∝ z_pres_i ST⁻¹(α_i) exp(-depth_i)
    x_fg, α      = Σ_i z_pres_i w_i ST⁻¹(x_i),  the same of α_i
    p(z_bg)      = Π_k p(z_mask_k | z_mask_<k) p(z_comp_k | z_mask_k),       `z_bg_mask_k`, `z_bg`
    π_k          = s_k Π_j<k (1 - s_j),  s_K = 1,  s_k = f_mask(z_mask_k): a stick, broken
    p(x | z)     = α N(x | x_fg, σ_fg²) + (1 - α) Σ_k π_k N(x | x_k, σ_bg²), pixel by pixel

    centre = cell + a d tanh(z_where)       scale = σ(z_scale), half the side of a box in half images
    depth  = c σ(z_depth), smaller in front

# differs: the official code also counts the KLs of z_where, z_depth and z_what of absent cells. The paper's
p(z_fg) raises their densities to the power of z_pres, and so does this program.

# differs: the code's w_i is a softmax over all cells of 100 α_i z_pres_i σ(-z_depth_i), in which a cell
counts even where it has no pixel, and the code mixes every channel separately. Here c = 8, a cell counts in
proportion to its opacity, as in GSGN, and pixels are mixed.

`space` is for objects (GSGN's SPACE-O), `space_p`, with more and smaller cells, for parts (SPACE-P).

Shape legend: B images, N = G² cells row by row, K segments of the background, D features, C colours, H x W
pixels, h x w of a glimpse. A particle plate may stand to the left of B.
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
from programs.blocks.config import check_grid, check_learned, check_positive, check_sides
from programs.blocks.distributions import PixelMixture, gate, gaussian, in_front, normal
from programs.blocks.nets import (
    BroadcastDecoder,
    RecurrentCell,
    SubpixelDecoder,
    mlp,
    where_present,
)
from programs.blocks.priors import LearnedBernoulli, LearnedGaussian, learned
from programs.blocks.segments import break_stick, draw_masks
from programs.scene import Nodes, Scene


@dataclass(frozen=True)
class Config:
    """The official 3-D room configuration, on 4 x 4 cells, with boxes of the size of a few large objects."""

    colours: int = 3  # C
    size: int = 128  # pixels per side of the image
    grid: int = 4  # G cells per side
    glimpse: int = 32  # h, w
    z_what: int = 32
    reach: float = 1.0  # a, in cells of side d
    presence: float = 0.01  # prior probability of z_pres
    scale_mean: float = -1.2  # of the prior of z_scale: boxes of 23 % of the image's side
    scale_sd: float = 0.1
    occlusion: float = 8.0  # c: an object in front outweighs one behind by at most exp(c)
    sigma_fg: float = 0.15
    sigma_bg: float = 0.15
    components: int = 5  # K
    z_bg: int = 32  # features of z_comp
    z_bg_mask: int = 32
    memory: int = 64  # units of the LSTMs over segments
    hidden: int = 128  # width of the MLPs
    channels: tuple[int, ...] = (16, 32, 64, 128, 128)  # of the encoders, by stage
    decoder: int = 128  # channels of the glimpses' decoder at 4 x 4

    # differs: components of p(z_what), with which the other priors of cells are learned too; 0: the paper's
    learned: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "scale_mean", "learned")
        check_learned(self)
        check_sides(self, "size", "glimpse")
        check_sides(self, "grid", side=1)
        check_grid(self)
        if not 0 < self.presence < 1 or not math.isfinite(self.scale_mean):
            raise ValueError(
                f"presence={self.presence}, scale_mean={self.scale_mean}: expected a probability between 0 "
                "and 1, and a finite number"
            )
        if not self.channels:
            raise ValueError("channels=(): expected channels of at least one stage")
        if self.occlusion > 15:
            raise ValueError(f"occlusion={self.occlusion}: expected at most 15, for float32's sake")


VARIANTS: dict[str, Config] = {
    "space": Config(),
    "space_p": Config(grid=8, glimpse=16, z_what=16, scale_mean=-2.0),
}


class Cells(NamedTuple):
    """Samples of all cells' latents, mapped to their ranges."""

    pres: Tensor
    """(..., N)"""
    pose: Tensor
    """(..., N, 2, 3) in the image frame"""
    depth: Tensor
    """(..., N)"""
    what: Tensor
    """(..., N, D)"""


class Priors(NamedTuple):
    """Priors of a cell's latents, of batch shape (..., N)."""

    pres: dist.Bernoulli
    where: dist.TorchDistribution
    scale: dist.TorchDistribution
    depth: dist.Normal
    what: dist.TorchDistribution


class Background(NamedTuple):
    """The decoded K segments."""

    colours: Tensor
    """(..., 1, K, C, H, W)"""
    log_shares: Tensor
    """(..., 1, K, H, W) log π_k"""

    @property
    def mean(self) -> Tensor:
        """(..., 1, C, H, W), segments mixed by their shares."""
        return (self.log_shares.exp().unsqueeze(-3) * self.colours).sum(-4)


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("presence", torch.tensor(math.log(c.presence / (1 - c.presence))))
        self.register_buffer("scale_mean", torch.tensor(c.scale_mean))
        self.register_buffer("sigma_fg", torch.tensor(c.sigma_fg))
        self.register_buffer("sigma_bg", torch.tensor(c.sigma_bg))
        self.register_buffer("fixed_mixing", torch.tensor(math.nan))  # NaN: α as decoded
        self.glimpse_decoder = SubpixelDecoder(c.z_what, c.glimpse, c.decoder, c.colours + 1)
        self.segments = Segments(c) if c.components > 1 else None
        self.component_decoder = BroadcastDecoder(c.z_bg, c.size, 32, c.colours)
        if c.learned:
            self.pres_prior = LearnedBernoulli(self.presence)
            self.where_prior = LearnedGaussian(2)
            self.scale_prior = LearnedGaussian(2, loc=c.scale_mean, sd=c.scale_sd)
            self.depth_prior = LearnedGaussian(1)
            self.what_prior = learned(c.z_what, c.learned)

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, C, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-2):
            cells = self.foreground(batch)
            background = self.background(batch)
            glimpses = where_present(cells.pres, self.glimpse_decoder, cells.what).sigmoid()
            pixels = self.render(glimpses, cells.pres, cells.pose, cells.depth, background)
            pyro.sample("images", pixels, obs=None if images is None else images.unsqueeze(-4))
        return self.scene(cells, glimpses, pixels, background)

    def foreground(self, batch: int) -> Cells:
        """p(z_fg): presence, and given presence the other latents, for all cells at once."""
        c = self.config
        p = self.priors(batch)
        with pyro.plate("nodes_1", c.grid**2, dim=-1):
            pres = pyro.sample("z_pres_1", p.pres)
            with gate(pres):
                where = pyro.sample("z_where_1", p.where)
                scale = pyro.sample("z_scale_1", p.scale)
                depth = pyro.sample("z_depth_1", p.depth)
                what = pyro.sample("z_what_1", p.what)
        return Cells(pres, self.pose(where, scale), c.occlusion * depth.sigmoid(), what)

    def priors(self, batch: int) -> Priors:
        """Priors of all cells of `batch` scenes."""
        c, shape = self.config, (batch, self.config.grid**2)
        if c.learned:
            depth = self.depth_prior()
            return Priors(
                pres=self.pres_prior().expand(shape),
                where=self.where_prior().expand(shape),
                scale=self.scale_prior().expand(shape),
                depth=dist.Normal(depth.mean[0], depth.stddev[0]).expand(shape),
                what=self.what_prior().expand(shape),
            )
        zeros = self.sigma_fg.new_zeros(shape)
        pair, many = (zeros[..., None].expand(-1, -1, n) for n in (2, c.z_what))
        return Priors(
            pres=dist.Bernoulli(logits=zeros + self.presence),
            where=normal(pair, pair + 1),
            scale=normal(pair + self.scale_mean, pair + c.scale_sd),
            depth=dist.Normal(zeros, zeros + 1),
            what=normal(many, many + 1),
        )

    def background(self, batch: int) -> Background:
        """p(z_bg): the masks' latents one after another, and given them the segments' latents."""
        c = self.config
        zeros = self.sigma_bg.new_zeros(batch, c.components, c.z_bg)
        log_shares, prior = zeros.new_zeros(1, 1, c.size, c.size), normal(zeros, zeros + 1)
        if self.segments is not None:
            masks = draw_masks(self.segments, self.segments.start.expand(batch, 1, -1))
            log_shares, prior = self.segments.log_shares(masks), self.segments.component(masks)
        with pyro.plate("components", c.components, dim=-1):
            z_bg = pyro.sample("z_bg", prior)
        return Background(self.component_decoder(z_bg).sigmoid().unsqueeze(-5), log_shares)

    def render(
        self, glimpses: Tensor, pres: Tensor, pose: Tensor, depth: Tensor, background: Background
    ) -> PixelMixture:
        """Glimpses (..., N, 4, h, w), the opacity last, on each other and on the background."""
        place = partial(render.place_upright, size=self.config.size)
        placed = where_present(pres, place, glimpses, pose)
        drawn = render.composite(placed, pres, depth).unsqueeze(-4)
        colours, opacity = drawn.split([self.config.colours, 1], -3)
        opacity = opacity.clamp(max=1)  # a convex sum may exceed 1 by a rounding
        mixing = torch.where(self.fixed_mixing.isnan(), opacity, self.fixed_mixing)
        segments = background.colours
        front = colours.unsqueeze(-4).expand_as(segments[..., :1, :, :, :])
        sigma = torch.stack([self.sigma_fg, *[self.sigma_bg] * segments.shape[-4]])
        weights = in_front(mixing, background.log_shares)
        return PixelMixture(torch.cat([front, segments], -4), weights, sigma)

    def pose(self, where: Tensor, scale: Tensor) -> Tensor:
        """(..., N, 2, 3) from the raw Gaussians."""
        side = self.config.grid
        cells = render.cells(side, where)
        centre = cells + self.config.reach * (2 / side) * where.tanh()
        return render.pose(centre, scale.sigmoid(), torch.zeros_like(where[..., 0]))

    def scene(
        self, cells: Cells, glimpses: Tensor, pixels: PixelMixture, background: Background
    ) -> Scene:
        """The sampled cells as a Scene of one level."""
        root = torch.zeros_like(cells.pres, dtype=torch.long)
        nodes = Nodes(cells.pres, cells.pose, cells.depth, root, patch=glimpses)
        image, behind = pixels.mean.squeeze(-4), background.mean.squeeze(-4)
        return Scene(image, (nodes,), behind, _opacity(pixels))

    def redraw(self, scene: Scene) -> Scene:
        """The image of a Scene, perhaps an edited one, from its patches, poses and presences."""
        nodes, behind = scene.objects, scene.background[:, None, None]
        one = Background(behind, torch.zeros_like(behind[..., 0, :, :]))
        pixels = self.render(nodes.patch, nodes.pres, nodes.pose, nodes.depth, one)
        return replace(scene, image=pixels.mean.squeeze(1), opacity=_opacity(pixels))


def _opacity(pixels: PixelMixture) -> Tensor:
    """(B, 1, H, W) weight of the foreground, from the mixture of (B, 1) images."""
    return pixels.log_weights[..., :1, :, :].exp().squeeze(-4)


class Segments(nn.Module):
    """p(z_mask_k | z_mask_<k), π_k and p(z_comp_k | z_mask_k) of more than one segment.

    # differs: segments' masks are decoded as their colours are, by a broadcast decoder.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.start = nn.Parameter(0.1 * torch.randn(c.memory))
        self.cell = RecurrentCell(c.memory, c.z_bg_mask, c.memory)
        self.mask_head = nn.Linear(c.memory, 2 * c.z_bg_mask)
        self.mask_decoder = BroadcastDecoder(c.z_bg_mask, c.size, 32, 1)
        self.component_head = mlp(c.z_bg_mask, [c.hidden, c.hidden], 2 * c.z_bg)

    def log_shares(self, masks: Tensor) -> Tensor:
        """(..., 1, K, D) -> (..., 1, K, H, W): the last segment takes the rest."""
        return break_stick(self.mask_decoder(masks[..., :-1, :]).squeeze(-3))

    def component(self, masks: Tensor) -> dist.TorchDistribution:
        """p(z_comp_k | z_mask_k) over (..., K)."""
        return gaussian(self.component_head(masks.squeeze(-3)))
