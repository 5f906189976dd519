"""The examples in the docstrings of what users call."""

import doctest
from importlib import import_module

import pyro
import pytest

MODULES = (
    "analysis.edit",
    "analysis.posterior.draws",
    "analysis.posterior.to_arviz",
    "analysis.posterior.weights",
    "inference.estimators.names",
    "inference.images.worlds",
    "inference.runs",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name):
    pyro.set_rng_seed(0)
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0 and found.failed == 0
