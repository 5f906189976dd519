"""Guide of AIR: a recurrent network reads the image, infers where, crops, infers what (Discrete-AIR, eq. 3).

    q(z | x) = q(z_pres_n+1 = 0 | z_1:n, x) Π_t q(z_pres_t = 1, z_where_t | z_<t, x) q(z_what_t | x_t)
    x_t      = ST(x, z_where_t): the window of step t

With `difference`, the network reads x - C_t-1, what the canvas still lacks (Difference-AIR).

# differs: `second_look`. A window at the first mean of q(z_where) corrects this mean and the deviations, and
q(z_where) and q(z_what) have full covariances. With the paper's diagonal ones numbers of z_what are drawn
independently, and draws are fainter digits than the truth.

Shape legend as in `programs.air`.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.air import Object, Program
from programs.blocks import render
from programs.blocks.config import given
from programs.blocks.distributions import gate, leaning, pairs, positive
from programs.blocks.nets import RecurrentCell, mlp, silent, strided


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the objects of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: decoder and prior belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.embed = nn.Sequential(strided(c.colours, c.embedding), nn.Flatten())
        read = self.embed(torch.zeros(1, c.colours, c.size, c.size)).shape[-1]
        self.cell = RecurrentCell(read, 1 + 3 + c.z_what, c.memory)
        self.where_head = mlp(c.memory, c.hidden, 1 + 2 * 3)
        seen = c.colours * c.window**2
        self.what_head = mlp(seen, c.hidden, 2 * c.z_what)
        if c.second_look:
            self.look_head = silent(mlp(seen, c.hidden, 2 * 3 + pairs(3)))
            self.lean_head = silent(mlp(seen, c.hidden, pairs(c.z_what)))

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        state, exists = self.cell.start(len(images)), images.new_ones(len(images))
        lacking, seen = images, self.cell.look(self.embed(images))
        last = images.new_zeros(len(images), 1 + 3 + self.config.z_what)
        with pyro.plate("batch", len(images), dim=-1):
            for t in range(1, self.config.steps + 1):
                state = self.cell(seen, last, state)
                step = self.step(t, exists, images, state[0])
                exists = step.exists
                if self.config.difference and t < self.config.steps:
                    lacking = lacking - self.program.draw(step)
                    seen = self.cell.look(self.embed(lacking))
                last = torch.cat([exists.unsqueeze(-1), step.where, step.what], -1)

    def step(self, t: int, exists: Tensor, images: Tensor, memory: Tensor) -> Object:
        """q of one step: whether there is one more object, its place, and its appearance."""
        go_on, loc, raw = self.where_head(memory).split([1, 3, 3], -1)
        with gate(exists):
            pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(logits=go_on.squeeze(-1)))
        with gate(exists * pres):
            where = pyro.sample(f"z_where_{t}", self.q_where(images, loc, raw))
            what = pyro.sample(f"z_what_{t}", self.q_what(self.window(images, where)))
        return Object(exists * pres, where, what)

    def q_where(self, images: Tensor, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
        """q(z_where) from its first mean and raw deviations (B, 3)."""
        if not self.config.second_look:
            return leaning(loc, self.program.where_sd * positive(raw))
        seen = self.window(images, loc.detach())
        shift, wider, lean = self.look_head(seen).split([3, 3, pairs(3)], -1)
        sd = self.program.where_sd
        return leaning(loc + sd * shift, sd * positive(raw + wider), lean)

    def q_what(self, window: Tensor) -> dist.TorchDistribution:
        """q(z_what) from the pixels of a window (B, C · h · w)."""
        loc, raw = self.what_head(window).chunk(2, -1)
        lean = self.lean_head(window) if self.config.second_look else None
        return leaning(loc, positive(raw), lean)

    def window(self, images: Tensor, where: Tensor) -> Tensor:
        """(B, C · h · w) the pixels that a place (B, 3) frames."""
        pose = self.program.pose(where)[:, None, None]
        return render.crop(images.unsqueeze(1), pose, self.config.window).flatten(1)
