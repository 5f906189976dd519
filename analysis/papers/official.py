"""Training steps of the official GNM and SPACE, for ``analysis.benchmark --against``.

    python -m analysis.benchmark programs/gnm.py --preset paper --against analysis.papers.official:gnm
    python -m analysis.benchmark programs/space.py --preset paper --set grid=8 --against …:space

GNM_CHECKOUT and SPACE_CHECKOUT are checkouts of https://github.com/JindongJiang/GNM and
https://github.com/zhixuan-lin/SPACE. Nothing of them is part of this project. Sizes, rates and optimisers are
those of their ``config/mnist-4.yaml`` and ``configs/3d_room_small.yaml``, late in training, when no weight
changes any more.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

LATE = 200_000
"""Training step from which the schedules of both are at their ends."""
GNM_KLS = "pres", "where", "depth", "what", "bg"
"""The KLs that GNM's forward pass returns: these with its auxiliary priors, these, and between them z^g's."""


def gnm(images: Tensor) -> Callable[[], float]:
    """A training step of the official GNM on images (B, 1, 128, 128).

    Raises:
        ValueError: GNM_CHECKOUT is not set, or has no ``model.py``.
    """
    folder = checkout("GNM_CHECKOUT", "model.py")
    config = modules(folder, "default_config")[0].get_cfg_defaults()
    config.merge_from_file(str(folder / "config" / "mnist-4.yaml"))
    config.train.global_step, config.log.phase_log = LATE, False
    at_the_end(config.train)
    torch.manual_seed(0)
    model = modules(folder, "model")[0].GNM(config).to(images.device).train()
    optimiser = torch.optim.RMSprop(model.parameters(), lr=config.train.lr)

    def loss() -> Tensor:
        _, log_likelihood, kls, *_ = model(images)
        auxiliary, local, whole, background = kls[:5], kls[5:9], kls[9].sum(-1), kls[10]
        weights = [config.train[f"beta_aux_{name}"] for name in GNM_KLS]
        weights += [config.train[f"beta_{name}"] for name in (*GNM_KLS[:4], "global", "bg")]
        terms = [*auxiliary, *local, whole, background]
        costs = [w * kl.mean() for w, kl in zip(weights, terms, strict=True)]
        return torch.stack(costs).sum() - log_likelihood.mean()

    return stepping(loss, model, [optimiser], config.train.cp)


def space(images: Tensor) -> Callable[[], float]:
    """A training step of the official SPACE on images (B, 3, 128, 128).

    Raises:
        ValueError: SPACE_CHECKOUT is not set, or has no ``src/model/space/space.py``.
    """
    folder = checkout("SPACE_CHECKOUT", "src/model/space/space.py") / "src"
    model_of, arch, yacs = modules(folder, "model.space.space", "model.space.arch", "yacs.config")
    text = (folder / "configs" / "3d_room_small.yaml").read_text(encoding="utf-8")
    given = yacs.load_cfg(text)
    arch.arch.merge_from_other_cfg(given.arch)
    torch.manual_seed(0)
    model = model_of.Space().to(images.device).train()
    optimisers = [
        getattr(torch.optim, own.optim)(part.parameters(), lr=float(own.lr))
        for part, own in (
            (model.fg_module, given.train.solver.fg),
            (model.bg_module, given.train.solver.bg),
        )
    ]
    return stepping(lambda: model(images, LATE)[0], model, optimisers, given.train.clip_norm)


def at_the_end(train: Any) -> None:
    """Give all that GNM anneals the value that it ends with; where annealing ends at step 0 it never began."""
    for key in [key for key in train if key.endswith("_anneal_end_step")]:
        name = key.removesuffix("_anneal_end_step")
        which = "end" if train[key] else "start"
        train[name] = train[f"{name}_anneal_{which}_value"]


def stepping(
    loss: Callable[[], Tensor],
    model: nn.Module,
    optimisers: Iterable[torch.optim.Optimizer],
    clip: float,
) -> Callable[[], float]:
    """Loss, gradient, clipping of its norm, optimisers."""
    optimisers = list(optimisers)

    def step() -> float:
        for optimiser in optimisers:
            optimiser.zero_grad()
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        for optimiser in optimisers:
            optimiser.step()
        return value.item()

    return step


def checkout(variable: str, file: str) -> Path:
    """The folder that an environment variable names.

    Raises:
        ValueError: it is not set, or has no such file.
    """
    folder = Path(os.environ.get(variable, ""))
    if not os.environ.get(variable) or not (folder / file).is_file():
        raise ValueError(
            f"no {file} in {variable}={folder}: set {variable} to a checkout of the official code"
        )
    return folder


def modules(folder: Path, *names: str) -> list[ModuleType]:
    """Modules of a folder, which need ``yacs``; in the place of ``attrdict`` they get a stand-in.

    # differs: attrdict, which SPACE imports, does not run on today's Python.
    """
    if "attrdict" not in sys.modules:
        stand_in = ModuleType("attrdict")
        stand_in.AttrDict = Attributes  # type: ignore[attr-defined]
        sys.modules["attrdict"] = stand_in
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))


class Attributes(dict[str, Any]):
    """A dictionary whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        """An entry."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
