"""The Scene, which every program and every world returns, and the vocabulary of site names.

Truth (from a world) and inference (from a program) have the same type, so the same metric, plot and edit
serve both. A scene is a tree given level by level: ``levels[0]`` are the objects (children of the root),
``levels[-1]`` the leaves (parts, in a three-level graph).

Frames. Every node has a canonical frame, the square [-1, 1] x [-1, 1] with x to the right and y down; the
image is the frame of the root. ``pose`` maps canonical to image coordinates, so a node's centre is
``pose[..., 2]``. A length of 1 in the image frame is half the image's side.

Vocabulary of sites. A latent is named after its symbol and its level (``z_pres_1``: presence of the
objects), or the step that draws it; a program with one level may drop the suffix.

=============  ======================================================================
``z_pres``     presence of a node (Bernoulli)
``z_where``    position of a node in its parent's frame
``z_scale``    size of a node relative to its parent
``z_ratio``    height of a node over its width
``z_theta``    rotation of a node relative to its parent
``z_depth``    depth among the siblings, smaller is nearer
``z_what``     appearance of a node
``z_cat``      its category (one-hot), and ``z_attr`` its other attributes
``z_bg``       background, or the content of one segment of it (in GENESIS of any component);
               ``z_bg_mask`` where the segment is
``z_mask``     full shape of an object, pixel by pixel (ECON), and ``z_layer`` whether its layer has one
``z_global``   global latent of a scene
``z_noise``    the part of an image that rounding to 256 values removed (dequantisation)
``images``     the observed image
=============  ======================================================================

Plates: ``batch`` holds the images (dim -2; -1 in programs of steps, -3 in ECON). Along dim -1 are
``nodes_<level>`` with the slots of a level of the Scene, ``components`` of a background or a mixture
(SPACE, GENESIS), and ``cells`` of a map in which objects are found (DeNF).

A program is a module that is called: ``program(images)`` runs the process conditioned on images (B, C, H, W)
in [0, 1], ``program(batch=16)`` samples the prior, and both return a Scene. Its file has a class `Program` with
one argument, a frozen dataclass `Config`, and a table ``VARIANTS`` of configurations, the first the default.

A program may offer more. These attributes are found by name, and training needs none of them:

==============================  =========================================================================
``config.size``                 pixels per side of its images; its world is drawn at this size
``config.colours``              channels C of its images
``redraw(scene)``               the Scene with the image that its patches, poses, presences and depths make;
                                `analysis.edit` renders edited scenes with it
``evidence(images)``            (B,) log p(x) in nats, where it is known exactly: bits per dimension
``round_trip(images)``          f(f⁻¹(x)) of an invertible program, which also has ``evidence``
``memory``                      a memory of templates or None; ``memory.samples(n)`` is (M, n, C + 1, h, w)
``config.experts``              number of experts, each of which explains one kind of object
``arrange(experts, batch)``     scenes of the prior with one layer per expert given, from the back
``placing(layers)``             a context manager; inside, scenes have another number of layers
==============================  =========================================================================

``arrange``, ``placing`` and ``config.experts`` go together: a program with `arrange` is treated as a
program of layers. A recipe can schedule buffers of the program, such as ``presence`` or ``sigma_bg``, as
``program.BUFFER``.

Shape legend: B images, N nodes of a level, C channels, H x W pixels of the image, h x w of a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
NO_OBJECTS = "this Scene has no objects: its program has global latents only"


@dataclass(frozen=True)
class Nodes:
    """The nodes of one level, N slots per image, of which some are present."""

    pres: Tensor
    """(B, N) in [0, 1]: the product of the presences from the root down to the node (GSGN eq. 3)."""
    pose: Tensor
    """(B, N, 2, 3) affine map from the node's canonical frame to the image frame."""
    depth: Tensor
    """(B, N) depth relative to the siblings; the smaller is in front."""
    parent: Tensor
    """(B, N) int64 index of the parent in the level above; 0 (the root) at the first level."""
    category: Tensor | None = None
    """(B, N) int64 class of the node, -1 where absent; None if the program has no categories."""
    attributes: Tensor | None = None
    """(B, N, A) further attributes of the node, in numbers (Discrete-AIR's z_attr); None if it has none."""
    mask: Tensor | None = None
    """(B, N, H, W) in [0, 1]: the visible pixels of the node. `render.visible_masks` fills it in."""
    shape: Tensor | None = None
    """(B, N, H, W) in [0, 1]: all pixels of the node, hidden ones too (ECON's m_t); None if unknown."""
    patch: Tensor | None = None
    """(B, N, C + 1, h, w): colours and mask in the canonical frame."""

    @property
    def centre(self) -> Tensor:
        """(B, N, 2) centre (x, y) in the image frame [-1, 1]."""
        return self.pose[..., 2]

    @property
    def extent(self) -> Tensor:
        """(B, N, 2) half-width along the node's own axes, in the image frame."""
        return self.pose[..., :2].norm(dim=-2)

    @property
    def rotation(self) -> Tensor:
        """(B, N) angle of the node's x axis in the image frame, in radians."""
        return torch.atan2(self.pose[..., 1, 0], self.pose[..., 0, 0])

    @property
    def corners(self) -> Tensor:
        """(B, N, 4, 2) corners of the node's frame in the image frame, in drawing order."""
        square = self.pose.new_tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
        return square @ self.pose[..., :2].mT + self.centre.unsqueeze(-2)

    @property
    def present(self) -> Tensor:
        """(B, N) bool: presence by the threshold 1/2."""
        return self.pres > 0.5


