"""How many scene graphs there are, against the paper and against lists."""

import itertools

from analysis.papers.gsgn import counts
from analysis.papers.gsgn.items import ITEMS
from analysis.papers.item import Request
from programs.worlds import compositional_clevr


def test_the_worlds_table_of_types_gives_the_papers_numbers():
    made = ITEMS["appendixG"].make({}, Request())
    assert [row.metric for row in made.rows] == [
        "structures", "structures_with_poses", "objects", "scene_graphs",
    ]  # fmt: skip
    for row in made.rows:
        assert float(f"{row.ours:.3g}") == float(f"{row.paper:.3g}"), row.metric


def test_scenes_are_multisets_of_objects():
    for different, most in ((3, 4), (5, 2), (1, 3)):
        listed = [
            scene
            for n in range(1, most + 1)
            for scene in itertools.combinations_with_replacement(range(different), n)
        ]
        assert counts.scenes_of(different, most) == len(listed)


def test_objects_differ_by_the_places_and_sizes_of_their_parts():
    one, other = ((0, 1.0, 0, 0, -1), (2, 0.5, 0, 0, 0)), ((1, 2.0, 0, 0, -1), (0, 1.0, 0, 0, 0))
    assert counts.arrangement(one) == counts.arrangement(other)
    assert counts.arrangement(one[:1]) == counts.arrangement(other[:1]) == ()
    beside = (one[0], (2, 0.5, 1, 0, -1))
    assert counts.arrangement(beside) != counts.arrangement(one)
    kinds = compositional_clevr.TYPES[3]
    assert counts.counts(kinds[:1]) == {
        "structures": 4, "structures_with_poses": 4, "objects": 14, "scene_graphs": counts.scenes_of(14),
    }  # fmt: skip
