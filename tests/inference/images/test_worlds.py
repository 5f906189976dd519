import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.images import stored
from inference.images import worlds as data
from inference.images.dataset import generator_of
from inference.images.worlds import world_dataset
from programs.worlds import shapes2d

SMALL = shapes2d.Config(size=32)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "cache"))


def test_a_set_is_drawn_once_and_found_again(monkeypatch):
    first = world_dataset("shapes2d", 30, "train", 0, SMALL)
    monkeypatch.setattr(data, "_generate", lambda *_: pytest.fail("drawn again"))
    again = world_dataset("shapes2d", 30, "train", 0, SMALL)
    assert torch.equal(first.images, again.images)
    assert first.images.shape == (30, 3, 32, 32) and first.images.dtype == torch.uint8


def test_splits_and_seeds_are_other_scenes():
    sets = [
        world_dataset("shapes2d", 8, split, seed, SMALL).images
        for split, seed in (("train", 0), ("validation", 0), ("test", 0), ("test", 1))
    ]
    for i, a in enumerate(sets):
        assert all(not torch.equal(a, b) for b in sets[:i])


def test_the_scenes_do_not_depend_on_the_number_of_processes(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "BATCH", 4)
    sets = []
    for processes in (1, 2):
        monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / str(processes)))
        sets.append(world_dataset("shapes2d", 41, "train", 3, SMALL, processes))
    assert torch.equal(sets[0].images, sets[1].images)
    assert torch.equal(sets[0].tables[1]["pose"], sets[1].tables[1]["pose"])


def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from inference.images import worlds as data\ndata.BATCH = 4\n"
        "data.world_dataset('shapes2d', 40, processes=2)"
    )
    words = [sys.executable, str(script)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 1
    assert "one of processes=2 that draw scenes has died" in ended.stderr
    assert not list((tmp_path / "cache").iterdir())


def test_the_truth_is_the_worlds(monkeypatch):
    made = world_dataset("shapes2d", 20, "test", 0, SMALL)
    truth = made.truth(slice(5, 15))
    assert len(truth) == 10
    seen = truth.parts.mask.any(1)
    assert (truth.image.amax(1)[seen] > 0.1).float().mean() > 0.95
    assert torch.equal(truth.parts.mask.flatten(2).any(2), truth.parts.present)
    assert torch.equal(truth.objects.present.sum(1), made.tables[0]["pres"][5:15].sum(1).long())


def test_what_an_interrupted_generation_leaves_is_not_taken_for_a_set(monkeypatch):
    def broken(*_):
        yield {"images": np.zeros((4, 3, 32, 32), np.uint8)}
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "_draw_all", broken)
    with pytest.raises(KeyboardInterrupt):
        world_dataset("shapes2d", 8, "train", 0, SMALL)
    assert list(data.cache().iterdir()) == []


def test_unknown_names_and_numbers_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"unknown world 'mars'; known are .*shapes2d"):
        world_dataset("mars", 3, "train", 0)
    with pytest.raises(ValueError, match="unknown split 'exam'"):
        world_dataset("shapes2d", 3, "exam", 0)
    with pytest.raises(ValueError, match="number=0"):
        world_dataset("shapes2d", 0, "train", 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match="SCENE_PROGRAMS_CACHE"):
        world_dataset("shapes2d", 3, "train", 0)


def test_no_two_batches_of_the_papers_sets_start_alike():
    """64,000 + 12,800 + 12,800 scenes; torch draws by the lower 32 bits of a seed."""
    batches = [(0, 64_000), (1, 12_800), (2, 12_800)]
    seeds = [
        generator_of(0, split, start).initial_seed() % 2**32
        for split, number in batches
        for start in range(0, number, data.BATCH)
    ]
    assert len(set(seeds)) == len(seeds) == 350


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_would_run_into_each_other_are_refused(seed):
    with pytest.raises(ValueError, match=f"seed={seed}"):
        world_dataset("shapes2d", 3, "train", seed)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(monkeypatch):
    def full(folder, *_):
        (folder / "images.npy").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stored, "_write", full)
    with pytest.raises(ValueError, match=r"No space left on device; set SCENE_PROGRAMS_CACHE"):
        world_dataset("shapes2d", 8, "train", 0, SMALL)
    assert list(data.cache().iterdir()) == []


def test_another_process_may_finish_the_same_set_first(monkeypatch):
    """As under torchrun, where every rank asks for it."""
    write, others = stored._write, []

    def slow(folder, *rest):
        write(folder, *rest)
        if not others:
            others.append(None)
            others[0] = world_dataset("shapes2d", 8, "train", 0, SMALL)

    monkeypatch.setattr(stored, "_write", slow)
    own = world_dataset("shapes2d", 8, "train", 0, SMALL)
    assert torch.equal(own.images, others[0].images)
    assert len(list(data.cache().iterdir())) == 1


def test_cached_files_are_plain_npy_of_exactly_the_scenes_drawn():
    """More than a batch and not a whole number of them, against the world itself."""
    made = world_dataset("shapes2d", data.BATCH + 5, "test", 2, SMALL)
    first, last = ((generator_of(2, 2, start), n) for start, n in ((0, 256), (256, 5)))
    for (generator, number), part in ((first, slice(0, 256)), (last, slice(256, 261))):
        scene, truth = shapes2d.world(number, generator, SMALL), made.truth(part)
        assert (truth.image - scene.image).abs().max() <= 0.5 / 255 + 1e-6
        for a, b in zip(scene.levels, truth.levels, strict=True):
            for field in ("pres", "pose", "depth", "parent", "category", "mask"):
                assert torch.equal(getattr(a, field), getattr(b, field)), field


@pytest.mark.parametrize("name", ["labels.npy", "images.npy", "description.json"])
@pytest.mark.parametrize("content", [b"", b"half", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'"])
def test_a_damaged_set_is_refused_by_name_and_drawn_again_without_it(name, content):
    whole = world_dataset("shapes2d", 3, "train", 0, SMALL).images.clone()
    (folder,) = data.cache().iterdir()
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"cached set {folder} is damaged .*; remove it"):
        world_dataset("shapes2d", 3, "train", 0, SMALL)
    shutil.rmtree(folder)
    assert torch.equal(world_dataset("shapes2d", 3, "train", 0, SMALL).images, whole)


def test_a_set_is_never_run_as_code(tmp_path):
    world_dataset("shapes2d", 3, "train", 0, SMALL)
    (folder,) = data.cache().iterdir()

    class Malice:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    np.save(folder / "labels.npy", np.array([Malice()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="is damaged"):
        world_dataset("shapes2d", 3, "train", 0, SMALL)
    assert not (tmp_path / "touched").exists()
    np.load(folder / "labels.npy", allow_pickle=True)
    assert (tmp_path / "touched").exists()  # it would have been
