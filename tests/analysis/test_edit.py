import math
from dataclasses import fields, replace

import oracles
import pytest
import tiny
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger

from analysis import edit
from analysis.posterior import infer
from guides import air as air_guide
from guides import gsgn as gsgn_guide
from inference.runs import open_run
from programs import air, discrete_air, gsgn
from programs.blocks import render
from programs.scene import Nodes, Scene, concatenate
from programs.worlds import shapes2d

SMALL = tiny.config("gsgn")
FLAT = replace(
    SMALL, size=16, children=(4,), z_what=(12, 8), crops=(8,), scale=((0.3, 0.29),),
    scale_axes=(2,), scale_start=(0.0,),
)  # fmt: skip
AIR = tiny.config("air", size=32)


@torch.no_grad()
def tree(batch=3):
    """Four objects of four parts, all present, at random poses and of random depths."""
    scene = gsgn.Program(SMALL)(batch=batch)
    levels = (replace(n, pres=torch.ones_like(n.pres)) for n in scene.levels)
    levels = [replace(n, category=torch.randint(9, n.pres.shape)) for n in levels]
    levels = [replace(n, depth=4 + torch.randn(n.pres.shape)) for n in levels]
    return replace(scene, levels=tuple(levels))


def squares(batch=1):
    """Four objects of one colour each, 8 pixels wide, in the corners of a 16 x 16 image; slot 3 is empty."""
    colours = torch.tensor([[1.0, 0, 0], [0.0, 1, 0], [0.0, 0, 1], [1.0, 1, 1]])
    patch = torch.ones(batch, 4, 4, 8, 8)
    patch[:, :, :3] = colours[:, :, None, None]
    where = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    pose = render.pose(where, torch.full((4, 2), 0.5), torch.zeros(4)).expand(batch, 4, 2, 3)
    pres = torch.tensor([1.0, 1, 1, 0]).expand(batch, 4)
    depth = torch.tensor([1.0, 2, 3, 4]).expand(batch, 4)
    nodes = Nodes(pres, pose, depth, torch.zeros(batch, 4, dtype=torch.int64), patch=patch)
    background = torch.full((batch, 3, 16, 16), 0.25)
    return Scene(background, (nodes,), background)


def by_hand(scene, image=0, without=()):
    """The picture of one image of a Scene of one level, by loops over pixels."""
    nodes, size = scene[image : image + 1].objects, scene.image.shape[-1]
    kept = [k for k in range(nodes.pres.shape[1]) if k not in without]
    axis = (2 * torch.arange(size) + 1) / size - 1
    placed = torch.zeros(len(kept), 4, size, size)
    for n, k in enumerate(kept):
        back = torch.linalg.inv(nodes.pose[0, k, :, :2])
        for j in range(size):
            for i in range(size):
                u = back @ (torch.stack([axis[i], axis[j]]) - nodes.pose[0, k, :, 2])
                placed[n, :, j, i] = oracles.bilinear(nodes.patch[0, k], float(u[0]), float(u[1]))
    whole = oracles.composite(placed, nodes.pres[0, kept], nodes.depth[0, kept])
    return whole[:3] * whole[3:] + scene.background[image] * (1 - whole[3:])


def assert_same(a, b, but=(), exact=False):
    """Nodes of two Scenes agree in every field but those named."""
    for old, new in zip(a.levels, b.levels, strict=True):
        for f in fields(old):
            x, y = getattr(old, f.name), getattr(new, f.name)
            if f.name not in but and x is not None:
                tolerance = 0 if exact else 1e-4
                torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def others_untouched(before, after, slot, level):
    """Bit for bit, all that is outside the subtree."""
    places = edit.subtree(before, slot, level)
    for k, (old, new) in enumerate(zip(before.levels, after.levels, strict=True)):
        keep = torch.ones_like(old.present)
        below = k - (len(before.levels) - len(places))
        if below >= 0:
            keep = keep.scatter(1, places[below], False)
        for f in fields(old):
            if getattr(old, f.name) is not None:
                assert torch.equal(getattr(old, f.name)[keep], getattr(new, f.name)[keep]), f.name


