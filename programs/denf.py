"""DeNF: unsupervised scene-decompositional normalizing flows (anonymous, under review).

An image x = f(z) is made from a map z of as many numbers, which has one channel for the background and a
structured foreground cell at every place.

    e_ij      ~ Bernoulli(β)                                  presence of cell ij, `z_pres` in the plate `cells`
    z_bg      ~ N(0, 1)                                                                     (section 3.1.2)
    z_fg_ij   = (l¹, l⁰, z_scale, z_loc, z_what)_ij           2 + 2 + 2 + 5 channels         (Table 4)
    l¹ - l⁰   the logit of e_ij;  l¹ ~ N(±m/2, m), l⁰ ~ N(∓m/2, m), the upper sign where e_ij = 1
    z_scale   ~ N(μ_scale, σ_scale²),  z_loc ~ N(0, 1)        where e_ij = 1, else both N(0, 1)
    z_what    ~ N(μ_fg, σ_fg²)         where e_ij = 1, else N(μ_bg, σ_bg²)
    x         = f(z_bg, z_fg)                                 `images`                       (1)
    log p(x | e) = log p(z_bg) + Σ_ij log p(z_fg_ij | e_ij) + log |det ∂f⁻¹/∂x|              (4, 8, 9)

    x̂_bg      = f(z_bg + ε, 0),  ε ~ N(0, σ_ε²)               `z_bg`; Scene.background       (5)
    x̂_fg      = f(0, e, z_scale, z_loc, e z_what)
    x̂         = e x̂_fg + (1 - e) x̂_bg                         Scene.image                    (10)
    box_ij    = the window of half-width z_scale at the cell's place plus z_loc, in units of the diagonal
    ê         = min(1, Σ_ij e_ij ST⁻¹(1, box_ij))             Scene.opacity is e, and Scene.boxed the sum  (12)

The further terms of the paper's objective, eqs. 5, 10 and 12, are penalties on the Scene
(`inference.objectives`: Background, Reconstruction, Compatibility; `quick` has one more, Inscribed).

# differs: eq. 2 adds the densities of two flows with different arguments and does not integrate to one; eq.
7 raises the densities of absent cells to the power of 0, so that f may stretch their latents without bound.
Here there is one f, every channel has a normalised density whatever e is, and eqs. 4 and 9 are its terms.
# differs: the paper gives no β and does not say how two channels make one logit. Here they are the logits
of presence and absence, and the Gaussians above are those whose log-odds are l¹ - l⁰. Their means stand for
e in x̂_fg.
# differs: z_scale and z_loc are not bounded in the paper; a box is at least a cell wide. Boxes follow presence:
ê has no gradient for e.
# differs: f sees colours in [-1, 1] and ends in a learned scale and shift of each channel, which begins at the
prior; pixels are dequantised: `z_noise` is the part that rounding removed (`flows.Quantised`).
# differs: with ``learned=K`` p(z) is learned (`blocks.causal`): each cell's latents given those of the cells
before it, by mixtures of K Gaussians for present and K for absent cells. The program then draws z first, with
presence summed out, and z_pres from p(e | z). `inference.fit_prior` fits it; the flow stays as it is. The
paper's cells are independent, which no scene's are, so draws of it are floors with scattered cells.
# differs: with two squeezes, f's squeeze also rearranges the background's channel.

Objects. Present cells are grouped by average-link clustering (`blocks.grouping`) of their boxes' centres, their
boxes' half extents and the hues of x̂_fg. The box of an object is the mean of its cells' boxes. Its mask holds
the pixels of its cells in which x̂_fg visibly differs from x̂_bg. An object of fewer than `least` cells, or of
less than the share `fill` of its box, is dropped, and its cells go to the others; the largest always stays.
# differs: the paper suppresses boxes, which is ``grouping="nms"``: the box that most cells point to is kept,
boxes that overlap with it are dropped, and so on. The paper gives neither rank nor threshold, and gives an
object all present cells in its box. Here each present cell belongs to the object whose box overlaps most with
its own, or to the nearest if none overlaps, so masks share no pixel. While the program is trained, objects are
always found by suppression, because clustering leaves the device.

A node's patch is the whole image x̂_fg with the node's cells, and its `attributes` are the box in which it
was inferred (centre, then half-widths): if nothing is moved, `redraw` equals eq. 10 to the last digit.

Shape legend: B images, N = h w cells row by row, D channels of the latents, C = 3 colours, H x W pixels, K
slots. A particle plate may stand to the left of B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.boxes import likeness, owned, suppressed
from programs.blocks.causal import LearnedMap
from programs.blocks.config import check_learned, check_positive
from programs.blocks.distributions import normal
from programs.blocks.flows import (
    LEVELS,
    Affine,
    Coupling,
    Gated,
    Handed,
    Quantised,
    Rounding,
    Split,
    Squeeze,
    Stack,
    Transform,
    dequantised,
)
from programs.blocks.grouping import linked
from programs.scene import Nodes, Scene

DIAGONAL = 2 * math.sqrt(2)
"""Length of the image's diagonal in the image frame."""
START = {"pres": (0.0, 2.0), "loc": (0.0, 0.05), "what": (0.0, 0.2)}
"""Initial means and deviations of the latents, for colours in [-1, 1]; z_scale begins at its prior."""

