"""Adding a program is three files of one stem: it trains, is measured and keeps the contract."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from inference.loading import ROOT

PROGRAM = '''
"""Some grey discs, each there or not, at places of their own.

    e_k ~ Bernoulli(r_k)      l_k ~ N(0, 0.5²), of those that are there      x ~ N(discs, 0.2²)

Shape legend: B images, N discs, C channels, H x W pixels, h x w of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from programs.blocks import render
from programs.blocks.distributions import gate, normal
from programs.scene import Nodes, Scene


@dataclass(frozen=True)
class Config:
    """What may be varied."""

    size: int = 32
    colours: int = 1
    number: int = 2
    hidden: int = 64


VARIANTS = {"dots": Config(), "three_dots": Config(number=3)}


class Program(PyroModule):
    """The generative process."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.presence = nn.Parameter(torch.linspace(-0.2, 0.3, config.number))
        self.grey = nn.Parameter(torch.tensor(0.5))
        axis = torch.linspace(-1, 1, 16)
        self.register_buffer("disc", (8 * (0.8 - torch.hypot(axis, axis[:, None]))).sigmoid())

    def forward(self, images: Tensor | None = None, batch: int = 1) -> Scene:
        """Run the process; images (B, C, H, W) to condition on, None to sample the prior."""
        batch = batch if images is None else len(images)
        number = self.config.number
        with pyro.plate("batch", batch, dim=-2):
            with pyro.plate("nodes_1", number, dim=-1):
                logits = self.presence.expand(batch, number)
                pres = pyro.sample("z_pres_1", dist.Bernoulli(logits=logits))
                with gate(pres):
                    zeros = self.presence.new_zeros(batch, number, 2)
                    where = pyro.sample("z_where_1", normal(zeros, 0.5 + zeros))
            scene = self.scene(pres, where)
            seen = dist.Normal(scene.image.unsqueeze(1), 0.2).to_event(3)
            pyro.sample("images", seen, obs=None if images is None else images.unsqueeze(1))
        return scene

    def scene(self, pres: Tensor, where: Tensor) -> Scene:
        """The discs (B, N) at their places (B, N, 2)."""
        pose = render.pose(where, torch.full_like(where[..., :1], 0.3), torch.zeros_like(pres))
        colour = self.grey.sigmoid().expand(*pres.shape, self.config.colours, 16, 16)
        patch = torch.cat([colour, self.disc.expand(*pres.shape, 1, 16, 16)], -3)
        zeros = torch.zeros_like(pres)
        placed = render.place(patch, pose, self.config.size)
        image = render.composite(placed, pres, zeros)[..., :-1, :, :]
        return Scene(image, (Nodes(pres, pose, zeros, zeros.long(), patch=patch),))
'''
GUIDE = '''
"""Guide of the discs: a network looks at the image and says which are there, and where."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import Tensor

from programs.blocks.distributions import gate, normal, positive
from programs.blocks.nets import mlp
from programs.dots import Program


class Guide(PyroModule):
    """The amortized posterior."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        c = program.config
        self.number = c.number
        self.net = mlp(c.colours * c.size**2, (c.hidden,), 5 * c.number)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent given `images` (B, C, H, W) in [0, 1]."""
        raw = self.net(images.flatten(1)).unflatten(-1, (self.number, 5))
        logits, loc, raw = raw.split([1, 2, 2], -1)
        with pyro.plate("batch", len(images), dim=-2), pyro.plate("nodes_1", self.number, dim=-1):
            pres = pyro.sample("z_pres_1", dist.Bernoulli(logits=logits.squeeze(-1)))
            with gate(pres):
                pyro.sample("z_where_1", normal(loc, positive(raw)))
'''
RECIPE = '''
"""How the discs are trained."""

from __future__ import annotations

from inference.recipes import Recipe, tiny

QUICK = Recipe(steps=500, world="multi_sprites", scenes=2000)
RECIPES = {"dots": {"tiny": tiny(QUICK, {"hidden": 16}), "quick": QUICK, "paper": QUICK}}
'''
FILES = {"programs": PROGRAM, "guides": GUIDE, "inference/recipes": RECIPE}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the project with three files more."""
    copy = tmp_path_factory.mktemp("project")
    without = shutil.ignore_patterns("trained", "notebooks", "figures", "__pycache__")
    for name in ("programs", "guides", "inference", "analysis"):
        shutil.copytree(ROOT / name, copy / name, ignore=without)
    (copy / "tests").mkdir()
    for file in (*(ROOT / "tests").glob("*.py"), ROOT / "pyproject.toml"):
        shutil.copy(file, copy / file.relative_to(ROOT))
    for folder, text in FILES.items():
        (copy / folder / "dots.py").write_text(text)
    return copy


def python(tree, *words):
    """What a command prints, run in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *words], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_trains_and_is_evaluated_by_the_commands(tree, tmp_path):
    out = tmp_path / "run"
    words = ["programs/dots.py", "--variant", "three_dots", "--preset", "tiny", "--out", str(out)]
    assert "object_f1" in python(tree, "-m", "inference.svi", *words)
    config = json.loads((out / "config.json").read_text())
    assert config["program"] == "programs/dots.py" and config["config"] == {
        "size": 32,
        "colours": 1,
        "number": 3,
        "hidden": 16,
    }
    assert (out / "scene_graphs.png").exists() and (out / "prior_objects.png").exists()
    file = tmp_path / "measured.json"
    python(tree, "-m", "analysis.evaluate", str(out), "--scenes", "12", "--json", str(file))
    again, first = (json.loads(f.read_text()) for f in (file, out / "metrics.json"))
    assert again["elbo"] == pytest.approx(first["elbo"]) and "object_f1" in again


def test_it_keeps_the_contract_and_the_import_rule(tree):
    files = ["tests/test_contract.py", "tests/test_architecture.py"]
    options = ["-q", "-p", "no:cacheprovider", "-k", "dots or every_program or variants or folder"]
    said = python(tree, "-m", "pytest", *files, *options)
    assert "passed" in said and int(said.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1]) > 40
