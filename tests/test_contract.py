"""What every program and guide owes, over all programs and variants."""

import dataclasses

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from tiny import OF_BOUNDS, OF_CONTINUOUS, build, cases, images

from analysis.posterior import infer, log_weights
from inference.estimators import ESTIMATORS, is_discrete
from inference.estimators import estimator as make_estimator
from inference.loading import ROOT, own_programs
from inference.objectives import Objective, cost_terms, log_prob_per_image, per_image
from inference.recipes import recipes_of
from inference.trainer import check_match
from programs.blocks import nets, render


@pytest.fixture(params=list(cases()), ids="-".join)
def pair(request):
    return build(*request.param)


def test_every_program_has_a_guide_and_presets():
    files = {p.stem for p in (ROOT / "programs").glob("*.py")} - {"__init__", "scene"}
    assert files == set(own_programs())
    assert all({"tiny", "quick", "paper"} <= set(recipes_of(name)[name]) for name in files)


def test_the_prior_runs_without_images_and_repeats_with_its_seed(pair):
    program, _ = pair
    scenes = []
    for seed in (1, 1, 2):
        pyro.set_rng_seed(seed)
        scenes.append(program(batch=3))
    a, b, c = (
        torch.cat([s.image.flatten(), *(nodes.pose.flatten() for nodes in s.levels)])
        for s in scenes
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_guide_and_program_sample_the_same_sites_in_the_same_order(pair):
    traces = Objective().traces(*pair, images(2, pair[0]))
    check_match(*traces)
    a, b = (
        [
            (n, t.nodes[n]["fn"].batch_shape, t.nodes[n]["fn"].event_shape)
            for n in t.stochastic_nodes
            if hasattr(t.nodes[n]["fn"], "batch_shape")
        ]
        for t in traces
    )
    assert a == b
    assert sum(name.startswith("z_") for name, *_ in a) > 0


def test_the_scene_is_finite_in_range_and_a_tree(pair):
    program, _ = pair
    scene = program(batch=4)
    assert scene.image.shape == images(4, program).shape
    assert scene.image.min() >= 0 and scene.image.max() <= 1 + 1e-5
    above = torch.ones(4, 1)
    for nodes in scene.levels:
        assert nodes.pose.isfinite().all()
        assert set(nodes.pres.unique().tolist()) <= {0.0, 1.0}
        # a child is present only where its parent is (GSGN eq. 3)
        assert (nodes.pres <= above.gather(1, nodes.parent)).all()
        above = nodes.pres
    for masks, nodes in zip(render.visible_masks(scene), scene.levels, strict=True):
        assert masks.sum(1).max() <= 1 + 1e-4
        assert (masks.amax((2, 3))[nodes.pres == 0] == 0).all()


@torch.no_grad()
def test_a_scene_drawn_again_is_the_same(pair):
    program, guide = pair
    if not hasattr(program, "redraw"):
        pytest.skip("the program has no redraw")
    if hasattr(program, "arrange"):
        pytest.skip("it draws the mean over shapes: tests/test_layers.py")
    x = images(6, program)
    trace = poutine.trace(guide).get_trace(x)
    for name, site in trace.nodes.items():
        if name.startswith("z_pres"):
            site["value"] = torch.bernoulli(torch.full_like(site["value"], 0.7))
    scene = poutine.replay(program, trace=trace)(x)
    assert all(0 < nodes.pres.mean() < 1 for nodes in scene.levels)
    *inner, leaves = scene.levels
    inner = [dataclasses.replace(n, patch=torch.zeros_like(n.patch)) for n in inner]
    blank = dataclasses.replace(scene, image=torch.zeros_like(scene.image), levels=(*inner, leaves))
    again = program.redraw(blank)
    torch.testing.assert_close(again.image, scene.image, rtol=0, atol=1e-4)
    for new, old in zip(again.levels, scene.levels, strict=True):
        there = old.present
        torch.testing.assert_close(new.patch[there], old.patch[there], rtol=0, atol=1e-4)


MIXED = {  # what a method cannot do alone in every program, and is for one kind of site
    "arms": "z_pres*=arms:2,*=rloo:2",
    "disarm": "z_pres*=disarm,*=rloo:2",
    "enumerate": "z_pres_1=enumerate,*=gumbel",
    "expect": "z_pres_1=expect,*=rloo:2",
    "unordered": "z_pres_1=unordered,*=rloo:2",
    "sum_and_sample": "z_pres_1=sum_and_sample:2,*=rloo:2",
}
OF_LAYERS = {
    "arms": "z_mask_2=arms:2,*=rloo:2",
    "disarm": "z_mask_2=disarm,*=rloo:2",
    "enumerate": "z_cat_1=enumerate,*=gumbel",
    "expect": "z_cat_1=expect,*=rloo:2",
    "unordered": "z_cat_1=unordered,*=rloo:2",
    "sum_and_sample": "z_cat_1=sum_and_sample:2,*=rloo:2",
    "competition": "z_cat*=competition,z_mask*=mean",
}


LIKE_OTHERS = {"gumbel_sparsemax", "rws_dreg", "vimco_dreg"}
"""Made as gumbel and dreg are."""
DREAMS = {"sleep"}
"""The program does not learn, and few dreams may have no object: tests/inference/estimators/test_sleep.py."""


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS.keys() - LIKE_OTHERS - DREAMS))
def test_every_parameter_gets_a_finite_gradient_that_is_somewhere_not_zero(pair, estimator):
    program, guide = pair
    layered = hasattr(guide, "compete")
    if estimator == "competition" and not layered:
        pytest.skip("nothing competes: all logits are to be learned")
    if layered:
        guide.sharpness.fill_(0.0)  # or an expert may not win in so few images
    x = images(6, program)
    sites = poutine.trace(guide).get_trace(x).nodes.values()
    discrete = any(map(is_discrete, sites))
    if estimator not in OF_CONTINUOUS and not discrete:
        pytest.skip("nothing is discrete: tests/inference/estimators/test_what_users_write.py")
    if estimator == "enumerate" and getattr(program.config, "side", 0) > 3:
        pytest.skip("there are 2^16 joint values of presences")
    text = (OF_BOUNDS | (OF_LAYERS if layered else MIXED)).get(estimator, estimator)
    text = text if discrete else estimator
    if not any(site["name"] == "z_pres_1" for site in sites):  # cells, which have no level
        text = text.replace("z_pres_1", "z_pres")
    estimator = make_estimator(text)
    estimator.prepare(program, guide, x)
    loss, _ = estimator(
        program, guide, x, Objective(auxiliary=recipes_of("gsgn")["gsgn"]["quick"].auxiliary)
    )
    loss.backward()
    for owner, module in (("program", program), ("guide", guide)):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{owner}.{name} has no gradient"
            assert parameter.grad.isfinite().all(), (
                f"{owner}.{name} has a gradient that is not finite"
            )
            assert parameter.grad.abs().max() > 0, f"{owner}.{name} has a gradient of zero"


