"""Whatever pictures and settings are given: a run trains, or is refused in one sentence with exit status 2."""

import importlib
import io
import math
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from readme import OWN as LAYERS

from analysis import evaluate
from analysis.edit import resample
from analysis.posterior import draw, infer, log_weights
from inference.images.folders import FolderConfig, image_folder
from inference.images.worlds import load_world
from inference.log import read_log
from inference.recipes import recipe
from inference.runs import open_run, read_json
from inference.svi import main

PROGRAMS = {
    "gsgn": (),
    "air": (),
    "discrete_air": ("decoder=8", "angles=4", "embedding=(4,)"),
    "layers": ("world.size=32", "train.validation_scenes=4", "train.test_scenes=4"),
}
"""Settings besides the preset `tiny`."""
MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "bmp": ("1", "L", "P", "RGB"),
    "webp": ("RGB", "RGBA"),
    "tiff": ("F", "I", "I;16", "LAB"),  # under the name of another format
}
REFUSED = ("F", "I", "LAB")
ESTIMATORS = ("nvil", "gumbel", "gumbel_st", "reinmax", "rloo:2", "vimco:2")
QUIET = {"derandomize": True, "deadline": None, "database": None}


def picture(mode, width, height):
    """The bytes of an image with noise in it."""
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "F":
        return Image.fromarray(noise[..., 0] / np.float32(255))
    if mode.startswith("I"):
        kind = np.int32 if mode == "I" else np.uint16
        return Image.fromarray(noise[..., 0].astype(kind) * (300 if mode == "I" else 257))
    grey = mode in ("1", "L", "LA", "P")
    plain = Image.fromarray(noise[..., 0] if grey else noise[..., :3])
    if mode == "LAB":
        return Image.merge("LAB", plain.split())
    return Image.fromarray(noise) if mode == "RGBA" else plain.convert(mode)


def saved(form, mode, width, height):
    """Suffix and content of its file; a TIFF goes under the name of another."""
    data = io.BytesIO()
    picture(mode, width, height).save(data, "JPEG" if form == "jpg" else form)
    return "png" if form == "tiff" else form, data.getvalue()


