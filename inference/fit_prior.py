"""Fit the priors of a trained run by the evidence (empirical Bayes); all other weights stay fixed.

    python -m inference.fit_prior RUN [--out DIR] [--set FIELD=VALUE] [--scenes N] [--draws S] [--of K]

    maximise over the parameters of the learned priors   E_x E_q(z | x) [ Σ_sites log p(z_site | its parents) ]

The other terms of the evidence lower bound do not depend on these parameters; where the guide uses the prior,
as DeNF's does to infer presences, the bound before the fit is that of the guide before. The best prior of a
latent without parents is the aggregate posterior q(z) = E_x q(z | x); the fit gains the difference in
KL(q(z) ‖ p(z)) before and after it.

The run's program must have learned priors (`programs.blocks.priors`); a run without them gets
``--set learned=1``. The guide's draws are made once. One run of the program on them finds the
arguments with which each prior is called. Then each family is fitted to its own draws, most in
closed form. Held-out images decide whether the fitted prior is kept, or the one before, or the paper's.

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
from inference.command import check_empty, command_line, new_folder, told
from inference.prior_draws import PASS, Draws, cached, floats, priors, resampled, weighed
from inference.runs import Trained, built, find_run, kind, open_run
from inference.settings import PREFIXES, settings
from programs.blocks.priors import Learned

MEASURED = 200
"""Largest number of held-out images whose bound is measured before and after the fit."""
HELD = 10
"""Every tenth image is held out: it only decides whether a fitted prior is kept."""
ROUNDING = 1e-6
"""Largest share of a bound by which it may fall, since sums of floats are rounded."""


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
    """mean log p of these sites under the prior before, nats per held-out image"""
    after: float
    """mean log p of these sites under the prior that was kept, nats per held-out image"""


def fit(
    found: dict[Learned, Draws],
    images: int,
    draws: int,
    seed: int = 0,
    progress: bool = False,
) -> list[Fit]:
    """Fit every prior to its draws; of the prior before, the paper's and the fitted one, keep the best.

    The best has the highest log p of held-out images.

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
            before, plain = copy.deepcopy(prior), copy.deepcopy(prior)
            plain.plain()
            prior.fit(*own.rows(~apart))
            three = before, plain, prior
            scores = [score(p, own.rows(apart)) / number for p in three]
            best = scores.index(max(scores))
            prior.load_state_dict(three[best].state_dict())
            fits.append(Fit(own.sites, scores[0], scores[best]))
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
        The gain of each prior, and the bound of held-out images (`bound`) before and after.
    Raises:
        ValueError: no such run, a field that its program does not have, weights that do not fit, or a bound
            that falls.
    """
    folder = find_run(run)
    trained = open_run(folder)
    program, guide, changed = opened(trained, pairs)
    source = guide if drawn_by is None else same_kind(trained, drawn_by).guide
    images = trained.training(how.scenes).images
    pyro.set_rng_seed(how.seed)
    chosen = partial(resampled, trained.program, source, number=how.of) if how.of > 1 else None
    found = cached(program, source, images, how.draws, progress=True, drawn=chosen)
    fits = fit(found, len(images), how.draws, how.seed, progress=True)
    apart = trained.validation(MEASURED)
    held = floats(images[HELD - 1 :: HELD][:MEASURED] if apart is None else apart.images)
    before, after = (
        bound(p, q, held, how.bound or how.of, how.seed)
        for p, q in ((trained.program, trained.guide), (program, guide))
    )
    if before - after > ROUNDING * abs(before):
        raise ValueError(
            f"the bound of images kept apart falls from {before:.2f} to {after:.2f} nats, so nothing is "
            f"written: fit to more than {len(images)} images (--scenes), or to more draws (--draws)"
        )
    words = ["python", "-m", "inference.fit_prior", str(run), "--out", str(out)]
    words += [word for pair in pairs for word in ("--set", pair)]
    words += ["--guide", str(drawn_by)] if drawn_by else []
    words += [f"--{k}={v}" for k, v in asdict(how).items() if v != getattr(Settings(), k)]
    fitted: dict[str, Any] = {"command": shlex.join(words), "priors": [f._asdict() for f in fits]}
    fitted |= {"bound_before": before, "bound_after": after, "images": len(held)}
    states = {"program": program.state_dict(), "guide": guide.state_dict()}
    with new_folder(out):
        own = trained.config | {"config": changed, "fitted": fitted}
        checkpoint.write_json(out / "config.json", own)
        checkpoint.save(out / "checkpoint.ckpt", {"modules": states})
        checkpoint.write_json(out / "metrics.json", trained.steps)
        if (folder / "log.jsonl").is_file():
            shutil.copyfile(folder / "log.jsonl", out / "log.jsonl")
    return fits, (before, after)


@torch.no_grad()
def bound(
    program: Callable, guide: Callable, images: Tensor, number: int = 1, seed: int = 0
) -> float:
    """Mean bound of images (B, C, H, W) by hard draws of the guide, nats per image.

    Args:
        number: draws per image: 1 for the ELBO, more for the importance-weighted bound.
        seed: of the draws; two guides with one seed draw with the same noise.
    """
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for x in images.split(PASS):
            weights = torch.stack([weighed(program, guide, x)[1] for _ in range(number)])
            total += float((weights.logsumexp(0) - math.log(number)).double().sum())
    return total / len(images)


def opened(run: Trained, pairs: tuple[str, ...]) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Program, guide and Config of a run with a changed Config, which may only add learned priors.

    Priors that the run has keep their parameters, if they have as many components; others are the paper's.

    Raises:
        ValueError: the change is not of the program's Config, adds other parameters, or no priors.
    """
    changes = of_program(pairs)
    program, guide, changed = built(run.config, changes)
    if not priors(program) and not changes:
        return opened(run, ("learned=1",))
    if not priors(program):
        raise ValueError(f"{run.config['program']} with {' '.join(pairs)} has no learned priors")
    own = {f"{n}.": m for n, m in program.named_modules() if isinstance(m, Learned)}
    shapes = {k: v.shape for k, v in program.state_dict().items()}
    weights = run.program.state_dict()
    kept = {
        k: v for k, v in weights.items() if not k.startswith(tuple(own)) or shapes.get(k) == v.shape
    }
    missing, other = program.load_state_dict(kept, strict=False)
    foreign = [k for k in missing if not k.startswith(tuple(own))] + list(other)
    if foreign:
        names = ", ".join(foreign)
        raise ValueError(f"{run.folder} does not fit: {names} is in one of the two alone")
    for name, prior in own.items():
        if any(key.startswith(name) for key in missing):
            prior.plain()
    guide.load_state_dict(run.guide.state_dict())
    return program.eval(), guide.eval(), asdict(changed)


