"""What GNM's supplement measures (NeurIPS 2020), of a run and beside the paper's figures.

    python -m analysis.papers.gnm.tables RUN [--scenes N] [--seed S] [--boxes] [--symbols mode|draw] [--json FILE]

s_acc          share of the prior's images whose structure obeys the world's rule, as a judge reads it
               (`analysis.papers.gnm.judges`); and what the judge says of true scenes, and of such as break the rule
d_steps        steps until a classifier tells true images from the prior's 9 times in 10
ll             log-likelihood in nats an image by 100 importance samples of the guide, presence hard (IWAE)
ap50           average precision of boxes at an IoU of .5, and its mean over .5, .55, …, .95 (ap50_95)
what_accuracy  share of objects whose class a two-layer MLP tells from z_what, in a fourth of the scenes that it
               does not learn from; an object's class is that of the nearest true one
parameters     of program and guide

Images of the prior: the program's, with the mode of all that follows the global latent, as in the paper's
figures; with ``--symbols draw`` everything is drawn. Programs without a global latent are always drawn.

# differs: the paper's S-Acc is by hand. Its classifier of D-Steps is not known; all figures are multiples of
40 less one, so it looked every 40 steps and counted from 0. Ours: `Discriminator`, batches of `HALF` true and
`HALF` sampled images out of `PER_STEP` a scene asked for, its accuracy that on a fourth of them which is kept
apart. So its steps compare models of this project only.

Shape legend: B images, N slots, M objects, D features, C colours, S pixels a side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.command import of_run, told, write_json
from analysis.evaluate import floats, graph_metrics, with_masks
from analysis.papers.gnm import judges
from analysis.papers.gsgn.downstream import APPEARANCE, appearance
from analysis.posterior import Mode, infer, iwae, latent_sites, log_weights, modes
from analysis.scores.classifier import fit, seeded
from inference.images.dataset import Dataset
from inference.runs import open_run
from programs.blocks.nets import mlp
from programs.scene import Scene, concatenate

SYMBOLS = "z_[!g]*"
"""Sites of all that is not the global latent."""
PASS = 50
"""Images of the prior at a time."""
DRAWS, LIKELIHOODS = 100, 50
"""Importance samples an image, and images, at most, whose likelihood is measured."""
PER_STEP = 2
"""Images of either kind that the discriminator has for every scene asked for."""
HALF, INTERVAL, GOAL, LIMIT = 32, 40, 0.9, 2000
"""Of the discriminator: half a batch, steps between two looks, accuracy to reach, steps at most."""
DISCRIMINATOR_RATE = 3e-4
HIDDEN, WHAT_STEPS, WHAT_BATCH, WHAT_RATE = 128, 800, 128, 3e-3
"""Of the classifier of z_what."""

TABLES: dict[str, dict[str, dict[str, float]]] = {
    "mnist4_10": {
        "GNM": {"s_acc": 0.692, "d_steps": 5279, "ll": 10693},
        "GNM-8": {"s_acc": 0.852, "d_steps": 6639, "ll": 10692},
        "GNM-β-2": {"s_acc": 0.916, "d_steps": 1719, "ll": 10684},
        "GNM-8-β-2": {"s_acc": 0.960, "d_steps": 3599, "ll": 10693},
        "GENESIS": {"s_acc": 0.016, "d_steps": 199, "ll": 10084},
        "ConvDRAW": {"s_acc": 0.000, "d_steps": 959, "ll": 10756},
        "ConvDRAW-8": {"s_acc": 0.004, "d_steps": 1759, "ll": 10775},
        "ConvDRAW-β-10": {"s_acc": 0.560, "d_steps": 2399, "ll": 10429},
        "ConvDRAW-8-β-10": {"s_acc": 0.880, "d_steps": 1759, "ll": 10479},
    },
    "mnist10": {
        "GNM": {"ap50": 0.905, "ap50_95": 0.459, "what_accuracy": 0.984, "parameters": 2.9e6},
        "SPACE": {"ap50": 0.905, "ap50_95": 0.453, "what_accuracy": 0.980},
        "GENESIS": {"parameters": 13.9e6},
        "ConvDRAW": {"parameters": 1.5e6},
        "VAE": {"parameters": 1.5e6},
    },
    "mnist4": {
        "GNM": {"ap50": 0.905, "ap50_95": 0.487, "what_accuracy": 0.983, "parameters": 2.9e6},
        "SPACE": {"ap50": 0.906, "ap50_95": 0.464, "what_accuracy": 0.979},
        "GENESIS": {"parameters": 13.9e6},
        "ConvDRAW": {"parameters": 1.5e6},
        "VAE": {"parameters": 1.5e6},
    },
    "arrow_room": {
        "GNM": {"parameters": 8.6e6},
        "GENESIS": {"parameters": 13.9e6},
        "ConvDRAW": {"parameters": 4.7e6},
        "VAE": {"parameters": 1.5e6},
    },
}
"""Tables 1 to 3 of the supplement, by world and model."""
COLUMNS = ("s_acc", "d_steps", "ll", "ap50", "ap50_95", "what_accuracy", "parameters")


def symbols(latents: Iterable[str]) -> list[str]:
    """The sites that a global latent decodes to; none without such a latent."""
    latents = list(latents)
    if not any(name.startswith("z_global") for name in latents):
        return []
    return [name for name in latents if fnmatchcase(name, SYMBOLS)]


@torch.no_grad()
def prior(program: Callable, number: int, mode: bool = True) -> Scene:
    """Scenes of the prior on the CPU.

    Args:
        mode: what follows the global latent takes its mode, if the program has such a latent.
    """
    latents = latent_sites(poutine.trace(program).get_trace(batch=1))
    mode = mode and bool(symbols(latents))
    parts = []
    for start in range(0, number, PASS):
        with Mode(sites=SYMBOLS if mode else ""):
            scene = program(batch=min(PASS, number - start))
        parts.append(scene.cpu())
    return concatenate(parts)


class Discriminator(nn.Module):
    """Whether an image is true: four convolutions of stride 2, and a linear layer on what remains."""

    def __init__(self, size: int, colours: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers: list[nn.Module] = []
            for inputs, width in ((colours, 16), (16, 32), (32, 64), (64, 64)):
                layers += [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (size // 16) ** 2, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [0, 1] -> logits (B,)."""
        return self.net(images).squeeze(-1)


