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
from inference.clevr import ClevrConfig, clevr_with_masks, is_clevr
from inference.clips import clips, is_clips
from inference.data import Dataset, FolderConfig, image_folder, load_world, world_dataset
from programs import render
from programs.loading import ROOT, Function, Source, choose, imported, load, override
from programs.scene import Scene

CONFIG = {"program": str, "variant": str, "config": dict, "world": dict, "recipe": dict}
"""What a config.json must have to be read."""
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


def flow_metrics(program: torch.nn.Module, images: torch.Tensor) -> dict[str, float]:
    """What is exact of an invertible program: bits of a number of an image, and the error of f(f⁻¹(x)).

    The former is a bound in that what rounding took is drawn once an image; the latter a maximum.
    """
    with torch.no_grad():
        parts = images.split(32)
        evidence = torch.cat([program.evidence(x) for x in parts])
        error = max(float((program.round_trip(x) - x).abs().max()) for x in parts)
    bits = m.bits_per_dimension(evidence.cpu(), images[0].numel())
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
    images = floats(data, device)
    weights = log_weights(program, guide, images, DRAWS).cpu()
    elbo = float(weights.mean())
    if "mse" in found and len(images) > 1:  # Scenes, and more than one
        found["fid_like"] = fid_like(program, images, features)
    if hasattr(program, "evidence"):
        found |= flow_metrics(program, images)
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
    from analysis import layers, plots

    figures = {"curves.png": plots.curves_figure(log)}
    images = floats(data, device, 6)
    scene = infer(program, guide, images)
    if scene is not None:
        if scene.levels:
            figures["scene_graphs.png"] = plots.scene_graph_figure(images.cpu(), scene)
        else:
            figures["reconstructions.png"] = plots.reconstruction_figure(images.cpu(), scene)
        if layers.has_layers(program, scene):
            figures["layers.png"] = plots.layers_figure(images.cpu(), scene)
        with torch.no_grad():
            prior = program(batch=24).map(lambda t: t.cpu())
        figures["prior_scenes.png"] = plots.sample_figure(prior)
        if prior.levels and prior.objects.patch is not None:
            figures["prior_objects.png"] = plots.object_figure(prior)
        if getattr(program, "memory", None) is not None:
            with torch.no_grad():
                figures["memory.png"] = plots.memory_figure(program.memory.samples(6).cpu())
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

    Nothing in the folder is run as code; the program file that config.json names is imported.

    Raises:
        ValueError: no such run, files that are damaged or of a newer version, or weights that do not fit the
            program; the message names the file.
    """
    folder = find_run(run)
    config = read_config(folder)
    source = load(config["program"])
    try:
        base = choose(source.variants, config["variant"], "variant")
        program, guide = source.build(override(base, config["config"], f"program {source.name}"))
    except (ValueError, RuntimeError, TypeError) as error:
        raise _unfit(folder / "config.json", source, error) from error
    weights = read_weights(folder)
    try:
        if isinstance(program, Function):  # plain functions register their parameters when they run
            pyro.clear_param_store()
            size, colours = config["world"]["size"], config["world"].get("colours", 3)
            guide(torch.zeros(1, colours, size, size)), program(torch.zeros(1, colours, size, size))
        program.load_state_dict(weights["program"])
        guide.load_state_dict(weights["guide"])
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        raise _unfit(folder, source, error) from error
    return program.eval(), guide.eval(), config


def _unfit(path: Path, source: Source, error: Exception) -> ValueError:
    reason = str(error).replace("\n\t", " ")
    return ValueError(
        f"{path} does not fit {source.path} ({reason}): it may be of a newer version of scene-programs; "
        "update, or train again"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a run folder.

    Raises:
        ValueError: it is damaged, or not a run's.
    """
    path = folder / "config.json"
    config = read_json(path)
    for name, kind in CONFIG.items():
        if not isinstance(config.get(name), kind):
            raise ValueError(
                f"{path} is not the config.json of a run: it has no {name}; restore a copy of it, or begin "
                "the run again with --resume"
            )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """The table in a file.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    try:
        table = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {path} ({error}); restore a copy of it") from error
    if not isinstance(table, dict):
        raise ValueError(
            f"{path} holds a {type(table).__name__}, expected a table; restore a copy of it"
        )
    return table


def steps(run: str | Path) -> dict[str, int]:
    """How long a run was trained, as its own metrics.json says."""
    file = find_run(run) / "metrics.json"
    measured = read_json(file) if file.is_file() else {}
    return {k: v for k, v in measured.items() if k == "step"}


def unseen(config: dict[str, Any], world: str | None, number: int, seed: int) -> Dataset:
    """Images to measure a run on: scenes of its own world or of another, or its folder's pictures.

    Another world is drawn at the run's size. A folder's pictures are those that the run was trained on.

    Raises:
        ValueError: unknown world, or a folder that is no longer there.
    """
    images = None if world else config.get("images")
    if images and is_clevr(images):
        options = override(ClevrConfig(), config["world"], "the images")
        return clevr_with_masks(images, "test", number, options)
    if images:
        options = override(FolderConfig(), config["world"], "the images")
        return clips(images, "test", options) if is_clips(images) else image_folder(images, options)
    name = world or config["recipe"].get("world")
    options = load_world(name).Config()
    own = name == config["recipe"].get("world") and not config.get("images")
    known = {f.name for f in fields(options)} if own else {"size"}
    same = {k: v for k, v in config["world"].items() if k in known}
    same = override(options, same, f"world {name}")
    return world_dataset(name, number, "test", seed=seed, config=same)


def read_weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """State dictionaries of program and guide, from weights.safetensors (shipped) or the checkpoint.

    Raises:
        ValueError: the file is missing, damaged or another.
    """
    released = folder / "weights.safetensors"
    if not released.is_file():
        return checkpoint.load(folder / "checkpoint.ckpt").get("modules", {})
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        flat = load_file(released)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"cannot read {released} ({error}); restore a copy of it") from error
    parts: dict[str, dict[str, torch.Tensor]] = {"program": {}, "guide": {}}
    for name, tensor in flat.items():
        owner, _, key = name.partition("/")
        parts.setdefault(owner, {})[key] = tensor
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
        if "split" not in data.description:
            print("all pictures of the folder, which the run was trained on:")
        print(table(found))
        if options.json:
            checkpoint.write(options.json, (json.dumps(found, indent=2) + "\n").encode())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
