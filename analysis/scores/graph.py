"""A Scene's objects as a graph: a table of nodes, and a table of edges that says how two objects differ.

Discrete-AIR, sections 2.4 and C.3: a node for every object present; an edge from each to each other of the
same image, with the difference of their places (its sign is the direction), the distance of their
attributes, and whether their categories are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from programs.scene import Scene

if TYPE_CHECKING:
    import networkx


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
