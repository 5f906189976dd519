"""For each kind of failure that users of such tools report, two inputs that nobody reported yet."""

import ast
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from classic import make_pictures, train
from PIL import Image

from analysis.posterior import khat
from analysis.posterior.draws import most_likely
from analysis.posterior.to_arviz import to_inference_data
from inference.images.clevr import clevr_with_masks
from inference.images.clips import is_clips
from inference.images.folders import FolderConfig, image_folder
from inference.images.source import images_of
from inference.loading import ROOT, load
from inference.plan import Run, plan
from inference.runs import open_run, read_weights, write_weights
from programs.worlds import cache

HEAD = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

"""
VAE = """
encoder = nn.Sequential(nn.Flatten(), {layers}, nn.Linear(768, 8))
decoder = nn.Linear(4, 768)


def model({arguments}):
    pyro.module("decoder", decoder)
    {before}
    with pyro.plate("n", len(images)):
        z = pyro.sample("{z}", dist.Normal(torch.zeros(len(images), 4), 1.0).to_event(1))
        mean = decoder(z).view(-1, 3, 16, 16)
        {observed}


def guide({arguments}):
    pyro.module("encoder", encoder)
    loc, scale = encoder(images).chunk(2, -1)
    {also}
    with pyro.plate("n", len(images)):
        pyro.sample("{z}", dist.Normal(loc, scale.exp()).to_event(1))
