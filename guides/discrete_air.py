"""Guide of Discrete-AIR: explain what the canvas still lacks, one object a step (section 2.2).

    h_t              = LSTM(x - C_t-1, z_t-1)
    q(z_pres_t, z_where_t | h_t),    q(z_theta_t | ST(x, T_st⁻¹)),    q(z_cat_t, z_attr_t | ST(x, T⁻¹))

# differs: the paper's LSTM says angle and shears too. Seen in the upright window they are the same wherever the
object is.

Shape legend as in `programs.discrete_air`.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs import render
from programs.discrete_air import Object, Program
from programs.distributions import gate, normal, positive
from programs.nets import RecurrentCell, groups, mlp


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the objects of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: decoder and prior belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.embed = nn.Sequential(nn.AvgPool2d(c.pool), embedding(c.colours, c.embedding))
        with torch.no_grad():
            features = self.embed(torch.zeros(1, c.colours, c.size, c.size)).shape[1]
        self.inputs = 1 + 4 + c.theta + c.categories + c.attributes
        self.cell = RecurrentCell(features, self.inputs, c.memory)
        self.where_head = mlp(c.memory, [c.hidden], 1 + 2 * 4)
        self.glance, self.read = (strided(c.colours, c.encoder) for _ in range(2))
        pixels = c.encoder[-1] * (c.window // 2 ** len(c.encoder)) ** 2
        self.theta_head = mlp(pixels, [c.hidden], 2 * c.theta)
        self.what_head = mlp(pixels, [c.hidden], c.categories + 2 * c.attributes)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        if images is None:
            raise ValueError(
                "a guide infers from images; call the program alone to sample the prior"
            )
        state, exists = self.cell.start(len(images)), images.new_ones(len(images))
        last, canvas = images.new_zeros(len(images), self.inputs), torch.zeros_like(images)
        with pyro.plate("batch", len(images), dim=-1):
            for t in range(1, self.config.steps + 1):
                seen = self.cell.look(self.embed(images - canvas))
                state = self.cell(seen, last, state)
                step = self.step(t, exists, images, state[0])
                exists = step.exists
                canvas = canvas + self.program.draw(step)[1]
                last = torch.cat([exists.unsqueeze(-1), *step[1:]], -1)

    def step(self, t: int, exists: Tensor, images: Tensor, memory: Tensor) -> Object:
        """Whether there is one more object, where, of which category, with which attributes."""
        c = self.config
        go_on, loc, raw = self.where_head(memory).split([1, 4, 4], -1)
        with gate(exists):
            pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(logits=go_on.squeeze(-1)))
        with gate(exists * pres):
            q = normal(loc, self.program.where_sd * positive(raw))
            where = pyro.sample(f"z_where_{t}", q)
            upright = self.window(images, where, loc.new_zeros(len(loc), c.theta))
            loc, raw = self.theta_head(self.glance(upright).flatten(1)).chunk(2, -1)
            q = normal(loc, self.program.theta_sd * positive(raw))
            theta = pyro.sample(f"z_theta_{t}", q)
            what = self.what_head(self.read(self.window(images, where, theta)).flatten(1))
            logits, loc, raw = what.split([c.categories, c.attributes, c.attributes], -1)
            cat = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=logits))
            attr = loc
            if c.attributes:
                attr = pyro.sample(f"z_attr_{t}", normal(loc, positive(raw)))
        return Object(exists * pres, where, theta, cat, attr)

    def window(self, images: Tensor, where: Tensor, theta: Tensor) -> Tensor:
        """(B, C, h, w) what the inverse of T shows."""
        pose = self.program.pose(where, theta)[:, None, None]
        return render.crop(images.unsqueeze(1), pose, self.config.window)[:, 0, 0]


def embedding(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions of 5 x 5 with pooling, flattened; without widths the pixels themselves (C.1)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 5, padding=2), nn.GroupNorm(groups(width), width)]
        layers += [nn.CELU(), nn.MaxPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.Flatten())


def strided(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions of 5 x 5 with stride 2 (C.1)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 5, 2, padding=2), nn.GroupNorm(groups(width), width)]
        layers.append(nn.CELU())
        channels = width
    return nn.Sequential(*layers)
