"""What interceptors cost clients: the gateway with all of them on beside the same gateway with none, at a steady 500 requests/s.

Sessions have ten requests each, a hundred at a time. Both gateways run all the time and take turns under the load, in pairs of
changing order, so that the noise of a machine meets each alike. The collector of `trace` is in this process, which shares its
CPU with the load, not with the gateway.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.figures import median, rounded
from benchmarks.ground import Ground, Proxy, fetch
from benchmarks.processes import BenchmarkError

RATE = 500
CONNECTIONS = 64
KINDS = ("printer", "message_logger", "event_recorder", "http_recorder", "trace")
FORMS = ("json", "stream")
STREAM_RATE = 100
"""Streams of 34 events a second: 340 ms each, so that about as many run at a time as connections allow."""
SETTLE_S = 0.5


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """A collector that takes everything; its address."""

    class Taker(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            self.send_response(204)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/events"
    finally:
        server.shutdown()
        server.server_close()


def configuration(folder: Path, url: str) -> Path:
    """A file that switches all of them on."""
    keys = {
        "message_logger": {"directory": str(folder / "messages")},
        "event_recorder": {"output_dir": str(folder / "events")},
        "http_recorder": {"output_dir": str(folder / "recordings"), "max_events_per_file": 10_000},
        "trace": {"url": url},
    }
    file = folder / "interceptors.yaml"
    file.write_text(json.dumps({"interceptors": [{"type": kind, "config": keys.get(kind, {})} for kind in KINDS]}))
    return file


def counted(proxy: Proxy, name: str) -> float:
    """Sum of a metric over its labels."""
    _, body = fetch(proxy.port, "/metrics")
    lines = [line for line in body.decode().splitlines() if line.startswith(name + "{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def pairs(ground: Ground, *, count: int, seconds: float, say: Any) -> dict[str, dict[str, float]]:
    """Figures of both gateways, medians over `count` pairs, and in `luthien, watched` the medians of the pairs' ratios."""
    with collector() as url:
        file = configuration(ground.folder, url)
        with ground.started("luthien") as plain, ground.started("luthien", options=["--config", str(file)]) as watched:
            proxies = {"luthien": plain, "luthien, watched": watched}
            found = {name: _Runs() for name in proxies}
            for form in FORMS:
                say(f"  {form}")
                for name in proxies:
                    _load(ground, proxies[name], form, max(1.0, seconds / 3))
                for turn in range(count):
                    for name in proxies if turn % 2 == 0 else reversed(proxies):
                        found[name].add(form, _load(ground, proxies[name], form, seconds), proxies[name])
            result = {name: runs.figures() for name, runs in found.items()}
            for form in FORMS:
                for key in ("p50_us", "p99_us"):
                    mine, base = found["luthien, watched"].all(form, key), found["luthien"].all(form, key)
                    result["luthien, watched"][f"{form}_{key[:3]}_ratio"] = rounded(
                        median([a / b for a, b in zip(mine, base, strict=True)])
                    )
            time.sleep(SETTLE_S)
            result["luthien, watched"]["dropped"] = counted(watched, "luthien_interceptor_dropped_total")
            result["luthien, watched"]["errors"] = counted(watched, "luthien_interceptor_errors_total")
            if not counted(watched, "luthien_interceptor_events_total"):
                raise BenchmarkError("the interceptors have seen nothing")
            return result


class _Runs:
    """The figures of one gateway, run after run."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}

    def add(self, form: str, figures: dict[str, float], proxy: Proxy) -> None:
        for key in ("p50_us", "p99_us", "cpu_us"):
            self._values.setdefault(f"{form}_{key}", []).append(figures[key])
        self._values.setdefault("failed", []).append(figures["bad_status"] + figures["broken"] + figures["unanswered"])

    def all(self, form: str, key: str) -> list[float]:
        return self._values[f"{form}_{key}"]

    def figures(self) -> dict[str, float]:
        return {key: rounded(sum(values) if key == "failed" else median(values)) for key, values in self._values.items()}


def _load(ground: Ground, proxy: Proxy, form: str, seconds: float) -> dict[str, float]:
    before = proxy.cpu_s() or 0.0
    stream = form == "stream"
    rate = STREAM_RATE if stream else RATE
    with ground.load(proxy, connections=CONNECTIONS, seconds=seconds, rate=rate, sessions=True, stream=stream) as load:
        figures = load()
    figures["cpu_us"] = ((proxy.cpu_s() or 0.0) - before) * 1e6 / figures["requests"]
    time.sleep(SETTLE_S)  # what interceptors still write belongs to this load, not to the next one
    return figures
