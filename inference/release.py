"""Make a trained run small enough to ship: weights as safetensors, config, metrics, log.

python -m inference.release runs/gsgn-shapes2d programs/trained/gsgn-shapes2d
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

import torch

from inference import checkpoint
from inference.svi import write_json

LIMIT = 8 * 2**20
KEPT = (
    *("metrics.json", "structure.json", "log.jsonl"),
    *("scene_graphs.png", "reconstructions.png", "prior_scenes.png"),
)


def release(run: Path, target: Path, half: bool = False) -> int:
    """Copy what others need of a run folder; returns the size in bytes.

    Args:
        half: store weights in 16 bits. Measure again what is shipped, with `analysis.evaluate --json`.
    Raises:
        ValueError: `run` has no checkpoint, `target` cannot be written, or would exceed 8 MiB.
    """
    from safetensors.torch import save

    path = run / "checkpoint.ckpt"
    if not checkpoint.exists(path) or not (run / "config.json").is_file():
        raise ValueError(
            f"{run} lacks checkpoint.ckpt or config.json: give a folder that inference.svi wrote"
        )
    modules = checkpoint.load(path)["modules"]
    flat = {f"{m}/{k}": v.contiguous() for m in ("program", "guide") for k, v in modules[m].items()}
    if half:
        flat = {k: v.half() if v.dtype == torch.float32 else v for k, v in flat.items()}
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "weights.safetensors").write_bytes(save(flat))
        for name in KEPT:
            if (run / name).is_file():
                shutil.copyfile(run / name, target / name)
        config = json.loads((run / "config.json").read_text())
        write_json(
            target / "config.json",
            config | {"command": anywhere(config["command"], target.name)},
        )
    except OSError as error:
        raise checkpoint.unwritable(target, error) from error
    size = sum(p.stat().st_size for p in target.iterdir())
    if size > LIMIT:
        raise ValueError(f"{target} holds {size} bytes; a shipped run is at most {LIMIT}")
    return size


def anywhere(command: str, name: str) -> str:
    """The command of a run, writing to ``runs/name``: where it once lay says nothing to others."""
    words = shlex.split(command)
    words[words.index("--out") + 1] = f"runs/{name}"
    return shlex.join(words)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    a = argparse.ArgumentParser(prog="python -m inference.release")
    a.add_argument("run", type=Path, help="folder that inference.svi wrote")
    a.add_argument("target", type=Path, help="programs/trained/VARIANT-WORLD")
    a.add_argument("--half", action="store_true", help="weights in 16 bits: half the size")
    options = a.parse_args(arguments)
    try:
        size = release(options.run, options.target, options.half)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.target}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