def relative(scene):
    """Poses of the parts in their objects' frames."""
    objects, parts = scene.levels
    return render.chain(render.inverse(objects.pose.repeat_interleave(4, 1)), parts.pose)


# -- where things are ---------------------------------------------------------------------------------

THERE_AND_BACK = {
    "move": (
        lambda s, slot, level: edit.move(s, slot, (0.3, -0.2), level),
        lambda s, slot, level: edit.move(s, slot, (-0.3, 0.2), level),
    ),
    "scale": (
        lambda s, slot, level: edit.scale(s, slot, 1.7, level),
        lambda s, slot, level: edit.scale(s, slot, 1 / 1.7, level),
    ),
    "rotate": (
        lambda s, slot, level: edit.rotate(s, slot, 0.9, level),
        lambda s, slot, level: edit.rotate(s, slot, 2 * math.pi - 0.9, level),
    ),
    "about": (
        lambda s, slot, level: edit.rotate(s, slot, 0.9, level, about=(0.5, 0.1)),
        lambda s, slot, level: edit.rotate(s, slot, -0.9, level, about=(0.5, 0.1)),
    ),
}


@pytest.mark.parametrize("node", [(2, 0), (9, 1), (9, -1)], ids=["object", "part", "leaf"])
@pytest.mark.parametrize("name", THERE_AND_BACK)
def test_a_node_that_goes_and_comes_back_was_never_away(name, node):
    scene, (go, back) = tree(), THERE_AND_BACK[name]
    away = go(scene, *node)
    assert (away.levels[node[1]].pose - scene.levels[node[1]].pose)[:, node[0]].abs().max() > 0.1
    others_untouched(scene, away, *node)
    assert_same(scene, away, but=("pose",), exact=True)
    assert_same(scene, back(away, *node))


def test_a_node_is_found_by_its_place():
    scene = squares()
    corners = ((-0.9, -0.2), (0.4, -0.6), (-0.1, 0.3))
    assert [edit.at(scene, point) for point in corners] == [0, 1, 2]
    assert edit.at(scene, (0.6, 0.6)) == 1, "slot 3 is empty; of slots 1 and 2 the first is as near"
    assert edit.at(scene, torch.tensor([0.4, 0.6])) == 2
    parts = tree(1)
    for slot, centre in enumerate(parts.parts.centre[0]):
        assert edit.at(parts, centre, level=-1) == slot
    with pytest.raises(ValueError, match="2 images: expected one"):
        edit.at(squares(2), (0, 0))
    with pytest.raises(ValueError, match="no node of level 0 is present"):
        edit.at(edit.keep(scene, torch.zeros(1, 4, dtype=torch.bool)), (0, 0))


def test_an_object_takes_its_parts_along():
    scene = tree()
    for change in (
        lambda s: edit.move(s, 1, (0.3, -0.2)),
        lambda s: edit.scale(s, 1, 0.6),
        lambda s: edit.rotate(s, 1, 1.1),
    ):
        torch.testing.assert_close(relative(change(scene)), relative(scene), rtol=1e-3, atol=1e-3)
    moved = edit.move(scene, 1, (0.3, -0.2)).parts.centre - scene.parts.centre
    expected = torch.zeros(3, 16, 2)
    expected[:, 4:8] = torch.tensor([0.3, -0.2])
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_size_and_angle_change_as_asked_about_the_centre():
    scene = tree()
    after = edit.rotate(edit.scale(scene, 1, 1.5), 1, 0.25)
    torch.testing.assert_close(after.objects.extent[:, 1], 1.5 * scene.objects.extent[:, 1])
    turned = after.objects.rotation[:, 1] - scene.objects.rotation[:, 1]
    torch.testing.assert_close(turned.remainder(2 * math.pi), torch.full((3,), 0.25))
    torch.testing.assert_close(after.objects.centre, scene.objects.centre)


