"""Whatever files and models users bring: it trains, or is refused in one sentence, and never a traceback."""

import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import published_files as files
import pyro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from inference.svi import main

MAKERS = {
    "m.tfrecords": files.multi_dsprites,
    "o.tfrecords": files.objects_room,
    "t.tfrecords": files.tetrominoes,
    "multidsprites-full.hdf5": files.object_centric,
    "dsprites.npz": files.dsprites,
    "CLEVR_v1.0": files.clevr,
    "coco": files.coco,
}
HEAD = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

{table}
torch.manual_seed({seed})
encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, {width}), nn.{activation}(), nn.Linear({width}, 8))
decoder = nn.Linear(4, {pixels})
"""
MODEL = """
def model({images}{argument}):
    pyro.module("decoder", decoder)
    {aside}
    n = {number}
    with pyro.plate("{plate}", n{dim}){more}:
        z = pyro.sample("{latent}", {prior})
        mean = {record}(decoder(z.reshape(n, -1)).reshape({shape}))
        pyro.sample("{site}", {likelihood}, obs={observed})
    return {returned}


def guide({images}{argument}):
    pyro.module("encoder", encoder)
    loc, spread = encoder({images}).chunk(2, -1)
    with pyro.plate("{guide_plate}", {number}{dim}):
        pyro.sample("{latent}", {posterior})
