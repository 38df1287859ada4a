"""Reading the journal for how a day and the last hour go.

Like the sums of sessions these are counted once: what has ended is remembered, and only requests that are new or had no
outcome yet are read again. A new day begins at nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, and_, func, literal_column, select

from proxy_core.journal.async_engine import AsyncEngine
from proxy_core.journal.listing import listed, row_of
from proxy_core.journal.request_sums import FAILED, MINUTE_NS, SUMS, joined, totals_of
from proxy_core.journal.schema import outcomes, transactions
from proxy_core.journal.session_facts import MAX_TOOLS, Group, add_counts, add_tools, merge
from proxy_core.journal.session_totals import SessionTotals, beyond
from proxy_core.totals import Totals
from proxy_core.transaction_row import TransactionRow

MAX_COUNTED = 50_000
"""Sessions of a day that are counted."""
_MINUTE: ColumnElement[Any] = transactions.c.started_ns // literal_column(str(MINUTE_NS))


class DayCounts(Struct):
    """What the requests of a day came to."""

    groups: dict[tuple[str, str, str], Group] = {}
    """By agent, model and workflow."""
    sessions: dict[tuple[str, str], int] = {}
    """Requests by agent and session, of at most 50,000."""
    tools: dict[str, int] = {}
    """How often answers called each."""
    failures: dict[tuple[str, int | None], int] = {}
    """How often each outcome and status came."""

    def add(self, more: DayCounts) -> None:
        for group in more.groups.values():
            merge(self.groups, group)
        add_counts(self.tools, more.tools, MAX_TOOLS)
        add_counts(self.sessions, more.sessions, MAX_COUNTED)
        add_counts(self.failures, more.failures, MAX_COUNTED)


class _Day(Struct):
    since_ns: int
    seq: int
    waiting: tuple[int, ...] = ()
    """Requests up to `seq` that are not in the sums yet."""
    counts: DayCounts = msgspec.field(default_factory=DayCounts)


class _Minutes(Struct):
    seq: int
    waiting: tuple[int, ...] = ()
    totals: dict[int, Totals] = {}


class DayReads(SessionTotals):
    """Reads one store by time."""

    def __init__(self, engine: AsyncEngine, wall_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(engine, wall_ns)
        self._day: _Day | None = None
        self._minutes: _Minutes | None = None
        self._daily = asyncio.Lock()

    async def day(self, since_ns: int) -> DayCounts:
        """What the requests of the day that began at `since_ns` came to."""
        async with self._daily:
            cut = await self._take_cut()
            day = self._day
            if day is None or day.since_ns != since_ns:
                day = _Day(since_ns, await self.first_since(since_ns) - 1)
            news = and_(beyond(day.seq, day.waiting), transactions.c.started_ns >= since_ns)
            sure, rest = DayCounts(), DayCounts()
            for group, is_settled in await self._groups(("agent", "model", "workflow"), news, cut.is_settled):
                merge((sure if is_settled else rest).groups, group)
            # Nothing that an index is sorted by comes first in a group, or SQLite reads all of that index.
            keys = (cut.is_settled, transactions.c.agent, transactions.c.session_id)
            counted = select(*keys, func.count().label("times")).where(news)
            async for one in self._each(counted.group_by(*keys)):
                add_counts((sure if one.is_settled else rest).sessions, {(one.agent, one.session_id): one.times}, MAX_COUNTED)
            called = joined(outcomes.c.tools, cut.is_settled, func.count().label("times"))
            called = called.where(news, func.coalesce(outcomes.c.tools, "") != "")
            async for one in self._each(called.group_by(outcomes.c.tools, cut.is_settled)):
                add_tools((sure if one.is_settled else rest).tools, one.tools, one.times)
            failed = joined(outcomes.c.outcome, outcomes.c.status, cut.is_settled, func.count().label("times"))
            failed = failed.where(news, outcomes.c.outcome.in_(FAILED))
            async for one in self._each(failed.group_by(outcomes.c.outcome, outcomes.c.status, cut.is_settled)):
                (sure if one.is_settled else rest).failures[one.outcome, one.status] = one.times
            day.counts.add(sure)
            day.seq, day.waiting, self._day = max(day.seq, cut.seq), cut.waiting_seqs, day
            whole = DayCounts()
            whole.add(day.counts)
            whole.add(rest)
            return whole

    async def minutes(self, since_ns: int) -> dict[int, Totals]:
        """What the requests of each minute since 1970 came to that has any, from `since_ns` on."""
        async with self._daily:
            cut = await self._take_cut()
            known = self._minutes or _Minutes(await self.first_since(since_ns) - 1)
            news = and_(beyond(known.seq, known.waiting), transactions.c.started_ns >= since_ns)
            query = joined(_MINUTE.label("minute"), cut.is_settled, *SUMS).where(news).group_by(_MINUTE, cut.is_settled)
            found = [(one.minute, totals_of(one), bool(one.is_settled)) for one in await self._all(query)]
            first = since_ns // MINUTE_NS
            totals = {minute: one for minute, one in known.totals.items() if minute >= first}
            for minute, more, is_settled in found:
                if is_settled:
                    totals.setdefault(minute, Totals()).add(more)
            self._minutes = _Minutes(max(known.seq, cut.seq), cut.waiting_seqs, totals)
            whole = {minute: msgspec.structs.replace(one) for minute, one in totals.items()}
            for minute, more, is_settled in found:
                if not is_settled:
                    whole.setdefault(minute, Totals()).add(more)
            return whole

    async def seen_since(self, since_ns: int) -> set[tuple[str, str]]:
        """Agent and session of the requests that began then or later."""
        recent = _since(await self.first_since(since_ns), since_ns)
        query = select(transactions.c.agent, transactions.c.session_id).where(recent).distinct()
        return {(one.agent, one.session_id) async for one in self._each(query)}

    async def total_times(self, since_ns: int, limit: int) -> list[float]:
        """Total times in ms of the latest requests that went well, sorted."""
        query = joined(outcomes.c.total_ms).where(
            _since(await self.first_since(since_ns), since_ns), outcomes.c.total_ms.is_not(None), outcomes.c.outcome == "ok"
        )
        return sorted([one.total_ms async for one in self._each(query.order_by(transactions.c.seq.desc()).limit(limit))])

    async def failed_rows(self, since_ns: int, limit: int) -> list[TransactionRow]:
        """The latest of what failed, the newest first."""
        query = listed().where(_since(await self.first_since(since_ns), since_ns), outcomes.c.outcome.in_(FAILED))
        return [row_of(one) for one in await self._all(query.order_by(transactions.c.seq.desc()).limit(limit))]


def _since(seq: int, ns: int) -> ColumnElement[bool]:
    """The number narrows the search, the time is what counts: numbers are given in order of writing."""
    return and_(transactions.c.seq >= seq, transactions.c.started_ns >= ns)
