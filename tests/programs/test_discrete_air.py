"""The parts of Discrete-AIR's guide that look: templates matched at every angle, and what is salient."""

import math
from dataclasses import replace

import pyro
import pytest
import tiny
import torch

from programs.blocks import render
from programs.discrete_air import VARIANTS, Config, Object


@pytest.fixture
def pair():
    """A program whose three templates are a square, a triangle and a bar, and its guide."""
    program, guide = tiny.build("discrete_air", size=64, embedding=(8, 8))
    x, y = render.pixel_axes(16)
    inside = [(x.abs() < 0.55) & (y.abs() < 0.55), (y.abs() < 0.6) & (x.abs() < 0.35 - 0.4 * y)]
    inside.append((x.abs() < 0.8) & (y.abs() < 0.3))
    shapes = torch.stack(inside).float()[:, None]
    program.decode = lambda cat, attr: torch.einsum("...k,kchw->...chw", cat, shapes)
    return program, guide


def drawn(program, cat, where, theta):
    """Pictures of templates `cat` at places (M, 4) and angles and shears (M, ·)."""
    c = program.config
    patch = program.decode(torch.eye(c.categories)[cat], torch.zeros(len(cat), c.attributes))
    return render.place(patch, program.pose(where, theta), program.config.size)


def test_the_best_match_is_the_template_and_the_angle_that_were_drawn(pair):
    program, guide = pair
    cat = torch.arange(3).repeat_interleave(4)
    where = torch.tensor([[0.1, 0.0, 0.3, -0.2]]).expand(12, 4)
    theta = torch.tensor([0.05, -0.4, 0.6, 1.1]).repeat(3).unsqueeze(-1)
    fits = guide.match(drawn(program, cat, where, theta), where, guide.transformed_templates()[0])
    assert fits.shape == (12, 3, 24)
    assert fits.amax(-1).argmax(-1).tolist() == cat.tolist()
    best = guide.angles[fits.argmax(-1)].gather(1, cat[:, None])
    turned = math.pi * (best.tanh() - theta.tanh())
    symmetry = (2 * math.pi / torch.tensor([4, 1, 2]))[cat][:, None]  # of square, triangle, bar
    off = (turned + symmetry / 2) % symmetry - symmetry / 2
    assert off.abs().max() < 0.2  # half the distance between two of the angles tried


def test_a_match_is_a_log_likelihood_of_pixels(pair):
    """Differences of matches are differences of the likelihood of the whole picture."""
    program, guide = pair
    where = torch.tensor([[0.3, 0.0, 0.1, 0.1]])
    middle = int(guide.angles.abs().argmin())
    image = drawn(program, [1], where, guide.angles[middle].view(1, 1))
    found = guide.match(image, where, guide.transformed_templates()[0])[0, :, middle]
    likelihood = []
    for k in range(3):
        expected = drawn(program, [k], where, guide.angles[middle].view(1, 1))
        likelihood.append(-0.5 * (image - expected).square().sum() / program.sigma**2)
    wanted = torch.stack(likelihood)
    torch.testing.assert_close(found - found[1], wanted - wanted[1], rtol=0.15, atol=2.0)


def test_what_is_salient_moves_with_the_object(pair):
    _, guide = pair
    spot = torch.zeros(1, 1, 64, 64)
    spot[..., 28:36, 28:36] = 1
    with torch.no_grad():
        guide.salience.weight.zero_()
        guide.embed[1][0].bias.zero_()
        norms = guide.embed[1][-2]
        norms.weight.fill_(1.0)
        guide.salience.weight[0, :-2] = 20.0  # wherever features are large
        moved = [guide.salient(spot.roll((dy, dx), (2, 3)))[1][0] for dy, dx in ((0, 0), (8, 16))]
    assert moved[1][2] - moved[0][2] > 0.2 and moved[1][3] - moved[0][3] > 0.1


@pytest.mark.parametrize("sharpness, most", [(0.0, 1 / 3), (1.0, 1.0)])
def test_sharpness_says_how_much_the_match_decides(pair, sharpness, most):
    program, guide = pair
    guide.sharpness.fill_(sharpness)
    where = torch.zeros(1, 4)
    image = drawn(program, [2], where, torch.tensor([[0.25]]))
    conditioned = pyro.condition(guide, data={"z_where_1": where})
    trace = pyro.poutine.trace(conditioned).get_trace(image)
    probabilities = trace.nodes["z_cat_1"]["fn"].probs[0].detach()
    assert float(probabilities[2]) == pytest.approx(most, abs=1e-3)


def test_the_angle_begins_at_the_best_one_of_the_category_that_was_sampled(pair):
    program, guide = pair
    with torch.no_grad():
        guide.fine_head[-1].weight.zero_()
        guide.fine_head[-1].bias.zero_()
    where = torch.tensor([[0.1, 0.0, 0.0, 0.0]])
    image = drawn(program, [2], where, torch.tensor([[0.25]]))
    best = guide.angles[guide.match(image, where, guide.transformed_templates()[0]).argmax(-1)][0]
    for k in range(3):
        values = {"z_where_1": where, "z_cat_1": torch.eye(3)[k : k + 1]}
        trace = pyro.poutine.trace(pyro.condition(guide, data=values)).get_trace(image)
        loc = trace.nodes["z_theta_1"]["fn"].base_dist.loc.detach()
        assert float(loc) == pytest.approx(float(best[k]), abs=1e-5)


