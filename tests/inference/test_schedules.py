"""Schedules: pure functions of the step."""

import math

import pytest

from inference.schedules import (
    Exponential,
    Falls,
    Linear,
    LinearVariance,
    Plateau,
    Points,
    Ramp,
    Until,
    WarmupDecay,
)


def test_schedules_take_their_values_at_the_corners():
    assert [Linear(1, 3, 10, begin=5)(s) for s in (0, 5, 10, 15, 99)] == [1, 1, 2, 3, 3]
    decay = Exponential(2.5, 0.5, 100)
    assert decay(0) == pytest.approx(2.5) and decay(100) == pytest.approx(0.5)
    assert decay(50) == pytest.approx(math.sqrt(2.5 * 0.5))
    rate = WarmupDecay(1e-3, warmup=10, half_life=100)
    assert rate(0) == pytest.approx(1e-4) and rate(9) == pytest.approx(1e-3)
    assert rate(110) == pytest.approx(5e-4)
    held = WarmupDecay(1e-3, warmup=10, half_life=100, hold=50)
    assert held(60) == pytest.approx(1e-3) and held(160) == pytest.approx(5e-4)
    variance = LinearVariance(0.15, 0.3, 10, begin=5)
    assert (variance(5), variance(20)) == (0.15, 0.3)
    assert variance(10) ** 2 == pytest.approx((0.15**2 + 0.3**2) / 2)
    ramp = Ramp(1.0, 5.0, 10, begin=5)
    assert [ramp(step) for step in (0, 5, 10, 14, 15)] == [1.0, 1.0, 3.0, 4.6, 1.0]
    points = Points(((10, 1.0), (20, 4.0), (30, 4.0), (40, 0.04)))
    values = [points(step) for step in (0, 10, 15, 20, 25, 35, 40, 99)]
    assert values == pytest.approx([1, 1, 2, 4, 4, 0.4, 0.04, 0.04])
    assert Until(0.1, 3)(2) == 0.1 and math.isnan(Until(0.1, 3)(3))


def test_a_rate_falls_after_losses_that_stay_and_a_training_ends_after_some_falls():
    rule = Plateau(patience=2, factor=0.1, falls=2)
    falls, rates = Falls(rule), []
    for loss in (5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 2.9, 3.0, 3.0):
        falls.add(loss)
        rates.append(falls.rate)
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01])
    assert falls.over and falls.best == 2.9
    again = Falls(rule)
    again.restore(falls.state())
    assert again.state() == falls.state() and again.over
