"""GNM: StructDRAW and the symbols against dense computations, what is shared, rendering, sizes and recipes."""

import math
from dataclasses import replace
from types import SimpleNamespace

import oracles
import pyro
import pyro.distributions as dist
import pytest
import tiny
import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch.distributions import Normal

from analysis import edit, report
from analysis.posterior import Mode
from inference.loading import load
from inference.objectives import Objective, cost_terms, log_prob_per_image, per_image
from inference.recipes import recipe, recipes_of
from inference.recipes.gnm import GNM_AUXILIARY
from inference.schedules import Constant, Linear
from inference.settings import override
from programs.blocks import render
from programs.gnm import VARIANTS, interaction

softplus = torch.nn.functional.softplus


def build(**changes):
    return tiny.build("gnm", **changes)


def log_normal(value, raw):
    mean, spread = raw.chunk(2, -1)
    return Normal(mean, softplus(spread) + 1e-4).log_prob(value).sum(-1)


# -- the joint density, by hand -----------------------------------------------------------------------


def lstm(module, x, output, cell):
    """A ConvLSTM of kernel 1, place by place, its gates by a plain matrix."""
    weight, bias = module.gates.weight[:, :, 0, 0], module.gates.bias
    gates = torch.einsum("oi,bihw->bohw", weight, torch.cat([x, output], 1))
    forget, write, show, new = (gates + bias[:, None, None]).chunk(4, 1)
    cell = forget.sigmoid() * cell + write.sigmoid() * new.tanh()
    return show.sigmoid() * cell.tanh(), cell


def struct_draw(program, guide, z, features):
    """Algorithm 1: log p(z^g), log q(z^g), f_L, and all latents in one row."""
    drawing, watching = pair = program.drawing, guide.watching
    (h, c), (e, ec) = (m.first[:, None].expand(-1, len(features), -1, -1, -1) for m in pair)
    f = torch.zeros_like(features)
    log_p = log_q = 0.0
    for step in range(1, program.config.steps + 1):
        latent = z[f"z_global_{step}"][:, 0]
        log_p = log_p + log_normal(latent, drawing.prior[1](h.flatten(1)))
        e, ec = lstm(watching.lstm, torch.cat([h, features, features - f], 1), e, ec)
        log_q = log_q + log_normal(latent, watching.posterior[1](e.flatten(1)))
        d = drawing.embedding(latent).view_as(f)
        h, c = lstm(drawing.lstm, torch.cat([d, f], 1), h, c)
        f = f + torch.conv2d(h, drawing.out.weight, drawing.out.bias, padding=1)
    latents = [z[f"z_global_{step}"][:, 0] for step in range(1, program.config.steps + 1)]
    return log_p, log_q, f, torch.cat(latents, -1)


def log_symbols(program, z, features):
    """log p(z^s | f), cell by cell."""
    heads, total = program.heads, torch.zeros(len(features))
    names = ("where", "scale", "ratio", "depth", "what")
    widths = (2, 1, 1, 1, program.config.z_what)
    for j in range(2):
        for i in range(2):
            body = heads.body(features)[:, :, j, i]  # 1 x 1 layers, normalised over all cells
            row = lambda net, body=body: body @ net.weight[:, :, 0, 0].T + net.bias
            pres = z["z_pres_1"][:, 2 * j + i]
            logit = 8.8 * torch.tanh(row(heads.pres)[:, 0] / 8.8)
            total = total - softplus(torch.where(pres > 0.5, -logit, logit))
            raw, at = row(heads.rest), 0
            for name, width in zip(names, widths, strict=True):
                value = z[f"z_{name}_1"][:, 2 * j + i].view(-1, width)
                mean = raw[:, at : at + width]
                spread = raw[:, sum(widths) + at : sum(widths) + at + width]
                total = total + pres * log_normal(value, torch.cat([mean, spread], -1))
                at += width
    return total


