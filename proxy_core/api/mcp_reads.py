"""What a model may read of a gateway over MCP: sessions, transactions, agents, decisions, holds and changes.

The docstring of each method is what the model is told of the tool. Names of Cylestio's server are kept where they fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from pydantic import Field

from proxy_core.api.changes import MOST
from proxy_core.api.mcp_tools import Given, McpTool, tool
from proxy_core.api.transactions import details, page_of
from proxy_core.control.plane import ControlNotFound, ControlPlane, TransactionDetail
from proxy_core.control.session_infos import SessionDetail, Turn
from proxy_core.journal.request_sums import FAILED


class _Nothing(Given):
    pass


class _Listed(Given):
    limit: int = Field(default=20, ge=1, le=100, description="At most so many.")
    cursor: str | None = Field(default=None, max_length=64, description="The `next` of the answer before.")


class _Sessions(_Listed):
    filter: str = Field(
        default="",
        max_length=2_000,
        description="Filter language of sessions, such as `is:active cost>1 tool:bash agent:codex errors>0 and not model:gpt`.",
    )
    tags: list[str] = Field(
        default=[], max_length=50, description="Only sessions with all of these, each `name` or `name:value`."
    )
    agent: str = Field(default="", max_length=600, description="Only sessions of this agent.")
    status: str = Field(default="", max_length=20, description="`active`, `inactive` or `completed`.")


class _Session(Given):
    session_id: str = Field(max_length=600)
    after: int | None = Field(default=None, ge=0, description="Turns after this number, the oldest first.")
    before: int | None = Field(default=None, ge=1, description="Turns before this number, the latest of them.")
    limit: int = Field(default=10, ge=1, le=50, description="At most so many turns; fewer give longer texts.")


class _SessionEvents(Given):
    session_id: str = Field(max_length=600)
    limit: int = Field(default=50, ge=1, le=200)
    offset: int = Field(default=0, ge=0, le=1_000_000, description="Turns to skip, from the beginning of the session.")
    event_types: list[str] = Field(default=[], max_length=20, description="Only events of these names, such as `tool.execution`.")


class _Event(Given):
    session_id: str = Field(max_length=600)
    event_id: str = Field(max_length=80, description="As get_session_events gives it.")


class _Transactions(_Listed):
    filter: str = Field(
        default="",
        max_length=2_000,
        description="Filter language of transactions, such as `status>=400 model:claude* latency>2s session:s-1 verdict:deny`.",
    )


class TransactionOf(Given):
    transaction_id: str = Field(max_length=64)


class _Decisions(_Transactions):
    filter: str = Field(
        default="not verdict:allow", max_length=2_000, description="Which transactions; by default those that a policy acted on."
    )
    limit: int = Field(default=20, ge=1, le=50)


class _Agent(Given):
    agent_id: str = Field(max_length=600)


class _Agents(Given):
    agent_workflow_id: str = Field(default="", max_length=600, description="Only agents seen in this workflow.")
    limit: int = Field(default=50, ge=1, le=500)


class _Workflow(Given):
    workflow_id: str = Field(max_length=600)


class _WorkflowSessions(_Workflow):
    agent_id: str = Field(default="", max_length=600)
    status: str = Field(default="", max_length=20)
    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=64)


class _Holds(Given):
    decided: bool = Field(default=False, description="Also those that were decided lately.")


class _Changes(Given):
    limit: int = Field(default=50, ge=1, le=200)
    before: int | None = Field(default=None, ge=1, le=MOST, description="Only changes with a smaller `sequence`.")


def reading_tools(plane: ControlPlane) -> list[McpTool]:
    """Every tool that only reads."""
    reads = _Reads(plane)
    return [
        tool("get_state", _Nothing, reads.state),
        tool("get_dashboard", _Nothing, reads.dashboard),
        tool("search_sessions", _Sessions, reads.sessions),
        tool("get_session", _Session, reads.session),
        tool("get_session_events", _SessionEvents, reads.session_events),
        tool("get_event", _Event, reads.event),
        tool("search_transactions", _Transactions, reads.transactions),
        tool("get_transaction", TransactionOf, reads.transaction),
        tool("get_decisions", _Decisions, reads.decisions),
        tool("get_agents", _Agents, reads.agents),
        tool("get_agent", _Agent, reads.agent),
        tool("get_workflow_agents", _Workflow, reads.workflow_agents),
        tool("get_workflow_sessions", _WorkflowSessions, reads.workflow_sessions),
        tool("get_policies", _Nothing, reads.policies),
        tool("get_routing", _Nothing, reads.routing),
        tool("get_holds", _Holds, reads.holds),
        tool("get_audit_log", _Changes, reads.changes),
    ]


class _Reads:
    """What the reading tools do."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def state(self, given: _Nothing, who: str) -> Any:
        """How the gateway fares: what runs, its upstreams, its journal."""
        return self._plane.state()

    async def dashboard(self, given: _Nothing, who: str) -> Any:
        """Today and the last hour: requests, tokens, cost, errors, and the busiest agents, sessions, models and tools."""
        return await self._plane.dashboard()

    async def sessions(self, given: _Sessions, who: str) -> Any:
        """Sessions by filter, those with the latest requests first: agent, turns, tokens, cost, tools, errors, policy actions."""
        return await self._plane.sessions(
            filter=given.filter,
            tags=given.tags,
            agent=given.agent,
            status=given.status,
            limit=given.limit,
            cursor=given.cursor,
        )

    async def session(self, given: _Session, who: str) -> Any:
        """One session turn by turn: what was said, the answers, tool calls with results and durations, policy marks,
        sub-sessions. The latest turns, unless told otherwise."""
        return await self._session(given.session_id, after=given.after, before=given.before, limit=given.limit)

    async def session_events(self, given: _SessionEvents, who: str) -> Any:
        """A session as a flat list of events: llm.call.start, llm.call.finish, llm.call.error, tool.execution, tool.result."""
        turns = max(1, given.limit // 2)
        found = await self._session(given.session_id, after=given.offset, limit=turns)
        wanted = set(given.event_types)
        told = [one for turn in found.turns for one in _events(turn) if not wanted or one["name"] in wanted]
        end = found.turns[-1].number if found.turns else given.offset
        more = end < found.info.totals.requests
        return {"session_id": found.info.id, "events": told, "next_offset": end if more else None}

    async def event(self, given: _Event, who: str) -> Any:
        """One event of a session, with longer texts."""
        number, _, rest = given.event_id.partition(".")
        if not (number.isascii() and number.isdigit() and rest and len(number) < 10 and int(number)):
            raise ControlNotFound(f"there is no event '{given.event_id}': an id is a turn's number and a name, such as 3.answer")
        # Turns after it may have brought the results of its calls.
        found = await self._session(given.session_id, after=int(number) - 1, limit=10)
        for turn in found.turns[:1]:
            for one in _events(turn):
                if one["id"] == given.event_id:
                    return one
        raise ControlNotFound(f"there is no event '{given.event_id}' in session '{given.session_id[:200]}'")

    async def transactions(self, given: _Transactions, who: str) -> Any:
        """Requests by filter, the newest first: model, upstream, status, verdict, tokens, cost, times."""
        return await page_of(self._plane, given.filter, given.limit, given.cursor)

    async def transaction(self, given: TransactionOf, who: str) -> Any:
        """One request with headers, both forms of its bodies, what policies said, and its timing. Secrets are redacted."""
        return details(await self._detail(given.transaction_id))

    async def decisions(self, given: _Decisions, who: str) -> Any:
        """What policies and routing decided on recent requests: each policy's verdict with reason code and score, the upstream
        and the routing reason."""
        page = await page_of(self._plane, given.filter, given.limit, given.cursor)
        told = []
        for row in page.transactions:
            detail = await self._plane.detail(row.transaction_id)
            told.append(
                {
                    "transaction_id": row.transaction_id,
                    "session_id": row.session_id,
                    "agent": row.agent,
                    "model": row.model,
                    "verdict": row.verdict,
                    "outcome": row.outcome,
                    "upstream": row.upstream,
                    "routing_reason": row.reason,
                    "policies": () if detail is None else detail.verdicts,
                }
            )
        return {"decisions": told, "next": page.next}

    async def agents(self, given: _Agents, who: str) -> Any:
        """Agents, those with the latest requests first, with sessions, tokens, cost, errors and models."""
        found = await self._plane.agents()
        if given.agent_workflow_id:
            found = [info for info in found if given.agent_workflow_id in info.workflows]
        return {"agents": found[: given.limit], "known": len(found)}

    async def agent(self, given: _Agent, who: str) -> Any:
        """One agent: system prompt, tools it has and uses, models, cost by day, latest sessions."""
        found = await self._plane.agent(given.agent_id)
        if found is None:
            raise ControlNotFound(f"there is no agent '{given.agent_id[:200]}'")
        return found

    async def workflow_agents(self, given: _Workflow, who: str) -> Any:
        """Agents that worked in a workflow."""
        return await self.agents(_Agents(agent_workflow_id=given.workflow_id, limit=500), who)

    async def workflow_sessions(self, given: _WorkflowSessions, who: str) -> Any:
        """Sessions of a workflow, those with the latest requests first."""
        quoted = given.workflow_id.replace("\\", "\\\\").replace('"', '\\"')
        return await self._plane.sessions(
            filter=f'workflow:"{quoted}"',
            agent=given.agent_id,
            status=given.status.lower(),
            limit=given.limit,
            cursor=given.cursor,
        )

    async def policies(self, given: _Nothing, who: str) -> Any:
        """Every policy with its mode, parameters and what it did over the last hour."""
        infos = [msgspec.structs.replace(one, per_minute=(), recent_scores=()) for one in self._plane.policies()]
        return {"policies": infos}

    async def routing(self, given: _Nothing, who: str) -> Any:
        """The rules of routing in force, the latest decisions, and how each upstream fares."""
        return self._plane.routing()

    async def holds(self, given: _Holds, who: str) -> Any:
        """What waits for a person's decision."""
        return {"holds": self._plane.holds(decided=given.decided)}

    async def changes(self, given: _Changes, who: str) -> Any:
        """What operators and configuration files changed: who, when, from what to what. It is the record of changes as the
        journal has it; it says nothing of whether the record was tampered with."""
        return {"changes": await self._plane.changes(given.limit, given.before)}

    async def _session(
        self, session_id: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> SessionDetail:
        found = await self._plane.session(session_id, after=after, before=before, limit=limit)
        if found is None:
            raise ControlNotFound(f"there is no session '{session_id[:200]}'")
        return found

    async def _detail(self, transaction_id: str) -> TransactionDetail:
        detail = await self._plane.detail(transaction_id)
        if detail is None or detail.row.transaction_id != transaction_id:
            raise ControlNotFound(f"there is no transaction '{transaction_id}'")
        return detail


def _events(turn: Turn) -> Iterator[dict[str, Any]]:
    """A turn as events; an id is the turn's number and what of it."""
    base = {"transaction_id": turn.transaction_id, "turn": turn.number}
    results = [block for message in turn.said for block in message.blocks if block.kind == "tool_result"]
    for place, block in enumerate(results):
        yield {"id": f"{turn.number}.result{place}", "name": "tool.result", **base, "result": block}
    start = {"id": f"{turn.number}.request", "name": "llm.call.start", **base, "at": turn.started_at, "model": turn.row.model}
    yield {**start, "kind": turn.kind, "messages": turn.said}
    row = turn.row
    if row.outcome == "":
        return
    failed = row.outcome in FAILED
    end = {"id": f"{turn.number}.answer", "name": "llm.call.error" if failed else "llm.call.finish", **base}
    yield {**end, "row": row, "answer": turn.answer, "marks": turn.marks}
    for use in turn.tool_uses:
        yield {"id": f"{turn.number}.call{use.block}", "name": "tool.execution", **base, "tool": use}