"""
PLAIN = {
    "layers": "nn.Tanh()",
    "arguments": "images",
    "before": "",
    "z": "z",
    "observed": 'pyro.sample("x", dist.Normal(mean, 0.3).to_event(3), obs=images)',
    "also": "",
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("pictures"))


def write(path, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + VAE.format(**(PLAIN | changes)), encoding="utf-8")
    return path


def trained(tmp_path, pictures, **changes):
    """A run of a few steps of the model with changes."""
    assert train(write(tmp_path / "mine.py", **changes), pictures, tmp_path / "run") == 0
    return open_run(tmp_path / "run")


@pytest.mark.parametrize(
    "weights",
    [
        torch.cat([torch.zeros(2), torch.full((28,), -1e30)]),
        torch.cat([torch.zeros(1), torch.full((28,), -torch.inf)]),
        torch.linspace(-1e4, -1e4 - 745.2, 40),
    ],
)
def test_khat_of_weights_that_vanish(weights):
    assert not khat(weights[:, None]).isnan().any()


@pytest.mark.parametrize(
    "guide",
    [
        dist.Beta(torch.full((3,), 0.5), 0.5),
        dist.ZeroInflatedPoisson(torch.full((3,), 2.5), gate=torch.tensor(0.5)),
        dist.Multinomial(5, probs=torch.full((3, 4), 0.25)),
        dist.Stable(torch.full((3,), 0.9), 0.0),
        dist.Gumbel(torch.zeros(3), 1.0).mask(torch.tensor([True, False, True])),
        dist.LKJCholesky(3, torch.ones(3)),
        dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(3, 4)),
    ],
)
def test_a_point_in_the_place_of_a_mode_is_possible(guide):
    torch.manual_seed(0)
    point = most_likely(guide)
    assert point.shape == guide.shape() and guide.support.check(point).all()
    assert guide.log_prob(point).isfinite().all()


@pytest.mark.parametrize("name", ["air.py", "programs/gsgn.py", "guides/vae.py"])
def test_a_file_that_is_called_as_one_of_the_projects_is_the_users(name, pictures, tmp_path):
    file = write(tmp_path / name)
    run = Run(str(file), tmp_path / "run", images=pictures, set=("world.size=16",), device="cpu")
    found = plan(run)
    assert found.recipe.world == "shapes2d" and found.source.named == file.resolve()
    assert hasattr(found.source.program, "decoder")


@pytest.mark.parametrize(
    "changes",
    [
        {"also": 'with pyro.plate("spare", 5):\n        pass'},
        {
            "observed": 'with pyro.plate("rows", 16, dim=-2), pyro.plate("columns", 16, dim=-3):\n'
            '            pyro.sample("x", dist.Normal(mean.permute(3, 2, 0, 1), 0.3).to_event(1), '
            "obs=images.permute(3, 2, 0, 1))"
        },
    ],
)
def test_plates_that_one_side_opens(changes, pictures, tmp_path):
    run = trained(tmp_path, pictures, **changes)
    assert to_inference_data(run.program, run.guide, torch.rand(2, 3, 16, 16), num_samples=25)


@pytest.mark.parametrize(
    "layers",
    [
        "nn.utils.spectral_norm(nn.Linear(768, 768)), nn.Dropout(0.5)",
        "nn.Unflatten(1, (3, 256)), nn.InstanceNorm1d(3, track_running_stats=True), nn.Flatten()",
    ],
)
def test_nets_that_change_while_they_are_trained_are_opened_as_they_were(
    layers, pictures, tmp_path
):
    run, x = trained(tmp_path, pictures, layers=layers), torch.rand(2, 3, 16, 16)
    again = open_run(tmp_path / "run")
    traces = [pyro.poutine.trace(r.guide).get_trace(x) for r in (run, run, again)]
    means = [t.nodes["z"]["fn"].base_dist.loc for t in traces]
    assert torch.equal(means[0], means[1]) and torch.equal(means[0], means[2])
    assert len(run.guide._buffers_by_name()) > 0


@pytest.mark.parametrize("draw", ["numpy.random.randn()", "random.gauss(0, 1)"])
def test_whatever_draws_a_files_first_numbers_is_seeded(draw, pictures, tmp_path):
    file = write(tmp_path / "mine.py")
    file.write_text(f"import numpy, random\nFIRST = {draw}\n" + file.read_text())
    found = []
    for k in range(2):
        random.seed(k)
        np.random.seed(k)
        run = Run(str(file), tmp_path / "run", images=pictures, set=("world.size=16",))
        found.append(plan(run).source.program.FIRST)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": "images, labels=None"},
        {
            "before": "spread = pyro.deterministic('spread', torch.tensor(0.3))",
            "observed": 'mean = pyro.deterministic("shown", mean)\n'
            '        pyro.sample("x", dist.Normal(mean, spread).to_event(3), obs=images)\n'
            '        pyro.sample("mean", dist.Normal(mean.mean((1, 2, 3)), 1.0), '
            "obs=images.mean((1, 2, 3)))",
        },
    ],
)
def test_functions_of_other_shapes_are_exported(changes, pictures, tmp_path):
    run = trained(tmp_path, pictures, **changes)
    data = to_inference_data(run.program, run.guide, torch.rand(2, 3, 16, 16), num_samples=25)
    data.to_netcdf(tmp_path / "posterior.nc")
    assert data["posterior"]["z"].shape == (1, 25, 2, 4)
    assert run.config["names"] == {"plate": "n", "site": "x"}


@pytest.mark.parametrize(
    "names", [("a/z", "a.z"), ("/z", "draw"), ("chain", "image"), ("y", "draw_")]
)
def test_latents_of_awkward_names_are_exported_one_by_one(names, tmp_path):
    def model(images):
        with pyro.plate("batch", len(images)):
            z = [pyro.sample(n, dist.Normal(k + torch.zeros(len(images)), 1e-3)) for k, n in both]
            mean = sum(z)[:, None, None, None].expand_as(images)
            pyro.sample("images", dist.Normal(mean, 1.0).to_event(3), obs=images)

    def guide(images):
        with pyro.plate("batch", len(images)):
            for k, name in both:
                pyro.sample(name, dist.Normal(k + torch.zeros(len(images)), 1e-3))

    both = [*enumerate(names)]
    data = to_inference_data(model, guide, torch.rand(2, 3, 4, 4), num_samples=25, prior=False)
    data.to_netcdf(tmp_path / "posterior.nc")
    means = [float(v.mean()) for v in data["posterior"].data_vars.values()]
    assert sorted(round(m, 1) for m in means) == [0, 1]


IMAGES = {
    "whole numbers of 16 bits": np.zeros((4, 32, 32, 3), "i2"),
    "truth values": np.zeros((4, 32, 32, 3), bool),
    "a channel too many": np.zeros((4, 32, 32, 4), "u1"),
    "channels first": np.zeros((4, 3, 32, 32), "u1"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_hdf5_that_are_no_bytes_of_rgb_are_refused(kind, tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["image"] = IMAGES[kind]
        file["mask"] = np.zeros((4, 11, 32, 32, 1), "u1")
        file["visibility"] = np.ones((4, 11), "f4")
    with pytest.raises(ValueError, match=r"a\.hdf5") as refused:
        clevr_with_masks(tmp_path / "a.hdf5")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [2, 5])
def test_mirrored_photographs_of_other_formats_are_shown_as_viewers_do(
    suffix, orientation, tmp_path
):
    """Red on top and left of it green, as it was before the camera's mirror or turn."""
    picture = Image.new("RGB", (32, 32), "blue")
    picture.paste("red", (0, 0, 32, 16))
    picture.paste("lime", (0, 0, 16, 16))
    back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 5: Image.Transpose.TRANSPOSE}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.transpose(back).save(tmp_path / f"photo.{suffix}", exif=exif, quality=95)
    image = image_folder(tmp_path, FolderConfig(16)).images[0].float()
    assert image[:, 2:6, 2:6].mean((1, 2)).argmax() == 1
    assert image[:, 2:6, 10:14].mean((1, 2)).argmax() == 0


