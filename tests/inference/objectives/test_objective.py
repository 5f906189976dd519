"""The objective: terms by site, weighed."""

import pytest
from discrete_programs import Bits, make
from pyro import poutine

from inference.objectives import (
    Objective,
)


@pytest.fixture
def problem():
    return make(Bits)


def test_weights_scale_a_site_and_leave_the_likelihood(problem):
    program, guide, images = problem
    program_trace, guide_trace = Objective(weights={"z_*": 0.0}).traces(program, guide, images)
    assert guide_trace.log_prob_sum().item() == 0.0
    images_only = program_trace.log_prob_sum(lambda name, site: name == "images")
    assert program_trace.log_prob_sum().item() == pytest.approx(images_only.item())
    plain = poutine.trace(poutine.replay(program, trace=guide_trace)).get_trace(images)
    assert plain.log_prob_sum().item() != pytest.approx(images_only.item())
