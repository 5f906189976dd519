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
import json
import math
import platform
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from tqdm import tqdm

from inference import checkpoint, distributed, networks
from inference.capture import Step
from inference.clevr import ClevrConfig, clevr_with_masks, is_clevr
from inference.clips import clips, is_clips
from inference.data import Dataset, FolderConfig, Sampler, image_folder, load_world, world_dataset
from inference.estimators import ESTIMATORS, estimator
from inference.objectives import Objective
from inference.presets import Recipe, recipe
from programs.loading import Source, choose, load, override, settings

LOG_EVERY = 20
SAVE_SECONDS = 60
VALIDATED_STEPS = 3
VALIDATION_SCENES = 200
TEST_SCENES = 500
BASELINE_RATE = 1e-3
HINT = (
    "the last good checkpoint is kept. --set train.rate=0.3, which lowers the learning rate, or "
    "--set train.clip=0.1 may help"
)
DECIDES = ("variant", "config", "world", "images", "seed")
DECIDES_OF_RECIPE = ("world", "batch", "scenes", "estimator")
"""What a run that is resumed must have been begun with, of config.json and its recipe."""


@dataclass(frozen=True)
class Run:
    """One training run: all that decides its result."""

    program: str
    """path of the program file"""
    out: Path
    variant: str | None = None
    preset: str = "quick"
    world: str | None = None
    images: Path | None = None
    estimator: str | None = None
    steps: int | None = None
    minutes: float = math.inf
    batch: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    set: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Plan:
    """A `Run` worked out: what `config.json` records."""

    source: Source
    config: Any
    variant: str
    recipe: Recipe
    world_config: Any
    images: Path | None
    seed: int
    device: torch.device


def plan(run: Run) -> Plan:
    """Look up everything a run names.

    Raises:
        ValueError: something named is unknown, or a value is bad; the message says what there is.
    """
    source = load(run.program)
    tables = settings(run.set)
    variant = run.variant or next(iter(source.variants))
    config = choose(source.variants, variant, "variant")
    chosen = recipe(source.name, variant, run.preset, run.world)
    named = {"steps": run.steps, "batch": run.batch, "estimator": run.estimator, "world": run.world}
    chosen = replace(chosen, **{k: v for k, v in named.items() if v is not None})
    chosen = override(chosen, tables["train"], "the training recipe")
    for name in ("steps", "batch", "scenes", "evaluate_every"):
        if getattr(chosen, name) < 1:
            raise ValueError(f"{name}={getattr(chosen, name)} must be at least 1")
    if not chosen.clip > 0:
        raise ValueError(f"clip={chosen.clip} must be above 0")
    if not run.minutes >= 0:
        raise ValueError(f"minutes={run.minutes} must be at least 0")
    if not 0 <= run.seed < 2**32:
        raise ValueError(f"seed={run.seed} must be 0 to 2**32 - 1")
    for name in ("auxiliary", "penalties"):
        if given := tables["train"].get(name):
            raise ValueError(
                f"train.{name}={given}: only {{}} can be given here; write others in inference/presets.py"
            )
    if "schedules" in tables["train"]:
        raise ValueError(
            "train.schedules cannot be given here: write others in inference/presets.py; train.rate is a "
            "factor of the learning rate"
        )
    if not chosen.rate > 0:
        raise ValueError(f"rate={chosen.rate} must be above 0")
    estimator(chosen.estimator)
    networks.check(chosen.precision, chosen.layout)

    config = override(config, {**chosen.program, **tables["program"]}, f"program {source.name}")
    if run.images:
        world_config = ClevrConfig() if is_clevr(run.images) else FolderConfig()
    else:
        world_config = load_world(chosen.world).Config()
    shared = {f.name: getattr(config, f.name, None) for f in fields(world_config)}
    shared = {k: v for k, v in shared.items() if k in ("size", "colours") and v is not None}
    options = {**chosen.options, **shared, **tables["world"]}
    what = "the images" if run.images else f"world {chosen.world}"
    world_config = override(world_config, options, what)

    if run.device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {run.device!r}; known are auto, cpu, cuda")
    available = torch.cuda.is_available()
    if run.device == "cuda" and not available:
        raise ValueError(
            "--device cuda was asked for, but torch finds no CUDA device; use cpu or auto"
        )
    device = torch.device("cuda" if available and run.device != "cpu" else "cpu")
    return Plan(source, config, variant, chosen, world_config, run.images, run.seed, device)


