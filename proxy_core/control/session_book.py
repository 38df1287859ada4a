"""Sessions, agents and the dashboard of the gateway in this process: what the journal has, with what runs now laid over it.

Nothing here is told to the traffic, and nothing waits for it: the store reads in its own thread, stories are put together in
another. The dashboard and the list of agents are at most two seconds old.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from proxy_core.control.plane import ControlInvalid
from proxy_core.control.session_filters import has_tags, parse_sessions
from proxy_core.control.session_infos import (
    AgentDetail,
    AgentInfo,
    Count,
    Dashboard,
    DayUse,
    ModelUse,
    SessionDetail,
    SessionInfo,
    SessionPage,
    SessionStatus,
    Turn,
)
from proxy_core.control.session_story import CONTEXT, Story, offered_tools, place_children, system_of
from proxy_core.detectors.secrets import redact_formats, redact_known
from proxy_core.ids import new_ulid
from proxy_core.journal.request_sums import DAY_NS, MINUTE_NS
from proxy_core.journal.session_reads import RecordedTurn, SessionReads
from proxy_core.journal.session_totals import Group, SessionFacts
from proxy_core.running import Running
from proxy_core.totals import Totals
from proxy_core.wire.encodings import UnreadableEncoding, decoded

ACTIVE_S = 300.0
"""A session without a running request is active so long after its latest one began."""
FRESH_S = 2.0
MAX_PAGE = 200
MAX_SCANNED = 2_000
"""Sessions that one call looks at for its filter; `next` goes on from there."""
SCAN = 100
MAX_TURNS = 1_000
MAX_CHILDREN = 200
STORY_PART = 20
WHOLE_CHARS = 1_000_000
MAX_AGENTS = 500
SHOWN = 10
SYSTEM_PREVIEW = 200
KEPT_PROMPTS = 2_000
_Value = TypeVar("_Value")
STATUSES = ("", "active", "inactive", "completed")


class SessionBook:
    """Answers what front ends ask of sessions and agents."""

    def __init__(
        self, reads: SessionReads, *, running: Mapping[str, Running], ttl_s: float, wall: Callable[[], float] = time.time
    ) -> None:
        self._reads = reads
        self._running = running
        self._ttl_s = ttl_s
        self._wall = wall
        self._prompts: OrderedDict[str, str] = OrderedDict()
        self._dashboard: _Fresh[Dashboard] = _Fresh(self._read_dashboard, wall)
        self._agents: _Fresh[list[AgentInfo]] = _Fresh(self._read_agents, wall)

    async def sessions(
        self, *, expression: str, tags: Sequence[str], agent: str, status: str, limit: int, cursor: str | None
    ) -> SessionPage:
        """Raises FilterError, ControlInvalid."""
        if status.lower() not in STATUSES:
            raise ControlInvalid("status", "use active, inactive or completed")
        if not 1 <= limit <= MAX_PAGE:
            raise ControlInvalid("limit", f"use 1 to {MAX_PAGE}")
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
            raise ControlInvalid("cursor", "give the `next` of the page before")
        wanted = [one for one in (tag.strip() for tag in tags) if one]
        means = parse_sessions(expression)
        every = not (expression.strip() or wanted or status)
        place = None if cursor is None else int(cursor)
        found: list[SessionInfo] = []
        scanned = 0
        while scanned < MAX_SCANNED:
            count = min(SCAN, limit - len(found)) if every else SCAN
            latest = await self._reads.latest_sessions(count, before=place, agent=agent)
            for seq, info in zip((seq for seq, _ in latest), await self._infos([name for _, name in latest]), strict=True):
                place = seq
                scanned += 1
                if (not status or info.status == status.lower()) and has_tags(info, wanted) and means(info):
                    found.append(info)
                    if len(found) == limit:
                        return SessionPage(sessions=tuple(found), next=str(place))
            if len(latest) < count:
                return SessionPage(sessions=tuple(found))
        return SessionPage(sessions=tuple(found), next=str(place))

    async def session(self, session_id: str, *, after: int | None, before: int | None, limit: int) -> SessionDetail | None:
        if not 1 <= limit <= MAX_TURNS:
            raise ControlInvalid("limit", f"use 1 to {MAX_TURNS}")
        total = await self._reads.turn_count(session_id)
        if not total:
            return None
        end = total if after is not None or before is None else min(total, before - 1)
        first = max(1, end - limit + 1) if after is None else max(1, after + 1)
        end = min(end, first + limit - 1)
        context = max(1, first - CONTEXT)
        recorded = await self._reads.turns(session_id, context, max(0, end - context + 1))
        for one in recorded:
            self._as_it_runs(one)
        names = await self._reads.children(session_id, MAX_CHILDREN)
        info, *children = await self._infos([session_id, *names])
        parent = (await self._infos([info.parent]))[:1] if info.parent and info.parent != session_id else []
        turns, system = await asyncio.to_thread(_story, recorded, first, children)
        return SessionDetail(
            info=info,
            turns=tuple(turns),
            before=first if first > 1 else None,
            children=tuple(children),
            parent=parent[0] if parent else None,
            system=system,
        )

    async def story(self, session_id: str) -> AsyncIterator[Turn]:
        """Every turn in order, with whole texts. A turn comes some turns late, so that the results of its calls are there."""
        story = Story(STORY_PART, text_chars=WHOLE_CHARS)
        waiting: deque[Turn] = deque()
        first = 1
        while recorded := await self._reads.turns(session_id, first, STORY_PART):
            for one in recorded:
                self._as_it_runs(one)
            waiting += await asyncio.to_thread(_tell, story, recorded)
            while len(waiting) > STORY_PART:
                yield waiting.popleft()
            first += len(recorded)
        for turn in waiting:
            yield turn

    async def used_tags(self) -> dict[str, dict[str, int]]:
        return await self._reads.used_tags()

    async def agents(self) -> list[AgentInfo]:
        return list(await self._agents.get())

    async def agent(self, agent_id: str) -> AgentDetail | None:
        latest = await self._reads.latest_requests([agent_id]) if agent_id else {}
        if agent_id not in latest:
            return None
        row, body = latest[agent_id]
        groups = await self._reads.groups(("model", "day"), agent=agent_id)
        sessions = await self._reads.latest_sessions(2 * SHOWN, agent=agent_id)
        begun = (await self._reads.sessions_by_agent()).get(agent_id, 0)
        info = _agent_info(agent_id, groups, begun)
        system, offered = await asyncio.to_thread(lambda: (system_of(row.operation, body), offered_tools(row.operation, body)))
        self._remember_prompt(agent_id, system)
        info.system = system[:SYSTEM_PREVIEW]
        self._lay_over((info,), lambda one: one.agent)
        days: dict[int, Totals] = {}
        models: dict[str, Totals] = {}
        for group in groups:
            days.setdefault(group.day, Totals()).add(group.totals)
            models.setdefault(group.model, Totals()).add(group.totals)
        return AgentDetail(
            info=info,
            models=tuple(_most_used(models)),
            tools=_counts(await self._reads.tools_called(agent=agent_id), 100),
            tools_offered=offered,
            days=tuple(DayUse(day=_day(day), totals=days[day]) for day in sorted(days)[-30:]),
            system=system,
            sessions=tuple(await self._infos([name for _, name in sessions])),
        )

    async def dashboard(self) -> Dashboard:
        return await self._dashboard.get()

    # --- from the journal's facts to what is shown ---

    async def _infos(self, names: Sequence[str]) -> list[SessionInfo]:
        facts = await self._reads.session_facts(names)
        found = [self._info(facts[name]) for name in names if name in facts]
        self._lay_over(found, lambda one: one.session_id)
        return found

    def _info(self, facts: SessionFacts) -> SessionInfo:
        quiet = self._wall() - facts.last_ns / 1e9
        status: SessionStatus = "active" if quiet < ACTIVE_S else "inactive" if quiet < self._ttl_s else "completed"
        return SessionInfo(
            id=facts.id,
            agent=facts.agent,
            user=facts.user,
            workflow=facts.workflow,
            tags=tuple(facts.tags.items()),
            parent=facts.parent,
            predecessor=facts.predecessor,
            link=facts.link,
            started_at=facts.started_ns / 1e9,
            last_at=facts.last_ns / 1e9,
            status=status,
            turns=facts.turns,
            models=facts.models,
            upstreams=facts.upstreams,
            totals=facts.totals,
            children=facts.children,
            tools=_counts(facts.tools, 20),
            preview=facts.preview,
        )

    def _lay_over(self, infos: Iterable[SessionInfo | AgentInfo], of: Callable[[Any], str]) -> None:
        """What runs here is running, and what has no outcome and does not run is lost."""
        here: dict[str, list[Running]] = {}
        for one in self._running.values():
            here.setdefault(of(one.row), []).append(one)
        for info in infos:
            running = here.get(info.id, [])
            _correct(info.totals, running)
            if running and isinstance(info, SessionInfo):
                info.status = "active"

    def _as_it_runs(self, recorded: RecordedTurn) -> None:
        running = self._running.get(recorded.row.transaction_id)
        if running is None:
            return
        recorded.row = running.row
        recorded.response_body = redact_formats(redact_known(_readable(running), running.secrets))
        recorded.response_type = running.content_type
        recorded.verdicts = tuple(running.control.context.verdicts) if running.control is not None else ()

    # --- agents ---

    async def _read_agents(self) -> list[AgentInfo]:
        by_agent: dict[str, list[Group]] = {}
        for group in await self._reads.agents():
            by_agent.setdefault(group.agent, []).append(group)
        begun = await self._reads.sessions_by_agent()
        infos = [_agent_info(name, groups, begun.get(name, 0)) for name, groups in by_agent.items()]
        infos.sort(key=lambda info: -info.last_at)
        del infos[MAX_AGENTS:]
        await self._add_activity(infos)
        self._lay_over(infos, lambda row: str(row.agent))
        return infos

    async def _add_activity(self, infos: Sequence[AgentInfo]) -> None:
        """Active sessions, and how the system prompts begin."""
        recent = await self._groups_since(("agent", "session_id"), self._wall() - ACTIVE_S)
        running = {(one.row.agent, one.row.session_id) for one in self._running.values()}
        active = {(group.agent, group.session_id) for group in recent} | running
        missing = [info.id for info in infos if info.id and info.id not in self._prompts]
        for start in range(0, len(missing), 50):
            latest = await self._reads.latest_requests(missing[start : start + 50])
            prompts = await asyncio.to_thread(
                lambda found: {name: system_of(row.operation, body) for name, (row, body) in found.items()}, latest
            )
            for name, prompt in prompts.items():
                self._remember_prompt(name, prompt)
        for info in infos:
            info.active_sessions = len([True for agent, session in active if agent == info.id and session])
            info.system = self._prompts.get(info.id, "")

    def _remember_prompt(self, agent: str, prompt: str) -> None:
        self._prompts[agent] = prompt[:SYSTEM_PREVIEW]
        self._prompts.move_to_end(agent)
        if len(self._prompts) > KEPT_PROMPTS:
            self._prompts.popitem(last=False)

    async def _groups_since(self, by: Sequence[str], since: float) -> list[Group]:
        seq = await self._first_since(since)
        return await self._reads.groups(by, since_seq=seq, since_ns=int(since * 1e9))

    async def _first_since(self, since: float) -> int:
        return await self._reads.first_since(new_ulid(max(0, int(since * 1e3)), lambda count: bytes(count)))

    # --- the dashboard ---

    async def _read_dashboard(self) -> Dashboard:
        now = self._wall()
        today_ns = int(now * 1e9) // DAY_NS * DAY_NS
        hour_ns = int(now * 1e9) // MINUTE_NS * MINUTE_NS - 59 * MINUTE_NS
        reads = self._reads
        today_seq = await self._first_since(today_ns / 1e9)
        hour_seq = await self._first_since(hour_ns / 1e9)
        groups = await reads.groups(("agent", "model", "workflow"), since_seq=today_seq, since_ns=today_ns)
        hour = await reads.groups((), since_seq=hour_seq, since_ns=hour_ns)
        by_session = await reads.groups(("session_id",), since_seq=today_seq, since_ns=today_ns, busiest=SHOWN + 1)
        counts = {group.session_id: group.totals for group in by_session if group.session_id}
        minutes = await reads.per_minute(hour_seq, hour_ns)
        times = await reads.total_times(hour_seq, hour_ns, 20_000)
        failures = await reads.failures(today_seq, today_ns)
        errors = await reads.failed_rows(today_seq, today_ns, SHOWN)
        by_model: dict[str, Totals] = {}
        by_agent: dict[str, list[Group]] = {}
        for group in groups:
            by_model.setdefault(group.model, Totals()).add(group.totals)
            by_agent.setdefault(group.agent, []).append(group)
        agents = [_agent_info(name, own, 0) for name, own in by_agent.items() if name]
        agents.sort(key=lambda info: -info.totals.requests)
        for one in agents[:SHOWN]:
            one.sessions = await reads.distinct_sessions(today_seq, today_ns, agent=one.id)
        sessions = await self._infos(list(counts)[:SHOWN])
        for info in sessions:
            info.totals = counts[info.id]
        self._lay_over(agents, lambda row: str(row.agent))
        self._lay_over(sessions, lambda row: str(row.session_id))
        await self._add_activity(agents[:SHOWN])
        everything = list(self._running.values())
        today, last_hour = _sum(groups), _sum(hour)
        _correct(today, everything)
        _correct(last_hour, everything)
        recent = await self._groups_since(("session_id",), now - ACTIVE_S)
        active = {group.session_id for group in recent} | {one.row.session_id for one in everything}
        return Dashboard(
            at=now,
            since=today_ns / 1e9,
            today=today,
            last_hour=last_hour,
            per_minute=tuple(minutes.get(hour_ns // MINUTE_NS + minute, 0) for minute in range(60)),
            cost_per_hour_usd=last_hour.cost_usd,
            sessions=await reads.distinct_sessions(today_seq, today_ns),
            active_sessions=len(active - {""}),
            agents=len(agents),
            p50_ms=_percentile(times, 0.5),
            p99_ms=_percentile(times, 0.99),
            top_agents=tuple(agents[:SHOWN]),
            top_sessions=tuple(sessions),
            top_models=tuple(_most_used(by_model)[:SHOWN]),
            top_tools=_counts(await reads.tools_called(since_seq=today_seq), SHOWN),
            errors=_counts({_failure(outcome, status): times for outcome, status, times in failures}, SHOWN),
            latest_errors=tuple(errors),
        )


class _Fresh(Generic[_Value]):
    """A value that is read again when it is asked for and older than two seconds; who asks meanwhile waits for the same."""

    def __init__(self, read: Callable[[], Awaitable[_Value]], wall: Callable[[], float]) -> None:
        self._read = read
        self._wall = wall
        self._lock = asyncio.Lock()
        self._known: tuple[float, _Value] | None = None

    async def get(self) -> _Value:
        async with self._lock:
            if self._known is None or not 0 <= self._wall() - self._known[0] < FRESH_S:
                value = await self._read()
                self._known = self._wall(), value
            return self._known[1]


def _story(recorded: Sequence[RecordedTurn], first: int, children: Sequence[SessionInfo]) -> tuple[list[Turn], str]:
    story = Story(len(recorded))
    turns = _tell(story, recorded)
    place_children(turns, children)
    return [turn for turn in turns if turn.number >= first], story.system


def _tell(story: Story, recorded: Sequence[RecordedTurn]) -> list[Turn]:
    turns: list[Turn] = []
    for one in recorded:
        turns.append(story.tell(one))
        time.sleep(0)  # the loop goes first
    return turns


def _correct(totals: Totals, running: Sequence[Running]) -> None:
    recorded = len([True for one in running if one.intended])
    totals.errors += max(0, totals.running - recorded)
    totals.running = len(running)


def _agent_info(name: str, groups: Sequence[Group], sessions: int) -> AgentInfo:
    models: dict[str, int] = {}
    for group in groups:
        models[group.model] = models.get(group.model, 0) + group.totals.requests
    return AgentInfo(
        id=name,
        first_at=min(group.first_ns for group in groups) / 1e9,
        last_at=max(group.last_ns for group in groups) / 1e9,
        sessions=sessions,
        models=tuple(sorted((model for model in models if model), key=lambda model: -models[model])[:20]),
        workflows=tuple(dict.fromkeys(group.workflow for group in groups if group.workflow))[:20],
        totals=_sum(groups),
    )


def _sum(groups: Iterable[Group]) -> Totals:
    totals = Totals()
    for group in groups:
        totals.add(group.totals)
    return totals


def _most_used(models: Mapping[str, Totals]) -> list[ModelUse]:
    uses = [ModelUse(model=model, totals=totals) for model, totals in models.items()]
    return sorted(uses, key=lambda use: -use.totals.requests)


def _counts(counts: Mapping[str, int], limit: int) -> tuple[Count, ...]:
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Count(name, count) for name, count in most[:limit])


def _failure(outcome: str, status: int | None) -> str:
    return outcome if status is None or status < 400 else f"{outcome} {status}"


def _percentile(times: Sequence[float], share: float) -> float | None:
    return times[min(len(times) - 1, int(len(times) * share))] if times else None


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_NS / 1e9, tz=UTC).date().isoformat()


def _readable(running: Running) -> bytes:
    body = bytes(running.response)
    if not running.content_encoding:
        return body
    try:
        return decoded(body, running.content_encoding)
    except UnreadableEncoding:
        return b""