def picture(program, z, b, background):
    """Algorithm 2 for image b, pixel by pixel."""
    size, cells = program.config.size, [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)]
    pres, depth = z["z_pres_1"][b], softplus(z["z_depth_1"][b])
    patches = program.decoder(z["z_what_1"][b][..., None, None]).sigmoid()
    axis, mean = (2 * torch.arange(size) + 1) / size - 1, torch.zeros_like(background)
    boxes = []
    for n in range(4):
        where = torch.tensor(cells[n]) + z["z_where_1"][b, n].tanh()  # a cell is 1 wide
        scale, ratio = z["z_scale_1"][b, n].sigmoid(), z["z_ratio_1"][b, n].exp()
        boxes.append((where, scale / ratio.sqrt(), scale * ratio.sqrt()))
    for j in range(size):
        for i in range(size):
            shown, total, opacity = torch.zeros(3), 1e-12, 0.0
            for n, (where, width, height) in enumerate(boxes):
                x, y = (axis[i] - where[0]) / width, (axis[j] - where[1]) / height
                premultiplied = torch.cat([patches[n, :3] * patches[n, 3:], patches[n, 3:]])
                seen = oracles.bilinear(premultiplied, float(x), float(y)) * pres[n]
                shown = shown + seen[:3] * torch.sigmoid(-z["z_depth_1"][b, n])
                total = total + float(seen[3] * (-depth[n]).exp())
                opacity = opacity + float(seen[3])
            opacity = min(opacity, 1.0)
            mean[:, j, i] = opacity * shown / total + (1 - opacity) * background[:, j, i]
    return mean


@torch.no_grad()
def test_program_and_guide_are_the_densities_written_independently():
    pyro.set_rng_seed(2)
    program, guide = build(steps=2)
    for module in (program.drawing, guide.watching):
        module.first.normal_()
    x = torch.rand(2, 3, 32, 32)
    trace = poutine.trace(guide).get_trace(x)
    trace.nodes["z_pres_1"]["value"] = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
    z = {n: s["value"] for n, s in trace.nodes.items() if n.startswith("z_")}
    features = guide.encoder(x)
    log_p, log_q, f, latents = struct_draw(program, guide, z, features)
    log_p = log_p + log_normal(z["z_bg"][:, 0], program.background_prior(latents))
    log_p = log_p + log_symbols(program, z, f)
    log_q = log_q + log_normal(z["z_bg"][:, 0], guide.background_head(features.flatten(1)))
    # the scales of the guide's sites were recorded with the presences that it drew itself
    fixed = poutine.condition(guide, {"z_pres_1": z["z_pres_1"]})
    again = poutine.trace(poutine.replay(fixed, trace=trace)).get_trace(x)
    torch.testing.assert_close(
        log_prob_per_image(again), log_q + log_symbols(program, z, features), rtol=1e-4, atol=1e-2
    )

    behind = program.background_decoder(z["z_bg"][:, 0, :, None, None]).sigmoid()
    mean = torch.stack([picture(program, z, b, behind[b]) for b in range(2)])
    likelihood = Normal(mean, 0.2).log_prob(x).sum((1, 2, 3))
    replayed = poutine.trace(poutine.replay(program, trace=trace)).get_trace(x)
    torch.testing.assert_close(
        log_prob_per_image(replayed), log_p + likelihood, rtol=1e-3, atol=0.1
    )


# -- prior and posterior ------------------------------------------------------------------------------


def kl(program, guide, x):
    terms = cost_terms(*Objective().traces(program, guide, x))
    return {name: per_image(term).detach() for name, term in terms.items()}


@torch.no_grad()
def test_the_global_kl_is_nothing_where_both_halves_predict_the_same():
    program, guide = build()
    x = torch.rand(3, 3, 32, 32)
    heads = program.drawing.prior[1][-1], guide.watching.posterior[1][-1]
    for head in heads:
        head.weight.zero_()
        head.bias.zero_()
    found = kl(program, guide, x)
    assert all((found[f"kl/z_global_{step}"] == 0).all() for step in range(1, 5))
    heads[1].bias[:6] = 0.5
    expected = 6 * 0.5 * (0.5 / (math.log(2) + 1e-4)) ** 2
    for step in range(1, 5):
        torch.testing.assert_close(
            kl(program, guide, x)[f"kl/z_global_{step}"], torch.full((3,), expected)
        )


