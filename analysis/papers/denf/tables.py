"""The tables of the DeNF paper, and the fidelity that section 4 claims.

# differs: the paper's scores of Table 1 are means over trainings; here each row is one training, with the
requested seed.
# differs: Fréchet distances here are on random convolutions ("fid_like"), not on Inception's features, so
they are shown beside the paper's FID but cannot be compared with it.
# differs: with the preset quick, whose images have 48 pixels per side, "32 x 32 cells" are 12 x 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pyro
import torch
from torch import Tensor

from analysis.evaluate import flow_metrics, with_masks
from analysis.papers.denf.clustering import sweep
from analysis.papers.denf.fidelity import edits_figure, removals, subsets
from analysis.papers.explained import explained
from analysis.papers.item import Made, Request, Row, Training
from analysis.papers.published import PUBLISHED
from analysis.posterior import prior_scenes
from analysis.scores import frechet_distance, scene_metrics
from analysis.scores.features import random_convolutions
from inference.images.dataset import Dataset
from inference.images.worlds import load_world, world_dataset
from inference.runs import Trained
from inference.settings import override

SCENES = 500
"""Scenes on which a run's scores are measured."""
CLUSTERED = 200
"""Scenes in which colours are clustered."""
PICTURES = 500
"""Images on each side of a Fréchet distance; the paper has 10,000."""
REMOVED = 200
"""Scenes whose objects are removed one by one."""
SCORES = ("ari_fg", "ari", "ap50", "object_count_accuracy")
"""Scores of tables 1 and 3. Too large masks raise `ari_fg` and lower the others; ap50 is of hard presence."""
CLEVR = Training("denf", "denf", "clevr6", shipped="denf-clevr6")
TRAFFIC = Training("denf", "denf", "traffic", shipped="denf-traffic")
# a cell has four pixels per side, not two, so an object has a fourth of the cells
COARSE = Training("denf", "denf32", "clevr6", ("least=1",))
UNIMODAL = Training("denf", "denf_unimodal", "clevr6")
# the recipe's penalties that need no spatial transformer
WITHOUT_ST = Training("denf", "denf", "clevr6", ("train.penalties=background,reconstruction",))
ABLATIONS = {
    "DeNF": CLEVR,
    "32 x 32 cells": COARSE,
    "unimodal prior": UNIMODAL,
    "without ST": WITHOUT_ST,
}
GENERATED = {
    "DeNF traffic": TRAFFIC,
    "GENESIS": Training("genesis", "genesis", "traffic", ("colours=3",)),
    "DeNF": CLEVR,
}
"""Trainings of Table 2. The paper has no FID on CLEVR6; its run is measured in the same way."""
DENSITIES = {
    "DeNF": CLEVR,
    "DeNF, likelihood alone": Training("denf", "denf", "clevr6", preset="likelihood"),
}
LOSSLESS = {"WebP": {"lossless": True, "quality": 100, "method": 6}, "PNG": {"optimize": True}}
"""Options of Pillow's encoders that lose nothing."""

Runs = Mapping[str, Trained]


def scores(run: Trained, scenes: int, seed: int = 0) -> dict[str, float]:
    """`SCORES` of the guide's mode."""
    x = explained(run, run.unseen(scenes, seed), seed)
    return {k: v for k, v in scene_metrics(with_masks(x.scene), x.truth).items() if k in SCORES}


def table1(runs: Runs, request: Request) -> Made:
    """Segmentation of CLEVR6, beside the printed scores of the literature and the best clustering of
    colours."""
    number = request.scenes or SCENES
    found = {name: scores(run, number, request.seed) for name, run in runs.items()}
    rows = list(_beside("table1", found, number))
    number = min(number, CLUSTERED)
    data = clevr_like(runs.get("DeNF"), number, request.seed)
    setting, share = list(sweep(data, request.seed).items())[-1]
    rows.append(Row(f"k-means, {setting}", "ari_fg", share, None, "clustering of colours", number))
    return Made(tuple(rows))


def clevr_like(run: Trained | None, scenes: int, seed: int) -> Dataset:
    """Scenes of a run's world; without a run, scenes of CLEVR6 at the size of the preset quick."""
    if run is not None:
        return run.unseen(scenes, seed)
    world = load_world("clevr6")
    return world_dataset("clevr6", scenes, "test", seed, override(world.config(), {"size": 48}, ""))


def table3(runs: Runs, request: Request) -> Made:
    """Ablations: scores of each, beside the printed ones."""
    number = request.scenes or SCENES
    found = {name: scores(run, number, request.seed) for name, run in runs.items()}
    return Made(tuple(_beside("table3", found, number)))


