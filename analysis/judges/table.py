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
        f"{percent(PASS_BROKEN)} of the broken ones, is left out. Total variation is of numbers, sizes and",
        "places of objects, between nodes of the prior and nodes inferred from the world; of a program without",
        "nodes, of the numbers that the net reads. Two samples of one law differ by some hundredths. `told",
        "apart` is the accuracy of a classifier (.5 is best). The last column has the site, or group of sites,",
        "whose prior makes the world's scenes worst while the guide draws all others (Fréchet distance,",
        "features of the net). It is empty where scenes of the guide's draws alone are no nearer to the world",
        "than the prior's: DeNF's image is a draw as well.",
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
        _number(_first(distance, "nodes", "nodes_1", "number")),
        _number(_first(distance, "size", "size_1")),
        _number(_first(distance, "place", "place_1")),
        _number(table["images"]["told_apart"]),
        _blamed(table.get("blame", [])),
    ]
    return f"| `{name}` | {' | '.join(cells)} |"


def _share(value: float | None, true: float | None, wrong: float | None) -> str:
    if true is None or wrong is None:
        return ""
    own = "" if value is None else percent(value)
    return f"{own} ({percent(true)}, {percent(wrong)})".strip()


def _first(values: Mapping[str, float], *keys: str) -> float | None:
    """The value of the first key that there is."""
    return next((values[key] for key in keys if key in values), None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _blamed(rows: list[Mapping[str, Any]]) -> str:
    key = "frechet, prior alone"
    if not rows or rows[0][key] >= rows[0]["frechet, guide alone"]:
        return ""
    sites = [row for row in rows[1:] if key in row]
    return f"`{max(sites, key=lambda row: row[key])['site']}`" if sites else ""
