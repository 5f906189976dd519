"""Fit the priors of a trained run by the evidence (empirical Bayes); all other weights stay fixed.

    python -m inference.fit_prior RUN [--out DIR] [--set FIELD=VALUE] [--scenes N] [--draws S] [--of K]

    maximise over the parameters of the learned priors   E_x E_q(z | x) [ Σ_sites log p(z_site | its parents) ]

The other terms of the evidence lower bound do not depend on these parameters. The best prior of a
latent without parents is the aggregate posterior q(z) = E_x q(z | x); the fit gains the difference
in KL(q(z) ‖ p(z)) before and after it.

The run's program must have learned priors (`programs.blocks.priors`); a run without them gets
``--set learned=1``. The guide's draws are made once. One run of the program on them finds the
arguments with which each prior is called. Then each family is fitted to its own draws, most in
closed form. The paper's prior is kept unless the learned one raises the bound on held-out images,
so the bound never falls.

A guide whose draws are wider than the posterior makes the priors wide, and their samples poor. With ``--of K``
each draw is one of K, chosen by its weight p(x, z) / q(z | x) under the run as it was, and the bound is the
importance-weighted one of K draws (Burda et al., 2016), or of N with ``--bound N``. With ``--guide RUN`` the
guide of another run makes the draws, for example that of the run before a sleep phase; the bound is that of
the run's own guide, of its world's validation images where there are some.

Shape legend: M draws of a site, plates included.
"""

from __future__ import annotations

import copy
import math
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn
from tqdm import tqdm

from inference import checkpoint
from inference.command import command_line, new_folder, told
from inference.loading import load
from inference.prior_draws import PASS, Draws, cached, floats, priors, resampled, weighed
from inference.runs import find_run, open_run, read_config, read_weights
from inference.settings import choose, override, settings
from programs.blocks.priors import Learned

MEASURED = 200
"""Largest number of held-out images whose bound is measured before and after the fit."""
HELD = 10
"""Every tenth image is held out: it only decides whether a fitted prior is kept."""


@dataclass(frozen=True)
class Settings:
    """How priors are fitted."""

    scenes: int = 2000  # images of the training split of the run's world, or of its folder
    draws: int = 2  # of the guide, per image
    of: int = 1  # draws of the guide from which each of these is chosen by its weight
    bound: int = 0  # draws per image of the bound; 0: as many as `of`, one for the ELBO
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"scenes": HELD, "draws": 1, "of": 1, "bound": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least {least}")


class Fit(NamedTuple):
    """The gain of one prior on held-out images."""

    sites: tuple[str, ...]
    """the sites that use the prior"""
    before: float
    """mean log p of these sites under the plain prior (`Learned.plain`), nats per held-out image"""
    after: float
    """mean log p of these sites under the prior that was kept, nats per held-out image"""


def fit(
    found: dict[Learned, Draws],
    images: int,
    draws: int,
    seed: int = 0,
    progress: bool = False,
) -> list[Fit]:
    """Fit every prior to its draws, and keep those that raise the bound on held-out images.

    Args:
        found: the draws per prior, as `cached` returns them.
        images: number of images, those without a draw of a prior too.
        draws: number of draws per image.
    Raises:
        ValueError: there are too few images to hold one out.
    """
    if images < HELD:
        raise ValueError(f"{images} images: expected at least {HELD}, of which one is held out")
    fits, number = [], images // HELD * draws
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for prior, own in tqdm(
            found.items(), "priors", disable=None if progress else True, leave=False
        ):
            apart = own.image % HELD == HELD - 1
            plain = copy.deepcopy(prior)
            plain.plain()
            before = score(plain, own.rows(apart)) / number
            prior.fit(*own.rows(~apart))
            after = score(prior, own.rows(apart)) / number
            if not after > before:
                prior.plain()
                after = before
            fits.append(Fit(own.sites, before, after))
    return fits


@torch.no_grad()
def score(prior: Learned, rows: tuple[Tensor, Tensor, Tensor | None]) -> float:
    """Σ_m w_m log p(z_m | given_m), nats."""
    total = 0.0
    values, weights, given = rows
    for index in torch.arange(len(values)).split(5000) if len(values) else ():
        p = prior() if given is None else prior(given[index])
        z = values[index].reshape(len(index), *p.event_shape)
        total += float((weights[index] * p.log_prob(z)).double().sum())
    return total


