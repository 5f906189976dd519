"""Every estimator on small random programs, against sums over all joint values that share no code with it."""

import os
from collections import Counter

import pyro
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from judging import (  # noqa: F401
    BOUNDS,
    PATHWISE,
    SCORES,
    UNBIASED,
    fits,
    gradients,
    in_double,
    judge,
    options,
    pairs,
)
from random_programs import (
    Latent,
    Small,
    Spec,
    Table,
)

from inference.estimators import ESTIMATORS, Score, Share, estimator

STATES = 400
"""Most joint values of a program."""
HARD = ("gumbel_st", "gumbel_rao:2", "gapped_st", "reinmax", "nvil_published")
"""Of which these draw exact values: right for the program's own parameters."""


@st.composite
def specs(draw, kinds=("bernoulli", "bernoulli", "onehot", "category", "joined", "normal")):
    """Specs of at most `STATES` joint values."""
    nodes = draw(st.integers(1, 3))
    taken = draw(st.integers(1, nodes)) if draw(st.booleans()) else nodes
    latents, states = [], 1
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(kinds))
        local = kind != "normal" and draw(st.booleans())
        parents = tuple(j for j in range(i) if draw(st.booleans()))
        bits = [
            j
            for j in range(i)
            if latents[j].kind == "bernoulli" and (local or not latents[j].local)
        ]
        latent = Latent(
            kind,
            local,
            parents,
            draw(st.sampled_from([None, *bits])),
            draw(st.sampled_from(["gate", "gate", "mask", "fn"])),
            draw(st.sampled_from([None, None, 0.0, 0.3, 2.0])),
            draw(st.sampled_from([None, None, 0.5])),
            draw(st.integers(0, 5)) == 0,
        )
        grown = states * options(latent) ** (taken if local else 1)
        if grown > STATES or (kind == "normal" and any(z.kind == "normal" for z in latents)):
            break
        states = grown
        latents.append(latent)
    latents = latents or [Latent()]
    likelihood = draw(st.sampled_from(["local", "canvas", "inplace", "read"]))
    if not (likelihood == "local" or any(z.local for z in latents)):
        taken = nodes
    if latents[0].kind == "normal" and likelihood == "read":
        likelihood = "canvas"
    return Spec(
        tuple(latents), nodes, taken, draw(st.booleans()), likelihood, draw(st.integers(0, 10**6))
    )


def of_program(spec):
    """The parameters of the program alone."""
    table = Table(spec)
    chosen = torch.zeros(table.size, dtype=torch.bool)
    for (who, _, _), (place, _) in table.places.items():
        chosen[place] |= who == "p"
    return chosen


CHECKED = Counter()
"""Programs on which each method was judged so far."""


def judge_all(spec, rows, bounds=BOUNDS):
    """Every estimator on one program, of bounds those that are named."""
    for name in UNBIASED:
        if fits(name, spec):
            judge(name, spec, rows=rows)
            CHECKED[name] += 1
    for name in bounds:
        if pairs(spec) and fits(name, spec):
            judge(name, spec, BOUNDS[name], rows=rows)
            CHECKED[name] += 1
    for name in PATHWISE:
        if fits(name, spec):
            if name in HARD:
                judge(name, spec, part=of_program(spec), rows=rows)
            else:
                assert gradients(name, spec, 8, 1)[0].isfinite().all(), (name, spec)
            CHECKED[name] += 1


def test_every_estimator_is_among_those_that_are_judged():
    judged = {name.partition(":")[0] for name in (*UNBIASED, *BOUNDS, *PATHWISE)}
    assert {name.partition(":")[0] for name in SCORES} == {
        name for name, method in ESTIMATORS.items() if issubclass(method, Score)
    } - {"nvil_published"}  # which is biased
    assert judged == ESTIMATORS.keys() - {"rws_sleep"}  # it dreams, and is judged below


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(specs())
def test_every_estimator_agrees_with_enumeration_on_random_programs(spec):
    judge_all(spec, 1000, list(BOUNDS)[spec.seed % 8 :: 8])


@settings(
    max_examples=int(os.environ.get("PROGRAMS", "2000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(specs())
def judged_by_thousands(spec):
    judge_all(spec, 2000)
    CHECKED["programs"] += 1


@pytest.mark.slow
def test_every_estimator_agrees_with_enumeration_on_thousands_of_random_programs(capsys):
    CHECKED.clear()
    try:
        judged_by_thousands()
    finally:
        with capsys.disabled():
            programs = CHECKED.pop("programs", 0)
            print(
                f"\n{programs} programs, {CHECKED.total()} checks of methods on programs: {dict(CHECKED)}"
            )


def spread(name, spec, calls=2):
    """Total variance of the guide's gradient of one image."""
    found = gradients(name, spec, 2000, 1, calls=calls)[0][:, ~of_program(spec)]
    return float(found.unflatten(0, (-1, 2)).var(0).sum())  # of both images


def test_control_variates_and_runs_again_lower_the_variance():
    chain = Spec(
        (Latent(local=True), Latent("onehot", True, (0,), 0), Latent(parents=(1,))), seed=11
    )
    yardstick = spread("reinforce", chain)
    for name in ("rloo:2", "double_cv:2", "muprop", "rebar", "unordered:2", "expect"):
        assert spread(name, chain, calls=30) < 0.6 * yardstick, name
    bits = Spec((Latent(), Latent(parents=(0,))), seed=11)
    yardstick = spread("reinforce", bits)
    for name in ("disarm", "arms:2", "arms:4", "expect"):
        assert spread(name, bits) < 0.4 * yardstick, name


def test_enumerated_states_share_the_noise_of_gaussians(monkeypatch):
    spec = Spec((Latent(), Latent("normal", parents=(0,)), Latent(parents=(1,), gate=0)), seed=11)
    shared = spread("enumerate", spec)
    monkeypatch.setattr(Share, "_pyro_sample", lambda self, msg: None)
    assert shared < 0.9 * spread("enumerate", spec)


def seen_by_published(spec, rows=400, calls=150):
    """The published NVIL after some steps on one program: its baselines, by site."""
    theta = Table(spec).start(spec.seed).repeat(rows, 1)
    images = torch.zeros(rows, 1, 1, spec.nodes)
    small, method = Small(spec, theta), estimator("nvil_published")
    method.prepare(small.program, small.guide, images)
    optimiser = torch.optim.Adam(method.parameters(), 1e-2)
    for _ in range(calls):
        optimiser.zero_grad()
        method(small.program, small.guide, images, spec.objective)[0].backward()
        optimiser.step()
    return method.by_pattern["*"].baselines, small, images


def test_baselines_of_the_published_nvil_see_earlier_latents_and_present_rows_alone():
    latents = Latent(), Latent(parents=(0,), gate=0), Latent(parents=(0,))
    spec = Spec(latents, nodes=1, taken=1, seed=11)
    baselines, small, images = seen_by_published(spec, rows=40, calls=60)
    told = baselines["z_2"](images[:2], earlier=torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    assert (told[0] - told[1]).abs() > 0.02
    # the moments of z_1 weigh rows by whether z_0 says that it is there
    trace = pyro.poutine.trace(small.guide).get_trace(images)
    there = trace.nodes["z_0"]["fn"].probs.mean()
    share = float(baselines["z_1"].weight / baselines["z_0"].weight)
    assert share == pytest.approx(float(there), abs=0.1)
