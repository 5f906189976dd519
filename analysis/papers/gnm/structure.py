"""The metrics of GNM's supplement (NeurIPS 2020) for a run.

s_acc          share of the prior's images whose structure obeys the world's rule, by a judge
(`analysis.papers.gnm.judges`); and its verdicts on true scenes and on scenes that break the rule
d_steps        steps until a classifier separates true images from the prior's with an accuracy of 0.9
               (`analysis.papers.gnm.discriminator`)
ll             log-likelihood in nats per image by 100 importance samples of the guide, presence hard (IWAE)
ap50           average precision of boxes at an IoU of .5, and its mean over .5, .55, …, .95 (ap50_95)
what_accuracy  share of objects whose class a two-layer MLP reads from z_what, in a held-out fourth of the
scenes; an object's class is that of the nearest true one
parameters     number of parameters of program and guide

Images of the prior have all sites after the global latent at their mode, as in the paper's figures.
Programs without a global latent draw all sites.

# differs: the paper judges S-Acc by hand.

Shape legend: B images, N slots, M objects, D features, C colours, S pixels per side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from analysis.evaluate import graph_metrics, with_masks
from analysis.judges import latents
from analysis.papers.gnm import judges
from analysis.papers.gnm.discriminator import LIMIT, d_steps
from analysis.posterior import Mode, infer, iwae, latent_sites, log_weights, prior_scenes
from inference.images.dataset import Dataset
from programs.scene import Scene, concatenate

SYMBOLS = "z_[!g]*"
"""Pattern of all sites but the global latent."""
PASS = 50
"""Images of the prior per pass."""
DRAWS = 100
"""Importance samples per image."""
PER_STEP = 2
"""Images of either kind for the discriminator, per requested scene."""


def symbols(latents: Iterable[str]) -> list[str]:
    """The sites that are decoded from a global latent; none without such a latent."""
    latents = list(latents)
    if not any(name.startswith("z_global") for name in latents):
        return []
    return [name for name in latents if fnmatchcase(name, SYMBOLS)]


@torch.no_grad()
def prior(program: Callable, number: int, mode: bool = True) -> Scene:
    """Scenes of the prior on the CPU.

    Args:
        mode: whether sites after the global latent take their mode, if the program has such a latent.
    """
    latents = latent_sites(poutine.trace(program).get_trace(batch=1))
    mode = mode and bool(symbols(latents))
    with Mode(sites=SYMBOLS if mode else ""):
        return concatenate([scene.cpu() for scene in prior_scenes(program, number, PASS)])


def parameters(*modules: nn.Module) -> int:
    """Number of trained parameters, each counted once."""
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
    """All metrics that program and world allow, with numbers of scenes, seed and data.

    Args:
        data: `PER_STEP` times `number` unseen scenes of the world, with truth.
        number: scenes of all measures but `d_steps` (`PER_STEP` times these).
        boxes: whether digits are the program's own segments instead of components.
        mode: see `prior`.
        limit: largest number of D-Steps.
    Raises:
        ValueError: there is no judge for this world, or no objects to take boxes from.
    """
    found: dict[str, Any] = samples(program, guide, data, number, seed, boxes, mode, limit)
    found |= objects(program, guide, data.first(number), seed)
    found["parameters"] = float(parameters(program, guide))
    return found | {"scenes": number, "seed": seed, "data": data.description}


def samples(
    program: Any,
    guide: Any,
    data: Dataset,
    number: int,
    seed: int,
    boxes: bool = False,
    mode: bool = True,
    limit: int = LIMIT,
) -> dict[str, float]:
    """Table 1: structure and likeness of the prior's images, and the likelihood; arguments: `structure`."""
    judge, true = judges.judge(data), data.floats()
    images = true[:number].to(_device(program))
    sampled = prior(program, PER_STEP * number, mode)
    found = judges.shares(judge, data.first(number), sampled.image[:number], number, seed)
    if boxes:
        found |= by_own_boxes(judge, sampled[:number], infer(program, guide, images))
    told = d_steps(true, sampled.image, limit, seed)
    found |= {"d_steps": float(told.steps), "d_accuracy": told.accuracy}
    return found | likelihood(program, guide, images)


def objects(program: Any, guide: Any, data: Dataset, seed: int) -> dict[str, float]:
    """Table 2: scores of boxes and of classes from z_what; empty for programs without objects."""
    images = data.floats(_device(program))
    graph = graph_metrics(program, guide, data, images.device)
    found = {name: graph[name] for name in ("ap50", "ap50_95") if name in graph}
    if found and latents.describes(guide, images[:1]):
        told = latents.told(program, guide, data, seed=seed)
        if told is not None:
            found["what_accuracy"] = told.accuracy
    return found


def by_own_boxes(judge: judges.StructureJudge, sampled: Scene, inferred: Scene) -> dict[str, float]:
    """S-Acc of scenes of the prior and of inferred ones, with digits in the program's own segments.

    Raises:
        ValueError: the judge does not read digits, or the program has no objects.
    """
    objects = sampled.levels and sampled.objects.patch is not None
    if not isinstance(judge, judges.Digits) or not objects:
        raise ValueError("--boxes needs scenes of digits and a program with objects: leave it out")
    scenes = {"s_acc": sampled, "s_acc_inferred": inferred}
    return {name: float(judge.own(with_masks(s)).double().mean()) for name, s in scenes.items()}


def likelihood(program: Callable, guide: Callable, images: Tensor) -> dict[str, float]:
    """IWAE with `DRAWS` hard draws for images (B, C, S, S): its mean in nats, and the mean's standard
    error."""
    bound = iwae(log_weights(program, guide, images, draws=DRAWS)).cpu().double()
    error = bound.std(correction=0) / len(bound) ** 0.5
    return {"ll": float(bound.mean()), "ll_error": float(error)}
