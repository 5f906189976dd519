"""Guide of GNM: StructDRAW's inference, and the program's own heads on the features of the image.

    q(z^g | x)   = Π_l q(z^g_l | z^g_<l, x),  q(z^g_l | z^g_<l, x) = N(MLP_int(e_l))               (Algorithm 1)
    e_l          = ConvLSTM_enc(e_l-1, [h_l-1, f^x, f^x - f_l-1]),  h and f the program's, e_0 learned
    q(z^b | x)   = N(MLP(f^x))
    q(z^s | x)   = p(z^s | f = f^x): one network for the prior and the posterior

Shape legend as in `programs.gnm`.
"""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from programs.blocks.config import given
from programs.blocks.distributions import gaussian
from programs.blocks.nets import Encoder, Watching, normed_mlp
from programs.gnm import Program, interaction


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws a scene for every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the heads and drawing networks belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.encoder = Encoder(c.size, c.grid, c.channels, c.colours)
        self.watching = Watching(
            interaction(c), c.units, c.kernel, c.grid if c.structured else None
        )
        if c.z_bg:
            self.background_head = normed_mlp(c.units * c.grid**2, c.background_hidden, 2 * c.z_bg)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        with pyro.plate("batch", images.shape[0], dim=-2):
            features = self.encoder(images.unsqueeze(-4))
            self.draw(features)
            if self.config.z_bg:
                pyro.sample("z_bg", gaussian(self.background_head(features.flatten(-3))))
            self.program.symbols(features)

    def draw(self, x: Tensor) -> None:
        """q(z^g | x), given the features f^x (B, 1, F, G, G)."""
        drawing = self.program.drawing
        canvas = drawing.start(len(x))
        state = self.watching.start(canvas)
        for step in range(1, self.config.steps + 1):
            raw, state = self.watching(x, canvas, state)
            z_global = pyro.sample(f"z_global_{step}", gaussian(raw))
            canvas = drawing(z_global, canvas)