class Discrimination(NamedTuple):
    """How soon images are told apart."""

    steps: int
    """The step, from 0, after which the goal was reached; `limit` if it never was."""
    accuracy: float
    """On the images kept apart, at the last look."""


def d_steps(true: Tensor, sampled: Tensor, limit: int = LIMIT, seed: int = 0) -> Discrimination:
    """Steps until a classifier tells sampled images from true ones with an accuracy of `GOAL` (D-Steps).

    Args:
        true, sampled: (B, C, S, S) in [0, 1]; the last fourth of each is kept apart.
    """
    number = min(len(true), len(sampled))
    true, sampled = true[:number], sampled[:number]
    train = number - number // 4
    generator = torch.Generator().manual_seed(seed)
    net = Discriminator(true.shape[-1], true.shape[1], seed)
    optimiser = torch.optim.Adam(net.parameters(), DISCRIMINATOR_RATE)
    wanted, accuracy = torch.cat([torch.ones(HALF), torch.zeros(HALF)]), 0.5
    for step in range(limit):
        rows = torch.randint(train, (2, HALF), generator=generator)
        logits = net(torch.cat([true[rows[0]], sampled[rows[1]]]))
        optimiser.zero_grad()
        F.binary_cross_entropy_with_logits(logits, wanted).backward()
        optimiser.step()
        if (step + 1) % INTERVAL == 0:
            with torch.no_grad():
                right = [(_logits(net, true[train:]) > 0), (_logits(net, sampled[train:]) <= 0)]
            accuracy = float(torch.cat(right).double().mean())
            if accuracy >= GOAL:
                return Discrimination(step, accuracy)
    return Discrimination(limit, accuracy)


