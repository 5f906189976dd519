"""Boxes: overlap, and the ones that most point to."""

import torch

from programs.blocks.boxes import overlaps, suppressed


def test_non_maximum_suppression_keeps_the_box_most_cells_point_to():
    """Against a list of the kept boxes worked out one by one."""
    side, pose = 4, torch.zeros(1, 16, 2, 3)
    pose[..., :2] = torch.diag_embed(torch.full((1, 16, 2), 0.3))
    corner, middle = torch.tensor([-0.75, -0.75]), torch.tensor([0.55, 0.55])
    pose[0, :, :, 2] = corner
    pose[0, 4:9, :, 2] = middle
    pres = torch.zeros(1, 16)
    pres[0, [0, 1, 4, 5, 6]] = 1.0
    slots, valid = suppressed(pres, pose, side, slots=3, overlap=0.3, least=1)
    assert valid.tolist() == [[True, True, False]]
    assert slots[0, 0] in (4, 5, 6) and slots[0, 1] in (0, 1)
    assert suppressed(pres, pose, side, 3, 0.3, least=3)[1].tolist() == [[True, False, False]]
    assert not suppressed(0 * pres, pose, side, 3, 0.3, 1)[1].any()


def test_overlap_of_boxes():
    pose = torch.zeros(3, 2, 3)
    pose[:, :, :2] = 0.5 * torch.eye(2)
    pose[1, 0, 2], pose[2, 0, 2] = 0.5, 2.0
    found = overlaps(pose[:1], pose)
    torch.testing.assert_close(found, torch.tensor([[1.0, 1 / 3, 0.0]]))
