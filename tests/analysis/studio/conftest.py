"""Shipped runs on a bench, each with images of its world, opened once."""

from functools import cache

import pytest

from analysis.studio.state import Bench
from inference.runs import open_run


@cache
def opened(name):
    run = open_run(name)
    for parameter in (*run.program.parameters(), *run.guide.parameters()):
        parameter.requires_grad_(False)
    return run, run.unseen(4).floats()


@pytest.fixture
def bench():
    """A function from a run's name to a bench with the scene of one of its images."""

    def of(name="gsgn-shapes2d", index=1):
        run, images = opened(name)
        made = Bench(run.program, run.guide)
        made.begin(images[index : index + 1])
        return made

    return of


@pytest.fixture
def images():
    """A function from a run's name to images of its world."""
    return lambda name="gsgn-shapes2d": opened(name)[1]
