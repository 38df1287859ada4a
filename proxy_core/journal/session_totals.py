"""What sessions and agents came to, counted by the store in a few queries for a whole list.

What has ended is counted once: sums are remembered for the sessions that were asked for lately and for every agent, and only
requests that are new or had no outcome yet are read again. Reading never waits for the writer. Use it on one loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Boolean, ColumnElement, Row, Select, and_, case, distinct, exists, func, literal_column, or_, select

from proxy_core.ids import new_ulid
from proxy_core.journal.async_engine import AsyncEngine
from proxy_core.journal.listing import latest_outcome, read_tags
from proxy_core.journal.request_sums import DAY_NS, MODEL, SUMS, UPSTREAM, count_if, joined, totals_of
from proxy_core.journal.schema import outcomes, transactions
from proxy_core.journal.session_facts import MAX_GROUPS, Group, SessionFacts, add_counts, add_tools, merge, take, together
from proxy_core.journal.store import JournalStore
from proxy_core.totals import Totals
from proxy_core.wire.dialects import CONVERSING

KEPT_SESSIONS = 5_000
ROWS_AT_ONCE = 100
MAX_NAMES = 1_000
LOST_AFTER_NS = 24 * 3_600_000_000_000
"""A request that has had no outcome for so long gets none any more."""
MAX_WAITING = 5_000
"""Requests without an outcome that are looked at again."""
MAX_OVERTAKEN = 10_000
"""Requests that began later may have been written so many numbers before one."""
COMMIT_S = 60.0
"""Where several gateways write, a number may appear so long after a higher one."""
_PART = 100
"""Sessions in one query."""


class _Settled(Struct):
    """A session's sums up to a request."""

    seq: int = 0
    waiting: tuple[int, ...] = ()
    """Requests up to there that had no outcome and are not in the sums."""
    facts: SessionFacts | None = None


class _Cut(Struct, frozen=True):
    """Where what is counted for good ends: up to `seq`, but for those that wait. It is taken before anything is counted, so that
    a request that ends meanwhile is on one side of it in every query."""

    seq: int = 0
    waiting: tuple[tuple[str, int], ...] = ()
    """Session and number of requests up to there that may still get an outcome."""

    @property
    def waiting_seqs(self) -> tuple[int, ...]:
        return tuple(seq for _, seq in self.waiting)

    @property
    def is_settled(self) -> Any:
        """1 of a request that will not change any more. Without parameters, because it is grouped by."""
        settled = f"transactions.seq <= {self.seq:d}"
        if self.waiting:
            settled += f" AND transactions.seq NOT IN ({', '.join(f'{seq:d}' for seq in self.waiting_seqs)})"
        return case((literal_column(settled, Boolean), literal_column("1")), else_=literal_column("0")).label("is_settled")


