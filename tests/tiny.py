"""Every program and variant as the preset `tiny` has it: very small networks on small images."""

from pathlib import Path

import torch

from inference.estimators import ESTIMATORS, Whole
from inference.loading import load, own_programs
from inference.plan import Run
from inference.recipes import recipe
from inference.runs import Trained
from inference.settings import override

OF_BOUNDS = {"iwae": "iwae:2+nvil", "dreg": "dreg:2+nvil"}
"""Bounds that take a method for discrete sites, with one."""
OF_CONTINUOUS = {
    name: name
    for name, method in ESTIMATORS.items()
    if (issubclass(method, Whole) and name != "rws_defensive") or name == "gumbel"
}
"""Estimators of programs without discrete latents."""


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


def untrained(name, variant, world, file=None, **changes):
    """A run of a program that took no step, in a world at the program's size.

    Args:
        file: the program's, if it is none of the project's.
        changes: fields of the program's Config besides those of the preset `tiny`.
    """
    source = load(file or f"programs/{name}.py")
    small = recipe(name, variant, "tiny").program
    settings = override(source.variants[variant], {**small, **changes}, name)
    program, guide = source.build(settings)
    about = {"variant": variant, "recipe": {"world": world}, "images": None, "command": "none"}
    return Trained(
        Path("none"), program.eval(), guide.eval(), about | {"world": {"size": settings.size}}
    )


def shows_something(figure):
    """Whether a figure has pictures, and none of them is of one colour alone."""
    pictures = [image.get_array() for axes in figure.axes for image in axes.get_images()]
    return bool(pictures) and all(picture.std() > 1e-4 for picture in pictures)


def check_item(item, runs, request):
    """An item of a paper is made of those of the runs that it trains, with rows or pictures."""
    made = item.make({k: run for k, run in runs.items() if k in item.trainings}, request)
    assert made.rows or made.figures
    for figure in made.figures.values():
        figure.draw_without_rendering()
        assert any(axes.images for axes in figure.axes)
