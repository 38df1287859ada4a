"""What recorded traffic has used: tokens and cost, summed by the store over whatever its transactions have in common.

One query whatever is asked. A sum of nothing known is None, never 0; what could not be priced is counted beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from msgspec import Struct
from sqlalchemy import ColumnElement, func

from proxy_core.journal.request_sums import DAY_NS, FAILED, MODEL, UNPRICED, UPSTREAM, count_if, joined
from proxy_core.journal.schema import outcomes, transactions
from proxy_core.journal.store import JournalStore

GroupBy = Literal["session", "agent", "model", "key", "user", "upstream", "day", "workflow"]
GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)
_FIRST_DAY = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_S = 9.2e9


class UsageSum(Struct, kw_only=True):
    """What some transactions have used together."""

    group: tuple[str, ...] = ()
    """What they have in common, in the order in which it was asked for; a day is `2026-01-31`, in UTC. Hostile text."""
    requests: int
    errors: int
    """Those that failed in any way: error, truncated, refused. What has no outcome still runs, or is lost: nobody can tell."""
    input_tokens: int | None
    """Cached tokens and cache writes included; None where none of them tells."""
    output_tokens: int | None
    """Reasoning included."""
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    """Of those whose price is known; None where none is."""
    unpriced: int
    """Those that used tokens and are not in `cost_usd`, because nobody knows their price."""
    estimated: int
    """Those whose token counts are luthien's estimate."""
    first_at: float
    """Unix time in seconds at which the first of them began."""
    last_at: float


_COLUMNS: Mapping[str, ColumnElement[Any]] = {
    "session": transactions.c.session_id,
    "agent": transactions.c.agent,
    "model": MODEL,
    "key": transactions.c.client_key,
    "user": transactions.c.user_name,
    "upstream": UPSTREAM,
    "day": transactions.c.started_ns // DAY_NS,
    "workflow": transactions.c.workflow,
}


class UsageReads(JournalStore):
    """Reads one store and sums."""

    async def usage(
        self,
        group_by: GroupBy | Sequence[GroupBy] = (),
        *,
        where: Mapping[GroupBy, str] | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 1_000,
    ) -> list[UsageSum]:
        """Tokens and cost of what began from `since` to before `until` (Unix seconds), for each group one sum.

        `group_by` names one or more of session, agent, model, key, user, upstream, day, workflow; without any there is one sum
        of everything. `where` keeps to transactions with just this value, a day as `2026-01-31`. Days come newest first, other
        groups by cost, then tokens, then requests, the largest first; at most `limit`. Raises ValueError for a name or day that
        is none.
        """
        names = (group_by,) if isinstance(group_by, str) else tuple(group_by)
        columns = [_column(name) for name in names]
        tokens = {name: func.sum(outcomes.c[name]) for name in _TOKENS}
        cost = func.sum(outcomes.c.cost_usd)
        total = func.coalesce(tokens["input_tokens"], 0) + func.coalesce(tokens["output_tokens"], 0)
        query = joined(
            *[column.label(f"group_{place}") for place, column in enumerate(columns)],
            func.count().label("requests"),
            count_if(outcomes.c.outcome.in_(FAILED)).label("errors"),
            *[column.label(name) for name, column in tokens.items()],
            cost.label("cost_usd"),
            count_if(UNPRICED).label("unpriced"),
            func.coalesce(func.sum(outcomes.c.estimated), 0).label("estimated"),
            func.min(transactions.c.started_ns).label("first_ns"),
            func.max(transactions.c.started_ns).label("last_ns"),
        )
        if since is not None:
            query = query.where(transactions.c.started_ns >= _nanoseconds(since))
        if until is not None:
            query = query.where(transactions.c.started_ns < _nanoseconds(until))
        for name, value in (where or {}).items():
            query = query.where(_column(name) == (_day_number(value) if name == "day" else value))
        if columns:
            largest = [func.coalesce(cost, 0.0).desc(), total.desc(), func.count().desc()]
            days = [column.desc() for name, column in zip(names, columns, strict=True) if name == "day"]
            query = query.group_by(*columns).order_by(*days, *largest, *columns).limit(limit)
        return [_sum(one, names) for one in await self._all(query) if one.requests]


_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def _column(name: str) -> ColumnElement[Any]:
    if name not in _COLUMNS:
        raise ValueError(f"usage is summed by {', '.join(GROUPS)}, not by {name[:40]!r}")
    return _COLUMNS[name]


def _nanoseconds(moment: float) -> int:
    """Of a Unix time, which may lie before or behind all that a store can hold."""
    return int(min(max(moment, 0.0), _LAST_S) * 1e9)


def _day_number(day: str) -> int:
    return (datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) - _FIRST_DAY).days


def _sum(one: Any, names: Sequence[str]) -> UsageSum:
    group = [getattr(one, f"group_{place}") for place in range(len(names))]
    return UsageSum(
        group=tuple(
            (_FIRST_DAY + timedelta(days=value)).strftime("%Y-%m-%d") if name == "day" else value
            for name, value in zip(names, group, strict=True)
        ),
        requests=one.requests,
        errors=int(one.errors),
        cost_usd=None if one.cost_usd is None else float(one.cost_usd),
        unpriced=int(one.unpriced),
        estimated=int(one.estimated),
        first_at=one.first_ns / 1e9,
        last_at=one.last_ns / 1e9,
        **{name: None if (count := getattr(one, name)) is None else int(count) for name in _TOKENS},
    )
