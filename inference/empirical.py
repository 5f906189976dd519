"""Empirical Bayes: priors fitted to what a guide says of images, after a training; all else stays as it is.

    python -m inference.empirical RUN --out DIR --fit SITES=MODULE [--fit …] [--set FIELD=VALUE]

``--fit z_global_1=first --set first=32`` gives GNM a mixture for the prior of z_global's first step.

    maximise over the parameters of p's chosen modules   E_x E_q(z | x) [ Σ_sites log p(z_site | its parents) ]

which is all of the evidence lower bound that depends on them. The best prior of a latent without parents is the
aggregate posterior, q(z) = E_x q(z | x); what the fit gains is KL(q(z) ‖ p(z)) that p had left.

Draws of the guide are made once. A step runs the program on draws given, until the last of the sites: neither
the guide nor what follows, such as pixels, is computed.

Shape legend: N draws (images, each several times).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn

from inference import checkpoint
from inference.data import load_world, world_dataset
from inference.objectives import log_prob_per_image
from inference.svi import write_json
from programs.loading import choose, load, override, settings

PASS = 200
"""Images the guide sees at a time."""
LOOK = 50
"""Steps between two looks at what is kept apart."""


@dataclass(frozen=True)
class Settings:
    """How a prior is fitted."""

    images: int = 20_000  # of the run's training images, at most
    draws: int = 2  # of every image
    steps: int = 300
    batch: int = 512
    rate: float = 1e-2  # of Adam, falling to 0 as a cosine
    apart: int = 10  # every tenth image only decides which step was best
    seed: int = 0  # of the batches, and of where the modules begin


class Fit(NamedTuple):
    """What a fit gained, on images kept apart."""

    before: float
    """mean log p of the sites, nats an image"""
    after: float
    """likewise"""
    step: int
    """whose parameters were best, and were kept; 0: those it began with"""


class Enough(Exception):
    """All sites wanted have been sampled."""


class Until(Messenger):
    """Stop the program after the last of some sites.

    Raises:
        Enough: when it is reached.
    """

    def __init__(self, sites: list[str]) -> None:
        super().__init__()
        self.left = set(sites)

    def _pyro_post_sample(self, msg: dict) -> None:
        self.left.discard(msg["name"])
        if not self.left:
            raise Enough


class Draws(NamedTuple):
    """Latents of the guide."""

    values: dict[str, Tensor]
    """site -> its value, N in the dimension of the plate ``batch``"""
    dims: dict[str, int]
    """that dimension"""
    number: int
    """N"""

    def rows(self, index: Tensor) -> dict[str, Tensor]:
        """Some of the draws."""
        return {k: v.index_select(self.dims[k], index) for k, v in self.values.items()}

    def flat(self, site: str, index: Tensor) -> Tensor:
        """(M, D) of one site, from all its plates."""
        value = self.values[site].index_select(self.dims[site], index)
        return value.reshape(-1, value.shape[-1])


@torch.no_grad()
def cached(guide: Callable, images: Tensor, draws: int) -> Draws:
    """Draws of the guide, all images before the next draw.

    Args:
        images: (B, C, H, W) in [0, 1], or bytes.
    Raises:
        ValueError: a latent lies outside the plate ``batch``.
    """
    parts: dict[str, list[Tensor]] = {}
    dims: dict[str, int] = {}
    for _ in range(draws):
        for x in images.split(PASS):
            trace = poutine.trace(guide).get_trace(x.float() / 255 if x.dtype == torch.uint8 else x)
            for name in trace.stochastic_nodes:
                site = trace.nodes[name]
                if isinstance(site["fn"], _Subsample):
                    continue
                frames = [f.dim for f in site["cond_indep_stack"] if f.name == "batch"]
                if not frames:
                    raise ValueError(f"site {name!r} is outside the plate 'batch'")
                dims[name] = frames[0] - site["fn"].event_dim
                parts.setdefault(name, []).append(site["value"])
    values = {name: torch.cat(found, dims[name]) for name, found in parts.items()}
    return Draws(values, dims, draws * len(images))


def score(program: Callable, draws: Draws, index: Tensor, sites: list[str]) -> Tensor:
    """(N,) Σ log p(z_site | its parents) of some draws, which has gradients in the program's parameters."""
    given = poutine.condition(program, data=draws.rows(index))
    with poutine.trace() as tracer, suppress(Enough), Until(sites):
        given(batch=len(index))
    return log_prob_per_image(tracer.trace, sites)


