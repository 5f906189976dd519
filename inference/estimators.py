"""How gradients pass discrete sites: one method a site, chosen by a pattern of its name.

Programs say ``Bernoulli(logits=…)`` and ``OneHotCategorical(logits=…)``. An `Estimator` runs guide and
program under effect handlers and returns a number to differentiate. ``--estimator nvil`` uses one method
for every discrete site, ``--estimator 'z_pres*=nvil,z_cat*=gumbel'`` one for each pattern.

==============  =====================================================================================
pathwise        a differentiable sample in the place of the discrete one; biased
``gumbel``      relaxed (Jang et al., 2017; Maddison et al., 2017): what GSGN, SPACE, GNM, Discrete-AIR train
``gumbel_st``   the same, rounded to a corner on the way forward (straight-through)
``reinmax``     an exact sample, a gradient of second order in the logits (Liu et al., 2023)
``mean``        the probability itself, without noise: what MONet and ECON train masks with
``competition`` an exact sample, and no gradient: of who won, nothing is learned (ECON, section 5.2)

score           cost × ∇ log q, minus a control variate; unbiased
``reinforce``   no control variate: the yardstick (Williams, 1992)
``nvil``        a learned, input-dependent baseline and running mean (Mnih & Gregor, 2014)
``rloo``        K = 4 copies, each with the mean of the others as baseline (Kool et al., 2019)
``relax``       a learned function of a relaxed sample (RELAX; Grathwohl et al., 2018)
``disarm``      antithetic pairs of Bernoullis (Dong et al., 2020; Yin et al., 2020)

exact           ``enumerate``: the sum over all joint values of the sites; small spaces, and beside it pathwise
                methods only
bounds          K = 4 copies, for all sites alike, continuous ones too
``vimco``       gradient of the IWAE bound, leave-one-out control variates (Mnih & Rezende, 2016)
``rws``         reweighted wake-sleep, wake-phase both (Bornschein & Bengio, 2015; Le et al., 2019)
==============  =====================================================================================

``rloo:8`` sets K. Score methods are Rao-Blackwellised as Pyro's ``TraceGraph_ELBO`` is: the cost of a
sample is what depends on it, by provenance (Schulman et al., 2015); KLs are in closed form where there is
one. Nothing here is *reported* as an ELBO: see `analysis.evaluate`.

Shape legend: B images, K copies of each (the images repeated: any program runs them), S shape of a site
without its batch dimension, A alternatives of a discrete choice (2 for a Bernoulli).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.tracegraph_elbo import TrackNonReparam
from pyro.infer.util import MultiFrameTensor
from pyro.ops.provenance import get_provenance
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn
from torch.nn import functional as F

from inference.objectives import Objective, Term, cost_terms, log_prob_per_image, lookup, per_image
from inference.relaxations import Draw, Relaxed, exact, gumbel, gumbel_st, mean, reinmax
from programs.loading import choose
from programs.nets import ConvEncoder, mlp

COPIES = 4
"""K where it is not given."""
LIMIT = 4096
"""Largest number of joint values to enumerate."""


@dataclass(frozen=True)
class Site:
    """What a score method sees of a site."""

    name: str
    fn: dist.TorchDistribution
    """the guide's distribution, batch shape (K·B, *S)"""
    value: Tensor
    """(K·B, *S), or (K·B, *S, A) one-hot"""
    cost: Tensor
    """(K·B, *S) nats of the negative ELBO that depend on the value, without gradient"""
    images: Tensor
    """(K·B, C, H, W)"""
    rerun: Callable[[Tensor], Tensor]
    """values (P, K·B, *S) -> costs of the same shape: everything before the site stays as it is"""

    @property
    def log_prob(self) -> Tensor:
        """(K·B, *S) log q(value)."""
        return self.fn.log_prob(self.value)


