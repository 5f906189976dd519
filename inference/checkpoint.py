"""Checkpoints that cannot be half-written, and that restore a run bit for bit.

A checkpoint is a dictionary of tensors and plain values (weights, optimiser, step, random state,
configuration, versions), written to a temporary file, synced and renamed. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

MAGIC = b"scene-programs checkpoint 1\n"


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content` so that `path` holds either the old checkpoint or the whole new one."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        file.write(MAGIC + hashlib.sha256(body).digest() + body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ValueError: the file is not a checkpoint of this project, or is torn.
    """
    raw = path.read_bytes()
    head = len(MAGIC) + 32
    if not raw.startswith(MAGIC):
        raise ValueError(
            f"{path} is not a checkpoint of scene-programs; remove it, or give another --out"
        )
    if hashlib.sha256(raw[head:]).digest() != raw[len(MAGIC) : head]:
        raise ValueError(
            f"{path} is torn (its checksum is wrong); restore a copy, or give another --out"
        )
    return torch.load(io.BytesIO(raw[head:]), map_location=device, weights_only=True)


def random_state() -> dict[str, Any]:
    """Every random state that training draws from, as tensors and numbers."""
    state = {"torch": torch.get_rng_state(), "python": repr(random.getstate())}
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - Pyro seeds it
    state["numpy"] = [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss]
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned."""
    import ast

    torch.set_rng_state(state["torch"].cpu())
    random.setstate(ast.literal_eval(state["python"]))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    keys = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, gauss))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
