"""Messages of the page, answered: the runs that are open, one bench for each.

A message is a table with ``do``, the name of a method of `Desk`, and its arguments. The answer is a table;
if something cannot be done, it holds one sentence, ``error``. Pyro's handlers are global to a process, so
messages are answered one at a time.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from torch import Tensor

from analysis import plots
from analysis.studio import asking, dreams, files, views
from analysis.studio.actions import ACTIONS
from analysis.studio.state import Bench, Hand, Selection, first_present
from inference.runs import Trained, find_run, open_run

IMAGES = 16
"""Unseen scenes of a run's world that can be chosen."""
LARGEST = 1024
"""Pixels per side of a dropped picture at most."""
SEARCH = 10.0
"""Seconds of a refinement."""
TROUBLE = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, OSError)
"""Errors that become a sentence on the page."""


@dataclass
class Opened:
    """A run, its bench, and images of its world."""

    name: str
    run: Trained
    bench: Bench
    images: Tensor | None = None
    """(M, C, H, W) in [0, 1]; None until they are asked for"""
    chosen: int | None = None
    """index of the image on the bench, if it is one of these"""
    search: Iterator[asking.Found] | None = None
    doubts: asking.Doubts = field(default_factory=asking.Doubts)

    def begun(self, chosen: int | None = None) -> None:
        """Forget what was asked about the scene before."""
        self.chosen, self.search, self.doubts = chosen, None, asking.Doubts()


