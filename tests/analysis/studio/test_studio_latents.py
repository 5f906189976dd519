"""Latents: replayed, copied, exchanged, fitted to a pose."""

import pytest
import torch

from analysis.posterior import infer
from analysis.studio import latents
from inference.objectives import log_prob_per_image
from programs.blocks.render import chain, inverse

PLACED = ["gsgn-shapes2d", "gnm-mnist4", "air-multi_mnist", "discrete_air-multi_sprites"]


@pytest.mark.parametrize("name", [*PLACED, "econ-sprites_unique", "vae-mnist4"])
def test_values_tell_the_scene_that_the_guide_infers(bench, name):
    made = bench(name)
    seen = made.seen.told
    scene = infer(made.program, made.guide, made.image)
    assert torch.allclose(seen.scene.image, scene.image, atol=1e-5)
    whole = log_prob_per_image(latents.run(made.program, made.hand.values, made.image))
    assert torch.allclose(seen.log_prior + seen.log_likelihood, whole)


@pytest.mark.parametrize("name", PLACED)
def test_a_pose_within_reach_is_reached(bench, name):
    made = bench(name)
    slot, old = made.hand.selection.slot, made.seen.scene.objects.pose
    target = old[0, slot] + torch.tensor([[0.0, 0.0, 0.04], [0.0, 0.0, -0.03]])
    target[:, :2] *= 1.05
    values, off = latents.fit(
        made.program, made.seen.told, made.hand.values, made.image, slot, 0, target
    )
    assert off < 5e-3
    told = latents.tell(made.program, values, made.image)
    assert torch.allclose(told.scene.objects.pose[0, slot], target, atol=5e-3)
    others = [k for k in range(old.shape[1]) if k != slot]
    assert torch.equal(told.scene.objects.pose[0, others], old[0, others])


def test_parts_follow_their_object(bench):
    made = bench()
    scene, slot = made.seen.scene, made.hand.selection.slot
    target = scene.objects.pose[0, slot].clone()
    target[:, 2] += 0.1
    values, _ = latents.fit(
        made.program, made.seen.told, made.hand.values, made.image, slot, 0, target
    )
    moved = latents.tell(made.program, values, made.image).scene
    own = scene.parts.parent[0] == slot

    def relative(s):
        return chain(inverse(s.objects.pose[:, s.parts.parent[0]]), s.parts.pose)[0, own]

    assert torch.allclose(relative(moved), relative(scene), atol=1e-4)
    assert not torch.allclose(moved.parts.pose[0, own], scene.parts.pose[0, own], atol=0.05)


@pytest.mark.parametrize("name", ["gsgn-shapes2d", "air-multi_mnist"])
def test_two_nodes_exchanged_twice_are_where_they_were(bench, name):
    made = bench(name)
    told, values = made.seen.told, made.hand.values
    once = latents.exchange(told, values, 0, 1, 0)
    twice = latents.exchange(told, once, 0, 1, 0)
    assert any(not torch.equal(once[n], v) for n, v in values.items())
    assert all(torch.equal(twice[n], v) for n, v in values.items())
    part = latents.take(told, values, 0, 0)
    again = latents.take(told, once, 1, 0)
    assert part.keys() == again.keys() and all(torch.equal(part[k], again[k]) for k in part)


def test_a_part_of_another_level_does_not_fit(bench):
    made = bench()
    part = latents.take(made.seen.told, made.hand.values, 0, 1)
    with pytest.raises(ValueError, match="another level"):
        latents.put(made.seen.told, made.hand.values, 0, 0, part)


def test_a_dream_has_no_likelihood_and_its_image_is_no_latent(bench):
    made = bench()
    told = latents.tell(made.program, {}, None)
    assert told.log_likelihood is None
    assert "images" not in latents.values_of(told.trace)
    values = latents.values_of(told.trace)
    again = latents.tell(made.program, values, None)
    assert torch.allclose(again.scene.image, told.scene.image)
    assert torch.allclose(again.log_prior, told.log_prior)
