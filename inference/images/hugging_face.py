"""A data set of the library `datasets` (Hugging Face): the object from Python, or a folder it was saved to.

    Run("vae.py", Path("runs/a"), images=datasets.load_dataset("cifar10"))    from Python
    --images FOLDER                                                           after data.save_to_disk("FOLDER")

Pictures are the first column of the feature `Image` that is no mask. Truth is taken from

    objects    {"bbox": [[x, y, width, height], …] in pixels, "category" | "category_id" | "label": […]}, a
               sequence of such tables or a table of lists (COCO's boxes, as CPPE-5 and others have them)
    mask       a picture (or ``annotation``, ``instances``) whose numbers are 0 for the background and 1, 2,
               … for objects

A `DatasetDict` is split as it says (train, validation, test); where validation is missing, there is none,
where test is missing, validation takes its place. A data set that is not split is split as
`inference.images.published` says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from inference.images.folders import FolderConfig, square
from inference.images.objects import Found, ObjectsConfig, Pictures

MASKS = ("mask", "instances", "annotation")
SAVED = ("dataset_info.json", "dataset_dict.json")
KINDS = ("category", "category_id", "label")
PREFIX = "datasets:"


def takes(source: Any) -> bool:
    """Whether it is a data set of that library, or a folder that one was saved to."""
    if isinstance(source, str | Path):
        return any((Path(source) / name).is_file() for name in SAVED)
    if isinstance(source, Mapping):
        return bool(source) and all(hasattr(part, "features") for part in source.values())
    return hasattr(source, "features") and hasattr(source, "__iter__")


def name_of(source: Any) -> str:
    """What stands for a data set's object in names and descriptions: ``datasets:`` and its fingerprint."""
    parts = source.values() if isinstance(source, Mapping) else [source]
    prints = [str(getattr(part, "_fingerprint", None) or repr(part)) for part in parts]
    return PREFIX + hashlib.sha256("".join(prints).encode()).hexdigest()[:16]


def read(source: Any, config: ObjectsConfig) -> Found:
    """What the data set holds.

    Raises:
        ValueError: it has no pictures, or a folder cannot be read.
    """
    source = _loaded(source) if isinstance(source, str | Path) else source
    parts = _parts(source)
    features = next(iter(parts.values())).features or {}
    masks = next((name for name in MASKS if name in features), None)
    image = next((n for n in features if _is_image(features[n]) and n != masks), None)
    if image is None:
        raise ValueError(
            f"the data set has no column of pictures (the feature Image); it has {', '.join(features)}"
        )
    boxes = "objects" in features and masks is None
    known = ("masks",) if masks else ("boxes", "categories") if boxes else ()
    slots = config.max_objects if known else 0
    columns = (image, masks, "objects" if boxes else None)
    return Found("datasets", known, slots, _batches(parts, columns, config))


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _loaded(folder: str | Path) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f'{str(folder)!r} was saved by datasets: pip install "scene-programs[datasets]"'
        ) from error
    try:
        return datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"datasets cannot read {str(folder)!r}: {error}") from error


def _parts(source: Any) -> dict[int, Any]:
    """Data sets by split: 0, 1, 2; or -1, where they are not split."""
    if not isinstance(source, Mapping):
        return {-1: source}
    train = source.get("train", next(iter(source.values())))
    validation, test = source.get("validation", source.get("val")), source.get("test")
    if validation is None and test is None:
        return {-1: train}
    if test is None:
        validation, test = None, validation
    found = {0: train, 1: validation, 2: test}
    return {split: part for split, part in found.items() if part is not None}


def _batches(
    parts: Mapping[int, Any], columns: tuple[str | None, ...], config: ObjectsConfig
) -> Iterator[Pictures]:
    for split, part in parts.items():
        for number, row in enumerate(islice(part, config.pictures)):
            try:
                image, masks, objects = (row[name] if name else None for name in columns)
                pictures = _picture(image, masks, objects, config)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise ValueError(f"row {number} of the data set cannot be read: {error}") from error
            if pictures is not None:
                yield pictures._replace(split=split)


def _picture(image: Any, masks: Any, objects: Any, config: ObjectsConfig) -> Pictures | None:
    """One picture, square and at its final size; None if it has too many objects."""
    size, slots = config.size, config.max_objects
    shown = square(np.asarray(image.convert("RGB")), FolderConfig(size, config.colours))
    pixels = shown.permute(1, 2, 0).numpy()[None]
    if masks is not None:
        labels = np.asarray(masks)
        if labels.ndim != 2:
            raise ValueError(f"a mask has the shape {labels.shape}, expected (H, W)")
        if labels.max() > slots:
            return None
        return Pictures(pixels, _nearest(labels, size)[None].astype(np.uint8))
    if objects is not None:
        return _with_boxes(pixels, objects, image.size, config)
    return Pictures(pixels)


def _nearest(labels: np.ndarray, size: int) -> np.ndarray:
    """(S, S): the middle square, by the nearest pixel."""
    side = min(labels.shape)
    nearest: np.ndarray = (2 * np.arange(size) + 1) * side // (2 * size)
    top, left = ((length - side) // 2 for length in labels.shape)
    return labels[nearest + top][:, nearest + left]


def _with_boxes(
    pixels: np.ndarray, objects: Any, picture: tuple[int, int], config: ObjectsConfig
) -> Pictures | None:
    """Boxes in the pixels of the square image."""
    if not isinstance(objects, Mapping):  # a list of tables
        objects = {key: [row[key] for row in objects] for key in (objects[0] if objects else ())}
    given = np.asarray(objects.get("bbox", []), float).reshape(-1, 4)
    slots, (width, height) = config.max_objects, picture
    if len(given) > slots:
        return None
    side = min(width, height)
    corner = np.array([(width - side) // 2, (height - side) // 2])
    boxes = np.full((1, slots, 4), np.nan)
    low, high = given[:, :2], given[:, :2] + given[:, 2:]
    boxes[0, : len(given)] = np.concatenate([low - corner, high - corner], 1) * config.size / side
    kinds = next((objects[name] for name in KINDS if name in objects), None)
    category = None
    if kinds is not None:
        category = np.full((1, slots), -1)
        category[0, : len(given)] = kinds
    return Pictures(pixels, boxes=boxes, category=category)
