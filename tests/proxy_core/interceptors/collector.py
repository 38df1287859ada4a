"""An HTTP collector in a thread, that takes events, refuses them, stalls or is away."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Collector:
    """`with Collector() as collector`; what it does is set by `status` and `stalled`."""

    def __init__(self, port: int = 0) -> None:
        self.status = 204
        self.go_on = threading.Event()
        self.go_on.set()
        """Cleared, requests are answered by nothing until it is set."""
        self.bodies: list[bytes] = []
        """Of the requests that were taken."""
        self.headers: list[dict[str, str]] = []
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.asked += 1
                outer.go_on.wait(20)
                status = outer.status
                if status < 300:
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    outer.bodies.append(body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                """Says nothing."""

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/events"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def events(self) -> list[Any]:
        """All events that were taken, in order; each body is a JSON array."""
        return [event for body in self.bodies for event in json.loads(body)]
