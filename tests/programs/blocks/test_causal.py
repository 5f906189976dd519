"""A learned prior of maps: a density, causal, and drawn from as it is scored."""

import math

import pytest
import torch

from programs.blocks.causal import BLUR, LearnedMap

PRESENT = torch.tensor([[2.0, 0.5], [0.3, 0.2]])
ABSENT = torch.tensor([[-1.0, 0.0], [0.5, 0.4]])


def build(side=3, components=2, awake=True, channels=2):
    torch.manual_seed(0)
    moments = PRESENT[:, :channels], ABSENT[:, :channels]
    prior = LearnedMap(*moments, -1.0, side, components, radius=2, features=8)
    if awake:
        with torch.no_grad():
            for p in prior.parameters():
                p.add_(0.3 * torch.randn_like(p))
    return prior


@torch.no_grad()
def test_at_first_it_is_the_papers():
    prior, z = build(awake=False), torch.randn(4, 2, 3, 3)
    one, none = prior.densities(z)
    rho = torch.tensor(-1.0).sigmoid()
    for found, (loc, sd), p in ((one, PRESENT, rho), (none, ABSENT, 1 - rho)):
        each = torch.distributions.Normal(loc[:, None, None], sd[:, None, None]).log_prob(z).sum(1)
        torch.testing.assert_close(found, each + p.log())
    torch.testing.assert_close(prior().log_prob(z), torch.logaddexp(one, none).sum((1, 2)))


@torch.no_grad()
def test_a_cell_depends_on_those_before_it_alone():
    prior, z = build(side=4), torch.randn(1, 2, 4, 4)
    before = torch.stack(prior.densities(z)).flatten(2)
    for cell in range(16):
        other = z.clone()
        other[0, :, cell // 4, cell % 4] += 1.0
        moved = (torch.stack(prior.densities(other)).flatten(2) != before).any(0)[0]
        assert not moved[:cell].any() and moved[cell]
    other = z.clone()
    other[0, :, 0, 0] += 1.0
    moved = (torch.stack(prior.densities(other)).flatten(2) != before).any(0)[0]
    assert moved[1] and moved[5], "to the right, and below"


@torch.no_grad()
def test_every_cell_integrates_to_one_given_those_before():
    prior = build(side=2, channels=1)
    z, grid = torch.randn(1, 1, 2, 2), torch.linspace(-15, 15, 6001)
    for cell in range(4):
        maps = z.repeat(len(grid), 1, 1, 1)
        maps[:, 0, cell // 2, cell % 2] = grid
        density = torch.logaddexp(*prior.densities(maps))[:, cell // 2, cell % 2].exp()
        assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-3)


@torch.no_grad()
def test_draws_are_of_the_density():
    """E_p[q / p] = 1 for any density q: here a narrow Gaussian at their mean."""
    prior = build(side=2, components=3)
    z = prior().sample(torch.Size([20_000]))
    assert z.shape == (20_000, 2, 2, 2)
    loc, sd = z.mean(0), z.std(0)
    q = torch.distributions.Normal(loc, 0.7 * sd).log_prob(z).sum((1, 2, 3))
    ratio = (q - prior().log_prob(z)).exp().double()
    error = ratio.std() / math.sqrt(len(ratio))
    assert error < 0.1 and (ratio.mean() - 1).abs() < 4 * error


def test_a_fit_learns_that_cells_are_alike():
    """Maps of one presence each, all cells alike: a bit for the first cell, and none for the others."""
    prior = build(side=3, awake=False)
    torch.manual_seed(1)
    there = (torch.rand(300, 1, 1, 1) < 0.4).expand(-1, 1, 3, 3)
    moments = torch.where(there, PRESENT[0][:, None, None], ABSENT[0][:, None, None])
    maps = moments + 0.1 * torch.randn(300, 2, 3, 3)
    with torch.no_grad():
        plain = prior().log_prob(maps[200:]).mean()
    prior.schedule = (30, 16, 5e-3)
    prior.fit(maps[:200].flatten(1), torch.ones(200))
    with torch.no_grad():
        fitted = prior().log_prob(maps[200:]).mean()
        best = (
            torch.distributions.Normal(0.0, 0.1).log_prob(maps[200:] - moments[200:]).sum((1, 2, 3))
        )
        ideal = best.mean() - 0.673  # entropy of the presence, in nats
        drawn = prior.draw(200)
    assert plain < ideal - 10 and fitted > ideal - 3
    centre = (PRESENT[0] + ABSENT[0])[0] / 2
    signs = (drawn[:, 0] > centre).flatten(1).double().mean(1)
    assert ((signs < 0.1) | (signs > 0.9)).double().mean() > 0.9
    assert 0.2 < (signs > 0.5).double().mean() < 0.6


@torch.no_grad()
def test_blur_is_of_the_cells_before_and_not_of_the_cell():
    prior, z = build(side=2), torch.randn(3, 2, 2, 2)
    sharp, blurred = (torch.stack(prior.densities(z, b)).flatten(2) for b in (None, torch.ones(3)))
    same = (sharp == blurred).all(0)
    assert same[:, 0].all() and not same[:, 1:].any(), "nothing is before the first cell"
    torch.testing.assert_close(torch.stack(prior.densities(z, torch.zeros(3))).flatten(2), sharp)
    plain = prior.context(z)
    noisy = prior.context(z, torch.tensor([0.0, 1.0, 1.0]))
    others = [2, 3, 5]  # places, and where cells are
    assert (noisy[0] == plain[0]).all() and (noisy[1:, others] == plain[1:, others]).all()
    assert (noisy[1:, 4, 2:, 2:-2] == 1 / BLUR).all() and not plain[:, 4].any(), "it is told"
    assert not (noisy[1:, :2] == plain[1:, :2])[..., 2:, 2:-2].any()


@torch.no_grad()
def test_plain_takes_a_fit_back():
    prior, z = build(), torch.randn(4, 2, 3, 3)
    prior.plain()
    torch.testing.assert_close(prior().log_prob(z), build(awake=False)().log_prob(z))
