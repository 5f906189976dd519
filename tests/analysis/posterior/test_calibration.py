"""Checks of calibration against exact posteriors, and against the same made overconfident."""

import functools
import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import small_programs
import torch

from analysis.posterior.calibration import (
    RankStatistics,
    calibration,
    count_reliability,
    coverage,
    pit,
    ranked_probability_score,
    ranks,
    reliability,
    sbc,
    simulate,
    tarp,
)
from analysis.posterior.quantities import n_objects
from analysis.scores.counts import OBJECT_RADIUS
from inference.runs import open_run

OVERCONFIDENT = 1.5**2
"""Sharpness: a Gaussian's standard deviation divided by 1.5, the log-odds of masses times 2.25."""
NAMES = {"appearance": "centroid[0]", "presence": "n_objects", "count": "n_objects"}
"""What the latents of each small program decide."""
SMALL = pytest.mark.parametrize("name", NAMES)
LEVELS = torch.tensor([0.5, 0.8, 0.95])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Ranks


def test_a_rank_counts_the_draws_below():
    draws = torch.tensor([[0.0, 5.0, 1.0], [2.0, 6.0, 1.5], [4.0, 7.0, 0.5]])
    assert ranks(torch.tensor([3.0, 8.0, 0.0]), draws).tolist() == [2, 3, 0]


