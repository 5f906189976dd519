"""DeNF: its density is one, its terms are the paper's, and what it takes apart it puts together again."""

import copy
import dataclasses
import math

import pyro
import pytest
import tiny
import torch
from pyro import poutine
from torch import nn

from analysis import edit
from analysis.evaluate import flow_metrics
from analysis.papers.denf import fidelity
from analysis.papers.denf.clustering import clustered, sweep
from analysis.posterior import infer, iwae, log_weights
from analysis.scores import ari_fg, bits_per_dimension, change_outside
from inference.images.worlds import world_dataset
from inference.objectives import (
    Background,
    Compatibility,
    Inscribed,
    Objective,
    Reconstruction,
    cost_terms,
)
from inference.recipes import recipe
from inference.runs import open_run
from programs import denf
from programs.blocks import render
from programs.blocks.boxes import suppressed
from programs.blocks.flows import Handed, dequantised
from programs.denf import VARIANTS, Config, moments
from programs.scene import Scene
from programs.worlds import clevr6


def build(**changes):
    return tiny.build("denf", **{"size": 16, "squeeze": 2, "slots": 4, **changes})


def latents(program, batch=1):
    """Of nothing: all channels 0, all cells absent."""
    c = program.config
    return torch.zeros(batch, sum(c.widths), c.side, c.side), torch.zeros(batch, c.side**2)


def test_the_paper_sizes():
    assert VARIANTS["denf"].widths == (1, 2, 2, 2, 5) and VARIANTS["denf"].side == 64
    assert VARIANTS["denf32"].side == 32 and sum(VARIANTS["denf32"].widths) == 48
    net = denf.layers(Config(features=4))
    shapes = {}

    def note(name):
        return lambda _, inputs, __: shapes.update({name: tuple(inputs[0].shape[-3:])})

    for name, module in net.named_modules():
        if isinstance(module, denf.Coupling):
            module.register_forward_hook(note(name))
    net(torch.rand(1, 3, 128, 128))
    found = list(shapes.values())
    assert found[:4] == [(3, 128, 128)] * 4 and found[4:8] == [(11, 64, 64)] * 4
    assert [c for c, _, _ in found[8:]] == [2] * 12 + [5] * 4  # a head each
    paper = recipe("denf", "denf", "paper")
    assert paper.batch == 12 and paper.schedules["learning_rate"](0) == 1e-4
    tau = paper.schedules["estimator.temperature"]
    epoch = paper.steps // 20
    assert tau(3 * epoch) == 0.1 and tau(4 * epoch) < 0.1 and tau(20 * epoch) == pytest.approx(0.01)


def test_presence_logits_are_the_log_odds_of_their_channels():
    """That of the two Gaussians, by Bayes' rule, is the difference of the channels."""
    program, _ = build()
    base = program.base(torch.zeros(1, program.config.side**2))
    z = latents(program)[0].unsqueeze(1)
    for one, none in ((0.0, 0.0), (2.0, -1.0), (-3.0, 0.5)):
        z[:, :, 1], z[:, :, 2] = one, none
        there, absent = base.densities(z)
        z[:, :, 1:3] = 0.0
        even = [d for d in base.densities(z)]
        odds = (there - even[0]) - (absent - even[1])
        torch.testing.assert_close(odds, torch.full_like(odds, one - none))


def test_moments_are_the_tables():
    present, absent = moments(VARIANTS["denf"])
    assert present[0] == absent[0] == (0.0, 1.0)  # z_bg
    assert present[3:5] == [(0.2, 0.1)] * 2 and present[5:7] == [(0.0, 1.0)] * 2
    assert present[7:] == [(1.0, 0.1)] * 5 and absent[7:] == [(0.0, 0.1)] * 5
    assert moments(VARIANTS["denf_unimodal"])[1][7:] == [(0.0, 1.0)] * 5


