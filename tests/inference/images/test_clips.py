"""Clips of a camera and videos."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.images.clips import clips, is_clips, median
from inference.images.folders import FolderConfig
from inference.plan import Run, plan
from inference.runs import open_run, read_json
from inference.svi import main

FOLDER = "TRAFFIC_FOLDER"
"""Environment variable: a folder with traffic_intel's video, or of Real-Traffic."""


def write_clips(folder, number=12, frames=3):
    """Clip k is of grey k, in the layout of Real-Traffic, in no order."""
    for k in reversed(range(number)):
        (folder / f"f{k}").mkdir(parents=True)
        for t in range(frames):
            grey = np.full((20, 30, 3), 10 * k + t, np.uint8)
            Image.fromarray(grey).save(folder / f"f{k}" / f"{t:03d}.png")
    return folder


def test_clips_are_split_by_clip_in_the_order_of_their_numbers(tmp_path):
    folder, config = write_clips(tmp_path / "real"), FolderConfig(size=8)
    assert is_clips(folder) and not is_clips(folder / "f0")
    found = {s: clips(folder, s, config) for s in ("train", "test")}
    shades = {s: d.images[:, 0, 0, 0].tolist() for s, d in found.items()}
    assert shades["train"] == [10 * k + t for k in range(10) for t in range(3)]
    assert shades["test"] == [10 * k + t for k in (10, 11) for t in range(3)]
    assert found["train"].images.shape == (30, 3, 8, 8)
    with pytest.raises(ValueError, match="nothing is known"):
        found["test"].truth(slice(0, 1))


def test_the_published_clips_split_as_in_the_paper(tmp_path):
    from inference.images.clips import _part

    train, test = (_part(list(range(683)), name, "clips", tmp_path) for name in ("train", "test"))
    assert len(train) == 560 and len(test) == 123 and train + test == list(range(683))


def test_folders_that_are_not_all_numbered_are_no_clips(tmp_path):
    """Then the others' pictures count as well; run folders and hidden ones never do."""
    write_clips(tmp_path / "clips")
    (tmp_path / "clips" / ".hidden7").mkdir()
    assert is_clips(tmp_path / "clips")
    shutil.copytree(tmp_path / "clips" / "f1", tmp_path / "clips" / "cats")
    assert not is_clips(tmp_path / "clips")


def test_figures_of_runs_are_no_clips(tmp_path):
    for k in (1, 2):
        (tmp_path / f"run{k}").mkdir()
        (tmp_path / f"run{k}" / "config.json").write_text("{}")
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"run{k}" / "inferred.png")
    assert not is_clips(tmp_path)


def test_frames_are_cut_or_squeezed_into_a_square(tmp_path):
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, :10] = 200  # the left quarter
    for k in range(10):
        (tmp_path / f"f{k}").mkdir()
        Image.fromarray(wide).save(tmp_path / f"f{k}" / "0.png")
    cut, whole = (
        clips(tmp_path, "test", FolderConfig(size=20, cut=c)).images for c in (True, False)
    )
    assert cut.max() == 0 and whole.shape == cut.shape
    assert (whole[:, :, :, :4] > 190).all() and (whole[:, :, :, 6:] < 10).all()


def test_frames_are_made_equally_bright(tmp_path):
    """A dark and a bright frame of one street with one car; a black frame stays black."""
    street = np.full((20, 20, 3), 80, np.uint8)
    street[:4] = 200
    for k in range(10):
        (tmp_path / f"f{k}").mkdir()
        seen = (
            np.zeros_like(street) if k == 0 else (street * (0.5 if k % 2 else 1)).astype(np.uint8)
        )
        Image.fromarray(seen).save(tmp_path / f"f{k}" / "0.png")
    images = clips(tmp_path, "train", FolderConfig(size=20, even=True)).images
    assert (images[0] == 0).all() and (images[1:, :, 4:] == 102).all()
    assert (images[1:, :, :4] == 255).all()
    assert (clips(tmp_path, "train", FolderConfig(size=20)).images[1, :, 4:] == 40).all()


