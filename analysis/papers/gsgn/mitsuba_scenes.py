"""Scenes of the tracer's worlds beside the same scenes rendered by Mitsuba 3, an independent path tracer.

    python -m analysis.papers.gsgn.mitsuba_scenes [--world W] [--scenes N] [--seed S] [--spp N] --out FILE.png

The picture shows the tracer above and Mitsuba below; the terminal shows their differences. Solids become
meshes, lamps discs of the same radiant flux, ambient light a constant environment; materials are Mitsuba's
own (rough plastic; a rough conductor blended with a diffuse one), and its light meets up to three surfaces.

Only this file needs ``pip install mitsuba``.
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from analysis.command import new_file, positive
from inference.command import command_line, told
from inference.images.worlds import load_world
from programs.worlds.made_of import tracer
from programs.worlds.made_of.tracer import BALL, BOX, CONE, CYLINDER, Camera, Lamps, Solids

AROUND = 96
"""Corners of a circle in a mesh."""
SIZE = 128


def outline(shape: int) -> list[np.ndarray]:
    """Rings (n, 3) of a solid in its own frame from the bottom to the top; a point is a ring of one
    corner."""
    low, high = np.array([[0.0, 0.0, -1.0]]), np.array([[0.0, 0.0, 1.0]])
    angle = 2 * math.pi * (np.arange(AROUND) + 0.5) / AROUND
    if shape == BOX:
        angle = math.pi * (np.arange(4) / 2 + 0.25)
    elif shape not in (BALL, CYLINDER, CONE):
        angle = math.pi * (0.5 + 2 * np.arange(3) / 3)
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1)
    ring[:, :2] *= math.sqrt(2) if shape == BOX else 1
    if shape == BALL:
        tilt = math.pi * (np.arange(1, AROUND // 2) / (AROUND // 2) - 0.5)
        return [low, *(ring * math.cos(w) + high * math.sin(w) for w in tilt), high]
    return [low, ring + low, high] if shape == CONE else [low, ring + low, ring + high, high]


def triangles(shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners (V, 3) and faces (F, 3) of a solid's mesh, faces seen from outside counterclockwise."""
    rings = outline(shape)
    start, faces = np.cumsum([0, *(len(r) for r in rings)]), []
    for k, (below, above) in enumerate(itertools.pairwise(rings)):
        n = max(len(below), len(above))
        for i in range(n):
            a, b = (start[k] + j % len(below) for j in (i, i + 1))
            c, d = (start[k + 1] + j % len(above) for j in (i, i + 1))
            faces += [f for f in ((a, b, d), (a, d, c)) if len({*f}) == 3]
    return np.concatenate(rings), np.array(faces)


def ply(path: Path, shape: int, frame: np.ndarray) -> str:
    """Write a solid's mesh in the world; return the file's name."""
    corners, faces = triangles(shape)
    corners = corners @ frame[:, :3].T + frame[:, 3]
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(corners)}\n"
    head += "".join(f"property float {c}\n" for c in "xyz")
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    table = np.empty(len(faces), [("number", "u1"), ("corners", "<i4", 3)])
    table["number"], table["corners"] = 3, faces
    path.write_bytes(head.encode() + corners.astype("<f4").tobytes() + table.tobytes())
    return str(path)


def material(colour: list[float], metal: bool) -> dict[str, Any]:
    """Mitsuba's material for rubber or metal of a colour."""
    rgb = lambda c: {"type": "rgb", "value": c}  # noqa: E731
    if not metal:
        return {"type": "roughplastic", "diffuse_reflectance": rgb(colour), "alpha": 0.3}
    mirror = {"type": "roughconductor", "alpha": 0.05, "specular_reflectance": rgb(colour)}
    return {
        "type": "blendbsdf",
        "weight": tracer.MIRRORED / (tracer.MIRRORED + tracer.SCATTERED),
        "scatter": {"type": "diffuse", "reflectance": rgb(colour)},
        "mirror": mirror,
    }


