"""Abilities of programs, after ECON's Table 1 (von Kügelgen et al., 2020), measured by running them.

Nothing is trained: abilities depend on how a process is written, not on its training, nor on the size of
networks, which is that of the preset `tiny`. Each is tested by an intervention on the latents of scenes, or
by a call. `python -m analysis.papers econ table1` prints them.

decompose    every object of an explained image has latents that change the picture where that object is, and
             nowhere else
generate     a scene of the same kind can be drawn without an image: every latent that the guide infers has a
             prior
recombine    an object's latents, put among those of another scene, give the same object there
order        the same objects in the reverse order of depth make another picture
amortize     the guide is called once for all images, its answer for an image does not depend on the others of
             the batch, and other images get other answers

Shape legend: B images, N objects, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from analysis import edit
from analysis.evaluate import with_masks
from analysis.posterior import Mode, infer
from inference.loading import load
from inference.recipes import recipe
from inference.settings import override
from programs.scene import Nodes, Scene

SEEN = 1e-4
"""Least change of a pixel in [0, 1] that counts."""
DRAWS = 16
"""Scenes of the prior; all their objects are made present, since a prior may place none, and some overlap."""
PROGRAMS = {
    "gsgn": "gsgn",
    "space": "space",
    "air": "air",
    "discrete_air": "discrete_air",
    "econ": "econ",
    "monet": "econ",
    "gnm": "gnm",
    "genesis": "genesis",
    "convdraw": "convdraw",
    "vae": "vae",
}
"""Variants in the table, with their program files."""
TEXTS = {
    "decompose": "decompose scenes into objects and reconstruct",
    "generate": "generate scenes like those inferred, without an image",
    "recombine": "recombine objects of several scenes",
    "order": "… in a chosen order of depth",
    "amortize": "amortized inference",
}


@torch.no_grad()
def decomposes(program: Callable, guide: Callable, images: Tensor) -> bool:
    """Whether every object inferred from images (B, C, H, W) in [0, 1] can be changed alone."""
    trace = _everything(poutine.trace(guide).get_trace(images))
    scene = _scene(program, trace)
    if not scene.levels:
        return False
    before = _places(scene)
    own = ~before.any(-1).any(-1)  # objects without visible pixels
    for name, part in _elements(trace):
        after = _scene(program, _with(trace, {name: _other(trace, name, part)}))
        changed = (after.image - scene.image).abs().amax(1) > SEEN
        outside = changed[:, None] & ~(before | _places(after))
        own |= changed.any(-1).any(-1)[:, None] & ~outside.any(-1).any(-1)
    return bool(own.all())


@torch.no_grad()
def generates(program: Callable, guide: Callable, images: Tensor) -> bool:
    """Whether scenes like those inferred from `images` (B, C, H, W) can be drawn without an image."""
    try:
        first, second = (poutine.trace(program).get_trace(batch=DRAWS) for _ in range(2))
    except (TypeError, ValueError, AttributeError):
        return False
    inferred = poutine.trace(guide).get_trace(images)
    scene = _scene(program, inferred)
    drawn, other = (_scene(program, _everything(t)) for t in (first, second))
    alike = [n.pres.shape[1:] for n in drawn.levels] == [n.pres.shape[1:] for n in scene.levels]
    return (
        {*_latents(inferred)} <= {*_latents(first)}
        and alike
        and drawn.image.shape[1:] == images.shape[1:]
        and not torch.equal(drawn.image, other.image)
    )


@torch.no_grad()
def recombines(program: Callable, number: int = DRAWS) -> bool:
    """Whether objects of one sample of the prior can be put into another sample, which does not change."""
    a, b = (_everything(poutine.trace(program).get_trace(batch=number)) for _ in range(2))
    one, two = _scene(program, a), _scene(program, b)
    if not _apart(one):
        return False
    slots, moved = range(one.objects.pres.shape[1]), torch.zeros(one.objects.pres.shape[1])
    for slot in slots:
        chosen = edit.sites_of(a, one, slot, 0)
        values = {
            name: torch.where(_wide(mask, a, name), a.nodes[name]["value"], b.nodes[name]["value"])
            for name, mask in chosen.items()
        }
        mixed = _scene(program, _with(b, values)).objects
        of_one, of_two = _same(mixed, one.objects), _same(mixed, two.objects)
        if not (of_one | of_two).all() or (of_one & ~of_two).sum(1).max() > 1:
            return False
        moved += (of_one & ~of_two).all(0)
    return bool((moved > 0).sum() >= 2)


@torch.no_grad()
def orders(program: Callable, number: int = DRAWS) -> bool:
    """Whether the same objects in the reverse order of depth make another picture."""
    trace = _everything(poutine.trace(program).get_trace(batch=number))
    if not _apart(_scene(program, trace)):
        return False
    names = _latents(trace)
    depths = [n for n in names if n.startswith("z_depth")]
    if any(_slots(trace, n) for n in names):
        values = {n: trace.nodes[n]["value"].flip(-1 - _events(trace, n)) for n in depths}
    else:  # a program of steps
        values = {n: trace.nodes[m]["value"] for n, m in _mirrored(names).items()}
    before, after = (_scene(program, t).image for t in (trace, _with(trace, values)))
    return bool((after - before).abs().max() > SEEN)


def _mirrored(names: list[str]) -> dict[str, str]:
    """For each site of a step the same site of the step in the reverse order.

    Steps that lack a site of the others, as ECON's background lacks a mask, stay where they are.
    """
    kinds: dict[int, set[str]] = {}
    for name in names:
        kind, _, step = name.rpartition("_")
        kinds.setdefault(int(step), set()).add(kind)
    most = max(map(len, kinds.values()))
    steps = sorted(step for step, own in kinds.items() if len(own) == most)
    pairs = zip(steps, reversed(steps), strict=True)
    return {f"{kind}_{a}": f"{kind}_{b}" for a, b in pairs for kind in kinds[a]}


@torch.no_grad()
def amortizes(program: Callable, guide: Callable, images: Tensor) -> bool:
    """Whether one call of the guide explains all `images` (B, C, H, W), at least 2 and different."""
    calls = []

    def counted(x: Tensor) -> None:
        calls.append(len(x))
        guide(x)

    together = infer(program, counted, images, rows=len(images))
    alone = infer(program, guide, images[:1])
    with Mode():
        nodes = poutine.trace(guide).get_trace(images).nodes
    answers = [site["value"] for name, site in nodes.items() if name.startswith("z_")]
    return (
        calls == [len(images)]
        and torch.allclose(together.image[:1], alone.image, atol=1e-3)
        and any(not torch.equal(v[0], v[1]) for v in answers)
    )


def abilities(program: Callable, guide: Callable, images: Tensor) -> dict[str, bool]:
    """Every property of a program and its guide, by name.

    Args:
        images: (B, C, H, W) in [0, 1], at least 2 and different.
    """
    return {
        "decompose": decomposes(program, guide, images),
        "generate": generates(program, guide, images),
        "recombine": recombines(program),
        "order": orders(program),
        "amortize": amortizes(program, guide, images),
    }


def table(found: Mapping[str, Mapping[str, bool]]) -> str:
    """Markdown table from program -> property -> whether it has the property."""
    lines = [
        "| | " + " | ".join(f"`{name}`" for name in found) + " |",
        "|---" * (len(found) + 1) + "|",
    ]
    for key, text in TEXTS.items():
        cells = ("yes" if properties[key] else "no" for properties in found.values())
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _latents(trace: Trace) -> list[str]:
    return [name for name in trace.stochastic_nodes if name.startswith("z_")]


def _everything(trace: Trace) -> Trace:
    """The trace with all objects present."""
    pres = [n for n in _latents(trace) if n.startswith("z_pres")]
    return _with(trace, {n: torch.ones_like(trace.nodes[n]["value"]) for n in pres})


def _with(trace: Trace, values: Mapping[str, Tensor]) -> Trace:
    changed = trace.copy()
    for name, value in values.items():
        changed.nodes[name] = {**trace.nodes[name], "value": value}
    return changed


def _scene(program: Callable, trace: Trace) -> Scene:
    """The scene of these latents, with visible masks."""
    number = len(trace.nodes[_latents(trace)[0]]["value"])
    scene = poutine.replay(program, trace=trace)(batch=number)
    return with_masks(scene)


def _apart(scene: Scene) -> bool:
    """Whether objects have an appearance that is separate from their place."""
    return bool(scene.levels) and scene.objects.patch is not None


def _places(scene: Scene) -> Tensor:
    """(B, N, H, W) bool: the visible pixels of objects."""
    return scene.objects.mask > 0


def _slots(trace: Trace, name: str) -> int:
    """Nodes of the site's plate of nodes, 0 without one."""
    plates = [f for f in trace.nodes[name]["cond_indep_stack"] if f.name.startswith("nodes_")]
    return plates[0].size if plates else 0


