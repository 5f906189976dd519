"""The table of priors' scenes in RESULTS.md, from the files that `analysis.generation` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.command import percent
from analysis.judges.scenes import PASS_BROKEN, PASS_TRUE
from inference.runs import read_json

GENERATION = "generation.json"
"""The file of a run about scenes of its prior: ``analysis.generation RUN --json`` this file."""


def render(folder: Path) -> list[str]:
    """Lines that compare scenes of the runs' priors with their worlds; none if nothing was measured."""
    found = {path.parent.name: read_json(path) for path in sorted(folder.glob(f"*/{GENERATION}"))}
    if not found:
        return []
    first = next(iter(found.values()))
    command = "python -m analysis.generation {} --scenes {scenes} --seed {seed} --json {}"
    lines = ["", "## Scenes of the priors", "", "```"]
    lines += [command.format("RUN", f"programs/trained/RUN/{GENERATION}", **first), "```", ""]
    lines += [
        "Shares of valid scenes and objects, by nets that were trained on the world and on broken ones;",
        "in brackets of true ones, and of broken scenes or mixed objects that pass. A share of a net that",
        f"passes less than {percent(PASS_TRUE)} of the true ones, or more than "
        f"{percent(PASS_BROKEN)} of the broken ones, is left out. Total variation is of the",
        "numbers of objects that the net reads, of sizes and of places of inferred objects; `told apart` is",
        "the accuracy of a classifier (.5 is best). The last column has the site, or group of sites, whose",
        "prior makes the world's scenes worst while the guide draws all others (Fréchet distance, features",
        "of the net).",
        "",
        "| run | valid scenes | valid objects | number | size | place | told apart | to blame |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return lines + [row(name, table) for name, table in found.items()]


def row(name: str, table: Mapping[str, Any]) -> str:
    """The line of a run, from what `analysis.generation` measured."""
    judge, distance = table["judge"], table["distance"]
    named = table.get("objects", {"valid": {}, "good": False})
    cells = [
        _share(table["valid"].get("prior"), judge["true"], judge["broken"]),
        _share(
            named["valid"]["prior"] if named["good"] else None,
            named["valid"].get("true"),
            named["valid"].get("mixed"),
        ),
        *(
            _number(distance.get(key, distance.get(f"{key}_1")))
            for key in ("number", "size", "place")
        ),
        _number(table["images"]["told_apart"]),
        _blamed(table.get("blame", [])),
    ]
    return f"| `{name}` | {' | '.join(cells)} |"


def _share(value: float | None, true: float | None, wrong: float | None) -> str:
    if true is None or wrong is None:
        return ""
    own = "" if value is None else percent(value)
    return f"{own} ({percent(true)}, {percent(wrong)})".strip()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _blamed(rows: list[Mapping[str, Any]]) -> str:
    key = "frechet, prior alone"
    sites = [row for row in rows[1:] if key in row]
    return f"`{max(sites, key=lambda row: row[key])['site']}`" if sites else ""
