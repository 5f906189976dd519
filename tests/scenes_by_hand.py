"""Scenes written down node by node."""

import torch

from programs.blocks import render
from programs.scene import Nodes, Scene


def level(centres, pres=None, parent=None):
    """One image's nodes at the centres [(x, y), …]."""
    where = torch.tensor(centres, dtype=torch.float32).view(1, -1, 2)
    number = where.shape[1]
    pres = torch.ones(1, number) if pres is None else torch.tensor([pres], dtype=torch.float32)
    parent = torch.tensor([parent or [0] * number]).long()
    pose = render.pose(where, torch.full((1, number, 2), 0.1), torch.zeros(1, number))
    return Nodes(pres, pose, torch.ones(1, number), parent)


def graph(*levels):
    return Scene(torch.zeros(1, 3, 8, 8), levels)


def two_objects(parent=(0, 0, 1)):
    """Objects left and right, the left of two parts and the right of one."""
    objects = level([(-0.5, 0.0), (0.5, 0.0)])
    return graph(objects, level([(-0.6, 0.0), (-0.3, 0.0), (0.5, 0.1)], parent=list(parent)))
