"""Guide of Discrete-AIR: each step explains one object that the canvas still lacks (section 2.2).

    h_t                                 = LSTM(what is salient in x - C_t-1, z_t-1)
    q(z_pres_t, z_where_t | h_t)
    q(z_cat_t | ST(x, T_st⁻¹))          by matching: softmax over k of β times the best log-likelihood, over
                                        angles and shears, of the window under template k so transformed
    q(z_theta_t, z_attr_t | ST(x, T⁻¹)) T at the best angle and shear of z_cat_t, from which z_theta_t
                                        differs little

# differs: in the paper an embedding of the whole difference goes into the LSTM, which gives place, angle
and shears, and an encoder reads the category from ST(x, T⁻¹); it trains for 420,000 steps. Here the LSTM
reads the salient place (a spatial softmax, Finn et al., 2016) and starts from it, and the guide tries
angles: while templates are round, angles have no gradient, and without angles all templates stay round
(`analysis/LOG.md`).

# differs: the difference image is embedded by convolutions of stride 2; the paper has max-pooling for sprites,
and for digits no embedding (C.1).

# differs: `proposals`. What the canvas lacks is compared with the templates everywhere. How much a template
or a dimmer one would explain at a place, in nats, is added to the logits of the spatial softmax, and the LSTM
reads how much it is where the guide looks.

# differs: `shifts`, `aspects`. Windows around the place that the LSTM says are matched too, then several
aspects of the best one; the mean of q(z_where) is the best place and aspect. Else two categories may become
one shape at two offsets. `blur`: windows and templates are blurred before they are matched.

# differs: `balance`. A category's price, 0 at first, rises while it is taken by more than 1 / K of the
objects, and falls while it is taken by fewer; it is subtracted from the category's logit.

# differs: matching has no gradient: q(z_cat) learns through the templates alone, as in a step of EM, and no
estimator, not even `enumerate`, is unbiased for the parameters that draw templates. The part left out, on
Multi-Sprites, is .40 of the norm of `template.weight`'s gradient and .03 to .25 of the decoder layers' at
the first step, and 1e-5 of the whole gradient with the weights of the shipped run.

Shape legend as in `programs.discrete_air`; Ω angles and shears to try, E aspects to try.
"""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from pyro.ops.provenance import detach_provenance
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import matching, render
from programs.blocks.config import given
from programs.blocks.distributions import gate, normal, positive
from programs.blocks.nets import RecurrentCell, groups, mlp, where_present
from programs.discrete_air import Object, Program

