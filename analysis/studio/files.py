"""Scenes saved as JSON, with the picture in it, and opened again.

A file holds the run's name, the image, the latents and the edits: from these the program draws the scene
anew. It also holds the nodes of the Scene in numbers, for other tools to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from analysis.studio import views
from analysis.studio.state import Bench, Change, Hand, Selection, first_present
from programs.scene import Nodes, Scene

FORMAT = 1
"""Version of the files."""


def dump(bench: Bench, run: str) -> str:
    """The scene under the hand as the text of a file.

    Args:
        run: name of the run, or its folder.
    """
    hand = bench.hand
    content = {
        "format": FORMAT,
        "run": run,
        "image": None if bench.image is None else _plain(bench.image),
        "latents": {name: _plain(value) for name, value in hand.values.items()},
        "edits": [_plain(change) for change in hand.edits],
        "log_p": views.log_p(bench),
        "nodes": views.levels(bench.seen.scene),
    }
    return json.dumps(content)


def run_of(content: Mapping[str, Any]) -> str:
    """The run that a file's scene is of.

    Raises:
        ValueError: the content is not that of a saved scene.
    """
    if content.get("format") != FORMAT or not isinstance(content.get("run"), str):
        raise ValueError("this is no scene that the studio saved")
    return content["run"]


def restore(bench: Bench, content: Mapping[str, Any]) -> None:
    """Start over with the scene of a file.

    Raises:
        ValueError: the content is not that of a saved scene, or of a program with other latents.
    """
    run_of(content)
    before = bench.image, bench.past, bench.future, bench.first, bench._known
    try:
        image = content["image"] and _tensor(content["image"])
        bench.begin(image, {name: _tensor(v) for name, v in content["latents"].items()})
        edits = tuple(_change(entry) for entry in content["edits"])
        if edits:
            hand = Hand(bench.hand.values, edits)
            bench.change(Hand(hand.values, edits, first_present(bench.look(hand).scene)))
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        bench.image, bench.past, bench.future, bench.first, bench._known = before
        raise ValueError(f"this scene cannot be opened with this run ({error})") from error


def _plain(value: Any) -> Any:
    """Tensors, Scenes and edits as tables that JSON can hold."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return {"type": kind, "shape": list(value.shape), "numbers": value.flatten().tolist()}
    if isinstance(value, Scene | Nodes | Change | Selection):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    kinds = {
        "float32": torch.float32,
        "float64": torch.float64,
        "int64": torch.int64,
        "bool": torch.bool,
    }
    if entry["type"] not in kinds:
        raise ValueError(f"numbers of the type {entry['type']}")
    return torch.tensor(entry["numbers"], dtype=kinds[entry["type"]]).view(entry["shape"])


def _change(entry: Mapping[str, Any]) -> Change:
    """An edit; only those that the studio makes are read."""
    known = ("move", "scale", "rotate", "remove", "bring_to_front", "send_to_back", "graft")
    if entry["name"] not in known:
        raise ValueError(f"an edit named {entry['name']!r}")
    source = entry["source"] and _scene(entry["source"])
    number = tuple(map(float, entry["number"]))
    place = int(entry["slot"]), int(entry["level"])
    return Change(entry["name"], *place, number, source, int(entry["source_slot"]))


def _scene(entry: Mapping[str, Any]) -> Scene:
    tensors = {k: v and _tensor(v) for k, v in entry.items() if k != "levels"}
    levels = [Nodes(**{k: v and _tensor(v) for k, v in nodes.items()}) for nodes in entry["levels"]]
    return Scene(levels=tuple(levels), **tensors)