class Desk:
    """The runs that are open and the one that is shown."""

    def __init__(self, names: list[str]) -> None:
        for name in names:
            find_run(name)
        self.names = list(names)
        self.opened: dict[str, Opened] = {}
        self.shown = names[0]
        self.lock = threading.Lock()
        self.verbs = {
            verb.__name__: verb
            for verb in (
                *(self.show, self.image, self.drop, self.select, self.undo, self.redo, self.act),
                *(self.dream, self.nearest, self.doubts, self.refine, self.compare),
                *(self.save, self.load, self.gallery),
            )
        }

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What the page gets for a message."""
        with self.lock:
            try:
                verb = self.verbs.get(str(message.get("do")))
                if verb is None:
                    raise ValueError(f"the studio cannot do {message.get('do')!r}")
                return verb(message)
            except TROUBLE as error:
                return {"error": _sentence(error)}

    @property
    def here(self) -> Opened:
        """The run that is shown, opened if it was not yet."""
        if self.shown not in self.opened:
            pyro.enable_validation(False)
            run = open_run(self.shown)
            for parameter in (*run.program.parameters(), *run.guide.parameters()):
                parameter.requires_grad_(False)
            self.opened[self.shown] = Opened(self.shown, run, Bench(run.program, run.guide))
        return self.opened[self.shown]

    def show(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The page's whole content; ``run`` shows another run."""
        if message.get("run"):
            name = str(message["run"])
            find_run(name)
            self.names += [] if name in self.names else [name]
            self.shown = name
        if not self.here.bench.past:
            try:
                return self.image({"index": 0})
            except (ValueError, OSError) as error:
                answer = self.dream({})
                return answer | {"note": f"There are no images ({error}), so this is a dream."}
        return self._view()

    def image(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Read the unseen image ``index`` of the run's world."""
        images, index = self._images(), int(message["index"])
        if not 0 <= index < len(images):
            raise ValueError(f"there are images 0 to {len(images) - 1}")
        self.here.bench.begin(images[index : index + 1])
        self.here.begun(index)
        return self._view()

    def drop(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Read a picture of one's own: ``pixels``, base64 of RGB bytes, row by row, and ``width``."""
        width = int(message["width"])
        try:
            data = base64.b64decode(message["pixels"], validate=True)
        except binascii.Error as error:
            raise ValueError("this is no picture") from error
        height = len(data) // (3 * width) if 0 < width <= LARGEST else 0
        if not 0 < height <= LARGEST or len(data) != 3 * width * height:
            raise ValueError(f"a picture has 1 to {LARGEST} pixels per side")
        pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(1, height, width, 3)
        picture = pixels.permute(0, 3, 1, 2).float() / 255
        self.here.bench.begin(asking.fitted(_square(picture), self.here.run.program))
        self.here.begun()
        return self._view()

    def select(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Select a node, ``level`` and ``slot``, or with no slot the scene itself."""
        bench = self.here.bench
        level, slot = int(message.get("level", 0)), message.get("slot")
        tree = bench.seen.scene.levels
        if slot is not None and not (
            0 <= level < len(tree) and 0 <= slot < tree[level].pres.shape[1]
        ):
            raise ValueError("there is no such node")
        bench.select(Selection(level, slot))
        return self._view()

    def undo(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Go back by one change."""
        self.here.bench.undo()
        return self._view()

    def redo(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Do again what was undone."""
        self.here.bench.redo()
        return self._view()

    def act(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Do the action ``name``; ``stroke`` names the drag that it is part of."""
        bench, action = self.here.bench, ACTIONS.get(str(message.get("name")))
        if action is None:
            raise ValueError(f"there is no action {message.get('name')!r}")
        hand = action(bench, message)
        if hand is not bench.hand:
            bench.change(hand, message.get("stroke"))
        return self._view()

    def dream(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Draw a scene of the prior: ``objects``, ``classes`` and ``held`` are its conditions."""
        bench = self.here.bench
        classes = {int(k): int(n) for k, n in (message.get("classes") or {}).items()}
        held = [Selection(int(level), int(slot)) for level, slot in message.get("held") or ()]
        dreamt = dreams.dream(bench, dreams.Condition(message.get("objects"), classes, held))
        bench.begin(None, dreamt.values)
        self.here.begun()
        note = f"{dreamt.fitting:,} of {dreamt.drawn:,} scenes of the prior fit; this is the first."
        return self._view() | ({"note": note} if dreamt.drawn > 1 else {})

    def nearest(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Read the image of the world that is nearest to the picture."""
        index = asking.nearest(self.here.bench.seen.scene.image, self._images())
        return self.image({"index": index}) | {
            "note": f"The nearest of {len(self._images())} scenes of the world, by squared error."
        }

    def doubts(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Draws of the image's posterior: some more with each message, as long as there are ``more``."""
        here = self.here
        here.doubts.more(here.bench)
        return {"doubts": here.doubts.table()}

    def refine(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Search for a better scene of the image: one more step; ``begin`` starts."""
        here, bench = self.here, self.here.bench
        if bench.image is None:
            raise ValueError("a dream has no image: choose one to search for its best scene")
        if message.get("begin"):
            seconds = min(float(message.get("seconds", SEARCH)), 600.0)
            here.search = asking.search(bench.program, bench.guide, bench.image, seconds)
        if here.search is None:
            raise ValueError("the search was stopped")
        found = next(here.search, None)
        if found is None:
            here.search = None
            return self._view() | {"found": None}
        values = bench.hand.values
        if message.get("begin") or any(values[n] is not v for n, v in found.values.items()):
            hand = Hand(found.values, (), bench.hand.selection)
            bench.change(replace(hand, selection=first_present(bench.look(hand).scene)), "refine")
        return self._view() | {"found": {"log_p": found.log_p, "effort": found.effort}}

    def compare(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What another run, ``run``, sees in this image."""
        shown = self.shown
        other = str(message["run"])
        find_run(other)
        bench = self.here.bench
        try:
            self.shown = other
            program, guide = self.here.run.program, self.here.run.guide
        finally:
            self.shown = shown
        return {"other": asking.seen_by(bench, program, guide) | {"run": other}}

    def save(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """The scene as the text of a JSON file, and its picture."""
        bench = self.here.bench
        return {
            "json": files.dump(bench, self.shown),
            "png": views.url(bench.seen.scene.image[0]),
            "name": f"{self.here.run.folder.name}-scene",
        }

    def load(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Open a saved scene: ``json``, the text of the file."""
        try:
            content = json.loads(message["json"])
        except ValueError as error:
            raise ValueError("this file is no JSON") from error
        run, shown = files.run_of(content if isinstance(content, dict) else {}), self.shown
        if run in self.names:
            self.shown = run
        try:
            files.restore(self.here.bench, content)
        except ValueError:
            self.shown = shown
            raise
        self.here.begun()
        return self._view()

    def gallery(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Small pictures of the images that can be chosen."""
        return {"gallery": [views.url(image) for image in self._images()]}

    def _images(self) -> Tensor:
        """Images of the run's world, or those that it was trained on."""
        if self.here.images is None:
            self.here.images = self.here.run.unseen(IMAGES).floats()
        return self.here.images

    def _view(self) -> dict[str, Any]:
        here = self.here
        config, bench = here.run.config, here.bench
        program = here.run.program
        return {
            "view": views.bench_view(bench),
            "run": here.name,
            "runs": self.names,
            "chosen": here.chosen,
            "images": 0 if here.images is None else len(here.images),
            "size": bench.seen.scene.image.shape[-1],
            "title": f"{config['variant']} on {config['recipe'].get('world') or 'pictures'}",
            "renders": hasattr(program, "redraw") or bench.seen.placed,
            "classes": _classes(bench),
            "colours": plots.COLOURS,
        }


def _classes(bench: Bench) -> int:
    """Number of classes of objects, 0 if they have none."""
    scene = bench.seen.scene
    if not scene.levels or scene.objects.category is None:
        return 0
    sites = bench.seen.told.trace.nodes.items()
    counts = [s["value"].shape[-1] for n, s in sites if n.startswith("z_cat")]
    return max(counts, default=0)


def _square(picture: Tensor) -> Tensor:
    """The middle square of a picture (1, 3, H, W)."""
    height, width = picture.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[..., top : top + side, left : left + side]


def _sentence(error: Exception) -> str:
    """An error in one sentence that begins with a capital letter."""
    if isinstance(error, KeyError):
        return f"The message lacks {error}."
    text = " ".join(str(error).split()) or type(error).__name__
    return text[0].upper() + text[1:].rstrip(".") + "."
