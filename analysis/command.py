"""Code that the commands of `analysis` share: options about a run, error messages, tables, CSV files."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

from inference import checkpoint
from inference.log import print_anything


class Main(Protocol):
    """An entry point: runs a command, by default with the process's arguments, and returns its exit code."""

    def __call__(self, arguments: list[str] | None = None) -> int:
        """Run the command."""
        ...


def told(main: Callable[[list[str] | None], None]) -> Main:
    """The entry point of a command: a user's mistake becomes one sentence on stderr and exit code 2.

    Args:
        main: does the work; it raises a ValueError or FloatingPointError if it cannot.
    """

    @wraps(main)
    def entry(arguments: list[str] | None = None) -> int:
        print_anything()
        try:
            main(arguments)
        except (ValueError, FloatingPointError) as error:
            print("error:", " ".join(str(error).split()), file=sys.stderr)
            return 2
        return 0

    return entry


def command_line(module: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser for ``python -m MODULE``, described by the first line of the module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=(doc or "").split("\n")[0]
    )


def of_run(module: str, doc: str | None, scenes: int | None = None) -> argparse.ArgumentParser:
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
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path | None, content: Any) -> None:
    """Write a JSON file, whole or not at all; nothing if there is no path."""
    if path is not None:
        checkpoint.write_json(path, content)
