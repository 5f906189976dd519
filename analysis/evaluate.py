"""Measure a run: every metric that the program's Scene and the world's truth allow.

    python -m analysis.evaluate RUN [--world W] [--scenes N] [--seed S] [--json FILE]

Graph metrics read the scene at the guide's mode; ELBO and IWAE are means over hard draws in nats. They
contain no relaxed value, KL weight or auxiliary term.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch

from analysis import scores
from analysis.command import new_file, of_run, write_json
from analysis.posterior import infer, iwae, log_weights, prior_scenes, samples, shared_latents
from analysis.scores.features import random_convolutions
from inference import checkpoint
from inference.command import told
from inference.images.dataset import Dataset
from inference.loading import imported
from inference.log import read_log
from inference.runs import open_run
from inference.trainer import Training
from programs.blocks import render
from programs.scene import Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = 10
"""draws per image for ELBO and IWAE"""


def trained_on(description: Mapping[str, Any]) -> bool:
    """Whether a data set is a folder, of which all pictures are for training and for tests."""
    return "split" not in description


def graph_metrics(
    program: Callable, guide: Callable, data: Dataset, device: torch.device | str
) -> dict[str, float]:
    """Counts, F1, recall, structure and reconstruction error of the scenes at the guide's mode.

    It is empty for a program that returns no Scene, and only has `mse` without truth.
    """
    images = data.floats(device)
    scene, soft = (infer(program, guide, images, soft) for soft in (False, True))
    if scene is None:
        return {}
    scene, soft = with_masks(scene), with_masks(soft)
    found = {"mse": scores.mse(scene, images.cpu())}
    if data.known and scene.levels:
        truth = data.truth()
        found = scores.scene_metrics(scene, truth, soft) | found
        found |= scores.count_errors(scene, truth)
    return found


def with_masks(scene: Scene) -> Scene:
    """The scene on the CPU, with masks drawn from its patches, if it has patches."""
    scene = scene.cpu()
    if scene.levels and scene.levels[-1].patch is not None:
        scene = scene.with_masks(render.visible_masks(scene))
    return scene


def shared(guide: Callable, images: torch.Tensor) -> list[str]:
    """Names of latents that are of all images: with such there is no bound per image but the ELBO."""
    with torch.no_grad(), torch.random.fork_rng():
        return shared_latents(pyro.poutine.trace(guide).get_trace(images[:2]))


def fid_like(
    program: Callable, images: torch.Tensor, features: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """Fréchet distance between the images and the same number of scenes of the prior.

    Args:
        images: (B, C, H, W) in [0, 1].
        features: images -> (B, F).
    """
    prior = torch.cat([scene.image for scene in prior_scenes(program, len(images))])
    return scores.frechet_distance(features(prior), features(images))


def flow_metrics(program: torch.nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Exact metrics of an invertible program: bits per number of an image, and the error of f(f⁻¹(x)).

    The bits are a bound, as the dequantisation noise is drawn once per image; the error is a maximum.
    """
    with torch.no_grad():
        parts = images.split(32)
        evidence = torch.cat([program.evidence(x) for x in parts])
        error = max(float((program.round_trip(x) - x).abs().max()) for x in parts)
    bits = scores.bits_per_dimension(evidence.cpu(), images[0].numel())
    return {"bits_per_dimension": bits, "inverse_error": error}


def evaluate(
    program: torch.nn.Module,
    guide: torch.nn.Module,
    data: Dataset,
    device: torch.device | str,
    seed: int,
    features: Callable[[torch.Tensor], torch.Tensor] = random_convolutions,
) -> dict[str, Any]:
    """All metrics on `data`, with the number of scenes and the seed that made them.

    Args:
        features: the net of `fid_like`.
    """
    pyro.set_rng_seed(seed)
    program.eval(), guide.eval()
    started = time.monotonic()
    found = graph_metrics(program, guide, data, device)
    seconds = time.monotonic() - started
    images = data.floats(device)
    weights = log_weights(program, guide, images, DRAWS).cpu()
    elbo = float(weights.mean())
    bounds = {} if shared(guide, images) else {"iwae": float(iwae(weights).mean())}
    if "mse" in found and len(images) > 1 and samples(program):  # Scenes, and more than one
        found["fid_like"] = fid_like(program, images, features)
    if hasattr(program, "evidence"):
        found |= flow_metrics(program, images)
    return {
        **found,
        "elbo": elbo,
        **bounds,
        "elbo_per_pixel": elbo / (images.shape[-1] * images.shape[-2]),
        "seconds": seconds,
        "images_per_second": len(images) / seconds,
        "scenes": len(images),
        "draws": DRAWS,
        "seed": seed,
        "data": data.description,
    }