def test_folders_of_classes_that_are_not_all_numbers_are_no_clips(tmp_path):
    for name in ("cat", "dog", "3"):
        (tmp_path / "named" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "named" / name / "0.png")
    for name in range(10):
        (tmp_path / "beside" / str(name)).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "beside" / str(name) / "0.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "beside" / "all.png")
    assert not is_clips(tmp_path / "named") and not is_clips(tmp_path / "beside")
    assert len(image_folder(tmp_path / "beside", FolderConfig(4)).images) == 11


def test_a_path_said_otherwise_is_the_same_and_a_changed_picture_is_not(
    pictures, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(pictures.parent)
    file = write(tmp_path / "mine.py")
    assert train(file, f"./{pictures.name}/../{pictures.name}/", tmp_path / "run") == 0
    (tmp_path / "link").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    assert train(file, tmp_path / "link", tmp_path / "run", "--resume") == 0
    (tmp_path / "copy").mkdir()
    copy = make_pictures(tmp_path / "copy")
    assert train(file, copy, tmp_path / "other") == 0
    Image.new("RGB", (16, 18)).save(copy / "07.png")
    assert train(file, copy, tmp_path / "other", "--resume") == 2
    assert "another pictures" in capsys.readouterr().err


def test_what_runs_and_systems_leave_beside_pictures_is_no_picture(tmp_path):
    kept = ("a.png", "b/c.png", "runs of skiers/d.png")
    left = (
        "runs/first/report/scene.png",
        "runs/first/config.json",
        "runs/compare/curves.png",
        ".thumbnails/a.png",
        "__MACOSX/._a.png",
        "b/.c.png",
    )
    for name in (*kept, *left):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    assert len(image_folder(tmp_path, FolderConfig(4)).images) == len(kept)


def test_without_a_home_folder_the_variable_is_enough(monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("SCENE_PROGRAMS_CACHE", str(tmp_path / "cache"))
    assert cache() == tmp_path / "cache"
    for value in ("", None):
        if value is None:
            monkeypatch.delenv("SCENE_PROGRAMS_CACHE")
        else:
            monkeypatch.setenv("SCENE_PROGRAMS_CACHE", value)
        with pytest.raises(ValueError, match="set SCENE_PROGRAMS_CACHE"):
            cache()


@pytest.mark.parametrize("name", ["analysis/__init__.py", "guides.py"])
def test_a_package_that_hides_the_projects_is_named_at_once(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "import inference"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode and "hides scene-programs' own" in said and str(tmp_path) in said


def test_every_text_file_is_opened_with_its_encoding():
    """In the project's packages: whatever the locale, files are UTF-8."""
    missing = []
    for package in ("programs", "guides", "inference", "analysis"):
        for path in (ROOT / package).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(call, ast.Call) and not encoded(call):
                    missing.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not missing


def encoded(call):
    """Whether a call opens no text file, or says its encoding."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    said = {k.arg for k in call.keywords}
    if name in ("read_text", "write_text"):
        return "encoding" in said
    if name != "open" or isinstance(call.func, ast.Attribute):
        return True  # Image.open, a member of an archive
    words = [a.value for a in call.args if isinstance(a, ast.Constant)]
    words += [k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)]
    return "encoding" in said or any(isinstance(w, str) and "b" in w for w in words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def model(:\n", "does not import: SyntaxError"),
        ("import sys\nsys.exit('usage: mine.py DATA')\n", "does not import: SystemExit: usage"),
        ("import beside\nmodel = guide = beside.f\n", None),
        ("\0", "does not import"),
        (b"name = '\xff'\nmodel = guide = print\n", "does not import"),
    ],
)
def test_files_are_imported_from_where_they_are_or_refused(source, words, tmp_path):
    (tmp_path / "beside.py").write_text("def f(images): ...\n")
    file = tmp_path / "mine.py"
    file.write_bytes(source if isinstance(source, bytes) else source.encode())
    if words is None:
        assert load(file).program.model(0) is None
        return
    with pytest.raises(ValueError, match=words):
        load(file)


def test_weights_that_are_parts_of_others_or_have_none_are_kept(tmp_path):
    matrix = torch.randn(4, 3)
    tensors = {"m": matrix, "t": matrix.T, "row": matrix[1], "wide": matrix[0].expand(5, 3)}
    tensors |= {"empty": torch.zeros(0, 3), "number": torch.tensor(7), "flag": torch.tensor(True)}
    write_weights(tmp_path, {"program": tensors, "guide": {}})
    found = read_weights(tmp_path)["program"]
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(("program", "grey"), [("denf", 128), ("space", 0)])
def test_pictures_without_any_difference_are_trained_on(program, grey, tmp_path):
    from inference.svi import main

    (tmp_path / "same").mkdir()
    for k in range(3):
        Image.new("RGB", (20, 20), (grey,) * 3).save(tmp_path / "same" / f"{k}.png")
    words = [f"programs/{program}.py", "--preset", "tiny", "--images", str(tmp_path / "same")]
    assert main([*words, "--steps", "2", "--batch", "2", "--out", str(tmp_path / "run")]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert np.isfinite(metrics["elbo"])


def test_a_folder_that_leads_back_to_itself_is_read_once(tmp_path, capsys):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/1.png", "a/b/2.TIF", "a/3.jfif"):
        kind = "PNG" if name.endswith("png") else "TIFF" if name.endswith("TIF") else "JPEG"
        Image.new("RGB", (4, 4)).save(tmp_path / name, kind)
    for name in ("again", "once more"):
        (tmp_path / "a" / "b" / name).symlink_to(tmp_path / "a")
    for name in ("a/4.HEIC", "a/b/5.mov", "a/notes"):
        (tmp_path / name).touch()
    data = images_of("shapes2d", tmp_path / "a").split("train", FolderConfig(4))
    assert len(data.images) == 3
    assert "; not read: 3 other files (.heic, .mov)" in capsys.readouterr().out


CLASSES = """
class Program(nn.Module):
    def __init__(self{of}):
        super().__init__()
        self.net = nn.Linear(4, {pixels})

    def forward(self, x):
        with pyro.plate("b", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 4), 1.0).to_event(1))
            mean = self.net(z).view(-1, 3, 16, 16)
            pyro.sample("x", dist.Laplace(mean, 0.1).to_event(3), obs=x)


class Guide(nn.Module):
    def __init__(self{takes}):
        super().__init__()
        self.net = nn.Linear(768, 8)

    def forward(self, x):
        loc, scale = self.net(x.flatten(1)).chunk(2, -1)
        with pyro.plate("b", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))
