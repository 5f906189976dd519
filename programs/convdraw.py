"""ConvDRAW: a picture drawn in steps (Gregor et al., NeurIPS 2016), a baseline of GNM's supplementary material.

It works as StructDRAW (`programs.gnm`), but latents are maps of G x G places, each read by its neighbours
alone, and the drawn features are decoded to pixels, not to symbols.

    p(z)     = Π_l p(z_l | z_<l),  p(z_l | z_<l) = N(CNN_int(h_l-1))                          `z_global_l`
    h_l      = ConvLSTM(h_l-1, z_l),  f_l = f_l-1 + CNN_out(h_l),  h_0 = f_0 = 0
    p(x | z) = N(g(f_L), σ²),  g of sub-pixel convolutions (GNM, Table 9)

# differs: StructDRAW's LSTM takes MLP_g(z_l) and f_l-1 (Table 7, section 4.1). Here it takes z_l alone and
unchanged, because Table 3's sizes say so: 1.5 and 4.7 M parameters, ours 1.57 and 4.57 M; with f_l-1 they
would be 1.73 and 5.16 M.

Shape legend: B images, L steps, D = channels · G² features of z_l, C colours, H x W pixels. A particle
plate may stand to the left of B.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks.config import (
    check_enlarged,
    check_grid,
    check_learned,
    check_odd,
    check_positive,
)
from programs.blocks.distributions import gaussian
from programs.blocks.nets import Drawing, Stages, SubpixelStack, normed_convolutions, over_pictures
from programs.blocks.priors import learned
from programs.scene import Scene


@dataclass(frozen=True)
class Config:
    """The configuration of GNM's supplementary material: 128 x 128 images of digits."""

    size: int = 128  # pixels per side of the image
    colours: int = 1  # C
    grid: int = 4  # G places per side
    steps: int = 4  # L
    z_global: int = 32  # channels of z_l
    sigma: float = 0.2
    units: int = 64  # of the LSTMs and of f
    kernel: int = 3  # of the LSTMs and of CNN_int
    interaction: tuple[int, ...] = (128,)  # CNN_int
    channels: tuple[int, ...] = (16, 32, 64, 64, 64)  # of the encoder, by stage
    decoder: Stages = (
        *((128, 1, 3), (64, 2, 1), (64, 1, 3), (32, 2, 1), (32, 1, 3), (16, 2, 1), (16, 1, 3)),
        *((16, 2, 1), (16, 1, 3), (8, 2, 1)),
    )

    # differs: components of a learned p(z_1); 0: the paper's, one Gaussian of CNN_int(h_0)
    learned: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "decoder", "learned")
        check_learned(self)
        check_odd(self, "kernel")
        check_grid(self, least=1)
        check_enlarged(self, "size", "decoder", self.grid)
        if not self.channels or self.channels[-1] != self.units:
            raise ValueError(
                f"channels={self.channels}, units={self.units}: the encoder's last channels are compared with "
                "what is drawn, so they are as many as units"
            )


VARIANTS: dict[str, Config] = {"convdraw": Config(), "convdraw8": Config(steps=8)}


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("sigma", torch.tensor(c.sigma))
        embedding = nn.Unflatten(-1, (c.z_global, c.grid, c.grid))
        self.drawing = Drawing(Local(c), embedding, c.z_global, c.units, c.grid, c.kernel)
        self.decoder = SubpixelStack(c.units, c.grid, c.size, c.decoder, c.colours, nn.ReLU)
        if c.learned:
            self.first = learned(c.z_global * c.grid**2, c.learned)

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, C, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-2):
            canvas = self.drawing.start(batch)
            for step in range(1, self.config.steps + 1):
                if step == 1 and self.config.learned:
                    prior = self.first().expand((batch, 1))
                else:
                    prior = gaussian(self.drawing.prior(canvas.output))
                canvas = self.drawing(pyro.sample(f"z_global_{step}", prior), canvas)
            mean = self.decoder(canvas.features).sigmoid()
            pixels = dist.Normal(mean, self.sigma).to_event(3)
            pyro.sample("images", pixels, obs=None if images is None else images.unsqueeze(-4))
        return Scene(mean.squeeze(-4), ())


class Local(nn.Module):
    """CNN_int: a state (..., units, G, G) to mean and deviation of a z_l, (..., 2 D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.layers = normed_convolutions(c.units, c.interaction, 2 * c.z_global, c.kernel)

    def forward(self, state: Tensor) -> Tensor:
        """Means of all places, then deviations."""
        return over_pictures(self.layers, state).flatten(-3)
