"""Folders of pictures."""

import numpy as np
import pytest

from inference.images.folders import FolderConfig, image_folder


def test_pictures_are_cut_square_around_the_middle_and_resized(tmp_path):
    from PIL import Image

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
    (tmp_path / "bad.png").write_text("this is no picture")
    with pytest.raises(ValueError, match=r"bad\.png"):
        image_folder(tmp_path, FolderConfig(16))


def test_a_picture_that_claims_to_be_vast_is_refused_by_name(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4)).save(tmp_path / "vast.bmp")
    content = bytearray((tmp_path / "vast.bmp").read_bytes())
    content[18:26] = (50_000).to_bytes(4, "little") * 2  # width and height
    (tmp_path / "vast.bmp").write_bytes(content)
    with pytest.raises(ValueError, match=r"vast\.bmp"):
        image_folder(tmp_path, FolderConfig(16))
