"""Table 1 of the ECON paper, the search of appendix C.4, and the experts' competition (section 5.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pyro
import torch
from torch import Tensor

from analysis.papers.econ.abilities import TEXTS, of_programs
from analysis.papers.econ.validity import validity
from analysis.papers.explained import explained
from analysis.papers.item import Made, Request, Row, Training
from analysis.papers.published import PUBLISHED
from analysis.posterior import log_weights
from analysis.scores import scene_metrics, simple_scores
from inference.images.dataset import Dataset
from inference.log import read_log
from inference.runs import Trained
from programs.scene import Scene

UNIQUE = Training("econ", "econ", "sprites_unique", shipped="econ-sprites_unique")
RANDOM = Training("econ", "econ_random", "sprites_random", shipped="econ-sprites_random")
SCENES = 200
"""Scenes on which a run's scores are measured."""
DRAWS = 5
"""Draws per image for the ELBO."""
OURS = {"GENESIS": "genesis", "ECON": "econ"}
"""Models of Table 1 that exist as programs here. IODINE and M-RBM do not, and `monet` is the paper's generative
extension of MONet, whose original draws no scenes."""
SCORES = ("ari_fg", "object_count_accuracy", "shape_iou", "hidden_iou", "depth_order_accuracy")
COMPETING = ("ari_fg", "category_correspondence", "expert_purity", "experts_alive")
ABLATED = (
    "ari_fg",
    "ari",
    "object_count_accuracy",
    "shape_iou",
    "hidden_iou",
    "depth_order_accuracy",
    "expert_purity",
    "experts_alive",
    "seconds_per_step",
    "steps",
)
SEARCHED = ("elbo_per_pixel", "ari_fg", "expert_purity")
PLACE = 2
"""Number of latents of an object's place, which the paper's numbers do not include."""
RANGES = {
    "unique": {"latents": (2, 3), "blocks": (2, 4), "features": (4, 32)},
    "random": {"latents": (4, 5), "blocks": (3, 4), "features": (16, 32)},
}
"""Ranges of the search in C.4, first and last value."""
# differs: the paper also draws weights of KLs; here they are the recipe's.
DRAWN = 4
"""Architectures per set; the paper has 512."""

Runs = Mapping[str, Trained]


def table1(runs: Runs, request: Request) -> Made:
    """Abilities of programs; 1 for yes.

    # differs: "coherent scenes like training data" means here that a scene can be drawn without an image.
    """
    printed, rows, found = PUBLISHED["econ", "table1"], [], of_programs()
    for model in printed.rows:
        properties = found.get(OURS.get(model, ""), {})
        for ability in printed.columns:
            ours = float(properties[ability]) if properties else None
            rows.append(Row(model, ability, ours, printed.figure(model, ability)))
    case = "all programs, and objects in a chosen order"
    rows += [
        Row(variant, ability, float(can), None, case)
        for variant, properties in found.items()
        for ability, can in properties.items()
    ]
    return Made(tuple(rows), text="\n".join(f"{name}: {text}" for name, text in TEXTS.items()))


