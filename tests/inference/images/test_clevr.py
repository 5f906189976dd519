"""CLEVR with masks, read from files of a few pictures made here."""

import h5py
import numpy as np
import pytest
import torch

from analysis import evaluate
from inference import runs
from inference.images.clevr import ClevrConfig, clevr_with_masks
from inference.svi import main
from programs.blocks import render

NUMBER, ENTITIES = 40, 5


def fields(number=NUMBER, last=(1,)):
    """Pictures whose red is the column and green the row, number i with 1 + i % 4 squares of blue."""
    random = np.random.default_rng(0)
    row, column = np.mgrid[:240, :320]
    image = np.zeros((number, 240, 320, 3), np.uint8)
    image[..., 0], image[..., 1] = column * 0.75, row
    mask = np.zeros((number, ENTITIES, 240, 320, *last), np.uint8)
    mask[:, 0] = 255
    visibility = np.zeros((number, ENTITIES), np.float32)
    visibility[:, 0] = 1
    for i in range(number):
        for k in range(1, 2 + i % 4):
            x, y = 70 + 45 * (k - 1) + random.integers(10), random.integers(30, 190)
            image[i, y : y + 30, x : x + 30, 2] = 60 * k
            mask[i, :, y : y + 30, x : x + 30] = 0
            mask[i, k, y : y + 30, x : x + 30] = 255
            visibility[i, k] = 0.9
    return {"image": image, "mask": mask, "visibility": visibility}


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.fixture(scope="module")
def whole():
    return fields()


@pytest.fixture
def file(tmp_path, whole):
    return write(tmp_path / "clevr.hdf5", **whole)


@pytest.mark.parametrize("size", [192, 128, 64])
def test_pictures_are_cut_and_scaled_as_published(file, size):
    found = clevr_with_masks(file, config=ClevrConfig(size))
    assert found.images.shape == (28, 3, size, size) and found.images.dtype == torch.uint8
    middle = (torch.arange(size) + 0.5) * 192 / size - 0.5
    column, row = (64 + middle) * 0.75, 29 + middle
    assert (found.images[:, 0, 0].float() - column).abs().max() < 1.5
    assert (found.images[:, 1, :, 0].float() - row).abs().max() < 1.5


@pytest.mark.parametrize("last", [(), (1,)])
def test_masks_and_boxes_are_of_what_the_picture_shows(tmp_path, last):
    file = write(tmp_path / "clevr.h5", **fields(8, last))
    found = clevr_with_masks(file, config=ClevrConfig(128))
    truth = found.truth(slice(0, 5))
    nodes = truth.objects
    assert nodes.pres.sum(1).tolist() == [1, 2, 3, 4, 1] and nodes.mask.sum(1).max() == 1
    inner = torch.nn.functional.avg_pool2d(nodes.mask.float(), 3, 1, 1) > 0.999
    for k in range(4):
        blue = truth.image[:, 2][inner[:, k]]
        assert len(blue) == 0 or (blue * 255 - 60 * (k + 1)).abs().max() < 1e-3
    assert torch.equal(nodes.pose, render.box(nodes.mask.float()))
    side = nodes.extent[nodes.present] * 64
    assert (side - 20 / 2).abs().max() <= 0.5 + 1e-5  # 30 pixels by 2 / 3, halved
    assert torch.equal(nodes.category >= 0, nodes.present)


def test_splits_are_parts_of_the_file_in_order(file, whole):
    sets = [clevr_with_masks(file, split) for split in ("train", "validation", "test")]
    assert [len(s.images) for s in sets] == [28, 6, 6]
    again = clevr_with_masks(file, "test", 2)
    assert torch.equal(again.images, sets[2].images[:2])
    few = clevr_with_masks(file, "test", 9, ClevrConfig(max_objects=2))
    assert [int(n) for n in few.tables[0]["pres"].sum(1)] == [1, 2]  # of 34 to 39: 36 and 37
    assert torch.equal(few.images, sets[2].images[2:4])