@torch.no_grad()
def test_the_evidence_is_the_sum_over_all_presences():
    """A flow with 4 cells: 16 configurations, scored as the program scores them."""
    program, _ = build(size=8, squeeze=4)
    for p in program.layers.parameters():
        p.add_(0.05 * torch.randn_like(p))
    x = torch.rand(3, 3, 8, 8)
    pyro.set_rng_seed(5)
    got = program.evidence(x)
    pyro.set_rng_seed(5)
    noise = program.rounding(3).sample()
    jitter, total = program.jitter(3, 1, program.noise).sample(), []
    for code in range(16):
        pres = torch.tensor([(code >> k) & 1 for k in range(4)]).float().expand(3, 4)
        values = {"z_noise": noise, "z_pres": pres, "z_bg": jitter}
        trace = poutine.trace(poutine.condition(program, values)).get_trace(x)
        trace.compute_log_prob()
        sites = trace.nodes["z_pres"]["log_prob"].sum(1), trace.nodes["images"]["log_prob"][:, 0]
        total.append(sum(sites))
    torch.testing.assert_close(got, torch.stack(total).logsumexp(0), rtol=1e-4, atol=1e-2)


@torch.no_grad()
def test_bounds_are_below_the_evidence():
    program, guide = build(size=8, squeeze=4)
    x = torch.rand(4, 3, 8, 8)
    weights = log_weights(program, guide, x, 80)
    exact = torch.stack([program.evidence(x) for _ in range(80)])
    error = (weights.var(0) + exact.var(0)).div(80).sqrt()
    assert (weights.mean(0) < exact.mean(0) + 4 * error).all()
    assert (iwae(weights) > weights.mean(0)).all()


@torch.no_grad()
def test_bits_of_a_uniform_flow():
    """log p = 0 on [0, 1]: 8 bits a number of 256 values; and half the range is a bit less."""
    assert bits_per_dimension(torch.zeros(3), 48) == 8
    assert bits_per_dimension(torch.full((3,), 48 * math.log(2)), 48) == pytest.approx(7)
    program, _ = build()
    found = flow_metrics(program, torch.rand(5, 3, 16, 16))
    assert 0 < found["inverse_error"] < 1e-4 and found["bits_per_dimension"] > 7.5


@torch.no_grad()
def test_the_scene_is_the_papers_reconstruction():
    program, guide = build()
    x = torch.rand(2, 3, 16, 16)
    trace = poutine.trace(guide).get_trace(x)
    pres = torch.bernoulli(torch.full_like(trace.nodes["z_pres"]["value"], 0.5))
    trace.nodes["z_pres"]["value"] = pres
    scene = poutine.replay(program, trace=trace)(x)
    noise, jitter = (trace.nodes[name]["value"] for name in ("z_noise", "z_bg"))
    z, _ = program.layers(dequantised(x, noise[:, 0]))
    e = pres.view(2, 1, 8, 8)
    m = program.config.margin
    front = torch.cat([0 * z[:, :1], m * (e - 0.5), m * (0.5 - e), z[:, 3:7], e * z[:, 7:]], 1)
    behind = torch.cat([z[:, :1] + jitter[:, 0], 0 * z[:, 1:]], 1)
    front, behind = ((256 * program.layers.inverse(t) - 0.5) / 255 for t in (front, behind))
    large = e.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(scene.background, behind.clamp(0, 1))
    torch.testing.assert_close(scene.image, (large * front + (1 - large) * behind).clamp(0, 1))
    torch.testing.assert_close(scene.opacity, large)


@torch.no_grad()
def test_a_draw_is_shown_by_its_own_latents():
    """Also where it leaves the colours' range, and only its clamped picture is left: f⁻¹ of that is another."""
    program, _ = build()
    pyro.set_rng_seed(0)
    with poutine.trace() as tracer:
        scene = program(batch=2)
    nodes = tracer.trace.nodes
    memory = nodes["images"]["fn"].memory
    value, z = memory["drawn"]
    assert value is nodes["images"]["value"]
    own = program.scene(z.squeeze(-4), nodes["z_pres"]["value"], nodes["z_bg"]["value"].squeeze(-4))
    torch.testing.assert_close(scene.image, own.image)
    numbers = program.layers.inverse(z)
    assert ((numbers < 0) | (numbers > 1)).double().mean() > 0.05, (
        "this seed's draws leave the range"
    )
    rounded = (256 * numbers).floor().clamp(0, 255) / 255
    torch.testing.assert_close(value, rounded, rtol=0, atol=1.01 / 255)
    clamped = program.infer(dequantised(value, nodes["z_noise"]["value"]))
    assert (torch.cat(clamped, -3) - z).abs().max() > 0.1


