"""Guide of DeNF: in a flow only presence is inferred, and the flow itself gives its logits.

    q(z_pres_ij | x) = p(z_pres_ij | z),  z = f⁻¹(x)             the exact posterior
                       Bernoulli(logit β + l¹_ij - l⁰_ij)       while the program is trained (Alg. 1, line 5)
    q(z_noise | x)   = p(z_noise),  q(z_bg | x) = p(z_bg)

It has no parameters. In Algorithm 1 only the presence channels l of z decide.
# differs: all channels of a cell tell whether it is present, so after training the guide uses them all (given
z, cells are independent), and the bound rises. Training needs the softer logits of Algorithm 1. The paper's
samples are relaxed with Gumbel noise: `inference.estimators`.

Shape legend as in `programs.denf`.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from programs.blocks.config import given
from programs.denf import Program


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws presences for every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the flow belongs to the program
        object.__setattr__(self, "program", program)
        self.config = program.config

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, 3, H, W) in [0, 1]."""
        images = given(images)
        p, number = self.program, images.shape[0]
        with pyro.plate("batch", number, dim=-2):
            noise = pyro.sample("z_noise", p.rounding(number))
            parts = p.hand(images, noise)
            with pyro.plate("cells", self.config.side**2, dim=-1):
                soft = p.presence + parts.logit
                logits = soft if self.training else p.posterior(torch.cat(parts, -3))
                pyro.sample("z_pres", dist.Bernoulli(logits=logits))
            p.jitters(number)