def test_ties_are_broken_evenly():
    """Expected 1/5 of 5,000 for each of five ranks; chi-square's p-value is below 0.001 once in 1,000."""
    draws = torch.tensor([1, 2, 2, 2, 2, 3])[:, None].expand(-1, 5000)
    found = ranks(torch.full((5000,), 2), draws, generator()).bincount(minlength=7)
    assert found[[0, 6]].sum() == 0
    assert scipy.stats.chisquare(found[1:6]).pvalue > 0.001


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match=r"truth is \(3,\) and draws \(5, 2\): expected draws"):
        ranks(torch.zeros(3), torch.zeros(5, 2))
    with pytest.raises(ValueError, match="at least one of each"):
        ranks(torch.zeros(3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="ranks of NaN"):
        ranks(torch.zeros(1), torch.tensor([[math.nan]]))


@pytest.mark.parametrize("below", [30, 42, 65])
def test_with_one_draw_the_p_value_is_that_of_a_coin(below):
    """Up to the error of 10,000 replicates, four standard errors."""
    found = RankStatistics(torch.tensor([0] * below + [1] * (100 - below)), draws=1).p_value
    exact = scipy.stats.binomtest(below, 100).pvalue
    assert abs(found - exact) < 4 * (exact * (1 - exact) / 10_000) ** 0.5 + 1e-4


def test_p_values_of_uniform_ranks_are_uniform_and_bands_say_the_same():
    """2,000 sets of 80 ranks; shares within four standard errors."""
    sets = torch.randint(20, (2000, 80), generator=generator())
    statistics = [RankStatistics(each, draws=19) for each in sets]
    p = torch.tensor([s.p_value for s in statistics])
    for level in (0.05, 0.2, 0.5):
        error = (level * (1 - level) / len(p)) ** 0.5
        assert abs(float((p <= level).double().mean()) - level) < 4 * error
    for s in statistics[:200]:
        low, high = s.band(0.8)
        outside = (s.coverage < low) | (s.coverage > high)
        assert bool(outside.any()) == (s.p_value < 0.2)


def test_coverage_of_ranks_and_its_distances():
    s = RankStatistics(torch.tensor([0, 0, 1, 3]), draws=3)
    assert s.levels.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert s.coverage.tolist() == [0, 0.5, 0.75, 0.75, 1]
    assert s.deviation == pytest.approx(0.25) and s.area == pytest.approx(0.1)


# TARP


def gaussian(number, sharpness=1.0, correlation=0.0, draws=99):
    """Truth and draws of a plane Gaussian whose mean the image tells; the truth has the correlation."""
    g = generator(1)
    mean = 3 * torch.randn(number, 2, generator=g).double()
    one, other = torch.randn(2, draws + 1, number, generator=g).double()
    truth = torch.stack([one, correlation * one + (1 - correlation**2) ** 0.5 * other], -1)[0]
    return mean + truth, mean + torch.stack([one, other], -1)[1:] / sharpness**0.5


def test_tarp_of_the_posterior_is_uniform_and_else_is_not():
    """400 images: a false alarm once in 100, were the seed not fixed. Measured p 0.87 and 0.0001."""
    assert tarp(*gaussian(400), generator=generator()).p_value > 0.01
    assert tarp(*gaussian(400, OVERCONFIDENT), generator=generator()).p_value < 0.001


def test_tarp_sees_a_wrong_correlation_that_no_rank_sees():
    """2,000 images; each rank's p-value is above 0.01 by chance 99 times in 100. Measured p of TARP 0.0012."""
    truth, draws = gaussian(2000, correlation=0.9)
    for i in range(2):
        alone = ranks(truth[:, i], draws[..., i], generator())
        assert RankStatistics(alone, 99).p_value > 0.01
    assert tarp(truth, draws, generator=generator()).p_value < 0.01


def test_far_away_a_ball_is_a_half_plane():
    truth, draws = gaussian(50)
    direction = torch.tensor([0.6, 0.8]).double()
    found = tarp(truth, draws, references=-1e6 * direction.expand(50, 2))
    torch.testing.assert_close(found.ranks, ranks(truth @ direction, draws @ direction))


# Intervals


def test_transforms_of_continuous_values_lie_in_the_cell_of_the_rank():
    truth, draws = torch.randn(200), torch.randn(9, 200)
    torch.testing.assert_close((10 * pit(truth, draws)).long(), ranks(truth, draws))


def test_draws_that_are_missing_do_not_count():
    draws = torch.tensor([1.0, 2.0, math.nan, 4.0, math.nan])[:, None].expand(-1, 1000)
    found = pit(torch.full((1000,), 3.0), draws, generator())
    assert 0.5 <= found.min() < 0.505 and 0.745 < found.max() <= 0.75
    nothing = pit(torch.zeros(1000), torch.full((5, 1000), math.nan), generator())
    assert nothing.min() < 0.01 and nothing.max() > 0.99


@pytest.mark.parametrize("draws", [99, 19])
def test_intervals_of_counts_have_their_level_exactly(draws):
    """4,000 counts, four binomial standard errors; a closed interval of a median holds far more than half."""
    rate = 3 * torch.rand(4000, generator=generator())
    n = torch.poisson(rate.expand(draws + 1, -1), generator=generator(1))
    found = coverage(pit(n[0], n[1:], generator(2)))
    torch.testing.assert_close(found.levels.float(), LEVELS)
    assert found.number == 4000
    expected = (LEVELS * (1 - LEVELS) / 4000) ** 0.5
    torch.testing.assert_close(found.errors.float(), expected)
    assert ((found.shares - found.levels).abs() < 4 * found.errors).all()


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_intervals_that_are_too_narrow_hold_what_the_normal_distribution_says(factor):
    """4,000 truths, four standard errors, and 1 % for intervals from 99 draws."""
    truth = torch.randn(4000, generator=generator())
    draws = torch.randn(99, 4000, generator=generator(1)) / factor
    found = coverage(pit(truth, draws, generator(2)))
    normal = scipy.stats.norm
    expected = 2 * normal.cdf(normal.ppf((1 + LEVELS.numpy()) / 2) / factor) - 1
    gap = (found.shares - torch.from_numpy(expected)).abs()
    assert (gap < 4 * (found.shares * (1 - found.shares) / 4000).sqrt() + 0.01 * (factor > 1)).all()


# Events


def events(number, draws=49, sharpness=1.0, seed=0):
    """Truth and draws of two events an image that always happen together, log-odds N(0, 2²)."""
    logits = 2 * torch.randn(number, 1, generator=generator(seed))
    uniform = torch.rand(draws + 1, number, 1, generator=generator(seed + 1))
    right = (uniform < logits.sigmoid()).expand(-1, -1, 2)
    return right[0], (uniform < (sharpness * logits).sigmoid()).expand(-1, -1, 2)[1:]


def test_scores_of_events_are_what_their_definitions_say():
    truth, draws = events(100)
    valid = torch.rand(100, 2, generator=generator()) < 0.7
    found = reliability(truth, draws, valid)
    pairs = [
        (float(draws[:, b, k].double().mean()), float(truth[b, k]))
        for b in range(100)
        for k in range(2)
        if valid[b, k]
    ]
    bins = [[] for _ in range(10)]
    for p, o in pairs:
        bins[min(9, math.floor(10 * p + 1e-9))].append((p, o))
    bins = [b for b in bins if b]
    gaps = [abs(sum(o - p for p, o in b)) for b in bins]
    assert found.brier == pytest.approx(sum((p - o) ** 2 for p, o in pairs) / len(pairs), abs=1e-6)
    assert found.ece == pytest.approx(sum(gaps) / len(pairs), abs=1e-6)
    assert found.number.tolist() == [len(b) for b in bins]
    for i, b in enumerate(bins):
        assert found.frequency[i] == pytest.approx(sum(o for _, o in b) / len(b))
        assert found.probability[i] == pytest.approx(sum(p for p, _ in b) / len(b))
        error = sum(p * (1 - p) for p, _ in b) ** 0.5 / len(b)
        assert found.error[i] == pytest.approx(error, abs=1e-6)


def test_p_values_of_right_probabilities_are_uniform_though_events_depend_on_each_other():
    """300 sets; shares within four standard errors."""
    p = [reliability(*events(60, 19, seed=2 * i)).p_value for i in range(300)]
    for level in (0.05, 0.2, 0.5):
        error = (level * (1 - level) / len(p)) ** 0.5
        assert abs(float((torch.tensor(p) <= level).double().mean()) - level) < 4 * error


def test_log_odds_times_one_and_a_half_are_seen():
    """2,000 images, two events each. Measured p 0.46 and 0.001, the least there is."""
    assert reliability(*events(2000)).p_value > 0.01
    assert reliability(*events(2000, sharpness=1.5)).p_value < 0.002


def test_the_score_of_counts_is_half_their_distance_from_the_truth():
    """RPS = E|n - y| - E|n - n'| / 2 over draws n, n' (Gneiting and Raftery, 2007, eq. 21)."""
    y, n = torch.tensor([2, 0, 7]), torch.poisson(torch.full((30, 3), 2.0)).long()
    far = (n - y).abs().double().mean(0)
    apart = (n[:, None] - n).abs().double().mean((0, 1))
    torch.testing.assert_close(ranked_probability_score(y, n), far - apart / 2)


def test_probabilities_of_counts_are_judged_one_by_one():
    y, n = torch.tensor([1, 2]), torch.tensor([[1, 2], [1, 0], [1, 2], [1, 2]])
    found = count_reliability(y, n)
    assert found.probability.tolist() == [0, 0.25, 0.75, 1]
    assert found.number.tolist() == [3, 1, 1, 1]
    assert found.frequency.tolist() == [0, 0, 1, 1]


# Programs and guides


@functools.cache
def calibrated(name, sharpness):
    """Of 400 simulations with 19 draws; boxes may be any distance apart."""
    small = small_programs.ALL[name]
    pyro.set_rng_seed(3)
    images, truth = simulate(small.program, 400)
    return calibration(small.program, small.guide(sharpness), images, truth, 19, radius=100.0)


@SMALL
def test_sbc_ranks_are_uniform_under_the_posterior_and_not_if_it_is_overconfident(name):
    """400 simulations x 99 draws; a false alarm 1 in 100 for each program, were the seed not fixed.

    Measured p, exact and overconfident: appearance 0.77, 0.0001; presence 0.90, 0.0001; count 0.24, 0.0005.
    """
    small, quantity = small_programs.ALL[name], NAMES[name]
    exact = sbc(small.program, small.guide(), 400)
    wrong = sbc(small.program, small.guide(OVERCONFIDENT), 400)
    assert set(exact) == {"n_objects", "centroid[0]", "centroid[1]", "object_size"}
    assert exact[quantity].draws == 99 and exact[quantity].ranks.shape == (400,)
    assert exact[quantity].p_value > 0.01
    assert wrong[quantity].p_value < 0.001


@SMALL
def test_tarp_of_programs(name):
    """400 simulations x 19 draws; a false alarm 1 in 100 for each program.

    Measured p, exact and overconfident: appearance 0.35, 0.0001; presence 0.03, 0.003; count 0.84, 0.002.
    """
    assert calibrated(name, 1.0).tarp.p_value > 0.01
    assert calibrated(name, OVERCONFIDENT).tarp.p_value < 0.01


@SMALL
def test_intervals_of_programs(name):
    """400 simulations; three binomial standard errors, exceeded by chance 1 in 370 times at each level."""
    interval = "centre_x" if name == "appearance" else "n_objects"
    exact = calibrated(name, 1.0).coverage[interval]
    wrong = calibrated(name, OVERCONFIDENT).coverage[interval]
    assert exact.number == 400
    assert ((exact.shares - exact.levels).abs() < 3 * exact.errors).all()
    assert (wrong.shares < wrong.levels - 3 * wrong.errors).all()


@pytest.mark.parametrize("name", ["presence", "count"])
def test_probabilities_of_programs(name):
    """400 simulations; a false alarm 1 in 100 for each of four. Measured p 0.22 to 0.83, and 0.001."""
    exact, wrong = calibrated(name, 1.0), calibrated(name, OVERCONFIDENT)
    assert exact.count.p_value > 0.01 and exact.presence.p_value > 0.01
    assert wrong.count.p_value < 0.01 and wrong.presence.p_value < 0.01
    assert wrong.rps > exact.rps


class Swapped:
    """An object at x = -1/2 and perhaps one at 1/2, in slots of either order; the image says nothing."""

    chance = 0.5

    def program(self, images=None, batch=1):
        batch = batch if images is None else len(images)
        with pyro.plate("batch", batch, dim=-1):
            second, swap = self.latents()
            x = torch.tensor([-0.5, 0.5]).expand(batch, 2)
            pres = torch.stack([torch.ones(batch), second], 1)
            pres, x = (torch.where(swap[:, None] > 0, t.flip(1), t) for t in (pres, x))
            small_programs.observe(torch.zeros(batch, 6), 1.0, images)
        return small_programs.as_scene(torch.zeros(batch, 6), pres, x)

    def guide(self, images, batch=1):
        with pyro.plate("batch", len(images), dim=-1):
            self.latents()

    def latents(self):
        odds = {"z_pres": self.chance, "z_swap": 0.5}
        return [pyro.sample(name, dist.Bernoulli(torch.tensor(p))) for name, p in odds.items()]


def test_objects_are_identified_by_place_whatever_their_slots():
    """The sure object is found by all draws, the other by half of them; four standard errors."""
    small, number = Swapped(), 200
    images, truth = simulate(small.program, number)
    assert len(truth.objects.pres[:, 0].unique()) == 2  # slots do switch
    found = calibration(small.program, small.guide, images, truth, 29)
    presence = found.presence
    assert presence.probability[-1] > 0.99 and presence.frequency[-1] == 1
    assert presence.number[-1] == number
    asked = int(presence.number.sum()) - number
    true = round(float((presence.number * presence.frequency).sum())) - number
    assert abs(asked / number - 0.5) < 4 * (0.25 / number) ** 0.5
    assert abs(true / asked - 0.5) < 4 * (0.25 / asked) ** 0.5
    assert presence.p_value > 0.01
    assert found.coverage["centre_x"].number == number + true


def test_simulated_images_have_their_noise_and_their_scene():
    """Residuals of 1,000 images have the program's variance; four standard errors."""
    small = small_programs.Appearance()
    images, scene = simulate(small.program, 1000)
    assert images.shape == (1000, 1, 2, 3) and len(scene) == 1000
    residual = images - scene.objects.centre[:, :1, 0, None, None]
    assert abs(float(residual.var()) - 1) < 4 * (2 / 6000) ** 0.5
    assert images.min() < 0 and images.max() > 1


def test_programs_that_cannot_be_judged_are_told_why():
    small = small_programs.Appearance()

    def blind(images=None, batch=1):
        with pyro.plate("batch", batch):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"no site 'images'; this program samples \['z'\]"):
        simulate(blind, 2)

    def silent(images=None, batch=1):
        small.program(images, batch)

    with pytest.raises(ValueError, match="returns a Scene; this one returns NoneType"):
        simulate(silent, 2)
    images, truth = simulate(small.program, 2)
    with pytest.raises(ValueError, match="needs a program that returns a Scene with objects"):
        calibration(silent, small.guide(), images, truth, 3)
    with pytest.raises(ValueError, match=r"nothing to rank: the truth has \[\]"):
        calibration(small.program, small.guide(), images, truth, 3, of={})