GREY = 0.2
"""Brightness, summed over colours, at which a cell's hue counts half."""
GROUPINGS = "linkage", "nms"
"""Ways in which present cells become objects."""
LEAST_0 = "noise", "loose", "kin", "learned", "tint", "fill", "visible"
"""Fields of the Config that may be 0."""


@dataclass(frozen=True)
class Config:
    """Tables 4 and 5, for CLEVR."""

    colours: ClassVar[int] = 3  # C
    size: int = 128  # pixels per side of the image
    squeeze: int = 2  # pixels per side that become channels
    fold: int = 1  # 2: another squeeze before the last split
    couplings: int = 4  # of each stage and head
    features: int = 64  # of a coupling's convolutions
    presence: float = 0.1  # β
    margin: float = 4.0  # m
    scale_mean: float = 0.2  # μ_scale, half-width in half images: a side in images
    scale_sd: float = 0.1
    loc_sd: float = 1.0  # of z_loc, in diagonals of the image
    scale_absent_sd: float = 1.0  # of z_scale where e_ij = 0
    what: tuple[float, float] = (1.0, 0.1)  # μ_fg, σ_fg
    what_absent: tuple[float, float] = (0.0, 0.1)  # μ_bg, σ_bg
    noise: float = 0.2  # σ_ε
    # differs: deviation of the noise on z_scale and z_loc in x̂_fg, in their priors' deviations; 0: no noise
    loose: float = 0.0
    # differs: τ, difference in hue beyond which opaque cells are none of a box's (Scene.alike); 0: not used
    kin: float = 0.0
    # differs: components of a learned p(z), whose cells depend on those before them; 0: the paper's p(z)
    learned: int = 0
    glimpse: int = 8  # pixels per side of the ones that ST⁻¹ places; sets how soft boxes' edges are
    slots: int = 10  # K
    grouping: str = "linkage"  # how cells become objects; "nms": the paper's suppression of boxes
    overlap: float = 0.3  # nms: IoU from which two boxes belong to one object
    apart: float = 0.2  # linkage: mean distance up to which groups of cells are one object
    tint: float = 0.9  # linkage: weight of cells' hues beside their boxes
    least: int = 5  # cells of an object; the first may have fewer
    fill: float = 0.25  # linkage: least share of its box that the cells of an object fill
    visible: float = 0.1  # distance in colour between an object's pixels and the background

    def __post_init__(self) -> None:
        check_positive(self, "what", "what_absent", "noise", "scale_mean", *LEAST_0)
        for name in ("what", "what_absent"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name}={getattr(self, name)}: expected a mean and a deviation")
        numbers = (*self.what, *self.what_absent, self.scale_mean)
        deviations = min(self.what[1], self.what_absent[1])
        if not all(map(math.isfinite, numbers)) or not deviations > 0:
            raise ValueError(
                f"what={self.what}, what_absent={self.what_absent}, scale_mean={self.scale_mean}: "
                "expected finite means, and deviations above 0"
            )
        check_learned(self)
        for name in LEAST_0:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 0, and finite")
        if self.grouping not in GROUPINGS:
            raise ValueError(f"grouping={self.grouping}: expected {' or '.join(GROUPINGS)}")
        if not self.presence < 1:
            raise ValueError(
                f"presence={self.presence}: expected a probability, above 0 and below 1"
            )
        if self.squeeze < 2 or self.size % (self.squeeze * self.fold):
            raise ValueError(
                f"size={self.size}, squeeze={self.squeeze}, fold={self.fold}: expected a squeeze of at "
                "least 2, and a multiple of squeeze times fold pixels"
            )

    @property
    def side(self) -> int:
        """Cells per side."""
        return self.size // (self.squeeze * self.fold)

    @property
    def widths(self) -> tuple[int, int, int, int, int]:
        """Channels of z_bg, presence, z_scale, z_loc and z_what."""
        rest = (3 * self.squeeze**2 - 1) * self.fold**2
        return (self.fold**2, 2, 2, 2, rest - 6)


