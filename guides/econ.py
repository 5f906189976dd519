"""Guide of ECON: explain a scene from the front to the back by competition of experts (sections 4.2, 5.2).

    for t = T, …, 1 every expert k attends to a part of what is in the scope s_t, encodes and decodes it:
    u_t        = argmax s_t e                               the seed: what is worst explained so far
    r̃_k        = s_t ⊙ a_k(x, s_t, u_t)                     all of s_t at t = 1
    q(z | k)   = N(g_k(x, r̃_k))
    C_k        = λ L_x + L_r + Σ s_t (1 - a_k) e             of x_k = μ_k(z), m̃_k(z) at the mean of z
    q(k_t)     ∝ exp(-sharpness C_k - price_k)               `z_cat_t`: the winner
    q(z_t)     = q(z | k_t)                                  `z_what_t`
    q(m_t)     = Bernoulli(a_k_t)                            `z_mask_t`, in the scope                (9)
    s_t-1      = s_t ⊙ (1 - m_t)                                                                    (14)

    L_x        = Σ r̃_k (x - μ_k)² / 2σ²                                                             (10)
    L_r        = Σ s_t KL(a_k ‖ m̃_k)                                                                (12)

The paper's training is the estimator `mean` for the masks (r̃ for r) and `competition` for the winners (no
gradient passes the choice), with KL weights of β on `z_what*`, γ on `z_mask*` and 0 on `z_cat*`. That is (13),
conditioned on k_1:T: of the exact bound KL(q(k_t) ‖ p(k_t)) is missing, and how q(k_t) depends on parameters.
With other estimators the winners' probabilities are differentiated, too. What is reported is the exact bound.

# differs: e is missing in the paper. It is what a pixel costs that is left to the end: (x - μ)² / 2σ² of the
one expert that explains the whole image best. Without it who attends to nothing pays nothing, and wins.

# differs: in the paper the attention network's output is a_k. Here it embeds the pixels, and what is like the
seed is attended to, as in GENESIS-V2 (Engelcke et al., 2021). To begin with pixels are alike that are near to
each other and of one colour. Without it all objects of random colours are one region, and stay one.

# differs: the paper lets experts win "proportionally to their competition objectives", without saying how, and
competes with a sample of z. Summed over pixels C_k are hundreds of nats apart: `sharpness` tempers them.
Deterministic competition is the mode of q(k_t).

# differs: an expert's price, 0 in the paper, rises in training while it wins more than its share of the layers,
1 / K, and falls while it wins less, by `balance` a step times the difference. So none wins everything.

Shape legend as in `programs.econ`.
"""

from __future__ import annotations

from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from programs.distributions import normal, positive
from programs.econ import Config, ExpertConv, ExpertLinear, Pixels, Program, pixel_axes