class Method(nn.Module):
    """What is done at the sites that a pattern matches."""

    copies = 1
    """how often every image is run"""

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Make what is learned for a site, or refuse it with a ValueError."""


class Pathwise(Method):
    """A differentiable sample in the place of the discrete one."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.draw = draw

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Refuse what cannot be relaxed."""
        alternatives(name, fn)

    def relax(self, fn: dist.TorchDistribution, temperature: Tensor) -> dist.TorchDistribution:
        """The twin of a Bernoulli or one-hot categorical."""
        if isinstance(fn, dist.Independent):
            return self.relax(fn.base_dist, temperature).to_event(fn.reinterpreted_batch_ndims)
        return Relaxed(fn, self.draw, temperature)


class Competition(Method):
    """The sample as it is; neither it nor its KL has a gradient. Its logits are learned elsewhere."""

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Refuse what has no logits."""
        alternatives(name, fn)

    def relax(self, fn: dist.TorchDistribution, _: Tensor) -> dist.TorchDistribution:
        """The same distribution, cut off from what its logits depend on."""
        if isinstance(fn, dist.Independent):
            return self.relax(fn.base_dist, _).to_event(fn.reinterpreted_batch_ndims)
        return type(fn)(logits=fn.logits.detach())


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


class Enumerate(Method):
    """Every value of the site, weighted by its probability."""

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Refuse what is neither Bernoulli nor one-hot."""
        alternatives(name, plain(name, fn, "enumerate"))


class Estimator(nn.Module):
    """A method for every discrete site. `temperature` is a buffer that schedules write."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.register_buffer("temperature", torch.tensor(1.0))
        self.enumerated: dict[str, tuple[torch.Size, int, int]] = {}
        self.origins: dict[str, frozenset[str]] = {}

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """Run the guide once to see its discrete sites.

        Raises:
            ValueError: a discrete site has no method, or one that cannot be used there; a pattern matches
                none; enumerate beside score methods, or over too many values.
        """
        sites = poutine.trace(guide).get_trace(images).nodes.items()
        found = {name: site["fn"] for name, site in sites if is_discrete(site)}
        used = [self._prepare(name, fn, images) for name, fn in found.items()]
        for pattern, method in self.methods.items():
            if pattern != "*" and method not in used:
                names = ", ".join(found) or "none"
                raise ValueError(f"pattern {pattern!r} matches no discrete site; there are {names}")
        if self.enumerated and any(isinstance(method, Score) for method in used):
            raise ValueError("enumerate can stand beside gumbel, gumbel_st and reinmax only")
        if self.states > LIMIT:
            many = self.states if self.states < 10**9 else f"10^{len(str(self.states)) - 1}"
            raise ValueError(
                f"{', '.join(self.enumerated)} have {many} joint values an image, and enumerate "
                f"takes at most {LIMIT}: enumerate fewer sites, or choose rloo"
            )

    def _prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> Method:
        method = lookup(self.methods, name)
        if method is None:
            known = ", ".join(self.methods)
            raise ValueError(f"no estimator for the discrete site {name!r}; patterns are {known}")
        method.prepare(name, fn, images)
        if isinstance(method, Enumerate):
            self.enumerated[name] = fn.batch_shape[1:], alternatives(name, fn), fn.event_dim
        return method

    @property
    def states(self) -> int:
        """Joint values of all enumerated sites of an image."""
        return math.prod(a ** shape.numel() for shape, a, _ in self.enumerated.values())

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A surrogate whose gradient estimates the loss's, and the loss's terms (detached), in nats a batch."""
        copies = max(method.copies for method in self.methods.values())
        x = images.repeat(copies * self.states, 1, 1, 1)

        def run(x: Tensor, values: dict[str, Tensor]) -> tuple[Trace, dict[str, Term]]:
            with Choose(), Fix(values), Relax(self.methods, self.temperature):
                traces = objective.traces(program, guide, x)
            return traces[1], cost_terms(*traces)

        trace, terms = run(x, self.values(copies * len(images)))
        if terms.keys() != self.origins.keys():
            self.origins = provenance(lambda: run(images, {})[1])
        weight = self.weight(trace, len(x)) / copies
        losses = {name: (weight * per_image(term)).sum() for name, term in terms.items()}
        surrogate = sum(losses.values())
        for name, node in trace.nodes.items():
            method = lookup(self.methods, name) if is_discrete(node) else None
            if isinstance(method, Score):
                below = [term for term, sites in self.origins.items() if name in sites]
                extra = method.surrogate(see(name, trace, terms, below, x, run)) * reachable(node)
                surrogate = surrogate + extra.sum() / copies
        return surrogate, {name: loss.detach() for name, loss in losses.items()}

    def values(self, rows: int) -> dict[str, Tensor]:
        """All joint values of the enumerated sites, each for `rows` images: (states · rows, *S[, A])."""
        code, values = torch.arange(self.states, device=self.temperature.device), {}
        for name, (shape, number, event) in self.enumerated.items():
            powers = number ** torch.arange(shape.numel(), device=code.device)
            digits = (code[:, None] // powers) % number
            code = code // number ** shape.numel()
            value = F.one_hot(digits, number) if event else digits
            value = value.float().view(self.states, *shape, *value.shape[2:])
            values[name] = value.repeat_interleave(rows, 0)
        return values

    def weight(self, trace: Trace, rows: int) -> Tensor:
        """(rows) probability of the enumerated values, 1 where nothing is enumerated."""
        log_prob = torch.zeros(rows, device=self.temperature.device)
        for name in self.enumerated:
            site = trace.nodes[name]
            log_prob = log_prob + site["fn"].log_prob(site["value"]).view(rows, -1).sum(1)
        return log_prob.exp()


class Bound(nn.Module):
    """Estimators of a bound on K samples an image. Enumerated, relaxed or other methods do not mix in."""

    def __init__(self, copies: int = COPIES) -> None:
        super().__init__()
        self.copies = several(copies)

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """Nothing is learned."""

    def log_weights(self, traces: tuple[Trace, Trace]) -> Tensor:
        """(K, B) log p - log q."""
        program_trace, guide_trace = traces
        both = log_prob_per_image(program_trace) - log_prob_per_image(guide_trace)
        return both.view(self.copies, -1)

    def terms(self, traces: tuple[Trace, Trace]) -> dict[str, Tensor]:
        """Of the ELBO, for the log: the mean over the copies."""
        with torch.no_grad():
            return {n: per_image(t).sum() / self.copies for n, t in cost_terms(*traces).items()}


class VIMCO(Bound):
    """Score functions of the IWAE bound; a copy's signal is the bound minus that without its weight."""

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        with Choose():
            traces = objective.traces(program, guide, images.repeat(self.copies, 1, 1, 1))
        log_w = self.log_weights(traces)
        bound = log_w.logsumexp(0) - math.log(self.copies)
        mean = (log_w.sum(0) - log_w) / (self.copies - 1)
        own = torch.eye(self.copies, dtype=torch.bool, device=images.device)[..., None]
        without = torch.where(own, mean, log_w).logsumexp(1) - math.log(self.copies)
        signal = (bound - without).detach()
        log_q = [
            per_image(Term(name, site["cond_indep_stack"], site["log_prob"]))
            for name, site in traces[1].nodes.items()
            if is_discrete(site)
        ]
        score = sum(log_q).view_as(signal) if log_q else 0.0
        return -(bound + (signal * score).sum(0)).sum(), self.terms(traces)


