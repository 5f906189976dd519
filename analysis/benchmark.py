"""Time training steps: by phase, as a share of what the machine can do, beside another implementation's.

    python -m analysis.benchmark [PROGRAM.py …] [--preset P] [--batch B] [--against MODULE:CALLABLE] …

A step is all that `inference.svi` does for one: images, objective, gradient, clipping, optimiser. The other
implementation is a callable that is given the same images (B, C, H, W) in [0, 1] and returns a function
of no arguments that trains one step on them. The two take turns, so a busy machine slows both down.

``--against analysis.papers.air.pyro_air:step`` is AIR as Pyro's own examples have it. ``--beside
train.precision=bf16`` is the same program under another setting, in the same way. ``--scaling FILE.png`` draws
the time of a step against batch, image size, nodes and levels, as far as the program has them.

``--revision REV`` times the working tree beside another revision of it, by turns, on one thread of a CPU: CPU
time per step at the first step and with the weights of the shipped run, the ratio with its error, and shares of
the rate of a matrix product.

On CUDA a step is replayed from a graph (`inference.machine.capture`) and timed beside one that is not: columns
that begin with "eager". Phases, operations and Python's share are always those of an eager step.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from analysis import plots, revisions
from analysis.command import aligned, new_file, write_json
from analysis.gradients import Learner
from inference.command import Parser, command_line, told
from inference.loading import imported
from inference.machine.capture import Step
from inference.plan import Run, plan

PROGRAMS = tuple(f"programs/{name}.py" for name in ("gsgn", "air", "discrete_air", "econ", "space"))
ROUNDS, STEPS = 7, 5
"""Turns, the first of which is not counted, and steps in each."""
MATRIX = 1024
"""Rows and columns of the matrices whose product says what the machine can do."""
SCALING: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "gsgn": {
        "nodes": {"4+16": (), "9+81": ("children=(9,9)", "reach=0.75")},
        "levels": {
            "1": ("children=(4,)", "z_what=(64,32)", "crops=(32,)", "scale=((0.3,0.29),)",
                  "scale_axes=(2,)", "scale_start=(-0.4,)"),
            "2": (),
            "3": ("children=(4,4,4)", "z_what=(64,32,16,16)", "crops=(32,16,8)",
                  "scale=((0.3,0.29),(0.5,0.49),(0.5,0.49))", "scale_axes=(2,1,1)",
                  "scale_start=(-0.4,-0.3,-0.3)"),
        },
        "image size": {"32": ("size=32",), "64": ("size=64",), "128": ("size=128",)},
    },
    "air": {
        "nodes": {str(n): (f"steps={n}",) for n in (1, 2, 3, 5)},
        "image size": {str(n): (f"size={n}",) for n in (50, 75, 100)},
    },
    "discrete_air": {
        "nodes": {str(n): (f"steps={n}",) for n in (1, 2, 3, 5)},
        "image size": {str(n): (f"size={n}",) for n in (32, 64, 128)},
    },
}  # fmt: skip
"""What may be varied: program -> axis -> label -> settings."""


def learner(run: Run) -> Learner:
    """A program in training, on as many scenes as its batch holds."""
    p = plan(run)
    pyro.settings.set(module_local_params=hasattr(p.source.program, "Program"))
    data = p.images.split("validation", p.image_config, p.recipe.batch)
    return Learner(p, p.recipe.estimator, run.seed, data)


def alternate(
    steps: dict[str, Callable[[], object]],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Tensor]:
    """Milliseconds a step of each, (ROUNDS - 1,), taking turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            _wait(device)
            started = clock()
            for _ in range(STEPS):
                step()
            _wait(device)
            times[name].append(1000 * (clock() - started) / STEPS)
    return {name: torch.tensor(values[1:]) for name, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Phases:
    """Milliseconds a step by phase, taken by hooks, so that the step timed is the one trained with.

    data: images to floats on the device; guide, program: their forward passes; objective: densities, KLs, the
    estimator's own work, schedules; backward: gradient and clipping; optimiser: Adam.
    """

    NAMES = ("data", "guide", "program", "objective", "backward", "optimiser")

    def __init__(self, ours: Learner) -> None:
        self.ours, self.device = ours, ours.plan.device
        self.total = dict.fromkeys(self.NAMES, 0.0)
        self.last, self.phase, self.stack = 0.0, "data", []
        modules = {"objective": ours.estimator, "guide": ours.guide, "program": ours.program}
        self.handles = []
        for name, module in modules.items():
            begin, end = self._hooks(name)
            self.handles.append(module.register_forward_pre_hook(begin))
            self.handles.append(module.register_forward_hook(end))
        optimiser = ours.trainer.optimiser
        self.handles.append(optimiser.register_step_pre_hook(lambda *_: self.turn("optimiser")))
        self.handles.append(optimiser.register_step_post_hook(lambda *_: self.turn("data")))

    def _hooks(self, name: str) -> tuple[Callable, Callable]:
        def begin(*_: object) -> None:
            self.stack.append(self.phase)
            self.turn(name)

        def end(*_: object) -> None:
            before = self.stack.pop()
            self.turn("backward" if name == "objective" else before)

        return begin, end

    def turn(self, phase: str) -> None:
        """What took place since the last turn was of the phase before; now begins another."""
        _wait(self.device)
        now = time.perf_counter()
        self.total[self.phase] += now - self.last
        self.last, self.phase = now, phase

    def measure(self, steps: int) -> dict[str, float]:
        """Run `steps` steps, and remove the hooks."""
        self.last = time.perf_counter()
        for _ in range(steps):
            images = self.ours.images(self.ours.trainer.step)
            self.turn("objective")  # schedules
            self.ours.trainer.update(images)
        self.turn("data")
        for handle in self.handles:
            handle.remove()
        return {f"ms {name}": 1000 * self.total[name] / steps for name in self.NAMES}


class Operators(TorchDispatchMode):
    """Counts the tensor operations that reach a device; on CUDA most are one kernel each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def work(step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Operations, floating-point operations and Python's share of the time of a step.

    Python's share is the time in which no tensor operation runs on the CPU: its own, Pyro's and
    autograd's bookkeeping, as the profiler, which slows them down, sees it.
    """
    with Operators() as operators:
        step()
    with FlopCounterMode(display=False) as flops:
        step()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiled:
        started = time.perf_counter()
        step()
        _wait(device)
        seconds = time.perf_counter() - started
    events = profiled.key_averages()
    busy = sum(e.self_cpu_time_total for e in events if e.key.startswith("aten::")) / 1e6
    found = {
        "operations": operators.count,
        "gigaflop": flops.get_total_flops() / 1e9,
        "python share": max(0.0, 1 - busy / seconds),
    }
    if device.type == "cuda":
        found["kernels"] = len(kernels(profiled.events()))
    return found


def kernels(events: Iterable[FunctionEvent]) -> list[FunctionEvent]:
    """What ran on the GPU, without the spans that only name a part of it."""
    there = [e for e in events if e.device_type == DeviceType.CUDA]
    return [e for e in there if not getattr(e, "is_user_annotation", False)]


def gpu_busy(step: Callable[[], object], device: torch.device) -> float:
    """Share of the time of a step in which the GPU runs a kernel, as the profiler sees it."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        _wait(device)
        started = time.perf_counter()
        for _ in range(STEPS):
            step()
        _wait(device)
        seconds = time.perf_counter() - started
    return sum(e.time_range.elapsed_us() for e in kernels(profiled.events())) / 1e6 / seconds


def product_rate(device: torch.device) -> float:
    """Gigaflop a second of a product of two float32 matrices, the best of 20."""
    a = torch.randn(MATRIX, MATRIX, device=device)
    best = float("inf")
    for _ in range(20):
        _wait(device)
        started = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX**3 / best / 1e9


def peak_memory(device: torch.device) -> float:
    """MiB: of the process on a CPU, of tensors on CUDA, since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def training_step(ours: Learner) -> Callable[[], object]:
    """A step as `inference.svi` runs it."""
    update = Step(ours.trainer, ours.plan.recipe.capture)
    return lambda: update(ours.images(ours.trainer.step))


def measure(
    run: Run,
    against: str | None = None,
    beside: Sequence[str] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float | str]:
    """All that is known of a step; the names of the columns say the units."""
    ours = learner(run)
    device = ours.plan.device
    steps = {"ours": training_step(ours)}
    if against:
        steps["theirs"] = imported(against, "--against")(ours.data.floats(device))
    others = {setting: replace(run, set=(*run.set, *setting.split())) for setting in beside}
    steps |= {setting: training_step(learner(other)) for setting, other in others.items()}
    if device.type == "cuda":
        steps["eager"] = ours.update
    pyro.enable_validation(False)
    times = alternate(steps, device, clock)
    row = about(ours, run) | of_a_step(ours, float(times["ours"].median()))
    if against:
        row["against"] = against
        row["their milliseconds"] = float(times["theirs"].median())
        row["ratio"] = float((times["ours"] / times["theirs"]).median())
    for setting in beside:
        row[f"milliseconds, {setting}"] = float(times[setting].median())
        row[f"ratio, {setting}"] = float((times[setting] / times["ours"]).median())
        if device.type == "cuda":
            row[f"GPU busy, {setting}"] = gpu_busy(steps[setting], device)
    if device.type == "cuda":
        row["GPU busy"] = gpu_busy(steps["ours"], device)
        row["eager milliseconds"] = float(times["eager"].median())
        row["eager ratio"] = float((times["eager"] / times["ours"]).median())
        row["eager GPU busy"] = gpu_busy(ours.update, device)
    return row


def about(ours: Learner, run: Run) -> dict[str, float | str]:
    """What is timed, and on what."""
    cuda = ours.plan.device.type == "cuda"
    return {
        "program": ours.plan.variant,
        "preset": run.preset,
        "estimator": ours.plan.recipe.estimator,
        "batch": ours.plan.recipe.batch,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in ours.trainer.learned),
        "parameters with baselines": _numbers(ours.trainer.optimiser),
    }


