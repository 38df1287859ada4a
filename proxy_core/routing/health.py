"""How one upstream does: told by real traffic, kept in memory, pure but for the clock and the dice that are passed in.

A breaker opens after failures in a row, or where too many requests of a sliding window failed; after a pause with jitter it is
half open and lets one request through, whose outcome closes it or opens it for longer. An upstream that asked for a pause
(`retry-after`) is left alone until it is over. Nothing here refuses a request: the pool asks `ready` and decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

BreakerState = Literal["closed", "open", "half_open"]
OperatorState = Literal["active", "drained", "frozen"]
"""`drained`: takes nothing that another can take; `frozen`: takes nothing at all."""

_SLOTS = 10
_LATENCIES = 256
_NEVER = -(1 << 60)


class BreakerRules(Struct, frozen=True):
    """When a breaker opens, and for how long."""

    failures: int = 5
    """Failures in a row."""
    rate: float = 0.5
    """Or this share of the window's requests, once there are `min_requests`."""
    min_requests: int = 20
    window_s: float = 30.0
    pause_s: float = 5.0
    """First pause; it doubles with each failed try, up to `max_pause_s`, and half of it again is added by chance."""
    max_pause_s: float = 60.0


class HealthView(Struct, frozen=True):
    """One upstream as it is seen at one moment."""

    name: str
    breaker: BreakerState
    operator: OperatorState
    in_flight: int
    requests_per_s: float
    error_rate: float
    """Share of the window's requests that failed, 0 to 1."""
    failures_in_a_row: int
    p50_ms: float | None
    """Time to the head of the answer; None where nothing was answered yet."""
    p95_ms: float | None
    p99_ms: float | None
    ready_in_s: float
    """Time until it is tried again; 0 where it is tried now."""
    last_failure: str
    probe: str
    """What the latest probe found: `ok`, or what was wrong; empty where there was none."""
    probed_s_ago: float | None


class SlidingCount:
    """Events and those of them that count, over the last seconds, in steps of a tenth of that time."""

    __slots__ = ("_marked", "_number", "_numbers", "_seen", "_slot", "_step_s")

    def __init__(self, window_s: float) -> None:
        self._step_s = window_s / _SLOTS
        self._numbers = [_NEVER] * _SLOTS
        self._seen = [0] * _SLOTS
        self._marked = [0] * _SLOTS
        self._number = _NEVER
        self._slot = 0

    def see(self, now: float) -> None:
        """An event."""
        if int(now / self._step_s) != self._number:
            self._turn(now)
        self._seen[self._slot] += 1

    def mark(self, now: float) -> None:
        """What counts; where that is an event, it is seen too."""
        if int(now / self._step_s) != self._number:
            self._turn(now)
        self._marked[self._slot] += 1

    def _turn(self, now: float) -> None:
        self._number = int(now / self._step_s)
        self._slot = self._number % _SLOTS
        self._numbers[self._slot] = self._number
        self._seen[self._slot] = self._marked[self._slot] = 0

    def totals(self, now: float) -> tuple[int, int]:
        """Events seen and marked within the window."""
        oldest = int(now / self._step_s) - _SLOTS
        kept = [slot for slot in range(_SLOTS) if self._numbers[slot] > oldest]
        return sum(self._seen[slot] for slot in kept), sum(self._marked[slot] for slot in kept)

    def clear(self) -> None:
        self._numbers = [_NEVER] * _SLOTS
        self._number = _NEVER


