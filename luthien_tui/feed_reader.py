"""What the screen learns from the gateway's feed: rows, rates, and what should be asked for again.

It pulls a bounded time long and never waits. It says *that* something waits, was decided or was changed; who wants to know more
asks the gateway, so a flood of transactions costs nothing but their rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from luthien_tui.recent_sessions import RecentSessions
from proxy_core.control.plane import ControlPlane
from proxy_core.control.rates import RollingRates
from proxy_core.control.view import TransactionList

BATCH = 200
"""Records that are asked for at once."""


class FeedReader:
    """A cursor in the feed of one gateway."""

    def __init__(self, plane: ControlPlane, rows: TransactionList, rates: RollingRates, clock: Callable[[], float]) -> None:
        self.plane = plane
        self.rows = rows
        self.rates = rates
        self.clock = clock
        self.missed = 0
        """Records that were lost because the screen was behind."""
        self.holds_changed = True
        """Something waits, or no longer does; whoever looked sets it back."""
        self.changes: list[str] = []
        """What operators and the configuration changed, in words; whoever told of it empties the list."""
        self.sessions = RecentSessions()
        self._sequence = 0

    def read(self, budget_s: float) -> None:
        """Take in what happened, for at most `budget_s` seconds; the rest comes next time."""
        deadline = time.perf_counter() + budget_s
        now = self.clock()
        while True:
            records, lost = self.plane.events(self._sequence, BATCH)
            if lost:
                self.missed += lost
                self.holds_changed = True
                if not records:
                    self._sequence += lost
            for record in records:
                kind, row = record.kind, record.row
                if kind in ("held", "released"):
                    self.holds_changed = True
                elif kind == "control_changed":
                    self.changes.append(record.note)
                if row is None:
                    continue
                self.rows.fold(row)
                self.sessions.note(row.session_id, now if row.state != "done" else min(now, row.started_monotonic or now))
                if kind == "started":
                    self._count_started(row.started_monotonic, now)
                elif kind == "finished":
                    ended = row.started_monotonic + (row.total_ms or 0.0) / 1_000
                    if now - ended < self.rates.window_s:
                        self.rates.finished(row, min(ended, now))
            if records:
                self._sequence = records[-1].sequence
            if not records or time.perf_counter() >= deadline:
                break
        self.rows.advance(max(0.001, deadline - time.perf_counter()), time.perf_counter)

    def _count_started(self, started: float, now: float) -> None:
        if now - started < self.rates.window_s:
            self.rates.started(min(started, now))
