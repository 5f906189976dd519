"""Checkpoints: whole or not written, every random state in them, and no code."""

import os
import random

import numpy as np
import pytest
import torch

from inference import checkpoint


def test_a_checkpoint_restores_every_random_state():
    state = checkpoint.random_state()
    draw = lambda: (torch.rand(2).tolist(), random.random(), float(np.random.rand()))
    first = draw()
    assert draw() != first
    checkpoint.set_random_state(state)
    assert draw() == first


def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.ckpt"
    checkpoint.save(path, {"step": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ValueError, match="disk full"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 1}


def test_any_changed_bit_and_any_missing_end_of_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "c.ckpt"
    checkpoint.save(path, {"step": 1, "weights": torch.ones(1)})
    whole = path.read_bytes()
    head = 8 * (len(checkpoint.MAGIC) + checkpoint.SUM)
    for bit in [*range(head), *range(head, 8 * len(whole), 41)]:
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"c\.ckpt (is|was written)"):
            checkpoint.load(path)
    for end in [*range(head // 8), *range(head // 8, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"c\.ckpt is torn"):
            checkpoint.load(path)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (
            b"scene-programs checkpoint 2\n",
            "was written by a newer version of scene-programs: update",
        ),
        (b"PK\x03\x04, a checkpoint of others", "is not a checkpoint of scene-programs"),
    ],
)
def test_a_checkpoint_of_others_is_refused(tmp_path, head, words):
    path = tmp_path / "c.ckpt"
    checkpoint.save(path, {"step": 1})
    path.write_bytes(head + path.read_bytes()[len(checkpoint.MAGIC) :])
    with pytest.raises(ValueError, match=f"c\\.ckpt {words}"):
        checkpoint.load(path)
