"""Generation of any program and world, judged, or not where the judge is not good."""

import pytest
from tiny import untrained

from analysis import generation
from analysis.judges import objects, scenes


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    monkeypatch.setattr(scenes, "STEPS", 3)
    monkeypatch.setattr(objects, "STEPS", 3)
    monkeypatch.setattr(generation, "LESSON", 40)


def run_of(name, world):
    run = untrained(name, name, world)
    run.config["recipe"]["scenes"] = 40
    return run


@pytest.mark.parametrize(
    ("name", "world"),
    [
        ("gsgn", "shapes2d"),
        ("vae", "multi_sprites"),
        ("econ", "sprites_unique"),
        ("discrete_air", "multi_sprites"),
    ],
)
def test_every_kind_of_program_is_judged_by_pictures(quick, name, world):
    run = run_of(name, world)
    found = generation.generation(run, run.unseen(30), number=30, blamed=8)
    assert {"frechet_judge", "told_apart", "precision", "recall"} <= found["images"].keys()
    assert all(0 <= v <= 1 for v in found["distance"].values())
    assert next(row["site"] for row in found["blame"]) == "none"
    assert ("objects" in found) == (name in ("gsgn", "discrete_air"))
    assert ("size" in found["distance"]) == (name in ("econ", "discrete_air"))
    text = generation.table(found)
    assert "judge passes: true" in text and "sites exchanged" in text


def test_a_judge_that_is_not_good_names_no_share(quick, monkeypatch):
    run = run_of("vae", "multi_sprites")
    for errors, named in (
        (scenes.Errors(0.99, 0.2, 1.0), False),
        (scenes.Errors(0.99, 0.0, 1.0), True),
    ):
        monkeypatch.setattr(scenes, "errors", lambda *_, found=errors: found)
        found = generation.generation(run, run.unseen(20), number=20, blamed=4)
        assert bool(found["valid"]) == named
        assert any("valid, prior alone" in row for row in found["blame"]) == named
        assert ("not good enough" in generation.table(found)) != named


def test_distances_of_nodes_are_0_between_alike_and_see_places():
    run = run_of("discrete_air", "multi_sprites")
    truth = run.unseen(40).truth()
    assert set(generation.node_distances(truth, truth).values()) == {0.0}
    moved = truth.objects.pose.clone()
    moved[..., 2] = 0.9
    from dataclasses import replace

    other = replace(truth, levels=(replace(truth.objects, pose=moved),))
    found = generation.node_distances(other, truth)
    assert found["place"] > 0.7 and found["nodes"] == found["size"] == 0


def test_what_was_found_is_shown_even_if_it_cannot_be_kept(quick, monkeypatch, tmp_path, capsys):
    def full(path, content):
        raise ValueError(f"cannot write {path}: no room")

    monkeypatch.setattr(generation, "open_run", lambda name: run_of("vae", "multi_sprites"))
    monkeypatch.setattr(generation, "write_json", full)
    words = ["vae", "--scenes", "20", "--json", str(tmp_path / "found.json")]
    assert generation.main(words) == 2
    said = capsys.readouterr()
    assert "judge passes: true" in said.out and "no room" in said.err
