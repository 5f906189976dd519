"""Every estimator on small random programs, against sums over all joint values that share no code with it."""

import json
import os
from pathlib import Path

import many_programs
import pyro
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from judging import (  # noqa: F401
    BOUNDS,
    LIMIT,
    PATHWISE,
    SCORES,
    UNBIASED,
    gradients,
    in_double,
    judge,
)
from many_programs import checks_of, judge_programs, of_program, summary
from random_programs import Dice, Latent, Small, Spec, Table, compose

from inference.estimators import ESTIMATORS, RLOO, Reinforce, Score, Share, estimator


@st.composite
def specs(draw):
    """Programs whose choices are hypothesis's."""
    return compose(
        Dice(lambda low, high: draw(st.integers(low, high)), lambda x: draw(st.sampled_from(x)))
    )


def judge_all(spec, rows, bounds):
    """Every estimator on one program, of bounds those that are named."""
    for name, exact, part in checks_of(spec):
        if exact is None:
            assert gradients(name, spec, 8, 1)[0].isfinite().all(), (name, spec)
        elif name not in BOUNDS or name in bounds:
            judge(name, spec, exact, part, rows)


def test_every_estimator_is_among_those_that_are_judged():
    judged = {name.partition(":")[0] for name in (*UNBIASED, *BOUNDS, *PATHWISE)}
    assert {name.partition(":")[0] for name in SCORES} == {
        name for name, method in ESTIMATORS.items() if issubclass(method, Score)
    } - {"nvil_published"}  # which is biased
    assert judged == ESTIMATORS.keys() - {"rws_sleep", "sleep"}  # they dream


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


@pytest.mark.slow
def test_every_estimator_agrees_with_enumeration_on_thousands_of_random_programs(tmp_path, capsys):
    """``FIRST=0 PROGRAMS=2000 JUDGED=FILE``: a file that is there already is continued."""
    first, number = int(os.environ.get("FIRST", "0")), int(os.environ.get("PROGRAMS", "2000"))
    path = Path(os.environ.get("JUDGED", tmp_path / "judged.jsonl"))
    judge_programs(range(first, first + number), path)
    found = summary(path)
    path.with_suffix(".summary.json").write_text(json.dumps(found, indent=2) + "\n")
    with capsys.disabled():
        print(f"\n{found['programs']} programs, checks by method: {found['checks']}")
        print(f"offsets of all programs together, in standard errors: {found['together']}")
    assert not found["failures"], found["failures"][:20]
    far = {name: z for name, z in found["together"].items() if abs(z) > LIMIT}
    assert not far, far


def test_a_planted_bias_and_a_traceback_are_found_and_a_file_is_continued(monkeypatch, tmp_path):
    monkeypatch.setattr(many_programs, "UNBIASED", ("reinforce", "rloo:2"))
    monkeypatch.setattr(many_programs, "BOUNDS", {})
    monkeypatch.setattr(many_programs, "PATHWISE", ())
    path = tmp_path / "judged.jsonl"
    judge_programs(range(4), path)
    right = summary(path)
    assert not right["failures"] and all(abs(z) < LIMIT for z in right["together"].values())
    score = RLOO.surrogate
    monkeypatch.setattr(RLOO, "surrogate", lambda self, site: 1.5 * score(self, site))
    monkeypatch.setattr(Reinforce, "surrogate", lambda self, site: site.no_such_thing)
    path.write_text(path.read_text() + '{"program": 4, "che')
    judge_programs(range(8), path)
    found = summary(path)
    assert found["programs"] == 8 and found["checks"] == {"reinforce": 8, "rloo:2": 8}
    failed = [(number, name) for number, name, _ in found["failures"]]
    assert [number for number, name in failed if name == "reinforce"] == [4, 5, 6, 7]
    assert sum(name == "rloo:2" for _, name in failed) >= 3
    assert "no_such_thing" in next(why for _, name, why in found["failures"] if name == "reinforce")


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
