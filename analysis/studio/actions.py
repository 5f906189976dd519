"""What a hand does to a scene. Each action takes a bench and returns the new hand; `ACTIONS` has them by name.

Where objects have places of their own among the latents, `z_where`, an action changes latents, so the program
decides what is possible: a node that is dragged further than its prior reaches stops there, or passes to the
slot whose cell it has come to. Elsewhere the action is an edit of the Scene by `analysis.edit`: DeNF has no
latent of a place, and in ECON it is a part of `z_what`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from analysis import edit
from analysis.studio import latents
from analysis.studio.state import Bench, Change, Copied, Hand, Selection
from programs.blocks.render import pose
from programs.scene import Nodes

REACHED = 0.03
"""Largest distance from the place wanted that is no reason to try another slot, in the image frame."""
CANDIDATES = 2
"""Slots that are tried for a node that has left its own cell."""
ASIDE = 0.2
"""Shift of a duplicate to the right and down, in the image frame."""

Arguments = Mapping[str, Any]
Action = Callable[[Bench, Arguments], Hand]


def place(bench: Bench, arguments: Arguments) -> Hand:
    """Move, resize and turn a node: ``pose`` is its new pose, two rows of three numbers."""
    slot, level, nodes = _node(bench)
    target = torch.tensor(arguments["pose"], dtype=torch.float32)
    if target.shape != (2, 3) or not target.isfinite().all():
        raise ValueError("a pose has two rows of three numbers")
    if not bench.seen.placed:
        return _edited(bench, *_motions(nodes.pose[0, slot], target, slot, level))
    return _placed(bench, bench.hand, slot, level, target)


def nudge(bench: Bench, arguments: Arguments) -> Hand:
    """Move a node by ``by`` (x, y), enlarge it by ``factor``, turn it by ``angle`` about its centre."""
    slot, _, nodes = _node(bench)
    shift = torch.tensor(arguments.get("by", (0.0, 0.0)))
    old = nodes.pose[0, slot]
    turn = pose(
        torch.zeros(2),
        torch.tensor([arguments.get("factor", 1.0)]),
        torch.tensor(arguments.get("angle", 0.0)),
    )
    moved = torch.cat([turn[:, :2] @ old[:, :2], (old[:, 2] + shift).unsqueeze(1)], 1)
    return place(bench, {"pose": moved.tolist()})


def remove(bench: Bench, _: Arguments) -> Hand:
    """Delete a node and all nodes below it."""
    return _present(bench, False) if bench.seen.placed else _edited(bench, "remove")


def presence(bench: Bench, arguments: Arguments) -> Hand:
    """Switch the presence of a node: ``on``."""
    if bench.seen.placed:
        return _present(bench, bool(arguments["on"]))
    if arguments["on"]:
        raise ValueError("this program has no presence to switch on: use undo, or paste an object")
    return _edited(bench, "remove")


def restack(bench: Bench, arguments: Arguments) -> Hand:
    """Bring a node to the front (``way`` -1) or to the back (1) of its siblings."""
    slot, level, nodes = _node(bench)
    way = int(arguments["way"])
    name = "bring_to_front" if way < 0 else "send_to_back"
    if not bench.seen.placed:
        return _edited(bench, name)
    depth = [latents.element(bench.seen.told, "z_depth", k, level) for k in _siblings(nodes, slot)]
    order = sorted(
        zip(_siblings(nodes, slot), depth, strict=True), key=lambda o: float(nodes.depth[0, o[0]])
    )
    values = dict(bench.hand.values)
    levels = [values[name].select(dim, k) for _, (name, dim, k) in order]
    rest = [entry for entry in order if entry[0] != slot]
    own = next(entry for entry in order if entry[0] == slot)
    new = [own, *rest] if way < 0 else [*rest, own]
    for (_, (name, dim, k)), value in zip(new, levels, strict=True):
        values[name] = values[name].select_scatter(value, dim, k)
    return replace(bench.hand, values=values)


def duplicate(bench: Bench, _: Arguments) -> Hand:
    """Put a copy of a node beside it, into a free slot."""
    slot, level, nodes = _node(bench)
    _must_be_present(nodes, slot)
    bench.copied = _copy(bench, slot, level)
    shift = torch.tensor([[0.0, 0.0, ASIDE], [0.0, 0.0, ASIDE]])
    shift[:, 2] *= torch.where(nodes.centre[0, slot] + ASIDE < 0.9, 1.0, -1.0)
    return _pasted(bench, nodes.pose[0, slot] + shift)


def copy(bench: Bench, _: Arguments) -> Hand:
    """Put a node on the clipboard; it can be pasted into another scene."""
    slot, level, nodes = _node(bench)
    _must_be_present(nodes, slot)
    bench.copied = _copy(bench, slot, level)
    return bench.hand


def paste(bench: Bench, _: Arguments) -> Hand:
    """Graft the node on the clipboard into a free slot, at the place that it had."""
    if bench.copied is None:
        raise ValueError("nothing was copied yet: select a node and copy it")
    nodes = bench.copied.scene.levels[bench.copied.level]
    return _pasted(bench, nodes.pose[0, bench.copied.slot])


def slide(bench: Bench, arguments: Arguments) -> Hand:
    """Give one number of a site another value: ``site``, ``index`` among the node's numbers, ``value``."""
    name, index = arguments["site"], int(arguments["index"])
    value = torch.tensor(float(arguments["value"]))
    values = dict(bench.hand.values)
    if name not in values or not value.isfinite():
        raise ValueError(f"there is no site {name}")
    part = own_part(bench, name)
    if not 0 <= index < part.numel():
        raise ValueError(f"{name} has the numbers 0 to {part.numel() - 1}")
    values[name] = _with_part(
        bench, name, part.flatten().index_fill(0, torch.tensor(index), float(value))
    )
    return replace(bench.hand, values=values)