def of_a_step(ours: Learner, milliseconds: float) -> dict[str, float | str]:
    """What a step that takes so long does: rates, phases, operations, memory, share of the machine's limit."""
    device = ours.plan.device
    done = work(ours.update, device)
    rate = done["gigaflop"] / milliseconds * 1000
    return {
        "milliseconds": milliseconds,
        "steps_per_second": 1000 / milliseconds,
        "images_per_second": 1000 * ours.plan.recipe.batch / milliseconds,
        **Phases(ours).measure(STEPS),
        **done,
        "peak MiB": peak_memory(device),
        "gigaflop/s": rate,
        "share of a matrix product": rate / product_rate(device),
    }


def _numbers(optimiser: torch.optim.Optimizer) -> int:
    return sum(p.numel() for group in optimiser.param_groups for p in group["params"])


def scaling(run: Run) -> dict[str, dict[str, float]]:
    """Milliseconds of a step by axis (batch, image size, nodes, levels) and label."""
    p = plan(run)
    batches = [max(1, round(p.recipe.batch * factor)) for factor in (0.25, 0.5, 1, 2)]
    runs = {"batch": {str(b): replace(run, batch=b) for b in batches}}
    for axis, labels in SCALING.get(p.source.name, {}).items():
        runs[axis] = {x: replace(run, set=(*run.set, *set_)) for x, set_ in labels.items()}
    pyro.enable_validation(False)
    found: dict[str, dict[str, float]] = {}
    for axis, labels in runs.items():
        for label, one in labels.items():
            ours = learner(one)
            times = alternate({"ours": ours.update}, ours.plan.device)["ours"]
            found.setdefault(axis, {})[label] = float(times.median())
    return found


