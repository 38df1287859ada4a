"""Rolling rates over the last minute: what the header says about how the gateway fares.

Fed with rows as they start and finish, and with the clock's time; it never reads a clock itself. Latencies go into a
logarithmic histogram (steps of 5 %), so a snapshot costs the same at one request a second and at a thousand.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from proxy_core.control.rows import TransactionRow

_STEP = math.log(1.05)
_BINS = 330
"""Covers 0.1 ms to 15 minutes in steps of 5 %."""
_LOWEST_MS = 0.1


@dataclass(frozen=True, slots=True)
class Rates:
    """One reading. None where nothing is known yet."""

    rps: float
    """Requests a second."""
    p50_ms: float | None
    p99_ms: float | None
    ttft_ms: float | None
    """Median time to the first token, in ms."""
    tokens_per_s: float
    """Output tokens a second."""
    usd_per_hour: float | None
    error_share: float | None
    """Failed of all finished ones, 0 to 1; those that the client cancelled count as finished, not as failed."""
    sparkline: tuple[int, ...]
    """Requests started in each second of the window, oldest first; the running second is left out."""


@dataclass(slots=True)
class _Second:
    number: int
    started: int = 0
    finished: int = 0
    failed: int = 0
    tokens: int = 0
    usd: float = 0.0
    priced: int = 0
    totals: dict[int, int] = field(default_factory=dict)
    firsts: dict[int, int] = field(default_factory=dict)


class RollingRates:
    """Counts per second, kept for `window_s` seconds."""

    def __init__(self, window_s: int = 60) -> None:
        self.window_s = window_s
        self._seconds: deque[_Second] = deque()
        self._totals = [0] * _BINS
        self._firsts = [0] * _BINS
        self._first_seen: float | None = None

    def started(self, now: float) -> None:
        """A request arrived at `now` (seconds of any steady clock)."""
        self._second(now).started += 1

    def finished(self, row: TransactionRow, now: float) -> None:
        """`row` ended at `now`."""
        second = self._second(now)
        second.finished += 1
        second.failed += row.outcome in ("error", "truncated", "refused")
        second.tokens += row.output_tokens or 0
        if row.cost_usd is not None:
            second.usd += row.cost_usd
            second.priced += 1
        if row.total_ms is not None:
            _count(second.totals, self._totals, row.total_ms)
        if row.ttft_ms is not None:
            _count(second.firsts, self._firsts, row.ttft_ms)

    def snapshot(self, now: float) -> Rates:
        """The rates at `now`."""
        self._expire(int(now))
        seen = 1.0 if self._first_seen is None else now - self._first_seen
        span = min(float(self.window_s), max(1.0, seen))
        finished = sum(second.finished for second in self._seconds)
        priced = any(second.priced for second in self._seconds)
        return Rates(
            rps=sum(second.started for second in self._seconds) / span,
            p50_ms=_quantile(self._totals, 0.5),
            p99_ms=_quantile(self._totals, 0.99),
            ttft_ms=_quantile(self._firsts, 0.5),
            tokens_per_s=sum(second.tokens for second in self._seconds) / span,
            usd_per_hour=sum(second.usd for second in self._seconds) / span * 3600 if priced else None,
            error_share=sum(second.failed for second in self._seconds) / finished if finished else None,
            sparkline=self._sparkline(int(now)),
        )

    def _sparkline(self, current: int) -> tuple[int, ...]:
        counts = {second.number: second.started for second in self._seconds}
        return tuple(counts.get(number, 0) for number in range(current - self.window_s, current))

    def _second(self, now: float) -> _Second:
        if self._first_seen is None or now < self._first_seen:
            self._first_seen = now
        number = int(now)
        if not self._seconds or self._seconds[-1].number < number:
            self._expire(number)
            self._seconds.append(_Second(number))
        if self._seconds[-1].number == number:
            return self._seconds[-1]
        return self._earlier(number)

    def _earlier(self, number: int) -> _Second:
        """A second that is not the newest: reports come a little late, and many at once when a screen opens."""
        place = len(self._seconds)
        while place and self._seconds[place - 1].number >= number:
            place -= 1
            if self._seconds[place].number == number:
                return self._seconds[place]
        self._seconds.insert(place, _Second(number))
        return self._seconds[place]

    def _expire(self, current: int) -> None:
        while self._seconds and self._seconds[0].number < current - self.window_s:
            gone = self._seconds.popleft()
            for bin_number, count in gone.totals.items():
                self._totals[bin_number] -= count
            for bin_number, count in gone.firsts.items():
                self._firsts[bin_number] -= count


def _count(second: dict[int, int], window: list[int], milliseconds: float) -> None:
    ratio = max(milliseconds, _LOWEST_MS) / _LOWEST_MS
    bin_number = min(_BINS - 1, int(math.log(ratio) / _STEP)) if math.isfinite(ratio) else _BINS - 1
    second[bin_number] = second.get(bin_number, 0) + 1
    window[bin_number] += 1


def _quantile(bins: list[int], share: float) -> float | None:
    total = sum(bins)
    if not total:
        return None
    wanted, seen = max(1, math.ceil(share * total)), 0
    for bin_number, count in enumerate(bins):
        seen += count
        if seen >= wanted:
            return _LOWEST_MS * math.exp((bin_number + 0.5) * _STEP)
    return None  # pragma: no cover - the last bin always reaches the total
