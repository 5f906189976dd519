"""Arrays on disk: sets of scenes and read files are written once, and mapped from then on.

A set is a folder of .npy files in `programs.worlds.cache()`. It is written under a temporary name and renamed
when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from programs.worlds import cache

Arrays = Mapping[str, np.ndarray]


def digest(description: Mapping[str, Any]) -> str:
    """What a set is found by: 16 characters that stand for everything that decides it."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_set(
    folder: Path, description: Mapping[str, Any], batches: Callable[[], Iterable[Arrays]]
) -> None:
    """Make a folder of the batches that are drawn or read, joined, an .npy file per name.

    Raises:
        ValueError: the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=folder.name + ".", dir=folder.parent, ignore_cleanup_errors=True
        ) as temporary:
            whole = Path(temporary) / folder.name
            whole.mkdir()
            _write(whole, batches())
            (whole / "description.json").write_text(
                json.dumps(description, indent=2), encoding="utf-8"
            )
            _publish(whole, folder)
    except OSError as error:
        raise ValueError(
            f"cannot write the cache {folder.parent}: {error.strerror or error}; "
            "set SCENE_PROGRAMS_CACHE to a folder that can be written and has room"
        ) from error


def _write(folder: Path, batches: Iterable[Arrays]) -> None:
    """Write the batches one after the other.

    By plain writes: a full disk is an OSError to them, to a memory map the end of the process.
    """
    files: dict[str, BinaryIO] = {}
    kinds: dict[str, np.ndarray] = {}
    number = 0
    with ExitStack() as stack:
        for arrays in batches:
            for name, array in arrays.items():
                if name not in files:
                    files[name] = stack.enter_context((folder / f"{name}.npy").open("w+b"))
                    kinds[name] = array[:0]
                    _write_header(files[name], array, 0)
                files[name].write(np.ascontiguousarray(array).data)
            number += len(array)
        for name, file in files.items():  # numpy leaves room for a larger number
            file.seek(0)
            _write_header(file, kinds[name], number)


def _write_header(file: BinaryIO, array: np.ndarray, number: int) -> None:
    header = np.lib.format.header_data_from_array_1_0(np.empty(array.shape, array.dtype))
    header["shape"] = (number, *array.shape[1:])
    np.lib.format.write_array_header_1_0(file, header)


def _publish(whole: Path, folder: Path) -> None:
    """Give a set its name, unless another process was quicker with the same one."""
    try:
        whole.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def read_set(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Arrays by name, mapped copy-on-write (nothing is read before it is used), and the description.

    Raises:
        ValueError: the folder is damaged.
    """
    try:
        arrays = {p.stem: torch.from_numpy(np.load(p, mmap_mode="c")) for p in folder.glob("*.npy")}
        return arrays, json.loads((folder / "description.json").read_text(encoding="utf-8"))
    except (OSError, EOFError, ValueError) as error:
        raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> ValueError:
    """What is said of a set that cannot be read."""
    return ValueError(
        f"the cached set {folder} is damaged ({error}); remove it, and it is made again"
    )


def stored(
    name: str, description: Mapping[str, Any], batches: Callable[[], Iterable[Arrays]]
) -> dict[str, Tensor]:
    """The arrays that `batches` make, from the cache or made now.

    Args:
        name: what the folder is called, before a digest of the description.
        description: everything that decides the arrays.
    Raises:
        ValueError: the cache cannot be written, or is damaged.
    """
    folder = cache() / f"{name}-{digest(description)}"
    if not folder.exists():
        write_set(folder, description, batches)
    return read_set(folder)[0]
