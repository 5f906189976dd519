"""Pixels: affine poses, cropping, placing, compositing. Pure functions; nothing here samples.

A pose is a (..., 2, 3) affine matrix [A | t] that maps a node's canonical frame [-1, 1]² into its
parent's: y = A u + t. Pixel centres lie at (2i + 1) / size - 1, which is ``align_corners=False``
everywhere; outside a picture there is 0.

Shape legend: M parents, K children of each, C channels, H x W pixels of the parent, h x w of a patch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from programs.scene import Nodes, Scene


def pose(where: Tensor, scale: Tensor, theta: Tensor) -> Tensor:
    """The affine map R(theta) · diag(scale) · u + where.

    Args:
        where: (..., 2) centre in the parent's frame.
        scale: (..., 2) half-widths, or (..., 1) for both axes alike.
        theta: (...) radians, from x towards y (clockwise on a picture, as y points down).
    Returns:
        (..., 2, 3).
    """
    cos, sin = theta.cos(), theta.sin()
    rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    linear, shift = rotation * scale.unsqueeze(-2), where.unsqueeze(-1)
    lead = torch.broadcast_shapes(linear.shape[:-2], shift.shape[:-2])
    return torch.cat([linear.expand(*lead, 2, 2), shift.expand(*lead, 2, 1)], -1)


def chain(parent: Tensor, child: Tensor) -> Tensor:
    """The pose of a grandchild: first `child`, then `parent`; both (..., 2, 3)."""
    linear = parent[..., :2] @ child[..., :2]
    shift = parent[..., :2] @ child[..., 2:] + parent[..., 2:]
    return torch.cat([linear, shift], -1)


def inverse(matrix: Tensor) -> Tensor:
    """The pose that undoes `matrix` (..., 2, 3), in closed form."""
    a, b, c, d = (matrix[..., i, j] for i in (0, 1) for j in (0, 1))
    adjugate = torch.stack([torch.stack([d, -b], -1), torch.stack([-c, a], -1)], -2)
    linear = adjugate / (a * d - b * c)[..., None, None]
    return torch.cat([linear, -linear @ matrix[..., 2:]], -1)


def pixel_grid(matrix: Tensor, size: int) -> Tensor:
    """(..., size, size, 2) where `matrix` (..., 2, 3) maps the pixel centres of a square picture.

    ``F.affine_grid`` with align_corners=False, as two outer sums: a third of its time on a CPU.
    """
    axis = (2 * torch.arange(size, dtype=matrix.dtype, device=matrix.device) + 1) / size - 1
    across = matrix[..., None, :, 0] * axis[:, None] + matrix[..., None, :, 2]
    down = matrix[..., None, :, 1] * axis[:, None]
    return down.unsqueeze(-2) + across.unsqueeze(-3)


def crop(images: Tensor, pose: Tensor, size: int) -> Tensor:
    """Read the window of every child out of its parent: the spatial transformer ST.

    Args:
        images: (..., M, C, H, W).
        pose: (..., M, K, 2, 3), children in the parents' frames.
        size: pixels a side of a crop.
    Returns:
        (..., M, K, C, size, size).
    """
    lead, children = pose.shape[:-3], pose.shape[-3]
    images = images.expand(lead + images.shape[-3:])
    grid = pixel_grid(pose, size).reshape(-1, children * size, size, 2)  # children stacked
    flat = images.reshape(-1, *images.shape[-3:])
    found = F.grid_sample(flat, grid, align_corners=False, padding_mode="zeros")
    found = found.unflatten(-2, (children, size)).transpose(1, 2)
    return found.reshape(*lead, children, *found.shape[-3:])


def place(patches: Tensor, pose: Tensor, size: int) -> Tensor:
    """Draw every patch at its pose on an empty canvas of its parent: ST⁻¹, the inverse of `crop`.

    Args:
        patches: (..., C, h, w).
        pose: (..., 2, 3), with the same leading dimensions.
        size: pixels a side of the parent.
    Returns:
        (..., C, size, size).
    """
    grid = pixel_grid(inverse(pose), size).reshape(-1, size, size, 2)
    flat = patches.reshape(-1, *patches.shape[-3:])
    placed = F.grid_sample(flat, grid, align_corners=False, padding_mode="zeros")
    return placed.reshape(*pose.shape[:-2], *placed.shape[-3:])


def place_upright(patches: Tensor, pose: Tensor, size: int) -> Tensor:
    """`place` for poses without rotation: a bilinear sampling of rows, then of columns, each a matrix product.

    On a CPU a third of `place`'s time, with its gradient.
    """
    extent = pose[..., :2].diagonal(dim1=-2, dim2=-1)
    columns, rows = (
        line_weights(1 / extent[..., i], -pose[..., i, 2] / extent[..., i], size, side).unsqueeze(
            -3
        )
        for i, side in enumerate((patches.shape[-1], patches.shape[-2]))
    )
    return rows @ (patches @ columns.mT)


def place_together(patches: Tensor, pose: Tensor, size: int) -> Tensor:
    """The sum of upright patches, each at its pose, on one canvas: rows of all are one matrix product.

    Args:
        patches: (..., N, C, h, w).
        pose: (..., N, 2, 3) without rotation.
        size: pixels a side of the canvas.
    Returns:
        (..., C, size, size), as `place_upright` summed over N, which it never holds.
    """
    extent = pose[..., :2].diagonal(dim1=-2, dim2=-1)
    columns, rows = (
        line_weights(1 / extent[..., i], -pose[..., i, 2] / extent[..., i], size, side)
        for i, side in enumerate((patches.shape[-1], patches.shape[-2]))
    )
    lines = patches.transpose(-3, -2)  # (..., N, h, C, w)
    wide = lines.flatten(-3, -2) @ columns.mT  # (..., N, h · C, size)
    wide = wide.unflatten(-2, lines.shape[-3:-1]).flatten(-2).flatten(-3, -2)
    tall = rows.mT.flatten(-3, -2).mT  # (..., size, N · h)
    drawn = tall @ wide  # (..., size, C · size)
    return drawn.unflatten(-1, (-1, size)).transpose(-3, -2)


def line_weights(slope: Tensor, shift: Tensor, size: int, inner: int) -> Tensor:
    """(..., size, inner) what pixels of a line of `inner` add to those of another, at slope · x + shift."""
    axis = (2 * torch.arange(size, dtype=slope.dtype, device=slope.device) + 1) / size - 1
    at = (slope[..., None] * axis + shift[..., None] + 1) * (inner / 2) - 0.5
    return (1 - (at[..., None] - torch.arange(inner, device=slope.device)).abs()).clamp(min=0)


def composite(patches: Tensor, pres: Tensor, depth: Tensor) -> Tensor:
    """One parent's picture and mask from its children (GSGN eqs. 5, 6), by masked softmax over -depth (21, 22).

    Args:
        patches: (..., K, C + 1, H, W) placed colours and, last, mask.
        pres: (..., K) presence, hard or relaxed.
        depth: (..., K), smaller in front.
    Returns:
        (..., C + 1, H, W).
    """
    if has_torch_function((patches, pres, depth)):  # tensors that carry their origins
        return handle_torch_function(composite, (patches, pres, depth), patches, pres, depth)
    return _Over.apply(patches, pres, opacity(pres, depth))


def opacity(pres: Tensor, depth: Tensor) -> Tensor:
    """(..., K) factors of the masks in eq. 22, of presence and depth (..., K).

    The equation is a ratio: counting depth from the nearest that is present changes nothing, and the 1e-8
    in `_Over`, which stands for "nobody is here", then never outweighs somebody far away.
    """
    nearest = (depth - pres.clamp(min=1e-12).log()).detach().amin(-1, keepdim=True)
    return pres * (nearest - depth).exp()


class _Over(torch.autograd.Function):
    """Σ_k pres_k α_k patch_k with α_k = w_k / (Σ_j w_j + 1e-8), w_k = opacity_k mask_k, and its gradient.

    One pass over the patches each way: a third of the time that autograd takes for the same formula on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, patches: Tensor, pres: Tensor, opacity: Tensor) -> Tensor:
        weights = patches[..., -1, :, :] * opacity[..., None, None]
        total = weights.sum(-3, keepdim=True) + 1e-8
        alpha = weights.div_(total)
        ctx.save_for_backward(patches, pres, opacity, alpha, total)
        return _dot(patches, (alpha * pres[..., None, None]).unsqueeze(-3), -4)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patches, pres, opacity, alpha, total = ctx.saved_tensors
        gradient = gradient.unsqueeze(-4)
        d_patches = (alpha * pres[..., None, None]).unsqueeze(-3) * gradient
        shown = _dot(patches, gradient, -3)
        d_pres = (alpha * shown).sum((-2, -1))
        d_alpha = shown.mul_(pres[..., None, None])
        d_weights = d_alpha.sub_(_dot(alpha, d_alpha, -3).unsqueeze(-3)).div_(total)
        d_patches[..., -1, :, :].addcmul_(d_weights, opacity[..., None, None])
        return d_patches, d_pres, (d_weights * patches[..., -1, :, :]).sum((-2, -1))


