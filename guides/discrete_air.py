"""Guide of Discrete-AIR: each step explains one object that the canvas still lacks (section 2.2).

    h_t                                 = LSTM(what is salient in x - C_t-1, z_t-1)
    q(z_pres_t, z_where_t | h_t)
    q(z_cat_t | ST(x, T_st⁻¹))          by matching: softmax over k of β times the best log-likelihood, over
                                        angles ω, of the window under template k turned by ω
    q(z_theta_t, z_attr_t | ST(x, T⁻¹)) T at the best angle of z_cat_t, from which z_theta_t differs little

# differs: in the paper an embedding of the whole difference goes into the LSTM, which gives place, angle
and shears, and an encoder reads the category from ST(x, T⁻¹); it trains for 420,000 steps. Here the LSTM
reads the salient place (a spatial softmax, Finn et al., 2016) and starts from it, and the guide tries
angles: while templates are round, angles have no gradient, and without angles all templates stay round
(`analysis/LOG.md`).

# differs: matching has no gradient: q(z_cat) learns through the templates alone, as in a step of EM, and no
estimator, not even `enumerate`, is unbiased for the parameters that draw templates. The part left out, on
Multi-Sprites, is .40 of the norm of `template.weight`'s gradient and .03 to .25 of the decoder layers' at
the first step, and 1e-5 of the whole gradient with the weights of the shipped run.

Shape legend as in `programs.discrete_air`; Ω angles to try.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.config import given
from programs.blocks.distributions import gate, normal, positive
from programs.blocks.nets import RecurrentCell, groups, mlp, where_present
from programs.discrete_air import Object, Program

START = 3.0
"""Logit of one more object before training, high so that templates learn before presence collapses."""
SHARPNESS = 0.3
"""β, the factor of log-likelihoods in q(z_cat). It is below 1 because the place is not exact; recipes raise
it from almost 0, so that all templates learn before any is preferred (deterministic annealing)."""


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the objects of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: decoder and prior belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.embed = nn.Sequential(nn.AvgPool2d(c.pool), strided(c.colours, c.embedding))
        self.salience = nn.Conv2d(c.embedding[-1] + 2, 1, 1, bias=False)
        self.inputs = 1 + 4 + c.theta + c.categories + c.attributes
        self.cell = RecurrentCell(2 * c.embedding[-1] + 2, self.inputs, c.memory)
        self.where_head = mlp(c.memory, [c.hidden], 1 + 2 * 4)
        shares = (torch.arange(c.angles) + 0.5) / c.angles
        self.register_buffer("angles", dist.Normal(0, program.theta_sd[0]).icdf(shares))
        self.register_buffer("sharpness", torch.tensor(SHARPNESS))
        self.read = strided(c.colours, c.encoder)
        pixels = c.encoder[-1] * (c.window // 2 ** len(c.encoder)) ** 2
        self.fine_head = mlp(pixels, [c.hidden], 2 * (c.theta + c.attributes))

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        state, exists = self.cell.start(len(images)), images.new_ones(len(images))
        last, lacking = images.new_zeros(len(images), self.inputs), images
        templates = self.turned_templates()
        with pyro.plate("batch", len(images), dim=-1):
            for t in range(1, self.config.steps + 1):
                seen, place = self.look(lacking)
                state = self.cell(self.cell.look(seen), last, state)
                step = self.step(t, exists, images, state[0], place, templates)
                exists = step.exists
                if t < self.config.steps:
                    lacking = lacking - self.program.draw(step)[1]
                last = torch.cat([exists.unsqueeze(-1), *step[1:]], -1)

    def look(self, difference: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2 F + 2) of the salient place and of the whole, and the place (B, 2)."""
        features = self.embed(difference)
        side = features.shape[-1]
        axis = (2 * torch.arange(side, device=features.device) + 1) / side - 1
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
        everywhere = torch.cat([features, grid.expand(len(features), -1, -1, -1)], 1)
        share = self.salience(everywhere).flatten(1).softmax(-1)
        salient = (everywhere.flatten(2) * share.unsqueeze(1)).sum(-1)
        return torch.cat([salient, features.mean((-2, -1))], -1), salient[:, -2:]

    def step(
        self,
        t: int,
        exists: Tensor,
        images: Tensor,
        memory: Tensor,
        place: Tensor,
        templates: Tensor,
    ) -> Object:
        """q of one step: whether there is one more object, its place, category and attributes."""
        c = self.config
        go_on, loc, raw = self.where_head(memory).split([1, 4, 4], -1)
        go_on, loc = go_on + START, loc + F.pad(place, (2, 0))
        with gate(exists):
            pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(logits=go_on.squeeze(-1)))
        with gate(exists * pres):
            q = normal(loc, self.program.where_sd * positive(raw - 2))
            where = pyro.sample(f"z_where_{t}", q)
            fits = self.match(images, where, templates)
            logits = self.sharpness * fits.amax(-1)
            cat = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=logits))
            angle = (cat * self.angles[fits.argmax(-1)]).sum(-1, keepdim=True)
            turn = F.pad(angle, (0, c.theta - 1))
            windows = self.window(images, where, turn)
            fine = where_present(exists * pres, self.fine, windows)
            loc, raw, attr, attr_raw = fine.split([c.theta] * 2 + [c.attributes] * 2, -1)
            sd = self.program.theta_sd
            theta = pyro.sample(
                f"z_theta_{t}", normal(turn + 0.1 * sd * loc, sd * positive(raw - 3))
            )
            if c.attributes:
                attr = pyro.sample(f"z_attr_{t}", normal(attr, positive(attr_raw)))
        return Object(exists * pres, where, theta, cat, attr)

    def fine(self, windows: Tensor) -> Tensor:
        """Features of a window (..., C, h, w) for attributes and for the remainder of the angle."""
        return self.fine_head(self.read(windows).flatten(1))

    @torch.no_grad()
    def turned_templates(self) -> Tensor:
        """(K, Ω, C, h, w) every category's mean object at every angle."""
        c, number = self.config, self.config.categories
        cat = torch.eye(number, device=self.angles.device)
        patches = self.program.decode(cat, cat.new_zeros(number, c.attributes))
        theta = F.pad(self.angles.unsqueeze(-1), (0, c.theta - 1))
        turns = self.program.pose(cat.new_zeros(c.angles, 4), theta) / c.scale
        pairs = patches.unsqueeze(1).expand(-1, c.angles, -1, -1, -1)
        return render.place(pairs, turns.expand(number, -1, -1, -1), c.window)

    @torch.no_grad()
    def match(self, images: Tensor, where: Tensor, templates: Tensor) -> Tensor:
        """(B, K, Ω) log-likelihood of the upright window under each template, up to a constant, in nats."""
        upright = where.new_zeros(len(where), self.config.theta)
        seen = self.window(images, where, upright).flatten(1)
        expected = templates.flatten(2)
        squares = expected.square().sum(-1) - 2 * torch.einsum("bp,kap->bka", seen, expected)
        (a, b), (c, d) = (
            row.unbind(-1) for row in self.program.pose(where, upright)[..., :2].unbind(-2)
        )
        area = (a * d - b * c).abs() * (self.config.size / self.config.window) ** 2
        return -0.5 * area[:, None, None] * squares / self.program.sigma**2

    def window(self, images: Tensor, where: Tensor, theta: Tensor) -> Tensor:
        """(B, C, h, w) the window that the inverse of T cuts out."""
        pose = self.program.pose(where, theta)[:, None, None]
        return render.crop(images.unsqueeze(1), pose, self.config.window)[:, 0, 0]


def strided(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions of 5 x 5 with stride 2 (C.1)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 5, 2, padding=2), nn.GroupNorm(groups(width), width)]
        layers.append(nn.CELU())
        channels = width
    return nn.Sequential(*layers)
