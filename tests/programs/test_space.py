"""SPACE: the broken stick, the mixture of pixels, occlusion, the boundary, and what absent cells cost."""

import math

import oracles
import pytest
import tiny
import torch
from pyro import poutine

from inference.objectives import Objective, cost_terms, log_prob_per_image
from programs.blocks import render
from programs.space import VARIANTS, Background, Config


def build(**changes):
    return tiny.build("space", **{"glimpse": 16, **changes})


def test_images_may_be_grey():
    program, guide = build(colours=1)
    x = torch.rand(2, 1, 32, 32)
    scene = poutine.replay(program, poutine.trace(guide).get_trace(x))(x)
    assert scene.image.shape == (2, 1, 32, 32) and scene.objects.patch.shape[2] == 2


def test_the_nearer_object_covers_the_other_and_both_the_background():
    program, _ = build(grid=2, glimpse=8)
    red, green = (
        torch.tensor([*rgb, 1.0])[:, None, None].expand(4, 8, 8)
        for rgb in ((1.0, 0, 0), (0, 1.0, 0))
    )
    glimpses = torch.stack([red, green, red, red])[None]
    pres, depth = torch.tensor([[1.0, 1.0, 0.0, 0.0]]), torch.tensor([[7.0, 1.0, 0.0, 0.0]])
    where = torch.tensor([[[-0.2, 0.0], [0.2, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    pose = render.pose(where, torch.full((1, 4, 2), 0.5), torch.zeros(1, 4))
    behind = Background(torch.full((1, 1, 1, 3, 32, 32), 0.5), torch.zeros(1, 1, 1, 32, 32))
    mean = program.render(glimpses, pres, pose, depth, behind).mean[0, 0]
    nearly = dict(rtol=0, atol=0.01)
    torch.testing.assert_close(mean[:, 16, 16], torch.tensor([0.0, 1.0, 0.0]), **nearly)  # both
    torch.testing.assert_close(mean[:, 16, 7], torch.tensor([1.0, 0.0, 0.0]), **nearly)  # red alone
    torch.testing.assert_close(mean[:, 2, 2], torch.full((3,), 0.5), **nearly)
    mean = program.render(glimpses, pres, pose, 8 - depth, behind).mean[0, 0]
    torch.testing.assert_close(mean[:, 16, 16], torch.tensor([1.0, 0.0, 0.0]), **nearly)


def test_cells_lie_row_by_row_and_boxes_reach_a_cell_further():
    program, _ = build(grid=2)
    zeros = torch.zeros(1, 4, 2)
    pose = program.pose(zeros, zeros)
    centres = torch.tensor([[[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]])
    torch.testing.assert_close(pose[..., 2], centres)
    torch.testing.assert_close(pose[..., :2], (0.5 * torch.eye(2)).expand(1, 4, 2, 2))
    far = program.pose(zeros + 20, zeros)
    torch.testing.assert_close(far[..., 2], centres + 1)


# ---- the terms of the bound


def replayed(program, guide, x, **values):
    trace = poutine.trace(guide).get_trace(x)
    for name, value in values.items():
        trace.nodes[name]["value"] = value
    return trace


@torch.no_grad()
def test_absent_cells_cost_their_absence_and_nothing_else():
    program, guide = build()
    x = torch.rand(3, 3, 32, 32)
    pres = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0] * 4, [1.0] * 4])
    trace = replayed(program, guide, x, z_pres_1=pres)
    with poutine.replay(trace=trace):
        again = poutine.trace(guide).get_trace(x)
        terms = cost_terms(poutine.trace(program).get_trace(x), again)
    for name in ("z_where_1", "z_scale_1", "z_depth_1", "z_what_1"):
        cost = terms[f"kl/{name}"].cost
        assert (cost[pres == 0] == 0).all() and (cost[pres == 1] > 0).all()
    assert (terms["kl/z_pres_1"].cost > 0).all()


@torch.no_grad()
def test_the_joint_is_what_is_written_at_the_top_of_the_program():
    program, guide = build()
    x = torch.rand(2, 3, 32, 32)
    trace = poutine.trace(guide).get_trace(x)
    z = {n: trace.nodes[n]["value"] for n in trace.stochastic_nodes}
    got = log_prob_per_image(poutine.trace(poutine.replay(program, trace=trace)).get_trace(x))

    log_normal = lambda v, m, s: torch.distributions.Normal(m, s).log_prob(v)
    c, pres = program.config, z["z_pres_1"]
    here = log_normal(z["z_where_1"], 0.0, 1.0).sum(-1) + log_normal(z["z_depth_1"], 0.0, 1.0)
    here = here + log_normal(z["z_scale_1"], c.scale_mean, c.scale_sd).sum(-1)
    here = here + log_normal(z["z_what_1"], 0.0, 1.0).sum(-1)
    absent = math.log(1 - c.presence)
    expected = torch.where(pres == 1, math.log(c.presence) + here, absent).sum(1)
    softplus, segments = torch.nn.functional.softplus, program.segments
    state, mask = (torch.zeros(2, 1, 8), torch.zeros(2, 1, 8)), torch.zeros(2, 1, 4)
    for k in (1, 2, 3):
        state = segments.cell(segments.cell.look(segments.start.expand(2, 1, -1)), mask, state)
        loc, raw = segments.mask_head(state[0]).chunk(2, -1)
        mask = z[f"z_bg_mask_{k}"]
        expected = expected + log_normal(mask, loc, softplus(raw) + 1e-4).sum((1, 2))
        loc, raw = segments.component_head(mask[:, 0]).chunk(2, -1)
        bg = z["z_bg"][:, k - 1]
        expected = expected + log_normal(bg, loc, softplus(raw) + 1e-4).sum(1)

    glimpses = program.glimpse_decoder(z["z_what_1"]).sigmoid()
    depth = c.occlusion * z["z_depth_1"].sigmoid()
    pose = program.pose(z["z_where_1"], z["z_scale_1"])
    stick = [program.segments.mask_decoder(z[f"z_bg_mask_{k}"])[:, 0, 0].sigmoid() for k in (1, 2)]
    shares = torch.stack([stick[0], (1 - stick[0]) * stick[1], (1 - stick[0]) * (1 - stick[1])], 1)
    colours = program.component_decoder(z["z_bg"]).sigmoid()
    for b in range(2):
        whole = oracles.composite(render.place(glimpses[b], pose[b], 32), pres[b], depth[b])
        density = whole[3:] * log_normal(x[b], whole[:3], c.sigma_fg).sum(0).exp()
        for k in range(3):
            normal = log_normal(x[b], colours[b, k], c.sigma_bg).sum(0).exp()
            density = density + (1 - whole[3:]) * shares[b, k] * normal
        expected[b] += density.log().sum()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=0.1)


def test_one_component_is_the_whole_background_without_masks():
    program, guide = build(components=1)
    traces = Objective().traces(program, guide, torch.rand(2, 3, 32, 32))
    assert not any("mask" in name for name in traces[0].nodes)
    scene = program(batch=2)
    assert scene.background.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("change", [
    {"presence": 1.0}, {"scale_mean": math.inf}, {"channels": ()}, {"occlusion": 50.0}, {"grid": 0},
])  # fmt: skip
def test_what_cannot_be_is_refused_by_its_name(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}="):
        Config(**change)


def test_variants_are_for_objects_and_parts():
    assert VARIANTS["space_p"].grid > VARIANTS["space"].grid
    assert VARIANTS["space_p"].scale_mean < VARIANTS["space"].scale_mean


# ---- the boundary
