"""Train a program and its guide by stochastic variational inference.

    python -m inference.svi programs/gsgn.py

A run is one value, `Run`; `train(run)` reads top to bottom and can be called from Python. The run folder
holds config.json, log.jsonl, checkpoint.ckpt, metrics.json and pictures. Stopping (Ctrl-C, SIGTERM,
``--minutes``) finishes the step, writes the checkpoint and exits; ``--resume`` continues as if nothing
had happened, bit for bit on CPU. On several GPUs or cores:

    torchrun --nproc-per-node 2 -m inference.svi programs/gsgn.py
"""

from __future__ import annotations

import argparse
import math
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pyro
import torch

from inference import checkpoint
from inference.command import Parser, command_line, one_of, print_anything
from inference.estimators import ESTIMATORS, table
from inference.images.dataset import Dataset
from inference.loading import load
from inference.log import SINKS, Log
from inference.machine import distributed
from inference.machine.capture import Step
from inference.machine.choice import settled
from inference.plan import (
    Run,
    check_same,
    check_split,
    command,
    describe,
    images_before,
    open_folder,
    plan,
)
from inference.recipes import recipe
from inference.runs import find_run, read_config, read_weights, write_weights
from inference.trainer import Training

LOG_EVERY = 20
SAVE_SECONDS = 60
VALIDATED_STEPS = 3


class Evaluator(Protocol):
    """Measures a training. The command line uses `analysis.evaluate.SceneEvaluator`."""

    def briefly(self, t: Training, data: Dataset) -> dict[str, float]:
        """Metrics on validation scenes, by name; the training continues afterwards."""
        ...

    def finish(self, t: Training, data: Dataset, out: Path) -> None:
        """Measure on unseen images, and leave metrics.json and pictures in the run folder."""
        ...


def train(run: Run, evaluator: Evaluator | None = None) -> Path:
    """Train, write weights, log and the evaluator's results to the run folder, and return its path.

    Under torchrun all processes train together, and the first of them writes.

    Raises:
        ValueError: a name in the run is unknown, or its parts do not fit.
        FloatingPointError: the loss is not finite any more; the message names the site.
    """
    p = plan(run)
    distributed.start(p.device)
    check_split(p)
    first = distributed.rank() == 0
    with open_folder(run) if first else nullcontext(run.out) as out:
        training = Training(settled(p, out, run.resume))
        begin(training, run, out)
        wanted = evaluator is not None or p.recipe.plateau is not None
        validation = p.validation_images() if first and wanted else None
        with p.source.blamed("be trained", torchs=False):
            stopped = loop(training, run, out, evaluator, validation)
    if first:
        write_weights(out, {n: m.state_dict() for n, m in training.trainer.modules.items()})
    if first and stopped:
        print(f"stopped at step {training.trainer.step}; continue with {command(run)} --resume")
    elif first and evaluator:
        with p.source.blamed("be measured"):
            evaluator.finish(training, p.test_images(), out)
    distributed.wait()
    return out


def begin(training: Training, run: Run, out: Path) -> None:
    """Begin at the first step, or at that of the checkpoint in the run folder; write config.json."""
    trainer, described = training.trainer, describe(training.plan, run)
    described["names"] = training.names._asdict()
    if training.plan.path is not None:
        described["pictures"] = training.pictures()
    first, path = distributed.rank() == 0, out / "checkpoint.ckpt"
    trainer.begin()
    there = first and run.resume and checkpoint.exists(path)
    if there:
        check_same(out / "config.json", described)
        described |= origin(run, out)
    elif run.start is not None:
        described["started"] = history(run.start)
    state = distributed.share(checkpoint.load(path) if there else None)
    if state is not None:
        trainer.restore(state)
    elif first and run.resume:
        print(f"{out} holds no checkpoint: the training begins")
    if state is None:
        check_start(training, run.start)
    if state is None and run.start is not None:
        start_from(training, run.start)
    if first:
        checkpoint.write_json(out / "config.json", described)


def origin(run: Run, out: Path) -> dict[str, Any]:
    """How the run in a folder began, by its config.json: its command now, and the run that it started from.

    Raises:
        ValueError: ``--from`` names another run than the one it started from.
    """
    try:
        begun = read_config(out)
        words = shlex.split(begun["command"])
    except (ValueError, KeyError):
        return {}  # lost or damaged: it is written again
    start = words[words.index("--from") + 1] if "--from" in words else None
    if run.start is not None and (
        start is None or Path(run.start).resolve() != Path(start).resolve()
    ):
        raise ValueError(
            f"--from {run.start}: the training in {out} began from {start or 'fresh weights'}; leave --from "
            "out to go on, or give --out another folder"
        )
    started = {"started": begun["started"]} if "started" in begun else {}
    return {"command": command(replace(run, start=start)), **started}