class RWS(Bound):
    """Program and guide both learn from samples of the guide, weighted by their normalised weights."""

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        with Choose(), Detach():
            traces = objective.traces(program, guide, images.repeat(self.copies, 1, 1, 1))
        share = self.log_weights(traces).detach().softmax(0).flatten()
        log_probs = sum(log_prob_per_image(trace) for trace in traces)
        return -(share * log_probs).sum(), self.terms(traces)


class Relax(Messenger):
    """Put a twin, differentiable or cut off, in the place of every discrete latent with such a method."""

    def __init__(self, methods: Mapping[str, Method], temperature: Tensor) -> None:
        super().__init__()
        self.methods, self.temperature = methods, temperature

    def _pyro_sample(self, msg: dict) -> None:
        method = lookup(self.methods, msg["name"]) if is_discrete(msg) else None
        if isinstance(method, Pathwise | Competition):
            msg["fn"] = method.relax(msg["fn"], self.temperature)


class Choose(Messenger):
    """Draw one-hot latents without reading numbers back from the device, as torch's own draw does."""

    def _pyro_sample(self, msg: dict) -> None:
        if not is_discrete(msg) or msg["done"]:
            return
        base = msg["fn"].base_dist if isinstance(msg["fn"], dist.Independent) else msg["fn"]
        if isinstance(base, dist.OneHotCategorical):
            msg["value"], msg["done"] = exact(base.logits), True