START = 3.0
"""Logit of one more object before training, high so that templates learn before presence collapses."""
SHARPNESS = 0.3
"""β, the factor of log-likelihoods in q(z_cat). It is below 1 because the place is not exact; recipes raise
it from almost 0, so that all templates learn before any is preferred (deterministic annealing)."""
SOUGHT = 12
"""Most transformations per category with which templates are sought everywhere."""
SHIFT = 1 / 8
"""Distance of the shifts that are tried, in half sides of the window."""
STEP = 2.4
"""Steps of the grid of what is tried, in standard deviations times their number, about its middle."""
GAIN = 10.0
"""Nats around which the LSTM reads the gain at a place linearly; it reads larger ones as logarithms."""


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
        looked = 2 * c.embedding[-1] + 2 + (c.proposals > 0)
        self.cell = RecurrentCell(looked, self.inputs, c.memory)
        self.where_head = mlp(c.memory, [c.hidden], 1 + 2 * 4)
        self.register_buffer("angles", matching.tried(c.angles, c.theta_sd[0]))
        self.register_buffer("sharpness", torch.tensor(SHARPNESS))
        self.register_tries()
        self.read = strided(c.colours, c.encoder)
        pixels = c.encoder[-1] * (c.window // 2 ** len(c.encoder)) ** 2
        self.fine_head = mlp(pixels, [c.hidden], 2 * (c.theta + c.attributes))

    def register_tries(self) -> None:
        """Buffers of the transformations to try, and of the prices."""
        c = self.config
        shears = matching.tried(c.shears, c.theta_sd[1]) if c.shear else torch.zeros(1)
        tries = torch.cartesian_prod(self.angles, shears)
        self.register_buffer("tries", F.pad(tries, (0, 1))[:, : c.theta], persistent=False)
        aspects = matching.tried(c.aspects, c.where_sd[1])
        self.register_buffer("aspects", aspects, persistent=False)
        line = SHIFT * (torch.arange(c.shifts) - c.shifts // 2)
        self.register_buffer("shifts", torch.cartesian_prod(line, line), persistent=False)
        # z_theta's mean is at most about half a step of the grid away from what was tried
        fineness = [min(1.0, STEP / number) for number in (c.angles, c.shears, 1)]
        self.register_buffer("fineness", torch.tensor(fineness[: c.theta]), persistent=False)
        self.register_buffer("price", torch.zeros(c.categories), persistent=c.balance > 0)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]."""
        images = given(images)
        state, exists = self.cell.start(len(images)), images.new_ones(len(images))
        last, lacking = images.new_zeros(len(images), self.inputs), images
        templates, taken = self.transformed_templates(), []
        sought = self.sought()
        with pyro.plate("batch", len(images), dim=-1):
            for t in range(1, self.config.steps + 1):
                seen, place = self.look(lacking, sought)
                state = self.cell(self.cell.look(seen), last, state)
                step = self.step(t, exists, images, state[0], place, templates)
                exists = step.exists
                if t < self.config.steps:
                    lacking = lacking - self.program.draw(step)[1]
                last = torch.cat([exists.unsqueeze(-1), *step[1:]], -1)
                taken.append(step.cat * exists.unsqueeze(-1))
        if self.training and self.config.balance:
            self.charge(detach_provenance(torch.stack(taken)))

    @torch.no_grad()
    def charge(self, taken: Tensor) -> None:
        """Update the prices by the categories (T, B, K) of all objects, 0 where there is none."""
        number = taken.sum((0, 1))
        share = number / number.sum().clamp(min=1)
        present = (number.sum() > 0).float()
        self.price += self.config.balance * present * (share - 1 / self.config.categories)

    def look(self, difference: Tensor, sought: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features (B, 2 F + 2 or 3) of the salient place and of the whole, and the place (B, 2)."""
        features = self.embed(difference)
        everywhere = torch.cat([features, grid_of(features)], 1)
        logits = self.salience(everywhere)
        if sought is None:
            salient = over(everywhere, logits.flatten(1).softmax(-1))
            return torch.cat([salient, features.mean((-2, -1))], -1), salient[:, -2:]
        gain = self.gain(difference, sought)
        finely = F.interpolate(logits, gain.shape[-1], mode="bilinear")
        share = (finely + self.config.proposals * gain).flatten(1).softmax(-1)
        found = over(torch.cat([gain, grid_of(gain)], 1), share)
        best, place = (found[:, :1] / GAIN).asinh(), found[:, 1:]
        coarse = F.adaptive_avg_pool2d(share.view_as(gain), features.shape[-1]).flatten(1)
        salient = over(features, coarse / coarse.sum(-1, keepdim=True))
        return torch.cat([salient, place, features.mean((-2, -1)), best], -1), place

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
            loc = loc + self.correction(images, loc, templates)
            q = normal(loc, self.program.where_sd * positive(raw - 2))
            where = pyro.sample(f"z_where_{t}", q)
            fits = self.match(images, where, templates[c.aspects // 2])
            cat = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=self.says(fits.amax(-1))))
            turn = (cat.unsqueeze(-1) * self.tries[fits.argmax(-1)]).sum(-2)
            windows = self.window(images, where, turn)
            fine = where_present(exists * pres, self.fine, windows)
            loc, raw, attr, attr_raw = fine.split([c.theta] * 2 + [c.attributes] * 2, -1)
            sd = self.program.theta_sd
            loc = turn + self.fineness * sd * loc
            theta = pyro.sample(f"z_theta_{t}", normal(loc, sd * positive(raw - 3)))
            if c.attributes:
                attr = pyro.sample(f"z_attr_{t}", normal(attr, positive(attr_raw)))
        return Object(exists * pres, where, theta, cat, attr)

    def fine(self, windows: Tensor) -> Tensor:
        """Features of a window (..., C, h, w) for attributes and for the remainder of angle and shears."""
        return self.fine_head(self.read(windows).flatten(1))

    def says(self, best: Tensor) -> Tensor:
        """(B, K) logits of categories by their best matches (B, K) in nats."""
        return self.sharpness * best - self.price

    @torch.no_grad()
    def transformed_templates(self) -> Tensor:
        """(E, K, Ω, C, h, w) every category's mean object under all that is tried, blurred."""
        c, number, tries = self.config, len(self.aspects), len(self.tries)
        patches = self.mean_objects().expand(number, -1, tries, -1, -1, -1)
        where = F.pad(self.aspects[:, None], (1, 2))[:, None, None].expand(
            -1, c.categories, tries, -1
        )
        theta = self.tries.expand(number, c.categories, -1, -1)
        placed = render.place(patches, self.program.pose(where, theta) / c.scale, c.window)
        return matching.blurred(placed, c.blur)

    def mean_objects(self) -> Tensor:
        """(K, 1, C, h, w) every category's object with attributes 0."""
        cat = torch.eye(self.config.categories, device=self.angles.device)
        attr = cat.new_zeros(len(cat), self.config.attributes)
        return self.program.decode(cat, attr).unsqueeze(1)

    @torch.no_grad()
    def sought(self) -> Tensor | None:
        """(N, C, h, h) mean objects under some of what is tried, in pixels of the embedded images; or None."""
        c, tries = self.config, self.tries[:: math.ceil(len(self.tries) / SOUGHT)]
        if not c.proposals:
            return None
        half = c.scale * c.size / 2 / c.pool  # pixels, of a window's side
        side = 2 * math.ceil(half) + 1
        patches = self.mean_objects().expand(-1, len(tries), -1, -1, -1)
        theta = tries.expand(c.categories, -1, -1)
        pose = self.program.pose(theta.new_zeros(*theta.shape[:-1], 4), theta)
        return render.place(patches, pose * (2 * half / side / c.scale), side).flatten(0, 1)

    @torch.no_grad()
    def gain(self, difference: Tensor, sought: Tensor) -> Tensor:
        """(B, 1, S, S) nats that the best of the templates, or a dimmer one, would explain at a place."""
        area = self.config.pool**2 / self.program.sigma**2
        return area * matching.gains(F.avg_pool2d(difference, self.config.pool), sought)

    @torch.no_grad()
    def correction(self, images: Tensor, where: Tensor, templates: Tensor) -> Tensor:
        """(B, 4) what to add to places (B, 4) so that templates fit best: x and y first, then the aspect."""
        found, middle = torch.zeros_like(where), templates[len(self.aspects) // 2]
        if len(self.shifts) > 1:
            half = self.program.pose(where, where.new_zeros(len(where), self.config.theta))
            half = half[..., :2].diagonal(dim1=-2, dim2=-1)
            moves = F.pad(half.unsqueeze(1) * self.shifts, (2, 0))  # (B, S, 4)
            moved = (where.unsqueeze(1) + moves).flatten(0, 1)
            many = images.repeat_interleave(len(self.shifts), 0)
            fits = self.match(many, moved, middle).amax(-1)
            found = found + self.best(fits.unflatten(0, moves.shape[:2]), moves)
        if len(self.aspects) > 1:
            fits = self.match(images, where + found, templates).amax(-1)
            stretched = F.pad(self.aspects[:, None], (1, 2)).expand(len(images), -1, -1)
            found = found + self.best(fits, stretched)
        return found

    def best(self, fits: Tensor, values: Tensor) -> Tensor:
        """(B, D) the values (B, N, D) of the best fits (B, N, K), a mean over categories."""
        best, which = fits.max(1)
        chosen = values.gather(1, which.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        return (self.says(best).softmax(-1).unsqueeze(-1) * chosen).sum(1)

    @torch.no_grad()
    def match(self, images: Tensor, where: Tensor, templates: Tensor) -> Tensor:
        """(B, ...) log-likelihood of the upright window under templates (..., C, h, w), up to a constant, in
        nats."""
        upright = where.new_zeros(len(where), self.config.theta)
        seen = matching.blurred(self.window(images, where, upright), self.config.blur)
        fits = matching.log_likelihoods(seen, templates)
        (a, b), (c, d) = (
            row.unbind(-1) for row in self.program.pose(where, upright)[..., :2].unbind(-2)
        )
        area = (a * d - b * c).abs() * (self.config.size / self.config.window) ** 2
        return area.view(-1, *[1] * (fits.ndim - 1)) * fits / self.program.sigma**2

    def window(self, images: Tensor, where: Tensor, theta: Tensor) -> Tensor:
        """(B, C, h, w) the window that the inverse of T cuts out."""
        pose = self.program.pose(where, theta)[:, None, None]
        return render.crop(images.unsqueeze(1), pose, self.config.window)[:, 0, 0]


def grid_of(features: Tensor) -> Tensor:
    """(B, 2, S, S) x and y of the cells of square features (B, F, S, S), in the image frame."""
    grid = render.pixel_axes(features.shape[-1], features.device)
    return grid.expand(len(features), -1, -1, -1)


def over(features: Tensor, share: Tensor) -> Tensor:
    """(B, F) mean of features (B, F, S, S) under shares (B, S²)."""
    return (features.flatten(2) * share.unsqueeze(1)).sum(-1)


def strided(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions of 5 x 5 with stride 2 (C.1)."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 5, 2, padding=2), nn.GroupNorm(groups(width), width)]
        layers.append(nn.CELU())
        channels = width
    return nn.Sequential(*layers)