@torch.no_grad()
def test_symbols_of_an_image_whose_features_are_those_drawn_cost_nothing():
    program, guide = build()
    x = torch.rand(3, 3, 32, 32)
    assert all((kl(program, guide, x)[f"kl/z_{site}_1"] > 0).any() for site in ("pres", "what"))
    norm = program.drawing.embedding[-2]
    norm.weight.zero_()  # f_L depends on no latent any more
    drawn = program.draw(3)[1]
    guide.encoder.forward = lambda images: drawn
    found = kl(program, guide, x)
    for site in ("pres", "where", "scale", "ratio", "depth", "what"):
        torch.testing.assert_close(found[f"kl/z_{site}_1"], torch.zeros(3), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_interaction_layer_sees_all_places_at_once():
    layer = interaction(VARIANTS["gnm"])
    state = torch.zeros(2, 1, 64, 4, 4)
    state[1, 0, :, 3, 3] = 1.0
    here, there = layer(state)
    assert (here - there).abs().min() > 0


@torch.no_grad()
def test_a_mixture_is_the_prior_of_the_first_step_alone():
    plain, mixed = build()[0], build(learned=3)[0]
    old, new = (poutine.trace(p).get_trace(batch=4).nodes for p in (plain, mixed))
    z = new["z_global_1"]["value"]
    torch.testing.assert_close(new["z_global_1"]["fn"].log_prob(z), mixed.first().log_prob(z))
    assert isinstance(new["z_global_1"]["fn"], dist.MixtureSameFamily)
    for step in range(2, 5):
        kinds = {type(nodes[f"z_global_{step}"]["fn"].base_dist) for nodes in (old, new)}
        assert kinds == {dist.Normal}
    names = [{n for n, _ in program.named_parameters()} for program in (plain, mixed)]
    assert all(name.startswith("first.") for name in names[1] - names[0])


# -- generating ---------------------------------------------------------------------------------------

SYMBOLS = "z_[!g]*"


def test_generation_takes_the_mode_of_the_symbols_and_draws_the_global_latent():
    program, _ = build()
    with Mode(sites=SYMBOLS):
        trace = poutine.trace(program).get_trace(batch=5)
    for name, site in trace.nodes.items():
        if name.startswith("z_global"):
            assert (site["value"] != site["fn"].mean).all()
        elif name == "z_pres_1":
            assert torch.equal(site["value"], (site["fn"].logits > 0).float())
        elif name.startswith("z_"):
            assert torch.equal(site["value"], site["fn"].mean), name


@pytest.mark.parametrize("given", ["image", "prior"])
def test_symbols_are_drawn_anew_under_a_fixed_global_latent(given):
    program, guide = build()
    if given == "image":
        trace = poutine.trace(guide).get_trace(torch.rand(3, 3, 32, 32))
    else:
        trace = poutine.trace(program).get_trace(batch=3)
    again = lambda: poutine.trace(lambda: edit.anew(program, trace, SYMBOLS)).get_trace()
    first, second = again(), again()
    assert len(first.nodes["_RETURN"]["value"]) == 3
    for name in ("z_bg", "z_pres_1", "z_where_1", "z_what_1"):
        a, b = (t.nodes[name] for t in (first, second))
        assert torch.equal(a["fn"].mean, b["fn"].mean), name
        assert not torch.equal(a["value"], b["value"]), name
        assert not torch.equal(a["value"], trace.nodes[name]["value"]), name
    for step in range(1, 5):
        name = f"z_global_{step}"
        assert torch.equal(first.nodes[name]["value"], trace.nodes[name]["value"])
    with pytest.raises(ValueError, match="matches none; there are z_global_1"):
        edit.anew(program, trace, "z_cat*")


# -- pixels -------------------------------------------------------------------------------------------


def test_patches_placed_together_are_the_sum_of_each_placed():
    torch.manual_seed(0)
    patches = torch.rand(2, 5, 3, 8, 8, dtype=torch.double, requires_grad=True)
    where, scale = 1.5 * torch.rand(2, 5, 2) - 0.75, 0.2 + 0.5 * torch.rand(2, 5, 2)
    pose = render.pose(where.double(), scale.double(), torch.zeros(2, 5, dtype=torch.double))
    expected = render.place(patches, pose, 16).sum(1)
    found = render.place_together(patches, pose, 16)
    torch.testing.assert_close(found, expected)
    weight = torch.rand_like(found)
    gradients = [torch.autograd.grad((t * weight).sum(), patches)[0] for t in (found, expected)]
    torch.testing.assert_close(*gradients)


def two(pres=(1.0, 1.0), depth=(1.0, 7.0), **changes):
    """A red square left and a green one right, which meet in the middle; behind them it is grey."""
    program, _ = build(grid=2, size=32)
    red, green = (torch.tensor([*rgb, 1.0]) for rgb in ((1.0, 0, 0), (0, 1.0, 0)))
    patches = torch.stack([red, green])[None, :, :, None, None].expand(1, 2, 4, 8, 8)
    where = torch.tensor([[[-0.2, 0.0], [0.2, 0.0]]])
    pose = render.pose(where, torch.full((1, 2, 2), 0.4), torch.zeros(1, 2))
    grey = torch.full((1, 3, 32, 32), 0.5)
    mean, opacity = program.render(patches, torch.tensor([pres]), pose, torch.tensor([depth]), grey)
    return mean[0], opacity[0, 0]


def test_the_nearer_covers_the_other_and_both_the_background():
    red, green, grey = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.5, 0.5, 0.5]])
    left, middle, right, corner = (16, 9), (16, 16), (16, 22), (2, 2)
    near = dict(rtol=0, atol=0.01)
    mean, opacity = two()
    for place, colour in ((left, red), (middle, red), (right, green), (corner, grey)):
        torch.testing.assert_close(mean[:, *place], colour, **near)
    assert opacity[middle] == 1 and opacity[corner] == 0  # two masks, and none
    mean, _ = two(depth=(7.0, 1.0))
    torch.testing.assert_close(mean[:, *middle], green, **near)
    mean, _ = two(depth=(40.0, 47.0))  # depth counts from the nearest
    torch.testing.assert_close(mean[:, *middle], red, **near)
    mean, opacity = two(pres=(0.0, 1.0))  # the nearest is absent
    torch.testing.assert_close(mean[:, *middle], green, **near)
    torch.testing.assert_close(mean[:, *left], grey, **near)
    assert opacity[left] == 0


