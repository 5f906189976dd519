"""What all commands share: how they read their words, say a user's mistake, and make their folder."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import NoReturn, Protocol

from inference.checkpoint import unwritable
from programs.blocks.names import meant, unknown

NUMBER = re.compile(r"-\.?\d")
"""Begins a word that is a negative number and no option."""


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


def print_anything() -> None:
    """Let the output streams replace characters that the terminal's encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class Parser(argparse.ArgumentParser):
    """Reads a command's words; what it cannot read is a ValueError, which says what was meant."""

    def error(self, message: str) -> NoReturn:
        """Raise it instead of printing the usage.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message} ({self.prog} --help lists the options)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """The options by name.

        Raises:
            ValueError: an unknown option, a bad value, or a word too many or too few.
        """
        words = sys.argv[1:] if args is None else [*args]
        own = words[: words.index("--")] if "--" in words else words
        for word in own:
            self._check(word.partition("=")[0])
        found, rest = self.parse_known_args(words, namespace)
        if rest:
            self.error(f"unexpected {rest[0]!r}")
        return found

    def _check(self, word: str) -> None:
        options = self._option_string_actions
        if len(word) < 2 or word[0] != "-" or " " in word or NUMBER.match(word):
            return
        if word not in options and not any(o.startswith(word) and word[1] == "-" for o in options):
            self.error(f"unknown option {word}{meant('--' + word.lstrip('-'), options, '')}")


def command_line(module: str, doc: str | None) -> Parser:
    """A parser for ``python -m MODULE``, described by the first line of the module's docstring."""
    return Parser(prog=f"python -m {module}", description=(doc or "").split("\n")[0])


def one_of(names: Iterable[str], what: str) -> Callable[[str], str]:
    """Reads one of the names, as the `type` of an option.

    Raises:
        argparse.ArgumentTypeError: from the function, for any other word.
    """
    known = [*names]

    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(unknown(what, text, known))
        return text

    return read


def whole_numbers(text: str) -> tuple[int, ...]:
    """Reads ``0,200,1000``, as the `type` of an option.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected whole numbers with commas between them"
        ) from error


def check_empty(folder: Path) -> None:
    """See that nothing would be written over.

    Raises:
        ValueError: the folder holds files, or is one.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: give another --out")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, made if needed; after an error, no folder is left that was made for nothing.

    Raises:
        ValueError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield folder
    except BaseException:
        with suppress(OSError):  # of the first that is not empty
            for path in missing:
                path.rmdir()
        raise