def command(run: Run) -> str:
    """The command line of a run, without --resume."""
    words = [
        "python -m inference.svi",
        shlex.quote(run.program),
        "--out",
        shlex.quote(str(run.out)),
    ]
    for f in fields(Run):
        value = getattr(run, f.name)
        if f.name not in ("program", "out", "resume", "set") and value != f.default:
            words += [f"--{f.name}", shlex.quote(str(value))]
    return " ".join([*words, *(f"--set {shlex.quote(pair)}" for pair in run.set)])


def describe(p: Plan, run: Run) -> dict[str, Any]:
    """The plan as plain values for config.json."""
    return {
        "command": command(run),
        "program": str(p.source.named),
        "variant": p.variant,
        "config": asdict(p.config) if p.config is not None else {},
        "recipe": asdict(p.recipe)
        | {"schedules": {k: repr(v) for k, v in p.recipe.schedules.items()}}
        | {"auxiliary": {k: repr(v) for k, v in p.recipe.auxiliary.items()}}
        | {"penalties": {k: repr(v) for k, v in p.recipe.penalties.items()}},
        "world": asdict(p.world_config),
        "images": str(p.images) if p.images else None,
        "seed": p.seed,
        "processes": distributed.world(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {"pyro": pyro.__version__},
    }


def datasets(p: Plan) -> tuple[Dataset, Dataset | None]:
    """Training images, and validation scenes with their truth (None for a folder of images)."""
    if p.images and is_clevr(p.images):
        own = lambda number, split: clevr_with_masks(p.images, split, number, p.world_config)  # noqa: E731
        return own(None, "train"), own(VALIDATION_SCENES, "validation")
    if p.images:
        return (clips if is_clips(p.images) else image_folder)(
            p.images, config=p.world_config
        ), None
    make = lambda number, split: world_dataset(  # noqa: E731
        p.recipe.world, number, split, seed=0, config=p.world_config
    )
    return make(p.recipe.scenes, "train"), make(VALIDATION_SCENES, "validation")


def train(run: Run) -> Path:
    """Train, and leave weights, log, metrics and pictures in the run folder, which is returned.

    Under torchrun its processes train together, and the first of them writes.
    """
    p = plan(run)
    distributed.start(p.device)
    check_split(p)
    first, processes = distributed.rank() == 0, distributed.world()
    out = open_folder(run) if first else run.out
    pyro.settings.set(module_local_params=hasattr(p.source.program, "Program"))
    pyro.set_rng_seed(p.seed)
    pyro.clear_param_store()
    with p.source.blamed("be built as it is set"):
        program, guide = (module.to(p.device) for module in p.source.build(p.config))
    with distributed.one_first():
        data, validation = datasets(p)
    check_pictures(p, data)
    batch = min(p.recipe.batch, len(data.images) // processes * processes)
    sampler = Sampler(len(data.images), batch, p.seed)
    images = data.images.to(p.device) if p.device.type == "cuda" else data.images
    mine = lambda step: distributed.part(sampler.indices(step))  # noqa: E731
    rows = lambda step: mine(step).to(images.device, non_blocking=True)  # noqa: E731
    draw = lambda step: images[rows(step)].to(p.device).float() / 255  # noqa: E731

    gradients = estimator(p.recipe.estimator).to(p.device)
    # shows the parameters of plain functions, and whether program and guide fit
    with torch.no_grad(), p.source.blamed(f"take images of shape {tuple(draw(0).shape)}"):
        check_match(*Objective().traces(program, guide, draw(0)))
        gradients.prepare(program, guide, draw(0))
    networks.prepare((program, guide), p.recipe.precision, p.recipe.layout, p.recipe.compile)
    trainer = Trainer(p, program, guide, gradients)
    trainer.begin()
    update = Step(trainer, p.recipe.capture, VALIDATED_STEPS)
    path = out / "checkpoint.ckpt"
    there = first and run.resume and checkpoint.exists(path)
    if there:
        check_same(out / "config.json", describe(p, run))
    state = distributed.share(checkpoint.load(path) if there else None)
    if state is not None:
        trainer.restore(state)
    if first:
        write_json(out / "config.json", describe(p, run))

    log = Log(out / "log.jsonl", trainer.step, p.recipe.steps, batch)
    started = saved = time.monotonic()
    with interrupts() as interrupted:
        while trainer.step < p.recipe.steps:
            pyro.enable_validation(trainer.step < VALIDATED_STEPS)
            log.add(*update(draw(trainer.step)))
            now = time.monotonic()
            last = trainer.step == p.recipe.steps
            stop, due = distributed.agree(
                interrupted() > 0 or (now - started) / 60 > run.minutes, now - saved > SAVE_SECONDS
            )
            if trainer.step % LOG_EVERY == 0 or last or stop:
                log.write(trainer.step, trainer.rates())
            if first and validation and (trainer.step % p.recipe.evaluate_every == 0 or last):
                log.note(trainer.step, evaluate_briefly(p, program, guide, validation))
            # after all that the log says of this step: resuming goes on with the next
            if (trainer.step % LOG_EVERY == 0 and due) or last or stop:
                trainer.save(path)
                saved = now
            if stop:
                break
    log.close()
    (stopped,) = distributed.agree(interrupted() > 0)
    if first and stopped:
        print(f"stopped at step {trainer.step}; continue with {command(run)} --resume")
    elif first:
        finish(run, p, program, guide, out, trainer.step)
    distributed.wait()
    return out


class Trainer:
    """Parameters, optimiser and step: what a checkpoint holds. Functions must have run once before."""

    def __init__(self, p: Plan, program: nn.Module, guide: nn.Module, estimator: nn.Module) -> None:
        self.schedules, self.clip = dict(p.recipe.schedules), p.recipe.clip
        learning_rate = self.schedules["learning_rate"]
        self.schedules["learning_rate"] = lambda step: p.recipe.rate * learning_rate(step)
        patterns = [name.partition(".")[2] for name in self.schedules if name.startswith("weight.")]
        self.weights = {pattern: torch.tensor(1.0, device=p.device) for pattern in patterns}
        self.objective = Objective(self.weights, p.recipe.auxiliary, p.recipe.penalties)
        self.modules = {"program": program, "guide": guide, "estimator": estimator}
        self.learned = list(dict.fromkeys([*program.parameters(), *guide.parameters()]))
        cuda = p.device.type == "cuda"
        # a tensor, which a captured step reads anew; a fused Adam reads float32 on CUDA
        self.rate = torch.zeros((), dtype=torch.float32 if cuda else torch.float64, device=p.device)
        groups = [{"params": self.learned, "lr": self.rate}]
        if baselines := list(estimator.parameters()):
            groups.append({"params": baselines, "lr": BASELINE_RATE})
        self.optimiser = torch.optim.Adam(groups, fused=True)
        self.device, self.seed, self.step = p.device, p.seed, 0

    def begin(self) -> None:
        """Several processes begin alike, with noise of their own."""
        if distributed.world() > 1:
            distributed.copy_first(self.modules.values())
            distributed.reseed(self.seed, self.step)

    def update(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One step on this process's images x (B, C, H, W). Returns its loss and terms, in nats an image."""
        self.apply_schedules()
        found = self.descend(x)
        self.step += 1
        return found

    def descend(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """`update` at the scheduled numbers as they stand: work on the device alone, with one process."""
        m = self.modules
        loss, terms = m["estimator"](m["program"], m["guide"], x, self.objective)
        self.optimiser.zero_grad()
        (loss / len(x)).backward()
        distributed.average(m.values())
        nn.utils.clip_grads_with_norm_(self.learned, self.clip, largest(self.learned))
        self.optimiser.step()
        terms = {name: term / len(x) for name, term in terms.items()}
        return sum(terms.values()), terms

    def apply_schedules(self) -> None:
        """Write every scheduled number where it is read."""
        for name, schedule in self.schedules.items():
            value = schedule(self.step)
            if name == "learning_rate":
                self.rate.fill_(value)
                continue
            owner, _, key = name.partition(".")
            if owner == "weight":
                self.weights[key].fill_(value)
            elif hasattr(self.modules[owner], key):
                getattr(self.modules[owner], key).fill_(value)

    def rates(self) -> dict[str, float]:
        """Scheduled numbers now, for the log."""
        values = {name: schedule(self.step) for name, schedule in self.schedules.items()}
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def save(self, path: Path) -> None:
        """Write a checkpoint, on the first process."""
        state = self.state()
        if distributed.rank() == 0:
            checkpoint.save(path, state)

    def state(self) -> dict[str, Any]:
        """All that resuming needs; "others" are the random states of other processes than the first.

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
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; with noise from seed, step and rank if by more or fewer processes.

        Raises:
            ValueError: the checkpoint is of another program, variant, preset or estimator.
        """
        try:
            for name, module in self.modules.items():
                module.load_state_dict(state["modules"][name])
            self.optimiser.load_state_dict(state["optimiser"])
            self._adopt()
            self.step = int(state["step"])
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
        """Give the optimiser's restored state this run's learning rate, and its parameters' layout."""
        self.optimiser.param_groups[0]["lr"] = self.rate
        for parameter, state in self.optimiser.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.empty_like(parameter).copy_(state[name])


def check_split(p: Plan) -> None:
    """The batch must be divisible by the number of processes.

    Raises:
        ValueError: it is not.
    """
    batch, number = p.recipe.batch, distributed.world()
    if batch % number:
        raise ValueError(
            f"a batch of {batch} images cannot be split evenly over {number} processes: give --batch "
            f"{max(batch // number, 1) * number}, or torchrun another --nproc-per-node"
        )


def largest(parameters: list[nn.Parameter]) -> Tensor:
    """The largest magnitude in all gradients: their infinity norm, in a 25th of `vector_norm`'s time."""
    ends = [torch.stack(torch.aminmax(p.grad)) for p in parameters if p.grad is not None]
    return torch.stack(ends).abs().max()


def check_pictures(p: Plan, data: Dataset) -> None:
    """A program that says how many colours or pixels a side it draws must be given as many.

    Raises:
        ValueError: it is not.
    """
    _, colours, size, _ = data.images.shape
    for field_name, there in (("colours", colours), ("size", size)):
        wanted = getattr(p.config, field_name, there)
        if wanted != there:
            raise ValueError(
                f"the images have {field_name}={there}, {p.source.name} draws {field_name}={wanted}: choose "
                f"another --world, or --set {field_name}={there}"
            )


def check_match(program_trace: pyro.poutine.Trace, guide_trace: pyro.poutine.Trace) -> None:
    """Program and guide must have the same latent sites, of the same shapes, in the same order.

    Raises:
        ValueError: they do not; the message names the first site that differs.
    """
    mine, other = (
        [(n, tuple(t.nodes[n]["value"].shape)) for n in t.stochastic_nodes]
        for t in (program_trace, guide_trace)
    )
    for a, b in zip_longest(mine, other):
        if a != b:
            raise ValueError(
                f"program and guide must sample the same sites in the same order: the program has "
                f"{a and f'{a[0]} of shape {a[1]}'}, the guide {b and f'{b[0]} of shape {b[1]}'}"
            )


class Log:
    """Averages the terms of the objective, writes log.jsonl, shows progress."""

    def __init__(self, path: Path, step: int, steps: int, batch: int) -> None:
        self.path, self.batch, self.bar = path, batch, None
        self.sums: dict[str, Tensor] = {}
        self.count, self.steps = 0, steps
        self.since = self.noted = time.monotonic()
        self.shown = distributed.rank() == 0
        if self.shown:
            keep_until(path, step)
        if self.shown and sys.stderr.isatty():
            self.bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    def add(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Take in one step."""
        for name, value in {"loss": loss, **{f"term/{k}": v for k, v in terms.items()}}.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1

    def write(self, step: int, rates: dict[str, float]) -> None:
        """Write the averages since the last call, over all processes.

        Raises:
            FloatingPointError: a term is not finite; the message names its site.
        """
        distributed.average_tensors(list(self.sums.values()))
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            named = bad[-1].removeprefix("term/")
            raise FloatingPointError(
                f"the loss is not finite at step {step}: {named} is {means[bad[-1]]}; {HINT}"
            )
        if self.shown:
            self._show(step, means, rates)
        self.sums, self.count, self.since = {}, 0, time.monotonic()

    def _show(self, step: int, means: dict[str, float], rates: dict[str, float]) -> None:
        now = time.monotonic()
        rate = self.count * self.batch / (now - self.since)
        self._append({"step": step, **means, **rates, "images_per_second": rate})
        if self.bar:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(_summary(means, rate))
        elif now - self.noted > 15 or step == self.steps:
            self.noted = now
            print(f"step {step}/{self.steps}  {_summary(means, rate)}", flush=True)

    def note(self, step: int, metrics: dict[str, float]) -> None:
        """Write metrics on validation scenes."""
        self._append({"step": step, **metrics})
        text = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        (self.bar.write if self.bar else print)(f"step {step}/{self.steps}  {text}")
        self.since = time.monotonic()

    def close(self) -> None:
        """End the progress bar."""
        if self.bar:
            self.bar.close()

    def _append(self, record: dict[str, float]) -> None:
        try:
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise checkpoint.unwritable(self.path, error) from error


def _summary(means: dict[str, float], rate: float) -> str:
    groups = {"loss": means["loss"], "images": means.get("term/images")}
    for group in ("kl", "aux", "penalty"):
        parts = [v for k, v in means.items() if k.startswith(f"term/{group}/")]
        groups[group] = sum(parts) if parts else None
    text = "  ".join(f"{k} {v:.1f}" for k, v in groups.items() if v is not None)
    return f"{text}  {rate:.0f} images/s"


def read_log(path: Path) -> list[dict[str, float]]:
    """The records of a log.jsonl; a damaged line, as the last after a crash, is dropped."""
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict) and "step" in record]


def keep_until(path: Path, step: int) -> None:
    """Drop what a log says of steps after `step`: they will be run again."""
    kept = [r for r in read_log(path) if r["step"] <= step]
    checkpoint.write(path, "".join(json.dumps(r) + "\n" for r in kept).encode())


def check_same(path: Path, ours: dict[str, Any]) -> None:
    """What decides a run must be as its config.json says that it began.

    Raises:
        ValueError: it is not; the message names what differs, and the command that began it.
    """
    try:
        begun = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return  # lost or damaged: it is written again
    ours = json.loads(json.dumps(ours))
    pairs = [(n, begun.get(n), ours[n]) for n in DECIDES]
    recipes = begun.get("recipe", {}), ours["recipe"]
    pairs += [(n, *(recipe.get(n) for recipe in recipes)) for n in DECIDES_OF_RECIPE]
    differing = [name for name, old, new in pairs if old is not None and _differ(old, new)]
    if differing:
        raise ValueError(
            f"{path.parent} was begun with another {', '.join(dict.fromkeys(differing))}: give --out another "
            f"folder, or go on with its own settings: {begun.get('command')} --resume"
        )


def _differ(old: Any, new: Any) -> bool:
    """Of tables, fields that only one has do not count: versions may differ in them."""
    if isinstance(old, dict) and isinstance(new, dict):
        return any(_differ(old[k], new[k]) for k in old.keys() & new.keys())
    return old != new


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a whole file, or leave the old one."""
    checkpoint.write(path, (json.dumps(content, indent=2) + "\n").encode())


def open_folder(run: Run) -> Path:
    """The run folder, made if needed.

    Raises:
        ValueError: it cannot be written, or holds more than a run that took no step, and --resume was not
            given.
    """
    try:
        run.out.mkdir(parents=True, exist_ok=True)
        (run.out / ".writable").touch()
        (run.out / ".writable").unlink()
    except OSError as error:
        raise ValueError(
            f"cannot write to {run.out}: {error.strerror}; give another --out"
        ) from error
    if not run.resume and {path.name for path in run.out.iterdir()} - {"config.json", "log.jsonl"}:
        raise ValueError(
            f"{run.out} is not empty: continue it with --resume, or give another --out"
        )
    return run.out


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Within, Ctrl-C and SIGTERM only set a flag; a second Ctrl-C stops at once."""
    received: list[int] = []

    def handler(number: int, _: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, old[signal.SIGINT])

    try:
        old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's business
        yield lambda: 0
        return
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def evaluate_briefly(
    p: Plan, program: nn.Module, guide: nn.Module, data: Dataset
) -> dict[str, float]:
    """Graph metrics on validation scenes, without disturbing the training's random state."""
    from analysis.evaluate import graph_metrics

    state = checkpoint.random_state()
    program.eval(), guide.eval()
    metrics = graph_metrics(program, guide, data, p.device)
    program.train(), guide.train()
    checkpoint.set_random_state(state)
    return metrics


def finish(run: Run, p: Plan, program: nn.Module, guide: nn.Module, out: Path, step: int) -> None:
    """Measure on unseen scenes, draw the pictures, say where everything is."""
    from analysis.evaluate import evaluate, pictures, table

    if p.images and is_clevr(p.images):
        test = clevr_with_masks(p.images, "test", TEST_SCENES, p.world_config)
    elif p.images and is_clips(p.images):
        test = clips(p.images, "test", p.world_config)
    elif p.images:
        test = image_folder(p.images, p.world_config)
    else:
        test = world_dataset(p.recipe.world, TEST_SCENES, "test", seed=0, config=p.world_config)
    metrics = evaluate(program, guide, test, p.device, seed=p.seed)
    write_json(out / "metrics.json", {"step": step, **metrics})
    drawn = pictures(program, guide, test, read_log(out / "log.jsonl"), out, p.device)
    print(table(metrics))
    print(f"step {step}; weights, log and metrics in {out}; pictures:")
    for path in drawn:
        print(f"  {path}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    a = argparse.ArgumentParser(prog="python -m inference.svi", description=__doc__.split("\n")[0])
    a.add_argument(
        "program", metavar="PROGRAM.py", help="file with a Program, such as programs/gsgn.py"
    )
    a.add_argument(
        "--variant", metavar="V", help="entry of the program's VARIANTS (default: the first)"
    )
    a.add_argument(
        "--preset",
        default="quick",
        help="recipe: quick (two CPU cores, a quarter of an hour), paper (a GPU), …",
    )
    source = a.add_mutually_exclusive_group()
    source.add_argument("--world", metavar="W", help="simulator in programs/worlds to learn from")
    source.add_argument("--images", metavar="DIR", type=Path, help="folder of images to learn from, "
                        "of clips, a video, or CLEVR with masks as an HDF5 file")  # fmt: skip
    a.add_argument("--estimator", metavar="E", help=f"one of {', '.join(ESTIMATORS)}, or "
                   "PATTERN=E,… by names of sites")  # fmt: skip
    a.add_argument("--steps", type=int, metavar="N", help="the step to reach")
    a.add_argument(
        "--minutes", type=float, default=math.inf, metavar="M", help="stop cleanly after M"
    )
    a.add_argument("--batch", type=int, metavar="B", help="images a step")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    a.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda")
    a.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder (default: runs/VARIANT-WORLD)"
    )
    a.add_argument("--resume", action="store_true", help="continue the run in --out")
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the "
                   "program's Config; world.FIELD of the world's, train.FIELD of the recipe")  # fmt: skip
    return a


def parse(arguments: list[str] | None = None) -> Run:
    """A `Run` from command-line arguments."""
    options = vars(parser().parse_args(arguments))
    options["set"] = tuple(options["set"])
    if options["out"] is None:
        stem = options["variant"] or Path(options["program"]).stem
        source = options["images"].resolve().name if options["images"] else options["world"]
        source = source or recipe(Path(options["program"]).stem, stem, "quick").world
        options["out"] = Path("runs") / f"{stem}-{source}"
    return Run(**options)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; a caller's mistake is one sentence and exit code 2."""
    run = parse(arguments)
    try:
        train(run)
    except (ValueError, FloatingPointError, distributed.Lost) as error:
        if distributed.local_rank() == 0:
            text = str(error).partition("\ntensor(")[0]  # Pyro's would go on with all the numbers
            print("error:", " ".join(text.split()), file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    finally:
        distributed.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