def category(bench: Bench, arguments: Arguments) -> Hand:
    """Make a one-hot site say another class: ``site``, ``index``."""
    name, index = arguments["site"], int(arguments["index"])
    part = own_part(bench, name).flatten()
    if not 0 <= index < len(part):
        raise ValueError(f"{name} has the classes 0 to {len(part) - 1}")
    one = torch.zeros_like(part)
    one[index] = 1
    values = {**bench.hand.values, name: _with_part(bench, name, one)}
    return replace(bench.hand, values=values)


def anew(bench: Bench, arguments: Arguments) -> Hand:
    """Draw sites of a node anew: ``site`` (all but presences if empty) from the ``prior`` or ``posterior``."""
    told, name = bench.seen.told, arguments.get("site") or ""
    chosen = {n: mask for n, mask in _masks(bench).items() if name in ("", n)}
    if not name:
        chosen = {n: mask for n, mask in chosen.items() if not n.startswith("z_pres")}
    if not chosen:
        raise ValueError(f"this node has no site {name}".rstrip())
    source = arguments.get("source", "prior")
    drawn = _from_posterior(bench) if source == "posterior" else _from_prior(bench, chosen)
    values = dict(bench.hand.values)
    for n, mask in chosen.items():
        event = told.trace.nodes[n]["fn"].event_dim
        values[n] = torch.where(mask[(..., *[None] * event)], drawn[n].to(values[n]), values[n])
    return replace(bench.hand, values=values)


ACTIONS: dict[str, Action] = {
    action.__name__: action
    for action in (
        *(place, nudge, remove, presence, restack, duplicate, copy, paste),
        *(slide, category, anew),
    )
}
"""Every action, by the name that the page sends."""


def own_part(bench: Bench, name: str) -> Tensor:
    """A site's value for the selected node alone; the whole value for the scene itself."""
    value, site = bench.hand.values[name], latents.site_of(bench.seen.told.trace.nodes[name])
    at = bench.hand.selection
    if at.slot is None or site.nodes is None or site.level != at.level:
        return value
    return value.select(site.nodes, at.slot)


def _with_part(bench: Bench, name: str, part: Tensor) -> Tensor:
    """A site's whole value with that of the selected node replaced."""
    value, old = bench.hand.values[name], own_part(bench, name)
    part = part.view_as(old).to(value)
    if old.shape == value.shape:
        return part
    site = latents.site_of(bench.seen.told.trace.nodes[name])
    return value.select_scatter(part, site.nodes, bench.hand.selection.slot)


