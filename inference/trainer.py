"""A training in memory: `Trainer` holds parameters, optimiser and step; `Training` builds all parts
that a plan names.

`Training` is built from a `Plan` and its images. The trainer's command line, `analysis.gradients` and
`analysis.benchmark` share it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from inference import checkpoint
from inference.adapt import Names, check_automatic, find_names, rename
from inference.estimators import apart, estimator
from inference.images.dataset import Dataset, Sampler
from inference.machine import distributed, networks
from inference.objectives import Objective, check_match
from inference.plan import Plan, check_pictures
from inference.schedules import Constant, Falls

LEARNED = ("program", "guide")
"""Modules whose parameters are trained at the learning rate."""
OWNERS = (*LEARNED, "estimator", "weight")
"""First words of scheduled numbers' names, besides `rate`."""
BASELINE_RATE = 1e-3
"""Learning rate of an estimator's own parameters."""
MOVED = 2500
"""Training images for a method that the recipe's `moves` name."""
DIGESTED = 1000
"""Number of images in the digest that shows whether a folder's pictures have changed since a run began."""
HINT = (
    "checkpoints made before are kept. --set train.rate=0.3, which lowers the learning rate, or "
    "--set train.clip=0.1 may help"
)


class Training:
    """A program, its guide, an estimator and a `Trainer`, with fresh parameters from the plan's seed.

    Args:
        p: the plan of the training.
        data: images to learn from; None to read the plan's own.
    Raises:
        ValueError: images, program and guide do not fit each other; the message says which part
            does not.
    """

    def __init__(self, p: Plan, data: Dataset | None = None) -> None:
        self.plan = p
        pyro.settings.set(module_local_params=hasattr(p.source.program, "Program"))
        pyro.clear_param_store()
        pyro.set_rng_seed(p.seed)
        with p.source.blamed("be built as it is set"):
            self.program, self.guide = (m.to(p.device) for m in p.source.build(p.config))
        if data is None:
            with distributed.one_first():
                data = p.training_images()
        check_pictures(p, data)
        self.batch = self._batch(len(data.images))
        self.sampler = Sampler(len(data.images), self.batch, p.seed)
        on_device = p.device.type == "cuda"
        self._pictures = data.images.to(p.device) if on_device else data.images
        self.estimator = estimator(p.recipe.estimator).to(p.device)
        self.names = Names()
        self._prepare()
        self.trainer = Trainer(p, self.program, self.guide, self.estimator)

    def pictures(self) -> dict[str, Any]:
        """Number of images and a digest of some, by which changed files at the same path are noticed."""
        images = self._pictures
        some = images[:: max(len(images) // DIGESTED, 1)].contiguous().cpu().numpy()
        return {"number": len(images), "digest": hashlib.sha256(some.data).hexdigest()[:16]}

    def _batch(self, number: int) -> int:
        """The recipe's batch, at most the number of images, divisible by the number of processes."""
        processes = distributed.world()
        return min(self.plan.recipe.batch, number // processes * processes)

    def _prepare(self) -> None:
        """Register parameters of plain functions, check that program and guide fit, prepare networks."""
        x, recipe = self.images(0), self.plan.recipe
        if not self.plan.source.stem:
            with self.plan.source.blamed(f"take images of shape {tuple(x.shape)}"):
                self.names = find_names(self.program, x)
            rename(self.names, self.program, self.guide)
        with torch.no_grad(), self.plan.source.blamed(f"take images of shape {tuple(x.shape)}"):
            check_automatic(self.guide, x)
            check_match(*Objective().traces(self.program, self.guide, x))
            self.estimator.prepare(self.program, self.guide, x)
        for name in recipe.moves.values():
            if not callable(getattr(self.guide, name, None)):
                raise ValueError(
                    f"the recipe's moves name {name!r}, and the guide has no such method"
                )
        modules = (self.program, self.guide)
        networks.prepare(modules, recipe.precision, recipe.layout, recipe.compile)

    def move(self) -> None:
        """Call the method of the guide that the recipe's `moves` name for this step, if any."""
        name = self.plan.recipe.moves.get(self.trainer.step)
        if name is None:
            return
        if distributed.rank() == 0:
            some = torch.as_tensor(self._pictures[:MOVED]).to(self.plan.device)
            getattr(self.guide, name)(some.float() / 255)
        distributed.copy_first((self.program, self.guide))

    def images(self, step: int) -> Tensor:
        """(B, C, H, W) in [0, 1]: this process's part of the batch of a step."""
        rows = distributed.part(self.sampler.indices(step))
        rows = rows.to(self._pictures.device, non_blocking=True)
        return torch.as_tensor(self._pictures[rows]).to(self.plan.device).float() / 255


class Trainer:
    """Parameters, optimiser and step, as a checkpoint holds them. Plain functions must have run once."""

    def __init__(self, p: Plan, program: nn.Module, guide: nn.Module, estimator: nn.Module) -> None:
        self.schedules: dict[str, Callable[[int], float]] = dict(p.recipe.schedules)
        self.clip = p.recipe.clip
        learning_rate = self.schedules["learning_rate"]
        self.falls = None if p.recipe.plateau is None else Falls(p.recipe.plateau)
        self.schedules["learning_rate"] = lambda step: (
            p.recipe.rate * learning_rate(step) * (self.falls.rate if self.falls else 1.0)
        )
        patterns = [name.partition(".")[2] for name in self.schedules if name.startswith("weight.")]
        self.weights = {pattern: torch.tensor(1.0, device=p.device) for pattern in patterns}
        self.objective = Objective(self.weights, p.recipe.auxiliary, p.recipe.penalties)
        self.modules = {"program": program, "guide": guide, "estimator": estimator}
        check_names(self.schedules, self.modules)
        owned = learned(self.modules, p.recipe.trained)
        self.learned = [parameter for found in owned.values() for parameter in found]
        cuda = p.device.type == "cuda"
        # tensors, which a captured step reads anew; a fused Adam reads float32 on CUDA
        zero = torch.zeros((), dtype=torch.float32 if cuda else torch.float64, device=p.device)
        self.rate = {owner: zero.clone() for owner in owned}
        groups = [{"params": owned[owner], "lr": rate} for owner, rate in self.rate.items()]
        if baselines := list(estimator.parameters()):
            groups.append({"params": baselines, "lr": BASELINE_RATE})
        self.optimiser = torch.optim.Adam(groups, fused=True)
        self.device, self.seed, self.step = p.device, p.seed, 0
        self.batch = p.recipe.batch

    def begin(self) -> None:
        """Let several processes begin with the same weights and different noise."""
        if distributed.world() > 1:
            distributed.copy_first(self.modules.values())
            distributed.reseed(self.seed, self.step)

    def update(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One step on this process's images x (B, C, H, W). Returns loss and terms, nats per image."""
        self.apply_schedules()
        found = self.descend(x)
        self.step += 1
        return found

    def descend(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`update` at the present scheduled numbers; with one process, all work is on the device."""
        m = self.modules
        loss, terms = m["estimator"](m["program"], m["guide"], x, self.objective)
        self.optimiser.zero_grad()
        (loss / len(x)).backward()
        distributed.average(m.values())
        nn.utils.clip_grads_with_norm_(self.learned, self.clip, largest(self.learned))
        self.optimiser.step()
        terms = {name: term / len(x) for name, term in terms.items()}
        return sum(terms.values()), terms

    def loss(self, images: Tensor) -> float:
        """The training's objective on images (B, C, H, W) in [0, 1], nats per image: the sum of its terms.

        A surrogate is none. To make one some estimators differentiate, so nothing here is without gradient, and
        as many images at once are taken as in a step, for which there is memory. Parameters' own gradients,
        buffers and torch's random states stay as they were.
        """
        m, total = self.modules, 0.0
        with torch.enable_grad(), apart(*m.values()):
            for x in images.split(self.batch):
                terms = m["estimator"](m["program"], m["guide"], x, self.objective)[1]
                total += float(sum(terms.values()))
        return total / len(images)

    def apply_schedules(self) -> None:
        """Write every scheduled number to the tensor or setting from which it is read."""
        for name, schedule in self.schedules.items():
            value = schedule(self.step)
            owner, _, key = name.partition(".")
            if name == "learning_rate":
                for module, rate in self.rate.items():
                    factor = self.schedules.get(f"rate.{module}", Constant(1.0))
                    rate.fill_(value * factor(self.step))
            elif owner == "weight":
                self.weights[key].fill_(value)
            elif owner != "rate" and hasattr(self.modules[owner], key):
                getattr(self.modules[owner], key).fill_(value)

    def rates(self) -> dict[str, float]:
        """The present values of scheduled numbers, for the log."""
        values = {name: schedule(self.step) for name, schedule in self.schedules.items()}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def save(self, path: Path) -> None:
        """Write a checkpoint, on the first process."""
        state = self.state()
        if distributed.rank() == 0:
            checkpoint.save(path, state)

    def state(self) -> dict[str, Any]:
        """The state that resuming needs; "others" are the random states of all processes but the
        first.

        Raises:
            FloatingPointError: a parameter is not finite; the message names it.
        """
        for owner, module in self.modules.items():
            for name, parameter in module.named_parameters():
                if not parameter.isfinite().all():
                    raise FloatingPointError(
                        f"{owner}.{name} is not finite at step {self.step}; {HINT}"
                    )
        random, *others = distributed.gather(checkpoint.random_state())
        return {
            "step": self.step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "random": random,
            "others": others,
            **({} if self.falls is None else {"falls": self.falls.state()}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`; with another number of processes, noise comes from seed, step and rank.

        Raises:
            ValueError: the checkpoint is of another program, variant, preset or estimator.
        """
        try:
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
            self.optimiser.load_state_dict(state["optimiser"])
            self._adopt()
            self.step = int(state["step"])
            if self.falls is not None:
                self.falls.restore(state["falls"])
            random = [state["random"], *state.get("others", [])]
            if len(random) == distributed.world():
                checkpoint.set_random_state(random[distributed.rank()])
            else:
                distributed.reseed(self.seed, self.step)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                "the checkpoint does not fit this run: give the same program, variant, preset, --set and "
                f"--estimator as before, or another --out ({type(error).__name__}: {error})"
            ) from error

    def _adopt(self) -> None:
        """Give the restored optimiser this run's learning rate, and its state the parameters' layout."""
        for group, rate in zip(self.optimiser.param_groups, self.rate.values(), strict=False):
            group["lr"] = rate
        for parameter, state in self.optimiser.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.empty_like(parameter).copy_(state[name])


def learned(
    modules: dict[str, nn.Module], trained: tuple[str, ...]
) -> dict[str, list[nn.Parameter]]:
    """Parameters that are trained, by module; the others take no gradient from now on."""
    for name in {*LEARNED} - {*trained}:
        modules[name].requires_grad_(False)
    owners: dict[nn.Parameter, str] = {}
    for name in LEARNED:
        for parameter in modules[name].parameters():
            if parameter.requires_grad:
                owners.setdefault(parameter, name)  # a shared one is the program's
    found = {name: [p for p, owner in owners.items() if owner == name] for name in LEARNED}
    return {name: parameters for name, parameters in found.items() if parameters}


def check_names(schedules: Iterable[str], modules: Mapping[str, nn.Module]) -> None:
    """Raises a ValueError for a schedule of something that this training does not have.

    An estimator may lack a buffer, as a recipe is for any estimator.
    """
    for name in schedules:
        owner, _, key = name.partition(".")
        known = key in LEARNED if owner == "rate" else key and owner in OWNERS
        if name != "learning_rate" and not known:
            raise ValueError(
                f"schedule {name!r}: expected learning_rate, rate.program, rate.guide, weight.PATTERN, or "
                "estimator.BUFFER, program.BUFFER or guide.BUFFER"
            )
        if owner in LEARNED and not isinstance(getattr(modules[owner], key, None), Tensor):
            buffers = sorted(buffer for buffer, _ in modules[owner].named_buffers())
            raise ValueError(
                f"schedule {name!r}: the {owner} has no buffer {key!r}; its buffers are "
                f"{', '.join(buffers) or 'none'}"
            )


def largest(parameters: list[nn.Parameter]) -> Tensor:
    """The largest magnitude in all gradients: their infinity norm, 25 times as fast as `vector_norm`."""
    ends = [end for p in parameters if p.grad is not None for end in torch.aminmax(p.grad)]
    return torch.stack(ends).abs().max()
