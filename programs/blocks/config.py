"""Checks of programs' `Config`, of the sizes of their networks, and of guides' inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from torch import Tensor


def check_positive(config: Any, *excepted: str) -> None:
    """See that all numbers in the fields of a Config, and in tuples there, are finite and above 0.

    Args:
        excepted: fields that may hold any number.
    Raises:
        ValueError: one is not; the message names the field.
    """
    for f in fields(config):
        value = getattr(config, f.name)
        entries = value if isinstance(value, tuple) else (value,)
        numbers = [n for n in entries if isinstance(n, int | float) and not isinstance(n, bool)]
        if f.name not in excepted and not all(0 < n < math.inf for n in numbers):
            raise ValueError(f"{f.name}={value}: expected above 0, and finite")


def check_learned(config: Any, single: str = "") -> None:
    """See that the field `learned` of a Config is a number of components: 0 for the paper's priors.

    Args:
        single: why no learned prior of this Config is a mixture; empty where one is.
    Raises:
        ValueError: it is negative, or a number of components where there is no mixture.
    """
    if single and config.learned not in (0, 1):
        raise ValueError(
            f"learned={config.learned}: expected 0 for the paper's priors, or 1 for learned ones: {single}"
        )
    if config.learned < 0:
        raise ValueError(
            f"learned={config.learned}: expected 0 for the paper's priors, 1 for learned Gaussians, or the "
            "number of components of learned mixtures"
        )


def check_idle(config: Any, field: str, off: Any, *names: str) -> None:
    """See that fields which count only where another is not `off` have their defaults where it is.

    Sizes of networks that are then left out need no check: presets set them.

    Raises:
        ValueError: one has another value, so nothing would read what was asked for.
    """
    if getattr(config, field) != off:
        return
    for f in fields(config):
        value = getattr(config, f.name)
        if f.name in names and value != f.default:
            raise ValueError(
                f"{f.name}={value!r} has no effect with {field}={off!r}: expected {f.name}={f.default!r}, or "
                f"another {field}"
            )


def check_odd(config: Any, *names: str) -> None:
    """See that fields are odd numbers, which have a middle.

    Raises:
        ValueError: one is even; the message names the nearest odd numbers.
    """
    for name in names:
        number = getattr(config, name)
        if number % 2 == 0:
            raise ValueError(
                f"{name}={number}: expected an odd number, such as {number - 1} or {number + 1}"
            )


def check_sides(config: Any, *names: str, side: int = 4, least: int = 0) -> None:
    """See that fields, or all their entries, are `side` times a power of two, as for `doublings`.

    Raises:
        ValueError: one is not; the message names the field and the nearest sizes.
    """
    for name in names:
        value = getattr(config, name)
        for size in value if isinstance(value, tuple) else (value,):
            doublings(size, side, least, f"{name}={value}")


def check_grid(config: Any, least: int = 0) -> None:
    """See that the field `size` is the field `grid` times a power of two, as for `doublings`.

    Raises:
        ValueError: it is not; the message names the nearest sizes, and grids that fit the size.
    """
    size, grid = config.size, config.grid
    fitting = [size >> n for n in range(least, LARGEST) if size % 2**n == 0]
    other = f", or grid {nearest(grid, fitting)}" if fitting else ""
    doublings(size, grid, least, f"size={size}, grid={grid}", other)


def check_enlarged(config: Any, name: str, stages: str, side: int = 1) -> None:
    """See that the stages in one field can enlarge `side` pixels per side to those in another, `name`.

    Raises:
        ValueError: they cannot (`enlargement`).
    """
    size, given = getattr(config, name), getattr(config, stages)
    enlargement(given, side, size, f"{name}={size}, {stages}={given}")


LARGEST = 20
"""Doublings that no picture has."""


def doublings(size: int, side: int = 4, least: int = 0, given: str = "", other: str = "") -> int:
    """How many times the side of a picture doubles from `side` to `size` pixels.

    Args:
        least: doublings that there must be.
        given: the settings, for the message, and `other` remedies.
    Raises:
        ValueError: `size` is not `side` times a power of two; the message names the nearest sizes.
    """
    number = (size // side).bit_length() - 1
    if number < least or side * 2**number != size:
        power = "a power of two" if side == 1 else f"{side} times a power of two"
        near = nearest(size, [side * 2**n for n in range(least, LARGEST)])
        raise ValueError(
            f"{given or f'size={size}'}: expected {power}{' above 1' * bool(least)}, such as {near} in place "
            f"of {size}{other}"
        )
    return number


def enlargement(stages: Sequence[Sequence[int]], side: int, size: int, given: str = "") -> int:
    """How many times a picture of `side` pixels per side still grows after sub-pixel convolutions.

    Args:
        stages: channels, factor and kernel of each convolution.
        size: pixels per side in the end.
        given: the settings, for the message.
    Raises:
        ValueError: a stage is none, or the stages enlarge `side` to no divisor of `size`; the message names
            the nearest sizes.
    """
    given = given or f"size={size}, stages={stages}"
    if any(len(s) != 3 or min(s) < 1 or s[2] % 2 == 0 for s in stages):
        raise ValueError(
            f"{given}: expected channels, factor and an odd kernel of each stage, all at least 1"
        )
    made = side * math.prod(factor for _, factor, _ in stages)
    if size % made:
        raise ValueError(
            f"{given}: the stages enlarge {side} pixels per side to {made}; expected a divisor of {size}: take "
            f"fewer stages, smaller factors, or {near_multiples(size, made)} in place of {size}"
        )
    return size // made


def near_multiples(number: int, of: int) -> str:
    """The multiples of a number next to another, in words."""
    below = number // of * of
    return nearest(number, [n for n in (below, below + of) if n])


def nearest(number: int, valid: Iterable[int]) -> str:
    """The valid numbers next to one, below and above, in words."""
    valid = [*valid]
    below, above = [n for n in valid if n < number], [n for n in valid if n > number]
    return " or ".join(str(n) for n in [*sorted(below)[-1:], *sorted(above)[:1]])


def given(images: Tensor | None) -> Tensor:
    """The images that a guide infers from.

    Raises:
        ValueError: there are none.
    """
    if images is None:
        raise ValueError("a guide infers from images; call the program alone to sample the prior")
    return images
