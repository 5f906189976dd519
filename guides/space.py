"""Guide of SPACE: all cells at once, and the background's segments one after another.

    q(z_fg | x) = Π_i q(z_pres_i | x) [q(z_where_i | x) q(z_depth_i | x) q(z_what_i | x_i)] ^ z_pres_i
    x_i         = ST(x, z_where_i): the glimpse of cell i
    q(z_bg | x) = Π_k q(z_mask_k | z_mask_<k, x) q(z_comp_k | π_k, x)

Shape legend as in `programs.space`; f (..., 1, F, G, G) features of the image, one column per cell.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks import render
from programs.blocks.config import given
from programs.blocks.distributions import bounded, gate, gaussian, normal, positive
from programs.blocks.nets import ConvEncoder, RecurrentCell, mlp, where_present
from programs.blocks.segments import draw_masks, with_shares
from programs.space import Config, Program


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws a scene for every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the decoders belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.encoder = ConvEncoder(c.size, c.grid, c.channels, c.colours)
        self.cell_head = mlp(self.encoder.outputs, [c.hidden], 1 + 2 * 5)
        self.glimpse_encoder = ConvEncoder(c.glimpse, 4, c.channels, c.colours)
        self.what_head = mlp(16 * self.glimpse_encoder.outputs, [c.hidden], 2 * c.z_what)
        self.segments = SegmentsEncoder(c) if c.components > 1 else None
        self.component_encoder = ConvEncoder(c.size, 4, c.channels, c.colours + 1)
        self.component_head = mlp(16 * self.component_encoder.outputs, [c.hidden], 2 * c.z_bg)
        start(self.cell_head[-1], c)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        with pyro.plate("batch", images.shape[0], dim=-2):
            self.foreground(images.unsqueeze(-4))
            self.background(images.unsqueeze(-4))

    def foreground(self, x: Tensor) -> None:
        """q(z_fg | x), x (B, 1, C, H, W)."""
        cells = self.cell_head(self.encoder(x).flatten(-2).mT.squeeze(-3))
        logit, loc, raw = cells.split([1, 5, 5], -1)
        means, sds = loc.split([2, 2, 1], -1), positive(raw).split([2, 2, 1], -1)
        (where_q, scale_q), depth_q = map(normal, means[:2], sds[:2]), (means[2], sds[2])
        with pyro.plate("nodes_1", self.config.grid**2, dim=-1):
            q = dist.Bernoulli(logits=bounded(logit.squeeze(-1)))
            pres = pyro.sample("z_pres_1", q)
            with gate(pres):
                where = pyro.sample("z_where_1", where_q)
                scale = pyro.sample("z_scale_1", scale_q)
                pyro.sample("z_depth_1", dist.Normal(*(t.squeeze(-1) for t in depth_q)))
                pose = self.program.pose(where, scale).unsqueeze(-4)
                glimpses = render.crop(x, pose, self.config.glimpse).squeeze(-5)
                pyro.sample("z_what_1", self.what(pres, glimpses))

    def what(self, pres: Tensor, glimpses: Tensor) -> dist.TorchDistribution:
        """q(z_what_i | x_i) over (..., N), of glimpses (..., N, C, h, w)."""
        features = where_present(pres, self.glimpse_encoder, glimpses)
        return gaussian(self.what_head(features.flatten(-3)))

    def background(self, x: Tensor) -> None:
        """q(z_bg | x), x (B, 1, C, H, W)."""
        log_shares = torch.zeros_like(x[..., :1, :, :])
        if self.segments is not None:
            log_shares = self.program.segments.log_shares(self.segments.sample(x))
        features = self.component_encoder(with_shares(x, log_shares)).flatten(-3)
        with pyro.plate("components", self.config.components, dim=-1):
            pyro.sample("z_bg", gaussian(self.component_head(features)))


class SegmentsEncoder(nn.Module):
    """q(z_mask_k | z_mask_<k, x)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.encoder = ConvEncoder(c.size, 4, c.channels, c.colours)
        self.cell = RecurrentCell(16 * self.encoder.outputs, c.z_bg_mask, c.memory)
        self.mask_head = nn.Linear(c.memory, 2 * c.z_bg_mask)

    def sample(self, x: Tensor) -> Tensor:
        """(B, 1, C, H, W) -> (..., 1, K, D) of all segments, each given those before it."""
        return draw_masks(self, self.encoder(x).flatten(-3))


@torch.no_grad()
def start(last: nn.Linear, config: Config) -> None:
    """Begin with boxes in the middle of their cells, of the prior's size, almost independent of the input.

    # differs: the official code begins with torch's own weights.
    """
    last.weight.mul_(0.1)
    last.bias.zero_()
    last.bias[3:5] = config.scale_mean
