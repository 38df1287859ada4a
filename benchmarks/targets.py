"""What the figures are held against: each target is a ratio or a time within one run, computed from the suites' results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.suites import SuiteResult

Results = dict[str, SuiteResult]


@dataclass(frozen=True)
class Target:
    """A figure with its bound."""

    suite: str
    what: str
    unit: str
    bound: float
    value: Callable[[SuiteResult], float]
    """Raises KeyError or ZeroDivisionError where a part of it was not measured."""
    at_least: bool = False

    def judge(self, results: Results) -> Judgement | None:
        """None when its suite did not run."""
        if self.suite not in results:
            return None
        try:
            value = self.value(results[self.suite])
        except (KeyError, ZeroDivisionError):
            return Judgement(self, None, None)
        return Judgement(self, value, value >= self.bound if self.at_least else value <= self.bound)


@dataclass(frozen=True)
class Judgement:
    """A target and what was found; `met` is None where it could not be measured, which is not a pass."""

    target: Target
    value: float | None
    met: bool | None


TARGETS = (
    Target(
        "json",
        "JSON: nginx's requests/s over the gateway's",
        "x",
        14.0,
        lambda found: found["nginx"]["requests_per_s"] / found["luthien"]["requests_per_s"],
    ),
    Target(
        "stream",
        "streams: CPU per stream over nginx's",
        "x",
        4.0,
        lambda found: found["luthien"]["cpu_us"] / found["nginx"]["cpu_us"],
    ),
    Target("idle", "added latency p50, idle", "ms", 1.0, lambda found: found["luthien"]["added_request_p50_us"] / 1000),
    Target(
        "idle", "added time to the first token p50", "ms", 1.0, lambda found: found["luthien"]["added_first_token_p50_us"] / 1000
    ),
    Target("idle", "an event each 100 ms: slowest forwarding", "ms", 5.0, lambda found: found["luthien"]["event_max_us"] / 1000),
    Target("start", "command to serving, headless", "s", 2.0, lambda found: found["luthien"]["serving_s"]),
    Target("start", "command to the first painted screen", "s", 2.5, lambda found: found["luthien-ui"]["painted_s"]),
    Target(
        "ui",
        "requests/s with the screen following, of headless",
        "%",
        80.0,
        lambda found: 100 * found["luthien-ui"]["requests_per_s"] / found["luthien"]["requests_per_s"],
        at_least=True,
    ),
    Target(
        "ui",
        "client p99 with the screen over headless",
        "x",
        2.0,
        lambda found: found["luthien-ui"]["p99_us"] / found["luthien"]["p99_us"],
    ),
    Target("memory", "memory headless after the rows", "MB", 140.0, lambda found: found["luthien"]["rss_mb"]),
    Target("memory", "memory with the screen after the rows", "MB", 190.0, lambda found: found["luthien-ui"]["rss_mb"]),
    Target(
        "interceptors",
        "client p99 at 500/s, all interceptors over none",
        "x",
        1.1,
        lambda found: found["luthien, watched"]["json_p99_ratio"],
    ),
    Target("stall", "loop stalls p99 with the screen, 500/s", "ms", 10.0, lambda found: found["luthien-ui"]["stall_p99_ms"]),
)


def judge(results: Results) -> list[Judgement]:
    """Every target whose suite ran."""
    return [judgement for target in TARGETS if (judgement := target.judge(results)) is not None]
