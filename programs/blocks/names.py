"""Names that someone types: which known one was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def nearest(name: object, known: Iterable[object]) -> str | None:
    """The known name that is most like `name`, upper and lower case alike; None if none is.

    >>> nearest("GSGM", ["air", "gsgn"])
    'gsgn'

    Names of which `name` is the last part, after a dot or a slash, are the nearest of all.
    """
    word, names = str(name).lower(), {str(k).lower(): str(k) for k in known}
    ends = [k for k in names if k.endswith((f".{word}", f"/{word}"))]
    near = [word] if word in names else ends or get_close_matches(word, names, 1)
    return names[near[0]] if word and near else None


def meant(name: object, known: Iterable[object], otherwise: str = ";") -> str:
    """``, did you mean NEAREST?``, or what a message says `otherwise`."""
    near = nearest(name, known)
    return otherwise if near is None else f", did you mean {near}?"


def meant_file(path: str | Path, files: Iterable[str | Path], otherwise: str = ";") -> str:
    """The same for a file or folder, by its last name: paths of one folder are alike anyhow."""
    part = "name" if Path(path).suffix else "stem"
    seen = [file for file in files if not Path(file).name.startswith(".")]
    by_name = {getattr(Path(file), part): file for file in seen}
    near = nearest(Path(path).name, by_name)
    return otherwise if near is None else f", did you mean {by_name[near]}?"


def unknown(what: str, name: object, known: Iterable[object], also: Iterable[object] = ()) -> str:
    """The message about a name that is not among the known ones.

    >>> unknown("layout", "gird", ["free", "grid"])
    "unknown layout 'gird', did you mean grid? known are free, grid"

    Args:
        also: names that may be meant and are not listed, such as those of another table.
    """
    names = [str(k) for k in known]
    return f"unknown {what} {name!r}{meant(name, [*names, *also])} known are {', '.join(names)}"