def _masks(bench: Bench) -> dict[str, Tensor]:
    """Sites of the selected node and all below it, or of the scene itself, and which of their elements."""
    told, at = bench.seen.told, bench.hand.selection
    if at.slot is not None:
        return latents.own_sites(told, at.slot, at.level)
    sites = latents.own_latents(told.trace).items()
    return {n: torch.ones(s["fn"].batch_shape, dtype=torch.bool) for n, s in sites}


def _from_prior(bench: Bench, chosen: Mapping[str, Tensor]) -> latents.Values:
    """The scene's latents, the chosen elements drawn from the program given the others."""
    with torch.no_grad(), edit.Afresh(chosen):
        trace = latents.run(bench.program, bench.hand.values, bench.image)
    return latents.values_of(trace)


def _from_posterior(bench: Bench) -> latents.Values:
    """A draw of the guide for this image."""
    if bench.image is None:
        raise ValueError("a dream has no image, so it has no posterior: draw from the prior")
    with torch.no_grad():
        drawn = poutine.trace(bench.guide).get_trace(bench.image)
    return latents.values_of(drawn)


def _node(bench: Bench) -> tuple[int, int, Nodes]:
    """Slot and level of the selected node, and the nodes of its level."""
    at = bench.hand.selection
    if at.slot is None:
        raise ValueError("select a node first")
    return at.slot, at.level, bench.seen.scene.levels[at.level]


def _siblings(nodes: Nodes, slot: int, present: bool = True) -> list[int]:
    """Slots with the same parent that are present, or that are absent."""
    same = (nodes.parent[0] == nodes.parent[0, slot]) & (nodes.present[0] == present)
    return same.nonzero()[:, 0].tolist()


def _must_be_present(nodes: Nodes, slot: int) -> None:
    if not nodes.present[0, slot]:
        raise ValueError("this node is absent: switch its presence on first")


def _edited(bench: Bench, *changes: str | Change) -> Hand:
    """The hand with edits; a name stands for the edit of the selected node without numbers."""
    slot, level, nodes = _node(bench)
    _must_be_present(nodes, slot)
    edits = [Change(c, slot, level) if isinstance(c, str) else c for c in changes]
    return replace(bench.hand, edits=(*bench.hand.edits, *edits))


def _motions(old: Tensor, new: Tensor, slot: int, level: int) -> list[Change]:
    """The shift, the factor and the angle that lead from one pose (2, 3) to another, as edits."""
    shift = (new[:, 2] - old[:, 2]).tolist()
    areas = [float(torch.linalg.det(p[:, :2]).abs()) for p in (old, new)]
    factor = (max(areas[1], 1e-6) / max(areas[0], 1e-6)) ** 0.5
    before, after = (float(torch.atan2(p[1, 0], p[0, 0])) for p in (old, new))
    found = [Change("move", slot, level, tuple(shift))] if max(map(abs, shift)) > 1e-6 else []
    if abs(factor - 1) > 1e-4:
        found.append(Change("scale", slot, level, (factor,)))
    if abs(after - before) > 1e-4:
        found.append(Change("rotate", slot, level, (after - before,)))
    return found


def _placed(bench: Bench, hand: Hand, slot: int, level: int, target: Tensor) -> Hand:
    """The hand with a node at a pose, in another slot if its own does not reach there."""
    told = latents.tell(bench.program, hand.values, bench.image)
    fitted = _fit(bench, told, hand.values, slot, level, target)
    best = (fitted[1], replace(hand, values=fitted[0], selection=Selection(level, slot)))
    if fitted[1] < REACHED or latents.in_steps(told):
        return best[1]
    nodes = told.scene.levels[level]
    others = [k for k in _siblings(nodes, slot) + _siblings(nodes, slot, False) if k != slot]
    others.sort(key=lambda k: float((nodes.centre[0, k] - target[:, 2]).norm()))
    for other in others[:CANDIDATES]:
        values = latents.exchange(told, hand.values, slot, other, level)
        values, far = _fit(bench, told, values, other, level, target)
        if nodes.present[0, other]:  # the one that made room stays where it was
            values, off = _fit(bench, told, values, slot, level, nodes.pose[0, other])
            far = max(far, off)
        if far < best[0]:
            best = far, replace(hand, values=values, selection=Selection(level, other))
    return best[1]


def _fit(
    bench: Bench, told: latents.Told, values: latents.Values, slot: int, level: int, target: Tensor
) -> tuple[dict[str, Tensor], float]:
    return latents.fit(bench.program, told, values, bench.image, slot, level, target)


