"""Every program and variant as the preset `tiny` has it: very small networks on small images."""

from pathlib import Path

import torch

from inference.loading import load, own_programs
from inference.plan import Run
from inference.recipes import recipe
from inference.runs import Trained
from inference.settings import override


def cases():
    for name in own_programs():
        for variant in load(f"programs/{name}.py").variants:
            yield name, variant


def config(name, variant=None, **changes):
    """The program's Config."""
    variants = load(f"programs/{name}.py").variants
    variant = variant or next(iter(variants))
    small = recipe(name, variant, "tiny").program
    return override(variants[variant], {**small, **changes}, name)


def build(name, variant=None, **changes):
    """A program and its guide."""
    return load(f"programs/{name}.py").build(config(name, variant, **changes))


def images(number, program):
    """Noise in [0, 1], of the program's size."""
    size = program.config.size
    return torch.rand(number, getattr(program.config, "colours", 3), size, size)


def run(name, out, **options):
    """A training on the CPU."""
    given = {"preset": "tiny", "device": "cpu", **options}
    return Run(f"programs/{name}.py", Path(out), **given)


def untrained(name, variant, world):
    """A run of a world at 32 x 32 that was never trained."""
    program, guide = build(name, variant)
    config = {"recipe": {"world": world}, "world": {"size": program.config.size}, "images": None}
    return Trained(Path("untrained"), program.eval(), guide.eval(), config)


def shows_something(figure):
    """Whether a figure has pictures, and none of them is of one colour alone."""
    pictures = [image.get_array() for axes in figure.axes for image in axes.get_images()]
    return bool(pictures) and all(picture.std() > 1e-4 for picture in pictures)
