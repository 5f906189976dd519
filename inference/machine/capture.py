"""A training step as one CUDA graph: captured once, then replayed.

Python and Pyro take longer to launch a step's kernels, one by one, than a GPU takes to run them. A graph
launches all of them at once. It runs the same kernels on the same memory every time, so

* images are copied into the graph's own memory;
* every value that changes from step to step is a tensor that is written in place: the learning rate,
  temperatures, KL weights, running means. Python's numbers and decisions stay as they were at the capture;
* nothing in a step may wait for the device, or copy a number there.

If capturing a step fails, training continues without a graph, from exactly the same state, and one line
says why. On a CPU a step is never captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from inference import checkpoint
from inference.machine import distributed

if TYPE_CHECKING:
    from inference.trainer import Trainer

Found = tuple[Tensor, dict[str, Tensor]]
"""Type of the loss and terms of a step."""
_abandoned: list[torch.cuda.CUDAGraph] = []
"""Graphs of failed captures, kept because the allocator still asks them which memory they own."""


class Step:
    """`trainer.update`, replayed from a graph if possible. The next step overwrites the returned tensors.

    Args:
        wanted: whether to capture.
        eager: number of steps that run without a graph first, so that all buffers exist.
    """

    def __init__(self, trainer: Trainer, wanted: bool = True, eager: int = 3) -> None:
        self.trainer, self.eager = trainer, eager
        self.wanted = wanted and trainer.device.type == "cuda"
        self.replay: Callable[[], None] | None = None
        if self.wanted and distributed.world() > 1:
            self._give_up("several processes train together")
        self.stream = torch.cuda.Stream(trainer.device) if self.wanted else None

    def __call__(self, x: Tensor) -> Found:
        """One step on images x (B, C, H, W). Returns its loss and terms, in nats per image."""
        if self.wanted and self.eager > 0:
            self.eager -= 1
            with beside(self.stream):
                return self.trainer.update(x)
        if self.wanted and self.replay is None:
            self._capture(x)
        if self.replay is None or x.shape != self.images.shape:
            return self.trainer.update(x)
        self.trainer.apply_schedules()
        self.images.copy_(x)
        self.replay()
        self.trainer.step += 1
        return self.found

    def _capture(self, x: Tensor) -> None:
        before = Before(self.trainer)
        self.images = x.clone()
        try:
            with capturable(self.trainer.optimiser):
                self.replay, self.found = record(self.trainer.descend, self.images, self.stream)
            before.check()
        except Exception as error:
            before.restore()
            self.replay = None
            self._give_up(str(error).strip().partition("\n")[0] or type(error).__name__)

    def _give_up(self, reason: str) -> None:
        self.wanted = False
        if distributed.rank() == 0:
            print(f"steps are not captured as a CUDA graph: {reason}", flush=True)


@contextmanager
def capturable(optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, an optimiser may be captured; if it always may, it warns at every step outside a capture."""
    for group in optimiser.param_groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in optimiser.param_groups:
            group["capturable"] = False


@contextmanager
def beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Run on another stream than the current one, in order with it."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def record(
    step: Callable[[Tensor], Found], x: Tensor, stream: torch.cuda.Stream
) -> tuple[Callable[[], None], Found]:
    """Capture `step(x)` without running it. Returns a function that replays it, and its result tensors.

    Raises:
        Exception: the first exception of `step` or of the capture. The device stays usable.
    """
    graph = torch.cuda.CUDAGraph()
    failures: list[Exception] = []
    generator = torch.cuda.default_generators[x.device.index or torch.cuda.current_device()]
    spare = generator.clone_state()
    try:
        # if the capture fails, the outer stream becomes the current one again
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, stream=stream),
            noted(failures),
            Constants(),
        ):
            found = step(x)
    except Exception as error:
        _abandoned.append(graph)
        generator.graphsafe_set_state(spare)  # the generator's own may still be in the capture
        raise (failures[0] if failures else error) from None
    return graph.replay, found


@contextmanager
def noted(failures: list[Exception]) -> Iterator[None]:
    """Remember the exceptions raised inside: the end of a broken capture raises another one."""
    try:
        yield
    except Exception as error:
        failures.append(error)
        raise


class Constants(TorchFunctionMode):
    """Make tensors of Python's numbers on the device by filling, which can be captured, not by copying."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        number = len(args) == 1 and isinstance(args[0], bool | int | float)
        if (
            func in (torch.tensor, torch.as_tensor)
            and number
            and kwargs.keys() <= {"dtype", "device"}
        ):
            return torch.full((), args[0], **kwargs)
        return func(*args, **kwargs)


class Before:
    """The state that a capture must not change, since it runs a step's Python but none of its kernels."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.random = checkpoint.random_state()
        self.buffers = [
            (module, name, buffer)
            for owner in trainer.modules.values()
            for module in owner.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        self.tensors = self._tensors()
        self.learned = set(trainer.optimiser.state)

    def _tensors(self) -> list[Tensor]:
        modules = self.trainer.modules.values()
        return [t for m in modules for t in (*m.parameters(), *m.buffers())]

    def check(self) -> None:
        """Check that a step changes its tensors in place, and draws on the device.

        Raises:
            RuntimeError: it does not, so a replay would differ from the step.
        """
        pairs = zip_longest(self.tensors, self._tensors())
        if any(a is not b for a, b in pairs):
            raise RuntimeError("a step puts a new tensor in a buffer's place: write into the old")
        if self.learned != set(self.trainer.optimiser.state):
            raise RuntimeError("a parameter had its first gradient when the step was captured")
        if not _same_host(self.random, checkpoint.random_state()):
            raise RuntimeError("a step draws random numbers on the CPU: draw them on the device")

    def restore(self) -> None:
        """Undo a failed capture: restore the random state, and drop gradients and states in freed memory."""
        self.trainer.optimiser.zero_grad()
        for parameter in set(self.trainer.optimiser.state) - self.learned:
            del self.trainer.optimiser.state[parameter]
        for module, name, buffer in self.buffers:
            setattr(module, name, buffer)
        checkpoint.set_random_state(self.random)


def _same_host(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two random states agree, apart from the devices' states."""
    numbers = torch.equal(a["torch"], b["torch"]) and torch.equal(a["numpy"][1], b["numpy"][1])
    return numbers and a["python"] == b["python"] and a["numpy"][2:] == b["numpy"][2:]
