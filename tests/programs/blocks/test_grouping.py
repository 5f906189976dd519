"""Groups of cells: what average linkage joins, and where the cells of dropped groups go."""

import torch
from scipy.cluster.hierarchy import fcluster, linkage

from programs.blocks.grouping import linked

POINTS = torch.tensor([0.0, 0.1, 0.2, 1.0, 1.1, 3.0, 0.5, 2.9])[:, None]
PRESENT = torch.tensor([True, True, True, True, True, True, False, False])


def labels(points, present, apart, groups, least):
    own = linked(points, present, apart, groups, torch.as_tensor(least).float())
    assert (own.sum(-2) == 1).all()
    return own.argmax(-2).tolist()


def test_near_cells_are_joined_the_largest_group_first():
    assert labels(POINTS, PRESENT, 0.3, 4, 1) == [0, 0, 0, 1, 1, 2, 0, 2]


def test_cells_of_small_or_surplus_groups_go_to_the_nearest_group():
    assert labels(POINTS, PRESENT, 0.3, 4, 2) == [0, 0, 0, 1, 1, 1, 0, 1]
    assert labels(POINTS, PRESENT, 0.3, 1, 1) == [0] * 8
    assert labels(POINTS, PRESENT, 0.3, 4, 9) == [0] * 8


def test_each_cell_says_how_many_its_group_needs():
    """The second group has two cells, which ask for 1.5 or 2.5 in the mean."""
    least = torch.ones(8)
    least[4] = 2.0
    assert labels(POINTS, PRESENT, 0.3, 4, least) == [0, 0, 0, 1, 1, 2, 0, 2]
    least[4] = 4.0
    assert labels(POINTS, PRESENT, 0.3, 4, least) == [0, 0, 0, 0, 0, 1, 0, 1]


def test_groups_are_scipys_in_every_map_of_a_batch():
    torch.manual_seed(0)
    points, present = torch.randn(2, 3, 20, 2), torch.rand(2, 3, 20) > 0.3
    own = linked(points, present, 0.8, 20, torch.ones(20))
    for a in range(2):
        for b in range(3):
            some = present[a, b]
            found = fcluster(linkage(points[a, b][some], "average"), 0.8, "distance")
            ours = own[a, b][:, some].argmax(0)
            same = found[:, None] == found
            assert ((ours[:, None] == ours).numpy() == same).all()


def test_no_cell_or_one_cell_is_one_group():
    assert labels(POINTS, PRESENT & False, 0.3, 4, 1) == [0] * 8
    assert labels(POINTS, torch.arange(8) == 3, 0.3, 4, 1) == [0] * 8
