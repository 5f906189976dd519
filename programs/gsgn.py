"""GSGN: Generative Scene Graph Networks (Deng, Zhi, Lee, Ahn; ICLR 2021).

A scene is a tree. The root r summarises it; every node v has an appearance, every edge a presence and a
pose (where, scale, theta, depth) relative to the parent pa(v). Leaves are decoded, inner nodes composed.

    p(z_what_r)  = N(0, 1)
    Z_pres_v     = Z_pres_pa(v) · z_pres_v                                                        (3)
    p(z_fg)      = p(z_what_r) Π_v p(z_pres_v | z_what_pa(v)) ^ Z_pres_pa(v)
                   [p(z_pose_v | z_what_pa(v)) p(z_what_v | z_what_pa(v))] ^ Z_pres_v             (4)
    x_u, m_u     = Σ_v z_pres_v α_v ST⁻¹(x_v, z_pose_v),  the same of m_v;  v among u's children  (5, 6)
    α_v          ∝ z_pres_v ST⁻¹(m_v, z_pose_v) exp(-depth_v)                                     (21, 22)
    p(x | z)     = m_r N(x | x_r, σ_fg²) + (1 - m_r) N(x | x_bg, σ_bg²), pixel by pixel           (7)
    p(z_bg | z_fg) = p(z_bg | z_what_r)                                                           (23)

    where = c_ij + a d tanh(z_where)        theta = θ_max tanh(z_theta)                           (15, 18, 19)
    scale = s_0 + s_1 tanh(z_scale)         depth = softplus(z_depth)                             (16, 17, 20)

Any number of levels; the paper has three (scene, objects, parts).

In `mem` a leaf points into a memory M of templates, which give it its shape (appendix C):

    p(z_cat_v, z_what_v | z_what_pa(v)) = p(z_cat_v | z_what_pa(v), M) p(z_what_v | M[z_cat_v])    (12)
    m_v = g(M[z_cat_v]),  x_v = m_v ⊙ h(z_what_v)

# differs: p(z_cat) learns a logit for the name of each template, and does not read M, the content.

# differs: leaves are decoded from a linear map to 4x4 pixels by sub-pixel convolutions, without the spatial
broadcast of section 2 and appendix C; networks have CELU for the paper's ReLU; p(z_bg | z_fg) is an MLP for its
CNN; the background is decoded by 1x1 convolutions on a coarser grid, enlarged bilinearly.

Shape legend: B images, N nodes of a level (all parents' children side by side), K children of one parent,
D features, C = 3 colours, H x W pixels, h x w of a patch. A particle plate may stand to the left of B.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from operator import mul
from typing import ClassVar, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.compose import compose
from programs.blocks.config import check_learned, check_positive, check_sides
from programs.blocks.distributions import (
    PixelMixture,
    gate,
    gaussian,
    in_front,
    normal,
    positive,
)
from programs.blocks.nets import BroadcastDecoder, SubpixelDecoder, mlp, where_present
from programs.blocks.prior_nets import NetBernoulli, NetMixture
from programs.blocks.priors import learned
from programs.scene import Nodes, Scene


@dataclass(frozen=True)
class Config:
    """The paper's three-level graph on 128 x 128 images. One entry per level where a field is a tuple."""

    colours: ClassVar[int] = 3  # C
    size: int = 128  # pixels per side of the image
    children: tuple[int, ...] = (4, 4)  # maximum out-degree r² of the root, of an object, …
    z_what: tuple[int, ...] = (128, 64, 32)  # features of the root, an object, a part, …
    z_bg: int = 8
    crops: tuple[int, ...] = (64, 32)  # pixels per side of objects' windows and patches, parts', …
    reach: float = 0.55  # a in eq. 15, in cells
    scale: tuple[tuple[float, float], ...] = ((0.3, 0.29), (0.5, 0.49))  # s_0, s_1 in eqs. 16, 17
    scale_axes: tuple[int, ...] = (2, 1)  # objects scale by axis, parts alike
    scale_start: tuple[float, ...] = (0.0, 0.0)  # z_scale where training begins
    what_start: float = 0.0  # spread of q(z_what), before softplus, where training begins
    max_angle: float = math.pi  # θ_max in radians; 10 degrees on CLEVR (eq. 19)
    sigma_fg: float = 0.3
    sigma_bg: float = 0.1
    # differs: q(z_theta) of inner nodes is read from their windows at angle 0, not from the parent's window
    upright: bool = False
    share: bool = True  # the posterior is the prior times a bottom-up term (eq. 10)
    memory: int = 0  # templates that leaves point to; 0: none, leaves are decoded from z_what alone
    template: int = 16  # features of a template
    hidden: int = 256  # width of the MLPs
    channels: tuple[int, ...] = (32, 64, 128, 128, 128)  # of the encoders, by stage
    decoder: int = 64  # channels of the leaves' decoder at 4 x 4
    # differs: components of learned priors of the root and of children given their siblings; 0: the paper's
    learned: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "reach", "scale_start", "what_start", "max_angle", "memory", "learned")
        check_learned(self)
        check_sides(self, "size", "crops")
        if self.memory < 0:
            raise ValueError(f"memory={self.memory}: expected 0 or more templates")
        levels = len(self.children)
        wanted = {"z_what": levels + 1, "crops": levels, "scale": levels, "scale_axes": levels}
        wanted["scale_start"] = levels
        for name, length in wanted.items():
            if len(getattr(self, name)) != length:
                raise ValueError(
                    f"{name}={getattr(self, name)} has {len(getattr(self, name))} entries; "
                    f"a graph with children={self.children} needs {length}"
                )
        for number in self.children:
            if math.isqrt(number) ** 2 != number or not 1 <= number <= 16:
                raise ValueError(f"children={self.children}: out-degrees are squares from 1 to 16")
        if self.upright and levels == 1:
            raise ValueError(
                f"upright=True: a graph with children={self.children} has no inner nodes to turn"
            )
        if not self.children or not self.channels or not {*self.scale_axes} <= {1, 2}:
            raise ValueError(
                f"children={self.children}, channels={self.channels}, scale_axes={self.scale_axes}: "
                "expected at least one level, at least one stage, and 1 or 2 axes"
            )