class Health:
    """What is known of one upstream."""

    def __init__(self, name: str, rules: BreakerRules, *, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds; `chance` gives numbers from 0 to 1."""
        self.name = name
        self._rules = rules
        self._clock = clock
        self._chance = chance
        self._count = SlidingCount(rules.window_s)
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._in_a_row = 0
        self._open = False
        self._tried_from = 0.0
        """The clock when an open breaker becomes half open."""
        self._pause_s = rules.pause_s
        self._trying = False
        self._resting_until = 0.0
        self._last_failure = ""
        self._is_absent = False
        """Whether its last failure was no answer at all, rather than a bad one."""
        self._probe = ""
        self._probed_at: float | None = None
        self._since = clock()
        self.in_flight = 0
        self.operator: OperatorState = "active"

    def use(self, rules: BreakerRules) -> None:
        """Go by these rules from now on; an open breaker stays open for as long as it was said."""
        if rules.window_s != self._rules.window_s:
            self._count = SlidingCount(rules.window_s)
        self._rules = rules
        if not self._open:
            self._pause_s = rules.pause_s

    def set_state(self, state: OperatorState) -> None:
        """What the operator wants of it; an active one starts with a closed breaker."""
        if state == "active" and self.operator != "active":
            self._close()
        self.operator = state

    @property
    def breaker(self) -> BreakerState:
        if not self._open:
            return "closed"
        return "half_open" if self._clock() >= self._tried_from else "open"

    @property
    def ready(self) -> bool:
        """Whether the next request may go there with good hope."""
        if not self._open and not self._resting_until:
            return True
        now = self._clock()
        if now < self._resting_until:
            return False
        return not self._open or (now >= self._tried_from and not self._trying)

    def begin(self) -> bool:
        """A request goes there. Returns whether it is the one that tries a half-open breaker; tell `end` so."""
        self.in_flight += 1
        if self._open and not self._trying and self._clock() >= self._tried_from:
            self._trying = True
            return True
        return False

    def answered(self, now: float, ms: float) -> None:
        """The head of a good answer came, after this time; `now` is what the clock says."""
        self._latencies.append(ms)
        self._count.see(now)
        self._in_a_row = 0
        if self._open:
            self._close()

    def failed(self, why: str, *, absent: bool = True) -> None:
        """It gave no answer (`absent`), or one that says that it is in trouble."""
        now = self._clock()
        self._last_failure, self._is_absent = why, absent
        self._count.see(now)
        self._count.mark(now)
        self._in_a_row += 1
        if self._open:
            if now >= self._tried_from:
                self._pause_s = min(self._pause_s * 2, self._rules.max_pause_s)
                self._tried_from = now + self._pause()
            return
        seen, marked = self._count.totals(now)
        too_many = seen >= self._rules.min_requests and marked >= seen * self._rules.rate
        if self._in_a_row >= self._rules.failures or too_many:
            self._open = True
            self._tried_from = now + self._pause()

    def probed(self, what: str, *, absent: bool, keeps_s: float = 0.0) -> None:
        """A probe was answered, or was not: then clients are kept away for so long at least, if they are."""
        now = self._clock()
        self._probe, self._probed_at = what, now
        if absent and not self._open:
            self.failed(f"probe: {what}")
        if not self._open:
            return
        if absent:
            self._tried_from = max(self._tried_from, now + keeps_s)
        elif self._is_absent:
            self._tried_from = min(self._tried_from, now)

    def rest(self, seconds: float) -> None:
        """It asked to be left alone for so long; that is no failure."""
        now = self._clock()
        self._count.see(now)
        self._resting_until = max(self._resting_until, now + seconds)

    def end(self, *, trying: bool) -> None:
        """A request is over, however it ended; `trying` as `begin` told."""
        self.in_flight -= 1
        if trying:
            self._trying = False

    def view(self) -> HealthView:
        now = self._clock()
        seen, marked = self._count.totals(now)
        known = sorted(self._latencies)
        span = min(self._rules.window_s, max(now - self._since, 1.0))
        until = max(self._resting_until, self._tried_from if self._open else 0.0)
        return HealthView(
            name=self.name,
            breaker=self.breaker,
            operator=self.operator,
            in_flight=self.in_flight,
            requests_per_s=seen / span,
            error_rate=marked / seen if seen else 0.0,
            failures_in_a_row=self._in_a_row,
            p50_ms=_percentile(known, 0.50),
            p95_ms=_percentile(known, 0.95),
            p99_ms=_percentile(known, 0.99),
            ready_in_s=max(until - now, 0.0),
            last_failure=self._last_failure,
            probe=self._probe,
            probed_s_ago=None if self._probed_at is None else now - self._probed_at,
        )

    def _pause(self) -> float:
        return self._pause_s * (1 + self._chance() / 2)

    def _close(self) -> None:
        self._open = False
        self._in_a_row = 0
        self._pause_s = self._rules.pause_s
        self._resting_until = 0.0
        self._count.clear()


def _percentile(ordered: list[float], share: float) -> float | None:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None
