"""What interceptors cost clients: the gateway with all of them on beside the same gateway with none, at a steady 500 requests/s.

Sessions have ten requests each, a hundred at a time. Both gateways run all the time and take turns under the load, in short
pairs of changing order, so that the noise of a machine meets each alike; and they are started anew a few times, because one
start is faster than another. The gateway and its interceptors are two processes, so nothing is pinned to a CPU here. The
collector of `trace` is in this process.
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
STARTS = 4
"""Pairs of gateways, one after the other."""


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
    """Figures of both gateways, medians over `STARTS` times `count` pairs of loads, and in `luthien, watched` the ratios of the
    medians of each start, of which the median counts."""
    found = {"luthien": _Runs(), "luthien, watched": _Runs()}
    lost = {"dropped": 0.0, "errors": 0.0}
    for start in range(STARTS):
        say(f"  start {start + 1} of {STARTS}")
        with Ground(shape=ground.shape, cpus=ground.cpus.shared()) as ours, collector() as url:
            file = configuration(ours.folder, url)
            with ours.started("luthien") as plain, ours.started("luthien", options=["--config", str(file)]) as watched:
                proxies = {"luthien": plain, "luthien, watched": watched}
                for form in FORMS:
                    for proxy in proxies.values():
                        _load(ours, proxy, form, seconds)
                    for turn in range(count):
                        for name in proxies if turn % 2 == 0 else reversed(proxies):
                            found[name].add(start, form, _load(ours, proxies[name], form, seconds), proxies[name])
                for what in lost:
                    lost[what] += counted(watched, f"luthien_interceptor_{what}_total")
                if not counted(watched, "luthien_interceptor_events_total"):
                    raise BenchmarkError("the interceptors have seen nothing")
    result = {name: runs.figures() for name, runs in found.items()}
    for form in FORMS:
        for key in ("p50_us", "p99_us"):
            ratios = [
                found["luthien, watched"].of_start(n, form, key) / found["luthien"].of_start(n, form, key) for n in range(STARTS)
            ]
            result["luthien, watched"][f"{form}_{key[:3]}_ratio"] = rounded(median(ratios))
    result["luthien, watched"] |= lost
    return result


class _Runs:
    """The figures of one kind of gateway, run after run."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, str], list[float]] = {}
        self._failed = 0.0

    def add(self, start: int, form: str, figures: dict[str, float], proxy: Proxy) -> None:
        proxy.check()
        for key in ("p50_us", "p99_us", "cpu_us"):
            self._values.setdefault((start, f"{form}_{key}"), []).append(figures[key])
        self._failed += figures["bad_status"] + figures["broken"] + figures["unanswered"]

    def of_start(self, start: int, form: str, key: str) -> float:
        """Median over the loads of one start."""
        return median(self._values[start, f"{form}_{key}"])

    def figures(self) -> dict[str, float]:
        """Medians over all loads."""
        found: dict[str, list[float]] = {}
        for (_, key), values in self._values.items():
            found.setdefault(key, []).extend(values)
        return {key: rounded(median(values)) for key, values in found.items()} | {"failed": self._failed}


def _load(ground: Ground, proxy: Proxy, form: str, seconds: float) -> dict[str, float]:
    before = proxy.cpu_s() or 0.0
    stream = form == "stream"
    rate = STREAM_RATE if stream else RATE
    with ground.load(proxy, connections=CONNECTIONS, seconds=seconds, rate=rate, sessions=True, stream=stream) as load:
        figures = load()
    figures["cpu_us"] = ((proxy.cpu_s() or 0.0) - before) * 1e6 / figures["requests"]
    time.sleep(SETTLE_S)  # what interceptors still write belongs to this load, not to the next one
    return figures