def scores(
    run: Trained,
    data: Dataset,
    images: Tensor | None = None,
    layers: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Every metric at the guide's mode.

    Args:
        images: (B, C, H, W) in [0, 1] in place of the data's own, such as changed ones.
        layers: how many the program places; by default its own number.
    """
    with run.program.placing(layers or run.program.layers):
        x = explained(run, data, seed, images)
    return scene_metrics(x.scene, x.truth)


def validity_rows(name: str, run: Trained, request: Request, number: int = 500) -> list[Row]:
    """Shares of sampled scenes that show the chosen classes, beside those of true scenes."""
    pyro.set_rng_seed(request.seed)
    rows, data = [], run.unseen(100, request.seed)
    number = request.scenes or number
    for case, found in validity(run.program, run.guide, data, number).items():
        for model, prefix in ((name, ""), ("true scenes", "true_")):
            for metric in ("count", "classes"):
                rows.append(Row(model, metric, found[prefix + metric], None, case, number))
    return rows


def simple_rows(
    images: Tensor, truth: Scene, metrics: tuple[str, ...], case: str = ""
) -> list[Row]:
    """The scores of scenes that need no learning, as a floor."""
    return [
        Row(name, m, found[m], None, case, len(images))
        for name, found in simple_scores(images, truth).items()
        for m in metrics
        if m in found
    ]


def compared(metrics: tuple[str, ...]) -> Callable[[Runs, Request], Made]:
    """A row of metrics for every run."""

    def make(runs: Runs, request: Request) -> Made:
        rows, number, sets = [], request.scenes or SCENES, {}
        for name, run in runs.items():
            data = run.unseen(number, request.seed)
            found = scores(run, data, seed=request.seed) | pace(run)
            if "elbo_per_pixel" in metrics:
                images = data.floats()
                weights = log_weights(run.program, run.guide, images, DRAWS)
                found["elbo_per_pixel"] = float(weights.mean()) / images[0, 0].numel()
            world = run.config["recipe"]["world"]
            rows += [Row(name, m, found[m], None, world, number) for m in metrics if m in found]
            sets[world] = data
        for world, data in sets.items():
            rows += simple_rows(data.floats(), data.truth(), metrics, world)
        return Made(tuple(rows))

    return make


def pace(run: Trained) -> dict[str, float]:
    """Seconds per step of a training, the median over its log, and its steps; empty without a log."""
    file = run.folder / "log.jsonl"
    log = [r for r in read_log(file) if "images_per_second" in r] if file.is_file() else []
    if not log:
        return {}
    speed = sorted(r["images_per_second"] for r in log)[len(log) // 2]
    return {"seconds_per_step": run.config["recipe"]["batch"] / speed, "steps": log[-1]["step"]}


def search(seed: int = 0) -> dict[str, Training]:
    """Trainings of random architectures from the ranges of appendix C.4."""
    found, generator = {}, torch.Generator().manual_seed(seed)
    for kind, own in (("unique", UNIQUE), ("random", RANDOM)):
        for _ in range(DRAWN):
            drawn = {
                name: int(torch.randint(low, high + 1, (), generator=generator))
                for name, (low, high) in RANGES[kind].items()
            }
            title = "{latents} latents {blocks} blocks {features} features".format(**drawn)
            drawn["latents"] += PLACE
            settings = tuple(f"{name}={value}" for name, value in drawn.items())
            found[f"{kind} {title}"] = Training(own.program, own.variant, own.world, settings)
    return found


SEARCH = search()
TEXTURED = {
    "ECON textured": Training(
        *("econ", "econ_random", "sprites_random"),
        set=("world.texture=noise", "world.strength=25.0", "contrast=10.0"),
        quick="long",
    )
}
"""Random colours under smooth noise, so that every object has many colours."""
SEGMENTED = (
    *("ari_fg", "ari", "object_count_accuracy", "shape_iou", "hidden_iou"),
    *("depth_order_accuracy", "expert_purity"),
)
COMPETITION = {
    "ECON": UNIQUE,
    "shape alone": Training("econ", "econ", "sprites_unique", ("appearance=0.0",)),
    "ECON random": RANDOM,
    "appearance too": Training("econ", "econ_random", "sprites_random", ("appearance=1.0",)),
}
"""λ of section 5.2: experts compete by appearance and shape with unique colours, by shape with random ones."""

ADDITIONS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "rate of 2e-3": ("train.rate=4.0",),
    "networks": ("hidden=64", "activation=elu", "pooling=False"),
    "narrow": ("narrow=-2.3",),
    "places": ("placed=True", "latents={}"),
    "prices": ("balance=0.5",),
    "two looks": ("looks=2", "judged=2"),
    "likeness": ("attend=likeness", "faint=0.2"),
    "ratio": ("compete=ratio", "sharpness=10.0"),
    "likeness, ratio": ("attend=likeness", "faint=0.2", "compete=ratio", "sharpness=10.0"),
    "… and behind": (
        "attend=likeness",
        "faint=0.2",
        "compete=ratio",
        "sharpness=10.0",
        "behind=True",
    ),
}
"""Settings of `econ_plain` that make each addition alone; with places there are two more latents."""


def ablation() -> dict[str, Training]:
    """Plain ECON, with each addition alone, and ours with all, on both sets."""
    found = {}
    sets = ("unique", "econ_plain", UNIQUE, 2), ("random", "econ_plain_random", RANDOM, 5)
    for kind, variant, own, latents in sets:
        for name, words in ADDITIONS.items():
            settings = tuple(word.format(latents + PLACE) for word in words)
            label = f"{kind} {name}".replace(",", "").replace(" …", "")
            found[f"{kind}: {name}"] = Training("econ", variant, own.world, settings, name=label)
        found[f"{kind}: all"] = replace(own, shipped=None, name=f"{kind} all")
    return found


ABLATION = ablation()
