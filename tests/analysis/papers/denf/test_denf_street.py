"""Cars of a real street, found or not, by boxes that were drawn by hand."""

import pytest
import torch

from analysis.papers.denf import street
from inference.runs import open_run
from programs.blocks.boxes import overlaps
from programs.scene import Nodes, Scene


def scene(*cars):
    """Scenes of as many frames, whose objects have these boxes, in the clip's pixels."""
    pres, pose = torch.zeros(len(cars), 3), torch.zeros(len(cars), 3, 2, 3)
    for frame, own in enumerate(cars):
        pres[frame, : len(own)], pose[frame, : len(own)] = 1, street.labelled(own)
    zeros = torch.zeros_like(pres)
    return Scene(torch.zeros(len(cars), 3, 8, 8), (Nodes(pres, pose, zeros, zeros.long()),))


def test_labels_lie_in_the_clip():
    assert len(street.LABELS) == 20 and sum(map(len, street.LABELS.values())) == 24
    for number, cars in street.LABELS.items():
        assert 0 <= number < street.FRAMES
        for left, top, right, bottom in cars:
            assert 0 <= left < right <= street.WIDTH and 0 <= top < bottom <= street.HEIGHT


def test_overlaps_are_shares_of_the_union():
    one, others = street.labelled([(0, 0, 2, 2)]), [(1, 0, 3, 2), (2, 2, 3, 3), (0, 0, 2, 2)]
    assert overlaps(one, street.labelled(others))[0].tolist() == pytest.approx(
        [1 / 3, 0, 1], abs=1e-4
    )


def test_a_box_is_what_the_frame_shows_of_it():
    pose = torch.tensor([[[0.25, 0.0, -0.9], [0.0, 0.5, 0.0]]])
    assert torch.allclose(street.seen(pose), street.labelled([(0, 108, 0.35 / 2 * 768, 324)]))


def test_cars_are_counted_once():
    """Frame 78 has one car, 204 two, 350 none."""
    (car,), (left, right) = street.LABELS[78], street.LABELS[204]
    assert street.count(scene([car]), [78]) == street.Count(1, 1, 1)
    assert street.count(scene([car, car]), [78]) == street.Count(1, 1, 2)
    assert street.count(scene([left, right], [(0, 0, 60, 40)]), [204, 350]) == street.Count(2, 2, 3)
    assert street.count(scene([right]), [204]) == street.Count(2, 1, 1)
    assert street.count(scene([(0, 0, 768, 432)]), [78]) == street.Count(1, 0, 1)


def test_a_run_of_other_images_is_refused(capsys):
    with pytest.raises(ValueError, match=r"trained on a world: give a run of car-detection\.mp4"):
        street.frames(open_run("denf-clevr6"))
    assert street.main(["denf-clevr6"]) == 2
    assert "377 frames" in capsys.readouterr().err
