"""Edit scene graphs: move, scale, recolour, restack, remove, keep, swap, graft, …; then render them.

A scene graph holds appearance and place separately, so new scenes are made by changing numbers in an
inferred one (GSGN, section 4 and figure 4). Edits are pure functions Scene -> Scene. Chain them; `render`
draws the result:

    scene = infer(program, guide, images)[3:4]
    scene = edit.scale(edit.move(scene, 0, (0.4, 0)), 0, 1.5)
    picture = edit.render(program, scene).image

A node is addressed by `slot` and `level` (0: objects, -1: leaves), and an edit includes all nodes below it;
`at` finds the slot of what is at a place.
An edit changes every image of a batch in the same way; the node must be present in all of them.

Lengths are in the image frame (the image's side is 2, y points down), angles in radians from x towards y.
Before `render`, the image and the patches of inner nodes are still the old ones. Visible masks are dropped.

Programs limit the edits. GSGN composes an object in its own window and cuts off parts that leave it:
`widen` it first. The objects of AIR and Discrete-AIR are added up, so restacking has no effect.

Shape legend: B images, N slots of a level, n of them in a subtree, C channels, h x w pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from analysis.posterior import Mode, check_images
from programs.blocks.render import chain, inverse, pose
from programs.scene import NO_OBJECTS, Nodes, Scene

STEP = 4.0
"""Depth between a restacked node and the next one, which then shines through by 2 % (exp(-4)). Nearer soft
masks have more weight (eq. 22), so more depth would widen the dark seams at their edges."""
DARK = 0.05
"""Number added to both brightnesses of a ratio, so that black can be recoloured too."""

Places = tuple[Tensor, ...]
"""Slots (B, n) of a subtree, one tensor per level from its top to the leaves."""


def render(program: Callable, scene: Scene) -> Scene:
    """The Scene with its image, and its inner nodes' patches, as `program` draws them.

    Raises:
        ValueError: the program cannot draw Scenes, or the Scene has no patches to draw.
    """
    if not hasattr(program, "redraw"):
        kind = f"{type(program).__module__}.{type(program).__qualname__}"
        raise ValueError(f"{kind} cannot draw a Scene: add a method redraw(scene) -> Scene to it")
    _must_have_patches(scene)
    return program.redraw(scene)


def at(scene: Scene, point: Sequence[float] | Tensor, level: int = 0) -> int:
    """The slot of the present node whose centre is nearest to a point (x, y) of a single image.

    Slots are a program's own, and another training may give a thing another one; its place remains.

    Raises:
        ValueError: the Scene is a batch, or no node of the level is present.
    """
    nodes = scene.levels[_level(scene, level)]
    if len(scene) != 1:
        raise ValueError(f"a Scene of {len(scene)} images: expected one, such as scene[:1]")
    if not nodes.present.any():
        raise ValueError(f"no node of level {level} is present, so none is at {tuple(point)}")
    distance = (nodes.centre - _numbers(scene, "point", point, 2)[:, None]).square().sum(-1)
    return int(distance.masked_fill(~nodes.present, torch.inf).argmin())


def move(scene: Scene, slot: int, by: Sequence[float] | Tensor, level: int = 0) -> Scene:
    """Shift a node by (x, y): two numbers, or (B, 2).

    >>> from programs.worlds import shapes2d
    >>> scene = shapes2d.world(1, torch.Generator().manual_seed(0))
    >>> slot = int(scene.objects.present[0].nonzero()[0])
    >>> moved = move(scene, slot, (0.25, 0.0))
    >>> (moved.objects.centre - scene.objects.centre)[0, slot].tolist()
    [0.25, 0.0]
    """
    by = _numbers(scene, "by", by, 2)
    return _carry(scene, slot, level, pose(by, torch.ones_like(by), torch.zeros_like(by[:, 0])))


def scale(
    scene: Scene,
    slot: int,
    factor: float | Tensor,
    level: int = 0,
    about: Sequence[float] | Tensor | None = None,
) -> Scene:
    """Enlarge a node.

    Args:
        factor: one number, or (B).
        about: the point (x, y), or (B, 2), that does not move, for example the point where a part touches
            the next (figure 4B); by default the node's centre.
    """
    factor = _numbers(scene, "factor", factor)
    if not (factor > 0).all():
        raise ValueError(f"factor={factor.tolist()}: expected numbers above 0")
    return _turn(scene, slot, level, factor, torch.zeros_like(factor), about)


def rotate(
    scene: Scene,
    slot: int,
    angle: float | Tensor,
    level: int = 0,
    about: Sequence[float] | Tensor | None = None,
) -> Scene:
    """Turn a node by `angle`, one number or (B), about its centre or the point `about`, as in `scale`."""
    angle = _numbers(scene, "angle", angle)
    return _turn(scene, slot, level, torch.ones_like(angle), angle, about)


def widen(scene: Scene, slot: int, factor: float | Tensor, level: int = 0) -> Scene:
    """Enlarge a node's own frame, by one number or (B), without moving the nodes below it.

    Only the picture's sharpness changes, and parts have room to be moved, enlarged and added.
    """
    places, (_, *below) = _branch(scene, slot, level)
    wide, *_ = _pick(scale(scene, slot, factor, level), places)
    return _put(scene, places, [wide, *below])


def recolour(scene: Scene, slot: int, colour: Sequence[float] | Tensor, level: int = 0) -> Scene:
    """Give the leaves of a node another colour and keep their shading.

    A pixel becomes `colour` times its brightness (mean of the channels) relative to the mean brightness
    over the leaf's mask: a leaf of one colour becomes `colour`, and light and shadow stay.

    Args:
        colour: C numbers in [0, 1], or (B, C).
    """
    _must_have_patches(scene)
    places, branch = _branch(scene, slot, level)
    colours, mask = branch[-1].patch[:, :, :-1], branch[-1].patch[:, :, -1:]
    colour = _numbers(scene, "colour", colour, colours.shape[2])[:, None, :, None, None]
    bright = colours.mean(2, keepdim=True)
    weight = mask / mask.sum((-2, -1), keepdim=True).clamp(min=1e-6)
    mean = (weight * bright).sum((-2, -1), keepdim=True)
    colours = (colour * (bright + DARK) / (mean + DARK)).clamp(0, 1)
    leaves = replace(branch[-1], patch=torch.cat([colours, mask], 2))
    return _put(scene, places, [*branch[:-1], leaves])


def bring_to_front(scene: Scene, slot: int, level: int = 0) -> Scene:
    """Put a node in front of all its siblings."""
    return _restack(scene, slot, level, -1)


def send_to_back(scene: Scene, slot: int, level: int = 0) -> Scene:
    """Put a node behind all its siblings."""
    return _restack(scene, slot, level, 1)


def remove(scene: Scene, slot: int, level: int = 0) -> Scene:
    """Remove a node. Its empty slot stays and can be filled by `graft`."""

    def absent(nodes: Nodes) -> Nodes:
        category = None if nodes.category is None else torch.full_like(nodes.category, -1)
        return replace(nodes, pres=torch.zeros_like(nodes.pres), category=category)

    return _change(scene, slot, level, absent)


def keep(scene: Scene, chosen: Tensor) -> Scene:
    """Remove every object but the chosen ones, with all nodes below; absent objects stay absent.

    Args:
        chosen: (B, N) bool, of the objects' slots.
    """
    kept, levels = chosen, []
    for number, nodes in enumerate(scene.levels):
        if number:
            kept = kept.gather(1, nodes.parent)
        category = None if nodes.category is None else nodes.category.where(kept, -1)
        levels.append(replace(nodes, pres=nodes.pres * kept, category=category, mask=None))
    return replace(scene, levels=tuple(levels))


def swap(scene: Scene, slot: int, other: int, level: int = 0) -> Scene:
    """Exchange two nodes of a level by `graft`, which defines what stays."""
    return graft(graft(scene, slot, scene, other, level), other, scene, slot, level)


def graft(scene: Scene, slot: int, source: Scene, source_slot: int, level: int = 0) -> Scene:
    """Replace a node by one of another Scene.

    The old node's centre, and its depth among the siblings, stay. The new node brings its appearance, its
    size and angle relative to its parent, and all nodes below it with their relative poses. (The paper
    moves a new part until it touches the next: use `move`, or `scale` about the point where they should
    touch.)

    An empty slot may be filled if its parent is present; the node gets the place that the program left in
    the slot.

    Args:
        source: one image, used for every image of `scene`, or as many images as `scene` has.
    Raises:
        ValueError: the two do not fit: other numbers of images, levels, children, or other sizes of patches.
    """
    if len(source) not in (1, len(scene)):
        raise ValueError(
            f"the source has {len(source)} images, the Scene {len(scene)}: give one, source[0:1], or as many"
        )
    source = source.map(lambda t: t.expand(len(scene), *t.shape[1:]))
    places = subtree(scene, slot, level)
    _must_have_a_parent(scene, slot, level)
    old, new = _pick(scene, places), _branch(source, source_slot, level)[1]
    _must_fit(old, new)
    linear = chain(_above(scene, slot, level), inverse(_above(source, source_slot, level)))[..., :2]
    shift = old[0].pose[:, 0, :, 2:] - linear @ new[0].pose[:, 0, :, 2:]
    new = [_carried(nodes, torch.cat([linear, shift], -1)) for nodes in new]
    return _put(scene, places, [replace(new[0], depth=old[0].depth), *new[1:]])


def resample(
    program: Callable,
    guide: Callable,
    images: Tensor,
    slot: int,
    level: int = 0,
    sites: str = "*",
    keep_presence: bool = True,
) -> Scene:
    """The scene at the guide's mode, with one node and all nodes below it drawn from the program's prior.

    Draws are conditioned on the rest, parents before children, and use the global generator
    (``pyro.set_rng_seed``). A node's sites are those in a plate ``nodes_<level>``; in a program without
    such plates, the sites of its step, which end in the same number as the slot-th sites of the guide.

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        sites: pattern of the sites to draw: ``z_what*`` changes the appearance and keeps poses and parts.
        keep_presence: keep presences, and draw the other sites only. (In a program of steps, an object that
            is drawn absent also removes all later ones.)
    Raises:
        ValueError: no such node, it has no sites of its own (`sites_of`), none of them matches, or `images`
            have a wrong shape, type or range.
    """
    check_images(images, program)
    with torch.no_grad():
        with Mode():
            trace = poutine.trace(guide).get_trace(images)
        inferred = poutine.replay(program, trace=trace)
        scene = inferred(images)
        own = sites_of(trace, scene, slot, level)
        if not own:
            raise ValueError(
                f"slot={slot}, level={level}: the program has no latents of this node alone, so no one can be "
                "drawn without the others; `anew` draws sites of the whole scene"
            )
        if keep_presence:
            _must_be_present(scene, slot, level)
            own.pop(next((name for name in own if name.startswith("z_pres")), ""), None)
        chosen = {name: mask for name, mask in own.items() if fnmatchcase(name, sites)}
        if not chosen:
            known = ", ".join(own) or "none"
            raise ValueError(f"sites={sites!r} matches no site of the node; there are {known}")
        with Afresh(chosen):
            return inferred(images)


def anew(program: Callable, trace: Trace, sites: str) -> Scene:
    """Scenes as in a trace, except for the sites that match a pattern, which the program draws given the
    others.

    ``anew(program, trace, "z_[!g]*")`` draws GNM's symbols under a fixed z^g: with the guide's trace that
    of an image, with the program's own trace one of the prior (supplement, 1.2). Inside `Mode` of the same
    sites they are at their mode.

    Raises:
        ValueError: no site matches.
    """
    kept = trace.copy()
    latents = [name for name in trace.stochastic_nodes if name.startswith("z_")]
    chosen = [name for name in latents if fnmatchcase(name, sites)]
    if not chosen:
        raise ValueError(f"sites={sites!r} matches none; there are {', '.join(latents)}")
    for name in chosen:
        kept.remove_node(name)
    with torch.no_grad():
        return poutine.replay(program, trace=kept)(batch=len(trace.nodes["batch"]["value"]))


class Afresh(Messenger):
    """Around a replayed program, draw some elements of its latent sites from their priors."""

    def __init__(self, chosen: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.chosen = chosen
        """site -> bool that broadcasts to its batch shape"""

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.chosen:
            chosen = self.chosen[msg["name"]][(..., *[None] * msg["fn"].event_dim)]
            msg["value"] = torch.where(chosen, msg["fn"].sample(), msg["value"])


def sites_of(trace: Trace, scene: Scene, slot: int, level: int) -> dict[str, Tensor]:
    """The latent sites of a node and all below it, and which of their elements: bool (B, N), or (B, 1, …).

    Empty if objects have no sites of their own: DeNF finds them in a map, and the looks of all of GENESIS'
    components are one site. No site `z_bg*` is an object's.
    """
    places = subtree(scene, slot, level)
    plates = {
        name: [f.name for f in trace.nodes[name]["cond_indep_stack"] if f.name.startswith("nodes_")]
        for name in trace.stochastic_nodes
    }
    if not any(plates.values()):  # a program of steps
        whole = torch.ones_like(scene.objects.present[:, 0])
        step_of = {n: n.rpartition("_")[2] for n in plates if not n.startswith("z_bg")}
        steps = [step for step in dict.fromkeys(step_of.values()) if step.isdecimal()]
        if slot >= len(steps):
            return {}
        own = [name for name, step in step_of.items() if step == steps[slot]]
        dims = {name: len(trace.nodes[name]["fn"].batch_shape) for name in own}
        return {name: whole.view(-1, *[1] * (dims[name] - 1)) for name in own}
    first = len(scene.levels) - len(places) + 1
    members = {}
    for number, slots in enumerate(places, start=first):
        nobody = torch.zeros_like(scene.levels[number - 1].present)
        members[f"nodes_{number}"] = nobody.scatter(1, slots, True)
    return {name: members[p] for name, found in plates.items() for p in found if p in members}


def subtree(scene: Scene, slot: int, level: int = 0) -> Places:
    """Slots of a node and of all nodes below it, children in the order of their parents.

    Raises:
        ValueError: no such level or slot, or nodes of a level have different numbers of children.
    """
    level = _level(scene, level)
    number = scene.levels[level].pres.shape[1]
    if not 0 <= slot < number:
        raise ValueError(f"slot={slot}: level {level} of the Scene has slots 0 to {number - 1}")
    places = [torch.full((len(scene), 1), slot, device=scene.image.device)]
    for nodes in scene.levels[level + 1 :]:
        below = nodes.parent[:, None] == places[-1][..., None]  # (B, n, N)
        if len(below.sum(-1).unique()) > 1:
            raise ValueError(
                "nodes of a level have different numbers of children: images cannot be edited alike"
            )
        places.append(below.nonzero()[:, 2].view(len(scene), -1))
    return tuple(places)


def _branch(scene: Scene, slot: int, level: int) -> tuple[Places, list[Nodes]]:
    """A present node and all nodes below it: their slots, and the nodes themselves."""
    places = subtree(scene, slot, level)
    _must_be_present(scene, slot, level)
    return places, _pick(scene, places)


def _pick(scene: Scene, places: Places) -> list[Nodes]:
    """The nodes at `places`, which end with the leaves."""
    rows = _rows(scene)[:, None]
    picked = []
    for nodes, slots in zip(scene.levels[-len(places) :], places, strict=True):
        tensors = {f.name: getattr(nodes, f.name) for f in fields(nodes)}
        picked.append(Nodes(**{k: t if t is None else t[rows, slots] for k, t in tensors.items()}))
    return picked


def _put(scene: Scene, places: Places, branch: Sequence[Nodes]) -> Scene:
    """The Scene with other nodes at `places`, below the same parents, and without visible masks."""
    rows = _rows(scene)[:, None]
    levels = [replace(nodes, mask=None) for nodes in scene.levels]
    for k, (slots, new) in enumerate(zip(places, branch, strict=True), start=-len(places)):
        old = {f.name: getattr(levels[k], f.name) for f in fields(new) if f.name != "parent"}
        changed = {
            name: tensor.index_put((rows, slots), getattr(new, name))
            for name, tensor in old.items()
            if tensor is not None
        }
        levels[k] = replace(levels[k], **changed)
    return replace(scene, levels=tuple(levels))


def _change(scene: Scene, slot: int, level: int, change: Callable[[Nodes], Nodes]) -> Scene:
    """Change a node and all nodes below it, level by level."""
    places, branch = _branch(scene, slot, level)
    return _put(scene, places, [change(nodes) for nodes in branch])


def _carry(scene: Scene, slot: int, level: int, motion: Tensor) -> Scene:
    """Apply an affine map (B, 2, 3) of the image frame to a node and all nodes below it: relative poses do
    not change."""
    return _change(scene, slot, level, lambda nodes: _carried(nodes, motion))


def _carried(nodes: Nodes, motion: Tensor) -> Nodes:
    return replace(nodes, pose=chain(motion[:, None], nodes.pose))


def _turn(
    scene: Scene,
    slot: int,
    level: int,
    factor: Tensor,
    angle: Tensor,
    about: Sequence[float] | Tensor | None,
) -> Scene:
    """Enlarge by `factor` (B) and turn by `angle` (B) about a point, or else the node's centre."""
    if about is None:
        about = _pick(scene, subtree(scene, slot, level))[0].centre[:, 0]
    about = _numbers(scene, "about", about, 2)
    to_origin = pose(-about, torch.ones_like(about), torch.zeros_like(angle))
    return _carry(scene, slot, level, chain(pose(about, factor[:, None], angle), to_origin))