def test_leaving_absent_nodes_out_changes_no_gradient(pair, monkeypatch):
    program, guide = pair
    x, method = images(6, program), make_estimator("reinforce")
    parameters = [*program.parameters(), *guide.parameters()]

    def gradient():
        pyro.set_rng_seed(3)
        loss, _ = method(program, guide, x, Objective())
        return loss, torch.autograd.grad(loss, parameters, allow_unused=True)

    loss, without = gradient()
    monkeypatch.setattr(nets, "ABSENT", -1.0)
    loss_of_all, of_all = gradient()
    torch.testing.assert_close(loss, loss_of_all)
    for a, b in zip(without, of_all, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-6)


def test_log_probability_is_per_image_and_follows_the_images(pair):
    program, guide = pair
    x = images(3, program)
    trace = poutine.trace(guide).get_trace(x)
    order = torch.tensor([2, 0, 1])
    moved = trace.copy()
    for name in moved.stochastic_nodes:
        if name in ("batch", "rows", "columns", "components", "cells") or name.startswith(
            "nodes_"
        ):  # plates
            continue
        moved.nodes[name] = {**moved.nodes[name], "value": trace.nodes[name]["value"][order]}
    a, b = (
        log_prob_per_image(poutine.trace(poutine.replay(program, trace=t)).get_trace(i))
        for t, i in ((trace, x), (moved, x[order]))
    )
    assert a.shape == (3,)
    torch.testing.assert_close(a[order], b, rtol=1e-4, atol=1e-2)


