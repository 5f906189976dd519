"""Folders of pictures."""

import numpy as np
import pytest
from PIL import Image

from inference.images.folders import FolderConfig, image_folder


def test_pictures_are_cut_square_around_the_middle_and_resized(tmp_path):

    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = (200, 100, 50)
    (tmp_path / "deep").mkdir()
    Image.fromarray(wide).save(tmp_path / "deep" / "a.png")
    found = image_folder(tmp_path, FolderConfig(16))
    assert found.images.shape == (1, 3, 16, 16)
    assert found.images[0, :, 2:-2, 2:-2].flatten(1).unique(dim=1).flatten().tolist() == [
        200,
        100,
        50,
    ]
    grey = image_folder(tmp_path, FolderConfig(16, colours=1)).images
    assert grey.shape == (1, 1, 16, 16) and 100 < grey[0, 0, 8, 8] < 150
    with pytest.raises(ValueError, match="nothing is known"):
        found.truth(slice(0, 1))


def test_folders_without_readable_pictures_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        image_folder(tmp_path / "none", FolderConfig(16))
    with pytest.raises(ValueError, match="no pictures"):
        image_folder(tmp_path, FolderConfig(16))
    (tmp_path / "notes.txt").write_text("this is no picture")
    with pytest.raises(ValueError, match=r"notes\.txt' is no file of a kind that --images reads"):
        image_folder(tmp_path / "notes.txt", FolderConfig(16))
    (tmp_path / "bad.png").write_text("this is no picture")
    with pytest.raises(ValueError, match=r"bad\.png"):
        image_folder(tmp_path, FolderConfig(16))


def test_a_picture_that_claims_to_be_vast_is_refused_by_name(tmp_path):

    Image.new("RGB", (4, 4)).save(tmp_path / "vast.bmp")
    content = bytearray((tmp_path / "vast.bmp").read_bytes())
    content[18:26] = (50_000).to_bytes(4, "little") * 2  # width and height
    (tmp_path / "vast.bmp").write_bytes(content)
    with pytest.raises(ValueError, match=r"vast\.bmp"):
        image_folder(tmp_path, FolderConfig(16))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_read_upright(tmp_path, orientation):
    """Red on top as every viewer shows them, however the camera was held."""
    turned = {1: 0, 3: 180, 6: 90, 8: 270}[orientation]
    picture = Image.new("RGB", (32, 32), "blue")
    picture.paste("red", (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.rotate(turned).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    image = image_folder(tmp_path, FolderConfig(16)).images[0]
    assert (image[0, :6] > 200).all() and (image[2, 10:] > 200).all()


def test_hidden_files_and_pictures_of_runs_are_left_out(tmp_path):
    for name in ("a.png", "b/c.png", ".ipynb_checkpoints/a.png", "runs/x/curves.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "runs/x/config.json").write_text("{}")
    (tmp_path / "._a.jpg").write_bytes(b"macOS")
    assert len(image_folder(tmp_path, FolderConfig(4)).images) == 2
