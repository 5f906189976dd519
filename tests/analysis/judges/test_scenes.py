"""A judge of whole scenes: it learns, says how far it can be trusted, and is kept."""

import pytest
import torch

from analysis.judges import scenes
from inference.images.worlds import load_world, world_dataset


@pytest.fixture(scope="module")
def data():
    config = load_world("multi_sprites").config(size=32)
    return [
        world_dataset("multi_sprites", n, s, 0, config) for n, s in ((200, "train"), (80, "test"))
    ]


def test_histograms_count_objects_by_category(data):
    truth = data[1].truth()
    by_class, every = (scenes.histogram(truth, k) for k in (3, 1))
    assert by_class.shape == (80, 3)
    assert torch.equal(by_class.sum(1), every[:, 0])
    assert torch.equal(every[:, 0], truth.objects.present.sum(1))


def test_a_judge_learns_to_refuse_what_is_broken_and_is_kept(data, monkeypatch, tmp_path):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    monkeypatch.setattr(scenes, "STEPS", 40)
    found = scenes.judge(*data)
    assert found.errors.true - found.errors.broken > 0.3
    monkeypatch.setattr(scenes, "learn", None)
    again = scenes.judge(*data)
    assert all(map(torch.equal, found.net.parameters(), again.net.parameters()))
    assert again.errors == found.errors


@pytest.mark.parametrize(("name", "value"), [("APART", 20), ("SIDE", 31)])
def test_a_judge_of_other_numbers_is_another(data, monkeypatch, tmp_path, name, value):
    """20 scenes held out in place of 50; 31 pixels per side, which need as many weights as 32."""
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    monkeypatch.setattr(scenes, "learn", lambda *_: None)
    scenes.judge(*data)
    monkeypatch.setattr(scenes, "learn", lambda *_: pytest.fail("trained"))
    scenes.judge(*data)
    monkeypatch.setattr(scenes, name, value)
    with pytest.raises(pytest.fail.Exception):
        scenes.judge(*data)


def test_only_a_judge_that_passes_true_scenes_and_no_broken_ones_is_good():
    assert scenes.Errors(true=0.96, broken=0.04, number=0.5).good
    assert not scenes.Errors(true=0.94, broken=0.0, number=1.0).good
    assert not scenes.Errors(true=1.0, broken=0.06, number=1.0).good
