"""Guide of ECON: explain a scene from the front to the back by competition of experts (sections 4.2, 5.2).

    for t = T, …, 1 every expert k attends to a part of the scope s_t, encodes and decodes it:
    u_t        the seed, a pixel of the region worst explained so far
    q_k(m)     ∝ a_k(x, s_t, u_t) √m̃_k(z')                  z' the mean of g_k(x, s_t ⊙ a_k), a first look
    r̃_k        = s_t ⊙ q_k                                  all of s_t at t = 1
    q(z | k)   = N(g_k(x, r̃_k))
    C_k        = log(λ L_x + L_r) - log(Σ r̃_k e)            of x_k = μ_k(z), m̃_k(z) at the mean of z
    q(k_t)     ∝ exp(-sharpness C_k - price_k)               `z_cat_t`: the winner
    q(z_t)     = q(z | k_t)                                  `z_what_t`
    q(m_t)     = q_k_t                                       `z_mask_t`, in the scope, t > 1         (9)
    s_t-1      = s_t ⊙ (1 - m_t)                                                                    (14)

    L_x        = Σ r̃_k (x - μ_k)² / 2σ²                                                             (10)
    L_r        = Σ s_t KL(q_k ‖ m̃_k)                         0 at t = 1, where m_1 = 1               (12)
    e          = (x - μ)² / 2σ² of the one expert that explains the whole image best

The paper's training is the estimator `mean` for the masks (r̃ for r) and `competition` for the winners (no
gradient passes the choice), with KL weights of β on `z_what*`, γ on `z_mask*` and 0 on `z_cat*`. That is
(13), conditioned on k_1:T: compared with the exact bound, KL(q(k_t) ‖ p(k_t)) and the gradient of q(k_t)
are missing. Other estimators differentiate the winners' probabilities, too. The reported bound is exact.

# differs: the paper has q(k_t) ∝ exp(-λ L_x - L_r). An expert that attends to nothing pays nothing, and
wins; and costs summed over pixels are hundreds of nats apart. Here the cost per explained nat decides, as
in greedy set cover (Chvátal, 1979): an expert that attends to nothing gains nothing, and one that takes two
objects for one pays for it.

# differs: in the paper the attention network's output is a_k. Here it embeds the pixels, and the guide
attends to pixels similar to the seed, as in GENESIS-V2 (Engelcke et al., 2021). Before training, pixels are
similar if they are close together and of one colour. Without the embedding, all objects of random colours
are one region, and stay one.

# differs: the paper's q_k is a_k. Here every object is looked at twice: q_k is the product of attention and
the shape found by the first look, as in GSGN (10), but with the shape's square root, since with random
colours shapes are overconfident. So of two similar objects that touch only one is explained, and the other
is left for the next layer.

# differs: the best expert's whole shape may continue under a region that is not explained yet. Then that region
is looked at as well, and the object whose shape is less covered by the other goes first, so that layers are
in the order of depth.

# differs: m_1 = 1 has no shape to compare, so at t = 1 experts compete by appearance, λ = 1 for every set.

# differs: the paper competes with a sample of z. Deterministic competition is the mode of q(k_t).

# differs: an expert's price, 0 in the paper, rises in training while it wins more than its share of the layers,
1 / K, and falls while it wins less, by `balance` a step times the difference. So none wins everything.

Shape legend as in `programs.econ`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.ops.provenance import detach_provenance
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from programs.blocks.config import given
from programs.blocks.distributions import normal, positive
from programs.econ import SPAN, Config, ExpertConv, ExpertLinear, Pixels, Program, pixel_axes

SHARPNESS = 10.0
"""Factor of C_k in q(k_t): with 1, an expert of half the cost wins twice as often. Recipes raise it."""
EMBEDDING = 8
"""E, the number of features of a pixel's embedding."""
SEEN = 5
"""The number of embedding features that are the pixel's place and colour."""
SPREAD = 3.0
"""Factor of coordinates in [-1, 1] in embeddings before training."""
CONTRAST = 10.0
"""Factor of colours in [0, 1] in embeddings before training."""
REACH = 2.0
"""Initial attention logit of the seed, and so the squared distance at which attention is 1/2."""
CRUMB = 3
"""Pixels per side of the smaller of the two squares whose mean errors choose the seed."""
WIDE = 4
"""The image's side over that of the larger square."""
WORTH = -0.7
"""Largest C_k of a possible object: its cost is less than half of the nats that it explains."""
LITTLE = 10.0
"""Nats added to costs and gains, so that an expert that explains nothing cannot win at zero cost."""
FAINT = 0.2
"""Factor of the last layer's initial weights, so that the U-Net adds little to place and colour at first."""
NARROW = -2.3
"""Offset of z's raw deviations: they begin at 0.1, so that noise does not hide z from decoders."""
TRUST = 0.5
"""Power of the first look's shape in the second look's region. Recipes may lower it."""