def check_start(training: Training, run: str | None) -> None:
    """See that a finish has a run to start from.

    Raises:
        ValueError: it does not.
    """
    if run is None and training.plan.recipe.continues:
        raise ValueError(
            "this preset finishes a run: give --from RUN, whose weights it starts from"
        )


def history(run: str) -> dict[str, Any]:
    """How a run's weights came about: its command, the fit of its priors, and the run that it started from."""
    before = read_config(find_run(run))
    return {k: before[k] for k in ("command", "fitted", "started") if k in before}


def start_from(training: Training, run: str) -> None:
    """Give program and guide the weights of a run.

    Raises:
        ValueError: there is no such run, or its networks have other sizes.
    """
    folder = find_run(run)
    weights, program = read_weights(folder), read_config(folder)["program"]
    try:
        for name in ("program", "guide"):
            module = training.trainer.modules[name]
            module.load_state_dict(widened(training, module, name) | weights[name])
    except (RuntimeError, ValueError, KeyError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" …")
        raise ValueError(
            f"--from {run}: the weights of this run of {program} do not fit the program as it is set "
            f"({reason}); give the run's own program, --preset, --variant and --set"
        ) from error
    print(f"starts from the weights of {run}")


def widened(training: Training, module: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    """What a finish adds to the guide, which begins as it is made; nothing in other trainings."""
    finish = name == "guide" and training.plan.recipe.continues
    return module.state_dict() if finish else {}


def loop(
    training: Training, run: Run, out: Path, evaluator: Evaluator | None, validation: Dataset | None
) -> bool:
    """Take the recipe's steps, write log and checkpoints; returns whether it was interrupted."""
    trainer, recipe = training.trainer, training.plan.recipe
    first = distributed.rank() == 0
    update = Step(trainer, recipe.capture, VALIDATED_STEPS)
    log = Log(out / "log.jsonl", trainer.step, recipe.steps, training.batch, run.log)
    started = saved = time.monotonic()
    with interrupts() as interrupted:
        while not finished(training):
            pyro.enable_validation(trainer.step < VALIDATED_STEPS)
            training.move()
            log.add(*update(training.images(trainer.step)))
            now = time.monotonic()
            if trainer.falls and trainer.step % trainer.falls.rule.every == 0:
                settle(training, validation)
            last = finished(training)
            stop, due = distributed.agree(
                interrupted() > 0 or (now - started) / 60 > run.minutes, now - saved > SAVE_SECONDS
            )
            if trainer.step % LOG_EVERY == 0 or last or stop:
                log.write(trainer.step, trainer.rates())
            if (
                first
                and evaluator
                and validation
                and (trainer.step % recipe.evaluate_every == 0 or last)
            ):
                log.note(trainer.step, evaluate_briefly(training, evaluator, validation, out))
            # after the log's records of this step: resuming continues with the next step
            if (trainer.step % LOG_EVERY == 0 and due) or last or stop:
                trainer.save(out / "checkpoint.ckpt")
                saved = now
            if stop:
                break
    log.close()
    (stopped,) = distributed.agree(interrupted() > 0)
    return stopped


def finished(training: Training) -> bool:
    """Whether the training has taken the recipe's steps, or its validation loss has stayed long enough."""
    trainer = training.trainer
    over = trainer.falls is not None and trainer.falls.over
    return over or trainer.step >= training.plan.recipe.steps


def settle(training: Training, data: Dataset | None) -> None:
    """Count a validation loss for the recipe's `plateau`, without disturbing the random state.

    Args:
        data: the validation images; None on all processes but the first.
    Raises:
        ValueError: there are no validation images.
    """
    trainer, loss = training.trainer, None
    if distributed.rank() == 0:
        if data is None:
            raise ValueError("the recipe's plateau needs validation images, and there are none")
        loss = validation_loss(training, data)
    trainer.falls.add(distributed.share(loss))


def validation_loss(training: Training, data: Dataset) -> float:
    """The training's objective on the validation images, nats per image; the random state stays."""
    with undisturbed(training):
        return training.trainer.loss(data.floats(training.plan.device))


@contextmanager
def undisturbed(training: Training) -> Iterator[None]:
    """Inside, program and guide are measured; afterwards the training goes on as if nothing had been."""
    state = checkpoint.random_state()
    modules = training.program, training.guide
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module in modules:
            module.train()
        checkpoint.set_random_state(state)


def evaluate_briefly(
    training: Training, evaluator: Evaluator, data: Dataset, out: Path
) -> dict[str, float]:
    """The evaluator's metrics on validation scenes, without disturbing the training's random state.

    Raises:
        ValueError: they cannot be measured; the checkpoint is written first.
    """
    try:
        with undisturbed(training), training.plan.source.blamed("be measured"):
            return evaluator.briefly(training, data)
    except Exception:
        training.trainer.save(out / "checkpoint.ckpt")
        raise


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Inside, Ctrl-C and SIGTERM only set a flag; a second Ctrl-C stops at once."""
    received: list[int] = []

    def handler(number: int, _: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, old[signal.SIGINT])

    try:
        old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, where signals cannot be handled
        yield lambda: 0
        return
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def parser() -> Parser:
    """The command line."""
    a = command_line("inference.svi", __doc__)
    a.add_argument(
        "program", metavar="PROGRAM.py", help="file with a Program, such as programs/gsgn.py"
    )
    a.add_argument(
        "--variant", metavar="V", help="entry of the program's VARIANTS (default: the first)"
    )
    a.add_argument(
        "--preset",
        default="quick",
        help="recipe: tiny (seconds), quick (two CPU cores, a quarter of an hour), long, paper (a GPU), …",
    )
    a.add_argument(
        "--world", metavar="W", help="world to learn from: a name of the project's, or a Python file; "
        "with --images it selects the recipe",
    )  # fmt: skip
    a.add_argument("--images", metavar="PATH", type=Path, help="folder of images to learn from, of clips, a "
                   "video, or a published data set: Multi-dSprites, CLEVR, COCO, …")  # fmt: skip
    a.add_argument("--estimator", metavar="E", action=Explained, help=f"one of {', '.join(ESTIMATORS)}, or "
                   "PATTERN=E,… by names of sites; help explains each")  # fmt: skip
    _add_settings(a)
    return a


def _add_settings(a: Parser) -> None:
    """Options for length, batch, device, output and start of a training."""
    a.add_argument("--steps", type=int, metavar="N", help="the step to reach")
    a.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="stop cleanly after M"
    )
    a.add_argument("--batch", type=int, metavar="B", help="images per step")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    a.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda")
    a.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="run folder (default: runs/VARIANT-WORLD[-PRESET])",
    )
    a.add_argument(
        "--from",
        dest="start",
        metavar="RUN",
        help="start from the weights of a run, shipped or your own",
    )
    a.add_argument("--log", type=one_of(SINKS, "log"), metavar="L",
                   help=f"second log, beside log.jsonl: {' or '.join(SINKS)}")  # fmt: skip
    a.add_argument("--resume", action="store_true", help="continue the run in --out")
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the "
                   "program's Config; world.FIELD of the world's, train.FIELD of the recipe")  # fmt: skip


class Explained(argparse.Action):
    """Stores the name of an estimator; ``help`` prints all estimators and exits."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        """Store it."""
        if values == "help":
            print(table())
            parser.exit()
        setattr(namespace, self.dest, values)


def parse(arguments: list[str] | None = None) -> Run:
    """A `Run` from command-line arguments."""
    return run_of(vars(parser().parse_args(arguments)))


def run_of(options: dict[str, Any]) -> Run:
    """A `Run` from the options of `parser`."""
    options["set"] = tuple(options["set"])
    if options["out"] is None:
        options["out"] = default_folder(options)
    return Run(**options)


def default_folder(options: dict[str, Any]) -> Path:
    """runs/VARIANT-WORLD, or runs/VARIANT-FOLDER for the user's images; and -PRESET unless it is quick."""
    stem = options["variant"] or Path(options["program"]).stem
    images, world = options["images"], options["world"]
    if not images and not world:
        source = load(options["program"])
        own = getattr(source.program, "RECIPES", None)
        chosen = recipe(source.stem, stem, options["preset"], own=own)
        world = chosen.world
        if chosen.continues and options["start"]:
            images, world, _ = images_before(find_run(options["start"]))
    what = Path(images).resolve().name if images else Path(world).stem
    preset = "" if options["preset"] == "quick" else f"-{options['preset']}"
    return Path("runs") / f"{stem}-{what}{preset}"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; a caller's mistake is one sentence and exit code 2."""
    from analysis.evaluate import SceneEvaluator

    print_anything()
    try:
        train(parse(arguments), SceneEvaluator())
    except (ValueError, FloatingPointError, distributed.Lost) as error:
        if distributed.local_rank() == 0:
            text = str(error).partition("\ntensor(")[0]  # Pyro's messages continue with all numbers
            print("error:", " ".join(text.split()), file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    finally:
        distributed.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
