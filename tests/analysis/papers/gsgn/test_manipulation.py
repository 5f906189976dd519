"""Figure 4: which scenes are chosen, what stays in its place, what is in front."""

import pyro
import pytest
import torch
from tiny import shows_something

from analysis import edit
from analysis.papers.gsgn import manipulation
from analysis.papers.gsgn.items import ITEMS
from analysis.papers.item import Request
from analysis.posterior import infer
from inference.runs import open_run
from programs.blocks import render
from programs.scene import Nodes, Scene


def nodes(boxes, parent, patch=None):
    """One image's nodes with boxes (x, y, half width, half height)."""
    boxes = torch.tensor([boxes])
    pres = torch.ones(boxes.shape[:2])
    pose = render.pose(boxes[..., :2], boxes[..., 2:], torch.zeros_like(pres))
    patch = torch.ones(*pres.shape, 4, 8, 8) if patch is None else patch
    return Nodes(pres, pose, torch.ones_like(pres), torch.tensor([parent]), patch=patch)


def test_a_node_stands_where_its_mask_ends():
    patch = torch.zeros(1, 1, 4, 8, 8)
    patch[:, :, 3, 2:6, 4:8] = 1  # the right half; a fourth above, a fourth below
    scene = Scene(torch.zeros(1, 3, 8, 8), (nodes([(0.2, 0.1, 0.2, 0.4)], [0], patch),))
    torch.testing.assert_close(manipulation.lowest(scene, 0), torch.tensor([[[0.3, 0.3]]]))


def test_objects_side_by_side_are_found_the_lower_first():
    boxes = [(-0.5, 0.2, 0.2, 0.2), (0.5, 0.0, 0.2, 0.2), (0.5, -0.8, 0.1, 0.1)]
    scene = Scene(torch.zeros(1, 3, 8, 8), (nodes(boxes, [0, 0, 0]),))
    assert list(manipulation.neighbours(scene)) == [(0, 0, 1)]
    nearer = nodes([*boxes[:2], (0.0, 0.95, 0.1, 0.1)], [0, 0, 0])
    assert list(manipulation.neighbours(Scene(scene.image, (nearer,)))) == []


def test_a_part_on_the_only_other_of_its_object_is_found():
    objects = nodes([(-0.5, 0.0, 0.3, 0.5), (0.5, 0.0, 0.3, 0.5)], [0, 0])
    boxes = [(-0.5, 0.2, 0.2, 0.2), (-0.5, -0.1, 0.1, 0.1)]  # one on the other
    boxes += [(0.5, 0.2, 0.2, 0.2), (0.9, 0.2, 0.1, 0.1)]  # side by side
    scene = Scene(torch.zeros(1, 3, 8, 8), (objects, nodes(boxes, [0, 0, 1, 1])))
    assert list(manipulation.stacks(scene)) == [(0, 1)]
    three = nodes([*boxes, (-0.5, -0.3, 0.1, 0.1)], [0, 0, 1, 1, 0])
    assert list(manipulation.stacks(Scene(scene.image, (objects, three)))) == []


@pytest.fixture(scope="module")
def inferred():
    with pyro.settings.context(module_local_params=True):
        run = open_run("gsgn-compositional_clevr")
        images = run.unseen(20).floats()
        return run, images, infer(run.program, run.guide, images).cpu()


def test_both_halves_of_the_figure_are_drawn(inferred):
    run, *_ = inferred
    made = ITEMS["figure4"].make({"GSGN": run}, Request(scenes=20))
    assert {*made.figures} == {"objects", "parts"}
    assert all(shows_something(figure) for figure in made.figures.values())


def test_a_part_that_grows_or_is_replaced_goes_on_standing_where_it_stood(inferred):
    _, _, scenes = inferred
    (image, slot), (other, source), *_ = manipulation.stacks(scenes)
    scene = scenes[image : image + 1]
    about = manipulation.lowest(scene, 1)[:, slot]
    larger = edit.scale(scene, slot, 1.7, level=1, about=about)
    torch.testing.assert_close(manipulation.lowest(larger, 1)[:, slot], about)
    new = manipulation.replaced(scene, slot, scenes[other : other + 1], source, level=1)
    torch.testing.assert_close(manipulation.lowest(new, 1)[:, slot], about, atol=1e-5, rtol=1e-5)
    assert torch.equal(new.parts.patch[:, slot], scenes.parts.patch[other : other + 1, source])
    assert not torch.equal(new.parts.patch[:, slot], scene.parts.patch[:, slot])


def test_the_object_that_moves_hides_its_neighbour(inferred):
    run, _, scenes = inferred
    image, slot, other = next(manipulation.neighbours(scenes))
    scene = scenes[image : image + 1]
    moved = manipulation.moved(run.program, scene, slot, other)
    torch.testing.assert_close(
        moved[0], edit.render(run.program, scene).image[0], atol=0.05, rtol=0
    )
    way = scene.objects.centre[:, other] - scene.objects.centre[:, slot]
    end = edit.move(scene, slot, way * torch.tensor([1.0, 0.0]))
    alone = edit.render(run.program, edit.remove(end, other))
    mask = render.place(end.objects.patch[:, slot, 3:], end.objects.pose[:, slot], 64)[0, 0] > 0.95
    assert mask.sum() > 20
    assert (moved[-1] - alone.image[0]).abs().amax(0)[mask].max() < 0.1


def test_too_few_scenes_are_named(inferred):
    run, _, scenes = inferred
    nobody = scenes[:1]
    for slot in nobody.objects.present[0].nonzero()[:, 0].tolist():
        nobody = edit.remove(nobody, slot)
    assert manipulation.objects(run.program, scenes.image, nobody) == {}
    assert manipulation.parts(run.program, scenes.image, nobody) == {}
