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

# differs: `sought`, `together`. What the canvas lacks is compared everywhere with templates of these sizes. Of
the best places of each category and size, the guide takes the set of at most `together` that explain most
(`matching.together`). The LSTM starts from the place and size of the one that explains most by itself, and
reads how much that is. A single template often takes two sprites that touch for one large ellipse; but two
templates explain a digit better than one, so digits are sought one by one.

# differs: `shifts`, `aspects`. Windows around the place that the LSTM says are matched too, then several
aspects of the best one; the mean of q(z_where) is the best place and aspect. Else two categories may become
one shape at two offsets.

# differs: the match of a category sums z_attr out, as factor analysis does, where its object is linear in
z_attr about 0. Else one category takes the thick digits of two, and another the thin ones.

# differs: `sort`, which the recipes for digits call during a training: EM with splits and merges on
what each object adds to the images (`programs.blocks.templates`). Of gradients alone two templates become one
digit, and one becomes two, in two of three trainings.

# differs: `weighed`. q(z_pres) also reads the nats that the best template explains of what the canvas lacks, at
the corrected place. The LSTM knows them at the place and sizes that were sought only, and leaves out thin and
small digits.

# differs: `second_look`. The window at the first mean of q(z_where) corrects it, and q(z_where) has a full
covariance and a second, wider part: a place that is far off once in a while would make all others wide.

# differs: matching has no gradient: q(z_cat) learns through the templates alone, as in a step of EM, and no
estimator, not even `enumerate`, is unbiased for the parameters that draw templates. The part left out, on
Multi-Sprites, is .40 of the norm of `template.weight`'s gradient and .03 to .25 of the decoder layers' at
the first step, and 1e-5 of the whole gradient with the weights of the shipped run.

Shape legend as in `programs.discrete_air`; Ω angles and shears to try, E aspects to try.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks import matching, render
from programs.blocks.config import given
from programs.blocks.distributions import doubtful, gate, normal, pairs, positive
from programs.blocks.nets import RecurrentCell, mlp, silent, strided, where_present
from programs.blocks.templates import FEW, Pictures, Template, better, imitate
from programs.discrete_air import Object, Program

START = 3.0
"""Logit of one more object before training, high so that templates learn before presence collapses."""
SHARPNESS = 0.3
"""β, the factor of log-likelihoods in q(z_cat). It is below 1 because the place is not exact; recipes raise
it from almost 0, so that all templates learn before any is preferred (deterministic annealing)."""
RARE = -4.0
"""Logit of the wider part of q(z_where) before training."""
TURNS = 12
"""Most transformations per category and size with which templates are sought everywhere."""
PLACES = 3
"""Places per category and size among which the best set is chosen."""
SHIFT = 1 / 8
"""Distance of the shifts that are tried, in half sides of the window."""
SORTED = 1500
"""Most objects by which templates are sorted."""
SORTED_AT_ONCE = 250
"""Images whose objects are inferred at once for it."""
WEIGHED = 16
"""Units of the layer that reads how many nats the best template explains."""
STEP = 2.4
"""Steps of the grid of what is tried, in standard deviations times their number, about its middle."""
GAIN = 10.0
"""Nats around which networks read linearly how much is explained; they read larger ones as logarithms."""