def test_a_step_inverts_the_flow_once():
    """In the guide; the program scores and shows the latents that it is handed, with the same gradient."""
    program, guide = build()
    calls, x = [], torch.rand(2, 3, 16, 16)
    program.layers.register_forward_hook(lambda *_: calls.append(1))
    traces = Objective().traces(program, guide, x)
    once = traces[0].log_prob_sum()
    assert len(calls) == 1
    again = poutine.trace(poutine.replay(program, trace=traces[1])).get_trace(x).log_prob_sum()
    assert len(calls) == 2  # what was handed on has been taken
    torch.testing.assert_close(once, again)
    weights = list(program.layers.parameters())
    for a, b in zip(*(torch.autograd.grad(total, weights) for total in (once, again)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("change", ["nothing", "inputs", "parameters", "gradients"])
def test_latents_are_handed_on_for_the_same_inputs_and_parameters_only(change):
    weight, x, handed = torch.zeros(2, requires_grad=True), torch.rand(3), Handed()
    handed.give((x,), [weight], (x + 1,))
    with torch.no_grad():
        if change == "parameters":
            weight.add_(1)
    with torch.set_grad_enabled(change != "gradients"):
        found = handed.take((x.clone() if change == "inputs" else x,), [weight])
    assert (found is not None) == (change == "nothing")
    assert handed.take((x,), [weight]) is None
    assert copy.deepcopy(handed).given is None


def test_boxes_are_placed_by_the_spatial_transformer():
    program, _ = build(glimpse=8)
    pose = torch.rand(2, 64, 2, 3)
    pose[..., :2] = torch.diag_embed(0.1 + 0.3 * torch.rand(2, 64, 2))
    pose[..., 2] = 2 * torch.rand(2, 64, 2) - 1
    pres = torch.bernoulli(torch.full((2, 64), 0.1))
    ones = torch.ones(2, 64, 1, 8, 8) * pres[..., None, None, None]
    expected = render.place(ones, pose, 8).sum(1)
    torch.testing.assert_close(program.cover(pres, pose), expected, rtol=0, atol=1e-5)
    assert expected.mean() > 0.1 and expected.max() > 1


def test_the_penalties_are_the_equations():
    pyro.set_rng_seed(3)
    images, image, behind = torch.rand(3, 4, 3, 6, 6)
    opacity, covered = torch.rand(2, 4, 1, 6, 6)
    covered = 2 * covered
    scene = Scene(image, (), behind, opacity, covered)
    for own in (True, False):
        expected = []
        for b in range(4):
            total = 0.0
            for i in range(6):
                for j in range(6):
                    far = [
                        float((behind[b, :, i, j] - images[k, :, i, j]).square().sum())
                        for k in range(4)
                        if own or k != b
                    ]
                    total += min(far) / 36
            expected.append(total)
        torch.testing.assert_close(Background(own)(scene, images), torch.tensor(expected))
    squares = (image - images).square().sum((1, 2, 3)) / 36
    torch.testing.assert_close(Reconstruction()(scene, images), squares)
    inside, outside = ((covered * e).flatten(1).sum(1) for e in (opacity, 1 - opacity))
    ratio = (2 * outside - inside) / (opacity.flatten(1).sum(1) + 1)
    torch.testing.assert_close(Inscribed()(scene), ratio)
    covered = covered.clamp(max=1)
    apart, total = (covered - opacity).square(), covered + opacity
    ratio = apart.flatten(1).sum(1) / total.flatten(1).sum(1)
    torch.testing.assert_close(Compatibility()(scene), ratio)
    for penalty in (Compatibility(), Inscribed()):
        with pytest.raises(ValueError, match="opacity and boxed"):
            penalty(Scene(image, ()))
    with pytest.raises(ValueError, match="with a background"):
        Background()(Scene(image, ()), images)
    with pytest.raises(ValueError, match="--batch 2"):
        Background(own=False)(scene[:1], images[:1])
    twice = scene.map(lambda t: t.repeat(2, *[1] * (t.ndim - 1)))
    copies = Background(own=False)(twice, images.repeat(2, 1, 1, 1))
    torch.testing.assert_close(copies, Background(own=False)(scene, images).repeat(2))


def test_the_penalties_reach_presence_boxes_and_what_is_shown():
    program, guide = build()
    x = torch.rand(4, 3, 16, 16)
    penalties = {"b": Background(), "r": Reconstruction(), "c": Compatibility()}
    heads = program.layers.layers[-1].branches[1].layers[-1].branches
    from inference.estimators import estimator

    method = estimator("gumbel")
    for name, used in (("b", [0]), ("r", [0, 3]), ("c", [0, 1, 2])):
        objective = Objective({"images": torch.tensor(0.0)}, penalties={name: penalties[name]})
        loss, terms = method(program, guide, x, objective)
        assert terms[f"penalty/{name}"] > 0
        program.zero_grad()
        loss.backward()
        if name == "b":
            assert program.layers.layers[-1].branches[0].layers[0].shift.grad.abs().sum() > 0
            continue
        for k in used:
            assert heads[k].layers[-1].shift.grad.abs().sum() > 0, (name, k)


def two_objects(program):
    """Latents of cells in two squares that point to their middles, all others absent."""
    z, pres = latents(program)
    side = program.config.side
    z[:, 3:5] = 0.25  # half-width in half images
    for row, column in ((1, 1), (5, 5)):
        for i in range(2):
            for j in range(2):
                pres.view(side, side)[row + i, column + j] = 1.0
                cell = (2 * torch.tensor([column + j, row + i]) + 1) / side - 1
                middle = 2 * torch.tensor([column + 1.0, row + 1.0]) / side - 1
                z[0, 5:7, row + i, column + j] = (middle - cell) / denf.DIAGONAL
    return z, pres


def test_cells_that_point_to_one_place_are_one_object():
    program, _ = build()
    z, pres = two_objects(program)
    nodes = program.scene(z, pres, 0 * z[:, :1]).objects
    assert nodes.present.tolist() == [[True, True, False, False]]
    centres = sorted(nodes.centre[0, :2].tolist())
    torch.testing.assert_close(torch.tensor(centres), torch.tensor([[-0.5, -0.5], [0.5, 0.5]]))
    torch.testing.assert_close(nodes.extent[0, :2], torch.full((2, 2), 0.25))
    assert nodes.mask.sum((2, 3)).tolist() == [[16, 16, 0, 0]]
    assert (nodes.mask.sum(1).flatten(1).sum(1) == 4 * pres.sum(1)).all()


def test_suppression_drops_boxes_that_overlap_and_no_others():
    """The second box is inside the first, but has a ninth of its area."""
    pose = torch.zeros(1, 64, 2, 3)
    pose[0, :, :, :2] = torch.diag_embed(
        torch.tensor([0.6, 0.2, 0.5] + 61 * [0.1])[:, None].expand(-1, 2)
    )
    pres = (torch.arange(64) < 3).float()[None]
    slots, valid = suppressed(pres, pose, 8, 4, 0.3, 1)
    assert valid.tolist() == [[True, True, False, False]]
    assert sorted(slots[0, :2].tolist()) in ([0, 1], [1, 2])


def linked_masks(columns, half, **config):
    """Pixels of each object: cells of rows 2 and 3 from column 2 on, as many red columns and then blue ones.

    All cells' boxes are one box, of the half-width `half`.
    """
    program, _ = build(least=3, slots=3, **config)
    program.eval()
    side = program.config.side
    pose = torch.zeros(1, side**2, 2, 3)
    pose[..., :2] = torch.diag_embed(torch.full((2,), half))
    pres = torch.zeros(1, side, side)
    red, end = 2 + columns[0], 2 + sum(columns)
    pres[0, 2:4, 2:end] = 1.0
    front = torch.zeros(1, 3, 2 * side, 2 * side)
    front[:, 0, :, : 2 * red], front[:, 2, :, 2 * red :] = 0.8, 0.8
    nodes = program.objects(pres.flatten(1), pose, front, 0 * front)
    assert torch.isfinite(nodes.pose).all() and (nodes.extent > 0).all()
    return nodes.mask.sum((2, 3)).tolist()


def test_linkage_parts_objects_that_point_to_one_place_by_their_hues():
    assert linked_masks((2, 2), 0.4, tint=0.0) == [[32, 0, 0]]
    assert linked_masks((2, 2), 0.4, tint=0.9) == [[16, 16, 0]]


def test_what_fills_too_little_of_its_box_is_no_object():
    """Boxes of 6.4 by 6.4 cells, of which 8 are red and 4, or .098, blue; the largest object stays."""
    assert linked_masks((4, 2), 0.8, fill=0.09) == [[32, 16, 0]]
    assert linked_masks((4, 2), 0.8, fill=0.11) == [[48, 0, 0]]
    assert linked_masks((4, 2), 0.8, fill=1.0) == [[48, 0, 0]]


def test_masks_hold_the_pixels_that_differ_from_the_background_and_patches_all():
    program, guide = build(visible=0.1)
    program.eval(), guide.eval()
    z, pres = two_objects(program)
    scene = program.scene(z, pres, 0 * z[:, :1])
    nodes = scene.objects
    far = (nodes.patch[:, 0, :3] - scene.background).norm(dim=1) > 0.1
    whole = nodes.patch[:, :, 3]
    assert whole.sum() > 0
    torch.testing.assert_close(nodes.mask, whole * far[:, None])
    torch.testing.assert_close(program.redraw(scene).image, scene.image)


@torch.no_grad()
def test_after_training_presence_is_the_exact_posterior():
    """p(e | x) by enumeration of each cell; the bound then is the evidence, whatever is drawn."""
    program, guide = build(size=8, squeeze=4)
    for p in program.layers.parameters():
        p.add_(0.05 * torch.randn_like(p))
    x = torch.rand(3, 3, 8, 8)
    program.eval(), guide.eval()
    trace = poutine.trace(guide).get_trace(x)
    weights = []
    for _ in range(4):
        q = trace.copy()
        site = q.nodes["z_pres"] = dict(trace.nodes["z_pres"])
        site["value"] = torch.bernoulli(torch.full_like(site["value"], 0.5))
        p = poutine.trace(poutine.replay(program, trace=q)).get_trace(x)
        p.compute_log_prob(), q.compute_log_prob()
        latent = (p.nodes["z_pres"]["log_prob"] - q.nodes["z_pres"]["log_prob"]).sum(1)
        weights.append(latent + p.nodes["images"]["log_prob"][:, 0])
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=1e-4, atol=1e-2)


def test_boxes_count_cells_of_their_hue():
    program, _ = build(kin=0.1)
    z, pres = two_objects(program)
    scene = program.scene(z, pres, 0 * z[:, :1])
    one = program.cover(pres, program.pose(denf.Parts(*z.split(program.config.widths, -3))))
    torch.testing.assert_close(scene.boxed, program.enlarge(one))
    assert (scene.alike <= scene.boxed + 1e-5).all() and scene.alike.sum() > 0
    pose = torch.zeros(1, 64, 2, 3)
    pose[..., :2], pres = torch.eye(2), torch.zeros(1, 64)
    pres[0, 0] = 1.0
    weight = torch.rand(1, 64, 64)
    expected = weight[:, 0].view(1, 1, 8, 8) * program.cover(pres, pose)
    torch.testing.assert_close(program.cover(pres, pose, weight), expected)
    opacity, boxed, alike = torch.rand(3, 2, 1, 6, 6)
    seen = Scene(torch.zeros(2, 3, 6, 6), (), None, opacity, boxed, alike)
    area = 2 * boxed - 3 * opacity * alike
    expected = area.flatten(1).sum(1) / (opacity.flatten(1).sum(1) + 1)
    torch.testing.assert_close(Inscribed()(seen), expected)


def test_shades_are_kin_and_hues_are_not():
    program, _ = build(kin=0.12)
    front = torch.zeros(1, 3, 16, 16)
    front[:, 0] = 0.9  # red
    front[:, 0, 8:, :8] = 0.6  # darker
    front[:, :, 8:, 8:] = torch.tensor([0.0, 0.9, 0.0])[:, None, None]  # green
    side = program.config.side
    kin = program.kinship(front)[0, 0].view(side, side)  # to the first cell
    assert kin[: side // 2].min() > 0.99
    assert kin[side // 2 :, : side // 2].min() > 0.8 and kin[side // 2 :, side // 2 :].max() < 0.01


def test_loose_boxes_jitter_what_is_shown_in_the_program_and_nothing_else():
    program, guide = build(loose=1.0)
    x = torch.rand(2, 3, 16, 16)
    trace = poutine.trace(guide).get_trace(x)
    assert {"z_scale", "z_where"} <= {*trace.nodes}
    a, b = (poutine.replay(program, trace=t)(x) for t in (trace, poutine.trace(guide).get_trace(x)))
    noise = {n: trace.nodes[n]["value"] for n in ("z_noise", "z_pres", "z_bg")}
    c = poutine.condition(program, noise)(x)
    assert (a.image - c.image).abs().max() > 1e-3 and not torch.equal(a.image, b.image)
    torch.testing.assert_close(a.background, c.background)
    torch.testing.assert_close(a.boxed, c.boxed)
    program.loose.fill_(0.0)
    quiet = [poutine.condition(program, noise)(x).image for _ in range(2)]
    torch.testing.assert_close(*quiet, rtol=0, atol=1e-4)


def test_what_has_too_few_cells_is_no_object_and_its_cells_go_to_the_others():
    """Of three boxes at b, two are more like that at a; so b's has one cell."""
    program, _ = build(least=3, overlap=0.05)
    side, extent = program.config.side, torch.full((7,), 0.25)
    extent[:4], extent[5:] = 0.35, 1.0
    pose = torch.zeros(1, side**2, 2, 3)
    pose[0, :7, :, :2] = torch.diag_embed(extent[:, None].expand(7, 2))
    pose[0, :4, :, 2], pose[0, 4:7, :, 2] = -0.4, 0.4
    pres = torch.zeros(1, side**2)
    pres[0, :7] = 1.0
    front = torch.ones(1, 3, 2 * side, 2 * side)
    behind = 0 * front
    assert suppressed(pres, pose, side, 4, 0.05, 3)[1].tolist() == [[True, True, False, False]]
    nodes = program.objects(pres, pose, front, behind)
    assert nodes.present.tolist() == [[True, False, False, False]]
    assert nodes.mask.sum((2, 3)).tolist() == [[28, 0, 0, 0]]
    pose[0, 5:7] = pose[0, 4]
    nodes = program.objects(pres, pose, front, behind)
    assert nodes.mask.sum((2, 3)).tolist() == [[16, 12, 0, 0]]
    few = program.objects(pres * (torch.arange(side**2) < 2), pose, front, behind)
    assert few.mask.sum((2, 3)).tolist() == [[8, 0, 0, 0]]


def test_a_cell_whose_box_overlaps_with_none_is_of_the_nearest_object():
    boxes = torch.zeros(2, 2, 3)
    boxes[..., :2] = torch.diag_embed(torch.full((2, 2), 0.2))
    boxes[0, :, 2], boxes[1, :, 2] = -0.6, 0.6
    cells = boxes[[0, 1, 1]].clone()
    cells[2, :, 2], cells[2, :, :2] = 0.1, 0.05 * torch.eye(2)
    alike = denf.likeness(boxes, cells)
    own = denf.owned(alike, torch.tensor([True, True]))
    assert own.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert denf.owned(alike, torch.tensor([True, False])).tolist() == [[1, 1, 1], [0, 0, 0]]


@torch.no_grad()
def test_removing_an_object_changes_nothing_outside_its_box_and_single_objects_stand_alone():
    program, _ = build()
    nn.init.normal_(program.layers.layers[1].one.last.weight, 0.0, 0.3)
    z, pres = two_objects(program)
    z[:, 7:] += 1.0
    scene = program.scene(z, pres, 0 * z[:, :1])
    again = edit.render(program, scene)
    torch.testing.assert_close(again.image, scene.image)
    without = edit.render(program, edit.remove(scene, 0))
    assert change_outside(scene.image, without.image, scene.objects.pose[:, 0]) == 0
    gone = scene.objects.mask[:, :1] > 0.5
    torch.testing.assert_close(
        without.image[gone.expand(-1, 3, -1, -1)], scene.background[gone.expand(-1, 3, -1, -1)]
    )
    assert (scene.image - without.image).abs().max() > 0.1
    empty = edit.render(program, edit.remove(edit.remove(scene, 0), 1))
    torch.testing.assert_close(empty.image, scene.background)
    by = 0.25
    moved = edit.render(program, edit.move(scene, 0, (by, 0.0)))
    mask = render.visible_masks(moved)[0][:, 0]
    torch.testing.assert_close(mask[..., 2:], scene.objects.mask[:, 0, :, :-2], atol=1e-5, rtol=0)


def test_change_outside_a_box():
    image = torch.zeros(1, 3, 8, 8)
    pose = torch.tensor([[[0.5, 0.0, -0.5], [0.0, 0.5, -0.5]]])
    edited = image.clone()
    edited[..., :4, :4] = 1.0
    assert change_outside(image, edited, pose) == 0
    edited[..., 7, 7] = 0.5
    assert change_outside(image, edited, pose) == pytest.approx(0.5 / 48)
    with pytest.raises(ValueError, match="cover"):
        change_outside(image, edited, torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]))


def test_outside_of_a_turned_box_is_outside_the_upright_one_around_it():
    image = torch.zeros(1, 3, 8, 8)
    half = 0.5 * math.sqrt(0.5)
    pose = torch.tensor([[[half, -half, 0.0], [half, half, 0.0]]])  # a corner at a distance of 0.71
    edited = image.clone()
    edited[..., 2, 2] = 1.0  # at 0.375 from both axes, outside the turned box
    assert change_outside(image, edited, pose) == 0
    edited[..., 1, 2] = 1.0  # at 0.625
    assert change_outside(image, edited, pose) == 0
    edited[..., 0, 2] = 1.0
    assert change_outside(image, edited, pose) == pytest.approx(1 / (64 - 36))


def test_every_object_is_removed_by_itself(monkeypatch):
    program, _ = build()
    z, pres = two_objects(program)
    scene = program.scene(z, pres, 0 * z[:, :1])
    assert fidelity.removals(program, scene, scene.image).tolist() == [[0, 0], [0, 0]]
    canvas, other = scene.image, scene.objects.present.nonzero()[-1, 1]
    seen = []

    def dims(program, scene):  # as if all pixels were a fifth darker without the last object
        seen.append(scene.objects.present.sum(1).tolist())
        gone = scene.objects.pres[:, other] == 0
        return dataclasses.replace(scene, image=canvas.new_full(canvas.shape, 0.5) - 0.2 * gone)

    monkeypatch.setattr(fidelity.edit, "render", dims)
    found = fidelity.removals(program, scene, torch.full_like(canvas, 0.4))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.1], [0.2, 0.1]]).double())
    assert seen == [[2], [1], [2], [1]]
    with pytest.raises(ValueError, match="no objects to remove"):
        fidelity.removals(program, dataclasses.replace(scene, levels=()), canvas)


