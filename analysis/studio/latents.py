"""One scene as the values of a program's latent sites: replayed, copied from slot to slot, fitted to a pose.

A program whose objects have sites of their own is changed by changing their values, so that the picture, the
scene and log p(x, z) are the program's. A node's values are a `Part`: its own and those of all nodes below.

Shape legend: B images (1 in a scene under the hand), N slots of a level, n of them in a subtree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from analysis import edit
from analysis.posterior import latent_sites, observed_sites
from inference.objectives import log_prob_per_image
from programs.scene import Scene

Values = Mapping[str, Tensor]
"""site -> value, of one image"""
Part = Mapping[str, Tensor]
"""site (or its stem, in a program of steps) -> values of a node and all nodes below it"""
POSE_SITES = ("z_where", "z_scale", "z_ratio", "z_theta")
"""Beginnings of the names of sites that make a pose."""
ROUNDS = 10
"""Gauss-Newton steps at most to reach a pose."""
NEAR = 2e-3
"""Largest difference of a pose's six numbers that counts as reached, in the image frame."""
SLOW = 0.98
"""Share of the difference that may be left after a step; with more left, the pose is as near as it gets."""
DAMPING = 1e-4
"""Number added to the diagonal of JᵀJ, so that a saturated latent stands still."""
SHORT = 1e-3
"""Largest change of a latent that is not worth a step."""
STRIDE = 1.5
"""Largest change of a latent in one step."""


@dataclass(frozen=True)
class Site:
    """Where the dimensions of a site's value are, counted from the right."""

    batch: int | None
    """the dimension of images; None for a site that is of all images"""
    nodes: int | None
    """the dimension of slots, if it has one"""
    level: int | None
    """the level of the Scene that these slots are of, 0 for objects"""


@dataclass(frozen=True)
class Told:
    """What a program says of latents: its Scene, and their log-probabilities."""

    scene: Scene
    trace: Trace
    log_prior: Tensor
    """(B,) log p(z), nats"""
    log_likelihood: Tensor | None
    """(B,) log p(x | z), nats; None without an image"""


def site_of(node: Mapping) -> Site:
    """The dimensions of a traced site."""
    event = node["fn"].event_dim
    dims = {frame.name: frame.dim - event for frame in node["cond_indep_stack"]}
    slots = [name for name in dims if name.startswith("nodes_")]
    level = int(slots[0].removeprefix("nodes_")) - 1 if slots else None
    return Site(dims.get("batch"), dims[slots[0]] if slots else None, level)


def values_of(trace: Trace, row: int = 0) -> dict[str, Tensor]:
    """The latents of one image of a trace."""
    found = {}
    for name, node in own_latents(trace).items():
        batch, value = site_of(node).batch, node["value"].detach()
        found[name] = value if batch is None else value.narrow(batch, row, 1)
    return found


def own_latents(trace: Trace) -> dict[str, dict]:
    """The latent sites of a trace; ``images``, which a dream draws too, is none of them."""
    return {n: site for n, site in latent_sites(trace).items() if n != "images"}


def given(values: Values) -> Trace:
    """A trace for `poutine.replay` with these values."""
    trace = Trace()
    for name, value in values.items():
        trace.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
    return trace


def run(program: Callable, values: Values, images: Tensor | None, batch: int = 1) -> Trace:
    """The trace of a program with these latents; it draws those that are not given.

    Args:
        images: (B, C, H, W), or None for a scene without an image.
        batch: number of scenes without an image.
    """
    traced = poutine.trace(poutine.replay(program, trace=given(values)))
    return traced.get_trace(batch=batch) if images is None else traced.get_trace(images)


@torch.no_grad()
def tell(program: Callable, values: Values, images: Tensor | None) -> Told:
    """What the program says of latents and of an image, if there is one.

    Raises:
        ValueError: the program returns no Scene.
    """
    return told_by(run(program, values, images), images is not None)


def told_by(trace: Trace, seen: bool) -> Told:
    """What a trace says.

    Args:
        seen: whether the program observed an image.
    Raises:
        ValueError: the program returned no Scene.
    """
    scene = trace.nodes["_RETURN"]["value"]
    if not isinstance(scene, Scene):
        raise ValueError("this program returns no Scene: the studio has nothing to show of it")
    prior = log_prob_per_image(trace, list(own_latents(trace)))
    likelihood = log_prob_per_image(trace, list(observed_sites(trace))) if seen else None
    return Told(scene, trace, prior, likelihood)


def own_sites(told: Told, slot: int, level: int) -> dict[str, Tensor]:
    """The sites of a node and all below it, and which of their elements, as in `edit.sites_of`."""
    return edit.sites_of(_latents(told.trace), told.scene, slot, level)


def in_steps(told: Told) -> bool:
    """Whether the program draws one object after the other, instead of all in a plate."""
    sites = own_latents(told.trace).values()
    return bool(told.scene.levels) and all(site_of(s).nodes is None for s in sites)


def take(told: Told, values: Values, slot: int, level: int) -> dict[str, Tensor]:
    """The values of a node and all nodes below it."""
    return {
        key: values[name] if index is None else values[name].index_select(dim, index)
        for key, name, dim, index in _addresses(told, slot, level)
    }


def put(told: Told, values: Values, slot: int, level: int, part: Part) -> dict[str, Tensor]:
    """The values with those of a node, and all below it, replaced.

    Raises:
        ValueError: the part is of another kind of node.
    """
    changed = dict(values)
    for key, name, dim, index in _addresses(told, slot, level):
        old = changed[name] if index is None else changed[name].index_select(dim, index)
        if key not in part or part[key].shape != old.shape:
            raise ValueError("this node does not fit there: it comes from another level or program")
        changed[name] = (
            part[key] if index is None else changed[name].index_copy(dim, index, part[key])
        )
    return changed