def _present(bench: Bench, on: bool) -> Hand:
    """The hand with a node's presence switched; in a program of steps the present ones come first."""
    slot, level, nodes = _node(bench)
    told = bench.seen.told
    name, dim, k = latents.element(told, "z_pres", slot, level)
    values = dict(bench.hand.values)
    part = values[name] if dim is None else values[name].select(dim, k)
    new = torch.full_like(part, float(on))
    values[name] = new if dim is None else values[name].select_scatter(new, dim, k)
    hand = replace(bench.hand, values=values)
    return _in_order(told, hand, nodes, slot, on) if latents.in_steps(told) else hand


def _in_order(told: latents.Told, hand: Hand, nodes: Nodes, slot: int, on: bool) -> Hand:
    """The hand of a program of steps with its present objects first, since a step that is absent ends it."""
    there = nodes.present[0].tolist()
    there[slot] = on
    order = sorted(range(len(there)), key=lambda k: not there[k])
    parts = [latents.take(told, hand.values, k, 0) for k in order]
    values = dict(hand.values)
    for k, part in enumerate(parts):
        values = latents.put(told, values, k, 0, part)
        name, *_ = latents.element(told, "z_pres", k, 0)
        values[name] = torch.full_like(values[name], float(there[order[k]]))
    return replace(hand, values=values, selection=Selection(0, order.index(slot)))


def _copy(bench: Bench, slot: int, level: int) -> Copied:
    seen = bench.seen
    part = latents.take(seen.told, bench.hand.values, slot, level) if seen.placed else {}
    return Copied(part, seen.scene, slot, level)


def _pasted(bench: Bench, target: Tensor) -> Hand:
    """The hand with the node of the clipboard in a free slot, at a pose."""
    copied, seen = bench.copied, bench.seen
    if copied.level >= len(seen.scene.levels):
        raise ValueError("the node on the clipboard is of a level that this scene does not have")
    nodes = seen.scene.levels[copied.level]
    free = _free(bench, nodes, copied.level)
    free.sort(key=lambda k: float((nodes.centre[0, k] - target[:, 2]).norm()))
    if not seen.placed:
        return _grafted(bench, free[0], target)
    best, least = bench.hand, torch.inf
    for slot in free[:CANDIDATES]:
        values = latents.put(seen.told, bench.hand.values, slot, copied.level, copied.part)
        name, dim, k = latents.element(seen.told, "z_pres", slot, copied.level)
        part = values[name] if dim is None else values[name].select(dim, k)
        on = torch.ones_like(part)
        values[name] = on if dim is None else values[name].select_scatter(on, dim, k)
        values, far = _fit(bench, seen.told, values, slot, copied.level, target)
        if far < least:
            best = replace(bench.hand, values=values, selection=Selection(copied.level, slot))
            least = far
        if far < REACHED:
            break
    return best


def _free(bench: Bench, nodes: Nodes, level: int) -> list[int]:
    """Free slots of a level: in a program of steps the next one, below an object those of the selected one.

    Raises:
        ValueError: there is none.
    """
    free = (~nodes.present[0]).nonzero()[:, 0].tolist()
    if level:
        at, above = bench.hand.selection, bench.seen.scene.levels[level - 1]
        inside = int(nodes.parent[0, at.slot]) if at.level == level else at.slot
        if at.level not in (level, level - 1) or not above.present[0, inside]:
            raise ValueError("select the object that the part is to belong to")
        free = [k for k in free if int(nodes.parent[0, k]) == inside]
    if not free:
        raise ValueError(f"all {nodes.pres.shape[1]} slots are taken: delete a node first")
    return free[:1] if latents.in_steps(bench.seen.told) else free


def _grafted(bench: Bench, slot: int, target: Tensor) -> Hand:
    """The hand with an edit that grafts the node of the clipboard, and one that moves it to its place."""
    copied = bench.copied
    graft = Change("graft", slot, copied.level, source=copied.scene, source_slot=copied.slot)
    grafted = graft(bench.seen.scene).levels[copied.level].pose[0, slot]
    edits = (*bench.hand.edits, graft, *_motions(grafted, target, slot, copied.level))
    return replace(bench.hand, edits=edits, selection=Selection(copied.level, slot))
