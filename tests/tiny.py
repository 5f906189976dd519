"""The smallest configuration of every program, and what tests build of it."""

from pathlib import Path

import torch

from inference.loading import load, own_programs
from inference.runs import Trained
from inference.settings import override

SMALL = {
    "gsgn": {"size": 32, "z_what": (12, 10, 8), "z_bg": 3, "crops": (16, 8), "hidden": 24}
    | {"channels": (8, 16), "decoder": 16},
    "air": {"size": 32, "window": 16, "z_what": 6, "hidden": (24,), "memory": 16},
    "discrete_air": {"size": 32, "window": 16, "hidden": 24, "memory": 16, "encoder": (8, 8)},
    "econ": {"size": 32, "features": 8, "blocks": 2, "attention": (8, 8), "context": 16}
    | {"patch": 2},
    "space": {"size": 32, "grid": 2, "z_what": 6, "components": 3, "z_bg": 4, "z_bg_mask": 4}
    | {"memory": 8, "hidden": 24, "channels": (8, 16), "decoder": 16},
    "gnm": {
        "size": 32,
        "colours": 3,
        "grid": 2,
        "z_global": 6,
        "z_what": 6,
        "z_bg": 4,
        "glimpse": 8,
    }
    | {"units": 16, "interaction": (16,), "embedding": (16,), "channels": (8, 16)}
    | {"decoder": ((8, 4, 1),), "background": ((16, 4, 1), (8, 4, 1))},
    "convdraw": {"size": 32, "z_global": 4, "units": 16, "interaction": (16,), "channels": (8, 16)}
    | {"decoder": ((8, 4, 1),)},
    "vae": {"size": 32, "z_global": 8, "channels": (8, 16), "head": 16}
    | {"decoder": ((16, 4, 1), (8, 4, 1))},
    "genesis": {"size": 32, "components": 3, "z_bg": 4, "z_bg_mask": 6, "memory": 8, "hidden": 16}
    | {"channels": (8, 16), "decoder": 16, "cell": 2},
    "denf": {"size": 32, "squeeze": 8, "couplings": 1, "features": 4, "slots": 16, "least": 1},
}
FOUR_LEVELS = {"z_what": (12, 10, 8, 8), "crops": (16, 16, 8)}


def cases():
    for name in own_programs():
        for variant in load(f"programs/{name}.py").variants:
            yield name, variant


def build(name, variant):
    source = load(f"programs/{name}.py")
    changes = SMALL[name] | (FOUR_LEVELS if variant == "four_levels" else {})
    return source.build(override(source.variants[variant], changes, name))


def images(number, program):
    return torch.rand(number, getattr(program.config, "colours", 3), 32, 32)


def untrained(name, variant, world, file=None, **changes):
    """A run of a program that took no step, in a world at the program's size.

    Args:
        file: the program's, if it is none of the project's.
        changes: fields of the program's Config besides `SMALL`.
    """
    source = load(file or f"programs/{name}.py")
    config = override(source.variants[variant], SMALL[name] | changes, name)
    program, guide = source.build(config)
    about = {"variant": variant, "recipe": {"world": world}, "images": None, "command": "none"}
    return Trained(
        Path("none"), program.eval(), guide.eval(), about | {"world": {"size": config.size}}
    )
