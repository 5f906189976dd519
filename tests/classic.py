"""Classic Pyro models of `tests/gallery`, trained by the command on a folder of small pictures."""

from pathlib import Path

import numpy as np
import pyro
from PIL import Image

from inference.svi import main

GALLERY = Path(__file__).parent / "gallery"


def make_pictures(folder):
    for i in range(20):
        pixels = np.random.default_rng(i).integers(0, 256, (18, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def train(file, pictures, out, *more):
    """A few steps of a file; by its stem, of a model of the gallery."""
    pyro.clear_param_store()
    file = file if str(file).endswith(".py") else GALLERY / f"{file}.py"
    options = ["--images", str(pictures), "--set", "world.size=16", "--batch", "8", "--steps", "6"]
    return main([str(file), *options, "--out", str(out), "--device", "cpu", *more])
