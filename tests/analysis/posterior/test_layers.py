"""Pictures of layers, checked against the Scenes that they show."""

from dataclasses import replace

import matplotlib.image
import pyro
import pytest
import torch
from pyro import poutine
from tiny import build, images

from analysis import edit, plots
from analysis.evaluate import pictures
from analysis.posterior import Mode, infer, layers
from inference.images.dataset import Dataset
from programs.blocks import render
from programs.worlds import dead_leaves
from programs.worlds.made_of import leaves


@pytest.fixture(params=["econ", "monet"])
def pair(request):
    pyro.set_rng_seed(0)
    return painter(*build("econ", request.param))


@torch.no_grad()
def painter(program, guide):
    """The pair, whose last expert paints backgrounds beyond doubt."""
    program.decoder.out.bias[-1, 3] = 20.0
    return program, guide


def shown(axes):
    return torch.tensor(axes.images[0].get_array()).movedim(-1, 0)


def test_programs_without_full_shapes_have_no_layers():
    for name in ("gsgn", "air", "denf"):
        program, _ = build(name, name)
        assert not layers.has_layers(program, program(batch=2))
    program, _ = build("econ", "econ")
    assert layers.has_layers(program, program(batch=2))
    assert not layers.has_layers(program, None)
    assert not layers.has_layers(object(), program(batch=2))


@pytest.mark.parametrize("name", ["econ", "denf"])
def test_a_trainings_pictures_have_layers_where_there_are_any(name, tmp_path):
    program, guide = build(name, name)
    data = Dataset((255 * images(6, program)).byte(), {})
    drawn = {path.name for path in pictures(program, guide, data, [], tmp_path, "cpu")}
    assert drawn == {path.name for path in tmp_path.iterdir()}
    assert ("layers.png" in drawn) == (name == "econ")


def test_other_numbers_of_layers_are_for_a_while(pair):
    program, guide = pair
    with pytest.raises(RuntimeError), program.placing(6):
        assert infer(program, guide, images(2, program)).objects.pres.shape == (2, 5)
        raise RuntimeError
    assert program.layers == 4


def test_a_scene_grows_into_its_image_where_shapes_are_certain():
    """Against the image that the world drew, with classes' colours in patches of one pixel's size."""
    scene = dead_leaves.world(5, torch.Generator().manual_seed(0), dead_leaves.Config(size=32))
    nodes = scene.objects
    colours = leaves.PALETTE[nodes.category][..., None, None] / 255
    patch = torch.cat([colours, torch.ones(5, 3, 1, 1, 1)], 2).expand(-1, -1, -1, 4, 4)
    scene = dead_leaves.Scene(
        scene.image,
        (dead_leaves.Nodes(**{**vars(nodes), "patch": patch, "shape": nodes.shape.float()}),),
        scene.background,
    )
    canvases = layers.growth(scene)
    assert canvases.shape == (5, 4, 3, 32, 32)
    torch.testing.assert_close(canvases[:, 0], scene.background)
    torch.testing.assert_close(canvases[:, -1], scene.image, atol=1e-5, rtol=0)
    changed = (canvases[:, 1] - canvases[:, 0]).abs().sum(1) > 0
    assert torch.equal(changed, nodes.shape[:, 2])  # the last slot lies at the back


def test_edited_scenes_are_painted_from_the_back():
    """The world's scenes drawn again from their patches, whole, and with objects moved and restacked."""
    program, _ = build("econ", "econ")
    scene = dead_leaves.world(20, torch.Generator().manual_seed(0), dead_leaves.Config(size=32))
    nodes, rows = scene.objects, torch.arange(20)
    colours = (leaves.PALETTE[nodes.category] / 255)[..., None, None].expand(-1, -1, -1, 32, 32)
    pose = render.box(nodes.shape.float())
    whole = torch.cat([colours, nodes.shape.float().unsqueeze(2)], 2)
    patch = render.crop(whole, pose.unsqueeze(2), 32)[:, :, 0]
    scene = replace(scene, levels=(replace(nodes, pose=pose, patch=patch),))
    again = edit.render(program, scene).image
    assert (again - scene.image).abs().mean() < 0.01
    front = edit.render(program, edit.bring_to_front(scene, 2)).image
    seen = front.gather(1, torch.zeros(20, 1, 32, 32, dtype=torch.long))  # red
    red = nodes.category[:, 2] == 0
    inside = seen[red][nodes.shape[rows, 2][red].unsqueeze(1)]
    assert (inside > 0.5).float().mean() > 0.95
    gone = edit.render(program, edit.remove(edit.remove(edit.remove(scene, 0), 1), 2)).image
    torch.testing.assert_close(gone, scene.background)


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_an_object_is_drawn_anew_in_its_own_layer(slot):
    program, guide = build("econ", "econ")
    x = images(4, program)
    with torch.no_grad():  # all are present
        program.decoder.out.bias[:, 3] = 1.0
        guide.attention.reach.fill_(40.0)
    with torch.no_grad(), Mode():
        trace = poutine.trace(guide).get_trace(x)
    scene = poutine.replay(program, trace=trace)(x)
    assert set(edit.sites_of(trace, scene, slot, 0)) == {
        f"z_{name}_{4 - slot}" for name in ("cat", "what", "mask")
    }
    drawn = edit.resample(program, guide, x, slot).objects
    same = [s for s in range(3) if s != slot]
    assert torch.equal(drawn.patch[:, same], scene.objects.patch[:, same])
    assert (drawn.patch[:, slot] != scene.objects.patch[:, slot]).flatten(1).any(1).all()