def _logits(net: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([net(part) for part in images.split(200)])


def describes(guide: Callable, images: Tensor) -> bool:
    """Whether a guide has latents that say what an object looks like."""
    with torch.no_grad():
        latents = latent_sites(poutine.trace(guide).get_trace(images))
    return any(name.startswith(APPEARANCE) for name in latents)


def described(program: Callable, guide: Callable, data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """z_what (M, D) of the objects that the guide's mode finds, their classes (M,), and their images (M,).

    An object's class is that of the true one whose centre is nearest.
    """
    images, truth = floats(data, _device(program)), data.truth()
    found, start = [], 0
    for scene, trace in modes(program, guide, images):
        nodes = scene.cpu().objects
        rows = slice(start, start := start + len(nodes.pres))
        true = truth[rows].objects
        distance = (nodes.centre[:, :, None] - true.centre[:, None]).norm(dim=-1)
        distance = distance.where(true.present[:, None], torch.inf)
        kind = true.category.gather(1, distance.argmin(-1))
        what = appearance(trace, 1, nodes.pres.shape[1]).cpu()
        there = nodes.present & true.present.any(1, keepdim=True)
        image = torch.arange(rows.start, rows.stop)[:, None].expand_as(there)
        found.append((what[there], kind[there], image[there]))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def what_accuracy(what: Tensor, kind: Tensor, apart: Tensor, seed: int = 0) -> float:
    """Share of the objects kept apart whose class a two-layer MLP names; it learns from the others.

    Args:
        what: (M, D).
        kind: (M,) classes.
        apart: (M,) bool, not all and not none.
    """
    scale = what[~apart].std(0, correction=0).clamp(min=1e-6)
    x = (what - what[~apart].mean(0)) / scale
    own, classes = x[~apart], kind[~apart]
    net = seeded(lambda: mlp(x.shape[1], [HIDDEN], int(kind.max()) + 1), seed)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(net(own[rows]), classes[rows])

    fit(net, loss, len(own), batch=WHAT_BATCH, steps=WHAT_STEPS, rate=WHAT_RATE, seed=seed)
    with torch.no_grad():
        return float((net(x[apart]).argmax(-1) == kind[apart]).double().mean())


def parameters(*modules: nn.Module) -> int:
    """Numbers that are learned, each counted once."""
    found = {id(p): p.numel() for module in modules for p in module.parameters()}
    return sum(found.values())


def _device(program: Callable) -> torch.device:
    return next((p.device for p in program.parameters()), torch.device("cpu"))


def structure(
    program: Any,
    guide: Any,
    data: Dataset,
    number: int,
    seed: int,
    boxes: bool = False,
    mode: bool = True,
    limit: int = LIMIT,
) -> dict[str, Any]:
    """All figures that program and world allow, with what they are over.

    Args:
        data: `PER_STEP` times `number` unseen scenes of the world, with truth.
        number: scenes of all measures but `ll` (`LIKELIHOODS` at most) and `d_steps` (`PER_STEP` times these).
        boxes: of digits: objects are the program's own segments instead of components.
        mode: see `prior`.
        limit: of `d_steps`.
    Raises:
        ValueError: there is no judge for this world, or no objects to take boxes from.
    """
    judge, few = judges.judge(data), data.first(number)
    true = floats(data, "cpu")
    images = true[:number].to(_device(program))
    sampled = prior(program, PER_STEP * number, mode)
    found: dict[str, Any] = judges.shares(judge, few, sampled.image[:number], number, seed)
    if boxes:
        found |= by_own_boxes(judge, sampled[:number], infer(program, guide, images))
    told = d_steps(true, sampled.image, limit, seed)
    found |= {"d_steps": float(told.steps), "d_accuracy": told.accuracy}
    found |= likelihood(program, guide, images[:LIKELIHOODS])
    if sampled.levels:
        graph = graph_metrics(program, guide, few, images.device)
        found |= {name: graph[name] for name in ("ap50", "ap50_95") if name in graph}
        if describes(guide, images[:1]):
            what, kind, image = described(program, guide, few)
            apart = image >= number - number // 4
            if apart.any() and not apart.all():  # something is found
                found["what_accuracy"] = what_accuracy(what, kind, apart, seed)
    found["parameters"] = float(parameters(program, guide))
    return found | {"scenes": number, "seed": seed, "data": data.description}


def by_own_boxes(judge: judges.Judge, sampled: Scene, inferred: Scene) -> dict[str, float]:
    """S-Acc of scenes of the prior and of inferred ones, of digits in the program's own segments.

    Raises:
        ValueError: the judge is none of digits, or the program has no objects.
    """
    objects = sampled.levels and sampled.objects.patch is not None
    if not isinstance(judge, judges.Digits) or not objects:
        raise ValueError("--boxes needs scenes of digits and a program with objects: leave it out")
    scenes = {"s_acc": sampled, "s_acc_inferred": inferred}
    return {name: float(judge.own(with_masks(s)).double().mean()) for name, s in scenes.items()}


def likelihood(program: Callable, guide: Callable, images: Tensor) -> dict[str, float]:
    """IWAE of `DRAWS` hard draws of images (B, C, S, S): its mean in nats, and the mean's standard error."""
    bound = iwae(log_weights(program, guide, images, draws=DRAWS)).cpu().double()
    error = bound.std(correction=0) / len(bound) ** 0.5
    return {"ll": float(bound.mean()), "ll_error": float(error)}


def table(name: str, found: dict[str, Any], world: str) -> str:
    """Ours below the paper's figures, then what says how far ours may be trusted."""
    rows = {**TABLES.get(world, {}), name: found}
    wide = max(map(len, rows)) + 2
    heads = [c for c in COLUMNS if any(c in row for row in rows.values())]
    lines = [" " * wide + "".join(f"{c:>15}" for c in heads)]
    for model, row in rows.items():
        cells = "".join(f"{_number(c, row[c]) if c in row else '':>15}" for c in heads)
        lines.append(f"{model:<{wide}}{cells}")
    rest = {k: v for k, v in found.items() if isinstance(v, float) and k not in COLUMNS}
    return "\n".join([*lines, *(f"  {k:<16}{v:10.3f}" for k, v in rest.items())])


def _number(column: str, value: float) -> str:
    return f"{value:,.0f}" if column in ("d_steps", "ll", "parameters") else f"{value:.3f}"


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = of_run("analysis.papers.gnm.tables", __doc__, scenes=500)
    a.add_argument("--boxes", action="store_true", help="objects are the program's own, of digits")
    a.add_argument("--symbols", choices=("mode", "draw"), default="mode", help="given z_global")
    a.add_argument("--limit", type=int, default=LIMIT, metavar="N", help="of D-Steps")
    a.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    o = a.parse_args(arguments)
    pyro.enable_validation(False)
    pyro.set_rng_seed(o.seed)
    if o.scenes < 4:
        raise ValueError(f"--scenes {o.scenes}: expected at least 4")
    run = open_run(o.run)
    data = run.unseen(PER_STEP * o.scenes, o.seed)
    mode = o.symbols == "mode"
    found = structure(run.program, run.guide, data, o.scenes, o.seed, o.boxes, mode, o.limit)
    print(table(run.folder.name, found, data.description["world"]))
    write_json(o.json, run.steps | {"symbols": o.symbols, "boxes": o.boxes} | found)


if __name__ == "__main__":
    sys.exit(main())
