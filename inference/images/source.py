"""Where images come from: one protocol for simulated worlds, files and folders.

A kind of files is a class with the methods of `Images`, made of a path, and a static method ``takes(path)``; a
new one is a file in this folder and an entry of `KINDS`. The first kind that takes a path reads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from inference.images.clevr import ClevrFile
from inference.images.clips import Clips
from inference.images.dataset import Dataset
from inference.images.folders import Folder
from inference.images.hugging_face import PREFIX
from inference.images.published import Published
from inference.images.worlds import load_world
from programs.blocks.names import meant_file


class Images(Protocol):
    """What a program is trained on and measured with."""

    @property
    def title(self) -> str:
        """What error messages call it, such as "world shapes2d"."""
        ...

    def config(self, **changes: Any) -> Any:
        """How images are drawn or read: a frozen dataclass with a field `size`, by default or changed."""
        ...

    def split(
        self, name: str, config: Any, number: int | None = None, seed: int = 0
    ) -> Dataset | None:
        """The images of the split train, validation or test; None if there is no validation.

        Args:
            number: scenes to draw of a world; of files the first so many for validation and tests, and all for
                training.
            seed: of what is drawn; files do not depend on it.
        Raises:
            ValueError: they cannot be drawn or read; the message says why.
        """
        ...


KINDS = (Published, ClevrFile, Clips, Folder)


def images_of(world: str, path: Any = None) -> Images:
    """The images at a path, or without one the scenes of a world.

    Args:
        world: a world's name, or a Python file with one.
        path: of files; or a data set of the library `datasets`.
    Raises:
        ValueError: there is no such world, or nothing that is kept at the path.
    """
    if path is None:
        return load_world(world)
    if not isinstance(path, str | Path) and not Published.takes(path):
        raise ValueError(
            f"images are a {type(path).__name__}: expected a path, or a data set of the library datasets"
        )
    if str(path).startswith(PREFIX):
        raise ValueError(
            "the run was trained on a data set given from Python, which is kept nowhere: give it again, such "
            "as run.unseen(100, images=data), or save it by data.save_to_disk(FOLDER) and train with --images "
            "FOLDER"
        )
    path = Path(path) if isinstance(path, str) else path
    if isinstance(path, Path) and not path.exists():
        near = meant_file(path, path.parent.glob("*"))
        raise ValueError(
            f"no file or folder {str(path)!r}{near} --images takes a folder of pictures or of clips, a video, "
            "or a published data set"
        )
    return next(kind(path) for kind in KINDS if kind.takes(path))