def _beside(table: str, found: Mapping[str, Mapping[str, float]], number: int) -> list[Row]:
    """Ours beside the table's figures, one row per model and score.

    For the model without the spatial transformer the paper prints no score, only that it does not work.
    """
    printed, rows = PUBLISHED["denf", table], []
    for model in dict.fromkeys([*printed.rows, *found]):
        for metric in SCORES:
            ours, paper = found.get(model, {}).get(metric), printed.figure(model, metric)
            if metric in printed.columns or ours is not None:
                scenes = None if ours is None else number
                rows.append(Row(model, metric, ours, paper, "", scenes))
    return rows


def table2(runs: Runs, request: Request) -> Made:
    """Fréchet distances of generated from unseen images; the paper generates subsets of an input's
    objects."""
    printed, number = PUBLISHED["denf", "table2"], request.scenes or PICTURES
    rows = [
        Row(model, "fid", None, figures[0], "traffic, Inception")
        for model, figures in printed.rows.items()
    ]
    for name, run in runs.items():
        world = run.config["recipe"]["world"]
        model = name.partition(" ")[0]
        for kind, distance in distances(run, number, request.seed).items():
            rows.append(Row(f"{model}: {kind}", "fid_like", distance, None, world, number))
    return Made(tuple(rows))


@torch.no_grad()
def distances(run: Trained, number: int, seed: int = 0) -> dict[str, float]:
    """`fid_like` between images that a run generates and other unseen images, by kind.

    If the program can draw Scenes, subsets of an input's objects and backgrounds are included. Reconstructions
    and other true images serve for comparison.
    """
    _, images, scene = explained(run, run.unseen(number, seed), seed)
    true = random_convolutions(run.unseen(number, seed + 1).floats())
    made = {"other true images": images, "reconstructions": scene.image}
    if hasattr(run.program, "redraw"):
        generator = torch.Generator().manual_seed(seed)
        made["subsets of an input's objects"] = subsets(run.program, scene, generator)
        if scene.background is not None:
            made["backgrounds"] = scene.background
    made["prior"] = torch.cat([s.image for s in prior_scenes(run.program, number)])
    return {kind: frechet_distance(random_convolutions(x), true) for kind, x in made.items()}


def fidelity(runs: Runs, request: Request) -> Made:
    """Changes when objects are removed, in grey levels of 255, and edits of some scenes."""
    rows, figures, number = [], {}, request.scenes or REMOVED
    for name, run in runs.items():
        _, images, scene = explained(run, run.unseen(number, request.seed), request.seed)
        found = 255 * removals(run.program, scene, images)
        kinds = ("outside the box, from the scene as drawn", "outside the box, from the image")
        for kind, change in zip(kinds, found.T, strict=True):
            if len(change):
                mean, most = float(change.mean()), float(change.max())
                rows += [
                    Row(kind, "mean", mean, None, name, number),
                    Row(kind, "greatest", most, None, name, number),
                ]
        if scene.objects.present[:, 0].sum() >= 2:
            figures[name.lower().replace(" ", "_")] = edits_figure(run.program, images, scene)
    return Made(tuple(rows), figures, "absolute differences of pixels, white being 255")


def bits(runs: Runs, request: Request) -> Made:
    """Bits per number of an image: of the flow, of the flow without penalties, and of lossless files.

    A flow's are of its exact evidence, with one draw of the dequantisation noise per image. Files have headers.
    """
    rows, number = [], request.scenes or SCENES
    for name, run in runs.items():
        images = run.unseen(number, request.seed).floats()
        pyro.set_rng_seed(request.seed)
        found = flow_metrics(run.program, images)["bits_per_dimension"]
        rows.append(Row(name, "bits", found, None, "", number))
    data = clevr_like(runs.get("DeNF"), number, request.seed)
    for name, options in LOSSLESS.items():
        rows.append(
            Row(
                f"{name}, lossless", "bits", file_bits(data.images, name, options), None, "", number
            )
        )
    return Made(tuple(rows), text="bits per number of an image, of 3 numbers per pixel")


def file_bits(images: Tensor, kind: str, options: Mapping[str, Any]) -> float:
    """Mean bits per number of images (B, 3, H, W) uint8 as files of a kind that Pillow writes."""
    from PIL import Image

    total = 0
    for image in torch.as_tensor(images):
        file = BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, kind, **options)
        total += 8 * file.tell()
    return total / images.numel()