def test_infer_gives_hard_scenes_and_the_same_ones_every_time(pair):
    program, guide = pair
    x = images(5, program)
    a, b = infer(program, guide, x, rows=2), infer(program, guide, x)
    torch.testing.assert_close(a.image, b.image, atol=1e-4, rtol=0)
    for nodes in a.levels:
        assert set(nodes.pres.unique().tolist()) <= {0.0, 1.0}


def test_float32_agrees_with_float64(pair):
    program, guide = pair
    x = images(2, program)
    trace = poutine.trace(guide).get_trace(x)
    single = closed_form_or_sampled(program, trace, x)
    for name in trace.stochastic_nodes:
        if name.startswith("z_"):
            trace.nodes[name]["value"] = trace.nodes[name]["value"].double()
    double = closed_form_or_sampled(program.double(), trace, x.double())
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-2)


def closed_form_or_sampled(program, guide_trace, x):
    return log_prob_per_image(
        poutine.trace(poutine.replay(program, trace=guide_trace)).get_trace(x)
    )


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceGraph_ELBO])
def test_program_and_guide_train_under_pyros_own_svi(elbo):
    with pyro.settings.context(module_local_params=False):
        program, guide = build("gsgn", "gsgn")
        pyro.clear_param_store()
        svi = SVI(program, guide, pyro.optim.Adam({"lr": 3e-3}), elbo())
        x = images(4, program)
        losses = [svi.step(x) for _ in range(20)]
    assert len(pyro.get_param_store()) > 50
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_variants_differ_in_parameters_sites_or_densities():
    counts = {}
    for name, variant in cases():
        pyro.set_rng_seed(0)
        program, guide = build(name, variant)
        trace, sites = Objective().traces(program, guide, images(1, program))
        shapes = tuple(
            (n, tuple(s["value"].shape)) for n, s in sites.nodes.items() if s["type"] == "sample"
        )
        density = log_prob_per_image(trace, ["images"]).item()
        counts[name, variant] = (shapes, sum(p.numel() for p in guide.parameters()), density)
    assert len(set(counts.values())) == len(counts)


def test_closed_form_terms_average_to_the_sampled_bound():
    """KL in closed form against the draws' log-ratio, hard presence: the same expectation."""
    pyro.enable_validation(False)
    program, guide = build("gsgn", "gsgn")
    x = images(2, program)
    n = 400
    with torch.no_grad():
        weights = log_weights(program, guide, x, n).sum(1)
        closed = torch.stack([-hard_terms(program, guide, x) for _ in range(n)])
    error = ((weights.var() + closed.var()) / n).sqrt()
    assert abs(weights.mean() - closed.mean()) < 4 * error


def hard_terms(program, guide, x):
    terms = cost_terms(*Objective().traces(program, guide, x))
    terms = {name: per_image(term).sum() for name, term in terms.items()}
    return sum(terms.values())


@pytest.mark.parametrize("learned", [0, 2])
@pytest.mark.parametrize("name", ["gsgn", "gnm", "space", "denf", "genesis", "convdraw", "vae"])
def test_particles_in_a_plate_to_the_left_are_independent_draws(name, learned):
    program, guide = build(name, learned=min(learned, 1) if name == "genesis" else learned)
    x, left = images(2, program), -2 if name == "vae" else -3

    def particles(fn):
        def run(x):
            with pyro.plate("particles", 3, dim=left):
                return fn(x)

        return run

    with torch.no_grad():
        trace = poutine.trace(particles(guide)).get_trace(x)
        scene = poutine.replay(particles(program), trace=trace)(x)
        drawn = [name for name in trace.stochastic_nodes if name.startswith("z_")]
        assert all(trace.nodes[name]["value"].shape[:2] == (3, 2) for name in drawn)
        own = {name: trace.nodes[name]["value"][0] for name in drawn}
        first = poutine.condition(program, data=own)(x)
    if name == "gsgn":
        assert trace.nodes["z_where_2"]["value"].shape == (3, 2, 16, 2)
    assert scene.image.shape == (3, *x.shape)
    assert not torch.equal(scene.image[0], scene.image[1])
    torch.testing.assert_close(scene.image[0], first.image, atol=1e-4, rtol=0)


