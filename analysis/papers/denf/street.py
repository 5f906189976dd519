"""Cars found on a real street: twenty frames of a published clip, whose cars were labelled by hand.

    python -m analysis.papers.denf.street RUN [--picture FILE.png] [--json FILE.json]

RUN is a run folder that was trained on ``car-detection.mp4`` of Intel's sample videos for IoT (CC BY 4.0; 377
frames of 768 x 432 pixels), all of the picture squeezed into a square:

    python -m inference.svi programs/denf.py --images car-detection.mp4 --world traffic --set world.cut=False \\
        --set world.even=True --set scale_mean=0.35 --set apart=0.5 --set tint=0.1 --set least=8

The labels are this project's: boxes around the visible part of each car with its mirrors, read from a grid to
about five pixels. The last five frames are later than all that the run was trained on. A car is found if an
object's box overlaps with its label by an IoU of `OVERLAP`; other objects are too many.

Shape legend: F frames, N boxes, K slots, S pixels a side.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyro
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis import plots
from analysis.command import new_file, write_json
from analysis.evaluate import with_masks
from analysis.posterior import infer
from inference.command import command_line, told
from inference.runs import Trained, open_run
from programs.blocks.boxes import overlaps
from programs.scene import Scene

WIDTH, HEIGHT, FRAMES = 768, 432, 377
"""Of the clip, in pixels, and the number of its frames."""
OVERLAP = 0.5
"""IoU from which a car is found."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""
LABELS: dict[int, tuple[Box, ...]] = {
    50: (),
    56: ((315, 395, 455, 432),),
    62: ((285, 300, 455, 432),),
    70: ((275, 190, 470, 432),),
    78: ((275, 95, 442, 368),),
    86: ((282, 15, 415, 242),),
    94: ((283, 0, 402, 140),),
    102: ((300, 0, 396, 52),),
    184: ((158, 0, 260, 40),),
    190: ((148, 0, 262, 115), (328, 370, 490, 432)),
    196: ((130, 0, 260, 192), (325, 280, 485, 432)),
    204: ((105, 38, 245, 322), (318, 170, 480, 432)),
    212: ((72, 140, 240, 432), (315, 80, 460, 330)),
    220: ((70, 265, 228, 432), (312, 0, 445, 215)),
    228: ((315, 0, 430, 112), (80, 425, 190, 432)),
    318: ((195, 0, 308, 68),),
    326: ((160, 0, 312, 215),),
    334: ((128, 88, 300, 432),),
    342: ((120, 270, 292, 432),),
    350: (),
}
"""The cars of twenty frames, in pixels of the clip."""


@dataclass(frozen=True)
class Count:
    """What was found on some frames."""

    cars: int
    found: int
    """cars with an object"""
    objects: int
    """objects, of which `found` are cars"""


def frames(run: Trained) -> Tensor:
    """(F, 3, S, S) in [0, 1] the labelled frames of the run's clip.

    Raises:
        ValueError: the run was not trained on this clip.
    """
    path = run.config.get("images")
    splits = (run.training(FRAMES), run.unseen(FRAMES)) if path else ()
    images = [image for data in splits for image in data.images]
    if len(images) != FRAMES:
        raise ValueError(
            f"{run.folder} was trained on {path or 'a world'}: give a run of car-detection.mp4, which has "
            f"{FRAMES} frames"
        )
    return torch.stack([images[number] for number in LABELS]).float() / 255


def seen(pose: Tensor) -> Tensor:
    """(N, 2, 3) what the frame shows of upright boxes (N, 2, 3)."""
    centre, extent = pose[..., 2], pose[..., :2].diagonal(dim1=-2, dim2=-1)
    return _upright((centre - extent).clamp(-1, 1), (centre + extent).clamp(-1, 1))


def labelled(cars: Sequence[Box]) -> Tensor:
    """(N, 2, 3) boxes that are given in pixels of the clip."""
    corners = 2 * torch.tensor(cars).reshape(-1, 2, 2) / torch.tensor([WIDTH, HEIGHT]) - 1
    return _upright(*corners.unbind(1))


def _upright(low: Tensor, high: Tensor) -> Tensor:
    return torch.cat([((high - low) / 2).diag_embed(), ((low + high) / 2).unsqueeze(-1)], -1)


def count(scene: Scene, numbers: list[int]) -> Count:
    """Cars found in scenes of the frames with these numbers; an object is one car's at most."""
    from scipy.optimize import linear_sum_assignment

    found = objects = 0
    nodes = scene.objects
    for pose, there, number in zip(nodes.pose, nodes.present, numbers, strict=True):
        objects += int(there.sum())
        fits = overlaps(labelled(LABELS[number]), seen(pose[there])) >= OVERLAP
        found += int(fits[linear_sum_assignment(fits.float().numpy(), maximize=True)].sum())
    return Count(sum(len(LABELS[n]) for n in numbers), found, objects)


def explained(run: Trained, images: Tensor) -> Scene:
    """Scenes of images (F, 3, S, S) at the guide's mode, with visible masks."""
    pyro.set_rng_seed(0)
    return with_masks(infer(run.program, run.guide, images))


def picture(images: Tensor, scene: Scene) -> Figure:
    """Frames, inferred boxes, what is of an object, and the street without its cars."""
    nodes = scene.objects
    pairs = zip(nodes.mask, nodes.present, strict=True)
    rows = {"frame": images, "boxes": images}
    rows["cars"] = torch.stack([plots.coloured(mask > 0.5, there) for mask, there in pairs])
    rows["street"] = scene.background
    return plots.maps_figure(rows, {"boxes": scene})


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("analysis.papers.denf.street", __doc__)
    a.add_argument("run", metavar="RUN", help="run folder of a training on car-detection.mp4")
    a.add_argument("--picture", type=new_file, metavar="FILE.png")
    a.add_argument("--json", type=new_file, metavar="FILE.json")
    o = a.parse_args(arguments)
    run = open_run(o.run)
    images = frames(run)
    scene, numbers = explained(run, images), list(LABELS)
    parts = {"all": count(scene, numbers), "later": count(scene[-5:], numbers[-5:])}
    for name, own in parts.items():
        print(
            f"{name} frames: {own.found} of {own.cars} cars found; {own.objects - own.found} objects too many"
        )
    if o.picture:
        plots.save(picture(images, scene), o.picture)
    if o.json:
        write_json(o.json, {name: asdict(own) for name, own in parts.items()})


if __name__ == "__main__":
    sys.exit(main())