def test_the_curriculum_gives_a_box_nine_tenths_of_its_pixels():
    program, _ = build()
    program.fixed_mask.fill_(0.9)
    with pyro.condition(data={"z_pres_1": torch.tensor([[1.0, 0.0, 0.0, 0.0]])}):
        scene = program(batch=1)
    assert (scene.objects.patch[0, 0, 3] == 0.9).all()
    centre, extent = scene.objects.centre[0, 0], scene.objects.extent[0, 0]
    axis = (2 * torch.arange(32) + 1) / 32 - 1
    inside = ((axis - centre[0]).abs() < 0.8 * extent[0]) & torch.ones(32, 1, dtype=torch.bool)
    inside = inside & ((axis - centre[1]).abs() < 0.8 * extent[1])[:, None]
    assert inside.sum() > 10
    torch.testing.assert_close(scene.opacity[0, 0][inside], torch.full((int(inside.sum()),), 0.9))
    drawn = scene.image[0] - 0.1 * scene.background[0]
    assert (drawn[:, inside] > 0).all()  # and a tenth is the background's


def test_boxes_have_their_ratio_of_height_to_width_and_reach_a_cell_further():
    program, _ = build()
    where, zeros = torch.zeros(1, 4, 2), torch.zeros(1, 4)
    pose = program.pose(where, zeros, zeros + math.log(4.0))
    torch.testing.assert_close(pose[..., 0, 0], torch.full((1, 4), 0.25))
    torch.testing.assert_close(pose[..., 1, 1], torch.full((1, 4), 1.0))
    centres = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    torch.testing.assert_close(pose[0, :, :, 2], centres)
    far = program.pose(where + 20, zeros, zeros)
    torch.testing.assert_close(far[0, :, :, 2], centres + 1)