@torch.no_grad()
def test_one_level_is_a_flat_model_written_independently():
    """A graph of depth one against a log-density put together by hand."""
    flat = {"children": (4,), "z_what": (12, 8), "crops": (8,), "scale": ((0.3, 0.29),)}
    flat |= {"scale_axes": (2,), "scale_start": (0.0,)}
    program, guide = build("gsgn", **flat)
    x = images(2, program)
    trace = poutine.trace(guide).get_trace(x)
    z = {n: trace.nodes[n]["value"] for n in trace.stochastic_nodes}
    got = log_prob_per_image(poutine.trace(poutine.replay(program, trace=trace)).get_trace(x))

    log_normal = lambda v, m, s: torch.distributions.Normal(m, s).log_prob(v).sum(-1)
    expected = log_normal(z["z_what_0"], 0.0, 1.0)[:, 0]
    raw = program.priors[0].net(z["z_what_0"]).view(2, 4, -1)
    softplus = torch.nn.functional.softplus
    names, widths = ("where", "scale", "theta", "depth"), (2, 2, 1, 1)
    start = 1
    pres = z["z_pres_1"]
    log_p = torch.distributions.Bernoulli(logits=raw[..., 0]).log_prob(pres)
    for name, width in zip(names, widths, strict=True):
        value = z[f"z_{name}_1"].view(2, 4, width)
        mean, std = raw[..., start : start + width], raw[..., start + 6 : start + 6 + width]
        log_p = log_p + pres * log_normal(value, mean, softplus(std) + 1e-4)
        start += width
    mean, std = raw[..., 13:].chunk(2, -1)
    log_p = log_p + pres * log_normal(z["z_what_1"], mean, softplus(std) + 1e-4)
    expected = expected + log_p.sum(1)
    mean, std = program.background_prior(z["z_what_0"]).chunk(2, -1)
    expected = expected + log_normal(z["z_bg"], mean, softplus(std) + 1e-4)[:, 0]

    import oracles

    patch = program.leaf_decoder(z["z_what_1"]).sigmoid()
    background = program.background_decoder(z["z_bg"]).sigmoid()[:, 0]
    cells = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    likelihood = []
    for b in range(2):
        placed = torch.zeros(4, 4, 32, 32)
        for k in range(4):
            where = cells[k] + 0.55 * z["z_where_1"][b, k].tanh()
            scale = 0.3 + 0.29 * z["z_scale_1"][b, k].tanh()
            theta = torch.pi * float(z["z_theta_1"][b, k].tanh())
            pose = oracles.affine(where.tolist(), scale.tolist(), theta)
            back = torch.linalg.inv(pose[:, :2])
            axis = (2 * torch.arange(32) + 1) / 32 - 1
            for j in range(32):
                for i in range(32):
                    u = back @ (torch.stack([axis[i], axis[j]]) - pose[:, 2])
                    if u.abs().max() < 1.2:
                        placed[k, :, j, i] = oracles.bilinear(patch[b, k], float(u[0]), float(u[1]))
        depth = softplus(z["z_depth_1"][b])
        whole = oracles.composite(placed, pres[b], depth).detach()
        mixing = whole[3:] * (1 - 2e-6) + 1e-6
        likelihood.append(
            oracles.mixture_log_prob(x[b], whole[:3], background[b].detach(), mixing, 0.3, 0.1)
        )
    torch.testing.assert_close(got, expected + torch.tensor(likelihood), rtol=1e-3, atol=0.5)
