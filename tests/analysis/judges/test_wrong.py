"""Objects of no type are broken, differ from the true ones, and leave out what may be one."""

import pytest
import torch

from analysis.judges import wrong


@pytest.fixture(scope="module")
def strokes():
    """(60, 1, 48, 48) bars: upright ones are of type 0, level ones of type 1, each with its own width."""
    types = torch.arange(60) % 2
    x = torch.zeros(60, 1, 48, 48)
    for m, kind in enumerate(types):
        wide = 4 + m // 10
        x[m, 0, 4:44, 24 - wide : 24 + wide] = 1
        x[m] = x[m].mT.clone() if kind else x[m]
    return x, types


def test_every_kind_breaks_objects_and_differs_from_them(strokes):
    x, types = strokes
    found, again = (wrong.every_kind(x, types, torch.Generator().manual_seed(0)) for _ in range(2))
    assert found.keys() == wrong.KINDS.keys()
    for kind, drawn in found.items():
        assert torch.equal(drawn, again[kind]) and drawn.shape[1:] == x.shape[1:]
        assert drawn.min() >= 0 and drawn.max() <= 1
    assert len(found["both"]) > 10 and len(found["warped"]) > 40
    crosses = found["both"]
    assert (crosses[:, 0, 6, 24] == 1).all() and (crosses[:, 0, 24, 6] == 1).all()
    assert set(found["ghost"].unique().tolist()) == {0.0, 0.5, 1.0}


def test_an_object_whose_halves_are_exchanged_as_it_was_is_left_out():
    still = torch.ones(8, 1, 48, 48)
    found = wrong.every_kind(still, torch.arange(8), torch.Generator().manual_seed(0))
    assert not len(found["shuffled"]) and not len(found["halves"]) and not len(found["both"])


def test_halves_show_both_and_their_strokes_do_not_meet(strokes):
    x, _ = strokes
    one, other = x[types_first(0)], 0.5 * x[types_first(1)]
    drawn, sure = wrong.halves(one, other, torch.Generator().manual_seed(0))
    assert sure.any() and not sure.all()
    assert ((drawn == one) | (drawn == other)).all()
    same, meets = wrong.halves(one, one, torch.Generator().manual_seed(0))
    assert torch.equal(same, one) and not meets.any()


def types_first(kind):
    return torch.arange(kind, 60, 2)


def test_a_mask_is_where_an_object_is_bright():
    x = torch.tensor([0.0, 0.05, 0.1, 0.9]).reshape(1, 1, 2, 2)
    found = wrong.inked(x)
    assert torch.equal(found[:, :1], x) and found[0, 1].tolist() == [[0, 0], [1, 1]]


def test_jitter_moves_each_object_a_little_and_differently(strokes):
    x, _ = strokes
    found = wrong.jittered(x[:1].expand(20, -1, -1, -1), torch.Generator().manual_seed(0))
    share = found.sum((1, 2, 3)) / x[0].sum()
    assert 0.6 < share.min() < 0.95 < 1.05 < share.max() < 1.6
    apart = (found - x[:1]).abs().sum((1, 2, 3)) / x[0].sum()
    assert apart.min() > 0.02 and apart.max() < 1
