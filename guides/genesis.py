"""Guide of GENESIS: masks one after another, then the component of each mask.

    q(z_m | x)      = Π_k q(z_m_k | z_m_<k, x), by an LSTM
    q(z_c | z_m, x) = Π_k q(z_c_k | π_k, x)

Shape legend as in `programs.genesis`.
"""

from __future__ import annotations

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks.config import given
from programs.blocks.distributions import gaussian
from programs.blocks.nets import ConvEncoder, RecurrentCell, mlp
from programs.blocks.segments import draw_masks, with_shares
from programs.genesis import Config, Program


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the components of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the masks' decoder belongs to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.masks = MasksEncoder(c)
        self.component_encoder = ConvEncoder(c.size, 4, c.channels, inputs=c.colours + 1)
        self.component_head = mlp(16 * self.component_encoder.outputs, [c.hidden], 2 * c.z_bg)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        x = images.unsqueeze(-4)
        with pyro.plate("batch", images.shape[0], dim=-2):
            seen = self.masks.encoder(x).flatten(-3)
            log_shares = self.program.masks.log_shares(draw_masks(self.masks, seen))
            features = self.component_encoder(with_shares(x, log_shares)).flatten(-3)
            with pyro.plate("components", self.config.components, dim=-1):
                pyro.sample("z_bg", gaussian(self.component_head(features)))


class MasksEncoder(nn.Module):
    """q(z_m_k | z_m_<k, x)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = ConvEncoder(c.size, 4, c.channels, inputs=c.colours)
        self.cell = RecurrentCell(16 * self.encoder.outputs, c.z_bg_mask, c.memory)
        self.mask_head = nn.Linear(c.memory, 2 * c.z_bg_mask)