def describe(
    solids: Solids, camera: Camera, lamps: Lamps, folder: Path, spp: int
) -> dict[str, Any]:
    """One scene as Mitsuba's dictionary."""
    import mitsuba as mi

    to_world = mi.ScalarTransform4f
    eye, target = camera.eye[0].tolist(), camera.target[0].tolist()
    grey = {"type": "rgb", "value": [tracer.FLOOR] * 3}
    scene: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 4, "hide_emitters": True},
        "sensor": {
            "type": "perspective",
            "fov": math.degrees(2 * math.atan(camera.field)),
            "to_world": to_world().look_at(eye, target, [0, 0, 1]),
            "film": {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": "box"}},
            "sampler": {"type": "multijitter", "sample_count": spp},
        },
        "floor": {
            "type": "rectangle",
            "to_world": to_world().scale([200, 200, 1]),
            "bsdf": {"type": "diffuse", "reflectance": grey},
        },
        "around": {"type": "constant", "radiance": {"type": "rgb", "value": [tracer.AMBIENT] * 3}},
    }
    for k, (place, radius, power) in enumerate(
        zip(lamps.place[0].tolist(), lamps.radius.tolist(), lamps.power.tolist(), strict=True)
    ):
        shine = {"type": "rgb", "value": [power / radius**2] * 3}
        pose = to_world().look_at(place, [0, 0, 0], [0, 0, 1]) @ to_world().scale(radius)
        lamp = {"type": "disk", "to_world": pose}
        scene[f"lamp{k}"] = lamp | {"emitter": {"type": "area", "radiance": shine}}
    for k, shape in enumerate(solids.shape[0].tolist()):
        if shape >= 0:
            mesh = ply(folder / f"{k}.ply", shape, solids.frame[0, k].numpy())
            bsdf = material(solids.colour[0, k].tolist(), bool(solids.metal[0, k]))
            solid = {"type": "ply", "filename": mesh, "face_normals": shape != BALL}
            scene[f"solid{k}"] = solid | {"id": f"solid{k}", "bsdf": bsdf}
    return scene


def shown(scene: Any, camera: Camera) -> Tensor:
    """(S, S) int64: solid that Mitsuba's rays through the pixels' middles meet, -1 for the floor."""
    import mitsuba as mi

    axis = camera.field * ((2 * torch.arange(SIZE, dtype=torch.float64) + 1) / SIZE - 1)
    right, down, forward = camera.axes[0]
    labels = torch.full((SIZE, SIZE), -1)
    for i in range(SIZE):
        for j in range(SIZE):
            d = forward + axis[j] * right + axis[i] * down
            d = (d / d.norm()).tolist()
            found = scene.ray_intersect(mi.Ray3f(camera.eye[0].tolist(), d))
            name = found.shape.id() if found.is_valid() else ""
            labels[i, j] = int(name[5:]) if name.startswith("solid") else -1
    return labels


def both(world: str, number: int, seed: int, spp: int) -> tuple[Tensor, Tensor, float]:
    """Images (N, 3, S, S) of the tracer and of Mitsuba, and the share of pixels that show the same solid."""
    import tempfile

    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    module, kept = load_world(world).module, []
    picture = tracer.picture
    keep = lambda *a: kept.append(a[:3]) or picture(*a)  # noqa: E731
    with mock.patch.object(tracer, "picture", keep):
        scenes, _ = module.draw(number, torch.Generator().manual_seed(seed), module.Config(SIZE))
    solids, camera, lamps = kept[0]
    labels, _ = tracer.see(solids, camera, SIZE)
    images, same = [], []
    for b in range(number):
        one = torch.tensor([b])
        light = Lamps(lamps.place[one], lamps.radius, lamps.power)
        with tempfile.TemporaryDirectory() as folder:
            what = describe(solids[one], camera[one], light, Path(folder), spp)
            scene = mi.load_dict(what, optimize=False)
        linear = torch.from_numpy(np.array(mi.render(scene))[..., :3]).permute(2, 0, 1)
        images.append(tracer._srgb(linear))
        same.append((shown(scene, camera[one]) == labels[b]).float().mean())
    return scenes.image, torch.stack(images), float(torch.stack(same).mean())


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    from PIL import Image

    a = command_line("analysis.papers.gsgn.mitsuba_scenes", __doc__)
    a.add_argument("--world", default="compositional_clevr7", metavar="W")
    a.add_argument("--scenes", type=positive, default=10, metavar="N")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    a.add_argument("--spp", type=int, default=256, metavar="N", help="Mitsuba's samples per pixel")
    a.add_argument("--out", type=new_file, required=True, metavar="FILE.png")
    o = a.parse_args(arguments)
    ours, theirs, same = both(o.world, o.scenes, o.seed, o.spp)
    rows = torch.cat([torch.cat([*images], 2) for images in (ours, theirs)], 1)
    print(f"pixels that show the same solid: {same:.4f}")
    print(f"mean absolute difference: {float((ours - theirs).abs().mean()):.4f}")
    print(f"mean brightness: {float(ours.mean()):.3f} and {float(theirs.mean()):.3f}")
    Image.fromarray((rows * 255).round().byte().permute(1, 2, 0).numpy()).save(o.out, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
