"""AIR's program and guide beside the tests that all programs share (`tests/test_contract.py`)."""

import pyro
import pytest
import tiny
import torch
from pyro import poutine

from programs.air import Object


def looks(guide, images):
    """What the guide's LSTM reads, image by image, and the trace of the guide."""
    seen, look = [], guide.cell.look
    guide.cell.look = lambda x: seen.append(x.view_as(images)) or look(x)
    trace = poutine.trace(guide).get_trace(images)
    return seen, {name: trace.nodes[name]["value"] for name in trace.stochastic_nodes}


def object_of(values, t):
    exists = torch.stack([values[f"z_pres_{s}"] for s in range(1, t + 1)]).prod(0)
    return Object(exists, values[f"z_where_{t}"], values[f"z_what_{t}"])


def test_difference_air_reads_what_the_canvas_lacks():
    pyro.set_rng_seed(0)
    program, guide = tiny.build("air", difference=True, presence=0.9)
    images = tiny.images(5, program)
    with torch.no_grad():
        seen, values = looks(guide, images)
        lacking = images
        for t, read in enumerate(seen, 1):
            assert torch.allclose(read, lacking, atol=1e-6)
            lacking = lacking - program.draw(object_of(values, t))
    assert len(seen) == program.config.steps
    assert (seen[0] - seen[1]).abs().max() > 0.01


def test_air_reads_the_image_once():
    program, guide = tiny.build("air")
    images = tiny.images(2, program)
    seen, _ = looks(guide, images)
    assert len(seen) == 1 and torch.equal(seen[0], images)


def test_steps_add_up_to_the_canvas():
    pyro.set_rng_seed(1)
    program, _ = tiny.build("air", presence=0.9)
    trace = poutine.trace(program).get_trace(batch=6)
    values = {name: trace.nodes[name]["value"] for name in trace.stochastic_nodes}
    canvas = sum(program.draw(object_of(values, t)) for t in range(1, program.config.steps + 1))
    assert canvas.detach() == pytest.approx(trace.nodes["images"]["fn"].mean.detach(), abs=1e-6)
