"""Checkpoints that cannot be half-written, and that restore a run bit for bit.

A checkpoint is a dictionary of tensors and plain values (weights, optimiser, step, random state,
configuration, versions) behind a line that names its format and a SHA-256 sum, so that any changed bit is
noticed. It is written to a temporary file, synced and renamed, and the one before it is kept in
checkpoint.previous.ckpt. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

FORMAT = b"scene-programs checkpoint "
MAGIC = FORMAT + b"1\n"
SUM = hashlib.sha256().digest_size


def write(path: Path, *parts: bytes | memoryview, keep: Path | None = None) -> None:
    """Write a file so that `path` holds either its old content or all of the new content.

    Args:
        keep: file to which the old content of `path` is moved.
    Raises:
        ValueError: the file cannot be written; the old content is in `path`, or else in `keep`.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> ValueError:
    """The error for a file that cannot be written."""
    return ValueError(
        f"cannot write {path}: {error.strerror or error}; see that its folder can be written and has room"
    )


def previous(path: Path) -> Path:
    """Path of the checkpoint before the one in `path`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def exists(path: Path) -> bool:
    """Whether there is a checkpoint, or the one before it, for `load` to read."""
    return path.exists() or previous(path).exists()


def save(path: Path, content: dict[str, Any]) -> None:
    """Write `content`, and keep the checkpoint before it.

    Raises:
        ValueError: the checkpoint cannot be written; the message names the last good one.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getbuffer()
    try:
        write(path, MAGIC, hashlib.sha256(body).digest(), body, keep=previous(path))
    except ValueError as error:
        kept = [p for p in (path, previous(path)) if p.is_file()]
        advice = (
            f"then continue with --resume from {kept[0]}, which is kept" if kept else "then again"
        )
        raise ValueError(f"{error}, {advice}") from error


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, or the one before it if the run was killed while it replaced one by the other.

    Raises:
        ValueError: the file cannot be read, is not a checkpoint of this project, or is damaged; the
            message names it, and the checkpoint before it if that is good.
    """
    if not exists(path):
        raise ValueError(
            f"{path} is not there: the run stopped before its first checkpoint; go on with --resume"
        )
    if not path.exists():
        path = previous(path)
    try:
        return _content(path, device)
    except ValueError as error:
        raise ValueError(f"{path} {error}; {_remedy(path)}") from error


def _remedy(path: Path) -> str:
    older = previous(path)
    try:
        _content(older, "cpu")
    except ValueError:
        return "restore a copy of it, or begin again in another --out"
    return f"the checkpoint before it is good: mv {older} {path}, then continue with --resume"


def _content(path: Path, device: torch.device | str) -> dict[str, Any]:
    """The content of a checkpoint. The messages of its ValueErrors continue after the file's name."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error})") from error
    magic, rest = raw[: len(MAGIC)], memoryview(raw)[len(MAGIC) :]
    if not MAGIC.startswith(magic):
        if magic.startswith(FORMAT):
            raise ValueError("was written by a newer version of scene-programs: update this one")
        raise ValueError("is not a checkpoint of scene-programs")
    if hashlib.sha256(rest[SUM:]).digest() != rest[:SUM]:
        raise ValueError("is torn or damaged (its checksum is wrong)")
    try:
        content = torch.load(io.BytesIO(rest[SUM:]), map_location=device, weights_only=True)
    except Exception as error:  # anyone can write a checksum; torch refuses code
        raise ValueError(
            f"holds more than tensors and plain values ({type(error).__name__})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, not the state of a run")
    return content


def random_state() -> dict[str, Any]:
    """Every random state that training draws from, as tensors and numbers."""
    state = {"torch": torch.get_rng_state(), "python": repr(random.getstate())}
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - Pyro seeds it
    words = torch.from_numpy(np.asarray(keys).astype(np.int64))
    state["numpy"] = [kind, words, position, has_gauss, gauss]
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


def write_json(path: Path, content: Any) -> None:
    """Write a whole file, or leave the old one; numbers that are not finite are null."""
    write(path, (json.dumps(_finite(content), indent=2, allow_nan=False) + "\n").encode())


def _finite(content: Any) -> Any:
    """The same content with None for numbers that JSON does not have."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
