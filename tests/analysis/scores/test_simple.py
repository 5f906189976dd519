"""Scenes that need no learning."""

import torch

from analysis.scores import by_colour, round_objects, scene_metrics, simple_scores
from inference.images.worlds import load_world


def drawn(world, number=60, **changes):
    found = load_world(world)
    return found.scenes(number, torch.Generator().manual_seed(0), found.config(size=32, **changes))


def test_where_every_object_has_a_colour_colours_are_objects():
    for world in ("sprites_unique", "sprites_random"):
        truth = drawn(world)
        found = scene_metrics(by_colour(truth.image), truth)
        assert found["ari_fg"] > 0.99 and found["ari"] > 0.99
        assert found["object_count_accuracy"] > 0.9  # some objects show less than a crumb


def test_two_objects_of_a_colour_are_one():
    truth = drawn("sprites_unique", classes=("square",), repeats=True)
    scene = by_colour(truth.image)
    assert (scene.objects.pres.sum(1) == 1).all()
    assert scene_metrics(scene, truth)["ari_fg"] < 0.5


def test_circles_are_right_for_circles_alone():
    circles = drawn("sprites_unique", classes=("circle",), min_objects=1, max_objects=1)
    assert scene_metrics(round_objects(circles), circles)["shape_iou"] > 0.95
    truth = drawn("sprites_random")
    found = simple_scores(truth.image, truth)["one circle"]
    assert 0.65 < found["shape_iou"] < 0.8
    assert found["depth_order_accuracy"] > 0.99 and found["object_f1"] == 1
