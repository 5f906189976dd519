"""Penalties: functions of the Scene that an objective adds."""

from dataclasses import replace

import pyro
import pytest
import tiny
import torch

from inference.estimators import ESTIMATORS, estimator
from inference.objectives import Boundary, Objective, Upright, cost_terms, per_image
from inference.recipes import recipes_of
from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.space import VARIANTS


def build(**changes):
    return tiny.build("space", **{"glimpse": 16, **changes})


def boxed(opacity, pres=1.0):
    """One box over the whole image of 32 pixels, of which `opacity` (32, 32) is what is seen."""
    pres = torch.full((1, 1), pres)
    pose = render.pose(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), torch.zeros(1, 1))
    nodes = Nodes(pres, pose, torch.zeros(1, 1), torch.zeros(1, 1).long())
    return Scene(torch.zeros(1, 3, 32, 32), (nodes,), opacity=opacity[None, None])


def test_the_boundary_counts_what_is_opaque_in_the_border():
    penalty, opacity = Boundary(border=6, sd=0.5), torch.zeros(32, 32)
    opacity[6:26, 6:26] = 1.0
    assert float(penalty(boxed(opacity))) == 0  # all inside
    opacity[5, 10] = opacity[31, 31] = 1.0
    opacity[0, 0] = 0.5
    expected = 0.5 * (1 + 1 + 0.25) / 0.25
    assert float(penalty(boxed(opacity))) == pytest.approx(expected, rel=1e-4)
    assert float(penalty(boxed(opacity, pres=0.5))) == pytest.approx(expected / 4, rel=1e-4)
    assert float(penalty(boxed(opacity, pres=0.0))) == 0
    with pytest.raises(ValueError, match="opacity"):
        penalty(Scene(torch.zeros(1, 3, 32, 32), ()))


def test_the_boundary_makes_boxes_larger_and_edges_clear():
    opacity = torch.zeros(32, 32)
    opacity[4:28, 4:28] = 0.5
    opacity.requires_grad_()
    scale = torch.full((1, 1, 2), 0.87, requires_grad=True)
    scene = boxed(opacity)
    (nodes,) = scene.levels
    pose = render.pose(torch.zeros(1, 1, 2), scale, torch.zeros(1, 1))
    nodes = Nodes(nodes.pres, pose, nodes.depth, nodes.parent)
    Boundary()(Scene(scene.image, (nodes,), opacity=scene.opacity)).sum().backward()
    assert (scale.grad < 0).all()
    assert (opacity.grad >= 0).all() and opacity.grad.max() > 0


def turned(mask, angle, pres=1.0):
    """One object that shows `mask` (64, 64) in the frame of the image, where its own has another angle."""
    angle = torch.as_tensor(angle).view(1, 1)
    pose = render.pose(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), angle)
    patch = render.crop(mask[None, None, None], pose.detach().unsqueeze(2), 64).flatten(0, 1)
    nodes = Nodes(torch.full((1, 1), pres), pose, torch.zeros(1, 1), torch.zeros(1, 1).long())
    return Scene(torch.zeros(1, 3, 32, 32), (replace(nodes, patch=patch),))


def bar():
    """A bar along x, with a heavy end to the left and so a long one to the right."""
    mask = torch.zeros(64, 64)
    mask[30:34, 16:50] = 1.0
    mask[25:39, 16:26] = 1.0
    return mask


def test_a_bar_is_upright_where_its_moments_are_real():
    costs = [float(Upright()(turned(bar(), a))) for a in torch.linspace(-3.1, 3.1, 63)]
    assert 29 <= costs.index(min(costs)) <= 33  # at an angle of 0, its long end to the right
    across, against = (float(Upright()(turned(bar(), a))) for a in (1.5708, 3.1416))
    assert min(costs) < min(across, against) - 1


def test_frames_turn_towards_upright_and_nothing_else_does():
    angle = torch.tensor(0.5, requires_grad=True)
    scene = turned(bar(), angle)
    patch = scene.objects.patch.requires_grad_()
    Upright()(scene).sum().backward()
    near = [float(Upright()(turned(bar(), a))) for a in (0.4, 0.6)]
    assert float(angle.grad) == pytest.approx((near[1] - near[0]) / 0.2, rel=0.1)
    assert patch.grad is None and float(angle.grad) > 1


