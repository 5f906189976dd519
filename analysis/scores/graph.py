"""A Scene's objects as a graph: a table of nodes, and a table of edges with the differences of two objects.

Discrete-AIR, sections 2.4 and C.3: one node per present object; an edge from each to each other object of
the same image, with the difference of their places (its sign is the direction), the distance of their
attributes, and whether their categories are the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from programs.scene import Scene

if TYPE_CHECKING:
    import networkx


Cell = str | int | float


@dataclass(frozen=True)
class Graph:
    """Two tables: columns by name, all on the CPU. M nodes and E edges of all images."""

    nodes: dict[str, Tensor]
    """`image`, `slot` (M); `centre`, `extent` (M, 2) in the image frame; `rotation` (M) in radians; `category`
    (M) and `attributes` (M, A) where the program has them"""
    edges: dict[str, Tensor]
    """`source`, `target` (E) rows of `nodes`; `offset` (E, 2) from source to target, `distance` (E) its length;
    `size` (E, 2) logarithm of the ratio of extents; `turn` (E) in [-π, π); `same_category` (E) bool and
    `attributes` (E) Euclidean distance, where there are any"""

    def to_networkx(self, image: int) -> networkx.DiGraph:
        """One image's graph, columns as attributes of nodes and edges. Needs networkx."""
        import networkx

        graph = networkx.DiGraph()
        for row in (self.nodes["image"] == image).nonzero()[:, 0].tolist():
            graph.add_node(row, **{name: t[row].tolist() for name, t in self.nodes.items()})
        for row, source in enumerate(self.edges["source"].tolist()):
            if source in graph:
                columns = {n: t[row].tolist() for n, t in self.edges.items()}
                graph.add_edge(columns.pop("source"), columns.pop("target"), **columns)
        return graph

    def numbers(self) -> list[int]:
        """Number of each node within its image, from 1."""
        seen: dict[int, int] = {}
        found = []
        for image in self.nodes["image"].tolist():
            seen[image] = seen.get(image, 0) + 1
            found.append(seen[image])
        return found

    def node_rows(self, names: Mapping[int, str] | None = None) -> list[dict[str, Cell]]:
        """One row per node: image, number, category in words, and place, size and angle (figures 3b, 4, 5).

        Places and sizes are fractions of the image's side, from its left upper corner; angles are in
        radians.

        Args:
            names: names of categories; categories without a name are called "category K".
        """
        rows, t = [], self.nodes
        for k, number in enumerate(self.numbers()):
            row: dict[str, Cell] = {"image": int(t["image"][k]) + 1, "node": number}
            if "category" in t:
                category = int(t["category"][k])
                row["category"] = (names or {}).get(category, f"category {category}")
            x, y = ((t["centre"][k] + 1) / 2).tolist()
            row |= {"x": x, "y": y, "size": float(t["extent"][k].mean())}
            row["angle"] = float(t["rotation"][k])
            if "attributes" in t:
                row |= {f"attr{i}": float(a) for i, a in enumerate(t["attributes"][k], 1)}
            rows.append({name: _short(value) for name, value in row.items()})
        return rows

    def edge_rows(self) -> list[dict[str, Cell]]:
        """One row per edge: image, its two nodes, offset and distance as fractions of the side, whether
        categories are the same ("CatEq" of figure 3a), and the distance of attributes."""
        rows, t, numbers = [], self.edges, self.numbers()
        for k, (source, target) in enumerate(zip(t["source"], t["target"], strict=True)):
            row: dict[str, Cell] = {"image": int(self.nodes["image"][source]) + 1}
            row |= {"from": numbers[int(source)], "to": numbers[int(target)]}
            dx, dy = (t["offset"][k] / 2).tolist()
            row |= {"dx": dx, "dy": dy, "distance": float(t["distance"][k]) / 2}
            if "same_category" in t:
                row["same"] = "yes" if t["same_category"][k] else "no"
            if "attributes" in t:
                row["attributes"] = float(t["attributes"][k])
            rows.append({name: _short(value) for name, value in row.items()})
        return rows


def _short(value: Cell) -> Cell:
    return round(value, 3) if isinstance(value, float) else value


def scene_graph(scene: Scene) -> Graph:
    """The graph of a batch of scenes' objects (their first level)."""
    o = scene.map(lambda t: t.detach().cpu()).objects
    image, slot = o.present.nonzero(as_tuple=True)
    columns = {"centre": o.centre, "extent": o.extent, "rotation": o.rotation}
    columns |= {"category": o.category, "attributes": o.attributes}
    nodes = {name: t[image, slot] for name, t in columns.items() if t is not None}
    together = (image[:, None] == image) & ~torch.eye(len(image), dtype=torch.bool)
    source, target = together.nonzero(as_tuple=True)
    change = {name: t[target] - t[source] for name, t in nodes.items() if t.is_floating_point()}
    ratio = nodes["extent"][target].log() - nodes["extent"][source].log()
    edges = {"source": source, "target": target, "offset": change["centre"]}
    edges |= {"distance": change["centre"].norm(dim=-1), "size": ratio}
    edges["turn"] = (change["rotation"] + math.pi) % (2 * math.pi) - math.pi
    if "category" in nodes:
        edges["same_category"] = nodes["category"][target] == nodes["category"][source]
    if "attributes" in nodes:
        edges["attributes"] = change["attributes"].norm(dim=-1)
    return Graph({"image": image, "slot": slot, **nodes}, edges)