def test_digits_have_attributes_and_shears_that_sprites_have_not():
    sprites, digits = VARIANTS["discrete_air"], VARIANTS["discrete_air_mnist"]
    assert (sprites.theta, digits.theta, sprites.attributes, digits.attributes) == (1, 3, 0, 2)


@pytest.fixture
def slanted():
    """A program whose two templates are a hook and a bar, and a guide that tries shears and aspects."""
    program, guide = tiny.build(
        "discrete_air",
        "discrete_air_mnist",
        size=50,
        categories=2,
        embedding=(8, 8),
        sought=(-0.2, 0.0),
        pool=1,
    )
    x, y = render.pixel_axes(16)
    bar = (x.abs() < 0.15) & (y.abs() < 0.7)
    hook = bar | ((y > 0.4) & (y < 0.7) & (x > 0) & (x < 0.6))
    shapes = torch.stack([hook, bar]).float()[:, None]
    program.decode = lambda cat, attr: torch.einsum("...k,kchw->...chw", cat, shapes)
    return program, guide


def test_the_best_match_has_the_shear_and_the_aspect_that_were_drawn(slanted):
    program, guide = slanted
    tries, aspects = guide.tries, guide.aspects
    assert tries.shape == (24, 3) and len(aspects) == 3 and float(aspects[1]) == 0
    templates = guide.templates()
    assert templates.mean.shape == (3, 2, 24, 1, 16, 16)
    for which in (0, 8 + 1, 16 + 6):
        for aspect in aspects:
            theta, place = tries[which].expand(2, 3), torch.tensor([[0.0, 0.0, 0.2, -0.1]] * 2)
            drawn_at = place + torch.tensor([0.0, float(aspect), 0.0, 0.0])
            image = drawn(program, [0, 1], drawn_at, theta)
            found = guide.correction(image, place, templates)
            assert (found[:, 1] - aspect).abs().max() < 0.02
            fits = guide.match(image, drawn_at, templates.middle)
            assert fits.amax(-1).argmax(-1).tolist() == [0, 1]
            # a turn and a shear together are near another turn and shear, so maps are compared
            best = guide.tries[fits.argmax(-1).diagonal()]
            one, two = (program.pose(torch.zeros(2, 4), x) for x in (best, theta))
            assert (one - two).abs().max() < 0.2 * program.config.scale


def test_the_guide_looks_where_a_template_explains_most_and_knows_how_much(slanted):
    program, guide = slanted
    places = torch.tensor([[0.0, 0.0, 0.42, -0.26], [-0.2, 0.0, -0.42, 0.26]])
    images = drawn(program, [0, 1], places, torch.zeros(2, 3))
    sought = guide.sought()
    assert sought.shape[:3] == (4, 12, 1)
    both = torch.stack([images.sum(0), images[1], torch.zeros_like(images[0])])
    with torch.no_grad():
        seen, where = guide.promising(both, sought, 3)
    # the hook has more ink than the bar
    assert (where[:2] - places).abs().max() < 0.06 and not where[2].any()
    ink = images.square().sum((1, 2, 3))
    explained = seen[:2, -1].sinh() * 10
    torch.testing.assert_close(explained, 0.5 * ink / program.sigma**2, rtol=0.2, atol=0.0)
    assert float(seen[2, -1]) == 0


def test_two_objects_that_touch_are_two_places(slanted):
    program, guide = slanted
    places = torch.tensor([[0.0, 0.0, -0.1, 0.0], [0.0, 0.0, 0.1, 0.05]])
    objects = drawn(program, [1, 1], places, torch.zeros(2, 3))
    first, _ = guide.best_place(objects.sum(0, keepdim=True), guide.sought(), 2)
    taken = int((first[0] - places).abs().amax(-1).argmin())
    assert (first[0, 2:] - places[taken, 2:]).abs().max() < 0.06
    second, gain = guide.best_place(objects[1 - taken].unsqueeze(0), guide.sought(), 1)
    assert (second[0, 2:] - places[1 - taken, 2:]).abs().max() < 0.06 and gain > 0


def test_a_place_beside_an_object_is_moved_onto_it(slanted):
    program, _ = slanted
    guide = type(slanted[1])(type(program)(replace(program.config, shifts=5)))
    object.__setattr__(guide, "program", program)
    truth = torch.tensor([[0.0, 0.0, 0.2, -0.1]] * 2)
    image = drawn(program, [0, 1], truth, torch.zeros(2, 3))
    off = truth + torch.tensor([[0.0, 0.0, 0.09, 0.045], [0.0, 0.0, -0.045, 0.09]])
    found = off + guide.correction(image, off, guide.templates())
    assert (found - truth).abs().max() < 0.02


