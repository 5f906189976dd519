"""The page over HTTP, on this machine alone.

Files of the page are served as they are; a message is a POST of JSON to ``/ask``. Requests from pages of other
sites are refused: their ``Host`` or ``Origin`` is not this server's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

PAGE = Path(__file__).parent / "page"
SCRIPT = ("dom.js", "stage.js", "panels.js", "help.js", "studio.js")
"""Files of the studio's module, in order: a notebook takes a module whole."""
FILES = {
    "/": (("index.html",), "text/html; charset=utf-8"),
    "/page.js": (("page.js",), "text/javascript; charset=utf-8"),
    "/studio.js": (SCRIPT, "text/javascript; charset=utf-8"),
    "/studio.css": (("studio.css",), "text/css; charset=utf-8"),
}
"""Path -> files, and their type."""
LONGEST = 64 * 2**20
"""Bytes of a message at most."""
POLICY = "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; connect-src 'self'"
"""What the page may load: nothing from elsewhere."""

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def read(names: Sequence[str]) -> str:
    """The text of files of the page, one after the other."""
    return "\n".join((PAGE / name).read_text(encoding="utf-8") for name in names)


def serve(answer: Answer, port: int = 0) -> ThreadingHTTPServer:
    """A server that listens on this machine; `serve_forever` runs it.

    Args:
        port: 0 for a free one.
    Raises:
        ValueError: the port is taken.
    """
    handler = type("Answering", (Handler,), {"answer": staticmethod(answer)})
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise ValueError(f"port {port} cannot be used ({error}): leave out --port") from error
    server.daemon_threads = True
    return server


def address(server: ThreadingHTTPServer) -> str:
    """The address of the page."""
    return f"http://127.0.0.1:{server.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    answer: Answer

    def do_GET(self) -> None:
        """Serve a file of the page."""
        path = self.path.partition("?")[0]
        if not self._from_here():
            self._send(HTTPStatus.FORBIDDEN, b"another site's request", "text/plain")
        elif path in FILES:
            names, kind = FILES[path]
            self._send(HTTPStatus.OK, read(names).encode(), kind)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"no such page", "text/plain")

    def do_POST(self) -> None:
        """Answer a message."""
        said = self.headers.get("Content-Length") or "0"
        length = int(said) if said.isdecimal() else LONGEST + 1
        if not self._from_here() or self.path != "/ask" or length > LONGEST:
            self.close_connection = True
            self._send(HTTPStatus.FORBIDDEN, b"refused", "text/plain")
            return
        try:
            message = json.loads(self.rfile.read(length))
            answer = self.answer(message if isinstance(message, dict) else {})
        except ValueError:
            answer = {"error": "The message is no JSON."}
        self._send(HTTPStatus.OK, json.dumps(answer).encode(), "application/json")

    def log_message(self, *_: Any) -> None:
        """Say nothing: the shell is the user's."""

    def _from_here(self) -> bool:
        """Whether the request is from the server's own page: no other site's, under no other name."""
        port = cast(ThreadingHTTPServer, self.server).server_port
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (
            origin is None or origin.removeprefix("http://") in hosts
        )

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        try:
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:  # the page was closed before its answer came
            self.close_connection = True