"""
OPTIONS = {
    "images": ["images", "x", "batch", "data"],
    "table": ["", "VARIANTS = {}", "RECIPES = [3]", "Config = int", "import nothing", "1 / 0"],
    "argument": ["", ", scale=1.0", ", labels", ", **more"],
    "aside": ["", "pyro.deterministic('one', torch.ones(()))", "{}['k']"],
    "record": ["", "(lambda m: pyro.deterministic('shown', m))", "nn.Linear(16, 16).double()"],
    "plate": ["batch", "images", "data", "n/1", "x"],
    "guide_plate": [None, "other"],
    "dim": ["", ", dim=-1", ", dim=-2"],
    "more": ["", ", pyro.plate('inner', 2, dim=-2)"],
    "latent": ["z", "latent", "scope/z", "batch", "images"],
    "site": ["images", "x", "obs", "scope/x", "z"],
    "prior": [
        "dist.Normal(torch.zeros(n, 4), 1.0).to_event(1)",
        "dist.Laplace(torch.zeros(n, 4), 1.0).to_event(1)",
        "dist.Normal(0.0, 1.0)",
        "dist.Bernoulli(torch.full((n, 4), 0.5)).to_event(1)",
    ],
    "posterior": [
        "dist.Normal(loc, spread.exp()).to_event(1)",
        "dist.Normal(loc, spread.exp())",
        "dist.Delta(loc).to_event(1)",
        "dist.Bernoulli(logits=loc).to_event(1)",
        "dist.Normal(loc, spread).to_event(1)",
        "dist.StudentT(3.0, loc, spread.exp()).to_event(1)",
    ],
    "shape": ["n, 3, 16, 16", "n, -1", "-1, 3, 16, 16", "n, 1, 16, 16"],
    "likelihood": [
        "dist.Normal(mean, 0.3).to_event(3)",
        "dist.Normal(mean, 0.3).to_event(1)",
        "dist.Bernoulli(logits=mean, validate_args=False).to_event(3)",
        "dist.Poisson(mean.exp(), validate_args=False).to_event(3)",
    ],
    "returned": ["None", "mean", "{'z': z}", "len(mean)"],
    "activation": ["ReLU", "Tanh", "Dropout"],
}


@st.composite
def models(draw):
    """A classic model with choices that mostly fit each other, and now and then do not."""
    usual = st.sampled_from([True] * 5 + [False])
    chosen = {k: v[0] if draw(usual) else draw(st.sampled_from(v)) for k, v in OPTIONS.items()}
    chosen["guide_plate"] = chosen["guide_plate"] or chosen["plate"]
    chosen["number"] = f"len({chosen['images']})"
    chosen["observed"] = draw(
        st.sampled_from(["{0}"] * 4 + ["{0}.flatten(1)", "{0}.mean(1, keepdim=True)", "None"])
    ).format(chosen["images"])
    chosen["pixels"] = draw(st.sampled_from([768] * 6 + [256, 10]))
    chosen["width"] = draw(st.integers(1, 8))
    chosen["seed"] = draw(st.integers(0, 9))
    source = (HEAD + MODEL).format(**chosen)
    if draw(st.integers(0, 9)) == 0:  # torn
        source = source[: draw(st.integers(0, len(source)))]
    return source


def run(*options):
    """The exit code, and what was said as an error."""
    pyro.clear_param_store()
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([*map(str, options), "--steps", "2", "--batch", "4", "--device", "cpu"])
    return code, said.getvalue()


def check(code, said):
    """It ended well, or with one line that says why."""
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert "Traceback" not in said
    assert (code == 0 and not errors) or (code in (1, 2) and len(errors) == 1), (code, said)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def try_models(pictures, number):
    @settings(max_examples=number, deadline=None, suppress_health_check=[*HealthCheck])
    @given(models())
    def attempt(source):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "mine.py").write_text(source, encoding="utf-8")
            size = ("--set", "world.size=16", "--out", Path(folder) / "run")
            check(*run(Path(folder) / "mine.py", "--images", pictures, *size))

    attempt()


@st.composite
def damages(draw):
    """Ways to spoil a file: cut off, bytes changed, a value of a table changed, emptied."""
    kind = draw(st.sampled_from(["cut", "bytes", "empty", "value", "missing", "whole"]))
    return kind, draw(st.floats(0, 1)), draw(st.binary(min_size=1, max_size=8))


def spoil(path, kind, place, content):
    """Damage a file, or a file of a folder."""
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    file = inside[int(place * (len(inside) - 1))]
    data = file.read_bytes()
    at = int(place * len(data))
    if kind == "cut":
        file.write_bytes(data[:at])
    elif kind == "bytes":
        file.write_bytes(data[:at] + content + data[at + len(content) :])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "missing":
        file.unlink()
    elif kind == "value" and file.suffix == ".json":
        table = json.loads(data)
        spoil_value(table, place, content)
        file.write_text(json.dumps(table))


def spoil_value(table, place, content):
    """Another value somewhere in a table of tables."""
    keys = [*table] if isinstance(table, dict) else [*range(len(table))]
    if not keys:
        return
    key = keys[int(place * (len(keys) - 1))]
    if isinstance(table[key], dict | list) and table[key] and content[0] % 4:
        spoil_value(table[key], place, content[1:] or b"\0")
    else:
        table[key] = [None, "x", -1, 1e30, [], {}, True][content[0] % 7]


def try_files(folder, number):
    names = [name for name in MAKERS if name != "coco" or has_coco()]

    @settings(max_examples=number, deadline=None, suppress_health_check=[*HealthCheck])
    @given(st.sampled_from(names), damages(), st.sampled_from(["vae", "space"]))
    def attempt(name, damage, program):
        with tempfile.TemporaryDirectory(dir=folder) as own, pytest.MonkeyPatch.context() as patch:
            patch.setenv("SCENE_PROGRAMS_CACHE", f"{own}/cache")
            path = MAKERS[name](Path(own) / name)
            spoil(path, *damage)
            options = ("--preset", "tiny", "--images", path, "--out", Path(own) / "run")
            check(*run(f"programs/{program}.py", *options))

    attempt()


def has_coco():
    try:
        import pycocotools  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.filterwarnings("ignore")
def test_models_train_or_are_refused_in_a_sentence(pictures):
    try_models(pictures, 6)


@pytest.mark.filterwarnings("ignore")
def test_files_are_read_or_refused_in_a_sentence(tmp_path):
    try_files(tmp_path, 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hundreds_of_models_train_or_are_refused_in_a_sentence(pictures):
    try_models(pictures, 500)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_hundreds_of_files_are_read_or_refused_in_a_sentence(tmp_path):
    try_files(tmp_path, 300)
