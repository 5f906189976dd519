"""Code that the commands of `analysis` share: options about a run, tables, CSV files."""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from inference import checkpoint
from inference.command import Parser, command_line
from inference.runs import Trained, open_run


def of_run(module: str, doc: str | None, scenes: int | None = None) -> Parser:
    """A parser with RUN and ``--seed``, and ``--scenes`` if a default number is given."""
    a = command_line(module, doc)
    a.add_argument("run", metavar="RUN", help="run folder, or name of a run in programs/trained")
    if scenes is not None:
        a.add_argument("--scenes", type=positive, default=scenes, metavar="N")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    return a


def positive(text: str) -> int:
    """A whole number of at least 1, as argparse reads it."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}: expected at least 1")
    return number


def above_zero(text: str) -> float:
    """A finite number above 0, as argparse reads it."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return number


def share(text: str) -> float:
    """A number of 0 to 1, as argparse reads it."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 to 1")
    return number


def new_file(text: str) -> Path:
    """The path of a file that is to be written, as argparse reads it: before the work, not after it.

    Raises:
        argparse.ArgumentTypeError: it is a folder, or its own folder is not there or cannot be written.
    """
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: expected a file in it")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: there is no folder {path.parent}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: give a file in another folder")
    return path


def named(folders: Sequence[str]) -> dict[str, Trained]:
    """Runs by the names of their folders, numbered if two have the same name."""
    found: dict[str, Trained] = {}
    for folder in folders:
        run = open_run(folder)
        name = run.folder.name
        number = sum(other == name or other.startswith(f"{name} (") for other in found)
        found[f"{name} ({number + 1})" if number else name] = run
    return found


def aligned(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as a table with one line per row, columns aligned to the right.

    Args:
        columns: names of the columns to show, in order; by default all of the first row.
    """
    names = list(rows[0]) if columns is None else list(columns)
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True))
        for line in cells
    )


def percent(value: float) -> str:
    """``0.9969`` as 99.7 %."""
    return f"{100 * value:.1f} %"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file, with a column for every name in any row."""
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    checkpoint.write(path, text.getvalue().encode())


def write_json(path: Path | None, content: Any) -> None:
    """Write a JSON file, whole or not at all; nothing if there is no path."""
    if path is not None:
        checkpoint.write_json(path, content)
