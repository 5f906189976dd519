"""Actions of a hand, held against `analysis.edit`, which changes the Scene without latents."""

import pytest
import torch

from analysis import edit
from analysis.studio import latents
from analysis.studio.actions import ACTIONS
from analysis.studio.state import Selection


def act(bench, name, **arguments):
    bench.change(ACTIONS[name](bench, arguments))
    return bench.seen.scene


@pytest.mark.parametrize("name", ["gsgn-shapes2d", "discrete_air-multi_sprites"])
def test_latents_draw_what_edits_draw(bench, name):
    made = bench(name)
    slot, scene = made.hand.selection.slot, made.seen.scene
    moved = act(made, "nudge", by=[0.05, -0.04], factor=1.1, angle=0.2)
    edited = edit.rotate(edit.scale(edit.move(scene, slot, (0.05, -0.04)), slot, 1.1), slot, 0.2)
    assert (moved.image - edit.render(made.program, edited).image).abs().max() < 0.1
    assert (moved.image - scene.image).abs().max() > 0.3
    removed = act(made, "remove")
    rest = edit.render(made.program, edit.remove(edited, slot)).image
    assert (removed.image - rest).abs().max() < 1e-3


def test_an_action_below_an_object_changes_the_part_alone(bench):
    made = bench()
    scene = made.seen.scene
    from_the_middle = made.hand.values["z_where_2"].view(1, -1, 2).norm(dim=-1)
    part = int(from_the_middle.masked_fill(~scene.parts.present, torch.inf).argmin())
    made.select(Selection(1, part))
    moved = act(made, "nudge", by=[0.03, 0.0])
    shift = moved.parts.centre[0] - scene.parts.centre[0]
    assert torch.allclose(shift[part], torch.tensor([0.03, 0.0]), atol=3e-3)
    shift[part] = 0
    assert not shift.any()


def test_a_digit_that_leaves_its_cell_passes_to_another_slot(bench):
    made = bench("gnm-mnist4")
    slot, scene = made.hand.selection.slot, made.seen.scene
    target = scene.objects.pose[0, slot].clone()
    target[:, 2] = torch.tensor([0.45, 0.9])
    moved = act(made, "place", pose=target.tolist())
    new = made.hand.selection.slot
    assert new != slot and moved.objects.present[0, new]
    assert moved.objects.present.sum() == scene.objects.present.sum()
    assert torch.allclose(moved.objects.centre[0, new], target[:, 2], atol=0.03)


def test_the_first_of_two_digits_is_deleted_and_the_second_stays(bench, images):
    made = bench("air-multi_mnist")
    while int(made.seen.scene.objects.present.sum()) != 2:
        made.begin(None, latents.values_of(latents.run(made.program, {}, None)))
    made.select(Selection(0, 0))
    scene = made.seen.scene
    rest = act(made, "remove")
    assert rest.objects.present[0].tolist() == [True, False, False]
    assert torch.allclose(rest.objects.centre[0, 0], scene.objects.centre[0, 1])
    expected = edit.render(made.program, edit.remove(scene, 0)).image
    assert torch.allclose(rest.image, expected, atol=1e-4)
    back = act(made, "presence", on=True)
    assert back.objects.present[0].tolist() == [True, True, False]
    assert torch.allclose(back.image, scene.image, atol=1e-4)


def test_restacking_changes_the_order_of_depths(bench):
    made = bench()
    scene, slot = made.seen.scene, made.hand.selection.slot
    there = scene.objects.present[0]
    front = act(made, "restack", way=-1)
    assert front.objects.depth[0, slot] == front.objects.depth[0, there].min()
    back = act(made, "restack", way=1)
    assert back.objects.depth[0, slot] == back.objects.depth[0, there].max()
    assert torch.allclose(
        back.objects.depth[0, there].sort()[0], scene.objects.depth[0, there].sort()[0]
    )


def test_a_node_is_copied_into_another_scene(bench, images):
    made = bench()
    pasted_pose = made.seen.scene.objects.pose[0, made.hand.selection.slot]
    ACTIONS["copy"](made, {})
    made.begin(images()[0:1])
    before = int(made.seen.scene.objects.present.sum())
    scene = act(made, "paste")
    assert int(scene.objects.present.sum()) == before + 1
    slot = made.hand.selection.slot
    assert torch.allclose(scene.objects.pose[0, slot], pasted_pose, atol=0.05)


def test_a_duplicate_needs_a_free_slot(bench):
    made = bench()
    number = int(made.seen.scene.objects.present.sum())
    for k in range(4 - number):
        assert int(act(made, "duplicate").objects.present.sum()) == number + k + 1
    with pytest.raises(ValueError, match="all 4 slots are taken"):
        act(made, "duplicate")


def test_a_layer_is_moved_scaled_and_grafted_by_edits(bench):
    made = bench("econ-sprites_unique")
    made.select(Selection(0, 0))
    scene = made.seen.scene
    moved = act(made, "nudge", by=[0.1, 0.0], factor=1.2)
    expected = edit.scale(edit.move(scene, 0, (0.1, 0.0)), 0, 1.2)
    assert torch.allclose(moved.objects.pose, expected.objects.pose, atol=1e-4)
    assert torch.allclose(moved.image, edit.render(made.program, expected).image, atol=1e-4)
    ACTIONS["copy"](made, {})
    act(made, "remove")
    back = act(made, "paste")
    assert torch.allclose(back.image, moved.image, atol=1e-4)


def test_a_number_slides_and_a_class_changes(bench):
    made = bench("discrete_air-multi_sprites")
    site = next(n for n in made.hand.values if n.startswith("z_where"))
    act(made, "slide", site=site, index=0, value=0.25)
    assert float(made.hand.values[site].flatten()[0]) == 0.25
    kind = next(n for n in made.hand.values if n.startswith("z_cat"))
    new = (int(made.seen.scene.objects.category[0, 0]) + 1) % 3
    assert int(act(made, "category", site=kind, index=new).objects.category[0, 0]) == new
    with pytest.raises(ValueError, match="no site nothing"):
        act(made, "slide", site="nothing", index=0, value=0)


@pytest.mark.parametrize("source", ["prior", "posterior"])
def test_one_site_of_one_node_is_drawn_anew(bench, source):
    made = bench()
    slot, before = made.hand.selection.slot, made.hand.values
    act(made, "anew", site="z_what_1", source=source)
    after = made.hand.values
    assert {n for n, v in before.items() if not torch.equal(v, after[n])} == {"z_what_1"}
    rows = (before["z_what_1"] != after["z_what_1"]).any(-1).flatten()
    assert rows.nonzero().flatten().tolist() == [slot]


def test_what_cannot_be_done_is_said(bench):
    made = bench()
    with pytest.raises(ValueError, match="nothing was copied"):
        act(made, "paste")
    with pytest.raises(ValueError, match="two rows"):
        act(made, "place", pose=[[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="no site z_nothing"):
        act(made, "anew", site="z_nothing")
    made.select(Selection(0, None))
    with pytest.raises(ValueError, match="select a node"):
        act(made, "remove")
    made.begin(None, latents.values_of(latents.run(made.program, {}, None)))
    with pytest.raises(ValueError, match="no posterior"):
        act(made, "anew", source="posterior")
