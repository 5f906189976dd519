"""Compare scenes that a program draws from its prior with its world, and find the site to blame.

    python -m analysis.generation RUN [--scenes N] [--seed S] [--json FILE]

A net that is trained on the run's training scenes and on broken ones decides which scenes are valid, and
counts their objects per category (`analysis.judges.scenes`); another one names single objects, if program
and world have them (`analysis.judges.objects`). A judge that passes less than .95 of unseen true scenes, or
more than .05 of broken ones, is not used. Numbers, categories, sizes and places of the prior are compared
with the world's by total variation; images by Fréchet distances, a classifier two-sample test, precision
and recall.

To find the site to blame, each site in turn comes from the prior with all others from the guide, and from
the guide with all others from the prior (`analysis.judges.blame`).

Shape legend: B scenes, N slots.
"""

from __future__ import annotations

import sys
from typing import Any

import pyro
import torch
from torch import Tensor

from analysis.command import aligned, new_file, of_run, write_json
from analysis.judges import blame, objects, samples, scenes
from analysis.posterior import infer, prior_scenes
from analysis.scores import frechet_distance, owners
from analysis.scores.features import random_convolutions
from inference.command import told
from inference.images.dataset import Dataset
from inference.runs import Trained, open_run
from programs.scene import Scene, concatenate

LESSON = 4000
"""Largest number of training scenes of the run's world on which judges are trained."""
OBJECTS = 1500
"""Number of these scenes whose objects are cut out."""
BLAMED = 200
"""Scenes per exchange of a site."""
PLACES = 4
"""Cells per side of the image in histograms of places."""
SIZES = 4
"""Cells per octave of the side in histograms of sizes."""


def generation(
    run: Trained, data: Dataset, number: int = 500, blamed: int = BLAMED
) -> dict[str, Any]:
    """Compare the prior's scenes with the world's.

    Args:
        data: unseen scenes of the world, with truth.
        number: scenes of the prior.
        blamed: scenes of each exchange of sites; 0 for none.
    Returns:
        `judge`: its errors; `valid`: owner of the scenes -> valid share, empty if the judge is not good;
        `distance` name -> total variation; `images` name -> comparison of images; `objects`, where there are
        some, shares of valid objects; `blame` a row per site; `scenes` how many.
    Raises:
        ValueError: the images have no truth.
    """
    lesson = run.training(LESSON)
    judge = scenes.judge(lesson, data)
    images = data.floats()
    prior = concatenate([scene.cpu() for scene in prior_scenes(run.program, number)])
    inferred = infer(run.program, run.guide, images).cpu()
    shown = {"true": images, "inferred": inferred.image, "prior": prior.image}
    readings = {whose: judge.read(x) for whose, x in shown.items()}
    found = {
        "judge": judge.errors._asdict(),
        "valid": valid_shares(judge, readings),
        "distance": read_distances(readings) | node_distances(prior, inferred),
        "images": compared(shown, readings),
        "scenes": number,
    }
    if objects.judges(run.program, data):
        net = objects.trained(lesson.first(OBJECTS).truth())
        named = objects.valid_objects(net, data.truth(), inferred, prior)
        found["objects"] = named._asdict() | {"good": named.good}
    if blamed:
        found["blame"] = blames(run, judge, images[:blamed])
    return found


def valid_shares(judge: scenes.Judge, readings: dict[str, scenes.Reading]) -> dict[str, float]:
    """Owner of the scenes -> valid share; empty if the judge cannot be trusted."""
    if not judge.errors.good:
        return {}
    return {whose: float(r.valid.double().mean()) for whose, r in readings.items()}


def read_distances(readings: dict[str, scenes.Reading]) -> dict[str, float]:
    """Total variation of number and category between images of the prior and of the world, as the net reads.

    Empty if all true scenes have the same numbers, because a net cannot learn other numbers from them.
    """
    prior, true = readings["prior"].numbers, readings["true"].numbers
    if (true == true[0]).all():
        return {}
    found = {"number": samples.total_variation(prior.sum(1), true.sum(1))}
    if prior.shape[1] > 1:
        found["category"] = samples.total_variation(_listed(prior), _listed(true))
    return found


def _listed(numbers: Tensor) -> Tensor:
    """(M,) one category per object, from numbers (B, K)."""
    return torch.arange(numbers.shape[1]).repeat_interleave(numbers.sum(0))