def test_digits_stand_on_black():
    program, guide = build(colours=1, z_bg=0)
    assert "z_bg" not in poutine.trace(guide).get_trace(torch.rand(2, 1, 32, 32)).nodes
    scene = program(batch=3)
    assert scene.image.shape == (3, 1, 32, 32) and (scene.background == 0).all()
    assert (scene.image <= scene.opacity + 1e-6).all()


# -- sizes and recipes --------------------------------------------------------------------------------


def size(name, world, variant=None):
    source = load(f"programs/{name}.py")
    chosen = recipe(name, variant or name, "paper", world)
    pair = source.build(override(source.variants[variant or name], chosen.program, name))
    return sum(p.numel() for module in pair for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "world", "millions", "off"),
    [
        ("convdraw", "mnist10", 1.5, 0.06),
        ("convdraw", "arrow_room", 4.7, 0.06),
        ("vae", "mnist10", 1.5, 0.06),
        ("vae", "arrow_room", 1.5, 0.06),
    ],
)
def test_models_have_the_sizes_of_table_3(name, world, millions, off):
    assert size(name, world) / 1e6 == pytest.approx(millions, rel=off)


MASK = 8 * 9 + 1
"""The channel of masks of the decoder's last convolution: the official digits have none."""


@pytest.mark.parametrize(
    ("world", "official", "ours"), [("mnist10", 2_930_708, MASK), ("arrow_room", 8_636_446, 0)]
)
def test_gnm_has_the_size_of_the_official_code(world, official, ours):
    assert size("gnm", world) == official + ours


def test_more_steps_have_the_same_parameters():
    assert size("gnm", "mnist10", "gnm8") == size("gnm", "mnist10")
    assert VARIANTS["gnm8"].steps == 2 * VARIANTS["gnm"].steps


def test_every_symbol_has_an_auxiliary_prior_and_the_global_latent_none():
    program, guide = build()
    x = torch.rand(2, 3, 32, 32)
    terms = cost_terms(*Objective(auxiliary=GNM_AUXILIARY).traces(program, guide, x))
    aux = {name.removeprefix("aux/") for name in terms if name.startswith("aux/")}
    latents = {name.removeprefix("kl/") for name in terms if name.startswith("kl/")}
    assert aux == {name for name in latents if not name.startswith("z_global")}
    assert len(latents - aux) == 4


@torch.no_grad()
def test_auxiliary_terms_are_equations_3_and_4():
    program, guide = build()
    x = torch.rand(2, 3, 32, 32)
    traces = Objective(auxiliary=GNM_AUXILIARY).traces(program, guide, x)
    found = {name: per_image(term) for name, term in cost_terms(*traces).items()}
    q = {name: site["fn"] for name, site in traces[1].nodes.items() if name.startswith("z_")}
    pres = traces[1].nodes["z_pres_1"]["value"]

    def gaussian(fn, mean, sd):
        fn = getattr(fn, "base_dist", fn)
        ratio = fn.scale / sd
        return 0.5 * (ratio**2 + ((fn.loc - mean) / sd) ** 2 - 1) - ratio.log()

    torch.testing.assert_close(found["aux/z_bg"], gaussian(q["z_bg"], 0, 1).sum((1, 2)))
    scale = (pres * gaussian(q["z_scale_1"], -1.6, 0.1)).sum(1)
    torch.testing.assert_close(found["aux/z_scale_1"], scale)
    what = (pres * gaussian(q["z_what_1"], 0, 1).sum(-1)).sum(1)
    torch.testing.assert_close(found["aux/z_what_1"], what)
    p = q["z_pres_1"].logits.sigmoid()
    price = p * (p / 1e-3).log() + (1 - p) * ((1 - p) / 0.999).log()
    torch.testing.assert_close(found["aux/z_pres_1"], price.sum(1))


