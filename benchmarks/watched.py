"""What interceptors cost clients: a gateway with all of them on, and the same process while they hear nothing, at a steady 500
requests/s.

Sessions have ten requests each, a hundred at a time. Interceptors are switched on and off by turns, in short pairs of loads of
changing order, so that the noise of a machine meets each alike. It is one process because two of the same kind differ by a tenth
at p99; it is started anew a few times, so that no single one is taken for all. A p99 is the noisiest of figures, so a load in
which the host took CPUs away from this machine is done again, the ratio is a mean over many pairs, and it is told with its
error. The gateway and its interceptors are two processes, so nothing is pinned to a CPU here. The upstream is the collector of
`trace` too: elsewhere that is another machine, and this one takes next to nothing.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import switched
from benchmarks.figures import mean_of_ratios, median, rounded
from benchmarks.ground import Ground, Proxy, fetch
from benchmarks.machine import stolen_s
from benchmarks.processes import BenchmarkError

RATE = 500
CONNECTIONS = 64
KINDS = ("printer", "message_logger", "event_recorder", "http_recorder", "trace")
FORMS = ("json", "stream")
NAMES = ("luthien", "luthien, watched")
STREAM_RATE = 100
"""Streams of 34 events a second: 340 ms each, so that about as many run at a time as connections allow."""
STREAM_SHARE = 6
"""Pairs of loads with JSON for each one with streams, which hardly differ."""
COLLECTING = {"x-mock-tokens": "1", "x-mock-gap-us": "0"}
"""An upstream that reads of streams in the events answers at once."""
SETTLE_S = 0.4
MAX_STOLEN_S = 0.015
"""Of CPU time, all CPUs together: more is a load that says something of the host."""
MAX_TRIES = 4


def configuration(folder: Path, url: str) -> Path:
    """A file that switches all of them on; events are sent to `url`."""
    keys = {
        "message_logger": {"directory": str(folder / "messages")},
        "event_recorder": {"output_dir": str(folder / "events")},
        "http_recorder": {"output_dir": str(folder / "recordings"), "max_events_per_file": 10_000},
        "trace": {"url": url, "headers": COLLECTING},
    }
    file = folder / "interceptors.yaml"
    file.write_text(json.dumps({"interceptors": [{"type": kind, "config": keys.get(kind, {})} for kind in KINDS]}))
    return file


def counted(proxy: Proxy, name: str) -> float:
    """Sum of a metric over its labels."""
    _, body = fetch(proxy.port, "/metrics")
    lines = [line for line in body.decode().splitlines() if line.startswith(name + "{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def pairs(ground: Ground, *, starts: int, count: int, seconds: float, say: Any) -> dict[str, dict[str, float]]:
    """Figures of both: medians over all loads, and in `luthien, watched` the ratios of what is watched to what is not.

    A gateway is started `starts` times, and each time there are `count` pairs of loads with JSON. A ratio is the geometric mean
    over the pairs, those at the edges left out; `…_error` is its standard error, from how far the starts are apart.
    """
    runs = {name: _Runs() for name in NAMES}
    lost = {"dropped": 0.0, "errors": 0.0}
    wrapper = [sys.executable, "-m", "benchmarks.switched"]
    for start in range(starts):
        say(f"  start {start + 1} of {starts}")
        # Files stay to the end: ext4 spends far more on new ones for minutes after many have been deleted.
        folder = ground.folder / f"watched-{start}"
        with Ground(shape=ground.shape, cpus=ground.cpus.shared(), folder=folder) as ours:
            file = configuration(ours.folder, f"http://127.0.0.1:{ours.upstream_port}/v1/events")
            with ours.started("luthien", wrapper=wrapper, options=["--config", str(file)]) as proxy:
                for form in FORMS:
                    for name in reversed(NAMES):
                        _warm_up(ours, proxy, name, form, seconds)
                    for turn in range(count if form == "json" else max(1, count // STREAM_SHARE)):
                        for name in NAMES if turn % 2 == 0 else reversed(NAMES):
                            _switch(proxy, name)
                            runs[name].add(start, form, _undisturbed(ours, proxy, form, seconds), proxy)
                for what in lost:
                    lost[what] += counted(proxy, f"luthien_interceptor_{what}_total")
    result = {name: run.figures() for name, run in runs.items()}
    for form in FORMS:
        for key in ("p50_us", "p99_us"):
            lower, upper = (runs[name].by_start(form, key) for name in NAMES)
            ratio, error = mean_of_ratios([list(zip(*both, strict=True)) for both in zip(upper, lower, strict=True)])
            name = f"{form}_{key.removesuffix('_us')}_ratio"
            result["luthien, watched"] |= {name: rounded(ratio), f"{name}_error": rounded(error)}
    result["luthien, watched"] |= lost
    return result


class _Runs:
    """The figures of one kind of gateway, run after run."""

    def __init__(self) -> None:
        self._values: dict[str, dict[int, list[float]]] = {}
        self._failed = 0.0

    def add(self, start: int, form: str, figures: dict[str, float], proxy: Proxy) -> None:
        proxy.check()
        for key in ("p50_us", "p99_us", "cpu_us", "stolen_ms"):
            self._values.setdefault(f"{form}_{key}", {}).setdefault(start, []).append(figures[key])
        self._failed += figures["bad_status"] + figures["broken"] + figures["unanswered"]

    def by_start(self, form: str, key: str) -> list[list[float]]:
        """What the loads of each start said, in order."""
        return list(self._values[f"{form}_{key}"].values())

    def figures(self) -> dict[str, float]:
        """Medians over all loads."""
        found = {key: median([one for values in starts.values() for one in values]) for key, starts in self._values.items()}
        return {key: rounded(value) for key, value in found.items()} | {"failed": self._failed}


def _switch(proxy: Proxy, name: str) -> None:
    """Have interceptors hear what comes, or not."""
    assert proxy.child is not None
    proxy.child.process.send_signal(switched.ON if name == "luthien, watched" else switched.OFF)


def _warm_up(ground: Ground, proxy: Proxy, name: str, form: str, seconds: float) -> None:
    """A load that does not count; it shows that the switch works."""
    _switch(proxy, name)
    time.sleep(SETTLE_S)
    before = counted(proxy, "luthien_interceptor_events_total")
    _load(ground, proxy, form, seconds)
    has_heard = counted(proxy, "luthien_interceptor_events_total") > before
    if has_heard != (name == "luthien, watched"):
        raise BenchmarkError(f"interceptors have {'heard' if has_heard else 'not heard'} of requests to {name!r}")


def _undisturbed(ground: Ground, proxy: Proxy, form: str, seconds: float) -> dict[str, float]:
    """A load in which the host left this machine its CPUs, or the last of a few tries."""
    for _ in range(MAX_TRIES):
        before = stolen_s()
        figures = _load(ground, proxy, form, seconds)
        figures["stolen_ms"] = (stolen_s() - before) * 1e3
        if figures["stolen_ms"] <= MAX_STOLEN_S * 1e3:
            break
    return figures


def _load(ground: Ground, proxy: Proxy, form: str, seconds: float) -> dict[str, float]:
    before = proxy.cpu_s() or 0.0
    stream = form == "stream"
    rate = STREAM_RATE if stream else RATE
    with ground.load(proxy, connections=CONNECTIONS, seconds=seconds, rate=rate, sessions=True, stream=stream) as load:
        figures = load()
    figures["cpu_us"] = ((proxy.cpu_s() or 0.0) - before) * 1e6 / figures["requests"]
    time.sleep(SETTLE_S)  # what interceptors still write belongs to this load, not to the next one
    return figures