def test_backgrounds_are_drawn_and_the_mode_has_none_of_their_noise():
    program, guide = build()
    x = torch.rand(2, 3, 16, 16)
    a, b = (infer(program, guide, x).background for _ in range(2))
    torch.testing.assert_close(a, b)
    with torch.no_grad():
        drawn = poutine.replay(program, trace=poutine.trace(guide).get_trace(x))(x)
    assert (drawn.background - a).abs().mean() > 1e-3


def test_a_step_of_the_recipe_lowers_its_own_loss():
    pyro.enable_validation(False)
    program, guide = build(size=32)
    data = world_dataset("clevr6", 8, "train", config=clevr6.Config(size=32), processes=1)
    x = data.images.float() / 255
    quick = recipe("denf", "denf", "quick")
    at = {name: schedule(800) for name, schedule in quick.schedules.items()}  # all have begun
    weights = {name[7:]: torch.tensor(v) for name, v in at.items() if name[:7] == "weight."}
    assert weights["images"] > 0 and weights["penalty/inscribed"] > 0
    program.presence.fill_(at["program.presence"])
    objective = Objective(weights, penalties=quick.penalties)
    from inference.estimators import estimator

    method, optimiser = estimator("gumbel"), torch.optim.Adam(program.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss, terms = method(program, guide, x, objective)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(sum(terms.values())) / len(x))
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert {"images", "penalty/background", "penalty/compatibility"} <= terms.keys()


