"""What the page shows of a bench, as tables that JSON can hold.

Pictures are PNGs in base64 at the program's own size; the browser enlarges them.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import torch
from torch import Tensor

from analysis.studio import latents
from analysis.studio.actions import own_part
from analysis.studio.state import Bench
from programs.scene import Nodes, Scene

MOST = 64
"""Numbers of a site that are shown at most."""
WIDE = 4.0
"""Standard deviations of the prior that a slider spans to each side."""


def png(image: Tensor) -> bytes:
    """A picture (C, H, W) in [0, 1] as a PNG file."""
    from PIL import Image

    pixels = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.expand(-1, -1, 3).contiguous().numpy()).save(file, "png")
    return file.getvalue()


def url(image: Tensor) -> str:
    """A picture (C, H, W) in [0, 1] as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def bench_view(bench: Bench) -> dict[str, Any]:
    """Everything that changes with the scene."""
    seen, hand = bench.seen, bench.hand
    at = hand.selection
    return {
        "picture": url(seen.scene.image[0]),
        "input": None if bench.image is None else url(bench.image[0]),
        "difference": None
        if bench.image is None
        else url(_difference(bench.image, seen.scene.image)),
        "levels": levels(seen.scene),
        "selection": {"level": at.level, "slot": at.slot},
        "sites": [] if hand.edits else sites(bench),
        "log_p": log_p(bench),
        "undo": len(bench.past) - 1,
        "redo": len(bench.future),
        "copied": bench.copied is not None,
        "placed": seen.placed,
        "turns": not seen.placed or any("theta" in name for name in hand.values),
        "edits": len(hand.edits),
    }


def levels(scene: Scene) -> list[list[dict[str, Any]]]:
    """The nodes of each level, present or not: slot, parent, presence, pose, depth and category."""
    return [[node(nodes, k) for k in range(nodes.pres.shape[1])] for nodes in scene.levels]


def node(nodes: Nodes, slot: int) -> dict[str, Any]:
    """One node of one image."""
    found = {
        "slot": slot,
        "parent": int(nodes.parent[0, slot]),
        "present": bool(nodes.present[0, slot]),
        "pose": rounded(nodes.pose[0, slot]),
        "depth": finite(nodes.depth[0, slot]),
    }
    if nodes.category is not None:
        found["category"] = int(nodes.category[0, slot])
    return found


def sites(bench: Bench) -> list[dict[str, Any]]:
    """The selected node's own sites, or those of the scene that are of no node."""
    told, at, found = bench.seen.told, bench.hand.selection, []
    below = {} if at.slot is None else latents.own_sites(told, at.slot, at.level)
    for name, traced in latents.own_latents(told.trace).items():
        site = latents.site_of(traced)
        of_node = name in below and site.level in (None, at.level)
        of_scene = at.slot is None and site.nodes is None and not _of_steps(bench, name)
        if of_node or of_scene:
            found.append(_site(bench, name, traced))
    return found


def _of_steps(bench: Bench, name: str) -> bool:
    """Whether a site belongs to an object of a program of steps."""
    told = bench.seen.told
    if not told.scene.levels or not latents.in_steps(told):
        return False
    slots = range(told.scene.objects.pres.shape[1])
    return any(name in latents.own_sites(told, k, 0) for k in slots)


def _site(bench: Bench, name: str, traced: dict) -> dict[str, Any]:
    """A site's kind, its numbers, and the range of its sliders."""
    part = own_part(bench, name).flatten()
    support = str(traced["fn"].support)
    kind = "switch" if "Boolean" in support else "class" if "OneHot" in support else "numbers"
    shown = part[:MOST]
    found = {"name": name, "kind": kind, "count": len(part), "values": rounded(shown)}
    if kind == "numbers":
        centre, spread = _prior(bench, name, traced)
        found["low"] = rounded(torch.minimum(centre - WIDE * spread, shown))
        found["high"] = rounded(torch.maximum(centre + WIDE * spread, shown))
    return found


def _prior(bench: Bench, name: str, traced: dict) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a node's site in the prior; 0 and 1 if it knows none."""
    value = bench.hand.values[name]
    whole = []
    for moment, other in (("mean", 0.0), ("variance", 1.0)):
        try:
            number = getattr(traced["fn"], moment).expand_as(value)
        except (NotImplementedError, AttributeError, RuntimeError):
            number = torch.full_like(value, other)
        whole.append(torch.where(number.isfinite(), number, other))
    site, at = latents.site_of(traced), bench.hand.selection
    own = at.slot is not None and site.level == at.level and site.nodes is not None
    mean, variance = (w.select(site.nodes, at.slot) if own else w for w in whole)
    return mean.flatten()[:MOST], variance.clamp(min=0).sqrt().flatten()[:MOST]


def log_p(bench: Bench) -> dict[str, float | None]:
    """log p(z), log p(x | z) and log p(x, z) in nats, and how far they are from the first scene's.

    They are None where the scene was edited in a way that no latents say.
    """
    known = not bench.hand.edits
    now, then = _scores(bench.seen.told), _scores(bench.first.told)
    found: dict[str, float | None] = {}
    for name, value in now.items():
        ok = known and value is not None
        found[name] = value if ok else None
        found[f"{name}_change"] = value - then[name] if ok else None
    return found


def _scores(told: latents.Told) -> dict[str, float | None]:
    prior = finite(told.log_prior[0])
    if told.log_likelihood is None:
        return {"prior": prior, "likelihood": None, "joint": None}
    likelihood = finite(told.log_likelihood[0])
    return {"prior": prior, "likelihood": likelihood, "joint": prior + likelihood}


def _difference(image: Tensor, mean: Tensor) -> Tensor:
    """(C, H, W) distance of the picture from the input, black where they agree."""
    return (image[0] - mean[0]).abs()


def finite(value: Tensor) -> float:
    """A number that JSON can hold."""
    number = float(value)
    return number if math.isfinite(number) else math.copysign(1e30, number)


def rounded(value: Tensor) -> list:
    """Numbers to five digits after the point."""
    return torch.nan_to_num(value.detach().double()).mul(1e5).round().div(1e5).tolist()