class Templates(NamedTuple):
    """Every category's object under all that is tried."""

    mean: Tensor
    """(E, K, Ω, C, h, w)"""
    ways: Tensor | None
    """(K, Ω, A, C, h, w) how it varies with z_attr, at the middle aspect; None without attributes"""

    @property
    def middle(self) -> Tensor:
        """(K, Ω, C, h, w) at the middle aspect."""
        return self.mean[len(self.mean) // 2]


class Guide(PyroModule):
    """The amortized posterior; ``Guide(program)(images)`` draws the objects of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: decoder and prior belong to the program
        object.__setattr__(self, "program", program)
        self.config = c = program.config
        self.embed = nn.Sequential(nn.AvgPool2d(c.pool), strided(c.colours, c.embedding))
        self.salience = None if c.sought else nn.Conv2d(c.embedding[-1] + 2, 1, 1, bias=False)
        self.inputs = 1 + 4 + c.theta + c.categories + c.attributes
        looked = 2 * c.embedding[-1] + 2 + 2 * bool(c.sought)
        self.cell = RecurrentCell(looked, self.inputs, c.memory)
        self.where_head = mlp(c.memory, [c.hidden], 1 + 2 * 4)
        if c.weighed:
            self.pres_head = silent(mlp(1, [WEIGHED], 1))
        self.register_buffer("angles", matching.tried(c.angles, c.theta_sd[0]))
        self.register_buffer("sharpness", torch.tensor(SHARPNESS))
        self.register_tries()
        self.read = strided(c.colours, c.encoder)
        pixels = c.encoder[-1] * (c.window // 2 ** len(c.encoder)) ** 2
        if c.second_look:
            self.look_read = strided(c.colours, c.encoder)
            self.look_head = silent(mlp(pixels, [c.hidden], 2 * 4 + pairs(4) + 1))
        self.fine_head = mlp(pixels, [c.hidden], 2 * (c.theta + c.attributes))

    def register_tries(self) -> None:
        """Buffers of the transformations to try."""
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

    def forward(self, images: Tensor, batch: int = 1) -> list[Object]:
        """Sample every latent of the program given `images` (B, C, H, W) in [0, 1]; the objects by step."""
        images = given(images)
        state, exists = self.cell.start(len(images)), images.new_ones(len(images))
        last, lacking = images.new_zeros(len(images), self.inputs), images
        templates = self.templates()
        objects: list[Object] = []
        sought = self.sought() if self.config.sought else None
        with pyro.plate("batch", len(images), dim=-1):
            for t in range(1, self.config.steps + 1):
                seen, place = self.look(lacking, sought, self.config.steps + 1 - t)
                state = self.cell(self.cell.look(seen), last, state)
                step = self.step(t, exists, images, lacking, state[0], place, templates)
                objects.append(step)
                exists = step.exists
                if t < self.config.steps:
                    lacking = lacking - self.program.draw(step)[1]
                last = torch.cat([exists.unsqueeze(-1), *step[1:]], -1)
        return objects

    def look(self, lacking: Tensor, sought: Tensor | None, left: int) -> tuple[Tensor, Tensor]:
        """What the LSTM reads of what the canvas lacks, and z_where (B, 4) there; `left` steps remain."""
        if sought is None:
            return self.salient(lacking)
        return self.promising(lacking, sought, left)

    def salient(self, lacking: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2 F + 2) of the salient place and of the whole, and z_where (B, 4) there."""
        features = self.embed(lacking)
        grid = render.pixel_axes(features.shape[-1], features.device)
        everywhere = torch.cat([features, grid.expand(len(features), -1, -1, -1)], 1)
        share = self.salience(everywhere).flatten(1).softmax(-1)
        here = (everywhere.flatten(2) * share.unsqueeze(1)).sum(-1)
        return torch.cat([here, features.mean((-2, -1))], -1), F.pad(here[:, -2:], (2, 0))

    def promising(self, lacking: Tensor, sought: Tensor, left: int) -> tuple[Tensor, Tensor]:
        """Features (B, 2 F + 4) of the best place for one of the `left` objects, and z_where (B, 4) there."""
        where, gain = self.best_place(lacking, sought, min(left, self.config.together))
        features = self.embed(lacking)
        at = where[:, None, None, 2:]
        here = F.grid_sample(features, at, padding_mode="border", align_corners=False).flatten(1)
        known = torch.cat([where[:, :1], where[:, 2:], (gain / GAIN).asinh().unsqueeze(-1)], -1)
        return torch.cat([here, features.mean((-2, -1)), known], -1), where

    @torch.no_grad()
    def best_place(self, lacking: Tensor, sought: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """z_where (B, 4) of a template, and the nats (B) that it explains by itself; 0 where none does.

        Of the at most `most` templates that explain most together, it is the one that does so by itself.
        """
        c, pixels = self.config, F.avg_pool2d(lacking, self.config.pool)
        found = matching.peaks(pixels, sought, PLACES)
        pictures = found.pictures.flatten(2)
        members = matching.together(found.explained, pictures @ pictures.mT, most)
        gain, which = F.pad(found.explained, (0, 1)).gather(1, members).max(1)
        side = pixels.shape[-1]
        sizes = pixels.new_tensor(c.sought).repeat(c.categories).repeat_interleave(PLACES)
        x, y = ((2 * i + 1) / side - 1 for i in (found.place % side, found.place // side))
        where = torch.stack([sizes.expand_as(x), torch.zeros_like(x), x, y], -1)
        best = members.gather(1, which[:, None]).unsqueeze(-1).expand(-1, -1, 4)
        where = F.pad(where, (0, 0, 0, 1)).gather(1, best).squeeze(1)
        return where * (gain > 0).unsqueeze(-1), gain * c.pool**2 / self.program.sigma**2

    @torch.no_grad()
    def sought(self) -> Tensor:
        """(G, N, C, h, h) mean objects at every size that is sought, in pixels of the embedded images."""
        c, tries = self.config, self.tries[:: math.ceil(len(self.tries) / TURNS)]
        half = c.scale * math.exp(max(c.sought)) * c.size / 2 / c.pool  # pixels, of a window's side
        side = 2 * math.ceil(half) + 1
        where = F.pad(tries.new_tensor(c.sought)[:, None], (0, 3))[:, None].expand(
            -1, len(tries), -1
        )
        pose = self.program.pose(where, tries.expand(len(where), -1, -1))
        pose = pose * c.size / c.pool / side
        patches = self.mean_objects()[:, None].expand(-1, *pose.shape[:2], -1, -1, -1)
        placed = render.place(patches, pose.expand(len(patches), -1, -1, -1, -1), side)
        return placed.flatten(0, 1)

    def step(
        self,
        t: int,
        exists: Tensor,
        images: Tensor,
        lacking: Tensor,
        memory: Tensor,
        place: Tensor,
        templates: Templates,
    ) -> Object:
        """q of one step: whether there is one more object, its place, category and attributes."""
        c = self.config
        go_on, loc, raw = self.where_head(memory).split([1, 4, 4], -1)
        go_on, loc = go_on + START, loc + place
        loc = loc + self.correction(images, loc, templates)
        if c.weighed:
            gain = self.explained(lacking, loc, templates)
            go_on = go_on + self.pres_head((gain / GAIN).asinh().unsqueeze(-1))
        with gate(exists):
            pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(logits=go_on.squeeze(-1)))
        with gate(exists * pres):
            where = pyro.sample(f"z_where_{t}", self.q_where(images, loc, raw - 2))
            fits = self.match(images, where, templates.middle, templates.ways)
            cat = pyro.sample(
                f"z_cat_{t}", dist.OneHotCategorical(logits=self.sharpness * fits.amax(-1))
            )
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

    def explained(self, lacking: Tensor, where: Tensor, templates: Templates) -> Tensor:
        """(B) nats that the best template at z_where (B, 4) explains of what the canvas lacks (B, C, H, W)."""
        return self.match(lacking, where, templates.middle, templates.ways).flatten(1).amax(-1)

    def q_where(self, images: Tensor, loc: Tensor, raw: Tensor) -> dist.TorchDistribution:
        """q(z_where) from its first mean and raw deviations (B, 4)."""
        sd = self.program.where_sd
        if not self.config.second_look:
            return normal(loc, sd * positive(raw))
        upright = loc.new_zeros(len(loc), self.config.theta)
        seen = self.look_read(self.window(images, loc.detach(), upright)).flatten(1)
        shift, wider, lean, doubt = self.look_head(seen).split([4, 4, pairs(4), 1], -1)
        rare = doubt.squeeze(-1) + RARE
        return doubtful(loc + sd * shift, sd * positive(raw + wider), lean, rare)

    def fine(self, windows: Tensor) -> Tensor:
        """Features of a window (..., C, h, w) for attributes and for the remainder of angle and shears."""
        return self.fine_head(self.read(windows).flatten(1))

    def templates(self) -> Templates:
        """Every category's object as the program draws it now."""
        return Templates(self.transformed_templates(), self.transformed_variations())

    @torch.no_grad()
    def transformed_templates(self) -> Tensor:
        """(E, K, Ω, C, h, w) every category's mean object under all that is tried."""
        return torch.stack([self.transformed(self.mean_objects(), x) for x in self.aspects])

    @torch.no_grad()
    def transformed_variations(self) -> Tensor | None:
        """(K, Ω, A, C, h, w) how every category's object varies with z_attr, under all that is tried."""
        c = self.config
        if not c.attributes:
            return None
        ways, still = self.variations().transpose(0, 1).unsqueeze(2), self.aspects[c.aspects // 2]
        return matching.variations(torch.stack([self.transformed(x, still) for x in ways], 2))

    def variations(self) -> Tensor:
        """(K, A, C, h, w) how every category's object varies with z_attr about 0."""
        c = self.config
        if not c.attributes:
            return self.mean_objects()[:, :0]
        cat = torch.eye(c.categories, device=self.angles.device).unsqueeze(1)
        step = torch.eye(c.attributes, device=cat.device)
        more, less = (
            self.program.decode(cat.expand(-1, c.attributes, -1), z.expand(c.categories, -1, -1))
            for z in (step, -step)
        )
        return 0.5 * (more - less)

    def transformed(self, patches: Tensor, aspect: Tensor) -> Tensor:
        """(K, Ω, C, h, w) patches (K, 1, C, h, w) under all that is tried, at an aspect."""
        tries = self.tries.expand(len(patches), -1, -1)
        where = F.pad(aspect.view(1, 1, 1), (1, 2)).expand(*tries.shape[:2], -1)
        pose = self.program.pose(where, tries) / self.config.scale
        return render.place(
            patches.expand(-1, tries.shape[1], -1, -1, -1), pose, self.config.window
        )

    def mean_objects(self) -> Tensor:
        """(K, 1, C, h, w) every category's object with attributes 0."""
        cat = torch.eye(self.config.categories, device=self.angles.device)
        attr = cat.new_zeros(len(cat), self.config.attributes)
        return self.program.decode(cat, attr).unsqueeze(1)

    def sort(self, images: Tensor) -> None:
        """Find better templates for what objects add to images (B, C, H, W), and let the decoder draw them.

        It is a move of a recipe, and says in lines what it gains.
        """
        p, found = self.program, [self.alone(x) for x in images.split(SORTED_AT_ONCE)]
        seen, precision = (torch.cat(values) for values in zip(*found, strict=True))
        some = torch.randperm(len(seen), device=seen.device)[:SORTED]
        if len(some) < FEW * self.config.categories:
            print(f"templates: not sorted, as there are only {len(some)} objects")
            return
        pictures = Pictures(seen[some], precision[some], self.maps())
        with torch.no_grad():
            forms = zip(self.mean_objects()[:, 0], self.variations(), strict=True)
            begin = [Template(mean, ways) for mean, ways in forms]
        sorted_ = better(pictures, begin, told=lambda line: print("templates:", line))
        parts = [p.template, p.decoder, *([p.attribute] if p.attribute else [])]
        error = imitate(p.decode, [q for part in parts for q in part.parameters()], sorted_)
        print(f"templates: drawn with a squared error of {error:.3f}")

    @torch.no_grad()
    def alone(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Upright windows (M, C, h, w) of objects in images (B, C, H, W), without the other objects, and the
        precision of their pixels (M)."""
        objects = self(images)
        drawn = [self.program.draw(step)[1] for step in objects]
        lacking, found = images - sum(drawn), []
        for step, own in zip(objects, drawn, strict=True):
            there = step.exists > 0.5
            where, upright = step.where[there], torch.zeros_like(step.theta[there])
            seen = self.window((lacking + own)[there], where, upright)
            found.append((seen, self.precision(where)))
        seen, precision = (torch.cat(values) for values in zip(*found, strict=True))
        return seen, precision

    def maps(self) -> Tensor:
        """(Ω', 2, 3) aspects, shifts by `SHIFT`, angles and shears of an object in its upright window."""
        line, scale = SHIFT * torch.arange(-1.0, 2.0, device=self.angles.device), self.config.scale
        where = F.pad(torch.cartesian_prod(self.aspects, scale * line, scale * line), (1, 0))
        tries = self.tries.expand(len(where), -1, -1)
        pose = self.program.pose(where[:, None].expand(-1, len(self.tries), -1), tries)
        return (pose / scale).flatten(0, 1)

    @torch.no_grad()
    def correction(self, images: Tensor, where: Tensor, templates: Templates) -> Tensor:
        """(B, 4) what to add to places (B, 4) so that templates fit best: x and y first, then the aspect."""
        found = torch.zeros_like(where)
        if len(self.shifts) > 1:
            half = self.program.pose(where, where.new_zeros(len(where), self.config.theta))
            half = half[..., :2].diagonal(dim1=-2, dim2=-1)
            moves = F.pad(half.unsqueeze(1) * self.shifts, (2, 0))  # (B, S, 4)
            moved = (where.unsqueeze(1) + moves).flatten(0, 1)
            many = images.repeat_interleave(len(self.shifts), 0)
            fits = self.match(many, moved, templates.middle).amax(-1)
            found = found + self.best(fits.unflatten(0, moves.shape[:2]), moves)
        if len(self.aspects) > 1:
            fits = self.match(images, where + found, templates.mean).amax(-1)
            stretched = F.pad(self.aspects[:, None], (1, 2)).expand(len(images), -1, -1)
            found = found + self.best(fits, stretched)
        return found

    def best(self, fits: Tensor, values: Tensor) -> Tensor:
        """(B, D) the values (B, N, D) of the best fits (B, N, K), a mean over categories."""
        best, which = fits.max(1)
        chosen = values.gather(1, which.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        return ((self.sharpness * best).softmax(-1).unsqueeze(-1) * chosen).sum(1)

    @torch.no_grad()
    def match(
        self, images: Tensor, where: Tensor, templates: Tensor, ways: Tensor | None = None
    ) -> Tensor:
        """(B, ...) log-likelihood of the upright window under templates (..., C, h, w), up to a constant, in
        nats; with their ways (..., A, C, h, w) to vary, that with z_attr summed out."""
        upright = where.new_zeros(len(where), self.config.theta)
        seen, precision = self.window(images, where, upright), self.precision(where)
        fits = matching.log_likelihoods(seen, templates)
        fits = precision.view(-1, *[1] * (fits.ndim - 1)) * fits
        if ways is None:
            return fits
        return fits + matching.log_likelihoods_beyond(seen, templates, ways, precision)

    def precision(self, where: Tensor) -> Tensor:
        """(B) of a pixel of the window at z_where: its area in pixels of the image, by σ_x²."""
        upright = where.new_zeros(len(where), self.config.theta)
        (a, b), (c, d) = (
            row.unbind(-1) for row in self.program.pose(where, upright)[..., :2].unbind(-2)
        )
        area = (a * d - b * c).abs() * (self.config.size / self.config.window) ** 2
        return area / self.program.sigma**2

    def window(self, images: Tensor, where: Tensor, theta: Tensor) -> Tensor:
        """(B, C, h, w) the window that the inverse of T cuts out."""
        pose = self.program.pose(where, theta)[:, None, None]
        return render.crop(images.unsqueeze(1), pose, self.config.window)[:, 0, 0]
