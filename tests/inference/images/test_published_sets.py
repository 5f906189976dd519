"""Data sets of the field: recognised, read with their truth, split, and trained on."""

import json
import struct

import h5py
import numpy as np
import published_files as files
import pytest
import torch
from PIL import Image

from analysis import evaluate
from analysis.scores import scene_metrics
from inference import runs
from inference.images.objects import Cut, ObjectsConfig
from inference.images.published import Published
from inference.images.source import images_of
from inference.images.tfrecord import examples
from inference.plan import Run
from inference.svi import main, train
from programs.blocks import render


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "cache"))


def read(path, split="train", **config):
    found = images_of("shapes2d", path)
    assert isinstance(found, Published)
    return found.split(split, ObjectsConfig(**config))


SETS = {
    "multi_dsprites": (files.multi_dsprites, "m.tfrecords", "Multi-dSprites", [1, 2, 3, 4]),
    "objects_room": (files.objects_room, "o.tfrecords", "Objects Room", [1, 2, 3, 1]),
    "tetrominoes": (files.tetrominoes, "t.tfrecords", "Tetrominoes", [1, 2, 3, 1]),
    "clevr": (files.clevr_with_masks, "c.tfrecords", "CLEVR with masks", [1, 2, 3, 4]),
    "library": (files.object_centric, "multidsprites-full.hdf5", "Multi-dSprites", [1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", SETS)
def test_pictures_masks_and_numbers_of_objects_are_those_of_the_file(name, tmp_path, capsys):
    make, file, title, numbers = SETS[name]
    data = read(make(tmp_path / file), size=64)
    said = capsys.readouterr().out
    assert said.startswith(f"{title}: ") and "masks" in said and said.count("\n") == 1
    truth = data.truth(slice(0, 4))
    nodes = truth.objects
    assert nodes.pres.sum(1).tolist() == numbers and nodes.mask.sum(1).max() == 1
    assert torch.equal(nodes.pose, render.box(nodes.mask.float()))
    inner = torch.nn.functional.avg_pool2d(nodes.mask.float(), 3, 1, 1) > 0.999
    for k in range(nodes.pres.shape[1]):
        colour = torch.tensor(files.COLOURS[k % 6]) / 255
        shown = truth.image.movedim(1, -1)[inner[:, k]]
        if name != "clevr" or k < 4:  # which is scaled by 3: no inner pixel is pure
            assert len(shown) == 0 or (shown - colour).abs().max() < 0.02
    found = scene_metrics(truth, truth)
    assert found["object_f1"] == found["ari_fg"] == 1
    assert found.get("category_correspondence", 1) == 1


def test_what_else_the_files_say_is_in_the_scene(tmp_path):
    nodes = read(files.multi_dsprites(tmp_path / "a.tfrecords")).truth(slice(3, 4)).objects
    assert nodes.category.tolist() == [[1, 2, 3, 0]]
    colour = np.random.default_rng(3).uniform(size=(5, 3))[1:]  # sorted: color, orientation, …
    np.testing.assert_allclose(nodes.attributes[0, :, :3], colour, atol=1e-6)
    assert nodes.attributes.shape == (1, 4, 7)
    nodes = read(files.clevr_with_masks(tmp_path / "b.tfrecords")).truth(slice(3, 4)).objects
    assert nodes.depth[0, :4].tolist() == [6, 7, 8, 9] and nodes.depth[0, 4:].max() == 0
    assert nodes.category[0].tolist() == [1, 2, 3, 0, -1, -1, -1, -1, -1, -1]
    grey = files.multi_dsprites(tmp_path / "c.tfrecords", entities=4, colours=1)
    assert read(grey, colours=1).images.shape[1] == 1 and read(grey).images.shape[1] == 3


def test_of_a_room_with_one_wall_no_object_is_taken_for_a_wall(tmp_path):
    for one_wall in (False, True):
        path = files.objects_room(tmp_path / f"{one_wall}.tfrecords", one_wall=one_wall)
        nodes = read(path).truth(slice(0, 3)).objects
        assert nodes.pres.sum(1).tolist() == [1, 2, 3]


def test_dsprites_are_shuffled_and_their_shape_is_the_mask(tmp_path):
    path = files.dsprites(tmp_path / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz")
    data = read(path, colours=1)
    truth = data.truth()
    assert len(truth) == 42 and torch.equal(truth.objects.mask[:, 0], truth.image[:, 0] > 0.5)
    scale, _, x, y = truth.objects.attributes[:, 0].unbind(-1)
    assert (truth.objects.extent[:, 0] * 64 - 20 * scale[:, None]).abs().max() < 1e-4
    corner = (truth.objects.centre - truth.objects.extent)[:, 0]
    torch.testing.assert_close(corner, 2 * torch.stack([x, y], -1) - 1, atol=1e-5, rtol=0)
    kinds = truth.objects.category[:, 0]
    assert {*kinds.tolist()} == {1, 2, 3} and not (kinds.diff() >= 0).all()
    splits = [read(path, split, colours=1).images for split in ("train", "validation", "test")]
    assert [len(images) for images in splits] == [42, 9, 9]
    assert len(read(path, pictures=10).images) == 7


def test_clevrs_scenes_give_centres_distances_and_shapes_without_masks(tmp_path):
    folder = files.clevr(tmp_path / "CLEVR_v1.0")
    parts = {split: read(folder, split) for split in ("train", "validation", "test")}
    assert [len(data.images) for data in parts.values()] == [12, 3, 3]
    truth = parts["train"].truth()
    nodes = truth.objects
    assert nodes.mask is None and nodes.pres.sum(1).tolist() == [2] * 12  # one is cut away
    assert nodes.category[0, :3].tolist() == [2, 0, -1] and nodes.depth[0, 0] == 11
    assert nodes.centre[:, 0].abs().max() < 1e-6
    expected = torch.tensor([(130 + 10 * 3 - 80) / 160 - 1, 90 / 160 - 1])
    torch.testing.assert_close(nodes.centre[3, 1], expected)
    torch.testing.assert_close(nodes.extent[0, 0], torch.full((2,), 35 / 32 * 480 * 0.7 / 11 / 160))
    red = truth.image[:, 0] - truth.image[:, 1] > 0.5
    assert red[:, 32, 32].all() and not red[:, 32, 5].any()
    found = scene_metrics(truth, truth)
    assert found["object_f1"] == found["category_correspondence"] == 1 and "ari_fg" not in found


def test_a_split_of_clevr_alone_is_split_by_shares(tmp_path):
    folder = files.clevr(tmp_path / "own", train=10)
    (folder / "scenes" / "CLEVR_val_scenes.json").unlink()
    assert [len(read(folder, s).images) for s in ("train", "validation", "test")] == [7, 1, 2]


def test_cocos_polygons_and_run_lengths_become_masks(tmp_path):
    pytest.importorskip("pycocotools")
    folder = files.coco(tmp_path / "coco")
    parts = {split: read(folder, split) for split in ("train", "validation", "test")}
    assert [len(data.images) for data in parts.values()] == [12, 3, 3]
    truth = parts["train"].truth()
    nodes = truth.objects
    assert nodes.pres.sum(1).tolist() == [2] * 12  # the crowd is left out
    assert {tuple(row) for row in nodes.category[:, :2].tolist()} == {(18, 44)}
    assert nodes.mask.flatten(2).sum(2)[:, :2].tolist() == [[400, 200]] * 12
    for k, colour in enumerate([(1, 0, 0), (0, 0, 1)]):
        shown = truth.image.movedim(1, -1)[nodes.mask[:, k]]
        assert (shown - torch.tensor(colour)).abs().max() < 0.01
    alone = read(folder / "annotations" / "instances_train2017.json", "test")
    assert len(alone.images) == 2
    assert torch.equal(alone.images, parts["train"].images[10:])


def test_without_its_library_coco_is_refused_by_the_name_of_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools.mask", None)
    with pytest.raises(ValueError, match=r'pip install "scene-programs\[coco\]"'):
        read(files.coco(tmp_path / "coco"))


def hugging_face(number, **columns):
    datasets = pytest.importorskip("datasets")
    features = {"image": datasets.Image()}
    rows = {"image": [Image.new("RGB", (48, 32), (8 * i, 0, 0)) for i in range(number)]}
    if "mask" in columns:
        features["mask"] = datasets.Image()
    if "objects" in columns:
        box = datasets.Sequence(datasets.Value("float32"), length=4)
        kind = datasets.ClassLabel(names=["cat", "dog"])
        features["objects"] = datasets.Sequence({"bbox": box, "category": kind})
    return datasets.Dataset.from_dict(rows | columns, datasets.Features(features))


def test_a_data_set_of_hugging_face_gives_pictures_boxes_or_masks(tmp_path):
    plain = read(hugging_face(10), size=16)
    assert len(plain.images) == 7 and not plain.known
    assert plain.images[:, 0, 0, 0].tolist() == [8 * i for i in range(7)]
    boxes = [{"bbox": [[8 + 8, 8, 8, 16]] * (i % 3), "category": [1] * (i % 3)} for i in range(10)]
    nodes = read(hugging_face(10, objects=boxes), size=16).truth().objects
    assert nodes.pres.sum(1).tolist() == [i % 3 for i in range(7)]
    torch.testing.assert_close(nodes.pose[1, 0], torch.tensor([[0.25, 0, -0.25], [0, 0.5, 0]]))
    assert nodes.category[1].tolist() == [1] + 9 * [-1]
    labels = np.zeros((32, 48), np.uint8)
    labels[8:16, 8:16] = 2
    masks = [Image.fromarray(labels) for _ in range(10)]
    nodes = read(hugging_face(10, mask=masks), size=32).truth().objects
    assert nodes.present[0].nonzero().tolist() == [[1]] and nodes.mask[0, 1].sum() == 64


def test_splits_of_hugging_face_count(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = datasets.DatasetDict({"train": hugging_face(6), "test": hugging_face(4)})
    assert len(read(parts).images) == 6 and len(read(parts, "test").images) == 4
    assert read(parts, "validation") is None
    parts.save_to_disk(tmp_path / "saved")
    assert len(read(tmp_path / "saved", "test").images) == 4


def test_a_program_trains_on_a_data_set_given_from_python(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])
    data = hugging_face(10)
    options = {"preset": "tiny", "steps": 2, "batch": 4, "device": "cpu", "images": data}
    out = train(Run("programs/vae.py", tmp_path / "run", **options), evaluate.SceneEvaluator())
    assert runs.read_json(out / "metrics.json")["scenes"] == 2
    run = runs.open_run(out)
    with pytest.raises(ValueError, match=r"run\.unseen\(100, images=data\)"):
        run.unseen(2)
    assert len(run.unseen(2, images=data).images) == 2


@pytest.mark.parametrize("make", [files.multi_dsprites, files.clevr])
def test_a_program_trains_on_it_and_is_measured_against_its_truth(make, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])
    path = make(tmp_path / ("data" if make is files.clevr else "data.tfrecords"))
    options = ["--preset", "tiny", "--images", str(path), "--out", str(tmp_path / "run")]
    assert main(["programs/space.py", *options, "--steps", "2", "--batch", "4"]) == 0
    metrics = runs.read_json(tmp_path / "run" / "metrics.json")
    assert "object_f1" in metrics and ("ari_fg" in metrics) == (make is files.multi_dsprites)
    assert evaluate.main([str(tmp_path / "run"), "--scenes", "2"]) == 0


def test_what_was_read_is_read_again_from_the_cache_until_the_file_changes(tmp_path):
    path = files.tetrominoes(tmp_path / "t.tfrecords")
    first = read(path)
    assert torch.equal(read(path).images, first.images)
    assert len([*(tmp_path / "cache").iterdir()]) == 1
    files.tetrominoes(path, 30)
    assert len(read(path).images) == 21 and len([*(tmp_path / "cache").iterdir()]) == 2


def test_pictures_with_more_objects_are_left_out(tmp_path):
    path = files.multi_dsprites(tmp_path / "a.tfrecords")
    assert read(path, max_objects=2).truth().objects.pres.sum(1).tolist() == [1, 2] * 3 + [1]
    with pytest.raises(ValueError, match=r"0 pictures with at most 1 objects.*world\.max_objects"):
        read(only_pairs(tmp_path / "b.hdf5"), max_objects=1)


def only_pairs(path):
    with h5py.File(files.object_centric(path), "r+") as file:
        for name in file:
            file[name][:] = file[name][1:2]
    return path


def damaged(path, change):
    content = bytearray(path.read_bytes())
    path.write_bytes(bytes(change(content)))
    return path


def test_damaged_and_foreign_files_are_refused_in_a_sentence(tmp_path):
    whole = [{"image": np.zeros((64, 64, 3), np.uint8)}]
    cases = {
        "cannot read .* as TFRecords": files.torn(files.tetrominoes(tmp_path / "a.tfrecords")),
        "does not fit its checksum": files.tfrecord(tmp_path / "b.tfrecords", whole, packed=False),
        "none of Multi-dSprites": files.tfrecord(tmp_path / "c.tfrecords", whole),
        "holds no record": files.tfrecord(tmp_path / "d.tfrecords", []),
    }
    damaged(tmp_path / "b.tfrecords", lambda content: b"\1" + content[1:])
    for words, path in cases.items():
        with pytest.raises(ValueError, match=words):
            read(path)
    folder = files.clevr(tmp_path / "clevr")
    (folder / "images" / "train" / "CLEVR_train_000003.png").unlink()
    with pytest.raises(ValueError, match=r"CLEVR_train_000003\.png.*not in"):
        read(folder)
    for words, text in {
        "cannot read the scenes": "{",
        "lacks or misuses": scenes_of("disc"),
    }.items():
        (folder / "scenes" / "CLEVR_train_scenes.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            read(folder)


def scenes_of(shape):
    thing = {"shape": shape, "size": "large", "material": "rubber", "color": "red", "rotation": 0}
    thing |= {"pixel_coords": [1, 2, 3], "3d_coords": [1, 2, 3]}
    return json.dumps(
        {"scenes": [{"image_filename": "CLEVR_train_000000.png", "objects": [thing]}]}
    )


def test_an_example_may_hold_strings_of_any_length_and_loose_floats(tmp_path):
    text, loose = b"\x0a\x03abc", b"".join(b"\x0d" + struct.pack("<f", v) for v in (1.5, -2))
    features = {"words": files._message(1, text), "numbers": files._message(2, loose)}
    entries = [
        files._message(1, files._message(1, k.encode()) + files._message(2, v))
        for k, v in features.items()
    ]
    data = files._message(1, b"".join(entries))
    length = struct.pack("<Q", len(data))
    head = length + struct.pack("<I", files._crc32c(length))
    (tmp_path / "a.tfrecord").write_bytes(head + data + bytes(4))
    (found,) = examples(tmp_path / "a.tfrecord")
    assert bytes(found["words"]) == b"abc" and found["numbers"].tolist() == [1.5, -2]


def test_the_square_is_the_middle_and_of_clevr_with_masks_as_published():
    assert Cut.middle(320, 480) == (0, 80, 320) and Cut.middle(240, 320) == (29, 64, 192)
    ramp = np.tile(np.arange(48, dtype=np.uint8)[None, None, :, None], (1, 32, 1, 1))
    scaled = Cut.middle(32, 48).images(ramp, 16)[0, 0, 0].float()
    torch.testing.assert_close(scaled, 8.5 + 2 * torch.arange(16), atol=0.6, rtol=0)


def test_other_pictures_are_read_as_before(tmp_path):
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    assert not isinstance(images_of("shapes2d", tmp_path), Published)
    with pytest.raises(ValueError, match="images are a int"):
        images_of("shapes2d", 3)