def test_a_guide_that_finds_nothing_is_judged_by_its_counts_alone():
    small = small_programs.Count()
    images, truth = simulate(small.program, 20)
    nobody = replace(truth.objects, pres=torch.zeros_like(truth.objects.pres))

    def empty(images=None, batch=1):
        return replace(small.program(images, batch), levels=(nobody,))

    found = calibration(empty, small.guide(), images, truth, 1, rows=20)
    assert found.presence is None and set(found.coverage) == {"n_objects"}
    assert "presence_ece" not in found.summary()
    assert found.rps == pytest.approx(float(n_objects(truth).double().mean()))


def test_a_world_is_judged_by_what_both_know():
    run = open_run("air-multi_mnist")
    program, guide = run.program, run.guide
    data = run.unseen(12)
    images, truth = data.floats(), data.truth(slice(0, 12))
    found = calibration(program, guide, images, truth, 9, radius=OBJECT_RADIUS)
    assert "n_parts" not in found.ranks and "occupancy[7,7]" in found.ranks
    assert found.coverage["n_objects"].number == 12
    assert 0 < found.coverage["extent_y"].number <= int(n_objects(truth).sum())
    summary = found.summary()
    assert {"sbc_p", "tarp_p", "presence_ece", "count_rps", "coverage80_centre_x"} <= set(summary)
    assert all(math.isfinite(value) for value in summary.values())
