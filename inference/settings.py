"""Settings given by name: entries of tables, ``--set`` pairs, frozen configurations with fields replaced."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from programs.blocks.names import meant, unknown

PREFIXES = ("world", "train")
"""Tables besides the program's that ``--set`` knows."""


def choose(table: Mapping[str, Any], name: str, what: str, also: Iterable[str] = ()) -> Any:
    """The entry `name` of a table.

    Args:
        also: names elsewhere that may be meant.
    Raises:
        ValueError: there is none; the message says which was meant, and lists the known names.
    """
    if name not in table:
        raise ValueError(unknown(what, name, sorted(table), also))
    return table[name]


def settings(pairs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse ``--set`` pairs into tables by prefix: ``size=64``, ``world.layout=free``, ``train.clip=2``.

    Returns:
        ``{"program": {...}, "world": {...}, "train": {...}}``; values are read as Python literals,
        or as true and false, else as text.
    """
    tables: dict[str, dict[str, Any]] = {"program": {}, "world": {}, "train": {}}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        prefix, dot, name = key.rpartition(".")
        if not equals or not name.isidentifier() or (dot and prefix not in PREFIXES):
            raise ValueError(
                f"--set {pair!r}{meant(prefix, PREFIXES, ':')} write FIELD=VALUE, world.FIELD=VALUE or "
                "train.FIELD=VALUE"
            )
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = {"true": True, "false": False}.get(text, text)
        tables[prefix or "program"][name] = value
    return tables


def override(config: Any, changes: Mapping[str, Any], what: str, also: Iterable[str] = ()) -> Any:
    """A frozen dataclass with some fields replaced; checks names and types.

    Args:
        also: names of settings elsewhere, one of which may be meant by an unknown field.
    Raises:
        ValueError: an unknown field, or a value of another type than the field's present one.
    """
    if not changes:
        return config
    if not is_dataclass(config) or isinstance(config, type):
        first = meant(next(iter(changes)), also, "")
        raise ValueError(
            f"{what} has no Config, so nothing can be set: {', '.join(changes)}{first}"
        )
    known = {f.name: getattr(config, f.name) for f in fields(config)}
    checked = {}
    for name, value in changes.items():
        old = choose(known, name, f"field of {what}", also)
        try:
            checked[name] = _like(value, old)
        except TypeError as error:
            raise ValueError(
                f"{what} field {name}={value!r} is {error}, "
                f"expected {type(old).__name__} like its default {old!r}"
            ) from error
    return replace(config, **checked)


def _like(value: Any, old: Any) -> Any:
    """`value` with the type of `old`: lists become tuples, integers floats; unchanged if `old` is None.

    Raises:
        TypeError: it has another type; the message names that type.
    """
    if isinstance(value, list | tuple) and (old is None or isinstance(old, tuple)):
        entry = old[0] if old and len({*map(type, old)}) == 1 else None
        return tuple(_like(v, entry) for v in value)
    if isinstance(old, float) and type(value) is int:
        return float(value)
    if old is not None and type(value) is not type(old):
        raise TypeError(type(value).__name__)
    return value