@dataclass(frozen=True)
class Scene:
    """Named tensors of a batch of scenes, the tree included."""

    image: Tensor
    """(B, C, H, W) mean of the image, in [0, 1]."""
    levels: tuple[Nodes, ...]
    """From objects to leaves."""
    background: Tensor | None = None
    """(B, C, H, W) the image without its objects."""
    opacity: Tensor | None = None
    """(B, 1, H, W) in [0, 1]: the share of a pixel that objects explain; None if not computed."""
    boxed: Tensor | None = None
    """(B, 1, H, W): the number of boxes over a pixel, opaque or not; None if not computed."""
    alike: Tensor | None = None
    """(B, 1, H, W): the same number, each box weighted by how alike in hue its cell and the pixel are."""

    @property
    def objects(self) -> Nodes:
        """The children of the root.

        Raises:
            ValueError: the scene has none, because its program has global latents only.
        """
        if not self.levels:
            raise ValueError(NO_OBJECTS)
        return self.levels[0]

    @property
    def parts(self) -> Nodes | None:
        """The leaves, if the graph has levels below the objects."""
        return self.levels[-1] if len(self.levels) > 1 else None

    def __len__(self) -> int:
        return self.image.shape[0]

    def map(self, fn: Callable[[Tensor], Tensor]) -> Scene:
        """Apply `fn` to every tensor, keeping the structure."""
        return _map(self, fn)

    def cpu(self) -> Scene:
        """The same on the CPU, without gradients."""
        return self.map(lambda t: t.detach().cpu())

    def __getitem__(self, index: slice | Tensor) -> Scene:
        """A sub-batch: ``scene[8:16]`` or ``scene[indices]``."""
        if isinstance(index, int) or getattr(index, "ndim", 1) == 0:
            one = int(index)
            raise TypeError(f"a Scene is a batch: write scene[{one}:{one + 1}] for one image")
        return self.map(lambda t: t[index])

    def with_masks(self, masks: tuple[Tensor, ...], shapes: tuple[Tensor, ...] = ()) -> Scene:
        """The same scene with `mask` set at every level, objects first; and `shape`, if given."""
        levels = [replace(nodes, mask=m) for nodes, m in zip(self.levels, masks, strict=True)]
        if shapes:
            levels = [replace(n, shape=shape) for n, shape in zip(levels, shapes, strict=True)]
        return replace(self, levels=tuple(levels))


def _map(tree: T, fn: Callable[[Tensor], Tensor]) -> T:
    if isinstance(tree, Tensor):
        return fn(tree)
    if isinstance(tree, tuple):
        return tuple(_map(item, fn) for item in tree)
    if isinstance(tree, (Nodes, Scene)):
        return type(tree)(**{f.name: _map(getattr(tree, f.name), fn) for f in fields(tree)})
    return tree


def concatenate(scenes: list[Scene]) -> Scene:
    """Join batches of scenes of the same structure along the image axis."""
    if not scenes:
        raise ValueError("concatenate needs at least one Scene, got an empty list")
    flat = [_tensors(s) for s in scenes]
    joined = iter([torch.cat(ts) for ts in zip(*flat, strict=True)])
    return scenes[0].map(lambda _: next(joined))


def _tensors(scene: Scene) -> list[Tensor]:
    found: list[Tensor] = []
    scene.map(lambda t: (found.append(t), t)[1])
    return found
