"""A world of one's own: any file with a Config and a draw is trained on, cached by its source, or refused."""

import json

import pytest
import tiny
import torch
from training import train

from analysis import evaluate
from inference.images import worlds
from inference.images.worlds import load_world, named, world_dataset
from inference.plan import plan
from inference.svi import main
from programs.worlds import shapes2d

WORLD = '''
"""One square per image, at a random place, grey on black."""

import math
from dataclasses import dataclass

import torch

from programs.blocks import render
from programs.scene import Nodes, Scene


@dataclass(frozen=True)
class Config:
    size: int = 16
    grey: float = 0.75
    half: tuple[float, ...] = (0.25, 0.25)


def draw(batch, generator, config):
    place = torch.rand(batch, 1, 2, generator=generator) - 0.5
    half = torch.tensor(config.half).expand(batch, 1, 2)
    pose = render.pose(place, half, torch.zeros(batch, 1))
    axis = (2 * torch.arange(config.size) + 1) / config.size - 1
    x = (axis - place[..., 0]).abs() < config.half[0]
    y = (axis - place[..., 1]).abs() < config.half[1]
    labels = (y[:, :, None] & x[:, None, :]).to(torch.uint8)
    image = config.grey * labels[:, None].float().expand(-1, 3, -1, -1)
    zeros = torch.zeros(batch, 1)
    nodes = Nodes(zeros + 1, pose, zeros, zeros.long(), category=zeros.long())
    return Scene(image, (nodes,)), labels
'''


FILE = shapes2d.__file__


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own."""
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "squares.py").write_text(WORLD)
    return tmp_path / "squares.py"


def test_it_is_drawn_with_its_truth_by_seed(file, cache):
    data = world_dataset(str(file), 20, "test", seed=3)
    assert data.images.shape == (20, 3, 16, 16) and data.images.unique().tolist() == [0, 191]
    truth = data.truth()
    assert truth.objects.mask.flatten(2).sum(-1).min() >= 9
    seen = truth.image[:, :1] > 0
    assert torch.equal(truth.objects.mask, seen)
    x = torch.arange(16) + 0.5
    centre = (truth.objects.mask * x).sum((2, 3)) / truth.objects.mask.sum((2, 3)) / 8 - 1
    assert (truth.objects.centre[..., 0] - centre).abs().max() <= 1 / 16 + 1e-6
    again, other = (world_dataset(str(file), 20, "test", seed=s).images for s in (3, 4))
    assert torch.equal(again, data.images) and not torch.equal(other, data.images)


def test_a_program_trains_on_it_and_is_measured_again_from_another_folder(
    file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate, "pictures", lambda *_: [])
    monkeypatch.chdir(tmp_path)
    run = tiny.run("gsgn", tmp_path / "run", world="squares.py", set=("world.grey=0.5",))
    train(run)
    config = json.loads((run.out / "config.json").read_text())
    assert config["recipe"]["world"] == str(file)
    assert config["world"] == {"size": 32, "grey": 0.5, "half": [0.25, 0.25]}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    measured = tmp_path / "metrics.json"
    assert evaluate.main([str(run.out), "--scenes", "12", "--json", str(measured)]) == 0
    again, first = (json.loads(f.read_text()) for f in (measured, run.out / "metrics.json"))
    assert "object_f1" in first and again["elbo"] == pytest.approx(first["elbo"])
    assert main(["gsgn.py", "--world", "squares.py", "--out", "x"]) == 2
    assert "no program file" in capsys.readouterr().err


def test_a_changed_file_is_drawn_anew_and_the_old_set_is_kept(file, cache):
    first = world_dataset(str(file), 4).images.clone()
    file.write_text(WORLD.replace("grey: float = 0.75", "grey: float = 0.25"))
    second = world_dataset(str(file), 4).images.clone()
    assert first.max() == 191 and second.max() == 64
    file.write_text(WORLD.replace("config.grey *", "(1 - config.grey) *"))
    assert world_dataset(str(file), 4).images.max() == 64
    assert len(list(cache.glob("squares-train-*"))) == 3
    file.write_text(WORLD)
    assert torch.equal(world_dataset(str(file), 4).images, first)
    assert len(list(cache.glob("squares-train-*"))) == 3


def test_processes_that_draw_find_it(file, cache, monkeypatch):
    """More batches than a process draws alone, with values in Config that are not the defaults."""
    monkeypatch.setattr(worlds, "BATCH", 4)
    config = load_world(str(file)).config(size=8, grey=0.5)
    one = world_dataset(str(file), 40, config=config, processes=1).images.clone()
    for folder in cache.iterdir():
        folder.rename(cache / "other")
    two = world_dataset(str(file), 40, config=config, processes=2).images
    assert torch.equal(one, two) and len(list(cache.iterdir())) == 2


def test_two_files_of_one_name_are_two_worlds(file, tmp_path, cache):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "squares.py").write_text(WORLD.replace("0.75", "0.5"))
    maxima = [world_dataset(str(f), 4).images.max() for f in (file, tmp_path / "b" / "squares.py")]
    assert maxima == [191, 128]


def test_a_file_of_the_project_is_its_world_by_name():
    assert named(FILE) == "shapes2d" == named("shapes2d")
    by_file, by_name = (plan(tiny.run("space", "unused", world=w)) for w in (FILE, "shapes2d"))
    assert by_file.recipe == by_name.recipe and by_file.images.name == "shapes2d"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("def draw", "def paint", "is no world, it lacks draw"),
        ("class Config", "class Settings", "is no world, it lacks Config"),
        ("size: int = 16", "side: int = 16", "is no world, it lacks a field size of Config"),
        ("size: int = 16", "size: int", "it lacks a default for every field of Config"),
        ("(nodes,)), labels", "(nodes,))", "draw returned Scene, expected"),
        ("(nodes,)), labels", "(nodes,)), labels[:, None]", "labels (64, 1, 32, 32) for 64 scenes"),
        (", category=zeros.long()", "", "level 0 lacks category"),
        ("batch, 1, 2", "1, 1, 2", "for 64 scenes, expected"),
        ("config.grey * labels", "255 * labels", "pixels from 0 to 255: expected [0, 1]"),
        ("config.grey * labels", "(2 * config.grey - 3) * labels", "expected [0, 1]"),
        ("config.grey * labels", "math.nan * labels", "expected [0, 1]"),
        ("config.grey * labels[:, None].float()", "labels[:, None]", "images of torch.uint8"),
        ("(zeros + 1, pose,", "(zeros + 1, pose[..., :2],", "pose of shape (64, 1, 2, 2)"),
        ("(zeros + 1, pose,", "(zeros[:1] + 1, pose,", "pres of shape (1, 1)"),
        ("(zeros + 1, pose,", "(zeros + 1, pose / 0,", "poses of level 0 are not finite"),
        ("grey: float", "grey float", "does not import: SyntaxError"),
    ],
)  # fmt: skip
def test_a_file_that_lacks_something_is_refused_in_one_sentence(
    file, tmp_path, capsys, old, new, words
):
    file.write_text(WORLD.replace(old, new))
    words_of_run = ["programs/gsgn.py", "--preset", "tiny", "--world", str(file)]
    assert main([*words_of_run, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and words in said


def test_a_world_that_is_not_there_is_refused(tmp_path, capsys):
    assert main(["programs/gsgn.py", "--world", "nowhere.py", "--out", str(tmp_path / "r")]) == 2
    said = capsys.readouterr().err
    assert "no world file" in said and "nowhere.py'; the project has arrow_room" in said