@contextmanager
def only(program: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within, nothing but these parameters has a gradient."""
    chosen, all_of_them = {id(p) for p in parameters}, list(program.parameters())
    before = [p.requires_grad for p in all_of_them]
    for p in all_of_them:
        p.requires_grad_(id(p) in chosen)
    try:
        yield
    finally:
        for p, needed in zip(all_of_them, before, strict=True):
            p.requires_grad_(needed)


def fit(
    program: nn.Module,
    draws: Draws,
    modules: Mapping[str, nn.Module],
    images: int,
    settings: Settings = Settings(),
) -> Fit:
    """Fit the modules' parameters to draws of the guide, and keep the best.

    Args:
        modules: pattern of sites -> the module of the program whose parameters are fitted. One that has a
            method `begin`, as those of `programs.priors`, begins at the draws.
        images: how many images the draws are of.
    Raises:
        ValueError: a pattern matches no site, or a module has no parameters.
    """
    for pattern, module in modules.items():
        if not list(module.parameters()):
            raise ValueError(f"the module for {pattern!r} has no parameters")
    names = matching(draws, modules)
    train, held = split(draws, images, settings)
    parameters = list(dict.fromkeys(p for m in modules.values() for p in m.parameters()))
    best = before = mean_score(program, draws, held, names)
    at, state = 0, copies(parameters)
    with torch.random.fork_rng(devices=[]), only(program, parameters):
        torch.manual_seed(settings.seed)
        for pattern, module in modules.items():
            if hasattr(module, "begin"):
                module.begin(torch.cat([draws.flat(n, train) for n in matching(draws, [pattern])]))
        if (found := mean_score(program, draws, held, names)) > best:
            best, state = found, copies(parameters)
        optimiser = torch.optim.Adam(parameters, settings.rate)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
        for step in range(1, settings.steps + 1):
            rows = train[torch.randint(len(train), (settings.batch,))]
            optimiser.zero_grad()
            (-score(program, draws, rows, names).mean()).backward()
            optimiser.step(), falling.step()
            if step % LOOK == 0 or step == settings.steps:
                found = mean_score(program, draws, held, names)
                if found > best:
                    best, at, state = found, step, copies(parameters)
    with torch.no_grad():
        for p, value in zip(parameters, state, strict=True):
            p.copy_(value)
    return Fit(before, best, at)


def copies(parameters: Iterable[Tensor]) -> list[Tensor]:
    """As they are now."""
    return [p.detach().clone() for p in parameters]


def matching(draws: Draws, patterns: Iterable[str]) -> list[str]:
    """The sites that patterns match.

    Raises:
        ValueError: one matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(n, pattern) for n in draws.values):
            raise ValueError(f"{pattern!r} matches none of {', '.join(draws.values)}")
    return [n for n in draws.values if any(fnmatchcase(n, pattern) for pattern in patterns)]


def split(draws: Draws, images: int, settings: Settings) -> tuple[Tensor, Tensor]:
    """Indices of the draws that are learned from, and of those of images kept apart."""
    number = torch.arange(draws.number)
    kept = number % images % settings.apart == 0
    return number[~kept], number[kept]


@torch.no_grad()
def mean_score(program: Callable, draws: Draws, index: Tensor, names: list[str]) -> float:
    """Mean log p of the sites over some draws, nats an image."""
    parts = [score(program, draws, rows, names) for rows in index.split(2000)]
    return float(torch.cat(parts).double().mean())


