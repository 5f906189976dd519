"""Digits: MNIST or the embedded ones, by split."""

import gzip
import hashlib
import os
import pickle
from dataclasses import asdict, replace

import numpy as np
import pooch
import pytest
import torch
from PIL import Image
from torch.nn.functional import pad

from inference.images import worlds as data
from inference.images.worlds import world_dataset
from programs.worlds import multi_mnist, multi_sprites
from programs.worlds.made_of import digits as handwriting

WORLDS = {
    "multi_sprites": (multi_sprites, multi_sprites.Config()),
    "multi_mnist": (multi_mnist, multi_mnist.Config(digits="embedded")),
}


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    """Nothing of MNIST on this machine, and no way to get it."""

    def refuse(*_, **__):
        raise OSError("no connection")

    monkeypatch.delenv(handwriting.FOLDER, raising=False)
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pooch, "retrieve", refuse)
    handwriting.digits.cache_clear()
    yield
    handwriting.digits.cache_clear()


def test_digits_are_resized_as_pillow_does():
    picture = handwriting.digits("embedded", "train").images[7]
    for side in range(14, 36):
        matrix = handwriting.resizing(torch.tensor(side), torch.tensor(3), 40)
        ours = (matrix @ picture.float() @ matrix.T).round()
        resized = Image.fromarray(picture.numpy()).resize((side, side), Image.Resampling.BILINEAR)
        theirs = pad(torch.from_numpy(np.array(resized)), (3, 37 - side, 3, 37 - side))
        assert (ours - theirs).abs().max() <= 1, side  # Pillow rounds after each axis


@pytest.mark.parametrize("source", ["embedded", "mnist"])
def test_splits_share_no_digit(source):
    if source == "mnist" and not os.environ.get(handwriting.FOLDER):
        pytest.skip(f"{handwriting.FOLDER} is not set")
    number = {"embedded": (1297, 200, 300), "mnist": (55_000, 5_000, 10_000)}[source]
    seen = set()
    for split, count in zip(handwriting.SPLITS, number, strict=True):
        images, labels = handwriting.digits(source, split)
        assert images.shape == (count, 28, 28) and images.dtype == torch.uint8
        assert labels.shape == (count,) and set(labels.tolist()) == set(range(10))
        own = {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}
        assert not seen & own
        seen |= own
    if source == "mnist":
        assert handwriting.digits(source, "train").labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert handwriting.digits(source, "test").labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_embedded_digits_are_handwriting_as_thick_as_mnists():
    """They fill 20 x 20 of 28 x 28, are white on black, and can be told from each other."""
    from sklearn.neighbors import KNeighborsClassifier

    (images, labels), (unseen, truth) = (
        handwriting.digits("embedded", s) for s in ("train", "test")
    )
    assert images[:, :3].max() == 0 and images[:, -3:].max() == 0  # the blur of an edge leaves 4
    assert (images.flatten(1).amax(1) == 255).float().mean() > 0.99
    assert 0.1 < (images > 127).float().mean() < 0.2  # of MNIST 0.13
    classifier = KNeighborsClassifier(1).fit(images.flatten(1).numpy(), labels.numpy())
    assert classifier.score(unseen.flatten(1).numpy(), truth.numpy()) > 0.94


def test_a_set_shows_the_digits_of_its_split(monkeypatch, tmp_path):
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path))
    grey = {"train": 100, "validation": 150, "test": 200}

    def flat(_, split):
        return handwriting.Digits(
            torch.full((3, 28, 28), grey[split], dtype=torch.uint8), torch.arange(3)
        )

    monkeypatch.setattr(multi_mnist, "digits", flat)
    for split, value in grey.items():
        made = world_dataset("multi_mnist", 20, split, 0, WORLDS["multi_mnist"][1], progress=False)
        assert made.images.unique().tolist() in ([0, value], [0, value, 2 * value])
        assert made.description["config"]["split"] == made.description["split"] == split
        given = replace(WORLDS["multi_mnist"][1], split="test")  # is the set's business
        again = world_dataset("multi_mnist", 20, split, 0, given, progress=False)
        assert torch.equal(made.images, again.images)


def test_auto_is_settled_by_the_config(no_mnist, monkeypatch, tmp_path):
    config = multi_mnist.Config()
    assert asdict(config)["digits"] == "embedded"
    monkeypatch.setenv(handwriting.FOLDER, str(tmp_path))
    assert asdict(multi_mnist.Config())["digits"] == "mnist"
    assert multi_mnist.Config(digits="embedded").digits == "embedded"
    assert (
        pickle.loads(pickle.dumps(config)) == replace(config) == config
    )  # as in processes that draw
    assert config.digits == "embedded"


def test_auto_downloads_nothing_and_says_once_whose_digits_are_shown(no_mnist, capsys):
    handwriting.announce.cache_clear()
    for split in ("train", "test"):
        world_dataset("multi_mnist", 5, split, 0, multi_mnist.Config(), progress=False)
    said = capsys.readouterr().err
    assert said.count("handwritten digits") == 1 and "scikit-learn" in said
    assert handwriting.FOLDER in said


def test_mnist_is_downloaded_when_asked_for_by_name(no_mnist, monkeypatch, tmp_path):
    """By checksum and into the cache; here the files are made up, and so are their checksums."""
    calls = []
    files = {
        "train-images-idx3-ubyte.gz": bytes(16) + bytes(range(256)) * 784,
        "train-labels-idx1-ubyte.gz": bytes(8) + bytes([3, 1, 4, 1]) * 64,
    }
    files = {name: gzip.compress(content) for name, content in files.items()}
    monkeypatch.setattr(
        handwriting, "SUMS", {n: hashlib.md5(content).hexdigest() for n, content in files.items()}
    )

    def retrieve(url, known_hash, fname, path):
        calls.append((url, known_hash))
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(files[fname])
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    images, labels = handwriting.digits("mnist", "train")
    assert images.shape == (256, 28, 28) and labels[:4].tolist() == [3, 1, 4, 1]
    assert images[0, 0, :3].tolist() == [0, 1, 2]
    assert all(url == handwriting.URL + name for (url, _), name in zip(calls, files, strict=True))
    assert all(known.startswith("md5:") for _, known in calls)
    assert sorted(p.name for p in (data.cache() / "mnist").iterdir()) == sorted(files)


def test_without_a_connection_there_is_one_sentence(no_mnist):
    with pytest.raises(ValueError, match=r"cannot download .*no connection.*SCENE_PROGRAMS_MNIST"):
        world_dataset("multi_mnist", 5, "train", 0, multi_mnist.Config(digits="mnist"))
    assert not data.cache().exists()


def test_a_damaged_or_missing_file_of_mnist_is_named(no_mnist, monkeypatch, tmp_path):
    monkeypatch.setenv(handwriting.FOLDER, str(tmp_path))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz.*No such file.*four files"):
        handwriting.digits("mnist", "train")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"half a download")
    found = hashlib.md5(b"half a download").hexdigest()
    with pytest.raises(ValueError, match=rf"train-images-idx3-ubyte\.gz.*checksum is {found}"):
        handwriting.digits("mnist", "train")