def test_what_else_the_file_says_is_kept(tmp_path, whole):
    far = np.random.default_rng(1).uniform(8, 13, (NUMBER, ENTITIES, 3)).astype(np.float32)
    shape = np.tile(np.array([0, 3, 1, 2, 1], np.uint8), (NUMBER, 1))
    file = write(tmp_path / "a.hdf5", **whole, pixel_coords=far, shape=shape)
    nodes = clevr_with_masks(file).truth(slice(0, 4)).objects
    assert torch.equal(nodes.depth[3], torch.from_numpy(far[3, 1:, 2]))
    assert nodes.category.tolist() == [[3, -1, -1, -1], [3, 1, -1, -1], [3, 1, 2, -1], [3, 1, 2, 1]]


def test_what_the_cut_takes_away_is_absent(tmp_path):
    arrays = fields(8)
    arrays["mask"][0, :, :, :] = 0
    arrays["mask"][0, 0, :, 64:] = 255
    arrays["mask"][0, 1, :, :64] = 255
    file = write(tmp_path / "a.hdf5", **arrays)
    nodes = clevr_with_masks(file).truth(slice(0, 1)).objects
    assert not nodes.present.any() and (nodes.category == -1).all()


def test_other_files_are_refused_by_name(tmp_path, whole):
    with pytest.raises(ValueError, match=r"cannot read .*none\.hdf5"):
        clevr_with_masks(tmp_path / "none.hdf5")
    (tmp_path / "text.hdf5").write_text("no pictures")
    with pytest.raises(ValueError, match=r"cannot read .*text\.hdf5 as an HDF5 file"):
        clevr_with_masks(tmp_path / "text.hdf5")
    less = write(tmp_path / "less.hdf5", image=whole["image"])
    with pytest.raises(ValueError, match=r"less\.hdf5 lacks mask, visibility; it has image"):
        clevr_with_masks(less)
    small = {**whole, "image": whole["image"][:, :100]}
    with pytest.raises(ValueError, match=r"image \(40, 100, 320, 3\).*expected \(M, 240, 320, 3\)"):
        clevr_with_masks(write(tmp_path / "small.hdf5", **small))
    many = {**whole, "visibility": np.ones_like(whole["visibility"])}
    with pytest.raises(ValueError, match=r"at most 3 objects for train"):
        clevr_with_masks(write(tmp_path / "many.hdf5", **many), config=ClevrConfig(max_objects=3))
    for bad in ({"size": 0}, {"max_objects": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            ClevrConfig(**bad)


def test_a_program_trains_on_it_and_is_measured_against_its_truth(file, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])
    options = ["--preset", "tiny", "--images", str(file), "--out", str(tmp_path / "run")]
    options += ["--set", "train.test_scenes=3", "--set", "world.max_objects=3"]
    assert main(["programs/gsgn.py", *options]) == 0
    metrics = runs.read_json(tmp_path / "run" / "metrics.json")
    assert metrics["scenes"] == 3 and "object_f1" in metrics
    assert metrics["data"] == {
        "images": str(file),
        "split": "test",
        "number": 3,
        "size": 32,
        "max_objects": 3,
    }
    assert evaluate.main([str(tmp_path / "run"), "--scenes", "2"]) == 0


def test_fields_of_other_types_are_refused_in_a_sentence(tmp_path, file):
    with h5py.File(file) as source:
        whole = {name: source[name][:] for name in source}
    bad = {
        "image is f4": {"image": whole["image"].astype("f4") / 255},
        "shape is O": {"shape": np.full(whole["visibility"].shape, "cube", dtype=object)},
        "visibility has 1 dimensions": {"visibility": whole["visibility"][:, 0]},
    }
    for words, change in bad.items():
        path = tmp_path / f"{words}.hdf5"
        with h5py.File(path, "w") as target:
            for name, value in (whole | change).items():
                kind = h5py.string_dtype() if value.dtype == object else None
                target.create_dataset(name, data=value, dtype=kind)
        with pytest.raises(ValueError, match=words):
            clevr_with_masks(path)
