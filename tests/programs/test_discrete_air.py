"""The parts of Discrete-AIR's guide that look: templates matched at every angle, and what is salient."""

import math

import pyro
import pytest
import tiny
import torch

from programs.blocks import render
from programs.discrete_air import VARIANTS, Config


@pytest.fixture
def pair():
    """A program whose three templates are a square, a triangle and a bar, and its guide."""
    program, guide = tiny.build("discrete_air", size=64, embedding=(8, 8))
    axis = (2 * torch.arange(16) + 1) / 16 - 1
    x, y = axis.expand(16, -1), axis[:, None].expand(-1, 16)
    inside = [(x.abs() < 0.55) & (y.abs() < 0.55), (y.abs() < 0.6) & (x.abs() < 0.35 - 0.4 * y)]
    inside.append((x.abs() < 0.8) & (y.abs() < 0.3))
    shapes = torch.stack(inside).float()[:, None]
    program.decode = lambda cat, attr: torch.einsum("...k,kchw->...chw", cat, shapes)
    return program, guide


def drawn(program, cat, where, theta):
    patch = program.decode(torch.eye(3)[cat], torch.zeros(len(cat), 0))
    return render.place(patch, program.pose(where, theta), program.config.size)


def test_the_best_match_is_the_template_and_the_angle_that_were_drawn(pair):
    program, guide = pair
    cat = torch.arange(3).repeat_interleave(4)
    where = torch.tensor([[0.1, 0.0, 0.3, -0.2]]).expand(12, 4)
    theta = torch.tensor([0.05, -0.4, 0.6, 1.1]).repeat(3).unsqueeze(-1)
    fits = guide.match(drawn(program, cat, where, theta), where, guide.turned_templates())
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
    found = guide.match(image, where, guide.turned_templates())[0, :, middle]
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
        moved = [guide.look(spot.roll((dy, dx), (2, 3)))[1][0] for dy, dx in ((0, 0), (8, 16))]
    assert moved[1][0] - moved[0][0] > 0.2 and moved[1][1] - moved[0][1] > 0.1


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
    best = guide.angles[guide.match(image, where, guide.turned_templates()).argmax(-1)][0]
    for k in range(3):
        values = {"z_where_1": where, "z_cat_1": torch.eye(3)[k : k + 1]}
        trace = pyro.poutine.trace(pyro.condition(guide, data=values)).get_trace(image)
        loc = trace.nodes["z_theta_1"]["fn"].base_dist.loc.detach()
        assert float(loc) == pytest.approx(float(best[k]), abs=1e-5)


def test_digits_have_attributes_and_shears_that_sprites_have_not():
    sprites, digits = VARIANTS["discrete_air"], VARIANTS["discrete_air_mnist"]
    assert (sprites.theta, digits.theta, sprites.attributes, digits.attributes) == (1, 3, 0, 1)


@pytest.mark.parametrize("change", [{"embedding": ()}, {"encoder": ()}])
def test_networks_without_layers_are_refused(change):
    with pytest.raises(ValueError, match="expected channels of at least one layer"):
        Config(**change)