def test_the_point_about_which_a_part_is_scaled_stays():
    scene, contact = tree(), torch.tensor([0.3, -0.1])
    after = edit.scale(scene, 6, 1.8, level=-1, about=contact)
    local = lambda s: render.inverse(s.parts.pose[:, 6]) @ torch.tensor([0.3, -0.1, 1.0])
    torch.testing.assert_close(local(after), local(scene), rtol=1e-4, atol=1e-4)
    away = after.parts.centre[:, 6] - contact
    torch.testing.assert_close(away, 1.8 * (scene.parts.centre[:, 6] - contact))


def test_a_wider_frame_leaves_the_parts_in_their_place():
    scene = tree()
    wide = edit.widen(scene, 1, 1.5)
    assert_same(replace(scene, levels=scene.levels[1:]), replace(wide, levels=wide.levels[1:]))
    torch.testing.assert_close(wide.objects.extent[:, 1], 1.5 * scene.objects.extent[:, 1])
    assert_same(scene, edit.widen(wide, 1, 1 / 1.5))


def test_a_part_outside_its_window_is_cut_off_until_the_window_is_wider():
    program, scene = gsgn.Program(SMALL), tree(1)
    patch = torch.zeros(1, 16, 4, 8, 8)
    patch[:, 5] = 1
    middle = render.pose(torch.zeros(2), torch.full((2,), 0.3), torch.zeros(()))
    small = render.pose(torch.tensor([0.6, 0.0]), torch.full((2,), 0.2), torch.zeros(()))
    pose = scene.parts.pose.clone()
    pose[:, 5] = small  # the window of its object ends at 0.3
    objects = replace(scene.objects, pose=middle.expand(1, 4, 2, 3))
    scene = replace(scene, levels=(objects, replace(scene.parts, pose=pose, patch=patch)))
    scene = replace(scene, background=torch.zeros_like(scene.background))
    cut, whole = (edit.render(program, s).image for s in (scene, edit.widen(scene, 1, 3.0)))
    assert cut.max() < 0.01
    assert whole[0, :, 14:18, 24:27].min() > 0.99 and whole[0, :, :, :20].max() < 0.01


def test_every_image_may_have_its_own_numbers():
    scene, by = tree(), torch.randn(3, 2)
    together = edit.scale(edit.move(scene, 0, by), 0, torch.tensor([0.5, 1.0, 2.0]))
    alone = [edit.scale(edit.move(scene[b : b + 1], 0, by[b]), 0, 2.0 ** (b - 1)) for b in range(3)]
    assert_same(together, concatenate(alone))


# -- what is seen -------------------------------------------------------------------------------------


def test_an_object_moved_behind_is_hidden_and_brought_to_the_front_hides():
    program, scene = gsgn.Program(FLAT), squares()
    onto = edit.move(scene, 1, (-0.75, 0.0))  # green onto red, whose columns 2 to 7 it covers
    pictures = {}
    for name, change in {"behind": edit.send_to_back, "front": edit.bring_to_front}.items():
        changed = change(onto, 1)
        pictures[name] = edit.render(program, changed).image[0]
        torch.testing.assert_close(pictures[name], by_hand(changed), rtol=1e-4, atol=1e-4)
    red, green = torch.tensor([[1.0, 0, 0], [0.0, 1, 0]])[:, :, None, None]
    seen = {name: image[:, 1:7, 3:7] for name, image in pictures.items()}
    assert (seen["behind"] - red).abs().max() < math.exp(-edit.STEP)
    assert (seen["front"] - green).abs().max() < math.exp(-edit.STEP)
    free = pictures["behind"][:, 1:7, 8]  # the green that looks out behind the red
    assert (free - green[..., 0]).abs().max() < 1e-3


def test_restacking_counts_present_siblings_only():
    scene = squares()
    assert edit.bring_to_front(scene, 2).objects.depth[0].tolist() == [1, 2, 1 - edit.STEP, 4]
    assert edit.send_to_back(scene, 0).objects.depth[0].tolist() == [3 + edit.STEP, 2, 3, 4]
    alone = edit.remove(edit.remove(scene, 1), 2)
    assert_same(edit.send_to_back(alone, 0), alone, exact=True)
    whole = tree()
    front = edit.bring_to_front(whole, 6, level=1)
    family = whole.parts.depth[:, [4, 5, 7]]
    torch.testing.assert_close(front.parts.depth[:, 6], family.amin(1) - edit.STEP)
    others_untouched(whole, front, 6, 1)


