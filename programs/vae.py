"""VAE: one latent for a whole scene (Kingma, Welling; ICLR 2014), the baseline of GNM's supplementary material.

    p(z)     = N(0, 1)                                                                        `z_global`
    p(x | z) = N(f(z), σ²),  f of sub-pixel convolutions (GNM, Table 8)

# differs: the two layers that infer z have 128 outputs, means and deviations of 64; Table 8 says 128d.

Shape legend: B images, D features, C colours, H x W pixels. A particle plate may stand to the left of B.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks.config import check_enlarged, check_learned, check_positive, check_sides
from programs.blocks.distributions import normal
from programs.blocks.nets import Stages, SubpixelStack
from programs.blocks.priors import learned
from programs.scene import Scene


@dataclass(frozen=True)
class Config:
    """The configuration of GNM's supplementary material: 128 x 128 images of digits."""

    size: int = 128  # pixels per side of the image
    colours: int = 1  # C
    z_global: int = 64
    sigma: float = 0.2
    channels: tuple[int, ...] = (16, 32, 64, 128, 128)  # of the encoder, by stage
    head: int = 128  # channels between the encoder and z
    decoder: Stages = (
        *((128, 4, 1), (128, 1, 3), (64, 2, 1), (64, 1, 3), (32, 2, 1), (32, 1, 3)),
        *((16, 2, 1), (16, 1, 3), (16, 2, 1), (16, 1, 3), (8, 2, 1)),
    )

    learned: int = 0  # differs: components of a learned p(z); 0: the paper's, N(0, 1)

    def __post_init__(self) -> None:
        check_positive(self, "decoder", "learned")
        check_learned(self)
        check_sides(self, "size", least=1)
        check_enlarged(self, "size", "decoder")
        if not self.channels:
            raise ValueError("channels=(): expected channels of at least one stage")


VARIANTS: dict[str, Config] = {"vae": Config()}


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("sigma", torch.tensor(c.sigma))
        self.decoder = SubpixelStack(c.z_global, 1, c.size, c.decoder, c.colours, nn.ReLU)
        if c.learned:
            self.prior = learned(c.z_global, c.learned)

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, C, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-1):
            z = pyro.sample("z_global", self.p_global(batch))
            mean = self.decoder(z[..., None, None]).sigmoid()
            pyro.sample("images", dist.Normal(mean, self.sigma).to_event(3), obs=images)
        return Scene(mean, ())

    def p_global(self, batch: int) -> dist.TorchDistribution:
        """p(z) of `batch` scenes."""
        if self.config.learned:
            return self.prior().expand((batch,))
        zeros = self.sigma.new_zeros(batch, self.config.z_global)
        return normal(zeros, torch.ones_like(zeros))
