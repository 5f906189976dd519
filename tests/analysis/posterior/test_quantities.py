"""Quantities of scenes that do not depend on slots."""

import pytest
import small_programs
import torch

from analysis.posterior import (
    quantities,
)


def test_quantities_do_not_depend_on_the_order_of_slots():
    scene = small_programs.simulate(small_programs.Presence(), 5)[1]
    turned = scene.map(lambda t: t.flip(1) if t.shape[1] == 3 else t)
    for name, value in quantities.measure(scene).items():
        torch.testing.assert_close(value, quantities.measure(turned)[name], msg=name)


def test_quantities_of_images():
    x = torch.zeros(1, 2, 3, 4)
    x[0, 0, 1, 1] = 1.0
    found = {name: fn(x) for name, fn in quantities.OF_IMAGES.items()}
    assert found["brightness"].item() == pytest.approx(1 / 24)
    assert found["contrast"].item() == pytest.approx((1 / 24 - 1 / 24**2) ** 0.5)
    assert found["colour"].tolist() == [[pytest.approx(1 / 12), 0.0]]
    assert found["edge_energy"].item() == pytest.approx(2 / 16 + 2 / 18)
