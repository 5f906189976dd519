"""Small random programs as data: one reading of them runs in Pyro, another sums over all values without it.

A `Spec` is a list of latents, plates and their order, and a likelihood. `Small` makes a program and a guide of
it, whose parameters are a row for every image of a batch: one backward pass gives every image's own gradient.
`exact_loss` is written from the spec alone: loops over elements and values, no Pyro, no distributions.
"""

import itertools
import math
import random
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from inference.objectives import Objective
from programs.blocks.distributions import gate

CODE = (-0.7, 0.4, 1.1)
"""What the values of a choice are worth to what depends on it."""
PAIR = (0.6, -0.9)
"""What the two bits of a joined site are worth."""
QUADRATURE = 14
NOISE = 0.7
SPREAD = 0.6
"""Standard deviation of a Gaussian in the guide; 1 in the program."""


@dataclass(frozen=True)
class Latent:
    """A Bernoulli, a one-hot or plain category of three, two bits joined by to_event, or a Gaussian."""

    kind: str = "bernoulli"
    local: bool = False
    """whether every node has one"""
    parents: tuple[int, ...] = ()
    gate: int | None = None
    """the Bernoulli without which it does not exist"""
    style: str = "gate"
    """how that is said: gate, mask (poutine.mask) or fn (fn.mask)"""
    weight: float | None = None
    """of its KL, in the objective"""
    scale: float | None = None
    """of poutine.scale around it"""
    free: bool = False
    """whether poutine.mask(False) takes it out of the bound"""


@dataclass(frozen=True)
class Spec:
    """A program."""

    latents: tuple[Latent, ...]
    nodes: int = 2
    taken: int = 2
    """nodes of a subsample"""
    batch_first: bool = True
    """whether the plate batch lies to the left of the nodes"""
    likelihood: str = "local"
    """local (a plate), canvas (one event), inplace (the same, written into) or read (through Python)"""
    seed: int = 0
    names: tuple[str, ...] = ()
    """of the latents, where not z_0, z_1 and so on"""

    def name(self, i):
        return self.names[i] if self.names else f"z_{i}"

    @property
    def subsampled(self):
        return self.taken < self.nodes

    @property
    def objective(self):
        pairs = [
            (self.name(i), z.weight) for i, z in enumerate(self.latents) if z.weight is not None
        ]
        return Objective(weights=dict(pairs))


KINDS = (
    ("bernoulli", "bernoulli", "normal"),
    ("bernoulli", "bernoulli", "onehot", "normal"),
    ("bernoulli", "bernoulli", "onehot", "category", "joined", "normal"),
)
"""Kinds of latents of a program: for methods of Bernoullis alone, of choices, and of all."""
STATES = 400
"""Most joint values of a program."""


class Dice(NamedTuple):
    """Where the choices of a program come from: of `random`, or of hypothesis."""

    integers: callable
    """between two numbers, both included"""
    pick: callable
    """of a list"""


def random_spec(seed):
    """The program of a number: the same in every run, whatever ran before."""
    source = random.Random(seed)
    return compose(Dice(source.randint, source.choice))


def compose(dice):
    """A spec of at most `STATES` joint values."""
    coin = lambda: dice.pick([False, True])
    kinds = dice.pick(KINDS)
    nodes = dice.integers(1, 3)
    taken = dice.integers(1, nodes) if coin() else nodes
    latents, states = [], 1
    for _ in range(dice.integers(1, 4)):
        latent = compose_latent(dice, kinds, latents)
        grown = states * options(latent) ** (taken if latent.local else 1)
        twice = latent.kind == "normal" and any(z.kind == "normal" for z in latents)
        if grown > STATES or twice:
            break
        states = grown
        latents.append(latent)
    if all(z.kind == "normal" for z in latents):
        latents.append(Latent())  # methods for discrete latents are refused where there are none
    likelihood = dice.pick(["local", "canvas", "inplace", "read"])
    if not (likelihood == "local" or any(z.local for z in latents)):
        taken = nodes
    if latents[0].kind == "normal" and likelihood == "read":
        likelihood = "canvas"
    return Spec(tuple(latents), nodes, taken, coin(), likelihood, dice.integers(0, 10**6))


def compose_latent(dice, kinds, latents):
    """One more latent of some kinds, after those that there are."""
    coin = lambda: dice.pick([False, True])
    kind = dice.pick(kinds)
    local = kind != "normal" and coin()
    parents = tuple(j for j in range(len(latents)) if coin())
    bits = [j for j, z in enumerate(latents) if z.kind == "bernoulli" and (local or not z.local)]
    return Latent(
        kind,
        local,
        parents,
        dice.pick([None, *bits]),
        dice.pick(["gate", "gate", "mask", "fn"]),
        dice.pick([None, None, 0.0, 0.3, 2.0]),
        dice.pick([None, None, 0.5]),
        dice.integers(0, 5) == 0,
    )