class SessionTotals(JournalStore):
    """Counts one store by session and by agent."""

    def __init__(self, engine: AsyncEngine, wall_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(engine)
        self._wall_ns = wall_ns
        self._newest: deque[tuple[float, int]] = deque([(0.0, 0)])
        self._cut: _Cut | None = None
        self._sessions: OrderedDict[str, _Settled] = OrderedDict()
        self._agents: dict[tuple[str, str, str], Group] = {}
        self._agents_seq = 0
        self._agents_waiting: tuple[int, ...] = ()
        self._begun: Counter[str] = Counter()
        self._begun_seq = 0
        self._counting = asyncio.Lock()
        self._listing = asyncio.Lock()
        self._cutting = asyncio.Lock()

    async def newest(self) -> int:
        """Number of the latest request; 0 where there is none."""
        return int((await self._all(select(func.max(transactions.c.seq))))[0][0] or 0)

    async def latest_sessions(
        self, limit: int, *, upto: int, before: int | None = None, agent: str = ""
    ) -> list[tuple[int, str]]:
        """Number of the latest request and name of each session, the latest first; those whose latest is before `before`.
        It is as it was when `upto` was the number of the newest request: traffic moves nothing between two pages."""
        later = transactions.alias("later")
        has_later = exists().where(
            and_(later.c.session_id == transactions.c.session_id, later.c.seq > transactions.c.seq, later.c.seq <= upto)
        )
        query = select(transactions.c.seq, transactions.c.session_id).where(transactions.c.session_id != "", ~has_later)
        query = query.where(transactions.c.seq <= upto if before is None else transactions.c.seq < before)
        if agent:
            query = query.where(transactions.c.agent == agent)
        found = await self._all(query.order_by(transactions.c.seq.desc()).limit(limit))
        return [(one.seq, one.session_id) for one in found]

    async def session_facts(self, session_ids: Sequence[str]) -> dict[str, SessionFacts]:
        """What is known of these sessions; unknown ones are left out."""
        found: dict[str, SessionFacts] = {}
        async with self._listing:
            cut = await self._take_cut()
            for start in range(0, len(session_ids), _PART):
                part = session_ids[start : start + _PART]
                known = {name: self._sessions.get(name) or _Settled() for name in part}
                await self._count(known, _news(known), cut, found)
            await self._add_latest(found)
        return found

    async def _count(
        self, known: Mapping[str, _Settled], news: ColumnElement[bool], cut: _Cut, found: dict[str, SessionFacts]
    ) -> None:
        fresh: dict[str, SessionFacts] = {}
        sure: dict[str, SessionFacts] = {}
        flag = cut.is_settled
        async for one in self._each(_by_session(news, flag)):
            take(sure if one.is_settled else fresh, one)
        called = select(_SESSION, flag, outcomes.c.tools, func.count().label("times"))
        called = called.select_from(transactions.join(outcomes, latest_outcome())).where(news, outcomes.c.tools != "")
        async for one in self._each(called.group_by(_SESSION, flag, outcomes.c.tools)):
            facts = (sure if one.is_settled else fresh).get(one.session_id)
            if facts is not None:
                add_tools(facts.tools, one.tools, one.times)
        waiting: dict[str, list[int]] = {}
        for name, seq in cut.waiting:
            if name in known:
                waiting.setdefault(name, []).append(seq)
        for name, old in known.items():
            new = _Settled(cut.seq, tuple(waiting.get(name, ())), together(sure.get(name), old.facts))
            if new.facts is not None:
                self._sessions[name] = new
                self._sessions.move_to_end(name)
                if len(self._sessions) > KEPT_SESSIONS:
                    self._sessions.popitem(last=False)
            whole = together(fresh.get(name), new.facts)
            if whole is not None:
                found[name] = whole

    async def _add_latest(self, found: Mapping[str, SessionFacts]) -> None:
        """What the latest request of each says, and how many sub-sessions it has."""
        columns = (_SESSION, transactions.c.preview, transactions.c.link, transactions.c.agent)
        latest = [facts.last_seq for facts in found.values()]
        for one in await self._all(select(*columns).where(transactions.c.seq.in_(latest))):
            facts = found[one.session_id]
            facts.preview, facts.link, facts.agent = one.preview, one.link, one.agent or facts.agent
        count = func.count(distinct(_SESSION)).label("children")
        query = select(_PARENT, count).where(_HAS_PARENT, _PARENT.in_(list(found))).group_by(_PARENT)
        for one in await self._all(query):
            found[one.parent_session].children = one.children

    async def children(self, session_id: str, limit: int) -> list[str]:
        """Sessions that this one started, in order of their beginning."""
        query = select(_SESSION).where(_HAS_PARENT, _PARENT.in_([session_id]), _SESSION.not_in([session_id]))
        query = query.group_by(_SESSION).order_by(func.min(transactions.c.seq)).limit(limit)
        return [one.session_id for one in await self._all(query)]

    async def used_tags(self) -> dict[str, dict[str, int]]:
        """Tags of the latest 20,000 tagged requests: how many have each value of each name, of at most 1,000 names and as many
        values of each."""
        inner = select(transactions.c.tags).where(transactions.c.tags != "").order_by(transactions.c.seq.desc()).limit(20_000)
        latest = inner.subquery()
        counts: dict[str, dict[str, int]] = {}
        async for one in self._each(select(latest.c.tags, func.count().label("times")).group_by(latest.c.tags)):
            for name, value in read_tags(one.tags):
                if name not in counts and len(counts) >= MAX_NAMES:
                    continue
                values = counts.setdefault(name, {})
                if value in values or len(values) < MAX_NAMES:
                    values[value] = values.get(value, 0) + one.times
        return counts

    async def agents(self) -> list[Group]:
        """Requests by agent, model and workflow."""
        async with self._counting:
            cut = await self._take_cut()
            groups: dict[tuple[str, str, str], Group] = {}
            for known in self._agents.values():
                merge(groups, known)
            sure: list[Group] = []
            news = beyond(self._agents_seq, self._agents_waiting)
            for one, is_settled in await self._groups(("agent", "model", "workflow"), news, cut.is_settled):
                merge(groups, one)
                if is_settled:
                    sure.append(one)
            for one in sure:
                merge(self._agents, one)
            self._agents_seq, self._agents_waiting = cut.seq, cut.waiting_seqs
            return list(groups.values())

    async def sessions_by_agent(self) -> dict[str, int]:
        """How many sessions each agent has begun."""
        earlier = transactions.alias("earlier")
        has_earlier = exists().where(and_(earlier.c.session_id == _SESSION, earlier.c.seq < transactions.c.seq))
        async with self._counting:
            settled = (await self._take_cut()).seq
            is_settled = _Cut(settled).is_settled
            query = select(transactions.c.agent, is_settled, func.count().label("sessions"))
            query = query.where(_SESSION != "", transactions.c.seq > self._begun_seq, ~has_earlier)
            found = [one async for one in self._each(query.group_by(transactions.c.agent, is_settled))]
            counts = Counter(self._begun)
            for one in found:
                counts[one.agent] += one.sessions
                if one.is_settled:
                    add_counts(self._begun, {one.agent: one.sessions}, MAX_GROUPS)
            self._begun_seq = settled
            return dict(counts)

    async def agent_groups(self, agent: str) -> list[Group]:
        """Requests of an agent by model and day, the latest seen first."""
        found = await self._groups(("model", "day"), transactions.c.agent == agent, _Cut().is_settled)
        return [group for group, _ in found]

    async def session_totals(self, session_ids: Sequence[str], since_ns: int) -> dict[str, Totals]:
        """What these sessions came to since then."""
        meant = and_(_SESSION.in_(session_ids), transactions.c.started_ns >= since_ns)
        found = await self._groups(("session_id",), meant, _Cut().is_settled)
        return {group.session_id: group.totals for group, _ in found}

    async def tools_called(self, agent: str) -> dict[str, int]:
        """How often answers to an agent called each tool."""
        called = select(outcomes.c.tools, func.count().label("times"))
        called = called.select_from(transactions.join(outcomes, latest_outcome()))
        called = called.where(outcomes.c.tools != "", transactions.c.agent == agent)
        counts: dict[str, int] = {}
        async for one in self._each(called.group_by(outcomes.c.tools)):
            add_tools(counts, one.tools, one.times)
        return counts

    async def _groups(self, by: Sequence[str], meant: ColumnElement[bool], flag: Any) -> list[tuple[Group, bool]]:
        keys = [_KEYS[name].label(name) for name in by]
        first, last = func.min(transactions.c.started_ns).label("first_ns"), func.max(transactions.c.started_ns).label("last_ns")
        query = joined(flag, *keys, first, last, *SUMS).where(meant).group_by(flag, *(_KEYS[name] for name in by))
        query = query.order_by(func.max(transactions.c.seq).desc()).limit(MAX_GROUPS)
        return [
            (
                Group(first_ns=one.first_ns, last_ns=one.last_ns, totals=totals_of(one), **{n: getattr(one, n) for n in by}),
                bool(one.is_settled),
            )
            async for one in self._each(query)
        ]

    async def _each(self, query: Select[Any]) -> AsyncIterator[Row[Any]]:
        """The rows of a query that may give many, a few at a time: the loop is free in between."""
        async with self._engine.connect() as connection:
            async for part in (await connection.stream(query)).partitions(ROWS_AT_ONCE):
                for one in part:
                    yield one
                await asyncio.sleep(0)

    async def first_since(self, wall_ns: int) -> int:
        """A number from which on to look for transactions that began then or later. Numbers are given in the order of writing,
        so that some before it may have begun earlier."""
        earliest = new_ulid(max(0, wall_ns // 1_000_000), lambda count: bytes(count))
        query = select(transactions.c.seq).where(transactions.c.transaction_id >= earliest)
        found = await self._all(query.order_by(transactions.c.transaction_id).limit(1))
        return max(1, (int(found[0].seq) if found else await self.newest() + 1) - MAX_OVERTAKEN)

    async def _take_cut(self) -> _Cut:
        """Where counting for good ends now. It never goes back: what waited once and was counted since never waits again."""
        async with self._cutting:
            lost_ns = self._wall_ns() - LOST_AFTER_NS
            known = self._cut or _Cut(await self.first_since(lost_ns) - 1)
            settled = max(known.seq, await self._settle())
            query = joined(_SESSION, transactions.c.seq).where(
                beyond(known.seq, known.waiting_seqs),
                transactions.c.seq <= settled,
                transactions.c.started_ns > lost_ns,
                outcomes.c.seq.is_(None),
            )
            found = await self._all(query.order_by(transactions.c.seq).limit(MAX_WAITING + 1))
            waiting = [(one.session_id, one.seq) for one in found]
            if len(waiting) > MAX_WAITING:
                settled = waiting.pop()[1] - 1
            self._cut = _Cut(settled, tuple(waiting))
            return self._cut

    async def _settle(self) -> int:
        """Number of the request up to which no other can appear any more."""
        newest = await self.newest()
        if self._engine.dialect.name == "sqlite":
            return newest
        now = self._wall_ns() / 1e9
        if newest > self._newest[-1][1]:
            self._newest.append((now, newest))
        while len(self._newest) > 1 and self._newest[1][0] <= now - COMMIT_S:
            self._newest.popleft()
        return self._newest[0][1]


_SESSION = transactions.c.session_id
_PARENT = transactions.c.parent_session
_HAS_PARENT = literal_column("''") != _PARENT
_KEYS: dict[str, ColumnElement[Any]] = {
    "agent": transactions.c.agent,
    "session_id": _SESSION,
    "workflow": transactions.c.workflow,
    "model": MODEL,
    "day": transactions.c.started_ns // literal_column(str(DAY_NS)),
}


def _news(known: Mapping[str, _Settled]) -> ColumnElement[bool]:
    """What is not in the sums of these sessions. Sums up to the same number go together, so that few queries have to be made."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, one in known.items():
        names.setdefault((one.seq, one.waiting), []).append(name)
    return or_(*(and_(_SESSION.in_(part), beyond(seq, waiting)) for (seq, waiting), part in names.items()))


def beyond(seq: int, waiting: Sequence[int]) -> ColumnElement[bool]:
    """Requests after a number, and these."""
    later = transactions.c.seq > seq
    return or_(later, transactions.c.seq.in_(waiting)) if waiting else later


def _by_session(meant: ColumnElement[bool], flag: Any) -> Select[Any]:
    """One row for each session, model, upstream and set of tags, of settled requests and of others; the latest first."""
    refused = func.coalesce(outcomes.c.outcome, "") == "refused"
    return (
        joined(
            _SESSION,
            flag,
            MODEL.label("model"),
            UPSTREAM.label("upstream"),
            transactions.c.tags,
            func.max(transactions.c.seq).label("last_seq"),
            func.min(transactions.c.started_ns).label("first_ns"),
            func.max(transactions.c.started_ns).label("last_ns"),
            func.max(transactions.c.user_name).label("user"),
            func.max(transactions.c.workflow).label("workflow"),
            func.max(_PARENT).label("parent"),
            func.max(transactions.c.predecessor).label("predecessor"),
            count_if(and_(transactions.c.side == 0, transactions.c.operation.in_(CONVERSING), ~refused)).label("turns"),
            *SUMS,
        )
        .where(meant)
        .group_by(_SESSION, flag, MODEL, UPSTREAM, transactions.c.tags)
        .order_by(func.max(transactions.c.seq).desc())
    )
