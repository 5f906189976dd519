"""Scenes of the prior under conditions."""

import pytest
import torch

from analysis.studio import dreams, latents
from analysis.studio.dreams import Condition, dream


def test_a_dream_has_the_objects_that_were_asked_for(bench):
    made = bench()
    dreamt = dream(made, Condition(objects=3), 60)
    made.begin(None, dreamt.values)
    assert int(made.seen.scene.objects.present.sum()) == 3
    assert dreamt.fitting <= dreamt.drawn and dreamt.drawn % dreams.BATCH == 0


def test_a_dream_has_the_classes_that_were_asked_for(bench):
    made = bench("discrete_air-multi_sprites")
    made.begin(None, dream(made, Condition(objects=2, classes={0: 1}), 60).values)
    objects = made.seen.scene.objects
    assert int(objects.present.sum()) == 2
    assert int((objects.category == 0).sum()) == 1


def test_a_node_that_is_held_stays(bench):
    made = bench()
    at, scene = made.hand.selection, made.seen.scene
    part = latents.take(made.seen.told, made.hand.values, at.slot, 0)
    values = dream(made, Condition(objects=2, held=[at]), 60).values
    made.begin(None, values)
    kept = latents.take(made.seen.told, made.hand.values, at.slot, 0)
    assert all(torch.equal(kept[k], v) for k, v in part.items())
    dreamt = made.seen.scene
    assert torch.equal(dreamt.objects.pose[0, at.slot], scene.objects.pose[0, at.slot])
    assert int(dreamt.objects.present.sum()) == 2


def test_what_never_happens_is_given_up_in_words(bench):
    made = bench()
    with pytest.raises(ValueError, match=r"none of \d+ scenes of the prior fits"):
        dream(made, Condition(objects=99), 0.1)
    with pytest.raises(ValueError, match="no classes"):
        dream(made, Condition(classes={0: 1}), 0.1)
    flat = bench("vae-mnist4")
    with pytest.raises(ValueError, match="no objects to count"):
        dream(flat, Condition(objects=1), 0.1)