def test_round_and_absent_objects_need_no_angle():
    axis = torch.arange(64.0) - 31.5
    disc = ((axis**2 + axis[:, None] ** 2) < 400).float()
    assert abs(float(Upright()(turned(disc, 0.4)))) < 0.02
    assert float(Upright()(turned(bar(), 0.0, pres=0.0))) == 0
    empty = turned(torch.zeros(64, 64), 0.0)
    assert torch.isfinite(Upright()(empty)).all()


def test_upright_needs_patches():
    for scene in (boxed(torch.zeros(32, 32)), Scene(torch.zeros(1, 3, 32, 32), ())):
        with pytest.raises(ValueError, match="patches"):
            Upright()(scene)


def mean_grey(scene, images):
    return scene.image.mean((1, 2, 3))


@pytest.mark.parametrize("method", sorted(ESTIMATORS.keys() - {"sleep"}))  # it scores dreams alone
def test_every_estimator_pays_the_penalty_and_learns_from_it(method):
    program, guide = build()
    x = torch.rand(4, 3, 32, 32)
    estimate = estimator(
        ({"disarm": "z_pres*=disarm,*=rloo:2"} | tiny.OF_BOUNDS).get(method, method)
    )
    estimate.prepare(program, guide, x)
    objective = Objective(penalties={"boundary": Boundary(), "grey": mean_grey})

    def run(objective):
        pyro.set_rng_seed(2)
        return estimate(program, guide, x, objective)

    loss, terms = run(objective)
    without, others = run(Objective())
    assert terms.keys() - others.keys() == {"penalty/boundary", "penalty/grey"}
    assert terms["penalty/grey"] > 0
    torch.testing.assert_close({k: terms[k] for k in others}, others)
    gradients = (
        torch.autograd.grad(v, program.component_decoder.net[0].weight) for v in (loss, without)
    )
    assert not torch.equal(*(g for (g,) in gradients))


def test_weights_name_penalties_and_weight_zero_is_none():
    program, guide = build()
    x, table = torch.rand(2, 3, 32, 32), {"grey": mean_grey}
    costs = []
    for weight in (1.0, 3.0, 0.0):
        pyro.set_rng_seed(0)
        weights = {"penalty/grey": torch.tensor(weight)}
        terms = cost_terms(*Objective(weights, penalties=table).traces(program, guide, x))
        costs.append(per_image(terms["penalty/grey"]))
    assert costs[0].shape == (2,)
    torch.testing.assert_close(costs[1], 3 * costs[0])
    assert (costs[2] == 0).all()


def test_a_penalty_needs_a_scene_and_a_number_an_image():
    program, guide = build()
    x = torch.rand(2, 3, 32, 32)
    for penalty, words in ((lambda s, _: s.image.mean(), "shape"), (lambda s, _: s.image, "shape")):
        with pytest.raises(ValueError, match=words):
            Objective(penalties={"odd": penalty}).traces(program, guide, x)
    with pytest.raises(ValueError, match="returns a Scene"):
        Objective(penalties={"odd": mean_grey}).traces(lambda x: None, guide, x)


def test_presets_have_the_boundary_and_may_be_without(tmp_path):
    from inference.plan import Run, plan

    for variant in VARIANTS:
        for preset in ("quick", "paper"):
            assert isinstance(recipes_of("space")[variant][preset].penalties["boundary"], Boundary)
    run = Run("programs/space.py", tmp_path, set=("train.penalties={}",))
    assert plan(run).recipe.penalties == {}
    for wrong in ("{'a': 1}", "boundary,other", "3"):
        with pytest.raises(ValueError, match="names of those of the recipe"):
            plan(Run("programs/space.py", tmp_path, set=(f"train.penalties={wrong}",)))


def test_a_run_may_keep_some_penalties_of_its_recipe(tmp_path):
    from inference.plan import Run, plan

    run = Run("programs/denf.py", tmp_path, set=("train.penalties=background,reconstruction",))
    assert [*plan(run).recipe.penalties] == ["background", "reconstruction"]


@torch.no_grad()
def test_the_reported_bound_has_no_penalty():
    from analysis.posterior import log_weights

    program, guide = build()
    x = torch.rand(2, 3, 32, 32)
    pyro.set_rng_seed(0)
    before = log_weights(program, guide, x, 3)
    Objective(penalties={"boundary": Boundary()}).traces(program, guide, x)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(log_weights(program, guide, x, 3), before)