def parser() -> Parser:
    """The command line."""
    a = command_line("analysis.benchmark", __doc__)
    a.add_argument("programs", metavar="PROGRAM.py", nargs="*", default=PROGRAMS)
    a.add_argument("--variant", metavar="V")
    a.add_argument("--preset", default="quick")
    a.add_argument("--estimator", metavar="E")
    a.add_argument("--batch", type=int, metavar="B")
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    a.add_argument("--device", default="auto")
    a.add_argument(
        "--threads", type=int, metavar="N", help="of the CPU; torch's choice if not given"
    )
    a.add_argument("--against", metavar="MODULE:CALLABLE", help="another implementation to time")
    a.add_argument("--beside", action="append", default=[], metavar="FIELD=VALUE",
                   help="time the same program under another setting, too; several in quotes")  # fmt: skip
    a.add_argument(
        "--cpu-time", action="store_true", help="of this process: for a machine with other work"
    )
    a.add_argument(
        "--scaling", type=new_file, metavar="FILE.png", help="vary what can be varied, too"
    )
    a.add_argument("--revision", metavar="REV", help="another revision, to time by turns")
    a.add_argument("--json", type=new_file, metavar="FILE", help="a list of rows, a row a program")
    return a


def by_turns(
    revision: str, programs: Sequence[str], options: dict[str, Any], target: Path | None
) -> None:
    """Print rows against another revision, and write them to a file, as they come.

    Args:
        options: those of a `Run`.
        target: the file, or None.
    """
    rows = []
    for row in revisions.rows(revision, programs, options):
        rows.append({"revision": revision, **row})
        print(aligned([row]), flush=True)
        write_json(target, rows)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    options = vars(parser().parse_args(arguments))
    names = ("programs", "threads", "against", "beside", "cpu_time", "scaling", "json")
    if revision := options.pop("revision"):
        chosen = {k: v for k, v in options.items() if k not in (*names, "device")}
        chosen["set"] = tuple(chosen["set"])
        by_turns(revision, options["programs"], chosen, options["json"])
        return
    programs, threads, against, beside, own, figure, target = map(options.pop, names)
    clock = time.process_time if own else time.perf_counter
    if threads:
        torch.set_num_threads(threads)
    options["set"] = tuple(options["set"])
    rows = []
    for program in programs:
        run = Run(program, Path(), **options)
        rows.append(measure(run, against, beside, clock))
        for name, value in rows[-1].items():
            print(f"{name:26}", f"{value:.4g}" if isinstance(value, float) else value)
        print(flush=True)
        if figure:
            rows[-1]["scaling"] = scaling(run)
        write_json(target, rows)
    if figure:
        plots.save(plots.scaling_figure(rows), figure)


if __name__ == "__main__":
    sys.exit(main())