SHARPNESS = 0.1
"""Of the differences of C_k, in nats, what decides the winner. Recipes raise it from almost 0."""
EMBEDDING, SEEN = 8, 5
"""Numbers that a pixel is embedded in, and how many of them are its place and colour."""
SPREAD, CONTRAST = 3.0, 6.0
"""Of coordinates in [-1, 1] and of colours in [0, 1], in embeddings to begin with."""
REACH = 2.0
"""Logit of the seed to begin with, and the squared distance at which one pixel in two is attended to."""
CRUMB = 3
"""Pixels a side of the squares of which the worst explained is the seed."""
FAINT = 0.2
"""Of what layers begin with: the attention network adds little to what is seen."""
NARROW = -2.3
"""Added to what deviations of z are made of: they begin at 0.1, so that decoders can hear what z says."""
CERTAIN = 20.0
"""Logit of what is attended to at t = 1: a probability of 1 in single precision."""


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the layers of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the decoders belong to the program
        object.__setattr__(self, "program", program)
        self.config = program.config
        self.attention = Attention(self.config)
        self.encoder = Encoder(self.config)
        self.register_buffer("sharpness", torch.tensor(SHARPNESS))
        self.register_buffer("price", torch.zeros(self.config.experts))
        self.register_buffer("balance", torch.tensor(0.0))

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        if images is None:
            raise ValueError(
                "a guide infers from images; call the program alone to sample the prior"
            )
        scope, pixels = torch.ones_like(images[:, 0]), Pixels(self.config.size)
        winners, rest = [], self.rest(images)
        with pyro.plate("batch", len(images), dim=-3):
            for t in range(self.program.layers, 0, -1):
                scope, cat = self.layer(t, images, scope, rest, pixels)
                winners.append(cat)
        if self.training:
            self.charge(torch.stack(winners))

    @torch.no_grad()
    def charge(self, winners: Tensor) -> None:
        """Let winners (T, B, K) into the prices."""
        share = winners.flatten(0, 1).mean(0)
        self.price += self.balance * (share - 1 / self.config.experts)

    def layer(
        self, t: int, images: Tensor, scope: Tensor, rest: Tensor, pixels: Pixels
    ) -> tuple[Tensor, Tensor]:
        """q(k_t, z_t, m_t | x, s_t); returns s_t-1, and who won (B, K)."""
        seed = self.seed(scope, rest)
        inputs = images, scope, seed, rest, t == 1
        # what a competition costs is computed again if its gradient is asked for
        cost = checkpoint(self.competition, *inputs, use_reentrant=False)
        logits = -self.sharpness * cost[:, None, None] - self.price
        cat = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=logits))[:, 0, 0]
        attended, (loc, scale) = self.explain(images, scope, seed, cat, t == 1)
        pyro.sample(f"z_what_{t}", normal(loc[:, None, None], scale[:, None, None]))
        return scope * (1 - pixels.mask(t, scope, attended)), cat

    @torch.no_grad()
    def seed(self, scope: Tensor, rest: Tensor) -> Tensor:
        """(B,) u_t, the number of a pixel, row by row; crumbs at edges are too small to be one."""
        left = (scope * rest).unsqueeze(1)
        return F.avg_pool2d(left, CRUMB, 1, CRUMB // 2).flatten(1).argmax(1)

    def explain(
        self, images: Tensor, scope: Tensor, seed: Tensor, cat: Tensor, last: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What experts (N, K) attend to: logits (N, S, S), and the mean and deviation of z (N, L).

        Args:
            seed: (N,) number of the pixel, row by row.
            last: attend to all that is in the scope.
        """
        certain = torch.full_like(scope, CERTAIN)
        attended = certain if last else self.attention(images, scope, seed, cat)
        return attended, self.encoder(images, scope * attended.sigmoid(), cat)

    def competition(
        self, images: Tensor, scope: Tensor, seed: Tensor, rest: Tensor, last: bool
    ) -> Tensor:
        """(B, K) C_k in nats."""
        number = self.config.experts
        if number == 1:
            return scope.new_zeros(len(scope), 1)
        images, cat = self.for_each_expert(images)
        scope, seed, rest = (t.repeat_interleave(number, 0) for t in (scope, seed, rest))
        attended, (loc, _) = self.explain(images, scope, seed, cat, last)
        errors, shape = self.errors(images, loc, cat)
        region = attended.sigmoid()
        kl = torch.distributions.kl_divergence(
            *(dist.Bernoulli(logits=t) for t in (attended, shape))
        )
        cost = region * self.config.appearance * errors + kl + (1 - region) * rest
        return (scope * cost).sum((-2, -1)).view(-1, number)

    @torch.no_grad()
    def rest(self, images: Tensor) -> Tensor:
        """(B, S, S) e in nats."""
        number = self.config.experts
        rows, cat = self.for_each_expert(images)
        loc, _ = self.encoder(rows, torch.ones_like(rows[:, 0]), cat)
        errors = self.errors(rows, loc, cat)[0].unflatten(0, (-1, number))
        best = errors.sum((-2, -1)).argmin(1)
        return errors[torch.arange(len(images), device=best.device), best]

    def for_each_expert(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """A row for every image and expert: the images (B K, C, S, S), and the experts (B K, K)."""
        number = self.config.experts
        cat = torch.eye(number, dtype=images.dtype, device=images.device).repeat(len(images), 1)
        return images.repeat_interleave(number, 0), cat

    def errors(self, images: Tensor, z: Tensor, cat: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, S) (x - μ)² / 2σ², and logits of the shapes (N, S, S)."""
        colours, shape = self.program.decoder(z, cat)
        return (images - colours).square().sum(1) / (2 * self.program.sigma**2), shape


class Encoder(nn.Module):
    """g_k: from what is seen in a region to the mean and deviation of z (C.2.1).

    # differs: convolutions of stride 2 in the place of max pooling, which takes longer than they do.
    # differs: a wider layer before the latents (4 L numbers in the paper), ELU in the place of ReLU, and small
    deviations to begin with: on true regions of random colours the paper's do not learn colours
    (`analysis/LOG.md`).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        widths, self.patch = [4 * c.patch**2, *[c.features] * c.blocks], c.patch
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList([ExpertConv(c.experts, a, b, stride=2) for a, b in pairs])
        pixels = (c.size // c.patch // 2**c.blocks) ** 2
        self.hidden = ExpertLinear(c.experts, pixels * c.features, c.hidden)
        self.out = ExpertLinear(c.experts, c.hidden, 2 * c.latents)

    def forward(self, images: Tensor, region: Tensor, cat: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, S, S), (N, S, S), (N, K) -> two (N, L)."""
        region = region.unsqueeze(1)
        x = F.pixel_unshuffle(torch.cat([images * region, region], 1), self.patch)
        for block in self.blocks:
            x = F.elu(block(x, cat))
        x = F.elu(self.hidden(x.flatten(1), cat))
        loc, raw = self.out(x, cat).chunk(2, -1)
        return loc, positive(raw + NARROW)


class Attention(nn.Module):
    """a_k: MONet's U-Net (C.2.2) embeds pixels; what is like the seed is attended to.

        logit a_k(p) = reach_k - |φ_k(p) - φ_k(u)|²,    φ_k = (place, colour, 0) + U-Net_k(x, log s)

    # differs: instance normalisation without learned scale and shift.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        number, widths, self.patch = c.experts, (4 * c.patch**2, *c.attention), c.patch
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList([ExpertConv(number, a, b) for a, b in pairs])
        side = c.size // c.patch // 2 ** (len(pairs) - 1)
        pixels = side**2 * widths[-1]
        self.inside = ExpertLinear(number, pixels, c.context)
        self.outside = ExpertLinear(number, c.context, pixels)
        ends = [c.attention[0], *c.attention[:-1]]
        pairs = reversed(list(zip(c.attention, ends, strict=True)))
        self.up = nn.ModuleList([ExpertConv(number, 2 * a, b) for a, b in pairs])
        self.out = ExpertConv(number, c.attention[0], EMBEDDING * c.patch**2, 1)
        self.out.weight.data.mul_(FAINT)
        self.reach = nn.Parameter(torch.full((number, 1), REACH))
        self.register_buffer("grid", pixel_axes(c.size), persistent=False)

    def forward(self, images: Tensor, scope: Tensor, seed: Tensor, cat: Tensor) -> Tensor:
        """(N, C, S, S), (N, S, S), (N,), (N, K) -> (N, S, S)."""
        x = self.embed(images, scope, cat)
        at = x.flatten(2).gather(2, seed[:, None, None].expand(-1, EMBEDDING, 1))
        distance = (x - at.unsqueeze(-1)).square().sum(1)
        return (cat @ self.reach).unsqueeze(-1) - distance

    def embed(self, images: Tensor, scope: Tensor, cat: Tensor) -> Tensor:
        """(N, EMBEDDING, S, S) φ of every pixel."""
        log_scope = scope.clamp(min=1e-3).log().unsqueeze(1)
        x, skipped = F.pixel_unshuffle(torch.cat([images, log_scope], 1), self.patch), []
        for i, block in enumerate(self.down):
            x = F.instance_norm(block(x[..., ::2, ::2] if i else x, cat)).relu()
            skipped.append(x)
        context = self.inside(x.flatten(1), cat).relu()
        x = self.outside(context, cat).relu().view_as(x)
        for i, block in enumerate(self.up):
            if i:
                x = F.interpolate(x, scale_factor=2)
            x = torch.cat([x, skipped.pop()], 1)
            x = F.instance_norm(block(x, cat)).relu()
        place = self.grid.expand(len(images), -1, -1, -1)
        seen = torch.cat([SPREAD * place, CONTRAST * images], 1)
        learned = F.pixel_shuffle(self.out(x, cat), self.patch)
        return learned + F.pad(seen, (0, 0, 0, 0, 0, EMBEDDING - SEEN))
