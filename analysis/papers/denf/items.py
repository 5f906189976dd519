"""The tables and figures of the DENF paper."""

from __future__ import annotations

from analysis.papers.item import Item

ITEMS: dict[str, Item] = {}
"""By name."""
