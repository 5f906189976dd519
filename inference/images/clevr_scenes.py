"""CLEVR's own folders: pictures, and scenes in words (``--images CLEVR_v1.0``).

    CLEVR_v1.0/images/train/CLEVR_train_000000.png …    320 x 480 pixels; val, test likewise
    CLEVR_v1.0/scenes/CLEVR_train_scenes.json           {"scenes": [{"image_filename", "objects": [{"shape",
    CLEVR_v1.0/scenes/CLEVR_val_scenes.json             "size", "pixel_coords", "3d_coords", "rotation",
                                                        "color", "material"}]}]}; none of test

(facebookresearch/clevr-dataset-gen, image_generation/render_images.py; what that script writes for one split,
``images/`` and ``CLEVR_scenes.json``, is read too.) Train is for training; the first half of val is for
validation, the second for tests. With one split alone the shares of `inference.images.published` count.

There are no masks. # differs: an object's box is not in the file. It is that of a sphere of the object's
radius (0.35 or 0.7, properties.json there) at its distance, seen by Blender's camera of 35 mm focal length
and 32 mm sensor width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from inference.images.objects import Found, ObjectsConfig, Pictures

SHAPES = ("cube", "cylinder", "sphere")
COLOURS = ("blue", "brown", "cyan", "gray", "green", "purple", "red", "yellow")
MATERIALS = ("metal", "rubber")
RADII = {"small": 0.35, "large": 0.7}
FOCAL = 35 / 32
"""Focal length over the width of the sensor."""
ATTRIBUTES = ("3d_x", "3d_y", "3d_z", "rotation", "size", "material", "colour")
BATCH = 64
PARTS = {"train": (0,), "val": (1, 2)}
"""Which splits the scenes of a file are for."""


def takes(source: Any) -> bool:
    """Whether a path is that of a folder with images and CLEVR's scenes."""
    if not isinstance(source, str | Path) or not (Path(source) / "images").is_dir():
        return False
    return bool(_files(Path(source)))


def _files(folder: Path) -> list[Path]:
    """The files of scenes, that for training first."""
    found = [*folder.glob("scenes/CLEVR_*scenes.json"), *folder.glob("CLEVR_*scenes.json")]
    return sorted(found, key=lambda path: (_split(path) != "train", path.name))


def _split(path: Path) -> str:
    return path.stem.removeprefix("CLEVR_").removesuffix("scenes").rstrip("_")


def read(source: str | Path, config: ObjectsConfig) -> Found:
    """What the folder holds.

    Raises:
        ValueError: scenes that cannot be read, or name pictures that are not there.
    """
    known = ("centres", "distances", "shapes", *ATTRIBUTES, "boxes of spheres")
    return Found("CLEVR", known, config.max_objects, _batches(Path(source), config))


def _batches(folder: Path, config: ObjectsConfig) -> Iterator[Pictures]:
    files = _files(folder)
    told = {_split(path) for path in files} >= PARTS.keys()
    for path in files:
        split = _split(path)
        if told and split not in PARTS:
            continue
        scenes = _scenes(path, config)
        parts = PARTS[split] if told else (-1,)
        ends = [round(len(scenes) * k / len(parts)) for k in range(len(parts) + 1)]
        for part, start, end in zip(parts, ends[:-1], ends[1:], strict=True):
            for i in range(start, end, BATCH):
                yield _pictures(folder, path, scenes[i : min(i + BATCH, end)], part, config)


def _scenes(path: Path, config: ObjectsConfig) -> list[dict]:
    try:
        scenes = json.loads(path.read_bytes())["scenes"][: config.pictures]
        return [scene for scene in scenes if len(scene["objects"]) <= config.max_objects]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read the scenes {str(path)!r}: {error!r}") from error


def _pictures(
    folder: Path, path: Path, scenes: list[dict], split: int, config: ObjectsConfig
) -> Pictures:
    """A batch of scenes with their pictures.

    Raises:
        ValueError: a picture is missing or of another size, or a scene lacks something.
    """
    images = [_picture(folder, _split(path), scene) for scene in scenes]
    if len({image.shape for image in images}) > 1:
        raise ValueError(f"the pictures of {str(path)!r} have several sizes; expected one")
    rows = (len(scenes), config.max_objects)
    table = np.full((*rows, 6 + len(ATTRIBUTES)), np.nan)
    try:
        for i, scene in enumerate(scenes):
            for k, thing in enumerate(scene["objects"]):
                table[i, k] = _object(thing, images[i].shape[1])
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r}: an object of a scene lacks or misuses {error}") from error
    known = np.nan_to_num(table)
    return Pictures(
        np.stack(images),
        boxes=table[..., :4],
        category=known[..., 5].astype(np.int64),
        depth=known[..., 4],
        attributes=known[..., 6:],
        split=split,
    )


def _object(thing: dict[str, Any], width: int) -> list[float]:
    """Box (4), distance, shape, attributes."""
    x, y, distance = thing["pixel_coords"]
    half = FOCAL * width * RADII[thing["size"]] / distance
    box = [x - half, y - half, x + half, y + half]
    words = [["small", "large"].index(thing["size"]), MATERIALS.index(thing["material"])]
    words.append(COLOURS.index(thing["color"]))
    shape = SHAPES.index(thing["shape"])
    return [*box, distance, shape, *thing["3d_coords"], thing["rotation"], *words]


def _picture(folder: Path, split: str, scene: dict[str, Any]) -> np.ndarray:
    """(H, W, 3) uint8."""
    from PIL import Image

    name = Path(str(scene.get("image_filename"))).name
    places = (folder / "images" / split / name, folder / "images" / name)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ValueError(f"a scene names the picture {name!r}, which is not in {folder / 'images'}")
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the picture {str(file)!r}: {error}") from error