def test_what_is_removed_leaves_the_background_and_the_others():
    program = gsgn.Program(FLAT)
    scene = edit.move(squares(), 1, (-0.6, 0.2))
    found = edit.render(program, edit.remove(scene, 1)).image[0]
    torch.testing.assert_close(found, by_hand(scene, without=[1]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, :7, 9:], torch.full((3, 7, 7), 0.25))


def test_removing_takes_the_parts_too():
    scene = tree()
    after = edit.remove(scene, 2)
    assert after.objects.present.sum(1).tolist() == [3] * 3
    assert not after.parts.present[:, 8:12].any() and (after.parts.category[:, 8:12] == -1).all()
    others_untouched(scene, after, 2, 0)


def test_keeping_some_objects_is_removing_the_others():
    scene = tree()
    chosen = torch.tensor([[True, False, True, True]]).expand(3, 4)
    assert_same(edit.keep(scene, chosen), edit.remove(scene, 1), exact=True)
    nothing = edit.keep(scene, torch.zeros_like(chosen))
    assert not nothing.parts.present.any() and (nothing.objects.category == -1).all()


def test_a_removed_part_is_gone_from_its_objects_picture():
    program, scene = gsgn.Program(SMALL), tree()
    before, after = (edit.render(program, s) for s in (scene, edit.remove(scene, 5, level=-1)))
    changed = (before.objects.patch - after.objects.patch).abs().amax((2, 3, 4))
    assert (changed[:, 1] > 1e-3).all() and (changed[:, [0, 2, 3]] == 0).all()
    assert after.levels[1].patch is not None and not torch.equal(before.image, after.image)


def test_one_colour_becomes_another_and_shading_stays():
    scene = squares()
    orange = torch.tensor([1.0, 0.5, 0.0])
    after = edit.recolour(scene, 1, orange)
    torch.testing.assert_close(after.objects.patch[0, 1, :3], orange[:, None, None].expand(3, 8, 8))
    others_untouched(scene, after, 1, 0)

    shade = torch.linspace(0.2, 0.8, 8)
    patch = scene.objects.patch.clone()
    patch[:, 1, :3] *= shade
    shaded = replace(scene, levels=(replace(scene.objects, patch=patch),))
    found = edit.recolour(shaded, 1, (0.5, 0.5, 0.0)).objects.patch[0, 1]
    bright = shade / 3 + edit.DARK  # green alone, of three channels
    torch.testing.assert_close(found[0, 0], 0.5 * bright / bright.mean())
    assert torch.equal(found[0], found[1]) and (found[2] == 0).all() and (found[3] == 1).all()

    patch[:, :, :3] = 0
    black = replace(scene, levels=(replace(scene.objects, patch=patch),))
    found = edit.recolour(black, 0, orange).objects.patch[0, 0, :3]
    torch.testing.assert_close(found, orange[:, None, None].expand(3, 8, 8))


def test_what_a_mask_hides_has_no_part_in_the_shading():
    scene = squares()
    patch = scene.objects.patch.clone()
    patch[:, 0, 3, :, 4:] = 0
    patch[:, 0, :3, :, 4:] = 0.7  # unseen
    half = replace(scene, levels=(replace(scene.objects, patch=patch),))
    blue = torch.tensor([0.0, 0.0, 0.6])
    found = edit.recolour(half, 0, blue).objects.patch[0, 0, :3, :, :4]
    torch.testing.assert_close(found, blue[:, None, None].expand(3, 8, 4))