def node_distances(prior: Scene, inferred: Scene) -> dict[str, float]:
    """Total variation of sizes, places and parts between nodes of the prior and nodes inferred from the
    world."""
    if not prior.levels:
        return {}
    both = [(counted(p), counted(i)) for p, i in zip(prior.levels, inferred.levels, strict=True)]
    found = {}
    for level, (p, i) in enumerate(both, start=1):
        suffix = f"_{level}" if len(both) > 1 else ""
        found |= {f"{k}{suffix}": samples.total_variation(p[k], i[k]) for k in p}
    if prior.parts is not None:
        found["parts_of_object"] = samples.total_variation(
            *map(parts_of_objects, (prior, inferred))
        )
    return found


def counted(nodes: Any) -> dict[str, Tensor]:
    """Size and place of the present nodes as whole numbers (M,), and their number per scene (B,)."""
    extent = nodes.extent[nodes.present].prod(-1).sqrt().clamp(1e-3, 4)
    size = (SIZES * (extent.log2() + 10)).long().clamp(min=0)
    place = (PLACES / 2 * (nodes.centre[nodes.present] + 1)).long().clamp(0, PLACES - 1)
    return {
        "nodes": nodes.present.sum(1),
        "size": size,
        "place": place[:, 0] + PLACES * place[:, 1],
    }


def parts_of_objects(scene: Scene) -> Tensor:
    """(M,) number of parts of each present object."""
    slots = scene.objects.pres.shape[1]
    member = (owners(scene)[..., None] == torch.arange(slots)) & scene.parts.present[..., None]
    return member.sum(1)[scene.objects.present]


def compared(shown: dict[str, Tensor], readings: dict[str, scenes.Reading]) -> dict[str, float]:
    """Compare images of the prior and of the world, in the judge's features and in random ones."""
    prior, true = readings["prior"].features, readings["true"].features
    precision, recall = samples.precision_recall(prior, true)
    return {
        "frechet_judge": frechet_distance(prior, true),
        "frechet_random": frechet_distance(
            random_convolutions(shown["prior"].clamp(0, 1)), random_convolutions(shown["true"])
        ),
        "told_apart": samples.told_apart(prior, true),
        "precision": precision,
        "recall": recall,
    }


def blames(run: Trained, judge: scenes.Judge, images: Tensor) -> list[dict[str, Any]]:
    """One row per group of sites: share of valid scenes and Fréchet distances with this group exchanged."""
    true, rows = judge.read(images).features, {}
    for pattern, whose, x in blame.exchanges(run.program, run.guide, images):
        reading, row = judge.read(x), rows.setdefault(pattern, {"site": pattern})
        if judge.errors.good:
            row[f"valid, {whose} alone"] = float(reading.valid.double().mean())
        row[f"frechet, {whose} alone"] = frechet_distance(reading.features, true)
    return list(rows.values())


def table(found: dict[str, Any]) -> str:
    """The numbers as aligned lines."""
    errors = found["judge"]
    lines = [f"  judge passes: true {errors['true']:.3f}, broken {errors['broken']:.3f}; reads the number "
             f"right: {errors['number']:.3f}"]  # fmt: skip
    if not found["valid"]:
        lines.append("  the judge is not good enough to say which scenes are valid")
    lines += [f"  {f'valid scenes, {whose}':<34}{v:8.3f}" for whose, v in found["valid"].items()]
    if "objects" in found:
        lines += objects_lines(found["objects"])
    lines += [f"  {f'total variation, {n}':<34}{v:8.3f}" for n, v in found["distance"].items()]
    lines += [f"  {n:<34}{v:8.3f}" for n, v in found["images"].items()]
    if "blame" in found:
        head = (
            "all from the guide (prior alone) and all from the prior (guide alone) in the first row"
        )
        lines += [f"  sites exchanged; {head}", aligned(found["blame"])]
    return "\n".join(lines)


def objects_lines(named: dict[str, Any]) -> list[str]:
    """Lines about single objects."""
    valid = named["valid"]
    lines = [f"  judge of objects passes: true {valid['true']:.3f}, mixed {valid['mixed']:.3f}; names the type "
             f"right: {named['right']:.3f}"]  # fmt: skip
    if not named["good"]:
        return [*lines, "  it is not good enough to say which objects are valid"]
    return lines + [f"  {f'valid objects, {w}':<34}{valid[w]:8.3f}" for w in ("inferred", "prior")]


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = of_run("analysis.generation", __doc__, scenes=500)
    a.add_argument("--json", type=new_file, metavar="FILE", help="write the numbers there")
    o = a.parse_args(arguments)
    pyro.enable_validation(False)
    pyro.set_rng_seed(o.seed)
    run = open_run(o.run)
    found = generation(run, run.unseen(o.scenes, o.seed), o.scenes)
    print(table(found))
    write_json(o.json, found | {"seed": o.seed})


if __name__ == "__main__":
    sys.exit(main())
