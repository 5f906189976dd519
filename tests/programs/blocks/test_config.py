"""Checks of a Config: fields that nothing would read, and sizes that networks cannot make."""

import re

import pytest
import tiny

from inference.loading import load
from programs.blocks.config import doublings, enlargement, near_multiples, nearest

NOTHING_READS = [
    ("air", "air", {"correlated": True}, "correlated=True has no effect with learned=0"),
    ("air", "air", {"stopping": True}, "expected stopping=False, or another learned"),
    (
        "discrete_air",
        "discrete_air",
        {"stopping": True},
        "stopping=True has no effect with learned=0",
    ),
    ("discrete_air", "discrete_air", {"combine": "multiply"}, "no effect with attributes=0"),
    ("discrete_air", "discrete_air", {"shears": 3}, "no effect with shear=False"),
    ("discrete_air", "discrete_air", {"sought": (), "together": 3}, r"no effect with sought=\(\)"),
    (
        "discrete_air",
        "discrete_air",
        {"learned": 3},
        "learned=3: expected 0 .* or 1 .* attributes=0",
    ),
    ("econ", "econ", {"ground": True}, "ground=True has no effect with learned=0"),
    ("econ", "econ_plain", {"detached": True}, "detached=True has no effect with looks=1"),
    ("econ", "econ_plain", {"trust": 1.0}, "trust=1.0 has no effect with looks=1"),
    ("econ", "econ_plain", {"contrast": 5.0}, "no effect with attend='network'"),
    ("econ", "econ_plain", {"little": 1.0}, "no effect with compete='cost'"),
    (
        "econ",
        "econ",
        {"behind": False, "worth": -1.0},
        "worth=-1.0 has no effect with behind=False",
    ),
    ("genesis", "genesis", {"learned": 8}, "learned=8: expected 0 .* or 1 .* one Gaussian"),
    ("genesis", "genesis", {"learned": -1}, "learned=-1: expected 0 .* or 1"),
]


@pytest.mark.parametrize(("name", "variant", "changes", "words"), NOTHING_READS)
def test_what_nothing_would_read_is_refused(name, variant, changes, words):
    with pytest.raises(ValueError, match=words):
        tiny.config(name, variant, **changes)


@pytest.mark.parametrize(
    ("name", "variant", "changes"),
    [
        ("air", "air", {"correlated": True, "stopping": True, "learned": 1}),
        ("discrete_air", "discrete_air", {"stopping": True, "learned": 1}),
        ("discrete_air", "discrete_air_mnist", {"combine": "multiply", "learned": 3}),
        ("discrete_air", "discrete_air", {"sought": (0.0,), "together": 3}),
        ("econ", "econ", {"ground": True, "learned": 2, "detached": True, "trust": 1.0}),
        ("genesis", "genesis", {"learned": 1}),
    ],
)
def test_what_is_read_is_taken(name, variant, changes):
    config = tiny.config(name, variant, **changes)
    assert {field: getattr(config, field) for field in changes} == changes


SIZES = [
    ("gsgn", {"crops": (20, 8)}, r"crops=\(20, 8\): expected 4 .* 16 or 32 in place of 20"),
    ("gsgn", {"size": 3}, "size=3: expected 4 times a power of two, such as 4 in"),
    (
        "discrete_air",
        {"window": 20},
        "window=20: expected 4 times a power of two, such as 16 or 32",
    ),
    ("discrete_air", {"aspects": 2}, "aspects=2: expected an odd number, such as 1 or 3"),
    ("genesis", {"size": 100}, "size=100: .* 64 or 128"),
    ("space", {"glimpse": 15}, "glimpse=15: .* 8 or 16"),
    ("space", {"grid": 3}, "grid=3: expected a power of two, such as 2 or 4"),
    ("space", {"grid": 256}, "size=128, grid=256: .* 256 in place of 128, or grid 128"),
    ("gnm", {"grid": 3}, "size=128, grid=3: .* 96 or 192 in place of 128, or grid 2 or 4"),
    ("gnm", {"grid": 128}, "size=128, grid=128: .* above 1, such as 256 .*, or grid 64"),
    ("gnm", {"glimpse": 20}, r"glimpse=20, decoder=\(.* divisor of 20: .* 32 in place of 20"),
    ("gnm", {"z_bg": 4, "size": 64}, "size=64, background=.* 128 in place of 64"),
    ("gnm", {"kernel": 2}, "kernel=2: expected an odd number, such as 1 or 3"),
    ("vae", {"size": 100}, "size=100: .* 64 or 128"),
    ("convdraw", {"size": 32}, "size=32, decoder=.* enlarge 4 .* to 128; .* 128 in place of 32"),
    ("convdraw", {"grid": 3}, "size=128, grid=3: .* or grid 2 or 4"),
    ("convdraw", {"kernel": 4}, "kernel=4: expected an odd number, such as 3 or 5"),
    ("econ", {"size": 50}, "size=50, .* multiple of 16, such as 48 or 64"),
]


@pytest.mark.parametrize(("name", "changes", "words"), SIZES)
def test_a_size_that_cannot_be_is_named_with_those_next_to_it(name, changes, words):
    with pytest.raises(ValueError, match=words):
        load(f"programs/{name}.py").program.Config(**changes)


@pytest.mark.parametrize("side", [1, 3, 4])
@pytest.mark.parametrize("least", [0, 1])
def test_doublings_are_those_of_a_loop_and_else_the_neighbours_are_named(side, least):
    counts, made = {}, side
    for number in range(9):
        counts[made], made = number, 2 * made
    valid = [size for size, number in counts.items() if number >= least]
    for size in range(1, 90):
        if size in valid:
            assert doublings(size, side, least) == counts[size]
            continue
        with pytest.raises(ValueError, match=f"^size={size}: ") as error:
            doublings(size, side, least)
        named = re.search(r"such as (.*) in place", str(error.value))[1].split(" or ")
        below, above = [v for v in valid if v < size], [v for v in valid if v > size]
        assert [int(n) for n in named] == below[-1:] + above[:1]


def test_what_stages_leave_to_enlarge():
    stages = ((8, 4, 1), (8, 2, 3))
    assert enlargement(stages, 1, 24) == 3 and enlargement(stages, 2, 16) == 1
    with pytest.raises(ValueError, match=r"size=20, stages=.* divisor of 20: .* 16 or 24 in place"):
        enlargement(stages, 1, 20)


def test_neighbours_in_words():
    assert near_multiples(5, 8) == "8" and near_multiples(20, 8) == "16 or 24"
    assert nearest(3, [8, 2, 1, 4]) == "2 or 4" and nearest(9, [8, 2]) == "8"