class Fix(Messenger):
    """Give sites of the guide a value (the program's are replayed from there)."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not msg["done"]:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


class Detach(Messenger):
    """Samples are data: no gradient passes them."""

    def _pyro_post_sample(self, msg: dict) -> None:
        if not msg["is_observed"] and not isinstance(msg["fn"], _Subsample):
            msg["value"] = msg["value"].detach()


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


def is_discrete(msg: dict) -> bool:
    """Whether a site is a latent that has no reparametrised sample."""
    latent = msg["type"] == "sample" and not msg["is_observed"]
    return latent and not isinstance(msg["fn"], _Subsample) and not msg["fn"].has_rsample


def alternatives(name: str, fn: dist.TorchDistribution) -> int:
    """Number of values of one choice.

    Raises:
        ValueError: the site is neither Bernoulli nor one-hot categorical.
    """
    base = fn.base_dist if isinstance(fn, dist.Independent) else fn
    if isinstance(base, dist.Bernoulli):
        return 2
    if isinstance(base, dist.OneHotCategorical):
        return base.event_shape[-1]
    raise ValueError(
        f"site {name!r} is {type(fn).__name__}: give the logits of a Bernoulli or a OneHotCategorical, or "
        "choose --estimator nvil, rloo or reinforce"
    )


def plain(name: str, fn: dist.TorchDistribution, method: str) -> dist.TorchDistribution:
    """The distribution, whose choices must not be joined by `to_event`.

    Raises:
        ValueError: they are.
    """
    if isinstance(fn, dist.Independent):
        raise ValueError(
            f"site {name!r} joins its choices by to_event, {method} takes each by itself: put a plate in "
            "the place of to_event, or choose gumbel, nvil, rloo or reinforce"
        )
    return fn


def choice(fn: dist.TorchDistribution) -> Tensor:
    """(…, A) logits; those of a Bernoulli are (logit, 0)."""
    if fn.event_shape:
        return fn.logits
    return torch.stack([fn.logits, torch.zeros_like(fn.logits)], -1)


def conditional(logits: Tensor, chosen: Tensor) -> Tensor:
    """(…, A) logits plus Gumbel noise, given which is the largest (one-hot), up to a common shift."""
    log_p = logits.log_softmax(-1).clamp(min=-60)
    exponential = -torch.rand_like(logits).clamp(1e-6, 1 - 1e-6).log()
    least = (exponential * chosen).sum(-1, keepdim=True)
    return torch.where(chosen > 0.5, -least.log(), -(least + exponential * (-log_p).exp()).log())


def reachable(site: dict) -> Tensor:
    """1 where something depends on a draw, 0 below an absent node: no score there."""
    device, mask = site["value"].device, True if site["mask"] is None else site["mask"]
    scale, mask = (torch.as_tensor(t, device=device) for t in (site["scale"], mask))
    return ((scale != 0) & mask).to(torch.get_default_dtype())


def provenance(run: Callable[[], dict[str, Term]]) -> dict[str, frozenset[str]]:
    """Names of the discrete sites that every term of a run depends on (Wingate et al., 2011).

    Followed once and remembered: values that carry their origins make every operation slow.
    """
    devices = range(torch.cuda.device_count())
    with torch.no_grad(), torch.random.fork_rng(devices), TrackNonReparam():
        return {name: get_provenance(term.cost) for name, term in run().items()}


def downstream(site: dict, terms: Iterable[Term]) -> Tensor:
    """(K·B, *S) a site's share of terms that depend on it, elementwise where plates allow."""
    costs = MultiFrameTensor(*((term.frames, term.cost.detach()) for term in terms))
    total = torch.as_tensor(costs.sum_to(site["cond_indep_stack"]), device=site["value"].device)
    return total.expand(site["fn"].batch_shape)


