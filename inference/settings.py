"""Settings given by name: entries of tables, ``--set`` pairs, frozen configurations with fields replaced."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any


def choose(table: Mapping[str, Any], name: str, what: str) -> Any:
    """The entry `name` of a table, or a ValueError that lists the known names."""
    if name not in table:
        near = get_close_matches(str(name), table, 1)
        meant = f", did you mean {near[0]}?" if near else ";"
        raise ValueError(f"unknown {what} {name!r}{meant} known are {', '.join(sorted(table))}")
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
        if not equals or not name.isidentifier() or (dot and prefix not in ("world", "train")):
            raise ValueError(
                f"--set {pair!r}: write FIELD=VALUE, world.FIELD=VALUE or train.FIELD=VALUE"
            )
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = {"true": True, "false": False}.get(text, text)
        tables[prefix or "program"][name] = value
    return tables


def override(config: Any, changes: Mapping[str, Any], what: str) -> Any:
    """A frozen dataclass with some fields replaced; checks names and types.

    Raises:
        ValueError: an unknown field, or a value of another type than the field's present one.
    """
    if not changes:
        return config
    if not is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{what} has no Config, so nothing can be set: {', '.join(changes)}")
    known = {f.name: getattr(config, f.name) for f in fields(config)}
    checked = {}
    for name, value in changes.items():
        old = choose(known, name, f"field of {what}")
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
