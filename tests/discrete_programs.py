"""Programs small enough to sum over all their discrete sites, with guides, and those sums."""

import itertools
import math

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from programs.blocks.distributions import gate

SITES = 3


class Bits(nn.Module):
    """z_pres_1 (3 bits), then z_pres_2 gated by them, then one pixel a bit: 2^6 scenes."""

    def __init__(self):
        super().__init__()
        self.prior = nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))
        self.colour = nn.Parameter(torch.tensor([0.9, 0.4, -0.7]))

    def forward(self, images):
        with pyro.plate("batch", len(images), dim=-2):
            with pyro.plate("nodes", SITES, dim=-1):
                a = pyro.sample(
                    "z_pres_1", dist.Bernoulli(logits=self.prior.expand(len(images), -1))
                )
                with gate(a):
                    b = pyro.sample("z_pres_2", dist.Bernoulli(logits=-self.prior.expand_as(a)))
            mean = (a * (1 + b) * self.colour).unsqueeze(-2)
            flat = images.flatten(1)[:, :SITES].unsqueeze(1)
            pyro.sample("images", dist.Normal(mean, 0.6).to_event(1), obs=flat)


class BitsGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(torch.tensor([0.2, -0.6, 0.1]))
        self.second = nn.Parameter(torch.tensor([0.7, 0.3, -0.4]))

    def forward(self, images):
        x = images.flatten(1)[:, :SITES]
        with pyro.plate("batch", len(images), dim=-2), pyro.plate("nodes", SITES, dim=-1):
            a = pyro.sample("z_pres_1", dist.Bernoulli(logits=self.first + 0.5 * x))
            with gate(a):
                pyro.sample("z_pres_2", dist.Bernoulli(logits=self.second - x))


def log_bernoulli(logit, bit):
    return nn.functional.logsigmoid(logit if bit else -logit)


def exact_loss(program, guide, images, sparse=None):
    """The negative ELBO by summing over all bits of every pixel, written out without Pyro."""
    total = 0.0
    for x in images.flatten(1)[:, :SITES]:
        for k in range(SITES):
            q1, q2 = guide.first[k] + 0.5 * x[k], guide.second[k] - x[k]
            p1, p2 = program.prior[k], -program.prior[k]
            for a, b in itertools.product((0, 1), repeat=2):
                weight = (log_bernoulli(q1, a) + log_bernoulli(q2, b)).exp()
                mean = a * (1 + b) * program.colour[k]
                cost = 0.5 * ((x[k] - mean) / 0.6) ** 2 + math.log(0.6 * math.sqrt(2 * math.pi))
                cost = cost + log_bernoulli(q1, a) - log_bernoulli(p1, a)
                cost = cost + a * (log_bernoulli(q2, b) - log_bernoulli(p2, b))
                total = total + weight * cost
            if sparse is not None:
                for gate_weight, q in ((1.0, q1), (q1.sigmoid(), q2)):
                    p = q.sigmoid()
                    r = torch.tensor(sparse)
                    kl = p * (log_bernoulli(q, 1) - log_bernoulli(r, 1))
                    kl = kl + (1 - p) * (log_bernoulli(q, 0) - log_bernoulli(r, 0))
                    total = total + gate_weight * kl
    return total


class Steps(nn.Module):
    """Stop or go on, twice; what was met at a step is one of three: sequential, gated, with a Gaussian."""

    def __init__(self):
        super().__init__()
        self.go = nn.Parameter(torch.tensor(0.4))
        self.kind = nn.Parameter(torch.tensor([0.3, -0.1, 0.2]))
        self.colour = nn.Parameter(torch.tensor([0.9, 0.4, -0.7]))

    def forward(self, images):
        rows = len(images)
        with pyro.plate("batch", rows, dim=-1):
            exists, mean = torch.ones(rows), torch.zeros(rows)
            for t in (1, 2):
                with gate(exists):
                    pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(logits=self.go.expand(rows)))
                exists = exists * pres
                with gate(exists):
                    kind = dist.OneHotCategorical(logits=self.kind.expand(rows, -1))
                    kind = pyro.sample(f"z_cat_{t}", kind)
                mean = mean + exists * (kind @ self.colour)
            pyro.sample("images", dist.Normal(mean, 0.6), obs=images[:, 0, 0, 0])


class StepsGuide(nn.Module):
    def __init__(self):
        super().__init__()
        self.go = nn.Parameter(torch.tensor([0.2, -0.6]))
        self.kind = nn.Parameter(torch.tensor([[0.7, 0.3, -0.4], [0.1, -0.2, 0.5]]))
        self.memory = nn.Parameter(torch.tensor([0.5, -0.5, 0.2]))

    def forward(self, images):
        x = images[:, 0, 0, 0]
        with pyro.plate("batch", len(x), dim=-1):
            exists, seen = torch.ones_like(x), torch.zeros_like(x)
            for t in (1, 2):
                with gate(exists):
                    logits = self.go[t - 1] + 0.5 * x + seen
                    pres = pyro.sample(f"z_pres_{t}", dist.Bernoulli(logits=logits))
                exists = exists * pres
                with gate(exists):
                    logits = self.kind[t - 1] + (x + seen)[:, None] * self.memory
                    kind = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=logits))
                seen = kind @ self.memory


def exact_steps_loss(program, guide, images, sparse=None):
    """The same by hand: stop at once, after one, or after two of nine pairs."""
    total = 0.0
    for x in images[:, 0, 0, 0]:

        def bit(q, p, value):
            return log_bernoulli(q, value), log_bernoulli(q, value) - log_bernoulli(p, value)

        def likelihood(mean, x=x):
            return 0.5 * ((x - mean) / 0.6) ** 2 + math.log(0.6 * math.sqrt(2 * math.pi))

        q_kind = (guide.kind[0] + x * guide.memory).log_softmax(0)
        p_kind = program.kind.log_softmax(0)
        stop, kl = bit(guide.go[0] + 0.5 * x, program.go, 0)
        total = total + stop.exp() * (kl + likelihood(torch.tensor(0.0)))
        go, first = bit(guide.go[0] + 0.5 * x, program.go, 1)
        for a in range(3):
            chance, mean = (go + q_kind[a]).exp(), program.colour[a]
            cost = first + q_kind[a] - p_kind[a]
            seen = guide.memory[a]
            stop, kl = bit(guide.go[1] + 0.5 * x + seen, program.go, 0)
            total = total + chance * stop.exp() * (cost + kl + likelihood(mean))
            on, kl = bit(guide.go[1] + 0.5 * x + seen, program.go, 1)
            again = (guide.kind[1] + (x + seen) * guide.memory).log_softmax(0)
            for b in range(3):
                ends = cost + kl + again[b] - p_kind[b] + likelihood(mean + program.colour[b])
                total = total + chance * (on + again[b]).exp() * ends
    return total


EXACT = {Bits: exact_loss, Steps: exact_steps_loss}


def make(program):
    torch.manual_seed(3)
    guide = {Bits: BitsGuide, Steps: StepsGuide}[program]
    return program(), guide(), torch.rand(2, 1, 16, 16)


def gradients(loss, modules):
    parameters = [p for m in modules for p in m.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
