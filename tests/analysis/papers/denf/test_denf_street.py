"""Cars of a real street, found or not, by boxes that were drawn by hand."""

import pytest
import torch

from analysis.papers.denf import street
from inference.runs import open_run
from programs.scene import Nodes, Scene

SIDE = 48
NUMBERS = list(street.LABELS)


def scene(*cars):
    """Scenes of as many frames, whose objects fill these boxes (left, top, right, bottom), in pixels of 48."""
    mask = torch.zeros(len(cars), 3, SIDE, SIDE)
    for frame, own in enumerate(cars):
        for slot, (left, top, right, bottom) in enumerate(own):
            mask[frame, slot, top:bottom, left:right] = 1
    pres = mask.flatten(2).any(-1).float()
    pose = torch.eye(2, 3).expand(*pres.shape, 2, 3)
    zeros = torch.zeros_like(pres)
    return Scene(
        torch.zeros(len(cars), 3, SIDE, SIDE), (Nodes(pres, pose, zeros, zeros.long(), mask=mask),)
    )


def test_labels_lie_in_the_clip():
    assert len(street.LABELS) == 20 and sum(map(len, street.LABELS.values())) == 24
    for number, cars in street.LABELS.items():
        assert 0 <= number < street.FRAMES
        for left, top, right, bottom in cars:
            assert 0 <= left < right <= street.WIDTH and 0 <= top < bottom <= street.HEIGHT


def test_overlaps_are_shares_of_the_union():
    assert street.iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert street.iou((0, 0, 2, 2), (2, 2, 3, 3)) == 0
    assert street.iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1


def test_a_box_is_around_an_objects_pixels():
    mask = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    mask[1, 12:24, 6], mask[1, 12, 6:18] = True, True
    assert street.boxes(mask) == [(6 * 16, 12 * 9, 18 * 16, 24 * 9)]


def test_cars_are_counted_once():
    """Frame 78 has one car, 204 two, 350 none."""
    car, left, right = (17, 11, 28, 41), (7, 4, 15, 36), (20, 19, 30, 48)
    assert street.count(scene([car]), [78]) == street.Count(1, 1, 1)
    assert street.count(scene([car, car]), [78]) == street.Count(1, 1, 2)
    assert street.count(scene([left, right], [(0, 0, 4, 4)]), [204, 350]) == street.Count(2, 2, 3)
    assert street.count(scene([right]), [204]) == street.Count(2, 1, 1)
    assert street.count(scene([(0, 0, 48, 48)]), [78]) == street.Count(1, 0, 1)


def test_a_run_of_other_images_is_refused(capsys):
    with pytest.raises(ValueError, match=r"trained on a world: give a run of car-detection\.mp4"):
        street.frames(open_run("denf-clevr6"))
    assert street.main(["denf-clevr6"]) == 2
    assert "377 frames" in capsys.readouterr().err
