"""How routing fared: counts by reason and upstream over the last hour, latencies, and the latest decisions.

One call as each transaction ends; everything is kept in this process, and those of the hour before it are recalled. Bounded:
sixty minutes of counts, 1,000 latencies of each upstream, 200 decisions.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from proxy_core.control.routing_infos import DecisionInfo
from proxy_core.policies.stats import quantile
from proxy_core.routing.reasons import Reason
from proxy_core.transaction_row import TransactionRow

MINUTES = 60
LATENCIES = 1_000
RECENT = 200
_RULES: dict[str, str] = {
    Reason.OPERATOR_OVERRIDE: "operator",
    Reason.EXPLICIT_UPSTREAM: "explicit",
    Reason.BACKEND_SET: "explicit",
    Reason.EXPLICIT_MODEL: "model",
    Reason.SENSITIVE_KEYWORD_MATCH: "sensitivity",
    Reason.CONTENT_UNREADABLE: "sensitivity",
    Reason.TAG_RULE: "tag",
    Reason.COST_PREFER_LOCAL: "cost",
    Reason.DEFAULT: "default",
}
_FAILED = frozenset({"error", "truncated"})


class UpstreamFigures(Struct, frozen=True, kw_only=True):
    """How one upstream fared over the last hour."""

    requests: int
    rps: float
    """Over the last minute."""
    error_rate: float | None
    cost_usd: float
    p50_ms: float | None
    p99_ms: float | None


class _Minute:
    """What ended within one minute, by upstream."""

    __slots__ = ("cost", "failed", "number", "reasons", "requests")

    def __init__(self, number: int) -> None:
        self.number = number
        self.requests: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.cost: dict[str, float] = {}
        self.reasons: Counter[str] = Counter()
        """By the codes as rows have them: comma-separated."""

    def add(self, row: TransactionRow) -> None:
        upstream = row.upstream
        self.requests[upstream] += 1
        self.reasons[row.reason] += 1
        if row.outcome in _FAILED:
            self.failed[upstream] += 1
        if row.cost_usd:
            self.cost[upstream] = self.cost.get(upstream, 0.0) + row.cost_usd


class RouteStats:
    """Counts as transactions end. `clock` gives steady seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._minutes: deque[_Minute] = deque()
        self._latencies: dict[str, deque[tuple[float, float]]] = {}
        """Of each upstream: when it ended, and ms."""
        self._recent: deque[TransactionRow] = deque(maxlen=RECENT)

    def note(self, row: TransactionRow) -> None:
        """Count a transaction that has ended; one that was never routed counts nowhere."""
        if not row.reason:
            return
        now = self._clock()
        self._minute(now).add(row)
        if row.total_ms is not None:
            latencies = self._latencies.get(row.upstream)
            if latencies is None:
                latencies = self._latencies[row.upstream] = deque(maxlen=LATENCIES)
            latencies.append((now, row.total_ms))
        self._recent.append(row)

    def recall(self, rows: Sequence[tuple[float, TransactionRow]]) -> None:
        """Count transactions of the last hour that ended before all that were counted; each with its age in seconds, oldest
        first."""
        now = self._clock()
        minutes = {minute.number: minute for minute in self._minutes}
        latencies: dict[str, list[tuple[float, float]]] = {}
        known = [(now - age_s, row) for age_s, row in rows if row.reason and 0 <= age_s < MINUTES * 60]
        for at, row in known:
            number = int(at // 60)
            minutes.setdefault(number, _Minute(number)).add(row)
            if row.total_ms is not None:
                latencies.setdefault(row.upstream, []).append((at, row.total_ms))
        self._minutes = deque(minutes[number] for number in sorted(minutes))
        for name, found in latencies.items():
            self._latencies[name] = deque([*found, *self._latencies.get(name, ())], maxlen=LATENCIES)
        self._recent = deque([*(row for _, row in known), *self._recent], maxlen=RECENT)

    def reasons(self) -> tuple[tuple[str, int], ...]:
        """Codes of the last hour, the most frequent first; of several codes of one decision each counts."""
        found: Counter[str] = Counter()
        for minute in self._last_hour():
            for codes, count in minute.reasons.items():
                for code in codes.split(","):
                    found[code] += count
        return tuple(sorted(found.items(), key=lambda one: (-one[1], one[0])))

    def of_upstream(self, name: str) -> UpstreamFigures:
        """How one upstream fared."""
        hour = self._last_hour()
        requests = sum(minute.requests[name] for minute in hour)
        failed = sum(minute.failed[name] for minute in hour)
        now = self._clock()
        latencies = [(at, ms) for at, ms in self._latencies.get(name, ()) if now - at < MINUTES * 60]
        values = sorted(ms for _, ms in latencies)
        # Before a minute of counts is full, the one before it counts for what is missing.
        current = int(now // 60)
        by_number = {minute.number: minute.requests[name] for minute in hour}
        part = now / 60 - current
        rps = (by_number.get(current, 0) + by_number.get(current - 1, 0) * (1 - part)) / 60
        return UpstreamFigures(
            requests=requests,
            rps=rps,
            error_rate=failed / requests if requests else None,
            cost_usd=sum(minute.cost.get(name, 0.0) for minute in hour),
            p50_ms=quantile(values, 50),
            p99_ms=quantile(values, 99),
        )

    def recent(self) -> tuple[DecisionInfo, ...]:
        """The latest decisions, newest first."""
        return tuple(_decision(row) for row in reversed(self._recent))

    def _minute(self, now: float) -> _Minute:
        number = int(now // 60)
        if not self._minutes or self._minutes[-1].number != number:
            self._minutes.append(_Minute(number))
            while self._minutes[0].number <= number - MINUTES:
                self._minutes.popleft()
        return self._minutes[-1]

    def _last_hour(self) -> list[_Minute]:
        oldest = int(self._clock() // 60) - MINUTES
        return [minute for minute in self._minutes if minute.number > oldest]


def rule_of(reasons: Iterable[str]) -> str:
    """The rule whose codes these are; empty for codes of nobody's."""
    return next((rule for code in reasons if (rule := _RULES.get(code)) is not None), "")


def _decision(row: TransactionRow) -> DecisionInfo:
    reasons = tuple(row.reason.split(","))
    return DecisionInfo(
        at=row.started_at,
        transaction_id=row.transaction_id,
        model=row.model,
        upstream=row.upstream,
        reasons=reasons,
        rule=rule_of(reasons),
    )
