"""Guide of the VAE: GNM's image encoder, and two convolutions on it.

    q(z | x) = N(CNN(f^x)),  f^x of 4 x 4 cells

Shape legend as in `programs.vae`.
"""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks.config import given
from programs.blocks.distributions import gaussian
from programs.blocks.nets import Encoder, normed
from programs.vae import Program


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws a latent for every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.config = c = program.config
        self.encoder = Encoder(c.size, 4, c.channels, c.colours)
        self.head = nn.Sequential(
            *normed(nn.Conv2d(self.encoder.outputs, c.head, 3, padding=1)),
            nn.Conv2d(c.head, 2 * c.z_global, 4),
            nn.Flatten(),
        )

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample the latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        with pyro.plate("batch", images.shape[0], dim=-1):
            pyro.sample("z_global", gaussian(self.head(self.encoder(images))))
