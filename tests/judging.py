"""How estimators are judged: their mean gradient against enumeration, in standard errors."""

import math
import warnings

import pyro
import pytest
import torch
from random_programs import (
    Small,
    Table,
    elements_of,
    exact_bound,
    exact_defence,
    exact_loss,
    exact_wake,
    options,
)

from inference.estimators import estimator

LIMIT = 4.5
"""Standard errors; what is beyond is drawn again with other noise, four times as much."""


LEARNED = ("nvil", "nvil_published", "relax")
"""Methods with networks, which take longer."""


OF_BERNOULLIS = ("disarm", "arms")


UNBIASED = (
    "reinforce", "nvil", "rloo:2", "rloo:4", "double_cv:3", "relax", "muprop", "rebar", "disarm",
    "arms:3", "unordered:2", "unordered:3", "sum_and_sample:2", "expect", "enumerate", "tracegraph",
)  # fmt: skip


SCORES = ("reinforce", "nvil", "rloo:2", "double_cv:2", "relax", "muprop", "rebar", "disarm", "arms:2",
          "unordered:2", "sum_and_sample:2", "expect")  # fmt: skip
"""Methods that bounds on two samples are judged with."""


BOUNDS = {
    **dict.fromkeys(("vimco:2", "vimco_dreg:2"), exact_bound),
    **{f"{bound}:2+{name}": exact_bound for name in SCORES for bound in ("iwae", "dreg")},
    **dict.fromkeys(("rws:2", "rws_dreg:2"), exact_wake),
    "rws_defensive:2": exact_defence,
}
"""What bounds on two samples follow."""


PATHWISE = (
    "gumbel",
    "gumbel_sparsemax",
    "gumbel_st",
    "gumbel_rao:2",
    "gapped_st",
    "reinmax",
    "mean",
    "competition",
    "nvil_published",
)
"""Biased for the guide."""


MOST = 112
"""Most joint values of a program whose pairs are summed over."""


RARE = 1e-3
"""Of the largest component: what a value that hardly ever comes may add to a component unseen."""


@pytest.fixture(autouse=True)
def in_double():
    torch.set_default_dtype(torch.float64)
    with pyro.validation_enabled(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing observed depends")
        yield
    torch.set_default_dtype(torch.float32)


def joins(spec):
    """Whether a latent outside of the plate joins its elements, which Pyro's own estimator misses."""
    return any(
        not z.local and any(spec.latents[parent].local for parent in z.parents)
        for z in spec.latents
    )


def fits(name, spec):
    """Whether a method can be used at all of a program's sites."""
    discrete = [z for z in spec.latents if z.kind != "normal"]
    method = name.rpartition("+")[2].partition(":")[0]
    kinds = {z.kind for z in discrete}
    if method == "tracegraph":
        return not joins(spec)
    if method in (
        "reinforce",
        "nvil",
        "nvil_published",
        "rloo",
        "vimco",
        "vimco_dreg",
        "rws",
        "rws_dreg",
        "rws_defensive",
    ):
        return True
    if "category" in kinds:
        return False
    if method in (
        "gumbel",
        "gumbel_sparsemax",
        "gumbel_st",
        "gumbel_rao",
        "gapped_st",
        "reinmax",
        "mean",
        "competition",
    ):
        return True
    if "joined" in kinds:
        return False
    if method == "rebar":
        return spec.likelihood != "read"
    return method not in OF_BERNOULLIS or kinds <= {"bernoulli"}


def pairs(spec):
    """Whether all pairs of joint values can be summed over."""
    elements = elements_of(spec, range(spec.taken))
    numbers = (options(z) ** len(e) for z, e in zip(spec.latents, elements, strict=True))
    return math.prod(numbers) <= MOST


def gradients(name, spec, rows, seed, calls=1, make=Small):
    """(rows, P) gradients of `rows` images by a method, and the nodes that were taken; the last of `calls`."""
    table = Table(spec)
    theta = table.start(spec.seed).repeat(rows, 1).requires_grad_()
    torch.manual_seed(spec.seed)
    x = torch.randn(2, spec.nodes).repeat(rows // 2, 1)
    images = x.view(rows, 1, 1, spec.nodes)
    small = make(spec, theta)
    torch.manual_seed(seed)
    method = estimator(name)
    method.prepare(small.program, small.guide, images)
    for _ in range(calls):
        small.subsets.clear()
        loss, _ = method(small.program, small.guide, images, spec.objective)
        found = torch.autograd.grad(loss, theta)[0]
    return found, (small.subsets[0] if small.subsets else torch.arange(spec.nodes)), x[:2]


def expected(exact, spec, x, subset):
    """(P,) mean over both images."""
    theta = Table(spec).start(spec.seed).requires_grad_()
    loss = sum(exact(spec, theta, row, subset.tolist()) for row in x) / 2
    return torch.autograd.grad(loss, theta)[0]


def distance(name, spec, rows, seed, exact, **options):
    """How many standard errors every component of the mean gradient is off."""
    found, subset, x = gradients(name, spec, rows, seed, **{"calls": 2} | options)
    right = expected(exact, spec, x, subset)
    off = found.mean(0) - right
    both = found.unflatten(0, (-1, 2)).mean(1)  # what differs between the two images is no noise
    error = both.std(0) / math.sqrt(len(both))
    return off / (error + RARE * right.abs().max() + 1e-9), off


def judge(name, spec, exact=exact_loss, part=slice(None), rows=2000, **options):
    """Fail where a component is off, and is so again."""
    rows = rows // 16 * 2 if name.rpartition("+")[2] in LEARNED else rows
    z, _ = distance(name, spec, rows, spec.seed + 1, exact, **options)
    if (z[part].abs() > LIMIT).any():
        z, off = distance(name, spec, 4 * rows, spec.seed + 2, exact, **options)
        assert (z[part].abs() < LIMIT).all(), (
            name,
            spec,
            z[part].abs().max(),
            off[part].abs().max(),
        )