def test_who_covers_the_most_paints_backgrounds():
    program, _ = build("econ", "econ")
    with torch.no_grad():
        program.decoder.out.bias[:, 3] = torch.tensor([-3.0, -3.0, 4.0, -3.0])
    assert layers.ground(program) == 2
    orders = layers.choices(program, 5, 6, torch.Generator().manual_seed(0))
    assert all(order[0] == 2 and len(order) == 6 for order in orders)
    assert {k for order in orders for k in order[1:]} == {0, 1, 3}


def test_winners_are_the_scenes_categories(pair):
    program, guide = pair
    x = images(6, program)
    scene, experts = infer(program, guide, x), layers.winners(program, guide, x)
    assert experts.shape == (6, 4)
    present = scene.objects.present
    assert torch.equal(experts[:, :3][present], scene.objects.category[present])


def test_every_expert_has_a_row(pair, tmp_path):
    program, _ = pair
    figure = plots.experts_figure(program, count=3)
    assert len(figure.axes) == 3 * program.config.experts
    plots.save(figure, tmp_path / "experts.png")
    assert matplotlib.image.imread(tmp_path / "experts.png").std() > 0.05


def test_recombined_scenes_are_by_whom_they_are_said_to_be(pair, monkeypatch):
    program, _ = pair
    asked = []
    arrange = type(program).arrange
    monkeypatch.setattr(
        type(program), "arrange", lambda p, k, b=1: asked.append(k) or arrange(p, k, b)
    )
    figure = plots.recombination_figure(program, count=2)
    back, k = layers.ground(program), program.config.experts
    orders = [order for order in asked if len(order) > 2]
    fronts = [e for e in range(k) if e != back]
    expected = [4, 4] * (k > 1) + [4, 4, 5, 5, 6, 6]
    assert [len(order) for order in orders] == expected
    assert all(order[0] == back for order in orders)
    if fronts:
        assert orders[0] == [back, *fronts]
        assert {e for order in orders for e in order[1:]} <= {*fronts}
    assert all(len(axes.images) == 1 for axes in figure.axes)


def test_scenes_grow_downwards(pair):
    figure = plots.growth_figure(pair[0], objects=3, count=2)
    assert len(figure.axes) == 4 * 2
    assert not torch.equal(shown(figure.axes[0]), shown(figure.axes[6]))


def test_steps_hand_the_scope_on(pair):
    program, guide = pair
    x = images(2, program)
    figure = plots.steps_figure(program, guide, x)
    rows = [figure.axes[6 * t : 6 * t + 6] for t in range(8)]
    scene = infer(program, guide, x)
    for b in range(2):
        block = rows[4 * b : 4 * b + 4]
        torch.testing.assert_close(shown(block[0][0]), x[b])
        torch.testing.assert_close(shown(block[1][0]), scene.image[b].clamp(0, 1))
        torch.testing.assert_close(shown(block[0][1]), x[b])  # all is in the first scope
        torch.testing.assert_close(
            shown(block[3][1]), shown(block[3][2])
        )  # the last takes what is left
        covered = scene.objects.mask[b].sum(0) > 0.5
        untouched = (shown(block[3][1]) - x[b]).abs().sum(0) == 0
        assert torch.equal(untouched, ~covered)
        labels = [row[2].texts[0].get_text() for row in block]
        winners = layers.winners(program, guide, x)[b].tolist()
        assert labels == [f"expert {k}" for k in winners]


def test_segments_are_black_where_nothing_or_the_background_is(tmp_path):
    program, guide = painter(*build("econ", "econ"))
    truth = dead_leaves.world(3, torch.Generator().manual_seed(0), dead_leaves.Config(size=32))
    figure = plots.segments_figure(program, guide, truth.image, truth, layers=6)
    assert len(figure.axes) == 3 * (4 + 5) and program.layers == 4
    for b in range(3):
        true = shown(figure.axes[9 * b + 2])
        assert torch.equal(true.sum(0) > 0, truth.objects.mask[b].any(0))
    with program.placing(6):
        scene = infer(program, guide, truth.image)
        experts = layers.winners(program, guide, truth.image)[:, :5]
    seen = scene.objects.mask * (experts != layers.ground(program))[..., None, None]
    for b in range(3):
        assert torch.equal(shown(figure.axes[9 * b + 3]).sum(0) > 0, seen[b].sum(0) > 0.5)


def test_the_mode_is_shown_not_a_draw(pair):
    program, guide = pair
    x = images(1, program)
    figures = [plots.steps_figure(program, guide, x) for _ in range(2)]
    a, b = ([shown(axes) for axes in f.axes if axes.images] for f in figures)
    assert all(torch.equal(one, two) for one, two in zip(a, b, strict=True))
