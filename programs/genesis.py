"""GENESIS (Engelcke et al., ICLR 2020): a scene is K components that share its pixels, drawn in order.

    p(z_m)       = Π_k p(z_m_k | z_m_<k), by an LSTM                                          `z_bg_mask_k`
    π_k          = s_k Π_j<k (1 - s_j),  s_K = 1,  s_k = f_mask(z_m_k): a stick, broken
    p(z_c | z_m) = Π_k p(z_c_k | z_m_k)                                                       `z_bg`
    p(x | z)     = Σ_k π_k N(x_k, σ²), pixel by pixel,  x_k = f_comp(z_c_k)

Training and sampling are one process here: the LSTM makes the same predictions in both.

In the Scene the components are objects, and the largest is the background; a component without pixels is
absent.

# differs: masks are decoded by sub-pixel convolutions, components by 1 x 1 convolutions on a grid, and
deviations are softplus; the official code has gated convolutions, four 3 x 3 ones, and bounds of its own.
So there are 2.9 million parameters, where GNM's Table 3 has 13.9.

# differs: p(z_m_1) is predicted too, from a learned start; in the official code it is N(0, 1).

Shape legend: B images, K components, D features, C colours, H x W pixels. A particle plate may stand to the
left of B.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks import render
from programs.blocks.config import check_learned, check_positive, check_sides
from programs.blocks.distributions import PixelMixture, gaussian
from programs.blocks.nets import BroadcastDecoder, RecurrentCell, SubpixelDecoder, mlp
from programs.blocks.priors import AffineGaussian
from programs.blocks.segments import break_stick, draw_masks
from programs.scene import Nodes, Scene

LEAST = 1 / 1024
"""Share of the image's pixels that a present component must own at least: 16 of 128 x 128."""


@dataclass(frozen=True)
class Config:
    """Latents and likelihood of the official code, on 128 x 128 images of digits."""

    size: int = 128  # pixels per side of the image
    colours: int = 1  # C
    components: int = 5  # K
    z_bg: int = 16  # features of z_c
    z_bg_mask: int = 64  # features of z_m
    sigma: float = 0.7
    memory: int = 256  # units of the LSTMs over components
    hidden: int = 256  # width of the MLPs
    channels: tuple[int, ...] = (32, 32, 64, 64)  # of the encoders, by stage
    decoder: int = 64  # channels of the masks' decoder at 4 x 4
    cell: int = 1  # pixels per side that a component's decoder computes as one

    # differs: 1: p(z_c_k | z_m_k) is moved and stretched per component; 0: the paper's
    learned: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "learned")
        check_learned(self, "p(z_c_k | z_m_k) is one Gaussian per component")
        check_sides(self, "size")
        if self.components < 2 or not self.channels:
            raise ValueError(
                f"components={self.components}, channels={self.channels}: expected at least two components, "
                "and channels of at least one stage"
            )


VARIANTS: dict[str, Config] = {"genesis": Config()}


class Program(PyroModule):
    """The generative process. ``Program(config)(images)`` conditions, ``(batch=16)`` samples the prior."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = c = config
        self.register_buffer("sigma", torch.tensor(c.sigma))
        self.masks = Masks(c)
        self.component_head = mlp(c.z_bg_mask, [c.hidden, c.hidden], 2 * c.z_bg)
        self.decoder = BroadcastDecoder(c.z_bg, c.size, 32, c.colours, c.cell)
        if c.learned:
            self.component_prior = AffineGaussian(c.z_bg, rows=c.components)

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process.

        Args:
            images: (B, C, H, W) in [0, 1] to condition on; None samples the prior.
            batch: number of scenes when `images` is None.
        """
        batch = batch if images is None else images.shape[0]
        with pyro.plate("batch", batch, dim=-2):
            z_mask = draw_masks(self.masks, self.masks.start.expand(batch, 1, -1))
            log_shares = self.masks.log_shares(z_mask)
            with pyro.plate("components", self.config.components, dim=-1):
                z_bg = pyro.sample("z_bg", self.component(z_mask))
            colours = self.decoder(z_bg).sigmoid().unsqueeze(-5)
            pixels = PixelMixture(colours, log_shares, self.sigma)
            pyro.sample("images", pixels, obs=None if images is None else images.unsqueeze(-4))
        return self.scene(pixels)

    def component(self, z_mask: Tensor) -> dist.TorchDistribution:
        """p(z_c_k | z_m_k) over (..., K), of z_m (..., 1, K, D)."""
        prior = gaussian(self.component_head(z_mask.squeeze(-3)))
        if not self.config.learned:
            return prior
        row = torch.eye(self.config.components).to(z_mask)
        row = row.expand(*prior.batch_shape, -1)
        return self.component_prior(torch.cat([prior.mean, prior.stddev, row], -1))

    def scene(self, pixels: PixelMixture) -> Scene:
        """The components as a Scene of one level, all of the same depth: they share pixels."""
        shape, colours = pixels.log_weights.exp().squeeze(-4), pixels.means.squeeze(-5)
        background = shape.mean((-2, -1)).argmax(-1, keepdim=True)
        own = (shape > 0.5).to(shape.dtype).mean((-2, -1))
        pres = (own >= LEAST).to(shape.dtype).scatter(-1, background, 0.0)
        pose, zeros = render.box(shape), torch.zeros_like(pres)
        behind = colours.gather(
            -4, background[..., None, None, None].expand(*background.shape, *colours.shape[-3:])
        )
        mask = shape * pres[..., None, None]
        nodes = Nodes(pres, pose, zeros, zeros.long(), mask=mask)
        return Scene(pixels.mean.squeeze(-4), (nodes,), behind.squeeze(-4))


class Masks(nn.Module):
    """p(z_m_k | z_m_<k), and π."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.start = nn.Parameter(0.1 * torch.randn(c.memory))
        self.cell = RecurrentCell(c.memory, c.z_bg_mask, c.memory)
        self.mask_head = nn.Linear(c.memory, 2 * c.z_bg_mask)
        self.decoder = SubpixelDecoder(c.z_bg_mask, c.size, c.decoder, 1)

    def log_shares(self, masks: Tensor) -> Tensor:
        """log π of z_m (..., 1, K, D) -> (..., 1, K, H, W): the last component takes the rest."""
        return break_stick(self.decoder(masks[..., :-1, :]).squeeze(-3))