VARIANTS: dict[str, Config] = {
    "gsgn": Config(),
    "gsgn9": Config(children=(9, 9), reach=0.75),
    "no_share": Config(share=False),
    "mem": Config(memory=8),  # differs: the paper does not say how many
    # differs: beyond the paper, groups of objects between the scene and the objects
    "four_levels": Config(
        children=(4, 4, 4),
        z_what=(128, 96, 64, 32),
        crops=(64, 32, 16),
        scale=((0.3, 0.29), (0.5, 0.49), (0.5, 0.49)),
        scale_axes=(1, 1, 1),
        scale_start=(0.0, 0.0, 0.0),
    ),
}


POSE = 6
"""Number of values in a pose."""


class Edges(NamedTuple):
    """Distributions of presence and pose over the N children of a level."""

    pres: dist.Bernoulli
    """(..., N)"""
    where: dist.TorchDistribution
    """(..., N), event (2)"""
    scale: dist.TorchDistribution
    """(..., N), event (1) or (2)"""
    theta: dist.Normal
    """(..., N)"""
    depth: dist.Normal
    """(..., N)"""


class Branch(NamedTuple):
    """The N sampled nodes of a level, mapped to their ranges."""

    exists: Tensor
    """(..., N) the product of the presences along the path from the root (eq. 3)"""
    pres: Tensor
    """(..., N)"""
    pose: Tensor
    """(..., N, 2, 3) in the parent's frame"""
    depth: Tensor
    """(..., N)"""
    what: Tensor
    """(..., N, D)"""
    cat: Tensor | None = None
    """(..., N, M) one-hot address in the memory, for leaves of `mem`"""


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        c, levels = config, range(len(config.children))
        self.register_buffer("sigma_fg", torch.tensor(c.sigma_fg))
        self.register_buffer("sigma_bg", torch.tensor(c.sigma_bg))
        self.register_buffer("fixed_mixing", torch.tensor(math.nan))  # NaN: m_r as decoded
        self.priors = nn.ModuleList([ChildrenPrior(c, level + 1) for level in levels])
        self.background_prior = mlp(c.z_what[0], [c.hidden], 2 * c.z_bg)
        self.leaf_decoder = (
            Memory(c) if c.memory else SubpixelDecoder(c.z_what[-1], c.crops[-1], c.decoder, 4)
        )
        self.background_decoder = BroadcastDecoder(c.z_bg, c.size, 32, 3)
        if c.learned:
            self.root_prior = learned(c.z_what[0], c.learned)
            self.siblings = nn.ModuleList([Siblings(c, level + 1) for level in levels])

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, 3, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-2):
            tree = [self.root(batch)]
            for level in range(1, len(self.config.children) + 1):
                tree.append(self.offspring(level, tree[-1]))
            background = self.background(tree[0])
            patches, pixels = self.render(tree, background)
            pyro.sample("images", pixels, obs=None if images is None else images.unsqueeze(-4))
        return self.scene(tree, patches, pixels, background)

    @property
    def memory(self) -> Memory | None:
        """The templates that leaves point to, in `mem`."""
        return self.leaf_decoder if self.config.memory else None

    def root(self, batch: int) -> Branch:
        """p(z_what_r), the appearance of the whole scene."""
        zeros = torch.zeros(batch, 1, self.config.z_what[0], device=self.sigma_fg.device)
        prior = normal(zeros, torch.ones_like(zeros))
        if self.config.learned:
            prior = self.root_prior().expand((batch, 1))
        what = pyro.sample("z_what_0", prior)
        ones = torch.ones_like(what[..., 0])
        return Branch(ones, ones, what.new_zeros(*what.shape[:-1], 2, 3), ones, what)

    def offspring(self, level: int, parent: Branch) -> Branch:
        """p(z_pres, z_pose, z_what | z_what of the parent), for all children of a level at once."""
        p, what_prior = self.prior(level, parent)
        above = self.per_child(level, parent.exists)
        known = Known(self.siblings[level - 1], parent) if self.config.learned else Plain()
        with pyro.plate(f"nodes_{level}", above.shape[-1], dim=-1):
            with gate(above):
                pres = pyro.sample(f"z_pres_{level}", known.pres(p.pres))
            with gate(above * pres):
                where = pyro.sample(f"z_where_{level}", known.where(p.where, pres))
                scale = pyro.sample(f"z_scale_{level}", known.scale(p.scale, pres, where))
                theta = pyro.sample(f"z_theta_{level}", p.theta)
                depth = pyro.sample(f"z_depth_{level}", p.depth)
                what, cat = self.appearance(level, known.what(what_prior, pres, scale))
        pose = self.pose(level, where, scale, theta)
        return Branch(above * pres, pres, pose, F.softplus(depth), what, cat)

    def appearance(self, level: int, prior: dist.TorchDistribution) -> tuple[Tensor, Tensor | None]:
        """p(z_what | z_what of the parent), or of a leaf that points into the memory (12)."""
        cat = None
        if isinstance(prior, dist.OneHotCategorical):
            cat = pyro.sample(f"z_cat_{level}", prior)
            prior = self.leaf_decoder.prior(cat)
        return pyro.sample(f"z_what_{level}", prior), cat

    def background(self, root: Branch) -> Tensor:
        """p(z_bg | z_what_r) (eq. 23), decoded to (..., 1, 3, H, W)."""
        z_bg = pyro.sample("z_bg", self.prior_background(root))
        return self.background_decoder(z_bg).sigmoid()

    def render(self, tree: list[Branch], background: Tensor) -> tuple[list[Tensor], PixelMixture]:
        """Decode the leaves, and compose from them to the root."""
        leaf = tree[-1]
        if leaf.cat is None:
            leaves = where_present(leaf.exists, self.leaf_decoder, leaf.what).sigmoid()
        else:
            leaves = where_present(leaf.exists, self.leaf_decoder, leaf.what, leaf.cat)
        return self.compose(leaves, tree[1:], background)

    def compose(
        self, patch: Tensor, levels: Sequence[Branch | Nodes], background: Tensor
    ) -> tuple[list[Tensor], PixelMixture]:
        """From the leaves' patches to the root (eqs. 5, 6), then mixed with the background (eq. 7).

        Args:
            patch: (..., N, 4, h, w) of the leaves, the mask last.
            levels: nodes with presence and pose relative to the parent, objects first.
            background: (..., 1, 3, H, W).
        Returns:
            Patches of all levels, objects first, and the image's distribution.
        """
        patches = [patch]
        sizes = (self.config.size, *self.config.crops)
        for level in range(len(levels), 0, -1):
            node = levels[level - 1]
            family = (-1, self.config.children[level - 1])
            children = (
                t.unflatten(node.pres.ndim - 1, family)
                for t in (patch, node.pose, node.pres, node.depth)
            )
            patch = compose(*children, size=sizes[level - 1])
            patches.insert(0, patch)
        colours, mask = patches[0].split([3, 1], -3)
        mask = mask.clamp(max=1)  # a convex sum of masks may exceed 1 by a rounding
        mixing = torch.where(self.fixed_mixing.isnan(), mask, self.fixed_mixing)
        means = torch.stack(torch.broadcast_tensors(colours, background), -4)
        sigma = torch.stack([self.sigma_fg, self.sigma_bg])
        return patches[1:], PixelMixture(means, in_front(mixing), sigma)

    def prior(self, level: int, parent: Branch) -> tuple[Edges, dist.TorchDistribution]:
        """PresPoseApprPri (Algorithm 2, line 1): over the (..., N) children of all parents."""
        return self.priors[level - 1](parent.what)

    def prior_background(self, root: Branch) -> dist.TorchDistribution:
        """BgPri (Algorithm 3, line 1)."""
        return gaussian(self.background_prior(root.what))

    def per_child(self, level: int, parents: Tensor) -> Tensor:
        """Repeat a quantity of the parents (..., N / K) for each of their children (..., N)."""
        return parents.repeat_interleave(self.config.children[level - 1], -1)

    def pose(self, level: int, where: Tensor, scale: Tensor, theta: Tensor) -> Tensor:
        """(..., N, 2, 3) pose in the parent's frame from the raw Gaussians (eqs. 15 to 19)."""
        side = math.isqrt(self.config.children[level - 1])
        cells = render.cells(side, where).repeat(where.shape[-2] // side**2, 1)
        middle, spread = self.config.scale[level - 1]
        return render.pose(
            cells + self.config.reach * (2 / side) * where.tanh(),
            middle + spread * scale.tanh(),
            self.config.max_angle * theta.tanh(),
        )

    def scene(
        self, tree: list[Branch], patches: list[Tensor], pixels: PixelMixture, background: Tensor
    ) -> Scene:
        """The sampled tree as a Scene, poses in the image frame."""
        levels, pose = [], None
        for level, (node, patch) in enumerate(zip(tree[1:], patches, strict=True), start=1):
            if pose is None:
                pose = node.pose
            else:
                above = pose.repeat_interleave(self.config.children[level - 1], -3)
                pose = render.chain(above, node.pose)
            number, degree = node.pres.shape[-1], self.config.children[level - 1]
            parent = torch.arange(number, device=pose.device) // degree
            parent = parent.expand(node.pres.shape)
            category = None
            if node.cat is not None:
                category = node.cat.argmax(-1).where(node.exists > 0.5, -1)
            levels.append(Nodes(node.exists, pose, node.depth, parent, category, patch=patch))
        return Scene(pixels.mean.squeeze(-4), tuple(levels), background.squeeze(-4))

    def redraw(self, scene: Scene) -> Scene:
        """The image of a Scene, perhaps an edited one, and its inner nodes' patches, composed anew.

        Raises:
            ValueError: the Scene's tree has other levels or slots than this program's.
        """
        slots = [nodes.pres.shape[1] for nodes in scene.levels]
        expected = list(accumulate(self.config.children, mul))
        if slots != expected:
            raise ValueError(
                f"the Scene has {slots} slots by level, this program {expected}: draw it by the "
                "program that it comes from"
            )
        background = scene.background.unsqueeze(-4)
        patches, pixels = self.compose(scene.levels[-1].patch, self.relative(scene), background)
        levels = tuple(replace(n, patch=p) for n, p in zip(scene.levels, patches, strict=True))
        return replace(scene, image=pixels.mean.squeeze(-4), levels=levels)

    def relative(self, scene: Scene) -> list[Nodes]:
        """A Scene's levels with presence and pose relative to the parent, the inverse of `scene`."""
        levels = [scene.objects]
        for level, (above, nodes) in enumerate(pairwise(scene.levels), start=2):
            pres = self.per_child(level, above.pres).clamp(min=1e-12)
            pose = above.pose.repeat_interleave(self.config.children[level - 1], -3)
            pose = render.chain(render.inverse(pose), nodes.pose)
            levels.append(replace(nodes, pres=nodes.pres / pres, pose=pose))
        return levels


class ChildrenPrior(nn.Module):
    """p(z_pres, z_pose, z_what of the children | z_what of the parent), one MLP per level.

    # differs: the paper uses a CNN with pixel shuffle on a 1 x 1 map, whose widths are in a figure only;
    # an MLP with separate outputs per child is the same function class.
    """

    def __init__(self, config: Config, level: int) -> None:
        super().__init__()
        self.degree, self.axes = config.children[level - 1], config.scale_axes[level - 1]
        self.points = bool(config.memory) and level == len(config.children)
        self.features = config.memory if self.points else 2 * config.z_what[level]
        outputs = edge_features(self.axes) + self.features
        hidden = [config.hidden, config.hidden]
        self.net = mlp(config.z_what[level - 1], hidden, self.degree * outputs)
        start_edges(self.net[-1], config, level, self.degree)

    def forward(self, what: Tensor) -> tuple[Edges, dist.TorchDistribution]:
        """(..., M, D) appearances of the parents -> distributions over (..., M · K) children.

        The second is that of the appearance, or of the address in the memory.
        """
        raw = self.net(what).unflatten(-1, (self.degree, -1)).flatten(-3, -2)
        edge, appearance = raw.split([edge_features(self.axes), self.features], -1)
        if self.points:
            return edges(edge, self.axes), dist.OneHotCategorical(logits=appearance)
        return edges(edge, self.axes), gaussian(appearance)


class Siblings(nn.Module):
    """Learned priors of the children of one level, each given the earlier samples of all its siblings.

    # differs: in the paper siblings are independent given the parent's appearance (4). Where that says
    little, nothing makes a triangle the roof of a house.
    """

    def __init__(self, config: Config, level: int) -> None:
        super().__init__()
        c, degree, axes = config, config.children[level - 1], config.scale_axes[level - 1]
        self.degree = degree
        known = c.z_what[level - 1] + POSE + degree
        self.pres = NetBernoulli(known)
        self.where = NetMixture(2, known + degree, c.learned)
        self.scale = NetMixture(axes, known + 3 * degree, c.learned)
        points = bool(c.memory) and level == len(c.children)
        size = known + (3 + axes) * degree
        self.what = None if points else NetMixture(c.z_what[level], size, c.learned)


class Plain:
    """The paper's priors, unchanged."""

    def pres(self, prior: dist.Bernoulli) -> dist.Bernoulli:
        """p(z_pres | z_what of the parent)."""
        return prior

    def where(self, prior: dist.TorchDistribution, *_: Tensor) -> dist.TorchDistribution:
        """p(z_where | z_what of the parent); likewise for size and appearance."""
        return prior

    scale = what = where


class Known:
    """The inputs of the learned priors of one level's children, to which every site adds its values.

    Args:
        priors: the learned priors of this level.
        parent: the M parents, whose appearance and pose are inputs.
    """

    def __init__(self, priors: Siblings, parent: Branch) -> None:
        self.priors = priors
        above = torch.cat([parent.what, parent.pose.flatten(-2)], -1)
        above = above.repeat_interleave(priors.degree, -2)
        own = torch.eye(priors.degree).to(above).repeat(above.shape[-2] // priors.degree, 1)
        self.told = torch.cat([above, own.expand(*above.shape[:-1], -1)], -1)

    def pres(self, prior: dist.Bernoulli) -> dist.Bernoulli:
        """p(z_pres | the parent)."""
        logit, told = _joined(prior.logits.unsqueeze(-1), self.told)
        return self.priors.pres(torch.cat([logit, told], -1))

    def where(self, prior: dist.TorchDistribution, pres: Tensor) -> dist.TorchDistribution:
        """p(z_where | the parent, z_pres of all siblings)."""
        self.tell(pres.unsqueeze(-1))
        return self.mixed(self.priors.where, prior)

    def scale(
        self, prior: dist.TorchDistribution, pres: Tensor, where: Tensor
    ) -> dist.TorchDistribution:
        """p(z_scale | the parent, z_pres and z_where of all siblings)."""
        self.tell(pres.unsqueeze(-1) * where)
        return self.mixed(self.priors.scale, prior)

    def what(
        self, prior: dist.TorchDistribution, pres: Tensor, scale: Tensor
    ) -> dist.TorchDistribution:
        """p(z_what | the parent, presence, position and size of all siblings); an address stays as it is."""
        self.tell(pres.unsqueeze(-1) * scale)
        return prior if self.priors.what is None else self.mixed(self.priors.what, prior)

    def tell(self, values: Tensor) -> None:
        """Add the values (..., N, n) of all siblings, and its own, to the inputs of every child."""
        family = values.unflatten(-2, (-1, self.priors.degree)).flatten(-2)
        told, family = _joined(self.told, family.repeat_interleave(self.priors.degree, -2))
        self.told = torch.cat([told, family], -1)

    def mixed(self, net: NetMixture, prior: dist.TorchDistribution) -> dist.TorchDistribution:
        """The program's own Gaussian and the learned others."""
        parts = _joined(prior.mean, prior.stddev, self.told)
        return net(torch.cat(parts, -1))


def _joined(*parts: Tensor) -> list[Tensor]:
    """Tensors (..., n) expanded to the same leading dimensions."""
    lead = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return [p.expand(*lead, p.shape[-1]) for p in parts]


class Memory(nn.Module):
    """M, the templates that leaves point to, and their decoders (appendix C)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.templates = nn.Parameter(torch.randn(c.memory, c.template))
        self.what = mlp(c.template, [c.hidden], 2 * c.z_what[-1])
        self.shape = BroadcastDecoder(c.template, c.crops[-1], 32, 1, cell=1)
        self.colours = SubpixelDecoder(c.z_what[-1], c.crops[-1], c.decoder, 3)

    def prior(self, cat: Tensor) -> dist.TorchDistribution:
        """p(z_what | M[z_cat]) from one-hot addresses (..., N, M)."""
        return gaussian(self.what(cat @ self.templates))

    def samples(self, count: int) -> Tensor:
        """(M, count, 4, h, w) patches of every template, appearances drawn from p(z_what | M[z_cat])."""
        number = len(self.templates)
        cat = torch.eye(number, device=self.templates.device).unsqueeze(1).expand(-1, count, -1)
        return self(self.prior(cat).sample(), cat)

    def forward(self, what: Tensor, cat: Tensor) -> Tensor:
        """(..., N, D), (..., N, M) -> patches (..., N, 4, h, w) in [0, 1], the mask last."""
        mask = self.shape(cat @ self.templates).sigmoid()
        return torch.cat([mask * self.colours(what).sigmoid(), mask], -3)


def edge_features(axes: int) -> int:
    """Numbers that parametrise an `Edges`: a presence logit, and mean and spread of the pose."""
    return 1 + 2 * (4 + axes)


def edges(raw: Tensor, axes: int) -> Edges:
    """Distributions from (..., N, `edge_features`) unconstrained numbers.

    # differs: one presence logit instead of two; a two-way softmax depends on their difference alone.
    """
    logit, loc, spread = raw.split([1, 4 + axes, 4 + axes], -1)
    spread = positive(spread)
    pieces = zip(loc.split([2, axes, 1, 1], -1), spread.split([2, axes, 1, 1], -1), strict=True)
    where, scale, theta, depth = pieces
    return Edges(
        pres=dist.Bernoulli(logits=logit.squeeze(-1)),
        where=normal(*where),
        scale=normal(*scale),
        theta=dist.Normal(theta[0].squeeze(-1), theta[1].squeeze(-1)),
        depth=dist.Normal(depth[0].squeeze(-1), depth[1].squeeze(-1)),
    )


DEPTH_START = 4.0
"""z_depth where training begins: outside the flat half of softplus, as in Table 6."""


@torch.no_grad()
def start_edges(last: nn.Linear, config: Config, level: int, degree: int = 1) -> None:
    """Begin with poses near the middle of their cells, at `scale_start`, almost independent of the input.

    # differs: the paper does not give the initial weights. Windows that begin large never shrink again.
    """
    axes = config.scale_axes[level - 1]
    weight = last.weight.unflatten(0, (degree, -1))[:, : edge_features(axes)]
    bias = last.bias.unflatten(0, (degree, -1))[:, : edge_features(axes)]
    weight.mul_(0.1)
    bias.zero_()
    bias[:, 3 : 3 + axes] = config.scale_start[level - 1]
    bias[:, 4 + axes] = DEPTH_START