def of_program(pairs: tuple[str, ...]) -> dict[str, Any]:
    """The changes of the program's Config that ``--set`` pairs name.

    Raises:
        ValueError: a pair is of the world or of the training.
    """
    tables = settings(pairs)
    for prefix in PREFIXES:
        for name in tables[prefix]:
            raise ValueError(
                f"--set {prefix}.{name}: a fit changes priors alone; give fields of the program's Config, "
                "such as learned=16"
            )
    return tables["program"]


def same_kind(run: Trained, other: str | Path) -> Trained:
    """Another run of the same program and variant.

    Raises:
        ValueError: it is one of another.
    """
    opened = open_run(other)
    if kind(opened.config) != kind(run.config):
        one, two = (" ".join(kind(r.config)) for r in (opened, run))
        raise ValueError(f"--guide {other} is a run of {one}: give one of {two}")
    return opened


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("inference.fit_prior", __doc__)
    a.add_argument("run", metavar="RUN", help="run folder, or name of a shipped run")
    a.add_argument(
        "--out", type=Path, metavar="DIR", help="new run folder (default: runs/RUN-fitted)"
    )
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE",
                   help="a field of the program's Config; learned=16: mixtures of 16")  # fmt: skip
    a.add_argument(
        "--guide",
        metavar="RUN",
        help="another run of the same program, whose guide makes the draws",
    )
    for option, words in {
        "--scenes": "images of the training split (default: %(default)s)",
        "--draws": "draws of the guide per image (default: %(default)s)",
        "--of": "each draw is one of OF, chosen by its weight (default: %(default)s)",
        "--bound": "draws per image of the bound that is reported (default: OF)",
        "--seed": "of the draws and of the fit (default: %(default)s)",
    }.items():
        a.add_argument(option, type=int, default=getattr(Settings(), option[2:]), help=words)
    o = a.parse_args(arguments)
    pyro.enable_validation(False)
    how = Settings(**{name: getattr(o, name) for name in asdict(Settings())})
    out = o.out or Path("runs") / f"{find_run(o.run).name}-fitted"
    check_empty(out)
    fits, (before, after) = fit_run(o.run, out, tuple(o.set), how, o.guide)
    for f in fits:
        print(f"  {' '.join(f.sites):<50} {f.before:10.2f} -> {f.after:10.2f} nats per image")
    number = how.bound or how.of
    name = "ELBO" if number == 1 else f"IWAE of {number} draws"
    print(f"{out}: {name} of images kept apart {before:.2f} -> {after:.2f} nats per image")


if __name__ == "__main__":
    sys.exit(main())
