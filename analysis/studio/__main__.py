"""A page in which one looks at a scene, changes it by hand, and sees what the program says to it.

    python -m analysis.studio [RUN …] [--port P] [--no-browser]

Without RUN it shows gsgn-shapes2d. The page is on this machine alone, and Ctrl-C ends it.
"""

from __future__ import annotations

import sys
import threading
import webbrowser
from collections.abc import Mapping
from functools import cache
from typing import Any

from analysis.studio.server import address, serve
from inference.command import command_line, told
from inference.runs import find_run

FIRST = "gsgn-shapes2d"
"""The run that is shown if none is given."""


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("analysis.studio", __doc__)
    a.add_argument("runs", nargs="*", metavar="RUN", help="run folders, or names of shipped runs")
    a.add_argument("--port", type=int, default=0, metavar="P", help="by default a free one")
    a.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    o = a.parse_args(arguments)
    names = o.runs or [FIRST]
    for name in names:
        find_run(name)

    @cache
    def desk() -> Any:
        from analysis.studio.desk import Desk

        return Desk(names)

    lock = threading.Lock()

    def answer(message: Mapping[str, Any]) -> Mapping[str, Any]:
        with lock:
            opened = desk()
        return opened.answer(message)

    server = serve(answer, o.port)
    print(address(server), "Ctrl-C stops it", sep="\n", flush=True)
    threading.Thread(target=answer, args=({"do": "show"},), daemon=True).start()
    if not o.no_browser:
        webbrowser.open(address(server))
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


if __name__ == "__main__":
    sys.exit(main())