@st.composite
def files(draw):
    """A picture's suffix, mode and content, perhaps damaged, and whether it is a good one."""
    form = draw(st.sampled_from(sorted(MODES)))
    mode, sides = draw(st.sampled_from(MODES[form])), st.integers(1, 40)
    suffix, content = saved(form, mode, draw(sides), draw(sides))
    content, good = bytearray(content), mode not in REFUSED
    match draw(st.sampled_from(["whole"] * 4 + ["cut", "changed", "text"])):
        case "cut":
            content, good = content[: draw(st.integers(0, len(content) // 2))], None
        case "changed":
            content[draw(st.integers(0, len(content) - 1))] ^= draw(st.integers(1, 255))
            good = None
        case "text":
            content, good = b"no picture", False
    return suffix, bytes(content), good


def write(folder, found):
    """The files in a folder with other things beside them."""
    folder.mkdir()
    for i, (suffix, content, *_) in enumerate(found):
        (folder / f"{i}.{suffix}").write_bytes(content)
    (folder / "notes.txt").write_text("no picture, and nobody says so")
    (folder / "folder.png").mkdir()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=150, **QUIET)
@given(st.lists(files(), max_size=3), st.sampled_from([1, 3]), st.integers(1, 20))
def test_any_folder_of_files_is_read_or_refused_by_name(found, colours, size):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        write(folder, found)
        good = [g for *_, g in found]
        try:
            images = image_folder(folder, FolderConfig(size, colours)).images
        except ValueError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
            assert not found or not all(good)
        else:
            assert images.shape == (len(found), colours, size, size)
            assert images.dtype == torch.uint8 and found and False not in good


@pytest.mark.parametrize(
    ("mode", "content", "expected"),
    [
        ("I;16", np.full((4, 4), 0x8040, np.uint16), 0x80),
        ("L", np.full((4, 4), 0x80, np.uint8), 0x80),
        ("1", np.ones((4, 4), bool), 255),
        ("LA", np.full((4, 4, 2), (200, 0), np.uint8), 0),
        ("RGBA", np.full((4, 4, 4), (200, 200, 200, 0), np.uint8), 0),
        ("RGBA", np.full((4, 4, 4), (200, 200, 200, 255), np.uint8), 200),
    ],
)
def test_depth_and_opacity_are_taken_for_what_they_are(tmp_path, mode, content, expected):
    made = Image.fromarray(content)
    assert made.mode == mode
    made.save(tmp_path / "a.png")
    for colours in (1, 3):
        assert image_folder(tmp_path, FolderConfig(4, colours)).images.unique().item() == expected


def others(value):
    """Values like this and unlike it, as they are written after --set."""
    if isinstance(value, bool):
        return ["True", "False", "2"]
    if isinstance(value, int):
        return ["0", "-1", "1", "3", "8", "0.5", "'x'"]
    if isinstance(value, float):
        return ["0", "-1.0", "0.4", "1", "1e999", "None"]
    if isinstance(value, tuple) and value:
        like = [f"({', '.join([v] * len(value))},)" for v in others(value[0])]
        return ["()", "3", repr(value * 2), repr(value[:1]), *like]
    return ["'x'", "3", "None"]


def field_changes(name):
    """Every field of program, world and recipe, with such values."""
    chosen = recipe(name, name, "tiny")
    configs = {"world.": load_world(chosen.world).config(), "train.": chosen}
    if name != "layers":
        configs[""] = importlib.import_module(f"programs.{name}").Config()
    changes = [
        (prefix + f.name, other)
        for prefix, config in configs.items()
        for f in fields(config)
        for other in others(getattr(config, f.name))
        if f.name not in ("program", "options", "compile")  # a compiler may be missing or broken
    ]
    return changes + [
        (f"world.{n}", str(v)) for n in ("min_objects", "max_objects") for v in (2, 9)
    ]


CHANGES = {name: field_changes(name) for name in PROGRAMS}


GOOD = {
    "steps": [1, 2, 3],
    "batch": [1, 2, 4, 1000],
    "minutes": [0, math.inf],
    "seed": [0, 2**32 - 1],
}
BAD = {"steps": [0, -1], "batch": [0, -1], "minutes": [-1, math.nan], "seed": [-1, 2**32]}


SOUND = [(form, mode) for form in MODES for mode in MODES[form] if mode not in REFUSED]


@st.composite
def runs(draw, name):
    """Arguments of a run of a program, its pictures if it has some, and whether all about it is good."""
    odd = draw(st.sampled_from(["nothing", "a number", "a field", "two fields"]))
    options = {option: draw(st.sampled_from(values)) for option, values in GOOD.items()}
    options["estimator"] = draw(st.sampled_from(ESTIMATORS))
    pairs = [*PROGRAMS[name], f"train.scenes={draw(st.sampled_from([1, 5, 9]))}"]
    if odd == "a number":
        option = draw(st.sampled_from(sorted(BAD)))
        options[option] = draw(st.sampled_from(BAD[option]))
    for _ in range({"a field": 1, "two fields": 2}.get(odd, 0)):
        field, value = draw(st.sampled_from(CHANGES[name]))
        pairs.append(f"{field}={value}")
    arguments = ["--preset", "tiny"]
    arguments += [str(a) for option, value in options.items() for a in (f"--{option}", value)]
    arguments += [a for pair in pairs for a in ("--set", pair)]
    pictures = draw(st.none() | st.lists(st.sampled_from(SOUND), max_size=6))
    return arguments, pictures, odd == "nothing" and pictures != []


def trains_or_is_refused(name, arguments, pictures, good):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = f"programs/{name}.py"
        if name == "layers":
            path = str(folder / "layers.py")
            Path(path).write_text(LAYERS.replace("64 * 64", "32 * 32").replace("64, 64", "32, 32"))
        if pictures is not None:
            write(folder / "pictures", [saved(*p, 5 + i, 9) for i, p in enumerate(pictures)])
            arguments = [*arguments, "--images", str(folder / "pictures")]
        with redirect_stderr(io.StringIO()) as said, redirect_stdout(io.StringIO()):
            code = main([path, *arguments, "--out", str(folder / "run"), "--device", "cpu"])
        errors = [line for line in said.getvalue().splitlines() if not line.startswith("handwr")]
        if code == 0:
            assert errors == [] and (folder / "run" / "metrics.json").exists()
        else:
            assert code == 2 and len(errors) == 1 and errors[0].startswith("error: "), errors
            assert not good


def try_runs(name, number):
    @settings(max_examples=number, **QUIET)
    @given(runs(name))
    def property(drawn):
        trains_or_is_refused(name, *drawn)

    property()


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_run_trains_or_is_refused(monkeypatch, name):
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])
    try_runs(name, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_any_of_many_runs_trains_or_is_refused(name):
    try_runs(name, 150)


WRONG = {
    "bytes": (lambda x: (255 * x).to(torch.uint8), "torch.uint8"),
    "not divided by 255": (lambda x: 255 * x, "pixels go from"),
    "not a number": (lambda x: x.index_fill(0, torch.tensor([0]), math.nan), "nan"),
    "infinite": (lambda x: x + math.inf, "inf"),
    "an empty batch": (lambda x: x[:0], r"shape \(0, 1, 50, 50\)"),
    "one image": (lambda x: x[0], r"shape \(1, 50, 50\)"),
    "of another size": (lambda x: x[..., :32, :32], r"shape \(2, 1, 32, 32\)"),
    "of colours": (lambda x: x.expand(2, 3, 50, 50), r"shape \(2, 3, 50, 50\)"),
    "of doubles": (lambda x: x.double(), "torch.float64, the program's parameters torch.float32"),
    "of NumPy": (lambda x: x.numpy(), "images are a ndarray"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_images_that_cannot_be_ones_are_refused(wrong):
    run = open_run("air-multi_mnist")
    program, guide = run.program, run.guide
    change, words = WRONG[wrong]
    images = change(torch.rand(2, 1, 50, 50))
    for call in (
        lambda: infer(program, guide, images),
        lambda: log_weights(program, guide, images, 2),
        lambda: draw(program, guide, images, 2),
        lambda: resample(program, guide, images, 0),
    ):
        with pytest.raises(ValueError, match=f"{words}.*expected a torch.Tensor .B, 1, 50, 50. in"):
            call()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--minutes", "nan"), "minutes=nan must be at least 0"),
        (("--minutes", "-1"), "minutes=-1.0 must be at least 0"),
        (("--seed", "-1"), "seed=-1 must be 0 to"),
        (("--set", "train.clip=-1"), "clip=-1.0 must be above 0"),
        (("--set", "train.schedules={'learning_rate': 1}"), "inference/recipes"),
        (("--set", "hidden=(0,)"), "hidden=(0,): expected above 0"),
        (("--set", "hidden=(1.5,)"), "expected tuple like its default (200,)"),
        (
            ("--set", "size=45", "--set", "world.size=50"),
            "the images have size=50, air draws size=45",
        ),
        (("--set", "world.max_objects=9"), "max_objects=9"),
    ],
)
def test_what_is_refused_is_named(tmp_path, capsys, arguments, words):
    options = ["--steps", "2", "--set", "train.scenes=4", *arguments]
    assert main(["programs/air.py", *options, "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_of_one_picture_is_enough(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    Image.new("L", (9, 5)).save(tmp_path / "pictures" / "a.png")
    options = ["--preset", "tiny", "--images", str(tmp_path / "pictures"), "--steps", "2"]
    assert main(["programs/air.py", *options, "--out", str(tmp_path / "run")]) == 0
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["scenes"] == 1 and "fid_like" not in metrics


@pytest.mark.parametrize(("batch", "scenes"), [(1, 3), (1000, 3), (4, 7), (4, 1)])
def test_a_batch_of_any_size_trains(tmp_path, monkeypatch, batch, scenes):
    """Of one; larger than the set; with a last one that is short."""
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])
    options = ["--preset", "tiny", "--set", f"train.scenes={scenes}", "--batch", str(batch)]
    options += ["--steps", "3", "--out", str(tmp_path / "run")]
    assert main(["programs/air.py", *options]) == 0
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["step"] == 3


def test_more_objects_than_slots_is_no_mistake(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])
    sets = ("steps=1", "world.min_objects=4", "world.max_objects=4", "size=50", "train.scenes=4")
    options = ["--preset", "tiny", *(a for s in sets for a in ("--set", s))]
    assert main(["programs/air.py", *options, "--steps", "2", "--out", str(tmp_path / "run")]) == 0


def test_an_own_programs_mistake_is_named_by_its_line(tmp_path, capsys):
    path = tmp_path / "layers.py"
    path.write_text(LAYERS)
    line = 1 + next(i for i, text in enumerate(LAYERS.splitlines()) if "self.net(images)" in text)
    options = ["--set", "world.size=32", "--set", "train.scenes=4", "--out", str(tmp_path / "run")]
    assert main([str(path), *options]) == 2
    said = capsys.readouterr().err
    assert "cannot take images of shape (4, 3, 32, 32)" in said and f"{path}, line {line})" in said
