"""Agents and the dashboard of the gateway in this process: what the journal has, with what runs now laid over it.

Both are at most two seconds old. What a system prompt says is read once for each agent, but for an agent that is opened.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Generic, TypeVar

from proxy_core.control.session_bodies import offered_tools, system_of
from proxy_core.control.session_book import ACTIVE_S, MAX_ID_CHARS, SessionBook, correct, counted
from proxy_core.control.session_infos import AgentDetail, AgentInfo, Dashboard, DayUse, ModelUse
from proxy_core.journal.records import clean
from proxy_core.journal.request_sums import DAY_NS, MINUTE_NS
from proxy_core.journal.session_facts import Group
from proxy_core.journal.session_reads import SessionReads
from proxy_core.running import Running
from proxy_core.totals import Totals

FRESH_S = 2.0
MAX_AGENTS = 500
SHOWN = 10
SYSTEM_PREVIEW = 200
KEPT_PROMPTS = 2_000
_Value = TypeVar("_Value")


class AgentBook:
    """Answers what front ends ask of agents, and of the day."""

    def __init__(
        self,
        reads: SessionReads,
        *,
        sessions: SessionBook,
        running: Mapping[str, Running],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reads = reads
        self._sessions = sessions
        self._running = running
        self._wall = wall
        self._prompts: OrderedDict[str, str] = OrderedDict()
        self._dashboard: _Fresh[Dashboard] = _Fresh(self._read_dashboard, wall)
        self._agents: _Fresh[list[AgentInfo]] = _Fresh(self._read_agents, wall)

    async def agents(self) -> list[AgentInfo]:
        return list(await self._agents.get())

    async def agent(self, agent_id: str) -> AgentDetail | None:
        agent_id = clean(agent_id, MAX_ID_CHARS)
        before = self._sessions.moment()
        latest = await self._reads.latest_requests([agent_id]) if agent_id else {}
        if agent_id not in latest:
            return None
        row, body = latest[agent_id]
        groups = await self._reads.agent_groups(agent_id)
        sessions = await self._reads.latest_sessions(2 * SHOWN, upto=await self._reads.newest(), agent=agent_id)
        begun = (await self._reads.sessions_by_agent()).get(agent_id, 0)
        info = _agent_info(agent_id, groups, begun)
        system, offered = await asyncio.to_thread(lambda: (system_of(row.operation, body), offered_tools(row.operation, body)))
        self._remember_prompt(agent_id, system)
        await self._add_activity((info,))
        self._sessions.lay_over((info,), before, lambda one: one.agent)
        days: dict[int, Totals] = {}
        models: dict[str, Totals] = {}
        for group in groups:
            days.setdefault(group.day, Totals()).add(group.totals)
            models.setdefault(group.model, Totals()).add(group.totals)
        return AgentDetail(
            info=info,
            models=tuple(_most_used(models)),
            tools=counted(await self._reads.tools_called(agent_id), 100),
            tools_offered=offered,
            days=tuple(DayUse(day=_day(day), totals=days[day]) for day in sorted(days)[-30:]),
            system=system,
            sessions=tuple(await self._sessions.infos([name for _, name in sessions])),
        )

    async def dashboard(self) -> Dashboard:
        return await self._dashboard.get()

    async def _read_agents(self) -> list[AgentInfo]:
        before = self._sessions.moment()
        by_agent: dict[str, list[Group]] = {}
        for group in await self._reads.agents():
            by_agent.setdefault(group.agent, []).append(group)
        begun = await self._reads.sessions_by_agent()
        infos = [_agent_info(name, groups, begun.get(name, 0)) for name, groups in by_agent.items() if name]
        infos.sort(key=lambda info: -info.last_at)
        del infos[MAX_AGENTS:]
        await self._add_activity(infos)
        self._sessions.lay_over(infos, before, lambda row: str(row.agent))
        return infos

    async def _add_activity(self, infos: Sequence[AgentInfo]) -> None:
        """Active sessions, and how the system prompts begin."""
        begun = Counter(agent for agent, session in await self._active() if session)
        missing = [info.id for info in infos if info.id and info.id not in self._prompts]
        for start in range(0, len(missing), 50):
            latest = await self._reads.latest_requests(missing[start : start + 50])
            prompts = await asyncio.to_thread(
                lambda found: {name: system_of(row.operation, body) for name, (row, body) in found.items()}, latest
            )
            for name, prompt in prompts.items():
                self._remember_prompt(name, prompt)
        for info in infos:
            info.active_sessions = begun[info.id]
            info.system = self._prompts.get(info.id, "")

    def _remember_prompt(self, agent: str, prompt: str) -> None:
        self._prompts[agent] = prompt[:SYSTEM_PREVIEW]
        self._prompts.move_to_end(agent)
        if len(self._prompts) > KEPT_PROMPTS:
            self._prompts.popitem(last=False)

    async def _active(self) -> set[tuple[str, str]]:
        """Agent and session of what runs or began lately."""
        recent = await self._reads.seen_since(int((self._wall() - ACTIVE_S) * 1e9))
        return recent | {(one.row.agent, one.row.session_id) for one in self._running.values()}

    # --- the dashboard ---

    async def _read_dashboard(self) -> Dashboard:
        now = self._wall()
        today_ns = int(now * 1e9) // DAY_NS * DAY_NS
        hour_ns = int(now * 1e9) // MINUTE_NS * MINUTE_NS - 59 * MINUTE_NS
        first_minute = hour_ns // MINUTE_NS
        reads = self._reads
        before = self._sessions.moment()
        day = await reads.day(today_ns)
        minutes = await reads.minutes(hour_ns)
        times = await reads.total_times(hour_ns, 20_000)
        errors = await reads.failed_rows(today_ns, SHOWN)
        by_model: dict[str, Totals] = {}
        by_agent: dict[str, list[Group]] = {}
        for group in day.groups.values():
            by_model.setdefault(group.model, Totals()).add(group.totals)
            by_agent.setdefault(group.agent, []).append(group)
        begun = Counter(agent for agent, session in day.sessions if session)
        agents = [_agent_info(name, own, begun[name]) for name, own in by_agent.items() if name]
        agents.sort(key=lambda info: -info.totals.requests)
        by_session: Counter[str] = Counter()
        for (_, session), requests in day.sessions.items():
            by_session[session] += requests
        del by_session[""]
        busiest = [name for name, _ in by_session.most_common(SHOWN)]
        counts = await reads.session_totals(busiest, today_ns)
        sessions = await self._sessions.infos(busiest)
        for info in sessions:
            info.totals = counts.get(info.id, info.totals)
        self._sessions.lay_over(agents, before, lambda row: str(row.agent))
        self._sessions.lay_over(sessions, before, lambda row: str(row.session_id))
        await self._add_activity(agents[:SHOWN])
        running, ended = self._running.values(), len(self._sessions.ended_since(before))
        today, last_hour = _sum(group.totals for group in day.groups.values()), _sum(minutes.values())
        correct(today, running, ended)
        correct(last_hour, running, ended)
        return Dashboard(
            at=now,
            since=today_ns / 1e9,
            today=today,
            last_hour=last_hour,
            per_minute=tuple(minutes[at].requests if at in minutes else 0 for at in range(first_minute, first_minute + 60)),
            cost_per_hour_usd=last_hour.cost_usd,
            sessions=len(by_session),
            active_sessions=len({session for _, session in await self._active() if session}),
            agents=len(agents),
            p50_ms=_percentile(times, 0.5),
            p99_ms=_percentile(times, 0.99),
            top_agents=tuple(agents[:SHOWN]),
            top_sessions=tuple(sessions),
            top_models=tuple(_most_used(by_model)[:SHOWN]),
            top_tools=counted(day.tools, SHOWN),
            errors=counted({_failure(outcome, status): times for (outcome, status), times in day.failures.items()}, SHOWN),
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
        totals=_sum(group.totals for group in groups),
    )


def _sum(parts: Iterable[Totals]) -> Totals:
    totals = Totals()
    for one in parts:
        totals.add(one)
    return totals


def _most_used(models: Mapping[str, Totals]) -> list[ModelUse]:
    uses = [ModelUse(model=model, totals=totals) for model, totals in models.items()]
    return sorted(uses, key=lambda use: -use.totals.requests)


def _failure(outcome: str, status: int | None) -> str:
    return outcome if status is None or status < 400 else f"{outcome} {status}"


def _percentile(times: Sequence[float], share: float) -> float | None:
    return times[min(len(times) - 1, int(len(times) * share))] if times else None


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_NS / 1e9, tz=UTC).date().isoformat()
