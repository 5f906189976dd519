"""How gradients pass discrete sites: one effect handler each, around program and guide alike.

Programs say ``Bernoulli(logits=...)``. An estimator turns that into a loss to differentiate:

==============  =====================================================================================
``gumbel``      relaxed samples (Jang et al., 2017; Maddison et al., 2017), closed-form Bernoulli KL:
                what GSGN, SPACE and GNM train. Biased: the relaxed program is another program.
``gumbel_st``   the same, rounded to exactly 0 or 1 on the way forward (straight-through).
``nvil``        score function with a learned, input-dependent baseline and running mean (Mnih &
                Gregor, 2014), Rao-Blackwellised by Pyro's ``TraceGraph_ELBO``. Unbiased.
==============  =====================================================================================

What is *reported* as ELBO never comes from here: see `analysis.evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.tracegraph_elbo import TraceGraph_ELBO, TrackNonReparam
from pyro.infer.util import MultiFrameTensor
from pyro.ops.provenance import detach_provenance, get_provenance
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn
from torch.distributions import constraints, kl_divergence, register_kl

from inference.objectives import Objective, closed_form_terms
from programs.nets import ConvEncoder, mlp


class Relaxed(dist.TorchDistribution):
    """A Bernoulli whose samples are the sigmoid of (logits + logistic noise) / temperature.

    Its log-probability is the Bernoulli's, linear in the value; its KL is the Bernoulli's, in closed
    form. With `hard` the value is rounded to exactly 0 or 1, and the gradient is the soft sample's.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self,
        logits: Tensor,
        temperature: Tensor | float,
        hard: bool,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.temperature, self.hard = logits, temperature, hard
        super().__init__(logits.shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> Relaxed:
        """The same distribution over a larger batch."""
        return Relaxed(self.logits.expand(batch_shape), self.temperature, self.hard)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Differentiable samples in [0, 1], or in {0, 1} if `hard`."""
        logits = self.logits.expand(self._extended_shape(sample_shape))
        # 1e-6 keeps the noise finite at both ends
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        soft = ((logits + uniform.logit()) / self.temperature).sigmoid()
        return _Round.apply(soft) if self.hard else soft

    def log_prob(self, value: Tensor) -> Tensor:
        """value · log p + (1 - value) · log(1 - p)."""
        return -nn.functional.binary_cross_entropy_with_logits(
            self.logits, value.expand_as(self.logits), reduction="none"
        )


class _Round(torch.autograd.Function):
    """Exactly 0 or 1 forward, the identity backward."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor) -> Tensor:
        return (soft > 0.5).to(soft.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@register_kl(Relaxed, Relaxed)
def _kl_relaxed(q: Relaxed, p: Relaxed) -> Tensor:
    return kl_divergence(dist.Bernoulli(logits=q.logits), dist.Bernoulli(logits=p.logits))


def is_discrete(msg: dict) -> bool:
    """Whether a site is a latent that has no reparametrised sample."""
    latent = msg["type"] == "sample" and not msg["is_observed"]
    return latent and not isinstance(msg["fn"], _Subsample) and not msg["fn"].has_rsample


class Relax(Messenger):
    """Replace every latent Bernoulli by its `Relaxed` twin, in guide and program."""

    def __init__(self, temperature: Tensor | float, hard: bool) -> None:
        super().__init__()
        self.temperature, self.hard = temperature, hard

    def _pyro_sample(self, msg: dict) -> None:
        if not is_discrete(msg):
            return
        if not isinstance(msg["fn"], dist.Bernoulli):
            raise ValueError(
                f"site {msg['name']!r} is {type(msg['fn']).__name__}; this estimator relaxes Bernoulli "
                "sites only: give the logits of a Bernoulli, or choose --estimator nvil"
            )
        msg["fn"] = Relaxed(msg["fn"].logits, self.temperature, self.hard)


class Gumbel(nn.Module):
    """`gumbel` and, with `hard`, `gumbel_st`. `temperature` is a buffer that schedules write."""

    def __init__(self, hard: bool = False) -> None:
        super().__init__()
        self.hard = hard
        self.register_buffer("temperature", torch.tensor(1.0))

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """Nothing to set up."""

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The relaxed loss to differentiate and its terms, in nats summed over the batch."""
        with Relax(self.temperature, self.hard):
            traces = objective.traces(program, guide, images)
        terms = closed_form_terms(*traces)
        return sum(terms.values()), terms


class NVIL(nn.Module):
    """Score-function gradients by ``TraceGraph_ELBO``, with a baseline of our own at every discrete site.

    A baseline changes the variance of the gradient, not its mean. Ours is fitted outside Pyro's loss, in
    units of the cost's running standard deviation, so that its learning rate need not know their scale
    (Pyro's decaying average keeps one number a batch position, and leaks).
    """

    def __init__(self) -> None:
        super().__init__()
        self.baselines = nn.ModuleDict()

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """Make a baseline for every discrete site of the guide, by running it once."""
        trace = poutine.trace(guide).get_trace(images)
        for name, site in trace.nodes.items():
            if is_discrete(site):
                sites = site["fn"].batch_shape[1:]
                self.baselines[name] = Baseline(images.shape[-3:], sites).to(images.device)

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A surrogate whose gradient estimates the loss's, and the loss's terms, in nats a batch."""
        predictions = {name: baseline(images) for name, baseline in self.baselines.items()}
        values = {name: self.baselines[name].nats(p.detach()) for name, p in predictions.items()}
        with TrackNonReparam(), Control(values):
            program_trace, guide_trace = objective.traces(program, guide, images)
        program_trace.compute_log_prob()
        guide_trace.compute_score_parts()
        for name in predictions:
            _drop_unreachable(guide_trace.nodes[name])
        _, surrogate = TraceGraph_ELBO()._loss_and_surrogate_loss_particle(
            program_trace, guide_trace
        )
        for name, prediction in predictions.items():
            cost = downstream_cost(name, program_trace, guide_trace)
            surrogate = surrogate + self.baselines[name].fit(prediction, cost)
        return surrogate, sampled_terms(program_trace, guide_trace)


class Control(Messenger):
    """Hand Pyro the value of the baseline of every discrete site."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not msg["is_observed"]:
            msg["infer"] = {
                **msg["infer"],
                "baseline": {"baseline_value": self.values[msg["name"]]},
            }


class Baseline(nn.Module):
    """Predicts a site's downstream log-probability from the images: running mean + std · network.

    Args:
        image: (C, H, W) of the images.
        sites: shape of the site without its batch dimension.
    """

    decay = 0.99

    def __init__(self, image: torch.Size, sites: torch.Size) -> None:
        super().__init__()
        channels, size, _ = image
        self.sites = sites
        self.encoder = ConvEncoder(size, 4, (8, 16, 16), inputs=channels)
        self.head = mlp(16 * self.encoder.outputs, [64], sites.numel())
        self.register_buffer("mean", torch.zeros(sites))
        self.register_buffer("square", torch.zeros(sites))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        """(B, *sites) in standard deviations from the mean."""
        return self.head(self.encoder(images).flatten(1)).unflatten(1, self.sites)

    def nats(self, prediction: Tensor) -> Tensor:
        """The baseline itself, in nats."""
        mean, std = self._moments()
        return mean + std * prediction

    def fit(self, prediction: Tensor, cost: Tensor) -> Tensor:
        """The network's squared error, summed over the batch; `cost` (B, *sites) joins the moments."""
        mean, std = self._moments()
        with torch.no_grad():
            rate = 1 - self.decay
            self.mean.lerp_(cost.mean(0), rate)
            self.square.lerp_(cost.square().mean(0), rate)
            self.weight.lerp_(torch.ones_like(self.weight), rate)
        return (prediction - (cost - mean) / std).square().sum()

    def _moments(self) -> tuple[Tensor, Tensor]:
        seen = self.weight.clamp(min=1e-8)
        mean = self.mean / seen
        return mean, (self.square / seen - mean.square()).clamp(min=1.0).sqrt()


def downstream_cost(name: str, program_trace: Trace, guide_trace: Trace) -> Tensor:
    """Σ log p - log q over the sites that depend on site `name`, in the shape of its plates."""
    costs = MultiFrameTensor()
    for trace, sign in ((program_trace, 1), (guide_trace, -1)):
        for site in trace.nodes.values():
            if site["type"] == "sample" and name in get_provenance(site["log_prob_sum"]):
                costs.add((site["cond_indep_stack"], sign * site["log_prob"]))
    total = costs.sum_to(guide_trace.nodes[name]["cond_indep_stack"])
    return detach_provenance(total).detach()


def _drop_unreachable(site: dict) -> None:
    """No score for what hangs below an absent node: nothing depends on that draw."""
    parts = site["score_parts"]
    reachable = (torch.as_tensor(site["scale"]) != 0).to(parts.score_function.dtype)
    site["score_parts"] = parts._replace(score_function=parts.score_function * reachable)


def sampled_terms(program_trace: Trace, guide_trace: Trace) -> dict[str, Tensor]:
    """Terms of the negative ELBO by site as in `closed_form_terms`, each KL by its one sample."""
    terms = {}
    for name, site in program_trace.nodes.items():
        if site["type"] != "sample" or isinstance(site["fn"], _Subsample):
            continue
        cost = -detach_provenance(site["log_prob_sum"])
        if site["is_observed"]:
            terms[name] = cost
        else:
            terms[f"kl/{name}"] = cost + detach_provenance(guide_trace.nodes[name]["log_prob_sum"])
    return terms


ESTIMATORS: dict[str, Callable[[], nn.Module]] = {
    "gumbel": Gumbel,
    "gumbel_st": lambda: Gumbel(hard=True),
    "nvil": NVIL,
}
