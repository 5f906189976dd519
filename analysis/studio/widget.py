"""The page as a widget in a notebook; it needs the extra `studio`.

from analysis.studio.widget import studio

studio("gsgn-shapes2d")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.studio.desk import Desk
from analysis.studio.server import SCRIPT, read

MISSING = 'the studio in a notebook needs anywidget: python -m pip install "scene-programs[studio]"'


def studio(*runs: str) -> Any:
    """A widget with these runs, each a run folder or a shipped run's name.

    Raises:
        ValueError: no such run, or anywidget is not installed.
    """
    try:
        import anywidget
    except ImportError as error:
        raise ValueError(MISSING) from error
    desk = Desk(list(runs or ("gsgn-shapes2d",)))

    class Studio(anywidget.AnyWidget):
        """The page, with messages over the notebook's channel."""

        _esm = read(SCRIPT)
        _css = read(["studio.css"])

    widget = Studio()

    def reply(_: Any, message: Mapping[str, Any], __: Any) -> None:
        answered = {"number": message.get("number"), "answer": desk.answer(message)}
        widget.send(answered)

    widget.on_msg(reply)
    return widget
