"""Guide of ConvDRAW: each latent is inferred from the image and the canvas so far.

    q(z | x) = Π_l q(z_l | z_<l, x),  q(z_l | z_<l, x) = N(CNN_int(e_l))
    e_l      = ConvLSTM_enc(e_l-1, [h_l-1, f^x, f^x - f_l-1]),  h and f the program's

Shape legend as in `programs.convdraw`.
"""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from programs.blocks.config import given
from programs.blocks.distributions import gaussian
from programs.blocks.nets import Encoder, Watching
from programs.convdraw import Local, Program


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the latents of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the drawing networks belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.encoder = Encoder(c.size, c.grid, c.channels, c.colours)
        self.watching = Watching(Local(c), c.units, c.kernel)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        drawing = self.program.drawing
        x, canvas = self.encoder(images.unsqueeze(-4)), drawing.start(len(images))
        state = canvas.state
        with pyro.plate("batch", images.shape[0], dim=-2):
            for step in range(1, self.config.steps + 1):
                raw, state = self.watching(x, canvas, state)
                z_global = pyro.sample(f"z_global_{step}", gaussian(raw))
                canvas = drawing(z_global, canvas)
