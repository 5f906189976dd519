"""Measure a run: every metric that the program's Scene and the world's truth allow.

    python -m analysis.evaluate RUN [--world W] [--scenes N] [--seed S] [--json FILE]

Graph metrics read the scene at the guide's mode; ELBO and IWAE are means over hard draws in nats. No
relaxed value, KL weight or auxiliary term enters.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyro
import torch

from analysis import metrics as m
from analysis.features import random_convolutions
from analysis.posterior import infer, iwae, log_weights
from inference import checkpoint
from inference.data import Dataset, FolderConfig, image_folder, load_world, world_dataset
from programs import render
from programs.loading import ROOT, Function, imported, load, override
from programs.scene import Scene

DRAWS = 10
"""draws an image for ELBO and IWAE"""


def floats(data: Dataset, device: torch.device | str, number: int | None = None) -> torch.Tensor:
    """(B, C, H, W) in [0, 1] on the device."""
    images = data.images[:number]
    return torch.as_tensor(images).to(device).float() / 255


def graph_metrics(
    program: Callable, guide: Callable, data: Dataset, device: torch.device | str
) -> dict[str, float]:
    """Counts, F1, recall, structure and reconstruction error of the scenes at the guide's mode.

    Only what can be measured: nothing for a program that returns no Scene, only `mse` without truth.
    """
    images = floats(data, device)
    scene, soft = (infer(program, guide, images, soft) for soft in (False, True))
    if scene is None:
        return {}
    scene, soft = with_masks(scene), with_masks(soft)
    found = {"mse": m.mse(scene, images.cpu())}
    if data.labels is not None and scene.levels:
        found = m.scene_metrics(scene, data.truth(slice(0, len(images))), soft) | found
    return found


def with_masks(scene: Scene) -> Scene:
    """The scene on the CPU, with the masks that its patches make, if it has patches."""
    scene = scene.map(lambda t: t.cpu())
    if scene.levels and scene.levels[-1].patch is not None:
        scene = scene.with_masks(render.visible_masks(scene))
    return scene


def fid_like(
    program: Callable, images: torch.Tensor, features: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """Fréchet distance between as many scenes of the prior as there are images, and the images.

    Args:
        images: (B, C, H, W) in [0, 1].
        features: images -> (B, F).
    """
    with torch.no_grad():
        prior = [program(batch=len(part)).image for part in images.split(100)]
    return m.frechet_distance(features(torch.cat(prior)), features(images))


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
    images = floats(data, device)
    weights = log_weights(program, guide, images, DRAWS).cpu()
    elbo = float(weights.mean())
    if "mse" in found:  # the program returns Scenes
        found["fid_like"] = fid_like(program, images, features)
    return {
        **found,
        "elbo": elbo,
        "iwae": float(iwae(weights).mean()),
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

    figures = {"curves.png": plots.curves_figure(log)}
    images = floats(data, device, 6)
    scene = infer(program, guide, images)
    if scene is not None:
        if scene.levels:
            figures["scene_graphs.png"] = plots.scene_graph_figure(images.cpu(), scene)
        else:
            figures["reconstructions.png"] = plots.reconstruction_figure(images.cpu(), scene)
        with torch.no_grad():
            prior = program(batch=24).map(lambda t: t.cpu())
        figures["prior_scenes.png"] = plots.sample_figure(prior)
        if prior.levels and prior.objects.patch is not None:
            figures["prior_objects.png"] = plots.object_figure(prior)
    for name, figure in figures.items():
        plots.save(figure, out / name)
    return [out / name for name in figures]


def find_run(run: str | Path) -> Path:
    """The folder of a run, given itself or the name of a shipped one.

    Raises:
        ValueError: no such run.
    """
    shipped = ROOT / "programs" / "trained"
    folder = Path(run) if (Path(run) / "config.json").is_file() else shipped / str(run)
    if not (folder / "config.json").is_file():
        names = ", ".join(sorted(p.parent.name for p in shipped.glob("*/config.json"))) or "none"
        raise ValueError(
            f"{str(run)!r} is no run: give a folder with config.json, or one of {names}"
        )
    return folder


def open_run(run: str | Path) -> tuple[torch.nn.Module, torch.nn.Module, dict[str, Any]]:
    """A trained program, its guide and its config.json, from a run folder or a shipped run's name.

    Raises:
        ValueError: no such run, or weights that do not fit the program.
    """
    folder = find_run(run)
    config = json.loads((folder / "config.json").read_text())
    source = load(config["program"])
    changes = {k: _tuples(v) for k, v in config["config"].items()}
    base = source.variants[config["variant"]]
    program, guide = source.build(override(base, changes, f"program {source.name}"))
    weights = read_weights(folder)
    if isinstance(program, Function):  # plain functions register their parameters when they run
        pyro.clear_param_store()
        size = config["world"]["size"]
        colours = config["world"].get("colours", 3)
        guide(torch.zeros(1, colours, size, size)), program(torch.zeros(1, colours, size, size))
    program.load_state_dict(weights["program"])
    guide.load_state_dict(weights["guide"])
    return program.eval(), guide.eval(), config


def steps(run: str | Path) -> dict[str, int]:
    """How long a run was trained, as its own metrics.json says."""
    file = find_run(run) / "metrics.json"
    measured = json.loads(file.read_text()) if file.is_file() else {}
    return {k: v for k, v in measured.items() if k == "step"}


def unseen(config: dict[str, Any], world: str | None, number: int, seed: int) -> Dataset:
    """Images to measure a run on: scenes of its own world or of another, or its folder's pictures.

    Another world is drawn at the run's size, and with those of the run's options that it has too.

    Raises:
        ValueError: unknown world, or a folder that is no longer there.
    """
    if config["images"] and not world:
        return image_folder(config["images"], FolderConfig(**config["world"]))
    name = world or config["recipe"]["world"]
    options = load_world(name).Config
    known = {f.name for f in fields(options)}
    same = options(**{k: _tuples(v) for k, v in config["world"].items() if k in known})
    return world_dataset(name, number, "test", seed=seed, config=same)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def read_weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """State dictionaries of program and guide, from weights.safetensors (shipped) or the checkpoint."""
    released = folder / "weights.safetensors"
    if not released.is_file():
        return checkpoint.load(folder / "checkpoint.ckpt")["modules"]
    from safetensors.torch import load_file

    flat = load_file(released)
    parts: dict[str, dict[str, torch.Tensor]] = {"program": {}, "guide": {}}
    for name, tensor in flat.items():
        owner, _, key = name.partition("/")
        parts[owner][key] = tensor
    return parts


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    a = argparse.ArgumentParser(
        prog="python -m analysis.evaluate", description=__doc__.split("\n")[0]
    )
    a.add_argument("run", metavar="RUN", help="run folder, or name of a run in programs/trained")
    a.add_argument("--world", metavar="W", help="another world than the run's, at the run's size")
    a.add_argument("--scenes", type=int, default=500, metavar="N")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    a.add_argument(
        "--features", default="analysis.features:random_convolutions", metavar="MODULE:CALLABLE",
        help="net of the Fréchet distance: images (B, C, H, W) in [0, 1] -> (B, F)",
    )  # fmt: skip
    a.add_argument("--json", type=Path, metavar="FILE", help="write the metrics there too")
    options = a.parse_args(arguments)
    try:
        program, guide, config = open_run(options.run)
        data = unseen(config, options.world, options.scenes, options.seed)
        features = imported(options.features, "--features")
        found = steps(options.run) | evaluate(program, guide, data, "cpu", options.seed, features)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