# -- whole subtrees -----------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [(1, 3, 0), (2, 13, -1), (4, 6, 1)], ids=str)
def test_swapping_twice_changes_nothing_and_once_a_lot(nodes):
    slot, other, level = nodes
    scene = tree()
    once = edit.swap(scene, slot, other, level)
    assert_same(scene, edit.swap(once, slot, other, level))
    before, after = scene.levels[level], once.levels[level]
    torch.testing.assert_close(after.centre, before.centre)
    assert torch.equal(after.depth, before.depth)
    for a, b in ((slot, other), (other, slot)):
        torch.testing.assert_close(after.category[:, a], before.category[:, b])
        here, there = (edit.subtree(scene, k, level)[-1][0] for k in (a, b))
        assert torch.equal(once.parts.patch[:, here], scene.parts.patch[:, there])


@pytest.mark.parametrize("node", [(2, 0), (7, -1)], ids=["object", "part"])
def test_a_node_grafted_on_itself_is_the_same(node):
    scene = tree()
    assert_same(scene, edit.graft(scene, node[0], scene, *node))


def test_a_graft_brings_its_tree_and_takes_the_place():
    scene, source = tree(3), tree(1)
    after = edit.graft(scene, 1, source, 2)
    torch.testing.assert_close(after.objects.centre, scene.objects.centre)
    assert torch.equal(after.objects.depth, scene.objects.depth)
    torch.testing.assert_close(
        after.objects.pose[:, 1, :, :2], source.objects.pose[:, 2, :, :2].expand(3, 2, 2)
    )
    torch.testing.assert_close(
        relative(after)[:, 4:8], relative(source)[:, 8:12].expand(3, 4, 2, 3), rtol=1e-3, atol=1e-3
    )
    for name in ("patch", "depth", "pres", "category"):
        got, given = (getattr(s.parts, name) for s in (after, source))
        assert torch.equal(got[:, 4:8], given[:, 8:12].expand_as(got[:, 4:8]))
    others_untouched(scene, after, 1, 0)
    assert torch.equal(after.parts.parent, scene.parts.parent)


def test_a_grafted_part_keeps_its_size_and_angle_relative_to_its_object():
    scene, source = tree(2), tree(2)
    after = edit.graft(scene, 5, source, 14, level=-1)
    torch.testing.assert_close(
        relative(after)[:, 5, :, :2], relative(source)[:, 14, :, :2], rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(after.parts.centre, scene.parts.centre)


def test_an_empty_slot_is_filled_by_a_graft():
    program, scene = gsgn.Program(FLAT), squares()
    filled = edit.graft(scene, 3, scene, 0)
    assert filled.objects.present[0, 3]
    torch.testing.assert_close(
        edit.render(program, filled).image[0, :, 9:15, 9:15],
        torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 6, 6),
    )


def test_edits_change_no_tensor_they_were_given():
    scene, source = tree(), tree(1)
    copy = scene.map(torch.clone)
    for change in (
        lambda s: edit.move(s, 0, (0.1, 0)),
        lambda s: edit.recolour(s, 0, (1, 0, 0)),
        lambda s: edit.send_to_back(s, 0),
        lambda s: edit.remove(s, 0),
        lambda s: edit.graft(s, 0, source, 1),
        lambda s: edit.render(gsgn.Program(SMALL), s),
    ):
        change(scene)
        assert_same(scene, copy, exact=True)
        assert torch.equal(scene.image, copy.image)


def test_visible_masks_do_not_outlive_what_they_showed():
    scene = tree()
    seen = scene.with_masks(render.visible_masks(scene))
    assert all(n.mask is None for n in edit.move(seen, 0, (0.2, 0)).levels)


