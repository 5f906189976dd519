"""The trainer: scheduled weights, clipping, and what must fit."""

import math
from dataclasses import replace

import pytest
import tiny
import torch
from training import OWN, equal, small, train, weights

from guides import discrete_air
from inference.estimators import ESTIMATORS, apart, estimator
from inference.plan import Run, plan
from inference.schedules import Constant, Linear, Until
from inference.trainer import Trainer, Training, largest


def test_a_program_and_guide_that_disagree_are_refused_by_site(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(
        OWN.replace('pyro.sample("z_what", dist.Normal(loc', 'pyro.sample("z", dist.Normal(loc')
    )
    with pytest.raises(ValueError, match=r"program has z_what of .* guide z of"):
        train(Run(str(path), tmp_path / "run", steps=2, set=("train.scenes=8", "train.batch=4")))


def test_a_weight_on_a_schedule_multiplies_the_kl_of_the_sites_it_names(tmp_path):
    p = plan(small(tmp_path))
    plain = {k: v for k, v in p.recipe.schedules.items() if not k.startswith("weight.")}
    plain["learning_rate"] = Linear(0.0, 0.0, 1)
    weighed = {**plain, "weight.z_what*": Linear(0.0, 3.0, 1)}
    found = {}
    for name, schedules in (("plain", plain), ("weighed", weighed)):
        torch.manual_seed(0)
        modules = p.source.build(p.config)
        gradients = estimator("gumbel")
        chosen = replace(p, recipe=replace(p.recipe, schedules=schedules))
        trainer, x = Trainer(chosen, *modules, gradients), torch.rand(2, 3, 32, 32)
        found[name] = [(torch.manual_seed(1), trainer.update(x)[1])[1] for _ in range(2)]
    for before, after, factor in zip(found["plain"], found["weighed"], (0, 3), strict=True):
        for term, value in before.items():
            wanted = factor * value if term.startswith("kl/z_what") else value
            torch.testing.assert_close(after[term], wanted)


def test_a_module_rests_where_its_rate_has_the_factor_0(tmp_path):
    p = plan(small(tmp_path))
    schedules = {**p.recipe.schedules, "rate.program": Until(0.0, 2, after=1.0)}
    modules = p.source.build(p.config)
    trainer = Trainer(
        replace(p, recipe=replace(p.recipe, schedules=schedules)), *modules, estimator("gumbel")
    )
    moved = []
    for _ in range(3):
        before = [[q.clone() for q in m.parameters()] for m in modules]
        trainer.update(torch.rand(2, 3, 32, 32))
        after = [[*m.parameters()] for m in modules]
        moved.append(
            [
                any((a != b).any() for a, b in zip(*x, strict=True))
                for x in zip(before, after, strict=True)
            ]
        )
    assert moved == [[False, True], [False, True], [True, True]]


def test_a_module_learns_at_its_own_rate(tmp_path):
    """A step of Adam from its start is as long as the rate, whatever the gradient."""
    p = plan(small(tmp_path))
    moved = {}
    for factor in (1.0, 0.25):
        torch.manual_seed(0)
        modules = p.source.build(p.config)
        schedules = {"learning_rate": Constant(1e-3), "rate.guide": Constant(factor)}
        chosen = replace(p, recipe=replace(p.recipe, schedules=schedules))
        trainer = Trainer(chosen, *modules, estimator("gumbel"))
        before = [[q.clone() for q in m.parameters()] for m in modules]
        trainer.update(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
        moved[factor] = [
            max(
                float((a - b).detach().abs().max())
                for a, b in zip(m.parameters(), old, strict=True)
            )
            for m, old in zip(modules, before, strict=True)
        ]
    assert moved[1.0] == pytest.approx([1e-3, 1e-3], rel=1e-3)
    assert moved[0.25] == pytest.approx([1e-3, 0.25e-3], rel=1e-3)


@pytest.mark.parametrize("name", ["gradient.program", "rate.estimator", "rate", "programme.sigma"])
def test_a_schedule_of_something_unknown_is_refused(name, tmp_path):
    p = plan(small(tmp_path))
    schedules = {**p.recipe.schedules, name: Constant(1.0)}
    chosen = replace(p, recipe=replace(p.recipe, schedules=schedules))
    with pytest.raises(ValueError, match=f"{name}.*expected learning_rate, rate.program"):
        Trainer(chosen, *p.source.build(p.config), estimator("gumbel"))


def test_a_schedule_of_a_buffer_that_is_not_there_is_refused_by_name(tmp_path):
    p = plan(small(tmp_path))
    schedules = {**p.recipe.schedules, "program.sigmas": Constant(1.0)}
    chosen = replace(p, recipe=replace(p.recipe, schedules=schedules))
    with pytest.raises(ValueError, match=r"'program\.sigmas': the program has no buffer 'sigmas'"):
        Trainer(chosen, *p.source.build(p.config), estimator("gumbel"))


def sorting(out, **kwargs):
    """A training of Discrete-AIR's `tiny` on digits that sorts templates before step 2."""
    return tiny.run(
        "discrete_air",
        out,
        variant="discrete_air_mnist",
        set=("train.moves={2: 'sort'}",),
        **kwargs,
    )


def test_a_move_is_made_once_and_again_when_a_run_is_resumed(tmp_path, monkeypatch, capsys):
    made, sort = [], discrete_air.Guide.sort
    monkeypatch.setattr(
        discrete_air.Guide, "sort", lambda self, x: (made.append(x.shape), sort(self, x))
    )
    whole = train(sorting(tmp_path / "whole"))
    assert made == [(64, 1, 40, 40)]
    assert "templates: " in capsys.readouterr().out
    train(sorting(tmp_path / "parts", steps=2))
    assert len(made) == 1
    parts = train(sorting(tmp_path / "parts", resume=True))
    assert len(made) == 2 and equal(weights(whole), weights(parts))


def test_a_move_that_the_guide_does_not_know_is_refused(tmp_path):
    with pytest.raises(ValueError, match="moves name 'shuffle', and the guide has no such method"):
        train(small(tmp_path / "run", set=("train.moves={2: 'shuffle'}",)))


def test_gradients_are_clipped_by_their_largest_number():
    parameters = [torch.nn.Parameter(torch.randn(n)) for n in (15, 7, 2)]
    for p in parameters[:2]:
        p.grad = 3 * torch.randn_like(p)
    assert largest(parameters) == torch.cat([p.grad for p in parameters[:2]]).abs().max()
    parameters[1].grad[3] = math.nan
    assert largest(parameters).isnan()


def state(modules):
    """A copy of all parameters and buffers of a training."""
    owned = [
        (f"{m}.{k}", v) for m, module in modules.items() for k, v in module.state_dict().items()
    ]
    return {name: tensor.clone() for name, tensor in owned}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_validation_loss_is_the_objective_and_leaves_no_trace(name, tmp_path):
    text = {**tiny.OF_BOUNDS, "sum_and_sample": "sum_and_sample:2"}.get(name, name)
    training = Training(plan(tiny.run("air", tmp_path, estimator=text)))
    program, guide, trainer = training.program, training.guide, training.trainer
    x, random = training.images(0)[:3], torch.get_rng_state()
    with apart(*trainer.modules.values()):
        surrogate, terms = training.estimator(program, guide, x, trainer.objective)
    expected = sum(float(term) for term in terms.values()) / len(x)
    before = state(trainer.modules)
    with torch.no_grad():
        assert trainer.loss(x) == pytest.approx(expected, rel=1e-5)
    if name == "gumbel":  # whose surrogate is the objective
        assert float(surrogate.detach()) / len(x) == pytest.approx(expected, rel=1e-6)
    assert equal(before, state(trainer.modules)) and torch.equal(random, torch.get_rng_state())
    parameters = [p for module in trainer.modules.values() for p in module.parameters()]
    assert all(parameter.grad is None for parameter in parameters)
