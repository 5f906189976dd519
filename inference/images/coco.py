"""Pictures with instances in COCO's format (cocodataset.org/#format-data): a folder, or a file of annotations.

    DIR/annotations/instances_train2017.json    {"images": [{"id", "file_name", "height", "width"}],
    DIR/annotations/instances_val2017.json      "annotations": [{"image_id", "category_id", "segmentation",
    DIR/train2017/*.jpg, DIR/val2017/*.jpg      "bbox", "iscrowd"}], "categories": [{"id", "name"}]}

A file of annotations alone (``--images DIR/annotations.json``) is read too; its pictures are found by their
names beside it, above it, or in a folder there. A segmentation is a list of polygons, or run lengths (RLE) as
numbers or packed; masks are decoded by pycocotools, where it is installed. Crowds (``iscrowd``) are left out.

The annotations of train are for training, the first half of those of val for validation, the second for
tests. Where instances overlap, the smaller is taken for the one that is seen. An object's category is COCO's
number, its slot its place among the picture's annotations.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inference.images.folders import FolderConfig, read_picture
from inference.images.objects import Found, ObjectsConfig, Pictures

KEYS = ("images", "annotations", "categories")
PARTS = {"train": (0,), "val": (1, 2)}
"""Which splits the pictures of a file are for."""


def takes(source: Any) -> bool:
    """Whether a path is that of annotations in COCO's format, or of a folder with some."""
    return isinstance(source, str | Path) and bool(_files(Path(source)))


def _files(path: Path) -> list[Path]:
    """Files of instances, that for training first."""
    if path.suffix.lower() == ".json":
        return [path] if _is_coco(path) else []
    if not path.is_dir():
        return []
    found = [*path.glob("annotations/instances_*.json")] or [
        p for p in sorted((*path.glob("annotations/*.json"), *path.glob("*.json"))) if _is_coco(p)
    ]
    return sorted(found, key=lambda p: (_split(p) != "train", p.name))


def _is_coco(path: Path) -> bool:
    """Whether a file's tables are COCO's."""
    try:
        content = path.read_bytes()  # not parsed: COCO's own has 450 MB
    except OSError:
        return False
    return content.lstrip()[:1] == b"{" and all(f'"{key}"'.encode() in content for key in KEYS)


def _split(path: Path) -> str:
    return next((part for part in PARTS if part in path.stem), path.stem)


def read(source: str | Path, config: ObjectsConfig) -> Found:
    """What the annotations hold.

    Raises:
        ValueError: pycocotools is not installed; annotations or pictures cannot be read.
    """
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError as error:
        raise ValueError(
            'instances in COCO\'s format need pycocotools: pip install "scene-programs[coco]"'
        ) from error
    known = ("masks", "categories")
    return Found("COCO", known, config.max_objects, _batches(Path(source), config))


def _batches(path: Path, config: ObjectsConfig) -> Iterator[Pictures]:
    files = _files(path)
    told = {_split(file) for file in files} >= PARTS.keys()
    for file in files:
        if told and _split(file) not in PARTS:
            continue
        try:
            yield from _of_file(file, PARTS[_split(file)] if told else (-1,), config)
        except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(file)!r} is not in COCO's format: an entry lacks or misuses {error}"
            ) from error


def _of_file(file: Path, parts: tuple[int, ...], config: ObjectsConfig) -> Iterator[Pictures]:
    table = _table(file)
    instances = defaultdict(list)
    for entry in table["annotations"]:
        if not entry.get("iscrowd"):
            instances[entry["image_id"]].append(entry)
    images = [i for i in table["images"] if len(instances[i["id"]]) <= config.max_objects]
    images = images[: config.pictures]
    for number, entry in enumerate(images):
        part = parts[number * len(parts) // len(images)]
        yield _picture(file, entry, instances[entry["id"]], part, config)


def _table(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the annotations {str(file)!r}: {error}") from error


def _picture(
    file: Path, entry: Mapping[str, Any], instances: list[dict], split: int, config: ObjectsConfig
) -> Pictures:
    """One picture; the sizes of COCO's differ, so a batch has one, square and at its final size."""
    size, slots = config.size, config.max_objects
    image = read_picture(_found(file, entry["file_name"]), FolderConfig(size, config.colours))
    labels: np.ndarray = np.zeros((size, size), np.uint8)
    masks = [_square(_mask(i, entry["height"], entry["width"]), size) for i in instances]
    for k in sorted(range(len(masks)), key=lambda k: -masks[k].sum()):
        labels[masks[k]] = k + 1
    category = np.full((1, slots), -1)
    category[0, : len(instances)] = [i["category_id"] for i in instances]
    shown = image.permute(1, 2, 0).numpy()[None]
    return Pictures(shown, labels[None], category=category, split=split)


def _decode(lengths: Any) -> np.ndarray:
    """(H, W) bool of packed run lengths."""
    from pycocotools import mask

    with warnings.catch_warnings():  # of NumPy 2, about how pycocotools makes the array
        warnings.simplefilter("ignore", DeprecationWarning)
        return mask.decode(lengths) > 0


def _mask(instance: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """(H, W) bool of polygons, of run lengths, or packed run lengths.

    Raises:
        ValueError: it is none of these.
    """
    from pycocotools import mask

    given = instance["segmentation"]
    try:
        if isinstance(given, list):
            parts = mask.frPyObjects([p for p in given if len(p) >= 6], height, width)
            return _decode(mask.merge(parts)) if parts else np.zeros((height, width), bool)
        if isinstance(given["counts"], list):
            given = mask.frPyObjects(given, height, width)
        return _decode(given)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"a segmentation cannot be read: {error!r}") from error


def _square(mask: np.ndarray, size: int) -> np.ndarray:
    """(S, S) bool: the middle square, by the nearest pixel."""
    height, width = mask.shape
    side = min(height, width)
    nearest: np.ndarray = (2 * np.arange(size) + 1) * side // (2 * size)
    rows, columns = nearest + (height - side) // 2, nearest + (width - side) // 2
    return mask[rows][:, columns]


def _found(file: Path, name: str) -> Path:
    """A picture that annotations name.

    Raises:
        ValueError: it is not there.
    """
    year = file.stem.removeprefix("instances_")
    above = (file.parent, file.parent.parent)
    places = [
        folder / inner / name
        for folder in above
        for inner in ("", "images", year, f"images/{year}")
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ValueError(f"{str(file)!r} names the picture {name!r}, which is not beside it")
    return found