def test_a_subtree_follows_the_parent_index_wherever_the_children_stand():
    scene = tree(2)
    order = torch.tensor([0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15])
    parts = replace(scene.parts, parent=(order // 4).expand(2, 16))
    scattered = replace(scene, levels=(scene.objects, parts))
    expected = [k for k in range(16) if order[k] // 4 == 2]
    assert edit.subtree(scattered, 2)[1].tolist() == [expected] * 2


# -- drawing from the prior ---------------------------------------------------------------------------


class Record(Messenger):
    """All values of all latent sites, in the order of the passes."""

    def __init__(self):
        super().__init__()
        self.values = {}

    def _pyro_post_sample(self, msg):
        self.values.setdefault(msg["name"], []).append(msg["value"])


def passes(program, guide, images, *args, **kwargs):
    """The Scene, and what the sites were at the guide's mode and in the end."""
    with Record() as record:
        scene = edit.resample(program, guide, images, *args, **kwargs)
    before = {name: values[0] for name, values in record.values.items() if name[0] == "z"}
    return scene, before, {name: record.values[name][-1] for name in before}


def everything_present(program, guide, head):
    with torch.no_grad():
        for layer in head:
            layer.weight.zero_()
            layer.bias.zero_()
            layer.bias[0] = 5.0
    return program.eval(), guide.eval()


def gsgn_pair():
    program = gsgn.Program(SMALL)
    guide = gsgn_guide.Guide(program)
    return everything_present(program, guide, [h.out[-1] for h in guide.edge_heads])


def air_pair():
    program = air.Program(AIR)
    guide = air_guide.Guide(program)
    return everything_present(program, guide, [guide.where_head[-1]])


def changed(before, after):
    """site -> slots that differ in any image"""
    found = {}
    for name, old in before.items():
        differs = (old != after[name]).flatten(2).any(-1) if old.ndim > 2 else old != after[name]
        found[name] = differs.any(0).nonzero().flatten().tolist()
    return {name: slots for name, slots in found.items() if slots}


def test_resampling_an_object_draws_its_subtree_and_nothing_else():
    program, guide = gsgn_pair()
    x = torch.rand(8, 3, 32, 32)
    scene, before, after = passes(program, guide, x, 2)
    poses = ("where", "scale", "theta", "depth", "what")
    expected = {f"z_{k}_1": [2] for k in poses} | {f"z_{k}_2": [8, 9, 10, 11] for k in poses}
    assert changed(before, after) == expected | {"z_pres_2": [8, 9, 10, 11]}
    inferred = infer(program, guide, x)
    others_untouched(inferred, scene, 2, 0)
    assert torch.equal(scene.background, inferred.background)
    assert (scene.objects.pose != inferred.objects.pose)[:, 2].flatten(1).any(1).all()


def test_resampling_a_part_or_some_sites_draws_no_more():
    program, guide = gsgn_pair()
    x = torch.rand(8, 3, 32, 32)
    part = changed(*passes(program, guide, x, 5, level=-1)[1:])
    assert part == {f"z_{k}_2": [5] for k in ("where", "scale", "theta", "depth", "what")}
    looks = changed(*passes(program, guide, x, 1, sites="z_what*")[1:])
    assert looks == {"z_what_1": [1], "z_what_2": [4, 5, 6, 7]}


def test_draws_come_from_the_prior():
    program, guide = air_pair()
    _, _, after = passes(program, guide, torch.rand(400, 1, 32, 32), 1)
    what, where = after["z_what_2"], after["z_where_2"] / torch.tensor(AIR.where_sd)
    for draws in (what, where):
        n = draws.numel()
        assert abs(draws.mean()) < 4 / n**0.5
        assert abs(draws.var() - 1) < 4 * (2 / n) ** 0.5


def test_parts_are_drawn_given_the_new_object():
    program, guide = gsgn_pair()
    with torch.no_grad():  # z_where of the parts is exactly the first feature of the object
        last = program.priors[1].net
        for layer in last[::2]:
            layer.weight.zero_(), layer.bias.zero_()
        last[0].weight[0, 0] = last[2].weight[0, 0] = 1
        rows = last[4].weight.view(4, -1, last[4].weight.shape[1])
        rows[:, 1, 0] = 1
        last[4].bias.view(4, -1)[:, 6:8] = -20  # almost no spread
        last[0].bias[0] = last[2].bias[0] = 20  # where CELU is the identity
    _, _, after = passes(program, guide, torch.rand(8, 3, 32, 32), 2)
    drawn, feature = after["z_where_2"][:, 8:12, 0], after["z_what_1"][:, 2, :1]
    assert feature.std() > 0.1
    torch.testing.assert_close(drawn, (feature + 40).expand(8, 4), atol=0.01, rtol=0)


def test_a_step_of_air_is_drawn_alone():
    program, guide = air_pair()
    x = torch.rand(8, 1, 32, 32)
    scene, *sites = passes(program, guide, x, 1)
    assert set(changed(*sites)) == {"z_where_2", "z_what_2"}
    others_untouched(infer(program, guide, x), scene, 1, 0)


def test_presence_is_drawn_if_asked():
    program, guide = air_pair()
    program.go_on.fill_(-20.0)
    x = torch.rand(4, 1, 32, 32)
    assert edit.resample(program, guide, x, 1).objects.present.all()
    absent = edit.resample(program, guide, x, 1, keep_presence=False)
    assert absent.objects.present.tolist() == [[True, False, False]] * 4
    program, guide = gsgn_pair()
    x = torch.rand(8, 3, 32, 32)
    drawn = passes(program, guide, x, 1, keep_presence=False)[1:]
    assert changed(*drawn)["z_pres_1"] == [1]


@pytest.mark.parametrize("name", ["genesis", "denf"])
def test_objects_without_sites_of_their_own_are_not_drawn_alone(name):
    """GENESIS' mask latents have numbers, but the looks of all components are one site; DeNF has a map."""
    program, guide = tiny.build(name)
    program.eval(), guide.eval()
    x = tiny.images(2, program)
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(x)
        scene = infer(program, guide, x)
    for slot in range(scene.objects.pres.shape[1]):
        assert edit.sites_of(trace, scene, slot, 0) == {}
    with pytest.raises(ValueError, match=r"slot=1, level=0: .* no latents of this node alone"):
        edit.resample(program, guide, x, 1)


# -- programs that add up -----------------------------------------------------------------------------


def test_colours_times_opacity_are_the_patch():
    patches = torch.rand(5, 3, 8, 8)
    patches[0] = 0
    both = air.with_opacity(patches)
    assert both.min() >= 0 and both.max() <= 1
    torch.testing.assert_close(both[:, :3] * both[:, 3:], patches, rtol=1e-6, atol=0)
    grey = air.with_opacity(patches[1:, :1])
    assert (grey[:, 0] == 1).all() and torch.equal(grey[:, 1], patches[1:, 0])


@pytest.mark.parametrize("kind", [air, discrete_air], ids=["air", "discrete_air"])
@torch.no_grad()
def test_objects_in_colour_add_up_again(kind):
    small = {"size": 32, "window": 16, "colours": 3, "presence": 0.7}
    program = kind.Program(kind.Config(**small))
    scene = program(batch=6)
    assert 0 < scene.objects.pres.mean() < 1 and scene.image.std() > 0.01
    blank = replace(scene, image=torch.zeros_like(scene.image))
    torch.testing.assert_close(edit.render(program, blank).image, scene.image, rtol=0, atol=1e-5)
    some = scene[scene.objects.present[:, 0]]
    without = edit.render(program, edit.remove(some, 0)).image
    alone = replace(some.objects, pres=some.objects.pres * torch.tensor([1.0, 0, 0]))
    alone = edit.render(program, replace(some, levels=(alone,))).image
    torch.testing.assert_close((without + alone).clamp(max=1), some.image, rtol=0, atol=1e-5)


# -- errors -------------------------------------------------------------------------------------------


def small_patches():
    scene = tree(1)
    parts = replace(scene.parts, patch=torch.rand(1, 16, 4, 4, 4))
    return replace(scene, levels=(scene.objects, parts))


def uneven():
    scene = tree()
    parent = scene.parts.parent.clone()
    parent[0, 3] = 1
    return replace(scene, levels=(scene.objects, replace(scene.parts, parent=parent)))


ERRORS = {
    r"slot=4: level 0 .* slots 0 to 3": lambda s: edit.move(s, 4, (0, 0)),
    r"slot=-1: level 1 .* slots 0 to 15": lambda s: edit.remove(s, -1, level=-1),
    r"level=2: the Scene has 2 levels": lambda s: edit.rotate(s, 0, 1.0, level=2),
    r"by has shape \(1,\): expected \(2,\) .* or \(3, 2\)": lambda s: edit.move(s, 0, (0.5,)),
    r"factor has shape \(2,\)": lambda s: edit.scale(s, 0, torch.ones(2)),
    r"factor=\[0.0, 0.0, 0.0\]: expected numbers above 0": lambda s: edit.scale(s, 0, 0),
    r"colour has shape \(1,\): expected \(3,\)": lambda s: edit.recolour(s, 0, (1.0,)),
    r"slot 1 of level 0 is absent in images \[0, 1, 2\]: .*scene.levels\[0\].present\[:, 1\]":
        lambda s: edit.move(edit.remove(s, 1), 1, (0, 0)),
    r"slot 5 of level 1 has no present parent in images \[0, 1, 2\]: graft slot 1 of level 0":
        lambda s: edit.graft(edit.remove(s, 1), 5, s, 5, level=1),
    r"the source has 2 images, the Scene 3": lambda s: edit.graft(s, 0, s[:2], 0),
    r"has \[1, 4\] slots by level, the source's \[1\]": lambda s: edit.graft(s, 0, squares(), 0),
    r"patch of shape \(4, 8, 8\), the source's \(4, 4, 4\)":
        lambda s: edit.graft(s, 0, small_patches(), 0, level=-1),
    r"category of shape \(\), the source's None":
        lambda s: edit.graft(s, 0, replace(s, levels=tuple(replace(n, category=None) for n in s.levels)), 0),
    r"different numbers of children": lambda s: edit.move(uneven(), 0, (0, 0)),
    r"no patches to draw": lambda s: edit.render(gsgn.Program(SMALL), shapes2d.world(1, torch.Generator())),
    r"no patches to draw .*": lambda s: edit.recolour(shapes2d.world(1, torch.Generator()), 0, (1, 0, 0)),
    r"torch.nn.modules.linear.Identity cannot draw a Scene: add a method redraw":
        lambda s: edit.render(torch.nn.Identity(), s),
    r"has \[4\] slots by level, this program \[4, 16\]": lambda s: edit.render(gsgn.Program(SMALL), squares()),
    r"sites='z_wat\*' matches no site of the node; there are z_where_2, z_what_2":
        lambda s: edit.resample(*air_pair(), torch.rand(2, 1, 32, 32), 1, sites="z_wat*"),
    r"slot=3: level 0 .* slots 0 to 2": lambda s: edit.resample(*air_pair(), torch.rand(2, 1, 32, 32), 3),
}  # fmt: skip


@pytest.mark.parametrize("message", ERRORS)
def test_errors_say_what_was_given_and_what_to_do(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message](tree())


# -- the shipped runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["gsgn-shapes2d", "air-multi_mnist", "discrete_air-multi_sprites"])
@torch.no_grad()
def test_inferred_scenes_are_edited(run):
    trained = open_run(run)
    program, guide = trained.program, trained.guide
    scene = infer(program, guide, trained.unseen(50).floats())
    scene = scene[scene.objects.present[:, :2].all(1)]
    torch.testing.assert_close(edit.render(program, scene).image, scene.image, rtol=0, atol=1e-4)

    fewer = infer(program, guide, edit.render(program, edit.remove(scene, 1)).image)
    count = lambda s: s.objects.present.sum(1)
    assert (count(fewer) == count(scene) - 1).float().mean() > 0.8

    alone = scene.map(torch.clone)
    for nodes, places in zip(alone.levels, edit.subtree(alone, 0), strict=True):
        nodes.pres.mul_(torch.zeros_like(nodes.pres).scatter(1, places, 1.0))
    if alone.background is not None:
        alone.background.zero_()
    pixels = -3 * alone.objects.centre[:, 0].sign()  # towards the middle
    still = edit.render(program, alone).image
    assert still.amax((1, 2, 3)).median() > 0.2
    moved = edit.render(program, edit.move(alone, 0, pixels * 2 / still.shape[-1])).image
    for image, other, by in zip(still, moved, pixels.int().tolist(), strict=True):
        torch.testing.assert_close(
            other[:, 8:-8, 8:-8], image.roll(by[::-1], (1, 2))[:, 8:-8, 8:-8], rtol=0, atol=1e-3
        )