def test_terms_of_the_bound_are_presence_and_images_alone():
    program, guide = build()
    terms = cost_terms(*Objective().traces(program, guide, torch.rand(2, 3, 16, 16)))
    assert (terms["kl/z_noise"].cost == 0).all() and (terms["kl/z_bg"].cost == 0).all()
    assert terms["kl/z_pres"].cost.sum() > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 17}, "multiple"),
        ({"presence": 1.0}, "presence=1.0"),
        ({"what": (0.0, 0.0)}, "deviations"),
        ({"noise": -1.0}, "noise"),
        ({"tint": -1.0}, "tint"),
        ({"grouping": "graph"}, "linkage or nms"),
        ({"couplings": 0}, "couplings=0"),
    ],
)
def test_settings_that_make_no_flow_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(Config(), **changes)


def test_colour_clustering_finds_what_differs_in_colour():
    image = torch.full((1, 3, 24, 24), 0.2)
    image[:, 0, 2:8, 2:8] = 1.0
    image[:, 1, 12:20, 12:20] = 1.0
    image[:, 0, 2:8, 14:20] = 1.0  # red, too: a component, and no cluster, of its own
    for connected, number in ((False, 2), (True, 3)):
        nodes = clustered(image, 3, 0.0, connected).objects
        assert nodes.present.sum() == number
    whole = clustered(image, 3, 0.0, True)
    assert sorted(whole.objects.mask.sum((2, 3))[0].tolist()) == [36, 36, 64]
    assert ari_fg(whole, whole) == 1


