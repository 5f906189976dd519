"""A learned prior of maps whose cells are present or absent: each cell given the cells before it.

    p(z) = Π_ij Σ_e p(e_ij | z_<ij) p(z_ij | e_ij, z_<ij)          "<" row by row, within a window around ij
    p(z_ij | e, z_<ij) = Σ_k w_ek N(W_ek (z_ij - μ_ek) | 0, diag σ_ek²)

A network of the window gives w, μ and σ, and p(e) is the sum of the w of its components. W is a unit lower
triangular matrix per component: the channels of a cell depend on each other. Presence e can be summed out, and
given z it is independent for every cell (`Causal.logits`).

As any autoregressive model of pictures, after PixelCNN (van den Oord et al., 2016) with a mixture of Gaussians.
While it is fitted, noise is added to the cells before, but not to the cell itself: a drawn cell is never quite
like an image's, and without the noise errors grow along the rows until colours leave their range. The network
is told how much noise there is (as in the cascades of Ho et al., 2022): none where a map is scored or drawn.

Shape legend: D channels, h x w cells, M = 2 K components, the first K of present cells; N draws. Anything may
stand to the left.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn import functional as F
from tqdm import tqdm

from programs.blocks.priors import ENOUGH, NARROWEST, Learned

LOG_NORMAL = 0.5 * math.log(2 * math.pi)
"""-log N(0 | 0, 1)."""
WIDEST = 3.0
"""Largest ratio between a predicted deviation and the typical one, as a logarithm."""

FAR = 4.0
"""Largest distance of a channel from its mean that the network sees, in deviations."""
BLUR = 0.5
"""Largest deviation of the noise that its fit adds to cells before, in their deviations."""


class LearnedMap(Learned):
    """p(z) of maps (D, h, w), initially independent cells of the paper's two Gaussians.

    Args:
        present, absent: means and deviations of the channels, each two (D,).
        logit: log-odds of presence.
        side: h = w.
        components: K.
        radius: cells of the window above, to the left and to the right.
        features, blocks: width of the network, and its residual blocks.
        passes, batch, rate: of its fit: times that each draw is seen, draws per step, and Adam's rate.
    """

    def __init__(
        self,
        present: Tensor,
        absent: Tensor,
        logit: float,
        side: int,
        components: int,
        radius: int = 6,
        features: int = 192,
        blocks: int = 4,
        passes: int = 8,
        batch: int = 16,
        rate: float = 2e-3,
    ) -> None:
        super().__init__()
        self.paper = present.clone(), absent.clone(), float(logit)
        self.side, self.components, self.radius = side, components, radius
        self.schedule = passes, batch, rate
        channels = present.shape[-1]
        self.first = nn.Conv2d(channels + 4, features, (radius + 1, 2 * radius + 1))
        self.blocks = nn.ModuleList([mlp_of_cells(features) for _ in range(blocks)])
        self.last = nn.Conv2d(features, 2 * components * (1 + 2 * channels), 1)
        self.mix = nn.Parameter(torch.zeros(2 * components, channels, channels))
        for name in ("loc", "sd"):
            self.register_buffer(name, torch.zeros(2, channels))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("unit", torch.ones(channels))
        self.register_buffer("odds", torch.zeros(2))
        seen = torch.ones(1, 1, radius + 1, 2 * radius + 1)
        seen[..., -1, radius:] = 0
        self.register_buffer("seen", seen, persistent=False)
        self.plain()

    def forward(self) -> Causal:
        """The prior, of event (D, h, w)."""
        return Causal(self)

    @torch.no_grad()
    def plain(self) -> None:
        """The paper's Gaussians, whatever the cells before are."""
        present, absent, logit = self.paper
        self.loc.copy_(torch.stack([present[0], absent[0]]))
        self.sd.copy_(torch.stack([present[1], absent[1]]))
        both = F.logsigmoid(torch.tensor([logit, -logit])) - math.log(self.components)
        self.odds.copy_(both)
        self.last.weight.zero_()
        self.last.bias.zero_()
        self.mix.zero_()

    def context(self, z: Tensor, blur: Tensor | None = None) -> Tensor:
        """(B, D + 4, h + r, w + 2 r) channels in units of their deviations, places, noise, and where cells are.

        Args:
            blur: deviation of noise that is added to channels, for each map; none by default.
        """
        x = self.scaled(z.movedim(-3, -1)).movedim(-1, -3)
        noise = torch.zeros_like(x[:, :1])
        if blur is not None:
            noise = noise + blur.view(-1, 1, 1, 1)
            x = x + noise * torch.randn_like(x)
        axis = torch.linspace(-1, 1, self.side, dtype=z.dtype, device=z.device)
        place = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(len(z), -1, -1, -1)
        x = torch.cat([x, place, noise / BLUR, torch.ones_like(noise)], 1)
        r = self.radius
        return F.pad(x, (r, r, r, 0))

    def scaled(self, z: Tensor) -> Tensor:
        """(..., D) channels as the network sees them: what no training image has is held at the edge."""
        return ((z - self.centre) / self.unit).clamp(-FAR, FAR)

    def components_of(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (B, M, h, w), means and deviations (B, M, D, h, w) given windows."""
        hidden = F.conv2d(context, self.first.weight * self.seen, self.first.bias).relu()
        for block in self.blocks:
            hidden = hidden + block(hidden)
        number, channels = 2 * self.components, self.loc.shape[-1]
        logits, shift, stretch = self.last(hidden.relu()).split(
            [number, number * channels, number * channels], 1
        )
        loc, sd, odds = (
            t.repeat_interleave(self.components, 0) for t in (self.loc, self.sd, self.odds)
        )
        shift, stretch = (t.unflatten(1, (number, channels)) for t in (shift, stretch))
        loc, sd = loc[..., None, None], sd[..., None, None]
        stretch = WIDEST * (stretch / WIDEST).tanh()
        scale = (sd * stretch.exp()).clamp(min=NARROWEST)
        odds = logits + odds[:, None, None]
        return odds.log_softmax(1), loc + sd * shift, scale

    def matrices(self) -> Tensor:
        """(M, D, D) W."""
        return self.mix.tril(-1) + torch.eye(self.mix.shape[-1], device=self.mix.device)

    def densities(self, z: Tensor, blur: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(..., h, w) log p(e_ij, z_ij | z_<ij) of maps (..., D, h, w), for e_ij = 1 and for 0.

        Args:
            blur: as `context` has it.
        """
        flat = z.reshape(-1, *z.shape[-3:])
        weight, loc, sd = self.components_of(self.context(flat, blur))
        apart = torch.einsum("mcd,bmdhw->bmchw", self.matrices(), flat.unsqueeze(1) - loc)
        each = -0.5 * (apart / sd).square() - sd.log() - LOG_NORMAL
        joint = (each.sum(2) + weight).unflatten(1, (2, self.components)).logsumexp(2)
        return tuple(t.view(*z.shape[:-3], *z.shape[-2:]) for t in joint.unbind(1))

    @torch.no_grad()
    def draw(self, number: int) -> Tensor:
        """(number, D, h, w), cell by cell."""
        r, side, channels = self.radius, self.side, self.loc.shape[-1]
        z = self.loc.new_zeros(number, channels, side, side)
        context = self.context(z)
        back = torch.linalg.inv(self.matrices())
        for row in range(side):
            for column in range(side):
                window = context[:, :, row : row + r + 1, column : column + 2 * r + 1]
                weight, loc, sd = (t[..., 0, 0] for t in self.components_of(window))
                best = dist.Categorical(logits=weight).sample()
                index = torch.arange(number), best
                noise = sd[index] * torch.randn_like(sd[index])
                cell = loc[index] + (back[best] @ noise.unsqueeze(-1)).squeeze(-1)
                z[:, :, row, column] = cell
                context[:, :channels, row + r, column + r] = self.scaled(cell)
        return z

    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """Maximise Σ log p(e, z), presence e being what is likelier now: at first under the paper's Gaussians.

        Args:
            draws: (N, D h w); all count alike.
        """
        maps = draws.view(-1, self.loc.shape[-1], self.side, self.side)
        with torch.no_grad():
            there = torch.cat([torch.sub(*self.densities(z)) > 0 for z in maps.split(100)])
            self.plain()
            self.measure(maps, there)
        self._ascend(maps, there)

    def _ascend(self, maps: Tensor, there: Tensor) -> None:
        """Adam's steps on Σ log p(e, z) of random draws; the rate falls to 0 as a cosine."""
        passes, batch, rate = self.schedule
        steps = -(-passes * len(maps) // batch)
        optimiser = torch.optim.Adam(self.parameters(), rate)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        with torch.enable_grad():
            for _ in tqdm(range(steps), "map of cells", disable=None, leave=False):
                index = torch.randint(len(maps), (batch,))
                one, none = self.densities(maps[index], BLUR * torch.rand(batch).to(maps))
                loss = -one.where(there[index], none).mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters(), 1.0)
                optimiser.step()
                slower.step()

    def measure(self, maps: Tensor, there: Tensor) -> None:
        """Begin with the moments of present and of absent cells, and with the share of cells present."""
        cells = maps.movedim(1, -1)
        self.centre.copy_(cells.flatten(0, -2).mean(0))
        self.unit.copy_(cells.flatten(0, -2).std(0).clamp(min=NARROWEST))
        for k, own in enumerate((cells[there], cells[~there])):
            if len(own) >= ENOUGH:
                self.loc[k], self.sd[k] = own.mean(0), own.std(0).clamp(min=NARROWEST)
        share = there.double().mean().clamp(1e-4, 1 - 1e-4)
        self.odds.copy_(torch.stack([share, 1 - share]).log() - math.log(self.components))
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.normal_(self.last.bias, std=0.3)


def mlp_of_cells(features: int) -> nn.Module:
    """(B, features, h, w) -> as many, cell by cell."""
    return nn.Sequential(
        nn.Conv2d(features, features, 1), nn.ReLU(), nn.Conv2d(features, features, 1)
    )


class Causal(dist.TorchDistribution):
    """The distribution of a `LearnedMap`, over maps (D, h, w), presence summed out."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.independent(constraints.real, 3)
    has_rsample = False

    def __init__(self, prior: LearnedMap, batch: torch.Size = torch.Size()) -> None:
        self.prior = prior
        shape = torch.Size((prior.loc.shape[-1], prior.side, prior.side))
        super().__init__(batch, shape, validate_args=False)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> Causal:
        """The same distribution over a larger batch."""
        return Causal(self.prior, torch.Size(batch_shape))

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """(..., D, h, w)."""
        shape = self._extended_shape(sample_shape)
        return self.prior.draw(shape[:-3].numel()).view(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) of maps (..., D, h, w), in nats."""
        return torch.logaddexp(*self.prior.densities(value)).sum((-2, -1))
