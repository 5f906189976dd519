"""Questions about an image."""

from itertools import pairwise

import pytest
import torch

from analysis.studio import asking, latents


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("gsgn-shapes2d", asking.best_of_draws),
        ("discrete_air-multi_sprites", asking.refined),
        ("vae-mnist4", asking.refined),
    ],
)
def test_a_search_never_gets_worse_and_says_the_truth(bench, name, way):
    made = bench(name)
    found = list(way(made.program, made.guide, made.image, 0.3))
    assert len(found) > 1 and found[0].effort != found[-1].effort
    assert all(b.log_p >= a.log_p for a, b in pairwise(found))
    told = latents.tell(made.program, found[-1].values, made.image)
    assert float(told.log_prior + told.log_likelihood) == pytest.approx(found[-1].log_p, abs=0.1)


def test_a_program_that_cannot_be_refined_is_searched_by_draws(bench, monkeypatch):
    def refused(*_):
        raise ValueError("a latent is of all images")
        yield

    made = bench("air-multi_mnist")
    monkeypatch.setattr(asking, "refined", refused)
    found = list(asking.search(made.program, made.guide, made.image, 0.1))
    assert found[0].effort == "the mode" and found[-1].effort.endswith("scenes")


def test_doubts_are_those_of_the_draws(bench):
    made = bench()
    asked = asking.Doubts()
    asked.more(made)
    assert asked.table()["more"] and asked.table()["khat"] is None
    while asked.table()["more"]:
        asked.more(made)
    doubts = asked.table()
    assert len(doubts["draws"]) == asking.SHOWN and doubts["number"] == asking.DRAWS
    there = made.seen.scene.objects.present[0]
    for slot, row in enumerate(doubts["nodes"][0]):
        assert (row["presence"] > 0.5) == bool(there[slot])
    slot = made.hand.selection.slot
    assert 0 < doubts["nodes"][0][slot]["centre"] < 0.2
    assert doubts["elbo"] < doubts["iwae"]
    made.begin(None, latents.values_of(latents.run(made.program, {}, None)))
    with pytest.raises(ValueError, match="no posterior"):
        asking.Doubts().more(made)


def test_another_run_sees_the_picture_at_its_own_size(bench):
    made, other = bench("gnm-mnist4"), bench("air-multi_mnist")
    seen = asking.seen_by(made, other.program, other.guide)
    assert len(seen["levels"][0]) == 3 and 0 < seen["error"] < 1
    picture = asking.fitted(torch.rand(1, 3, 40, 40), other.program)
    assert picture.shape == (1, 1, 50, 50)


def test_the_nearest_image_is_the_image_itself(images):
    pictures = images()
    assert asking.nearest(pictures[2:3], pictures) == 2
