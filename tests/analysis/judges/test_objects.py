"""Objects of the prior judged: cutouts, mixtures, a classifier that can learn, distances of histograms."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny import build

from analysis.judges import objects
from inference.runs import open_run
from programs.blocks import render
from programs.worlds import compositional_clevr, multi_mnist, shapes2d


@pytest.fixture(scope="module")
def truth():
    return shapes2d.world(150, torch.Generator().manual_seed(0), shapes2d.Config(size=64))


def test_a_cutout_is_centred_and_fills_its_square():
    pictures = torch.zeros(2, 4, 32, 32)
    pictures[0, :, 2:12, 20:30] = 1
    pictures[1, :, 10:26, 3:11] = 1  # twice as high as wide
    found = objects.cutouts(pictures)
    assert found.shape == (2, 4, objects.SIDE, objects.SIDE)
    share = found[:, -1].mean((1, 2)) * objects.MARGIN**2
    assert share.tolist() == pytest.approx([1, 0.5], abs=0.05)
    torch.testing.assert_close(found, found.flip(-1), atol=1e-4, rtol=0)


def test_true_objects_show_themselves_alone(truth):
    pictures, types = objects.true_objects(truth)
    assert len(pictures) == len(types) == int(truth.objects.present.sum())
    image, slot = truth.objects.present.nonzero(as_tuple=True)
    assert torch.equal(pictures[:, -1] > 0, truth.objects.mask[image, slot] > 0)


def test_objects_on_the_canvas_are_whole_and_parts_can_be_left_out(truth):
    image, slot = truth.objects.present.nonzero(as_tuple=True)
    turn, every = torch.zeros(len(image)), truth.parts.present[image]
    drawn = objects.on_canvas(truth, image, slot, turn, every)[:, -1].sum((1, 2))
    extent = truth.objects.extent[truth.objects.present].max() * objects.ROOM
    area = truth.objects.mask[image, slot].sum((1, 2)) / extent**2
    torch.testing.assert_close(drawn / area, torch.ones(len(image)), atol=0.1, rtol=0)
    none = objects.on_canvas(truth, image, slot, turn, torch.zeros_like(every))
    assert not none.any()


def test_mixtures_are_by_seed_and_hide_little(truth):
    first, again, other = (
        objects.mixtures(truth, 60, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (60, 4, objects.SIDE, objects.SIDE), "as many as were asked for"
    assert first.min() >= 0 and first.max() <= 1 + 1e-5


def test_what_stands_upright_is_not_turned_but_put_apart(truth):
    config = compositional_clevr.Config(size=64, samples=1)
    clevr = compositional_clevr.world(20, torch.Generator().manual_seed(0), config)
    assert objects.upright(clevr) and not objects.upright(truth)
    x, types = objects.examples(clevr, 0)
    alone, _ = objects.true_objects(clevr)
    number = len(alone)
    assert (types == types.max()).sum() == number and len(x) == 3 * number
    on_canvas, again = x[number : 2 * number], objects.cutouts(alone)
    apart, other = ((on_canvas - y).abs().mean() for y in (again, again.flip(-1)))
    assert apart < 0.03 and other > 2 * apart
    still, moved = (
        objects.on_canvas(
            clevr, *clevr.objects.present.nonzero(as_tuple=True), torch.zeros(number), shift=s
        )
        for s in (0.0, torch.tensor([0.5, 0.0]).expand(number, 2))
    )
    column = torch.arange(64.0)
    where, then = ((m[:, -1].sum(1) * column).sum(1) / m[:, -1].sum((1, 2)) for m in (still, moved))
    extent = clevr.objects.extent[clevr.objects.present]
    expected = 0.5 * extent[:, 0] / (objects.ROOM * extent.max()) * 32
    torch.testing.assert_close(where - then, expected, atol=0.4, rtol=0)


def test_the_classifier_learns_what_can_be_told_apart():
    x, types = torch.zeros(90, 4, objects.SIDE, objects.SIDE), torch.arange(90) % 3
    x[types == 1, -1, 8:16, 8:16] = 1
    x[types == 2, -1] = 1
    nets = [objects.namer(x, types, steps=40) for _ in range(2)]
    assert nets[0].none == 2 and torch.equal(nets[0].name(x), types)
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))


def test_a_judge_with_dropout_does_not_depend_on_the_global_generator():
    x = torch.rand(60, 2, objects.SIDE, objects.SIDE, generator=torch.Generator().manual_seed(0))
    nets, after = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        nets.append(objects.namer(x, torch.arange(60) % 3, steps=3, still=True))
        after.append(torch.rand(1))
    assert all(map(torch.equal, nets[0].parameters(), nets[1].parameters()))
    torch.manual_seed(2)
    assert after[0] != after[1] and torch.equal(after[1], torch.rand(1))


def test_the_classifier_tells_true_types_from_mixtures(truth):
    """Far from perfect after so little, but far from chance: shares of one in eleven."""
    more = shapes2d.world(300, torch.Generator().manual_seed(1), shapes2d.Config(size=64))
    net = objects.namer(*objects.examples(more, 0), steps=80)
    pictures, types = objects.true_objects(truth)
    named = net.name(objects.cutouts(pictures))
    mixed = objects.mixtures(truth, 200, torch.Generator().manual_seed(2))
    refused = (net.name(mixed) == net.none).float().mean()
    assert (named == types).float().mean() > 0.4 and refused > 0.6


def test_digits_are_judged_by_what_is_bright_of_them():
    """A program's soft opacity and a world's hard mask of the same digit are the same input."""
    true = multi_mnist.world(
        60, torch.Generator().manual_seed(0), multi_mnist.Config(digits="embedded")
    )
    pictures, types = objects.true_objects(true)
    soft = torch.cat([pictures[:, :1], pictures[:, :1]], 1)
    found = objects.inputs(soft, true)
    assert torch.equal(found, objects.inputs(pictures, true))
    assert set(found[:, -1].unique().tolist()) == {0.0, 1.0}
    x, named = objects.examples(true, 0)
    assert (named == 10).double().mean() > 0.35 and x.shape[1:] == (2, objects.SIDE, objects.SIDE)
    assert torch.equal(x[: len(types)], objects.inputs(pictures, true))


def test_who_can_be_judged():
    gsgn, air, vae = (build(name)[0] for name in ("gsgn", "air", "vae"))
    typed = SimpleNamespace(tables=({"category": 0},))
    untyped, folder = SimpleNamespace(tables=({},)), SimpleNamespace(tables=())
    assert objects.judges(gsgn, typed) and objects.judges(air, typed)
    assert not any(objects.judges(air, data) for data in (untyped, folder))
    assert not objects.judges(vae, typed)


def test_what_a_program_draws_is_cut_out_as_what_an_image_shows(truth):
    """True objects as a program would bring them: patches in frames of their own."""
    true, size = truth.objects, truth.image.shape[-1]
    wide = true.pose.clone()
    wide[..., :2] *= 1.5
    masks = true.mask.unsqueeze(2).float()
    seen = torch.cat([truth.image.unsqueeze(1) * masks, masks], 2)
    patch = render.crop(seen.flatten(0, 1)[:, None], wide.flatten(0, 1)[:, None, None], 2 * size)
    nodes = replace(true, pose=wide, patch=patch[:, 0, 0].unflatten(0, true.pres.shape))
    drawn = objects.drawn_objects(replace(truth, levels=(nodes, truth.parts)))
    pictures, _ = objects.true_objects(truth)
    apart = (objects.cutouts(drawn) - objects.cutouts(pictures)).abs().flatten(1).mean(1)
    other = objects.cutouts(drawn) - objects.cutouts(pictures).roll(1, 0)
    assert apart.mean() < 0.03 and other.abs().mean() > 4 * apart.mean()


def test_shares_are_of_what_the_classifier_names(truth):
    """One that takes for an object of type 1 whatever fills a third of its square, and nothing else."""
    run = open_run("gsgn-shapes2d")
    given = []

    def name(x):
        given.append(x)
        return torch.where(x[:, -1].mean((1, 2)) >= 0.33, 1, 10)

    net = SimpleNamespace(none=10, name=name)
    with torch.no_grad():
        prior = run.program(batch=10)
    found = objects.valid_objects(net, truth, prior, prior)
    shares = sorted(float((x[:, -1].mean((1, 2)) >= 0.33).double().mean()) for x in given)
    assert 0 < shares[0] < shares[-1] < 1
    assert sorted(found.valid.values()) == pytest.approx(shares, abs=1e-6)
    assert found.types["true"][1] == 1 and found.types["true"][0] == 0
    assert not found.good, "it passes mixtures"