def _restack(scene: Scene, slot: int, level: int, way: int) -> Scene:
    """Put a node `STEP` in front of (way -1) or behind (1) all its present siblings, if it has any."""
    places, (node, *below) = _branch(scene, slot, level)
    nodes = scene.levels[level]
    siblings = nodes.present & (nodes.parent == node.parent)
    siblings[:, slot] = False
    outermost = (way * nodes.depth).masked_fill(~siblings, -torch.inf).amax(1, keepdim=True)
    depth = (way * (outermost + STEP)).where(siblings.any(1, keepdim=True), node.depth)
    return _put(scene, places, [replace(node, depth=depth), *below])


def _above(scene: Scene, slot: int, level: int) -> Tensor:
    """(B, 2, 3) pose of a node's parent; that of the root is the identity."""
    level = _level(scene, level)
    if level == 0:
        return torch.eye(2, 3).to(scene.image).expand(len(scene), 2, 3)
    return scene.levels[level - 1].pose[_rows(scene), scene.levels[level].parent[:, slot]]


def _rows(scene: Scene) -> Tensor:
    return torch.arange(len(scene), device=scene.image.device)


def _level(scene: Scene, level: int) -> int:
    number = len(scene.levels)
    if not number:
        raise ValueError(NO_OBJECTS)
    if not -number <= level < number:
        raise ValueError(
            f"level={level}: the Scene has {number} levels, from 0 (objects) to {number - 1}, also called -1"
        )
    return level % number