def see(
    name: str, trace: Trace, terms: dict[str, Term], below: list[str], x: Tensor, run: Callable
) -> Site:
    """A site of a run, for its method; `below` are the terms that depend on it."""
    site, names = trace.nodes[name], list(trace.nodes)

    @torch.no_grad()
    def rerun(values: Tensor) -> Tensor:
        number, before = len(values), names[: names.index(name)]
        nodes = {n: trace.nodes[n] for n in before if trace.nodes[n]["type"] == "sample"}
        fixed = {
            n: node["value"].repeat(number, *[1] * (node["value"].ndim - 1))
            for n, node in nodes.items()
            if not isinstance(node["fn"], _Subsample)
        }
        again, costs = run(x.repeat(number, 1, 1, 1), {**fixed, name: values.flatten(0, 1)})
        cost = downstream(again.nodes[name], [costs[term] for term in below])
        return cost.unflatten(0, (number, -1))

    cost = downstream(site, [terms[term] for term in below])
    return Site(name, site["fn"], site["value"], cost, x, rerun)


def several(copies: int) -> int:
    """K, at least two.

    Raises:
        ValueError: it is less.
    """
    if copies < 2:
        raise ValueError(f"{copies} copies of an image: give at least 2, as in rloo:2")
    return copies


ESTIMATORS: dict[str, Callable[..., Method | Bound]] = {
    "gumbel": lambda: Pathwise(gumbel),
    "gumbel_st": lambda: Pathwise(gumbel_st),
    "reinmax": lambda: Pathwise(reinmax),
    "mean": lambda: Pathwise(mean),
    "competition": Competition,
    "reinforce": Score,
    "nvil": NVIL,
    "rloo": RLOO,
    "relax": RELAX,
    "disarm": DisARM,
    "enumerate": Enumerate,
    "vimco": VIMCO,
    "rws": RWS,
}


def estimator(text: str) -> nn.Module:
    """From ``nvil``, ``rloo:8`` or ``z_pres*=nvil,z_cat*=gumbel``.

    Raises:
        ValueError: an unknown name, a bad number, a bound among other methods, two methods for one pattern.
    """
    pairs = [part.rpartition("=") for part in text.split(",")]
    patterns = [pattern.strip() or "*" for pattern, _, _ in pairs]
    if len({*patterns}) < len(patterns):
        raise ValueError(
            f"--estimator {text!r} has several methods for the same sites: give one, or one a pattern as in "
            "'z_pres*=nvil,z_cat*=gumbel'"
        )
    methods = {p: _method(name.strip()) for p, (_, _, name) in zip(patterns, pairs, strict=True)}
    numbers = {m.copies for m in methods.values() if isinstance(m, RLOO)}
    if len(numbers) > 1:
        raise ValueError(
            f"--estimator {text!r}: an image has the same number of copies at all sites, here {numbers}"
        )
    bounds = [m for m in methods.values() if isinstance(m, Bound)]
    if bounds and (len(methods) > 1 or "*" not in methods):
        raise ValueError(f"--estimator {text!r}: vimco and rws are for all sites, give one alone")
    return bounds[0] if bounds else Estimator(methods)


def _method(text: str) -> Method | Bound:
    name, colon, number = text.partition(":")
    make = choose(ESTIMATORS, name, "estimator")
    if not colon:
        return make()
    if name not in ("rloo", "vimco", "rws"):
        raise ValueError(
            f"--estimator {text!r}: only rloo, vimco and rws take a number of copies, as in rloo:8"
        )
    if not number.isdigit():
        raise ValueError(f"--estimator {text!r}: expected a number of copies, as in {name}:8")
    return make(int(number))
