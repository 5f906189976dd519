"""Guide of ECON: explain a scene from the front to the back by competition of experts (sections 4.2, 5.2).

    for t = T, …, 1 every expert k attends to a part of the scope s_t, encodes and decodes it:
    q_k(m)     = a_k(x, s_t)                                 all of the scope at t = 1
    r̃_k        = s_t ⊙ q_k
    q(z | k)   = N(g_k(x, r̃_k))
    C_k        = λ L_x + L_r                                 of x_k = μ_k(z), m̃_k(z) at the mean of z
    q(k_t)     ∝ exp(-sharpness C_k - price_k)               `z_cat_t`: the winner
    q(z_t)     = q(z | k_t)                                  `z_what_t`
    q(m_t)     = q_k_t                                       `z_mask_t`, in the scope, t > 1         (9)
    s_t-1      = s_t ⊙ (1 - m_t)                                                                    (14)

    L_x        = Σ r̃_k (x - μ_k)² / 2σ²                                                             (10)
    L_r        = Σ s_t KL(q_k ‖ m̃_k)                         0 at t = 1, where m_1 = 1               (12)

That is the variant `econ_plain`. The paper's training is the estimator `mean` for the masks (r̃ for r) and
`competition` for the winners (no gradient passes the choice), with KL weights of β on `z_what*`, γ on
`z_mask*` and 0 on `z_cat*`. That is (13), conditioned on k_1:T: compared with the exact bound, KL(q(k_t) ‖
p(k_t)) and the gradient of q(k_t) are missing. Other estimators differentiate the winners' probabilities,
too. The reported bound is exact.

# differs: a_k is the probability of m_t, and r̃_k = s_t ⊙ a_k, as in MONet; in (9), (10) and (14) a_k is r̃_k
itself. Deviations of z are softplus of the encoder's output, which in the paper is a log-variance.

# differs: m_1 = 1 has no shape to compare, so at t = 1 experts compete by appearance, λ = 1 for every set.

# differs: the paper competes with a sample of z. Deterministic competition is the mode of q(k_t).

# differs: the paper says that step t's terms update the winner of step t. Here they also train the winners in
front of it, through the scope.

What else differs is a field of the program's Config:

# differs: `attend`. With "likeness" the U-Net embeds pixels, and a_k is their likeness to a seed u_t, the
pixel around which most is left unexplained, as in GENESIS-V2 (Engelcke et al., 2021). Before training, pixels
are alike if they are close together and of one colour. Without it, all objects of random colours are one
region, and stay one.

# differs: `compete`. With "ratio" the cost per explained nat decides, as in greedy set cover (Chvátal, 1979),

    C_k        = log(λ L_x + L_r) - log(Σ r̃_k e),     e = (x - μ)² / 2σ² of the one expert that explains x best

An expert that attends to nothing costs nothing, and wins by "cost"; by "ratio" it gains nothing.

# differs: `looks`. With 2, q_k ∝ a_k m̃_k(z')^trust, z' the mean of g_k(x, s_t ⊙ a_k), a first look, as in
GSGN (10). So of two similar objects that touch only one is explained, and the other is left for the next
layer. Experts are compared after `judged` looks. `detached`: no gradient passes m̃_k(z').

# differs: `behind`. The best expert's whole shape may continue under a region that is not explained yet. Then
that region is looked at as well, and the object whose shape is less covered by the other goes first, so that
layers are in the order of depth.

# differs: `balance`. An expert's price, 0 in the paper, rises in training while it wins more than its share
of the layers, 1 / K, and falls while it wins less, by `balance` a step times the difference. So none wins
everything. At t = 1 prices count for nothing: all experts can draw a background, and the one that comes to draw
most of them is kept from objects by its price, so that the others divide the classes among themselves.

# differs: `placed`. Encoders look from the middle of the region, and add an offset to that place.

# differs: `narrow`, `hidden`, `activation`, `pooling`. The paper's encoders do not learn random colours.

# differs: `empty`. A layer is empty if the best expert's region costs more than it gains, λ = 1, against the
explanation of the scope by one expert, that is as background. Spare layers stay empty so.

Shape legend as in `programs.econ`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.ops.provenance import detach_provenance
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from programs.blocks import render
from programs.blocks.config import given
from programs.blocks.distributions import gate, normal
from programs.blocks.experts import ExpertEncoder, ExpertUNet
from programs.econ import SPAN, Config, Pixels, Program

SURE = 20.0
"""Magnitude of the logit of an empty layer, or of one that is not."""


class Rows(NamedTuple):
    """Inputs of the experts, one row per image and expert."""

    images: Tensor
    """(N, C, S, S)"""
    scope: Tensor
    """(N, S, S)"""
    cat: Tensor | None
    """(N, K) one-hot, or None: N / K rows of the first expert, then those of the next"""
    embedding: Tensor | None
    """(N, E, S, S) of the pixels, or None to attend to the whole scope"""


class Verdict(NamedTuple):
    """What every expert would cost, and what the best one would do."""

    cost: Tensor
    """(B, K) C_k"""
    region: Tensor
    """(B, S, S) q_k"""
    shape: Tensor
    """(B, S, S) m̃_k"""
    paid: Tensor
    """(B, S, S) nats: q_k times the squared error over twice the variance, and KL(q_k ‖ m̃_k)"""


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the layers of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the decoders belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.attention = attention(c)
        self.encoder = encoder(c)
        self.register_buffer("sharpness", torch.tensor(c.sharpness))
        self.register_buffer("trust", torch.tensor(c.trust))
        self.register_buffer("price", torch.zeros(c.experts))
        self.register_buffer("balance", torch.tensor(c.balance))
        self.register_buffer("grid", render.pixel_axes(c.size), persistent=False)
        self.compared = c.compete == "ratio" or c.attend == "likeness"

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        scope, pixels = torch.ones_like(images[:, 0]), Pixels(self.config.size)
        winners, rest = [], self.rest(images, scope) if self.compared else scope
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
        seed, cost, there = checkpoint(self.compete, images, scope, rest, last, use_reentrant=False)
        pres = self.present(t, there)
        with nullcontext() if pres is None else gate(pres):
            price = 0.0 if last else self.price
            logits = -self.sharpness * cost[:, None, None] - price
            cat = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=logits))[:, 0, 0]
            embedding = None if last else self.embed(images, scope, cat)
            rows = Rows(images, scope, cat, embedding)
            logits, (loc, scale) = self.explain(rows, seed, self.config.looks)
            pyro.sample(f"z_what_{t}", normal(loc[:, None, None], scale[:, None, None]))
            if last:
                return scope, cat
            mask = pixels.mask(t, scope, logits)
        return scope * (1 - (mask if pres is None else mask * pres)), cat

    def present(self, t: int, there: Tensor) -> Tensor | None:
        """(B, 1, 1) e_t, given whether there is an object (B,); None where the layer cannot be empty."""
        if not self.config.empty or t == 1:
            return None
        logits = SURE * (2 * there.to(self.sharpness.dtype) - 1)
        return pyro.sample(f"z_layer_{t}", dist.Bernoulli(logits=logits[:, None, None]))

    def compete(
        self, images: Tensor, scope: Tensor, rest: Tensor, last: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """u_t (B,), C_k there (B, K), and whether it is an object (B,)."""
        rows, rests = self.for_each_expert(images, scope, last), self.each(rest)
        seed = self.seed(scope * rest)
        first = self.judge(rows, rests, seed)
        if not last and self.config.behind:
            seed, first = self.foremost(rows, rest, seed, first)
        if last or not self.config.empty:
            return seed, first.cost, torch.ones_like(seed, dtype=torch.bool)
        gain = first.region * self.rest(images, scope) - first.paid
        return seed, first.cost, (scope * gain).sum((-2, -1)) > 0

    def foremost(
        self, rows: Rows, rest: Tensor, seed: Tensor, first: Verdict
    ) -> tuple[Tensor, Verdict]:
        """Of the object at the seed and that under which its shape continues, the one in front."""
        scope = rows.scope[: len(seed)]
        # the more it is covered, the less it covers
        left = scope * rest
        other = self.seed(left * first.shape * (1 - first.region))
        second = self.judge(rows, self.each(rest), other)
        under, over = first.shape * second.region, second.shape * first.region
        behind = (left * (under - over)).sum((-2, -1)) > 0
        behind = behind & (second.cost.amin(1) < self.config.worth)
        pairs = zip((other, *second), (seed, *first), strict=True)
        seed, *rest = (torch.where(behind[(..., *[None] * (a.ndim - 1))], a, b) for a, b in pairs)
        return seed, Verdict(*rest)

    @torch.no_grad()
    def seed(self, left: Tensor) -> Tensor:
        """(B,) index, row by row, of the pixel around which most of (B, S, S) lies; crumbs do not count."""
        c = self.config
        sides = round(c.crumb * c.size) | 1, int(c.wide * c.size) | 1
        near, far = (F.avg_pool2d(left.unsqueeze(1), s, 1, s // 2).flatten(1) for s in sides)
        return (near * far).argmax(1)

    def explain(self, rows: Rows, seed: Tensor, looks: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """q_k around a seed (N,): logits (N, S, S), and mean and deviation of z, each (N, L)."""
        if rows.embedding is None:
            return self.look(rows, torch.full_like(rows.scope, torch.inf))
        attended = self.attend(rows, seed)
        first = self.look(rows, attended)
        if looks == 1:
            return first
        _, shape = self.program.decoder(first[1][0], rows.cat)
        if self.config.detached:
            shape = shape.detach()
        return self.look(rows, attended + self.trust * shape)

    def look(self, rows: Rows, logits: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The given logits (N, S, S) of a region, and mean and deviation of z in it, each (N, L)."""
        return logits, self.encoder(rows.images, rows.scope * logits.sigmoid(), rows.cat)

    def embed(self, images: Tensor, scope: Tensor, cat: Tensor | None) -> Tensor:
        """(N, C, S, S), (N, S, S), experts -> (N, E, S, S) what `attend` needs of every pixel."""
        log_scope = scope.clamp(min=1e-3).log().unsqueeze(1)
        learned = self.attention(torch.cat([images, log_scope], 1), cat)
        if self.config.attend == "network":
            return learned
        place = self.config.spread * self.grid.expand(len(images), -1, -1, -1)
        return torch.cat([place, self.config.contrast * images, learned], 1)

    def attend(self, rows: Rows, seed: Tensor) -> Tensor:
        """(N, S, S) logits of a_k."""
        if self.config.attend == "network":
            return rows.embedding[:, 0]
        return self.attention.near(rows.embedding, seed, rows.cat)

    def judge(self, rows: Rows, rest: Tensor, seed: Tensor) -> Verdict:
        """C_k of K rows per image, and what the best expert does, without gradient."""
        c = self.config
        logits, (loc, _) = self.explain(rows, self.each(seed), c.judged)
        errors, shape = self.errors(rows.images, loc, rows.cat)
        region, weight = logits.sigmoid(), c.appearance
        if rows.embedding is None:
            weight, kl = 1.0, torch.zeros_like(region)
        else:  # KL of Bernoullis: the terms in their logits, and the normalisers
            kl = region * (logits - shape) + F.softplus(shape) - F.softplus(logits)
        errors = region * errors
        cost = (rows.scope * (weight * errors + kl)).sum((-2, -1))
        if c.compete == "ratio":
            gain, little = (rows.scope * region * rest).sum((-2, -1)), c.little * c.size**2
            cost = (cost + little).log() - (gain + little).log()
        cost = cost.view(c.experts, -1).T
        best = (best_of(cost, t.detach()) for t in (region, shape.sigmoid(), errors + kl))
        return Verdict(cost, *best)

    @torch.no_grad()
    def rest(self, images: Tensor, scope: Tensor) -> Tensor:
        """(B, S, S) e in nats, of the one expert that explains the scope (B, S, S) best."""
        rows = self.for_each_expert(images, scope, True)
        loc, _ = self.encoder(rows.images, rows.scope, rows.cat)
        errors, _ = self.errors(rows.images, loc, rows.cat)
        cost = (rows.scope * errors).sum((-2, -1))
        return best_of(cost.view(-1, len(images)).T, errors)

    def for_each_expert(self, images: Tensor, scope: Tensor, last: bool) -> Rows:
        """K rows an image: all images for each expert."""
        images, scope = self.each(images), self.each(scope)
        return Rows(images, scope, None, None if last else self.embed(images, scope, None))

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


def attention(c: Config) -> ExpertUNet:
    """The U-Nets: a_k, or with attention by likeness embeddings of pixels."""
    sizes = c.experts, c.size, c.attention, c.context
    if c.attend == "network":
        return ExpertUNet(*sizes, features=1, patch=c.patch)
    return ExpertUNet(*sizes, c.embedding, c.patch, c.faint, c.reach)


def encoder(c: Config) -> ExpertEncoder:
    """g_k (C.2.1)."""
    sizes = c.experts, c.size, c.features, c.blocks, c.hidden or 4 * c.latents, c.latents
    span = SPAN if c.placed else None
    return ExpertEncoder(*sizes, c.patch, span, c.pooling, c.activation, c.narrow)
