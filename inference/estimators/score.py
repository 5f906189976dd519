"""Score-function methods: cost × ∇ log q, minus a control variate."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inference.estimators.handlers import COPIES, several
from inference.estimators.sites import Method, Site, alternatives, choice, conditional, plain
from programs.blocks.nets import ConvEncoder, mlp


class Score(Method):
    """cost × ∇ log q; what its subclasses add is a control variate."""

    def surrogate(self, site: Site) -> Tensor:
        """(K·B, *S) what to differentiate."""
        return site.cost * site.log_prob


class NVIL(Score):
    """Minus a baseline, which is fitted in units of the cost's running standard deviation.

    So its learning rate need not know their scale. (Pyro's own keeps one average a batch position, and
    leaks.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.baselines = nn.ModuleDict()

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """A baseline for the site."""
        self.baselines[name] = Control(images.shape[-3:], fn.batch_shape[1:]).to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """Includes the squared error of the baseline."""
        baseline = self.baselines[site.name]
        value = baseline(site.images)
        error = ((value - site.cost) / baseline.spread()).square()
        baseline.watch(site.cost)
        return (site.cost - value.detach()) * site.log_prob + error


class RLOO(Score):
    """Minus the mean cost of the image's other copies."""

    def __init__(self, copies: int = COPIES) -> None:
        super().__init__()
        self.copies = several(copies)

    def surrogate(self, site: Site) -> Tensor:
        """Copies of an image differ in their samples alone."""
        cost = site.cost.unflatten(0, (self.copies, -1))
        others = (cost.sum(0) - cost) / (self.copies - 1)
        return (cost - others).flatten(0, 1) * site.log_prob


class RELAX(Score):
    """With a control variate c that sees a relaxed sample, fitted to the variance of the gradient.

    ĝ = (cost - c(z̃)) ∇ log q(b) + ∇ c(z) - ∇ c(z̃),  z ~ q(z),  b = H(z),  z̃ ~ q(z | b)

    # differs: c is a network on the images and on the sample of its own element, without the decoder's
    relaxed loss. So it is right where later sites depend on earlier ones, and costs no run of the program.
    """

    def __init__(self) -> None:
        super().__init__()
        self.controls = nn.ModuleDict()

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """A control variate for the site."""
        shape = images.shape[-3:], fn.batch_shape[1:], alternatives(name, plain(name, fn, "relax"))
        self.controls[name] = Control(*shape).to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """Includes the square of the gradient, which is c's to make small."""
        control, logits = self.controls[site.name], choice(site.fn)
        chosen = (
            site.value if site.fn.event_shape else torch.stack([site.value, 1 - site.value], -1)
        )
        leaf = logits.detach().requires_grad_()
        noise = (conditional(leaf, chosen) - leaf).detach()
        here, again = (
            control(site.images, z.softmax(-1)) for z in (leaf + noise, conditional(leaf, chosen))
        )
        path = torch.autograd.grad((here - again).sum(), leaf, create_graph=True)[0]
        gradient = (site.cost - again).unsqueeze(-1) * (chosen - leaf.softmax(-1)) + path
        variance = (gradient / control.spread().unsqueeze(-1)).square().sum(-1)
        control.watch(site.cost)
        return (gradient.detach() * logits).sum(-1) + variance


class DisARM(Score):
    """Antithetic pairs: two more runs for every site."""

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Refuse what is no Bernoulli."""
        if not isinstance(fn, dist.Bernoulli):
            raise ValueError(
                f"site {name!r} is {type(fn).__name__}: disarm is for Bernoulli sites, choose rloo or relax"
            )

    def surrogate(self, site: Site) -> Tensor:
        """Eq. 7 of Dong et al.: nothing is gained where both of a pair agree."""
        logits = site.fn.logits
        uniform, probability = torch.rand_like(logits), logits.sigmoid()
        values = torch.stack([1 - uniform < probability, uniform < probability]).to(logits.dtype)
        costs = site.rerun(values)
        gradient = 0.5 * (costs[0] - costs[1]) * (values[0] - values[1]) * logits.abs().sigmoid()
        return gradient.detach() * logits


class Control(nn.Module):
    """Predicts the cost at a site from the images, and from a relaxed sample where there are alternatives.

    Args:
        image: (C, H, W) of the images.
        sites: S.
        alternatives: A, or 0 for a baseline, which must not see the sample.
    """

    decay = 0.99

    def __init__(self, image: torch.Size, sites: torch.Size, alternatives: int = 0) -> None:
        super().__init__()
        self.sites, hidden = sites, 64
        self.encoder = ConvEncoder(32, 4, (8, 16, 16), inputs=image[0])
        self.body = mlp(16 * self.encoder.outputs, [hidden], hidden)
        self.sample = nn.Linear(max(alternatives, 1), hidden)
        self.place = nn.Parameter(torch.randn(sites.numel(), hidden))
        self.head = mlp(hidden, [hidden], 1)
        self.register_buffer("mean", torch.zeros(sites))
        self.register_buffer("square", torch.zeros(sites))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, images: Tensor, sample: Tensor | None = None) -> Tensor:
        """(B, C, H, W)[, (B, *S, A)] -> (B, *S) nats."""
        small = F.adaptive_avg_pool2d(images, 32)
        hidden = self.body(self.encoder(small).flatten(1))[:, None] + self.place
        if sample is not None:
            hidden = hidden + self.sample(sample.view(*hidden.shape[:-1], -1))
        raw = self.head(F.celu(hidden)).view(len(images), *self.sites)
        return self.mean / self.weight.clamp(min=1e-8) + self.spread() * raw

    def spread(self) -> Tensor:
        """(*S) running standard deviation of the cost, at least 1."""
        seen = self.weight.clamp(min=1e-8)
        return (self.square / seen - (self.mean / seen).square()).clamp(min=1.0).sqrt()

    @torch.no_grad()
    def watch(self, cost: Tensor) -> None:
        """Let costs (B, *S) into the running moments."""
        rate = 1 - self.decay
        self.mean.lerp_(cost.mean(0), rate)
        self.square.lerp_(cost.square().mean(0), rate)
        self.weight.lerp_(torch.ones_like(self.weight), rate)