def test_curricula_are_those_of_section_3():
    arrow = recipe("gnm", "gnm", "paper", "arrow_room").schedules
    beta_g, beta_b = arrow["weight.z_global*"], arrow["weight.aux/z_bg"]
    assert [beta_g(s) for s in (0, 50_000, 100_000, 200_000)] == [0.0, 0.5, 1.0, 1.0]
    assert [beta_b(s) for s in (0, 25_000, 50_000, 60_000)] == [50.0, 25.5, 1.0, 1.0]
    mask = arrow["program.fixed_mask"]
    assert mask(0) == mask(499) == 0.9 and math.isnan(mask(500))
    program, _ = build()
    owners = {"program": program, "estimator": SimpleNamespace(temperature=1.0)}
    names = [n.partition(".") for n in arrow if n.partition(".")[0] in owners]
    assert names and all(hasattr(owners[owner], buffer) for owner, _, buffer in names)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_beta_2_weighs_the_global_kl_twice_in_the_end_and_changes_nothing_else(variant, preset):
    plain, heavy = (recipe("gnm", variant, name, "mnist4") for name in (preset, f"{preset}_beta2"))
    at = lambda r, step: r.schedules["weight.z_global*"](step)
    assert [at(heavy, s) for s in (0, 10**7)] == [0.0, 2.0]
    assert at(plain, 10**7) == 1.0
    same = replace(heavy, schedules=plain.schedules)
    assert same == plain
    others = {k: v for k, v in heavy.schedules.items() if k != "weight.z_global*"}
    assert others == {k: v for k, v in plain.schedules.items() if k != "weight.z_global*"}


def test_baselines_have_the_weights_that_the_supplement_gives_them():
    convdraw = recipe("convdraw", "convdraw8", "paper_beta10").schedules["weight.z_global*"]
    assert convdraw == Constant(10.0)
    weights = [
        recipe("genesis", "genesis", "paper", world).schedules["weight.z_bg*"](0)
        for world in ("mnist10", "arrow_room")
    ]
    assert weights == [10.0, 15.0]
    assert isinstance(recipes_of("gnm")["gnm"]["paper"].schedules["weight.z_global*"], Linear)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": 24}, "as many as units"),
        ({"z_bg": -1}, "0 or more features"),
        ({"sigma": 0.0}, "sigma=0.0"),
        ({"glimpse": 10}, "expected a divisor of 10"),
        ({"decoder": ((8, 2, 2),)}, "odd kernel"),
        ({"decoder": ((8, 4),)}, "of each stage"),
        ({"size": 48}, "power of two"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_the_report_shows_symbols_under_one_global_latent(monkeypatch):
    monkeypatch.setattr(report, "REDRAWS", 2)
    page, x = report.Page("gnm"), torch.rand(2, 3, 32, 32)
    shown = []
    monkeypatch.setattr(
        report.plots, "pictures_figure", lambda columns: shown.append(columns) or Figure()
    )
    report.symbols(page, *build(), x)
    assert [list(columns) for columns in shown] == [
        ["image", "mode", "draw 1", "draw 2"],
        ["mode", "draw 1", "draw 2"],
    ]
    for columns in shown:
        assert not torch.equal(columns["mode"][0], columns["mode"][1])
        assert not torch.equal(columns["draw 1"], columns["draw 2"])
    assert "".join(page.parts).count("<figure>") == 3


def test_a_program_whose_latents_are_all_global_has_no_symbols():
    program, guide = tiny.build("vae", "vae")
    page = report.Page("vae")
    before = list(page.parts)
    report.symbols(page, program, guide, torch.rand(2, program.config.colours, 32, 32))
    assert page.parts == before