def table(metrics: dict[str, Any]) -> str:
    """The numbers as aligned lines."""
    numbers = {k: v for k, v in metrics.items() if isinstance(v, float)}
    return "\n".join(f"  {name:<24} {value:10.4f}" for name, value in numbers.items())


def pictures(
    program: torch.nn.Module,
    guide: torch.nn.Module,
    data: Dataset,
    log: list[dict],
    out: Path,
    device: torch.device | str,
) -> list[Path]:
    """Draw scene graphs, samples of the prior, and curves into a folder; returns the files."""
    from analysis import plots
    from analysis.posterior import layers

    figures = {"curves.png": plots.curves_figure(log)}
    images = data.floats(device, 6)
    scene = infer(program, guide, images)
    if scene is not None:
        if scene.levels:
            figures["scene_graphs.png"] = plots.scene_graph_figure(images.cpu(), scene)
        else:
            figures["reconstructions.png"] = plots.reconstruction_figure(images.cpu(), scene)
        if layers.has_layers(program, scene):
            figures["layers.png"] = plots.layers_figure(images.cpu(), scene)
        if samples(program):
            figures |= prior_figures(program)
        if getattr(program, "memory", None) is not None:
            with torch.no_grad():
                figures["memory.png"] = plots.memory_figure(program.memory.samples(6).cpu())
    for name, figure in figures.items():
        plots.save(figure, out / name)
    return [out / name for name in figures]


def prior_figures(program: torch.nn.Module) -> dict[str, Figure]:
    """Scenes of the prior, and their objects where they have patches, by file name."""
    from analysis import plots

    with torch.no_grad():
        prior = program(batch=24).cpu()
    figures = {"prior_scenes.png": plots.sample_figure(prior)}
    if prior.levels and prior.objects.patch is not None:
        figures["prior_objects.png"] = plots.object_figure(prior)
    return figures


class SceneEvaluator:
    """Measures a training for the command `inference.svi`."""

    def briefly(self, t: Training, data: Dataset) -> dict[str, float]:
        """Graph metrics on validation scenes."""
        return graph_metrics(t.program, t.guide, data, t.plan.device)

    def finish(self, t: Training, data: Dataset, out: Path) -> None:
        """Measure on unseen images, draw the pictures, print where the files are."""
        step = t.trainer.step
        found = evaluate(t.program, t.guide, data, t.plan.device, seed=t.plan.seed)
        checkpoint.write_json(out / "metrics.json", {"step": step, **found})
        log = read_log(out / "log.jsonl")
        drawn = pictures(t.program, t.guide, data, log, out, t.plan.device)
        print(table(found))
        print(f"step {step}; weights, log and metrics in {out}; pictures:")
        for path in drawn:
            print(f"  {path}")
        if plain_priors(t.program):
            print(
                "its priors are the paper's; fitted to what it has inferred they give better scenes:"
            )
            print(f"  python -m inference.fit_prior {out} --out {out}-fitted")


def plain_priors(program: object) -> bool:
    """Whether a program could have learned priors (`Config.learned`), and has the paper's."""
    return getattr(getattr(program, "config", None), "learned", None) == 0


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = of_run("analysis.evaluate", __doc__, scenes=500)
    a.add_argument("--world", metavar="W", help="another world than the run's, at the run's size")
    a.add_argument(
        "--features", default="analysis.scores.features:random_convolutions", metavar="MODULE:CALLABLE",
        help="net of the Fréchet distance: images (B, C, H, W) in [0, 1] -> (B, F)",
    )  # fmt: skip
    a.add_argument("--json", type=new_file, metavar="FILE", help="write the metrics there too")
    o = a.parse_args(arguments)
    run = open_run(o.run)
    data = run.unseen(o.scenes, o.seed, o.world)
    features = imported(o.features, "--features")
    found = run.steps | evaluate(run.program, run.guide, data, "cpu", o.seed, features)
    if trained_on(data.description):
        print("all pictures of the folder, which the run was trained on:")
    print(table(found))
    write_json(o.json, found)


if __name__ == "__main__":
    sys.exit(main())