def _events(trace: Trace, name: str) -> int:
    return len(trace.nodes[name]["fn"].event_shape)


def _elements(trace: Trace) -> Iterator[tuple[str, Tensor]]:
    """Latents that can be changed alone: sites except presences, node by node, as bool over the plate."""
    for name in _latents(trace):
        if not name.startswith("z_pres"):
            yield from ((name, row) for row in torch.eye(max(1, _slots(trace, name))).bool())


def _wide(mask: Tensor, trace: Trace, name: str) -> Tensor:
    """A mask over batch and nodes, broadcast over the site's own dimensions."""
    value = trace.nodes[name]["value"]
    if not _slots(trace, name):
        return mask.view(-1, *[1] * (value.ndim - 1))
    return mask[(..., *[None] * _events(trace, name))]


def _other(trace: Trace, name: str, part: Tensor) -> Tensor:
    """Another value for some nodes of a site."""
    value, fn = trace.nodes[name]["value"], trace.nodes[name]["fn"]
    if getattr(fn, "has_enumerate_support", False):
        new = value.roll(1, -1) if fn.event_shape else 1 - value
    else:
        new = value + torch.randn_like(value)
    return torch.where(part[(..., *[None] * _events(trace, name))], new, value)


def _same(nodes: Nodes, others: Nodes) -> Tensor:
    """(B, N) whether nodes look the same and are in the same place."""
    pairs = ((nodes.pose, others.pose), (nodes.patch, others.patch))
    return torch.stack([(a - b).abs().flatten(2).amax(-1) < SEEN for a, b in pairs]).all(0)


def of_programs() -> dict[str, dict[str, bool]]:
    """Properties of the programs in `PROGRAMS`, untrained, on noise; by variant."""
    found = {}
    for variant, name in PROGRAMS.items():
        pyro.set_rng_seed(0)
        source = load(f"programs/{name}.py")
        small = recipe(name, variant, "tiny").program
        config = override(source.variants[variant], small, f"program {name}")
        program, guide = source.build(config)
        images = torch.rand(2, getattr(config, "colours", 3), config.size, config.size)
        found[variant] = abilities(program.eval(), guide.eval(), images)
    return found