def test_the_baseline_is_above_chance_on_clevr6():
    data = world_dataset("clevr6", 6, "test", config=clevr6.Config(size=32), processes=1)
    found = sweep(data)
    assert list(found.values()) == sorted(found.values())
    assert 0.3 < max(found.values()) < 1 and len(found) == 24


def test_the_shipped_run_finds_objects_and_removes_them():
    run = open_run("denf-clevr6")
    program, guide = run.program, run.guide
    data = world_dataset(
        "clevr6", 24, "test", config=clevr6.Config(size=run.config["world"]["size"])
    )
    images = data.images.float() / 255
    pyro.set_rng_seed(0)
    scene = infer(program, guide, images)
    assert ari_fg(scene, data.truth(slice(0, 24))) > 0.7
    slot = 0  # the box that most cells point to
    pose = scene.objects.pose[:, slot]
    without = edit.render(program, edit.remove(scene, slot))
    assert change_outside(scene.image, without.image, pose) < 1.5 / 255
    assert (without.image - scene.image).abs().amax() > 0.1


@pytest.mark.parametrize("name", ["what", "what_absent"])
def test_a_deviation_that_is_missing_is_said(name):
    with pytest.raises(ValueError, match=rf"{name}=\(1.0,\): expected a mean and a deviation"):
        Config(**{name: (1.0,)})