def exchange(told: Told, values: Values, slot: int, other: int, level: int) -> dict[str, Tensor]:
    """The values with two nodes of a level exchanged, and all below them."""
    first, second = (take(told, values, s, level) for s in (slot, other))
    return put(told, put(told, values, slot, level, second), other, level, first)


def element(told: Told, stem: str, slot: int, level: int) -> tuple[str, int | None, int]:
    """Name, dimension and index of a node's own site of this beginning; no dimension in a program of steps.

    Raises:
        ValueError: the node has no such site.
    """
    for _, name, dim, index in _addresses(told, slot, level):
        own = index is None or site_of(told.trace.nodes[name]).level == level
        if own and name.startswith(stem):
            return name, (None if index is None else dim), slot
    raise ValueError(f"this program has no {stem} of its own for each node")


def fit(
    program: Callable,
    told: Told,
    values: Values,
    images: Tensor | None,
    slot: int,
    level: int,
    target: Tensor,
) -> tuple[dict[str, Tensor], float]:
    """Change a node's own place, size and angle until its pose is the target, by Gauss-Newton steps.

    Args:
        target: (2, 3) pose in the image frame.
    Returns:
        The values of the nearest pose that was found, and how far its centre is from the target's.
    """
    own = [
        element(told, stem, slot, level)
        for stem in POSE_SITES
        if any(key.startswith(stem) for key, *_ in _addresses(told, slot, level))
    ]
    if not own:
        raise ValueError("this program has no place of its own for each node")
    start = [values[name] if dim is None else values[name].select(dim, k) for name, dim, k in own]
    theta = torch.cat([part.flatten() for part in start])

    def at(point: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The values at a point, and the six differences that are left."""
        with torch.enable_grad():
            changed = _with(values, own, start, point)
            scene = run(program, changed, images).nodes["_RETURN"]["value"]
            return changed, (target - scene.levels[level].pose[0, slot]).flatten()

    best = _descend(at, theta)
    angles = torch.cat(
        [torch.full_like(p.flatten(), "theta" in o[0]) for p, o in zip(start, own, strict=True)]
    )
    if float(best[1][[0, 1, 3, 4]].abs().max()) > 5 * NEAR and angles.any():
        # an angle ends at half a turn, where it begins on the other side
        best = min(best, _descend(at, torch.where(angles > 0, -theta, theta)), key=_largest)
    return best[0], float(best[1][2::3].norm())


Point = tuple[dict[str, Tensor], Tensor]
"""Values, and the differences from a pose that are left."""


def _largest(point: Point) -> float:
    return float(point[1].abs().max())


def _descend(at: Callable[[Tensor], Point], theta: Tensor) -> Point:
    """The nearest point that Gauss-Newton steps find; a step that does not help is halved."""
    best, least, origin, step = None, torch.inf, theta, torch.zeros_like(theta)
    for _ in range(ROUNDS):
        point = (origin + step).detach().requires_grad_(True)
        values, rest = at(point)
        far = float(rest.detach().abs().max())
        if far < least:
            slow, least, origin = far > SLOW * least, far, point.detach()
            best = {name: value.detach() for name, value in values.items()}, rest.detach()
            step = _stride(rest, point)
        else:
            slow, step = False, step / 2
        if least < NEAR or slow or float(step.abs().max()) < SHORT:
            break
    return best


def _stride(rest: Tensor, theta: Tensor) -> Tensor:
    """The damped Gauss-Newton step that reduces six differences, each at most `STRIDE`."""
    rows = [
        torch.autograd.grad(value, theta, retain_graph=True, allow_unused=True)[0]
        if value.requires_grad
        else None
        for value in rest
    ]
    jacobian = -torch.stack([torch.zeros_like(theta) if row is None else row for row in rows])
    square = jacobian.T @ jacobian + DAMPING * torch.eye(len(theta))
    step = torch.linalg.solve(square, jacobian.T @ rest.detach())
    return step.clamp(-STRIDE, STRIDE)


def _with(values: Values, own: list, start: list[Tensor], theta: Tensor) -> dict[str, Tensor]:
    """The values with the elements `own` from a vector."""
    changed, parts = dict(values), theta.split([part.numel() for part in start])
    for (name, dim, k), old, new in zip(own, start, parts, strict=True):
        new = new.view_as(old)
        changed[name] = new if dim is None else changed[name].select_scatter(new, dim, k)
    return changed


def _latents(trace: Trace) -> Trace:
    """The trace without what was observed, whose sites belong to no node."""
    kept = trace.copy()
    for name in {*observed_sites(trace), "images"} & {*trace.nodes}:
        kept.remove_node(name)
    return kept


def _addresses(told: Told, slot: int, level: int) -> list[tuple[str, str, int, Tensor | None]]:
    """Of a node and all below it: key in a `Part`, site, dimension of slots, and (n,) slots.

    There are no slots in a program of steps.
    """
    found = []
    places = edit.subtree(told.scene, slot, level)
    for name in own_sites(told, slot, level):
        site = site_of(told.trace.nodes[name])
        if site.nodes is None:
            found.append((name.rpartition("_")[0], name, 0, None))
        else:
            found.append((name, name, site.nodes, places[site.level - level][0]))
    return found
