"""Templates by EM with splits and merges: likelihoods, moves out of a mode of wrong templates, imitation."""

import math

import pytest
import torch
from torch import nn

from programs.blocks import templates
from programs.blocks.templates import Pictures, Template

SIDE = 12
SIGMA = 0.2


def forms():
    """Three shapes (3, 1, 12, 12): a bar, a frame and a cross."""
    shapes = torch.zeros(3, 1, SIDE, SIDE)
    shapes[0, 0, 2:10, 5:7] = 1
    shapes[1, 0, 2:10, 2:10] = 1
    shapes[1, 0, 4:8, 4:8] = 0
    shapes[2, 0, 5:7, 1:11] = shapes[2, 0, 1:11, 5:7] = 1
    return shapes


def turned(angles):
    """(Ω, 2, 3) rotations."""
    a = torch.tensor(angles)
    rows = (torch.stack([a.cos(), -a.sin()], -1), torch.stack([a.sin(), a.cos()], -1))
    return torch.cat([torch.stack(rows, -2), torch.zeros(len(a), 2, 1)], -1)


MAPS = turned([-0.3, 0.0, 0.3])


@pytest.fixture
def drawn():
    """Pictures of the three shapes under random maps, with noise, and the shape of each."""
    g = torch.Generator().manual_seed(0)
    label, which = (torch.randint(3, (240,), generator=g) for _ in range(2))
    seen = templates.render.place(forms()[label], MAPS[which], SIDE)
    seen = seen + SIGMA * torch.randn(seen.shape, generator=g)
    return Pictures(seen, torch.full((240,), SIGMA**-2), MAPS), label


def without_ways(mean, ways=0):
    return Template(mean, mean.new_zeros(ways, *mean.shape))


def test_a_fit_is_the_best_log_likelihood_over_maps(drawn):
    pictures, _ = drawn
    best, which = templates.fit(pictures, without_ways(forms()[1]))
    placed = templates.render.place(forms()[1].expand(3, -1, -1, -1), MAPS, SIDE)
    exact = -0.5 * (pictures.seen[:, None] - placed).square().sum((-3, -2, -1)) / SIGMA**2
    exact = exact + 0.5 * pictures.seen.square().sum((-3, -2, -1))[:, None] / SIGMA**2
    assert torch.allclose(best, exact.amax(1), rtol=1e-4, atol=1e-2)
    assert (which == exact.argmax(1)).float().mean() == 1


def test_a_fit_sums_ways_out(drawn):
    pictures, _ = drawn
    still, way = forms()[0], 0.5 * forms()[2]
    some = pictures._replace(maps=turned([0.0])).some(torch.arange(5))
    best, _ = templates.fit(some, Template(still, way[None]))
    cov = SIGMA**2 * torch.eye(SIDE**2) + way.flatten()[:, None] * way.flatten()
    exact = torch.distributions.MultivariateNormal(still.flatten(), cov).log_prob(
        some.seen.flatten(1)
    )
    none = torch.distributions.Normal(0.0, SIGMA).log_prob(some.seen.flatten(1)).sum(1)
    assert torch.allclose(best, exact - none, rtol=1e-4, atol=1e-2)


def named(pictures, found):
    """(N) the template that explains each picture best."""
    return templates.as_mixture(pictures, found).fits.best.argmax(1)


def purity(name, label):
    """Share of pictures whose template belongs to their shape."""
    table = torch.zeros(3, 3)
    table.index_put_((name, label), torch.ones(len(name)), accumulate=True)
    return float(table.amax(1).sum() / len(name))


@pytest.mark.parametrize("ways", [0, 1])
def test_two_templates_of_one_shape_and_one_of_two_come_apart(drawn, ways):
    pictures, label = drawn
    bar, frame, cross = forms()
    stuck = [without_ways(x, ways) for x in (bar, 0.9 * bar, (frame + cross) / 2)]
    before = templates.em(pictures, templates.as_mixture(pictures, stuck), [1.0] * 15)
    lines = []
    found = templates.better(pictures, stuck, told=lines.append)
    assert purity(before.fits.best.argmax(1), label) < 0.75
    assert purity(named(pictures, found), label) == 1.0
    assert len(lines) == 1


def test_right_templates_stay(drawn):
    pictures, label = drawn
    lines = []
    found = templates.better(pictures, [without_ways(x) for x in forms()], told=lines.append)
    assert not lines and purity(named(pictures, found), label) == 1.0
    assert (found[1].mean - forms()[1]).abs().mean() < 0.1


def test_a_way_is_found_with_its_size():
    g = torch.Generator().manual_seed(0)
    numbers = torch.randn(600, generator=g)
    way = 0.3 * (forms()[1] - forms()[0])
    seen = forms()[0] + numbers[:, None, None, None] * way
    seen = seen + SIGMA * torch.randn(seen.shape, generator=g)
    pictures = Pictures(seen, torch.full((600,), SIGMA**-2), turned([0.0]))
    begin = templates.as_mixture(pictures, [without_ways(seen.mean(0), 1)])
    found = templates.em(pictures, begin, [1.0] * 3).templates[0].ways[0]
    cosine = (found * way).sum() / found.norm() / way.norm()
    assert cosine.abs() > 0.97 and float(found.norm() / way.norm()) == pytest.approx(1, abs=0.1)


def test_a_decoder_imitates_templates():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3 + 1, 64), nn.CELU(), nn.Linear(64, SIDE**2))

    def draw(cat, numbers):
        return net(torch.cat([cat, numbers], -1)).sigmoid().unflatten(-1, (1, SIDE, SIDE))

    wanted = [Template(x, 0.1 * x[None]) for x in 0.1 + 0.5 * forms()]
    error = templates.imitate(draw, [*net.parameters()], wanted, steps=800)
    one = torch.eye(3)[:, None]
    again = torch.stack([t.mean for t in wanted])[:, None]
    assert (draw(one, torch.zeros(3, 1, 1)) - again).abs().max() < 0.1
    assert math.isfinite(error) and error < 0.5