def test_animations_are_videos(tmp_path):
    frames = [Image.fromarray(np.full((16, 16, 3), 12 * k, np.uint8)) for k in range(20)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    data = clips(tmp_path / "a.gif", "train", FolderConfig(size=8))
    assert len(data.images) == 16 and data.images[10].float().mean() == pytest.approx(120, abs=3)
    torch.testing.assert_close(
        median(data.images), torch.full((3, 8, 8), 84 / 255), atol=0.02, rtol=0
    )


def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"ffmpeg -i FILE"):
        clips(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="no file or folder"):
        clips(tmp_path / "missing.mp4")
    for split in ("train", "test"):  # before the training, not after it
        with pytest.raises(ValueError, match="2 clips, too few for test"):
            clips(write_clips(tmp_path / split, 2), split)
    with pytest.raises(ValueError, match="unknown split"):
        clips(tmp_path / "a.mp4", "dev")


def test_a_run_trains_on_clips_and_is_measured_on_others(tmp_path):
    folder = write_clips(tmp_path / "real")
    run = ["programs/denf.py", "--preset", "tiny", "--images", str(folder), "--device", "cpu"]
    assert main([*run, "--out", str(tmp_path / "run")]) == 0
    planned = plan(Run("programs/denf.py", tmp_path, images=folder))
    assert planned.image_config == FolderConfig(size=48)
    data = open_run(tmp_path / "run").unseen(5)
    assert data.description["split"] == "test" and len(data.images) == 6


@pytest.mark.parametrize("preset", ["tiny", "quick", "paper"])
def test_a_world_beside_clips_names_the_recipe_and_the_clips_are_trained_on(tmp_path, preset):
    folder = write_clips(tmp_path / "real")
    street, plain, drawn = (
        plan(Run("programs/denf.py", tmp_path, preset=preset, **options))
        for options in (
            {"images": folder, "world": "traffic"},
            {"images": folder},
            {"world": "traffic"},
        )
    )
    assert street.recipe == drawn.recipe and street.recipe.world == "traffic"
    assert street.config == drawn.config and street.config.scale_mean == 0.25
    assert plain.config.scale_mean == 0.2 and plain.recipe.world == "clevr6"
    assert street.validation_images() is None or street.validation_images().labels is None
    assert street.training_images().images.shape[0] == 30
    assert street.test_images().description["images"] == str(folder)


def test_a_run_on_clips_with_a_worlds_recipe_says_so_and_goes_on(tmp_path):
    folder, out = write_clips(tmp_path / "real"), tmp_path / "run"
    words = ["programs/denf.py", "--preset", "tiny", "--images", str(folder), "--world", "traffic"]
    assert main([*words, "--steps", "2", "--out", str(out)]) == 0
    config = read_json(out / "config.json")
    assert config["recipe"]["world"] == "traffic" and config["images"] == str(folder)
    assert config["config"]["scale_mean"] == 0.25
    assert main([*words, "--out", str(out), "--resume"]) == 0
    assert len(open_run(out).unseen(5).images) == 6
    assert main([*words[:-2], "--out", str(out), "--resume"]) == 2  # another recipe


@pytest.mark.skipif(not os.environ.get(FOLDER), reason=f"{FOLDER} names no folder")
def test_footage_of_a_camera_that_stays():
    """Of a real street: what most frames show is close to each of them."""
    path = Path(os.environ[FOLDER])
    path = path if is_clips(path) else sorted(path.glob("*.mp4"))[0]
    try:
        data = clips(path, "test", FolderConfig(size=64))
    except ValueError as error:
        assert "imageio" in str(error)
        pytest.skip(str(error))
    apart = (data.images.float() / 255 - median(data.images)).abs().mean()
    assert 0 < apart < 0.1 and data.images.float().std() > 10
