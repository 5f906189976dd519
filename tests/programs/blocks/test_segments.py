"""Segments: a broken stick shares every pixel."""

import math

import pytest
import torch

from programs.blocks.segments import break_stick


def test_a_broken_stick_sums_to_one_also_where_little_is_left():
    logits = torch.tensor([0.0, 3.0, -40.0, 40.0]).repeat(4, 1).T.reshape(4, 1, 4).repeat(1, 5, 1)
    shares = break_stick(logits).exp()
    assert shares.shape == (5, 5, 4)
    torch.testing.assert_close(shares.sum(0), torch.ones(5, 4))
    left = 1.0
    for share, logit in zip(shares[:, 0, 0].tolist(), [0.0, 3.0, -40.0, 40.0], strict=False):
        part = 1 / (1 + math.exp(-logit))
        assert share == pytest.approx(left * part, rel=1e-4, abs=1e-12)
        left *= 1 - part
    logits = torch.full((2, 1, 1), 200.0, requires_grad=True)
    log_shares = break_stick(logits)
    log_shares.exp().sum().backward()
    assert log_shares.isfinite().all() and logits.grad.isfinite().all()