"""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"takes": ", program"}, None),
        ({"takes": ", program, width"}, "Guide of .*mine.py cannot be made: TypeError"),
        ({"of": ", config"}, "Program of .*mine.py cannot be made: TypeError"),
        ({"pixels": "'many'"}, "Program of .*mine.py, line 11 cannot be made: TypeError"),
    ],
)
def test_classes_are_made_as_they_can_be_or_refused(changes, words, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + CLASSES.format(**({"of": "", "takes": "", "pixels": 768} | changes)))
    source = load(file)
    if words is None:
        assert len(source.build(None)) == 2
        return
    with pytest.raises(ValueError, match=words):
        source.build(None)


@pytest.mark.parametrize(
    "table",
    [
        "@dataclass(frozen=True)\nclass Config:\n    size: int",
        "class Config:\n    size = 16",
        "VARIANTS = {}",
        "VARIANTS = ['wide']",
        "VARIANTS = {'wide': {'width': 3}}",
        "RECIPES = {'mine': {'quick': {'steps': 3}}}",
        "RECIPES = {'mine': 3}",
        "RECIPES = ['mine']",
    ],
)
def test_tables_of_a_file_that_are_something_else_are_refused(table, pictures, tmp_path):
    file = tmp_path / "mine.py"
    takes = {"of": ", config=None", "takes": ", program", "pixels": 768}
    source = f"from dataclasses import dataclass\n{HEAD}\n{table}\n{CLASSES.format(**takes)}"
    file.write_text(source)
    run = Run(str(file), tmp_path / "run", images=pictures, set=("world.size=16",))
    with pytest.raises(ValueError, match=r"expected Config, a|a table of presets"):
        plan(run)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("model = 3\nguide = print\n", "int of .* cannot be called with images alone"),
        ("class model: ...\nclass guide: ...\n", "model of .*no object is made"),
        (
            "def model(images, labels): ...\nguide = model\n",
            "missing a required argument: 'labels'",
        ),
        ("def model(*, images): ...\nguide = model\n", "model of .*too many positional"),
        ("def model(images): return {}['key']\nguide = model\n", "KeyError: 'key' .*line 1"),
        ("def model(images): return images.pixels\nguide = model\n", "AttributeError: .*line 1"),
    ],
)
def test_functions_that_do_not_run_are_refused_by_their_line(
    source, words, pictures, tmp_path, capsys
):
    (tmp_path / "mine.py").write_text(source)
    assert train(tmp_path / "mine.py", pictures, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert re.search(words, said) and said.count("\n") == 1


def test_a_mistake_in_a_later_step_is_named(pictures, tmp_path, capsys):
    steps = "COUNT.append(0)\n    assert len(COUNT) < 12, 'enough'"
    file = write(tmp_path / "mine.py", before=steps)
    file.write_text("COUNT = []\n" + file.read_text())
    assert train(file, pictures, tmp_path / "run", "--steps", "40") == 2
    assert "cannot be trained: AssertionError: enough" in capsys.readouterr().err
