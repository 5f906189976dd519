"""One training on several processes, as ``torchrun --nproc-per-node N -m inference.svi …`` starts them.

Every process holds the whole model, takes its part of every batch and draws its own noise. After each
backward pass, gradients and buffers of batch statistics are averaged over the processes. So a step is the
step of one process on the whole batch, and all processes hold the same numbers, bit for bit. With one
process these functions do nothing.

Processes on CPUs communicate by gloo. Processes on GPUs, one per GPU, average by NCCL, and they use gloo
for everything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, distributed, nn

PATIENCE = timedelta(days=1)
"""Longest wait of processes while the first draws scenes or evaluates; a dead one is noticed at once."""


class Lost(RuntimeError):
    """Raised when another process has ended too early."""


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _started() else 1


def rank() -> int:
    """Number of this process; 0 is the one that writes."""
    return distributed.get_rank() if _started() else 0


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def _started() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def start(device: torch.device) -> None:
    """Connect the processes if torchrun started several.

    Raises:
        ValueError: more processes on this machine than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or _started():
        return
    if device.type == "cuda":
        here, there = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if here > there:
            raise ValueError(
                f"{here} processes on a machine where torch finds {there} GPUs: give torchrun "
                f"--nproc-per-node {there}, or --device cpu"
            )
        torch.cuda.set_device(local_rank())
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Disconnect this process; processes that still wait for it get an error."""
    if _started():
        distributed.destroy_process_group()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Lost(
            f"process {rank()} has lost the others; the first to end says why "
            f"({str(error).splitlines()[0]})"
        ) from error


def agree(*flags: bool) -> list[bool]:
    """Each flag, true on all processes where it is true on any."""
    if world() == 1:
        return list(flags)
    votes = torch.tensor(flags, dtype=torch.uint8)
    with _together():
        distributed.all_reduce(votes, distributed.ReduceOp.MAX)
    return votes.bool().tolist()


def wait() -> None:
    """Wait until all processes reach this call."""
    agree(True)


@contextmanager
def one_first() -> Iterator[None]:
    """One process per machine runs the block before the others, which then find its results in a cache."""
    if local_rank() > 0:
        wait()
    try:
        yield
    finally:
        if local_rank() == 0:
            wait()


def gather(value: Any) -> list[Any]:
    """A plain value of every process, by rank."""
    values = [value] * world()
    if world() > 1:
        with _together():
            distributed.all_gather_object(values, value)
    return values


def share(value: Any) -> Any:
    """The first process's value (plain values and tensors on the CPU); those of others are ignored."""
    values = [value]
    if world() > 1:
        with _together():
            distributed.broadcast_object_list(values)
    return values[0]


def part(rows: Tensor) -> Tensor:
    """This process's part of a batch; the number of processes must divide its length."""
    return rows.chunk(world())[rank()]


def reseed(seed: int, step: int) -> None:
    """Seed the noise by a run's seed and step and by the process, so that it differs between processes."""
    words = np.random.SeedSequence((seed, step, rank())).generate_state(1, np.uint32)
    pyro.set_rng_seed(int(words[0]))


def average(modules: Iterable[nn.Module]) -> None:
    """Replace gradients and buffers of modules by their means over the processes.

    A missing gradient counts as zero.
    """
    if world() == 1:
        return
    modules = list(modules)
    parameters = dict.fromkeys(p for m in modules for p in m.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for p, mean in zip(parameters, means(gradients), strict=True):
        p.grad = mean
    buffers = dict.fromkeys(b for m in modules for b in m.buffers() if b.is_floating_point())
    # in double precision, in which constants do not change, bit for bit
    average_tensors(list(buffers), torch.float64)


def average_tensors(tensors: list[Tensor], precision: torch.dtype | None = None) -> None:
    """Replace tensors by their means over the processes, in one message."""
    if world() > 1:
        for t, mean in zip(tensors, means(tensors, precision), strict=True):
            t.copy_(mean)


@torch.no_grad()
def means(tensors: list[Tensor], precision: torch.dtype | None = None) -> list[Tensor]:
    """The means of tensors over the processes, by one message: views of one storage."""
    if not tensors:
        return []
    flat = torch.cat([t.flatten() for t in tensors]).to(precision)
    with _together():
        distributed.all_reduce(flat)
    pieces = flat.div_(world()).split([t.numel() for t in tensors])
    return [piece.view_as(t) for t, piece in zip(tensors, pieces, strict=True)]


@torch.no_grad()
def copy_first(modules: Iterable[nn.Module]) -> None:
    """Give parameters and buffers of modules the first process's values."""
    if world() == 1:
        return
    for tensor in dict.fromkeys(t for m in modules for t in (*m.parameters(), *m.buffers())):
        value = tensor.detach().contiguous()
        with _together():
            distributed.broadcast(value, 0)
        tensor.copy_(value)