def paint(background: Tensor, colours: Tensor, masks: Tensor, depth: Tensor) -> Tensor:
    """Dead leaves: from the back to the front, canvas <- m ⊙ colours + (1 - m) ⊙ canvas (ECON, eq. 3).

    Args:
        background: (B, C, H, W).
        colours: (B, N, C, H, W).
        masks: (B, N, H, W) in [0, 1].
        depth: (B, N), smaller in front.
    Returns:
        (B, N + 1, C, H, W), the canvas before the first and after each.
    """
    canvas, rows = [background], torch.arange(len(background), device=background.device)
    for slot in depth.argsort(1, descending=True).T:
        m = masks[rows, slot].unsqueeze(1)
        canvas.append(m * colours[rows, slot] + (1 - m) * canvas[-1])
    return torch.stack(canvas, 1)


def _dot(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """The sum over `dim` of a · b, without their product in memory."""
    total = None
    for x, y in zip(a.unbind(dim), b.expand_as(a).unbind(dim), strict=True):
        total = x * y if total is None else total.addcmul_(x, y)
    return total


def cells(side: int, like: Tensor) -> Tensor:
    """(side², 2) centres (x, y) of a grid's cells, row by row, in the frame [-1, 1] that they divide."""
    axis = (2 * torch.arange(side, device=like.device, dtype=like.dtype) + 1) / side - 1
    return torch.cartesian_prod(axis, axis).view(-1, 2).flip(-1)


def visible_masks(scene: Scene) -> tuple[Tensor, ...]:
    """Visible masks of every node at image size, from patches, poses, depths and the tree.

    Masks of the leaves are placed in the image; at every level siblings occlude each other by depth
    (eq. 22), and a node shows what its descendants show.

    Returns:
        A tensor (B, N, H, W) a level, objects first. Within a level they sum to at most 1. Masks that the
        scene has already are returned as they are.
    """
    size, levels = scene.image.shape[-1], scene.levels
    if not levels:
        return ()
    leaves = levels[-1]
    if leaves.mask is not None:
        return tuple(nodes.mask for nodes in levels)
    if leaves.patch is None:
        raise ValueError("visible_masks needs the leaves' patches; this scene has patch=None")
    full = [place(leaves.patch[..., -1:, :, :], leaves.pose, size)[..., 0, :, :]]
    full[0] = full[0] * leaves.pres[..., None, None]
    for child, parent in zip(levels[:0:-1], levels[-2::-1], strict=True):
        full.insert(0, _union(full[0], child.parent, parent.pres.shape[-1]))
    share, result = torch.ones_like(full[0][:, :1]), []
    for nodes, masks in zip(levels, full, strict=True):
        weights = masks * _nearness(nodes, share.shape[1])[..., None, None]
        total = _gather(_scatter_sum(weights, nodes.parent, share.shape[1]), nodes.parent)
        share = _gather(share, nodes.parent) * weights / (total + 1e-8)
        result.append(share * masks)
    return tuple(result)


def _nearness(nodes: Nodes, parents: int) -> Tensor:
    """(B, N) exp(-depth) as counted from the nearest present sibling, as in `composite`."""
    depth = nodes.depth.where(nodes.pres > 1e-12, math.inf)
    nearest = depth.new_full((len(depth), parents), math.inf)
    nearest = nearest.scatter_reduce(1, nodes.parent, depth, "amin")
    return (nearest.gather(1, nodes.parent) - nodes.depth).clamp(max=28).exp()  # of absent ones


def box(masks: Tensor) -> Tensor:
    """Poses of the upright boxes around what masks have above 1/2, along the edges of pixels.

    Args:
        masks: (..., H, W), square.
    Returns:
        (..., 2, 3); of a mask that has nothing there, the image's.
    """
    size = masks.shape[-1]
    inside = masks > 0.5
    inside = inside | ~inside.any(-1, keepdim=True).any(-2, keepdim=True)
    edge = torch.arange(size, device=masks.device)
    sides = []
    for line in (inside.any(-2), inside.any(-1)):  # columns, rows
        low = torch.where(line, edge, size).amin(-1)
        high = torch.where(line, edge + 1, 0).amax(-1)
        sides.append((high - low, high + low))
    extent, middle = (
        torch.stack(pair, -1).to(masks.dtype) / size for pair in zip(*sides, strict=True)
    )
    return torch.cat([torch.diag_embed(extent), (middle - 1).unsqueeze(-1)], -1)


def _gather(parents: Tensor, index: Tensor) -> Tensor:
    """(B, N, H, W): what each node's parent holds, out of (B, M, H, W)."""
    return parents.gather(1, index[..., None, None].expand(-1, -1, *parents.shape[-2:]))


def _scatter_sum(children: Tensor, index: Tensor, number: int) -> Tensor:
    """(B, M, H, W): the sum over each parent's children."""
    empty = children.new_zeros(children.shape[0], number, *children.shape[-2:])
    return empty.scatter_add(1, index[..., None, None].expand_as(children), children)


def _union(children: Tensor, index: Tensor, number: int) -> Tensor:
    """(B, M, H, W) in [0, 1]: the mask that a parent's children cover together."""
    return _scatter_sum(children, index, number).clamp(max=1)


def pixel_axes(side: int, device: torch.device | None = None) -> Tensor:
    """(2, side, side) coordinates x and y in [-1, 1] of the middles of pixels."""
    axis = (2 * torch.arange(side, device=device) + 1) / side - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