VARIANTS: dict[str, Config] = {
    "denf": Config(),
    "denf32": Config(fold=2),  # 32 x 32 cells (Table 3)
    # differs: w/o bimodal prior (Table 3) the paper has one Gaussian, of foreground elements alone; here absent
    # cells need a density, too, which is N(0, 1)
    "denf_unimodal": Config(what_absent=(0.0, 1.0)),
}


class Parts(NamedTuple):
    """The latents of an image by their meaning."""

    bg: Tensor
    """(..., fold², h, w)"""
    logits: Tensor
    """(..., 2, h, w) logits of presence and absence"""
    scale: Tensor
    """(..., 2, h, w)"""
    loc: Tensor
    """(..., 2, h, w)"""
    what: Tensor
    """(..., W, h, w)"""

    @property
    def logit(self) -> Tensor:
        """(..., N) logits of presence, without the prior's."""
        one, none = self.logits.flatten(-2).unbind(-2)
        return one - none


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("presence", torch.tensor(math.log(c.presence / (1 - c.presence))))
        self.register_buffer("noise", torch.tensor(c.noise))
        if c.loose:
            self.register_buffer("loose", torch.tensor(c.loose), persistent=False)
        present, absent = moments(c)
        self.register_buffer("present", torch.tensor(present).T)
        self.register_buffer("absent", torch.tensor(absent).T)
        self.layers = layers(c)
        if c.learned:
            logit = float(self.presence)
            moments_of = self.present, self.absent
            self.map_prior = LearnedMap(*moments_of, logit, c.side, c.learned)
        self.handed = Handed()

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, 3, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-2):
            noise = pyro.sample("z_noise", self.rounding(batch))
            if self.config.learned:
                z = self.pixels(self.map_flow(noise.shape[:-3]), noise, images)
                pres = self.presences(self.posterior(z.squeeze(-4)))
                jitter = self.jitters(batch)
            else:
                pres = self.presences(self.presence.expand(batch, self.config.side**2))
                jitter = self.jitters(batch)
                z = self.pixels(self.flow(pres), noise, images)
        return self.scene(z.squeeze(-4), pres, *(t.squeeze(-4) for t in jitter))

    def presences(self, logits: Tensor) -> Tensor:
        """Sample e given logits (B, N)."""
        with pyro.plate("cells", self.config.side**2, dim=-1):
            return pyro.sample("z_pres", dist.Bernoulli(logits=logits))

    def pixels(
        self, flow: dist.TransformedDistribution, noise: Tensor, images: Tensor | None
    ) -> Tensor:
        """Sample or observe images (B, 3, H, W) of a flow; returns their latents (B, 1, D, h, w)."""
        pixels = Quantised(flow, noise)
        seen = None if images is None else images.unsqueeze(-4)
        if known := self.handed.take((images, noise), self.parameters()):
            pixels.adopt(seen, *known)
        return pixels.latents(pyro.sample("images", pixels, obs=seen))

    def rounding(self, batch: int) -> dist.TorchDistribution:
        """p(z_noise), independent for every number of an image."""
        c = self.config
        zeros = self.noise.new_zeros(batch, 1, 3, c.size, c.size)
        return Rounding(zeros, zeros + 1).to_event(3)

    def jitters(self, batch: int) -> list[Tensor]:
        """Sample ε, and the noise on z_scale and z_loc if the Config has any, each (B, 1, ·, h, w)."""
        c = self.config
        sites = {"z_bg": (c.widths[0], self.noise)}
        if c.loose:
            sites |= {
                "z_scale": (2, self.loose * c.scale_sd),
                "z_where": (2, self.loose * c.loc_sd),
            }
        return [pyro.sample(name, self.jitter(batch, *given)) for name, given in sites.items()]

    def jitter(self, batch: int, channels: int, sd: Tensor | float) -> dist.TorchDistribution:
        """p(ε) of so many channels: N(0, sd²)."""
        c = self.config
        zeros = self.noise.new_zeros(batch, 1, channels, c.side, c.side)
        return normal(zeros, (zeros + sd).clamp(min=1e-6), 3)

    def base(self, pres: Tensor) -> Gated:
        """p(z | e), of e (..., N), over (..., 1)."""
        cells = pres.unflatten(-1, (self.config.side, self.config.side)).unsqueeze(-3)
        return Gated(cells, tuple(self.present), tuple(self.absent))

    def flow(self, pres: Tensor) -> dist.TransformedDistribution:
        """p(y | e) of dequantised images, of e (..., N), over (..., 1)."""
        return dist.TransformedDistribution(self.base(pres), [self.transform()])

    def transform(self) -> Transform:
        """f, from latents to images; its memory is of one pass."""
        return Transform(self.layers)

    def map_flow(self, shape: torch.Size) -> dist.TransformedDistribution:
        """p(y) of dequantised images under the learned p(z), over `shape`, (..., 1)."""
        base = self.map_prior().expand(shape)
        return dist.TransformedDistribution(base, [self.transform()])

    def infer(self, x: Tensor) -> Parts:
        """f⁻¹ of dequantised images (..., 3, H, W)."""
        return Parts(*self.layers(x)[0].split(self.config.widths, -3))

    def hand(self, images: Tensor, noise: Tensor) -> Parts:
        """f⁻¹ of images (B, 3, H, W) and of what rounding took; a `forward` of both takes it over."""
        numbers = dequantised(images.unsqueeze(-4), noise)
        found = self.layers(numbers)
        self.handed.give((images, noise), self.parameters(), (numbers, *found))
        return Parts(*found[0].squeeze(-4).split(self.config.widths, -3))

    def densities(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., N) log p(e_ij, z_ij | cells before) of latents z (..., D, h, w), for e_ij = 1 and for 0."""
        if self.config.learned:
            return tuple(t.flatten(-2) for t in self.map_prior.densities(z))
        base = self.base(self.presence.new_zeros(*z.shape[:-3], self.config.side**2))
        odds = F.logsigmoid(self.presence), F.logsigmoid(-self.presence)
        return tuple(t.flatten(-2) + p for t, p in zip(base.densities(z), odds, strict=True))

    def posterior(self, z: Tensor) -> Tensor:
        """(..., N) logits of p(e | z) of latents z (..., D, h, w): given them, cells are independent."""
        return torch.sub(*self.densities(z))

    def evidence(self, images: Tensor) -> Tensor:
        """(B,) log p(x) in nats, presence summed out exactly, with one draw of the dequantisation noise."""
        noise = self.rounding(len(images)).sample()
        z, log_det = self.layers(dequantised(images.unsqueeze(-4), noise))
        return (torch.logaddexp(*self.densities(z)).sum(-1) + log_det).squeeze(-1)

    def round_trip(self, images: Tensor) -> Tensor:
        """f(f⁻¹(x)) of images (B, 3, H, W), which equals them up to rounding of floats."""
        return self.layers.inverse(self.layers(images)[0])

    def scene(
        self,
        z: Tensor,
        pres: Tensor,
        jitter: Tensor,
        scale: Tensor | float = 0.0,
        loc: Tensor | float = 0.0,
    ) -> Scene:
        """Eqs. 5, 10 and 12 of latents z (..., D, h, w), presences (..., N), ε, and noise on z_scale, z_loc."""
        c, parts = self.config, Parts(*z.split(self.config.widths, -3))
        e = pres.unflatten(-1, (c.side, c.side)).unsqueeze(-3)
        sign = c.margin * (e - 0.5)
        front = [torch.zeros_like(parts.bg), sign, -sign]
        front += [parts.scale + scale, parts.loc + loc, e * parts.what]
        behind = [parts.bg + jitter, *map(torch.zeros_like, parts[1:])]
        both = torch.stack([torch.cat(front, -3), torch.cat(behind, -3)])
        front, behind = pixels(self.layers.inverse(both))
        opacity, pose = self.enlarge(e), self.pose(parts)
        image = opacity * front + (1 - opacity) * behind
        boxed = self.enlarge(self.cover(pres.detach(), pose))
        kin = self.kinship(front) if c.kin else None
        alike = None if kin is None else self.enlarge(self.cover(pres.detach(), pose, kin))
        shown = within(front).detach(), within(behind).detach()
        nodes = self.objects(pres.detach(), pose.detach(), *shown)
        return Scene(within(image), (nodes,), within(behind), opacity, boxed, alike)

    def enlarge(self, cells: Tensor) -> Tensor:
        """(..., h, w) -> (..., H, W): all pixels of a cell are equal."""
        factor = self.config.size // self.config.side
        return cells.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    def pose(self, parts: Parts) -> Tensor:
        """(..., N, 2, 3) boxes of all cells."""
        side = self.config.side
        cells = render.cells(side, parts.loc)
        loc, scale = (t.flatten(-2).mT for t in (parts.loc, parts.scale))
        extent = within(scale, 1 / side, 1.0)
        return torch.cat([torch.diag_embed(extent), (cells + DIAGONAL * loc).unsqueeze(-1)], -1)

    def cover(self, pres: Tensor, pose: Tensor, weight: Tensor | None = None) -> Tensor:
        """(..., 1, h, w) number of boxes over a cell; each box is a product of its rows and columns.

        ST⁻¹ of ones is, along each axis, a ramp of a glimpse's pixel at both ends of a box.

        Args:
            weight: (..., N, N) what the box of the first cell counts at the second; 1 by default.
        """
        c = self.config
        axis = (2 * torch.arange(c.side, device=pres.device, dtype=pres.dtype) + 1) / c.side - 1
        extent = pose[..., :2].diagonal(dim1=-2, dim2=-1)
        inside = (axis - pose[..., 2:]) / extent.unsqueeze(-1)  # (..., N, 2, side)
        lines = (c.glimpse / 2 * (1 - inside.abs()) + 0.5).clamp(0, 1)
        columns, rows = lines.unbind(-2)
        rows = pres.unsqueeze(-1) * rows
        if weight is None:
            return (rows.mT @ columns).unsqueeze(-3)
        along = columns.unsqueeze(-2) * weight.unflatten(-1, (c.side, c.side))
        return (rows.unsqueeze(-1) * along).sum(-3).unsqueeze(-3)

    @torch.no_grad()
    def kinship(self, front: Tensor) -> Tensor:
        """(..., N, N) exp(-|h - h'|² / 2 τ²) of the hues h of cells in x̂_fg (..., 3, H, W)."""
        hues = self.hues(within(front))
        return (-0.5 * (torch.cdist(hues, hues) / self.config.kin).square()).exp()

    def hues(self, image: Tensor) -> Tensor:
        """(..., N, 3) mean colours of an image's cells as shares of their brightness."""
        small = F.avg_pool2d(image.flatten(0, -4), self.config.size // self.config.side)
        colours = small.flatten(2).mT.unflatten(0, image.shape[:-3])
        return colours / (colours.sum(-1, keepdim=True) + GREY)

    @torch.no_grad()
    def objects(self, pres: Tensor, pose: Tensor, front: Tensor, behind: Tensor) -> Nodes:
        """The objects that present cells are grouped into, their boxes, cells and pixels.

        Args:
            pres: (..., N).
            pose: (..., N, 2, 3).
            front, behind: (..., 3, H, W) x̂_fg and x̂_bg.
        """
        c = self.config
        linkage = c.grouping == "linkage" and not self.training
        own, boxes = self.link(pres, pose, front) if linkage else self.suppress(pres, pose)
        cells = own * (pres > 0.5).unsqueeze(-2)
        sure = (cells * pres.unsqueeze(-2)).sum(-1) / cells.sum(-1).clamp(min=1)
        whole = self.enlarge((own * pres.unsqueeze(-2)).unflatten(-1, (c.side, c.side)))
        colours = front.unsqueeze(-4).expand(*whole.shape[:-2], *front.shape[-3:])
        patch = torch.cat([colours, whole.unsqueeze(-3)], -3)
        zeros = torch.zeros_like(sure)
        seen = torch.cat([boxes[..., 2], boxes[..., :2].diagonal(dim1=-2, dim2=-1)], -1)
        mask = whole * self.differ(front, behind)
        return Nodes(
            *(sure, boxes, zeros, zeros.long()),
            attributes=seen,
            mask=mask,
            patch=patch,
        )

    def link(self, pres: Tensor, pose: Tensor, front: Tensor) -> tuple[Tensor, Tensor]:
        """(..., K, N) cells of groups by average-link clustering, and (..., K, 2, 3) their mean boxes."""
        c = self.config
        extent = pose[..., :2].diagonal(dim1=-2, dim2=-1)
        points = torch.cat([pose[..., 2], extent / 2, c.tint * self.hues(front)], -1)
        least = (c.fill * (c.side * extent).prod(-1)).clamp(min=c.least)
        own = linked(points, pres > 0.5, c.apart, c.slots, least)
        cells = own * (pres > 0.5).unsqueeze(-2)
        cells = cells + (
            cells.sum(-1, keepdim=True) == 0
        )  # an empty slot has the mean of all boxes
        share = cells / cells.sum(-1, keepdim=True)
        return own, (share @ pose.flatten(-2)).unflatten(-1, (2, 3))

    def suppress(self, pres: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """(..., K, N) cells of objects by non-maximum suppression, and (..., K, 2, 3) the boxes kept."""
        c = self.config
        slots, valid = suppressed(pres, pose, c.side, c.slots, c.overlap, c.least)
        boxes = pose.gather(-3, slots[..., None, None].expand(*slots.shape, 2, 3))
        there = (pres > 0.5).unsqueeze(-2)
        alike = likeness(boxes, pose)
        enough = (owned(alike, valid) * there).sum(-1) >= c.least
        enough[..., 0] = True
        return owned(alike, valid & enough), boxes

    def differ(self, image: Tensor, behind: Tensor) -> Tensor:
        """(..., 1, H, W) 1 where the colours of two images are more than `visible` apart."""
        far = (image - behind).norm(dim=-3, keepdim=True)
        return (far > self.config.visible).to(image.dtype)

    def redraw(self, scene: Scene) -> Scene:
        """The image of a Scene, which may be edited: its objects' visible pixels, moved with their boxes."""
        nodes = scene.objects
        centre, extent = nodes.attributes.split(2, -1)
        seen = torch.cat([torch.diag_embed(extent), centre.unsqueeze(-1)], -1)
        motion = render.chain(nodes.pose, render.inverse(seen))
        still = torch.isclose(nodes.pose, seen, rtol=0, atol=1e-6).all(-1).all(-1)
        moved = render.place(nodes.patch, motion, self.config.size)
        layers = torch.where(still[..., None, None, None], nodes.patch, moved)
        # soft masks are shares of presence: a hard mask leaves nothing of its pixels
        there = (nodes.pres > 0).to(layers.dtype)[..., None, None]
        mask = layers[:, :, -1] * there
        canvas = render.paint(scene.background, layers[:, :, :-1], mask, nodes.depth)
        nodes = replace(nodes, mask=mask * self.differ(canvas[:, -1], scene.background))
        opacity = mask.sum(1, keepdim=True).clamp(max=1)
        return replace(scene, image=canvas[:, -1], levels=(nodes,), opacity=opacity)


def moments(config: Config) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Mean and deviation of every channel of the latents for a present cell, and for an absent one."""
    c, plain = config, (0.0, 1.0)
    bg, _, scale, loc, what = c.widths
    half, spread = c.margin / 2, math.sqrt(c.margin)
    present = [(half, spread), (-half, spread), *[(c.scale_mean, c.scale_sd)] * scale]
    present += [*[(0.0, c.loc_sd)] * loc, *[c.what] * what]
    absent = [(-half, spread), (half, spread), *[(0.0, c.scale_absent_sd)] * scale]
    absent += [*[(0.0, c.loc_sd)] * loc, *[c.what_absent] * what]
    return [plain] * bg + present, [plain] * bg + absent


def layers(config: Config) -> Stack:
    """f⁻¹ (Table 4)."""
    c = config
    bg, *heads = c.widths
    start = [START["pres"], (c.scale_mean, c.scale_sd), START["loc"], START["what"]]
    couplings = lambda n: [Coupling(n, c.features) for _ in range(c.couplings)]  # noqa: E731
    tops = [
        Stack(*couplings(n), Affine([mean] * n, [sd] * n))
        for n, (mean, sd) in zip(heads, start, strict=True)
    ]
    fold = [Squeeze(c.fold)] * (c.fold > 1)
    rest = 3 * c.squeeze**2 - 1
    foreground = Stack(*couplings(rest), *fold, Split(tops, heads, heads))
    background = Stack(Affine([0.0], [1.0]), *fold)
    split = Split([background, foreground], [1, rest], [bg, sum(heads)])
    return Stack(Affine([-1.0] * 3, [2.0] * 3), *couplings(3), Squeeze(c.squeeze), split)


def pixels(x: Tensor) -> Tensor:
    """Dequantised images converted back to images."""
    return (LEVELS * x - 0.5) / (LEVELS - 1)


def within(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """x clamped to a range, with the gradient of x, so that values outside can return."""
    return x + (x.clamp(low, high) - x).detach()
