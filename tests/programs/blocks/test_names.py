"""Which of the known names was meant by a word."""

from pathlib import Path

import pytest

from programs.blocks.names import meant, meant_file, nearest, unknown


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("gumble", ["nvil", "gumbel"], "gumbel"),
        ("GSGN", ["air", "gsgn"], "gsgn"),
        ("steps", ["size", "stepss", "train.steps"], "train.steps"),
        ("steps", ["steps", "train.steps"], "steps"),
        ("mine", ["gsgn-shapes2d", "runs/mine"], "runs/mine"),
        ("zzz", ["air", "gsgn"], None),
        ("", ["air", ".x"], None),
        (3, [1, 2], None),
        ("x", [], None),
    ],
)
def test_the_nearest_name(word, known, expected):
    assert nearest(word, known) == expected


def test_what_a_message_says():
    assert meant("quik", ["quick", "long"]) == ", did you mean quick?"
    assert meant("other", ["quick", "long"], ":") == ":"
    assert unknown("preset", "quik", ["quick", "long"]) == (
        "unknown preset 'quik', did you mean quick? known are quick, long"
    )
    assert unknown("field", "steps", ["size"], ["train.steps"]).endswith(
        "did you mean train.steps? known are size"
    )


def test_files_are_told_apart_by_their_last_name():
    files = [Path("/a/very/long/folder/of/mine/layers.py"), Path("/a/very/long/folder/of/mine/.l")]
    assert meant_file("/a/very/long/folder/of/mine/leyers.py", files).endswith("mine/layers.py?")
    assert meant_file("/a/very/long/folder/of/mine/zebra.py", files) == ";"
    assert meant_file("gsng", ["programs/gsgn.py"]) == ", did you mean programs/gsgn.py?"