def _numbers(scene: Scene, name: str, value: object, *shape: int) -> Tensor:
    """(B, *shape) from numbers of that shape for all images, or for each image."""
    tensor = torch.as_tensor(value).to(scene.image)
    each = (len(scene), *shape)
    if tensor.shape not in (shape, each):
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}: expected {shape} for all images alike, or {each}"
        )
    return tensor.expand(each)


def _must_have_patches(scene: Scene) -> None:
    if not scene.levels or scene.levels[-1].patch is None:
        raise ValueError(
            "the Scene has no patches to draw (a world's truth has none): infer it with a program first"
        )


def _must_be_present(scene: Scene, slot: int, level: int) -> None:
    level = _level(scene, level)
    present = scene.levels[level].present
    if not present[:, slot].all():
        absent = (~present[:, slot]).nonzero()[:, 0].tolist()
        raise ValueError(
            f"slot {slot} of level {level} is absent in images {absent}: edit those that have it, "
            f"scene[scene.levels[{level}].present[:, {slot}]], or one of the slots "
            f"{present.all(0).nonzero()[:, 0].tolist()}, which all have"
        )


def _must_have_a_parent(scene: Scene, slot: int, level: int) -> None:
    level = _level(scene, level)
    if level == 0:
        return
    parent = scene.levels[level].parent[:, slot]
    present = scene.levels[level - 1].present[_rows(scene), parent]
    if not present.all():
        raise ValueError(
            f"slot {slot} of level {level} has no present parent in images "
            f"{(~present).nonzero()[:, 0].tolist()}: graft slot {int(parent[0])} of level {level - 1} first"
        )


def _must_fit(old: list[Nodes], new: list[Nodes]) -> None:
    """Raise a ValueError unless one subtree can replace the other."""
    if [n.pres.shape for n in old] != [n.pres.shape for n in new]:
        counts = [[n.pres.shape[1] for n in branch] for branch in (old, new)]
        raise ValueError(
            f"the node's subtree has {counts[0]} slots by level, the source's {counts[1]}: graft between "
            "trees of the same levels and out-degrees"
        )
    for a, b in zip(old, new, strict=True):
        for name in ("category", "attributes", "patch"):
            here, there = (
                t if t is None else tuple(t.shape[2:]) for t in (getattr(a, name), getattr(b, name))
            )
            if here != there:
                raise ValueError(
                    f"the node has a {name} of shape {here}, the source's {there}: graft between Scenes of "
                    "programs with the same settings"
                )