def fit_run(
    run: str | Path,
    out: Path,
    pairs: tuple[str, ...],
    how: Settings,
    drawn_by: str | Path | None = None,
) -> tuple[list[Fit], tuple[float, float]]:
    """Fit the priors of a trained run on its own training images, and write a run folder.

    Args:
        pairs: fields of the program's Config to change, as in ``--set``.
        drawn_by: another run of the same program, whose guide makes the draws.
    Returns:
        The gain of each prior, and the bound of held-out images (`bounds`) before and after.
    Raises:
        ValueError: no such run, a field that its program does not have, weights that do not fit, or a bound
            that falls.
    """
    folder = find_run(run)
    config, (program, guide, changed) = read_config(folder), opened(folder, pairs)
    trained = open_run(folder)
    images = trained.training(how.scenes).images
    pyro.set_rng_seed(how.seed)
    source = open_run(drawn_by).guide if drawn_by else guide
    chosen = partial(resampled, trained.program, source, number=how.of) if how.of > 1 else None
    found = cached(program, source, images, how.draws, progress=True, drawn=chosen)
    fits = fit(found, len(images), how.draws, how.seed, progress=True)
    apart = trained.validation(MEASURED)
    held = floats(images[HELD - 1 :: HELD][:MEASURED] if apart is None else apart.images)
    before, after = bounds((trained.program, program), guide, held, how.bound or how.of)
    if after < before:
        raise ValueError(
            f"the bound of images kept apart falls from {before:.2f} to {after:.2f} nats"
        )
    words = ["python", "-m", "inference.fit_prior", str(run), "--out", str(out)]
    words += [word for pair in pairs for word in ("--set", pair)]
    words += ["--guide", str(drawn_by)] if drawn_by else []
    words += [f"--{k}={v}" for k, v in asdict(how).items() if v != getattr(Settings(), k)]
    fitted: dict[str, Any] = {"command": shlex.join(words), "priors": [f._asdict() for f in fits]}
    fitted |= {"bound_before": before, "bound_after": after, "images": len(held)}
    states = {"program": program.state_dict(), "guide": guide.state_dict()}
    with new_folder(out):
        checkpoint.write_json(out / "config.json", config | {"config": changed, "fitted": fitted})
        checkpoint.save(out / "checkpoint.ckpt", {"modules": states})
        checkpoint.write_json(out / "metrics.json", trained.steps)
        if (folder / "log.jsonl").is_file():
            shutil.copyfile(folder / "log.jsonl", out / "log.jsonl")
    return fits, (before, after)


@torch.no_grad()
def bounds(
    programs: tuple[Callable, Callable], guide: Callable, images: Tensor, number: int = 1
) -> list[float]:
    """Mean bound of images (B, C, H, W) under each program, on the same hard draws, nats per image.

    Args:
        number: draws per image: 1 for the ELBO, more for the importance-weighted bound.
    """
    totals = [0.0 for _ in programs]
    for x in images.split(PASS):
        weights = torch.stack([weighed(guide, x, *programs)[1] for _ in range(number)])
        for k, own in enumerate((weights.logsumexp(0) - math.log(number)).double().sum(1)):
            totals[k] += float(own)
    return [total / len(images) for total in totals]


def opened(folder: Path, pairs: tuple[str, ...]) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Program, guide and Config of a run with a changed Config, which may only add learned priors.

    Raises:
        ValueError: the change adds other parameters, or no priors.
    """
    config, source = read_config(folder), load(read_config(folder)["program"])
    base = override(choose(source.variants, config["variant"], "variant"), config["config"], "it")
    changes = settings(pairs)["program"]
    changed = override(base, changes, f"program {source.name}")
    program, guide = source.build(changed)
    if not priors(program) and not changes:
        return opened(folder, ("learned=1",))
    if not priors(program):
        raise ValueError(f"{source.name} with {' '.join(pairs)} has no learned priors")
    weights = read_weights(folder)
    own = tuple(f"{n}." for n, m in program.named_modules() if isinstance(m, Learned))
    # priors are fitted anew, from where they are, but may have another number of components than before
    state = {k: v.shape for k, v in program.state_dict().items()}
    kept = {
        k: v
        for k, v in weights["program"].items()
        if not k.startswith(own) or state.get(k) == v.shape
    }
    missing, other = program.load_state_dict(kept, strict=False)
    foreign = [k for k in missing if not k.startswith(own)] + list(other)
    if foreign:
        raise ValueError(f"{folder} does not fit: {', '.join(foreign)} is in one of the two alone")
    guide.load_state_dict(weights["guide"])
    return program.eval(), guide.eval(), asdict(changed)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("inference.fit_prior", __doc__)
    a.add_argument("run", metavar="RUN", help="run folder, or name of a shipped run")
    a.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder to write (default: runs/RUN)"
    )
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                   help="a field of the program's Config; learned=16: mixtures of 16")  # fmt: skip
    a.add_argument(
        "--guide",
        metavar="RUN",
        help="another run of the same program, whose guide makes the draws",
    )
    for name, value in asdict(Settings()).items():
        a.add_argument(f"--{name}", type=int, default=value)
    o = a.parse_args(arguments)
    pyro.enable_validation(False)
    how = Settings(**{name: getattr(o, name) for name in asdict(Settings())})
    out = o.out or Path("runs") / find_run(o.run).name
    fits, (before, after) = fit_run(o.run, out, tuple(o.set), how, o.guide)
    for f in fits:
        print(f"  {' '.join(f.sites):<50} {f.before:10.2f} -> {f.after:10.2f} nats per image")
    number = how.bound or how.of
    bound = "ELBO" if number == 1 else f"IWAE of {number} draws"
    print(f"{out}: {bound} of images kept apart {before:.2f} -> {after:.2f} nats per image")


if __name__ == "__main__":
    sys.exit(main())