def fit_run(
    run: Path, out: Path, chosen: Mapping[str, str], pairs: tuple[str, ...], how: Settings
) -> Fit:
    """Fit priors of a trained run on its own training images, and write a run folder.

    Args:
        chosen: pattern of sites -> name of a module of the program, as "drawing.prior".
        pairs: fields of the program's Config to change, as in ``--set``. What this adds to the program must be
            within the chosen modules.
    Raises:
        ValueError: no such run or module, or weights that do not fit.
    """
    from analysis.evaluate import find_run, read_config, read_weights

    folder = find_run(run)
    config, source = read_config(folder), load(read_config(folder)["program"])
    base = override(choose(source.variants, config["variant"], "variant"), config["config"], "it")
    changed = override(base, settings(pairs)["program"], f"program {source.name}")
    pyro.set_rng_seed(how.seed)
    old, _ = source.build(base)
    program, guide = source.build(changed)
    weights = read_weights(folder)
    missing, other = program.load_state_dict(weights["program"], strict=False)
    new = [k for k in missing if not k.startswith(tuple(f"{m}." for m in chosen.values()))]
    if new or other:
        raise ValueError(
            f"{folder} does not fit: {', '.join([*new, *other])} is in one of the two alone"
        )
    guide.load_state_dict(weights["guide"])
    known = dict(program.named_modules())
    for name in chosen.values():
        if name not in known:
            raise ValueError(f"the program has no module {name!r}; known are {', '.join(known)}")
    images = training_images(config)[: how.images]
    program.eval(), guide.eval()
    draws = cached(guide, images, how.draws)
    modules = {pattern: known[name] for pattern, name in chosen.items()}
    old.load_state_dict(weights["program"])
    before = mean_score(old, draws, split(draws, len(images), how)[1], matching(draws, chosen))
    found = fit(program, draws, modules, len(images), how)._replace(before=before)
    out.mkdir(parents=True, exist_ok=True)
    fitted = {"sites": dict(chosen), "settings": asdict(how), **found._asdict()}
    write_json(out / "config.json", config | {"config": asdict(changed), "fitted": fitted})
    states = {"program": program.state_dict(), "guide": guide.state_dict()}
    checkpoint.save(out / "checkpoint.ckpt", {"modules": states})
    if (folder / "log.jsonl").is_file():
        shutil.copyfile(folder / "log.jsonl", out / "log.jsonl")
    return found


def training_images(config: dict[str, Any]) -> Tensor:
    """(B, C, H, W) bytes, of the world that a config.json names.

    Raises:
        ValueError: the run is of a folder of images.
    """
    if config.get("images"):
        raise ValueError("only runs of a world can be fitted by this command: call `fit`")
    recipe = config["recipe"]
    world = override(load_world(recipe["world"]).Config(), config["world"], "the world")
    return world_dataset(recipe["world"], recipe["scenes"], "train", seed=0, config=world).images


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    a = argparse.ArgumentParser(
        prog="python -m inference.empirical", description=__doc__.split("\n")[0]
    )
    a.add_argument("run", type=Path, metavar="RUN", help="run folder, or name of a shipped run")
    a.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder to write")
    a.add_argument("--fit", action="append", required=True, metavar="SITES=MODULE")
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    for field in fields(Settings):
        a.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    o = a.parse_args(arguments)
    how = Settings(**{f.name: getattr(o, f.name) for f in fields(Settings)})
    pyro.enable_validation(False)
    try:
        pairs = dict(pair.split("=", 1) for pair in o.fit if "=" in pair)
        if len(pairs) < len(o.fit):
            raise ValueError(f"--fit {o.fit}: expected SITES=MODULE, each pattern once")
        found = fit_run(o.run, o.out, pairs, tuple(o.set), how)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"log p of the sites {found.before:.2f} -> {found.after:.2f} nats, step {found.step}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