@pytest.mark.parametrize(
    "change",
    [
        {"aspects": 2},
        {"shifts": 2},
        {"shears": 3},
        {"sought": (0.0, math.nan)},
    ],
)
def test_what_cannot_be_tried_is_refused(change):
    with pytest.raises(ValueError, match="expected"):
        Config(**change)


@pytest.mark.parametrize("change", [{"embedding": ()}, {"encoder": ()}])
def test_networks_without_layers_are_refused(change):
    with pytest.raises(ValueError, match="expected channels of at least one layer"):
        Config(**change)


def test_a_second_look_shifts_places_and_doubts_them():
    pyro.set_rng_seed(3)
    _, guide = tiny.build("discrete_air", second_look=True)
    images, loc = torch.rand(6, 1, 32, 32), torch.randn(6, 4) * 0.1
    q = guide.q_where(images, loc, torch.zeros(6, 4))
    assert torch.allclose(
        q.component_distribution.mean[:, 0], loc
    )  # it says nothing before training
    rare = q.mixture_distribution.probs[:, 1]
    assert rare.max() < 0.02
    (-q.log_prob(loc + 0.3).sum()).backward()
    moved = [
        n for n, p in guide.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    ]
    assert moved and {n.partition(".")[0] for n in moved} == {"look_head"}


def test_a_template_explains_what_it_adds_to_the_likelihood(pair):
    program, guide = pair
    where = torch.tensor([[0.3, 0.0, 0.1, 0.1]]).expand(2, 4)
    theta = guide.angles[guide.angles.abs().argmin()].view(1, 1).expand(2, 1)
    image = drawn(program, [1, 1], where, theta) * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    there, nothing = guide.explained(image, where, guide.templates())
    added = 0.5 * float(image[0].square().sum() / program.sigma**2)
    assert float(there) == pytest.approx(added, rel=0.1) and nothing < 0


def test_weighed_presence_rises_with_what_a_template_explains():
    pyro.set_rng_seed(0)
    images = torch.rand(4, 1, 32, 32)
    weighed = tiny.build("discrete_air", weighed=True)[1]
    plain = tiny.build("discrete_air")[1]
    plain.load_state_dict(weighed.state_dict(), strict=False)

    def logits(guide):
        pyro.set_rng_seed(1)
        return pyro.poutine.trace(guide).get_trace(images).nodes["z_pres_1"]["fn"].logits

    before = logits(weighed)
    assert torch.equal(before, logits(plain))  # the head says nothing before training
    nats = torch.tensor([5.0, -5.0, 50.0, 0.0])
    weighed.explained = lambda *_: nats
    with torch.no_grad():
        weighed.pres_head[0].weight.fill_(1.0)
        weighed.pres_head[0].bias.zero_()
        weighed.pres_head[-1].weight.fill_(1.0)
    assert (logits(weighed) - before).argsort().tolist() == nats.argsort().tolist()


def test_sorted_templates_are_drawn_by_the_decoder(monkeypatch):
    torch.manual_seed(0)
    program, guide = tiny.build("discrete_air", "discrete_air_mnist", size=50, categories=2)
    side = program.config.window
    x, y = render.pixel_axes(side)
    bar = (x.abs() < 0.25) & (y.abs() < 0.7)
    shapes = torch.stack([bar, (x.abs() < 0.7) & (y.abs() < 0.25)]).float()[:, None]
    which = torch.arange(120) % 2
    windows = shapes[which] + 0.1 * torch.randn(120, 1, side, side)
    monkeypatch.setattr(guide, "alone", lambda images: (windows, torch.full((120,), 10.0)))
    head = {k: v.clone() for k, v in guide.state_dict().items()}
    guide.sort(torch.zeros(1, 1, 50, 50))
    found = guide.mean_objects()[:, 0]
    errors = (found[:, None] - shapes).abs().mean((-3, -2, -1))
    assert sorted(errors.argmin(1).tolist()) == [0, 1] and errors.amin(1).max() < 0.1
    assert all(torch.equal(v, head[k]) for k, v in guide.state_dict().items())


def test_what_an_object_adds_is_seen_without_the_others(slanted):
    program, guide = slanted
    places = torch.tensor([[0.0, 0.0, -0.1, 0.0], [0.0, 0.0, 0.2, 0.05]])
    pictures, there = drawn(program, [0, 1], places, torch.zeros(2, 3)), torch.ones(1)
    objects = [
        Object(there, place[None], torch.zeros(1, 3), torch.eye(2)[[k]], torch.zeros(1, 2))
        for k, place in enumerate(places)
    ]
    guide.forward = lambda images: objects
    seen, precision = guide.alone(pictures.sum(0, keepdim=True))
    alone = guide.window(pictures, places, torch.zeros(2, 3))
    assert seen.shape == (2, 1, 16, 16) and (seen - alone).abs().max() < 1e-5
    area = (program.config.scale * program.config.size / 16) ** 2
    assert precision.tolist() == pytest.approx(2 * [area / float(program.sigma) ** 2], rel=1e-4)
