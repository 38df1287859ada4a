"""How policies fare: what the screen, the API and the metrics say of each.

`note` is called once for each transaction with what its policies said, so it only counts; what is asked for seldom is
computed when it is asked for. Parts of a policy (`serial/strip_secrets`) count for the policy that stands in the chain. Memory
is bounded: an hour in minutes, the latest times and scores.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from proxy_core.verdicts import Verdict

MINUTES = 60
LATEST = 1_000
MAX_POLICIES = 1_000
"""Names come from the configuration, so this is never reached by honest use."""
_HITS, _ACTED, _SHADOW, _ERRORS = range(4)
_RAN = frozenset({"ran", "partial", "error"})


class PolicyFigures(Struct, frozen=True, kw_only=True):
    """How one policy fared over the last hour; see control.plane.PolicyInfo for the meaning of each."""

    hits_1h: int = 0
    acted_1h: int = 0
    shadow_1h: int = 0
    errors_1h: int = 0
    per_minute: tuple[int, ...] = ()
    p50_ms: float | None = None
    p99_ms: float | None = None
    acted_today: int = 0
    recent_scores: tuple[float, ...] = ()


class PolicyStats:
    """Counts of all policies of a gateway. `clock` gives Unix time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._policies: dict[str, _Counted] = {}
        self._decisions: dict[tuple[str, ...], int] = {}
        self._transactions = 0

    def note(self, verdicts: Sequence[Verdict]) -> None:
        """Count what the policies of one transaction said."""
        if not verdicts:
            return
        self._transactions = transaction = self._transactions + 1
        minute = int(self._clock() // 60)
        for verdict in verdicts:
            if verdict.ran not in _RAN:
                continue
            name = _top(verdict.policy)
            counted = self._policies.get(name)
            if counted is None:
                if len(self._policies) >= MAX_POLICIES:
                    continue
                counted = self._policies[name] = _Counted(minute)
            decision = (name, verdict.action, verdict.mode)
            self._decisions[decision] = self._decisions.get(decision, 0) + 1
            if counted.minute != minute:
                counted.turn_to(minute)
            now = counted.now
            if counted.transaction != transaction:
                counted.transaction = transaction
                counted.noted = 0
                now[_HITS] += 1
                counted.times.append(verdict.ms)
            elif verdict.ms:
                counted.times[-1] += verdict.ms
            if verdict.action != "allow":
                place = _SHADOW if verdict.mode == "shadow" else _ACTED
                if not counted.noted >> place & 1:
                    counted.noted |= 1 << place
                    now[place] += 1
                    if place == _ACTED:
                        counted.acted_today += 1
            if verdict.ran == "error" and not counted.noted >> _ERRORS & 1:
                counted.noted |= 1 << _ERRORS
                now[_ERRORS] += 1
            if verdict.score is not None:
                counted.scores.append(verdict.score)

    def figures(self, policy: str) -> PolicyFigures:
        """How the policy of that name fared; zeros where nothing was heard of it."""
        counted = self._policies.get(policy)
        minute = int(self._clock() // 60)
        if counted is None:
            return PolicyFigures(per_minute=(0,) * MINUTES)
        if counted.minute < minute:
            counted.turn_to(minute)
        hour = counted.hour
        times = sorted(counted.times)
        return PolicyFigures(
            hits_1h=sum(one[_HITS] for one in hour),
            acted_1h=sum(one[_ACTED] for one in hour),
            shadow_1h=sum(one[_SHADOW] for one in hour),
            errors_1h=sum(one[_ERRORS] for one in hour),
            per_minute=tuple(one[_HITS] for one in hour),
            p50_ms=quantile(times, 50),
            p99_ms=quantile(times, 99),
            acted_today=counted.acted_today,
            recent_scores=tuple(counted.scores),
        )

    def decisions(self) -> Mapping[tuple[str, ...], int]:
        """How often each policy said what since the start: by policy, action and mode."""
        return self._decisions


class _Counted:
    """The counts of one policy."""

    __slots__ = ("acted_today", "day", "hour", "minute", "noted", "now", "scores", "times", "transaction")

    def __init__(self, minute: int) -> None:
        self.minute = minute
        self.day = _day(minute)
        self.hour: deque[list[int]] = deque(([0, 0, 0, 0] for _ in range(MINUTES)), maxlen=MINUTES)
        """Hits, acted, shadow and errors of each of the last 60 minutes, oldest first."""
        self.now = self.hour[-1]
        self.times: deque[float] = deque(maxlen=LATEST)
        """Time that each of the latest transactions cost, in ms."""
        self.scores: deque[float] = deque(maxlen=LATEST)
        self.acted_today = 0
        self.transaction = 0
        """The latest transaction that it spoke of."""
        self.noted = 0
        """What was counted of that transaction already, a bit each."""

    def turn_to(self, minute: int) -> None:
        """Begin another minute. A clock that is set back changes nothing: the present minute goes on."""
        if minute <= self.minute:
            return
        for _ in range(min(minute - self.minute, MINUTES)):
            self.hour.append([0, 0, 0, 0])
        self.now = self.hour[-1]
        self.minute = minute
        if (day := _day(minute)) != self.day:
            self.day, self.acted_today = day, 0


@lru_cache(maxsize=MAX_POLICIES)
def _top(name: str) -> str:
    """The policy in the chain that a policy is part of."""
    return name.partition("/")[0]


@lru_cache(maxsize=4)
def _day(minute: int) -> tuple[int, int]:
    """The local day of a minute since 1970."""
    local = time.localtime(minute * 60)
    return local.tm_year, local.tm_yday


def quantile(ordered: list[float], percent: int) -> float | None:
    """The smallest of the values that at least `percent` of them do not exceed; None where there is none."""
    if not ordered:
        return None
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return round(ordered[max(0, rank - 1)], 4)