def options(latent):
    """Joint values of an element."""
    return {"bernoulli": 2, "onehot": 3, "category": 3, "joined": 4, "normal": QUADRATURE}[
        latent.kind
    ]


def numbers(latent):
    """Numbers that the distribution of an element is made of."""
    return {"bernoulli": 1, "onehot": 3, "category": 3, "joined": 2, "normal": 1}[latent.kind]


class Table:
    """Where in a row of parameters the numbers of a spec are."""

    def __init__(self, spec):
        self.places, self.size = {}, 0
        for i, latent in enumerate(spec.latents):
            elements = spec.nodes if latent.local else 1
            for who in "pq":
                self.add(who, i, "bias", (elements, numbers(latent)))
                self.add(who, i, "slope", (1, numbers(latent)))
            self.add("q", i, "image", (1, numbers(latent)))
            self.add("p", i, "colour", (1, 1))

    def add(self, who, i, what, shape):
        number = math.prod(shape)
        self.places[who, i, what] = slice(self.size, self.size + number), shape
        self.size += number

    def start(self, seed):
        return 0.8 * torch.randn(
            self.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )


class Small:
    """Program and guide of a spec. `theta` (N, P) are the parameters of N images, in order."""

    def __init__(self, spec, theta):
        self.spec, self.theta, self.table = spec, theta, Table(spec)
        self.subsets = []

    def number(self, who, i, what, images):
        """(rows, elements, numbers)"""
        place, shape = self.table.places[who, i, what]
        rows = self.theta[:, place].view(-1, *shape)
        return rows.repeat(len(images) // len(rows), 1, 1)

    def program(self, images):
        values = self.run("p", images)
        self.observe(images, values)

    def guide(self, images):
        self.run("q", images)

    def run(self, who, images):
        """Draw all latents; their features (rows, elements), 0 where they do not exist."""
        s = self.spec
        self.batch = pyro.plate("batch", len(images), dim=-2 if s.batch_first else -1)
        local = any(z.local for z in s.latents) or s.likelihood == "local"
        self.nodes, self.taken = None, torch.arange(s.nodes)
        if local:
            size = s.taken if s.subsampled else None
            self.nodes = pyro.plate("nodes", s.nodes, size, dim=-1 if s.batch_first else -2)
            self.taken = torch.as_tensor(self.nodes._indices)
            self.subsets.append(self.taken)
        features, exists = [], []
        for i, latent in enumerate(s.latents):
            there = torch.ones(len(images), 1, dtype=torch.float64)
            if latent.gate is not None:
                there = exists[latent.gate]
            value = self.draw(who, i, latent, images, features, there)
            features.append(feature(latent, value) * there)
            exists.append(there * value[..., 0] if latent.kind == "bernoulli" else None)
        return features

    def draw(self, who, i, latent, images, features, there):
        """(rows, elements, numbers) a latent's value."""
        slope = self.number(who, i, "slope", images)
        bias = self.number(who, i, "bias", images)
        elements = len(self.taken) if latent.local else 1
        raw = (bias[:, self.taken] if latent.local else bias) + slope * self.context(
            latent, features
        )
        if who == "q":
            x = images[:, 0, 0]
            seen = x[:, self.taken] if latent.local else x.mean(1, keepdim=True)
            raw = raw + self.number(who, i, "image", images) * seen.unsqueeze(-1)
        raw = raw.expand(len(images), elements, -1)
        fn = make(latent, self.out(raw, latent.local), who)
        there = self.out(there.expand(-1, elements), latent.local)
        with ExitStack() as stack:
            stack.enter_context(self.batch)
            if latent.local:
                stack.enter_context(self.nodes)
            if latent.gate is not None and latent.style == "gate":
                stack.enter_context(gate(there))
            if latent.gate is not None and latent.style == "mask":
                stack.enter_context(poutine.mask(mask=there > 0))
            if latent.gate is not None and latent.style == "fn":
                fn = fn.mask(there > 0)
            if latent.scale is not None:
                stack.enter_context(poutine.scale(scale=latent.scale))
            if latent.free:
                stack.enter_context(poutine.mask(mask=False))
            value = pyro.sample(self.spec.name(i), fn)
        if latent.kind in ("bernoulli", "category", "normal"):
            value = value.unsqueeze(-1)
        return self.back(value, latent.local)

    def context(self, latent, features):
        """(rows, 1 or elements, 1) what a latent's parents say."""
        total = torch.zeros(1, 1, dtype=torch.float64)
        for parent in latent.parents:
            seen = features[parent]
            if self.spec.latents[parent].local and not latent.local:
                seen = seen.sum(1, keepdim=True)
            total = total + seen
        return total.unsqueeze(-1)

    def out(self, x, local):
        """(rows, elements, …) in the order of the plates."""
        if self.spec.batch_first:
            return x
        return x.transpose(0, 1) if local else x[:, 0]

    def back(self, x, local):
        """The inverse."""
        if self.spec.batch_first:
            return x
        return x.transpose(0, 1) if local else x.unsqueeze(1)

    def observe(self, images, features):
        s, total = self.spec, torch.zeros(len(images), len(self.taken), dtype=torch.float64)
        for i, seen in enumerate(features):
            if s.likelihood == "read" and i == 0:
                seen = torch.tensor(
                    seen.tolist(), dtype=torch.float64
                )  # no tensor tells from where
            total = total + self.number("p", i, "colour", images)[:, :, 0] * seen
        mean, x = total + 0.3 * total.square(), images[:, 0, 0][:, self.taken]
        if s.likelihood == "local":
            with self.batch, self.nodes:
                pyro.sample("x", dist.Normal(self.out(mean, True), NOISE), obs=self.out(x, True))
            return
        if s.likelihood == "inplace":
            canvas = torch.zeros_like(x)
            for j in range(len(self.taken)):
                canvas[:, j] += mean[:, j]
            mean = canvas
        with self.batch:
            fn = dist.Normal(self.out(mean[:, None], False), NOISE).to_event(1)
            pyro.sample("x", fn, obs=self.out(x[:, None], False))


def make(latent, raw, who):
    if latent.kind == "bernoulli":
        return dist.Bernoulli(logits=raw[..., 0])
    if latent.kind == "onehot":
        return dist.OneHotCategorical(logits=raw)
    if latent.kind == "category":
        return dist.Categorical(logits=raw)
    if latent.kind == "joined":
        return dist.Bernoulli(logits=raw).to_event(1)
    return dist.Normal(raw[..., 0], SPREAD if who == "q" else 1.0)


def feature(latent, value):
    """(rows, elements) of values (rows, elements, numbers)."""
    if latent.kind == "onehot":
        return value @ torch.tensor(CODE, dtype=torch.float64)
    if latent.kind == "category":
        return torch.tensor(CODE, dtype=torch.float64)[value[..., 0].long()]
    if latent.kind == "joined":
        return value @ torch.tensor(PAIR, dtype=torch.float64)
    return value[..., 0]


# The second reading: no Pyro from here on.


@dataclass
class State:
    """Of every joint value of all latents: its log-probability, and its cost in nats."""

    log_chance: torch.Tensor
    log_q: torch.Tensor
    log_p: torch.Tensor
    cost: torch.Tensor


def exact_loss(spec, theta, x, subset):
    """The negative ELBO of one image x (nodes), as the spec weighs it."""
    found = enumerate_states(spec, theta, x, subset)
    return (found.log_chance.exp() * found.cost).sum()


def exact_bound(spec, theta, x, subset):
    """The negative bound on two samples."""
    s = enumerate_states(spec, theta, x, subset)
    both = torch.logaddexp(-s.cost[:, None], -s.cost[None]) - math.log(2)
    chance = (s.log_chance[:, None] + s.log_chance[None]).exp()
    return -(chance * both).sum()


def exact_defence(spec, theta, x, subset):
    """The same on samples of a mixture with a fifth of uniform draws."""
    return exact_wake(spec, theta, x, subset, 0.2)


def exact_wake(spec, theta, x, subset, uniform=0.0):
    """What reweighted wake-sleep on two samples follows: weights and chances are no functions of parameters."""
    s = enumerate_states(spec, theta, x, subset, uniform, still=True)
    chance = (s.log_chance[:, None] + s.log_chance[None]).exp().detach()
    share = (
        torch.stack(torch.broadcast_tensors(-s.cost[:, None], -s.cost[None])).softmax(0).detach()
    )
    learned = s.log_p + s.log_q
    return -(chance * (share[0] * learned[:, None] + share[1] * learned[None])).sum()


def elements_of(spec, subset):
    """Every latent's elements."""
    return [subset if latent.local else [0] for latent in spec.latents]


def enumerate_states(spec, theta, x, subset, uniform=0.0, still=False):
    """All joint values, drawn from the guide or its mixture with uniform draws; as data where `still`."""
    table, elements = Table(spec), elements_of(spec, subset)
    number = lambda who, i, what: theta[table.places[who, i, what][0]].view(
        table.places[who, i, what][1]
    )
    ranges = [
        range(options(latent))
        for latent, of in zip(spec.latents, elements, strict=True)
        for _ in of
    ]
    grid = list(itertools.product(*ranges))
    codes = iter(torch.tensor(grid).T)
    ratio = spec.nodes / len(subset)
    zero = torch.zeros(len(grid), dtype=torch.float64)
    log_chance, log_q, log_p, cost = zero, zero, zero, zero
    features, exists = [], []
    for i, (latent, of) in enumerate(zip(spec.latents, elements, strict=True)):
        features.append({})
        exists.append({})
        for j in of:
            there = torch.ones_like(zero)
            if latent.gate is not None:
                there = pick(exists[latent.gate], j)
            context = zero
            for parent in latent.parents:
                seen = features[parent]
                whole = spec.latents[parent].local and not latent.local
                context = context + (sum(seen.values()) if whole else pick(seen, j))
            at = x[j] if latent.local else x.mean()
            row = j if latent.local else 0
            q = number("q", i, "bias")[row] + context[:, None] * number("q", i, "slope")[0]
            q = q + at * number("q", i, "image")[0]
            p = number("p", i, "bias")[row] + context[:, None] * number("p", i, "slope")[0]
            value, chance, mine, theirs = score(latent.kind, next(codes), q, p, uniform, still)
            log_chance = log_chance + chance
            drawn_from = mine if latent.kind == "normal" else chance
            # a mask says nothing of what exists: what is drawn is drawn
            drawn = there if latent.style == "gate" else torch.ones_like(zero)
            log_q = log_q + drawn.detach() * mine
            weight = (1.0 if latent.weight is None else latent.weight) * (
                0.0 if latent.free else 1.0
            )
            weight = weight * (1.0 if latent.scale is None else latent.scale)
            weight = weight * (ratio if latent.local else 1.0)
            cost = cost + weight * there * (drawn_from - theirs)
            log_p = log_p + weight * there * theirs
            features[i][j] = value * there
            exists[i][j] = value * there if latent.kind == "bernoulli" else None
    for j in subset:
        total = sum(
            (
                number("p", i, "colour")[0, 0] * pick(features[i], j)
                for i in range(len(spec.latents))
            ),
            zero,
        )
        mean = total + 0.3 * total**2
        nats = 0.5 * ((x[j] - mean) / NOISE) ** 2 + math.log(NOISE * math.sqrt(2 * math.pi))
        weight = ratio if spec.likelihood == "local" else 1.0
        cost, log_p = cost + weight * nats, log_p - weight * nats
    return State(log_chance, log_q, log_p, cost)


def pick(table, j):
    """An element's own, or the image's."""
    return table[j] if j in table else table[0]


def score(kind, code, q, p, uniform=0.0, still=False):
    """An element's feature, log chance, log q and log p at the values of a code (states)."""
    mixed = lambda log_q, number: ((1 - uniform) * log_q.exp() + uniform / number).log()
    if kind == "bernoulli":
        sign = 2.0 * code - 1
        mine, theirs = log_sigmoid(sign * q[:, 0]), log_sigmoid(sign * p[:, 0])
        return code.double(), mixed(mine, 2), mine, theirs
    if kind in ("onehot", "category"):
        take = lambda logits: (logits - logits.logsumexp(1, keepdim=True)).gather(1, code[:, None])[
            :, 0
        ]
        mine = take(q)
        return torch.tensor(CODE, dtype=torch.float64)[code], mixed(mine, 3), mine, take(p)
    if kind == "joined":
        bits = torch.stack([code % 2, code // 2], 1)
        sign = 2.0 * bits - 1
        mine, theirs = log_sigmoid(sign * q), log_sigmoid(sign * p).sum(1)
        worth = (bits * torch.tensor(PAIR, dtype=torch.float64)).sum(1)
        return worth, mixed(mine, 2).sum(1), mine.sum(1), theirs
    points, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE)
    at = torch.tensor(points)[code]
    chance = torch.tensor(weights / math.sqrt(2 * math.pi)).log()[code]
    value = q[:, 0] + SPREAD * at
    value = value.detach() if still else value
    half = 0.5 * math.log(2 * math.pi)
    mine = -0.5 * ((value - q[:, 0]) / SPREAD) ** 2 - math.log(SPREAD) - half
    return value, chance, mine, -0.5 * (value - p[:, 0]) ** 2 - half


def log_sigmoid(x):
    return -torch.log1p((-x).exp())