class Rows(NamedTuple):
    """Inputs of the experts, one row per image and expert."""

    images: Tensor
    """(N, C, S, S)"""
    scope: Tensor
    """(N, S, S)"""
    cat: Tensor | None
    """(N, K) one-hot, or None: N / K rows of the first expert, then those of the next"""
    embedding: Tensor | None
    """(N, E, S, S) φ_k of the pixels, or None to attend to the whole scope"""


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
        self.register_buffer("trust", torch.tensor(TRUST))
        self.register_buffer("price", torch.zeros(self.config.experts))
        self.register_buffer("balance", torch.tensor(0.0))

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        scope, pixels = torch.ones_like(images[:, 0]), Pixels(self.config.size)
        winners, rest = [], self.rest(images)
        with pyro.plate("batch", len(images), dim=-3):
            for t in range(self.program.layers, 0, -1):
                scope, cat = self.layer(t, images, scope, rest, pixels)
                winners.append(cat)
        if self.training:
            self.charge(detach_provenance(torch.stack(winners)))

    @torch.no_grad()
    def charge(self, winners: Tensor) -> None:
        """Update the prices by winners (T, B, K)."""
        share = winners.flatten(0, 1).mean(0)
        self.price += self.balance * (share - 1 / self.config.experts)

    def layer(
        self, t: int, images: Tensor, scope: Tensor, rest: Tensor, pixels: Pixels
    ) -> tuple[Tensor, Tensor]:
        """q(k_t, z_t, m_t | x, s_t); returns s_t-1, and the winner (B, K)."""
        last = t == 1
        # the competition is computed again if its gradient is needed
        seed, cost = checkpoint(self.compete, images, scope, rest, last, use_reentrant=False)
        logits = -self.sharpness * cost[:, None, None] - self.price
        cat = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=logits))[:, 0, 0]
        embedding = None if last else self.attention(images, scope, cat)
        logits, (loc, scale) = self.explain(Rows(images, scope, cat, embedding), seed)
        pyro.sample(f"z_what_{t}", normal(loc[:, None, None], scale[:, None, None]))
        if last:
            return scope, cat
        return scope * (1 - pixels.mask(t, scope, logits)), cat

    def compete(
        self, images: Tensor, scope: Tensor, rest: Tensor, last: bool
    ) -> tuple[Tensor, Tensor]:
        """u_t (B,), and C_k there (B, K)."""
        rows, rests = self.for_each_expert(images, scope, last), self.each(rest)
        seed = self.seed(scope * rest)
        cost, region, shape = self.judge(rows, rests, seed)
        if last:
            return seed, cost
        # the region under which the best shape continues: the more it is covered, the less it covers
        other = self.seed(scope * rest * shape * (1 - region))
        other_cost, other_region, other_shape = self.judge(rows, rests, other)
        under, over = shape * other_region, other_shape * region
        behind = (scope * rest * (under - over)).sum((-2, -1)) > 0
        behind = behind & (other_cost.amin(1) < WORTH)
        return torch.where(behind, other, seed), torch.where(behind[:, None], other_cost, cost)

    @torch.no_grad()
    def seed(self, left: Tensor) -> Tensor:
        """(B,) index, row by row, of the pixel around which most of (B, S, S) lies; crumbs do not count."""
        sides = CRUMB, self.config.size // WIDE | 1
        near, far = (F.avg_pool2d(left.unsqueeze(1), s, 1, s // 2).flatten(1) for s in sides)
        return (near * far).argmax(1)

    def explain(self, rows: Rows, seed: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """q_k around a seed (N,): logits (N, S, S), and mean and deviation of z, each (N, L)."""
        if rows.embedding is None:
            return self.look(rows, torch.full_like(rows.scope, torch.inf))
        attended, (loc, _) = self.look(rows, self.attention.near(rows.embedding, seed, rows.cat))
        _, shape = self.program.decoder(loc, rows.cat)
        return self.look(rows, attended + self.trust * shape)

    def look(self, rows: Rows, logits: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The given logits (N, S, S) of a region, and mean and deviation of z in it, each (N, L)."""
        return logits, self.encoder(rows.images, rows.scope * logits.sigmoid(), rows.cat)

    def judge(self, rows: Rows, rest: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """C_k (B, K) of K rows per image, and the best expert's q_k and m̃_k, each (B, S, S), no gradient."""
        logits, (loc, _) = self.explain(rows, self.each(seed))
        errors, shape = self.errors(rows.images, loc, rows.cat)
        region, weight = logits.sigmoid(), self.config.appearance
        if rows.embedding is None:
            weight, kl = 1.0, torch.zeros_like(region)
        else:  # KL of Bernoullis: the terms in their logits, and the normalisers
            kl = region * (logits - shape) + F.softplus(shape) - F.softplus(logits)
        cost = rows.scope * (weight * region * errors + kl)
        gain = rows.scope * region * rest
        cost, gain = ((t.sum((-2, -1)) + LITTLE).log() for t in (cost, gain))
        cost = (cost - gain).view(self.config.experts, -1).T
        return cost, *(best_of(cost, t.detach()) for t in (region, shape.sigmoid()))

    @torch.no_grad()
    def rest(self, images: Tensor) -> Tensor:
        """(B, S, S) e in nats."""
        rows = self.for_each_expert(images, torch.ones_like(images[:, 0]), True)
        loc, _ = self.encoder(rows.images, rows.scope, rows.cat)
        errors, _ = self.errors(rows.images, loc, rows.cat)
        return best_of(errors.sum((-2, -1)).view(-1, len(images)).T, errors)

    def for_each_expert(self, images: Tensor, scope: Tensor, last: bool) -> Rows:
        """K rows an image: all images for each expert."""
        images, scope = self.each(images), self.each(scope)
        return Rows(images, scope, None, None if last else self.attention(images, scope, None))

    def each(self, of_images: Tensor) -> Tensor:
        """(B, …) -> (K B, …)."""
        return of_images.repeat(self.config.experts, *[1] * (of_images.ndim - 1))

    def errors(self, images: Tensor, z: Tensor, cat: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, S, S) (x - μ)² / 2σ², and logits of the shapes (N, S, S)."""
        colours, shape = self.program.decoder(z, cat)
        return (images - colours).square().sum(1) / (2 * self.program.sigma**2), shape


def best_of(cost: Tensor, rows: Tensor) -> Tensor:
    """Of rows (K B, S, S), of every image that whose cost (B, K) is the lowest: (B, S, S)."""
    best = cost.argmin(1)
    return rows.unflatten(0, cost.T.shape)[best, torch.arange(len(best), device=best.device)]


class Encoder(nn.Module):
    """g_k: from the pixels of a region to the mean and deviation of z (C.2.1).

    # differs: its coordinates are relative to the middle of the region, and it adds an offset to that
    place.
    # differs: convolutions of stride 2 instead of max pooling, which takes longer.
    # differs: a wider layer before the latents (4 L numbers in the paper), ELU instead of ReLU, and small
    initial deviations: on true regions of random colours the paper's encoders do not learn colours
    (`analysis/LOG.md`).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        widths, self.patch = [4 * c.patch**2, *[c.features] * c.blocks], c.patch
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList([ExpertConv(c.experts, a, b, stride=2) for a, b in pairs])
        pixels = (c.size // c.patch // 2**c.blocks) ** 2
        self.register_buffer("grid", pixel_axes(c.size), persistent=False)
        self.hidden = ExpertLinear(c.experts, pixels * c.features, c.hidden)
        self.out = ExpertLinear(c.experts, c.hidden, 2 * c.latents)

    def forward(self, images: Tensor, region: Tensor, cat: Tensor | None) -> tuple[Tensor, Tensor]:
        """(N, C, S, S), (N, S, S), experts -> two (N, L)."""
        region = region.unsqueeze(1)
        centre = (region * self.grid).sum((-2, -1)) / region.sum((-2, -1)).clamp(min=1)
        seen = torch.cat([images * region, region], 1)
        window = (self.grid + centre[..., None, None]).movedim(1, -1)
        x = F.pixel_unshuffle(F.grid_sample(seen, window, align_corners=False), self.patch)
        for block in self.blocks:
            x = F.elu(block(x, cat))
        x = F.elu(self.hidden(x.flatten(1), cat))
        loc, raw = self.out(x, cat).chunk(2, -1)
        loc = loc + F.pad(centre / SPAN, (0, loc.shape[1] - 2))
        return loc, positive(raw + NARROW)


class Attention(nn.Module):
    """a_k: MONet's U-Net (C.2.2) embeds pixels; attention goes to pixels similar to the seed.

        logit a_k(p) = reach_k - |φ_k(p) - φ_k(u)|²,    φ_k = (place, colour, U-Net_k(x, log s))

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
        self.out = ExpertConv(number, c.attention[0], (EMBEDDING - SEEN) * c.patch**2, 1)
        self.out.weight.data.mul_(FAINT)
        self.reach = nn.Parameter(torch.full((number, 1), REACH))
        self.register_buffer("grid", pixel_axes(c.size), persistent=False)

    def near(self, embedding: Tensor, seed: Tensor, cat: Tensor | None) -> Tensor:
        """Logits of what is attended to (N, S, S), from (N, E, S, S), (N,) and experts."""
        at = embedding.flatten(2).gather(2, seed[:, None, None].expand(-1, EMBEDDING, 1))
        distance = (embedding - at.unsqueeze(-1)).square().sum(1)
        experts = len(self.reach)
        each = (
            self.reach.repeat_interleave(len(seed) // experts, 0)
            if cat is None
            else cat @ self.reach
        )
        return each.unsqueeze(-1) - distance

    def forward(self, images: Tensor, scope: Tensor, cat: Tensor | None) -> Tensor:
        """(N, C, S, S), (N, S, S), experts -> (N, E, S, S)."""
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
        return torch.cat([seen, learned], 1)
