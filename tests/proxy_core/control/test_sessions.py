"""Sessions, agents and the dashboard over a real gateway: traffic goes in over HTTP, what an operator sees comes out."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from proxy_core.control.feed import Feed
from proxy_core.control.filters import FilterError
from proxy_core.control.plane import ControlInvalid
from proxy_core.control.session_book import SessionBook
from proxy_core.control.session_export import export, json_line
from proxy_core.control.session_infos import SessionDetail, SessionInfo, Turn
from proxy_core.control.session_story import Story
from proxy_core.journal.day_reads import DayCounts
from proxy_core.journal.request_sums import DAY_NS
from proxy_core.journal.session_reads import RecordedTurn, SessionReads
from proxy_core.totals import Totals
from proxy_core.transaction_row import TransactionRow
from tests.conftest import StartGateway
from tests.fault_payloads import TEXT, TOOL_ARGUMENTS, TOOL_NAME
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway_fixtures import RunningGateway

SYSTEM = "You keep the weather."
RESULT = "18 degrees, and a light wind from the west"


class Talk:
    """A client that sends its whole history each time, as agents do."""

    path = "/v1/chat/completions"

    def __init__(self, gateway: RunningGateway, session: str, **headers: str) -> None:
        self.gateway = gateway
        self.headers = {"content-type": "application/json", "x-luthien-session-id": session, **headers}
        self.history: list[Any] = [{"role": "system", "content": SYSTEM}]

    def body(self) -> dict[str, Any]:
        function = {"name": TOOL_NAME, "description": "", "parameters": {"type": "object"}}
        return {"model": "gpt-5.4", "messages": self.history, "tools": [{"type": "function", "function": function}]}

    def take(self, answer: Any) -> list[str]:
        message = answer["choices"][0]["message"]
        self.history.append(message)
        return [call["id"] for call in message.get("tool_calls") or ()]

    def give(self, call_id: str, result: str) -> None:
        self.history.append({"role": "tool", "tool_call_id": call_id, "content": result})

    def says(self, text: str) -> None:
        self.history.append({"role": "user", "content": text})

    async def send(self, **headers: str) -> list[str]:
        """Send the history; the answer becomes a part of it. Returns the ids of its calls."""
        answer = await self.gateway.ask("POST", self.path, json.dumps(self.body()).encode(), self.headers | headers)
        return self.take(answer.json()) if answer.status == 200 else []


class Messages(Talk):
    path = "/v1/messages"

    def __init__(self, gateway: RunningGateway, session: str, **headers: str) -> None:
        super().__init__(gateway, session, **{"anthropic-version": "2023-06-01", **headers})
        self.history = []

    def body(self) -> dict[str, Any]:
        # The cache mark moves to the newest message, as in every coding agent.
        history = [dict(message) for message in self.history]
        last = history[-1]["content"]
        parts: list[dict[str, Any]] = [{"type": "text", "text": last}] if isinstance(last, str) else [dict(part) for part in last]
        parts[-1]["cache_control"] = {"type": "ephemeral"}
        history[-1]["content"] = parts
        tools = [{"name": TOOL_NAME, "input_schema": {"type": "object"}}]
        return {"model": "claude-sonnet-4-5", "max_tokens": 99, "system": SYSTEM, "messages": history, "tools": tools}

    def take(self, answer: Any) -> list[str]:
        self.history.append({"role": "assistant", "content": answer["content"]})
        return [part["id"] for part in answer["content"] if part["type"] == "tool_use"]

    def give(self, call_id: str, result: str) -> None:
        part = {"type": "tool_result", "tool_use_id": call_id, "content": result}
        self.history.append({"role": "user", "content": [part, {"type": "text", "text": "<system-reminder>be brief"}]})


class Responses(Talk):
    path = "/v1/responses"

    def body(self) -> dict[str, Any]:
        tools = [{"type": "function", "name": TOOL_NAME, "parameters": {"type": "object"}}]
        return {"model": "gpt-5.4", "instructions": SYSTEM, "input": self.history[1:], "tools": tools}

    def take(self, answer: Any) -> list[str]:
        self.history += answer["output"]
        return [item["call_id"] for item in answer["output"] if item["type"] == "function_call"]

    def give(self, call_id: str, result: str) -> None:
        self.history.append({"type": "function_call_output", "call_id": call_id, "output": result})


class Ollama(Talk):
    path = "/api/chat"

    def body(self) -> dict[str, Any]:
        return super().body() | {"model": "llama3.2", "stream": False}

    def take(self, answer: Any) -> list[str]:
        self.history.append(answer["message"])
        return ["" for _ in answer["message"].get("tool_calls") or ()]

    def give(self, call_id: str, result: str) -> None:
        self.history.append({"role": "tool", "tool_name": TOOL_NAME, "content": result})


async def the_session(gateway: RunningGateway, session: str, **window: Any) -> SessionDetail:
    found = await gateway.plane.session(session, **window)
    assert found is not None
    return found


def said(turn: Turn) -> list[tuple[str, str]]:
    return [(message.role, block.text) for message in turn.said for block in message.blocks]


@pytest.mark.parametrize("kind", [Talk, Messages, Responses, Ollama])
async def test_a_conversation_is_told_once(gateway: RunningGateway, kind: type[Talk]) -> None:
    talk = kind(gateway, "s-weather", **{"x-luthien-agent-id": "forecaster", "x-luthien-tags": "team:legal,debug"})
    talk.says("how is Paris?")
    (call_id,) = await talk.send()
    talk.give(call_id, RESULT)
    assert await talk.send() == []
    talk.says("and Rome?")
    await talk.send()

    detail = await the_session(gateway, "s-weather")
    first, second, third = detail.turns
    assert detail.system == SYSTEM
    assert [turn.kind for turn in detail.turns] == ["turn", "tool", "turn"]
    assert said(first) == [("user", "how is Paris?")]
    assert next(text for _, text in said(second)) == RESULT
    assert said(third) == [("user", "and Rome?")]
    assert [turn.dropped for turn in detail.turns] == [0, 0, 0]
    assert "".join(block.text for block in second.answer if block.kind == "text") == TEXT

    (use,) = first.tool_uses
    assert (use.name, json.loads(use.arguments)) == (TOOL_NAME, json.loads(TOOL_ARGUMENTS))
    assert first.answer[use.block].kind == "tool_call"
    assert (use.result, use.is_error) == (RESULT, False)
    assert (use.asked_by, use.answered_by) == (first.transaction_id, second.transaction_id)
    assert use.duration_s is not None and 0 <= use.duration_s < 5
    assert second.said[0].blocks[0].name == TOOL_NAME

    info = detail.info
    assert (info.agent, info.tags, info.turns, info.totals.requests) == (
        "forecaster",
        (("team", "legal"), ("debug", "true")),
        3,
        3,
    )
    assert info.tools[0].name == TOOL_NAME
    assert info.status == "active"
    assert info.totals.input_tokens > 0
    assert (await gateway.plane.sessions()).sessions == (info,)


async def test_retries_edits_and_windows(gateway: RunningGateway) -> None:
    talk = Talk(gateway, "s-1")
    del talk.history[0]
    talk.body = lambda: {"model": "gpt-5.4", "messages": talk.history}  # type: ignore[method-assign]
    for text in ("one", "two", "three", "three again"):
        talk.says(text)
        await talk.send()
    talk.history.pop()
    await talk.send()  # the same again
    talk.history[-2:] = []
    talk.says("three, but better")
    await talk.send()  # the last message edited
    talk.history = talk.history[2:]
    talk.says("four")
    await talk.send()  # the beginning cut off

    turns = (await the_session(gateway, "s-1")).turns
    assert [turn.kind for turn in turns] == ["turn"] * 4 + ["retry", "edit", "turn"]
    assert said(turns[4]) == []
    assert said(turns[5]) == [("user", "three, but better")]
    assert turns[5].dropped == 1
    assert said(turns[6]) == [("user", "four")]
    assert turns[6].dropped == 2

    last = await the_session(gateway, "s-1", limit=2)
    assert [turn.number for turn in last.turns] == [6, 7]
    assert said(last.turns[0]) == said(turns[5])
    assert last.before == 6
    earlier = await the_session(gateway, "s-1", before=6, limit=3)
    assert [turn.number for turn in earlier.turns] == [3, 4, 5]
    later = await the_session(gateway, "s-1", after=6)
    assert [(turn.number, said(turn)) for turn in later.turns] == [(7, [("user", "four")])]


async def test_lists_by_filter_tags_and_pages(stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    gateway = stored_gateway
    for number in range(7):
        tags = {"x-luthien-tags": f"team:{number % 2}" + (",deep" if number == 5 else "")}
        talk = Talk(gateway, f"s-{number}", **{"x-luthien-agent-id": f"agent-{number % 3}"}, **tags)
        talk.says("hello")
        for _ in range(number % 3 + 1):
            await talk.send()
            talk.says("go on")
    upstream.faults.append(Fault(status=500, body='{"error": {"message": "out of order", "type": "server_error"}}'))
    talk = Talk(gateway, "s-broken", **{"x-luthien-agent-id": "agent-0", "x-should-retry": "false"})
    talk.says("hello")
    await talk.send()

    async def names(**asked: Any) -> list[str]:
        return [info.id for info in (await gateway.plane.sessions(**asked)).sessions]

    everything = ["s-broken", *(f"s-{number}" for number in range(6, -1, -1))]
    assert await names() == everything
    pages: list[str] = []
    cursor: str | None = None
    while True:
        page = await gateway.plane.sessions(limit=3, cursor=cursor)
        pages += [info.id for info in page.sessions]
        cursor = page.next
        if cursor is None:
            break
    assert pages == everything
    first = await gateway.plane.sessions(limit=3)
    talk = Talk(gateway, "s-1", **{"x-luthien-agent-id": "agent-1", "x-luthien-tags": "team:1"})
    talk.says("of a later page")
    await talk.send()
    rest = await gateway.plane.sessions(limit=20, cursor=first.next)
    assert [info.id for info in (*first.sessions, *rest.sessions)] == everything
    everything = ["s-1", *(name for name in everything if name != "s-1")]
    assert await names() == everything
    assert await names(tags=["team:1"]) == ["s-1", "s-5", "s-3"]
    assert await names(tags=["team:1", "deep"]) == ["s-5"]
    assert await names(agent="agent-2") == ["s-5", "s-2"]
    assert await names(status="completed") == []
    assert await names(filter="requests>=3") == ["s-1", "s-5", "s-2"]
    assert await names(filter="tag:deep or agent:agent-1", limit=2) == ["s-1", "s-5"]
    with pytest.raises(FilterError):
        await gateway.plane.sessions(filter="nonsense:1")
    for wrong in ({"status": "asleep"}, {"limit": 0}, {"cursor": "x' or 1=1"}, {"cursor": "12"}, {"cursor": "1.\u0661"}):
        with pytest.raises(ControlInvalid):
            await gateway.plane.sessions(**wrong)
    assert set(await gateway.plane.session_tags()) == {"team", "deep"}

    agents = {info.id: info for info in await gateway.plane.agents()}
    assert set(agents) == {"agent-0", "agent-1", "agent-2"}
    assert (agents["agent-0"].sessions, agents["agent-0"].totals.requests) == (4, 4)
    assert agents["agent-1"].system == SYSTEM
    agent = await gateway.plane.agent("agent-2")
    assert agent is not None
    assert agent.info == agents["agent-2"] and agent.info.active_sessions == 2
    assert agent.info.totals.requests == sum(day.totals.requests for day in agent.days) == 6
    assert agent.system == SYSTEM and agent.tools_offered == (TOOL_NAME,)
    assert agent.tools[0].name == TOOL_NAME
    assert {info.id for info in agent.sessions} == {"s-5", "s-2"}
    for nobody in ("nobody", "%", "a\x00b", "\ud800", "x" * 10_000):
        assert await gateway.plane.agent(nobody) is None
        assert await gateway.plane.session(nobody) is None
        assert await gateway.plane.detail(nobody) is None
        assert await gateway.plane.history(5, nobody) == []
        assert await names(agent=nobody) == []
    assert (await the_session(gateway, "s-0", after=10**30)).turns == ()

    board = await gateway.plane.dashboard()
    assert (board.today.requests, board.sessions, board.agents) == (15, 8, 3)
    assert sum(board.per_minute) == board.last_hour.requests == 15
    assert board.top_agents[0].id == "agent-2"
    assert board.today.errors == 1
    assert [row.session_id for row in board.latest_errors] == ["s-broken"]
    assert board.errors[0].name == "error 500"
    assert board.p50_ms is not None

    # What is remembered and what is new come to the same as reading it all again.
    talk = Talk(gateway, "s-0", **{"x-luthien-agent-id": "agent-0"})
    talk.says("again")
    await talk.send()
    known = (await gateway.plane.sessions(limit=1)).sessions[0]
    assert (known.id, known.totals.requests, known.totals.tool_calls) == ("s-0", 2, 2)
    assert [turn.kind for turn in (await the_session(gateway, "s-0")).turns] == ["turn", "turn"]
    await gateway.restart()
    fresh = (await gateway.plane.sessions(limit=1)).sessions[0]
    assert fresh.totals == known.totals and fresh.tools == known.tools


async def test_what_ends_while_sums_are_read_is_counted_once(stored_gateway: RunningGateway) -> None:
    gateway = stored_gateway
    url = gateway.settings.journal.database_url or f"sqlite+aiosqlite:///{gateway.data_dir}/luthien.db"
    reads = await SessionReads.open(url, read_only=True)
    now_ns = time.time_ns()

    async def talks(session: str) -> None:
        talk = Talk(gateway, session, **{"x-luthien-agent-id": "busy", **Fault(latency_s=0.005).header()})
        for _ in range(12):
            talk.says("go on")
            talk.history[:-1] = []
            await talk.send()

    names = [f"s-{number}" for number in range(4)]
    talking = asyncio.gather(*(talks(name) for name in names))
    while not talking.done():
        facts_twice = (reads.session_facts(names), reads.session_facts(names[:2]))
        await asyncio.gather(*facts_twice, reads.agents(), reads.day(now_ns), reads.minutes(now_ns))
    await talking
    for _ in range(2):
        facts = await reads.session_facts(names)
        (group,) = await reads.agents()
        for told in facts.values():
            assert (told.totals.requests, told.totals.running, told.turns) == (12, 0, 12)
            assert (told.totals.tool_calls, sum(told.tools.values()), told.totals.output_tokens) == (12, 12, 12 * 17)
        day = await reads.day(now_ns)
        (of_the_day,) = day.groups.values()
        of_minutes = Totals()
        for one in (await reads.minutes(now_ns)).values():
            of_minutes.add(one)
        for totals in (group.totals, of_the_day.totals, of_minutes):
            assert (totals.requests, totals.running, totals.output_tokens) == (48, 0, 48 * 17)
        assert day.sessions == {("busy", name): 12 for name in names}
        assert (day.tools, day.failures) == ({TOOL_NAME: 48}, {})
        assert await reads.day(now_ns + DAY_NS) == DayCounts()
    await reads.close()


async def test_what_is_no_conversation_is_no_turn(gateway: RunningGateway) -> None:
    talk = Messages(gateway, "s-agent")
    await gateway.ask("GET", "/v1/models", b"", talk.headers)
    talk.says("how is Paris?")
    await gateway.ask("POST", "/v1/messages/count_tokens", json.dumps(talk.body()).encode(), talk.headers)
    await gateway.ask("POST", "/v1/embeddings", json.dumps({"model": "e", "input": ["x"]}).encode(), talk.headers)
    await talk.send()
    detail = await the_session(gateway, "s-agent")
    assert (detail.info.turns, detail.info.totals.requests) == (1, 4)
    assert [turn.kind for turn in detail.turns] == ["side", "side", "side", "turn"]
    assert said(detail.turns[-1]) == [("user", "how is Paris?")]
    assert detail.system == SYSTEM
    written = [piece async for piece in export(detail.info, gateway.plane.story("s-agent"), "markdown")]
    assert "`GET /v1/models` via" in "".join(written)


async def test_what_runs_is_seen_running(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    talk = Talk(gateway, "s-live")
    talk.says("hello")
    async with gateway.connect() as client:
        headers = talk.headers | Fault(stall_after=3).header()
        client.request("POST", talk.path, json.dumps(talk.body() | {"stream": True, "tools": []}).encode(), headers)
        await client.head()
        async with asyncio.timeout(30):
            while not (await the_session(gateway, "s-live")).turns[0].answer:
                await asyncio.sleep(0.01)
        detail = await the_session(gateway, "s-live")
        assert (detail.info.totals.running, detail.info.totals.errors) == (1, 0)
        assert detail.turns[0].row.state == "streaming"
        assert TEXT.startswith(detail.turns[0].answer[0].text)
        assert (await gateway.plane.sessions(filter="is:running")).sessions[0].id == "s-live"
    await gateway.row_when(lambda row: row.outcome == "cancelled")
    info = (await the_session(gateway, "s-live")).info
    assert (info.totals.running, info.totals.cancelled) == (0, 1)


async def test_what_ends_while_it_is_read_is_not_lost(gateway: RunningGateway) -> None:
    async def talks(session: str) -> None:
        talk = Talk(gateway, session, **{"x-luthien-agent-id": "busy", **Fault(latency_s=0.01).header()})
        for _ in range(15):
            talk.says("go on")
            await talk.send()

    talking = asyncio.gather(*(talks(f"s-{number}") for number in range(3)))
    while not talking.done():
        page, detail, rows = await asyncio.gather(
            gateway.plane.sessions(), gateway.plane.session("s-1"), gateway.plane.history(20)
        )
        board = await gateway.plane.dashboard()
        assert [info.totals.errors for info in page.sessions] == [0] * len(page.sessions)
        assert detail is None or {turn.row.outcome for turn in detail.turns} <= {"", "ok"}
        assert {row.outcome for row in rows} <= {"", "ok"}
        assert board.today.errors == 0
    await talking


async def test_sub_sessions_stand_at_the_call_that_started_them(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    def calls(*prompts: str) -> str:
        parts = [
            {"type": "tool_use", "id": f"toolu_{number}", "name": "Task", "input": {"prompt": prompt}}
            for number, prompt in enumerate(prompts)
        ]
        usage = {"input_tokens": 1, "output_tokens": 1}
        return json.dumps({"id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "tool_use",
                           "stop_sequence": None, "content": parts, "usage": usage})  # fmt: skip

    main = Messages(gateway, "s-main")
    main.says("count the files, then the lines")
    upstream.faults.append(Fault(body=calls("count the files", 'count the "lines"')))
    first, second = await main.send()
    for name, prompt in (("s-lines", 'count the "lines"'), ("s-files", "count the files")):
        sub = Messages(gateway, name, **{"x-luthien-parent-session-id": "s-main"})
        sub.says(prompt)
        await sub.send()
    main.give(first, "3")
    main.give(second, "99")
    await main.send()

    detail = await the_session(gateway, "s-main")
    assert [child.id for child in detail.children] == ["s-lines", "s-files"]
    assert [use.session_id for use in detail.turns[0].tool_uses] == ["s-files", "s-lines"]
    assert [use.result for use in detail.turns[0].tool_uses] == ["3", "99"]
    child = await the_session(gateway, "s-lines")
    assert child.info.parent == "s-main" and child.parent is not None and child.parent.children == 2


async def test_marks_stand_where_policies_acted(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        policies=[
            {"use": "strip_secrets"},
            {"use": "string_replacement", "params": {"replacements": [["Paris", "Rome"]], "apply_to": "response"}},
            {"use": "tool_allow_deny", "mode": "shadow", "params": {"deny": [TOOL_NAME]}},
        ]
    )
    talk = Talk(gateway, "s-marked")
    talk.says("my key is sk-ant-api03-" + "A" * 90)
    (call_id,) = await talk.send()
    talk.give(call_id, RESULT)
    await talk.send()

    first, second = (await the_session(gateway, "s-marked")).turns
    by_policy = {mark.verdict.policy: mark for mark in first.marks}
    assert by_policy["strip_secrets"].where == "request"
    denied = by_policy["tool_allow_deny"]
    assert (denied.where, denied.call_id, denied.block) == ("call", call_id, first.tool_uses[0].block)
    assert (denied.verdict.mode, denied.verdict.action) == ("shadow", "deny")
    assert [(mark.verdict.policy, mark.where) for mark in second.marks if mark.verdict.stage == "response"] == [
        ("string_replacement", "answer")
    ]
    assert "Rome" in second.answer[0].text
    info = (await gateway.plane.sessions(filter="is:acted modified>0")).sessions[0]
    assert info.totals.modified == 2


async def test_quiet_sessions_and_bodies_that_are_not_kept(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(journal={"capture": "metadata"})
    talk = Talk(gateway, "s-quiet")
    talk.says("hello")
    await talk.send()
    (turn,) = (await the_session(gateway, "s-quiet")).turns
    assert (turn.said, turn.answer) == ((), ())
    assert "capture" in turn.problem
    reads = await SessionReads.open(f"sqlite+aiosqlite:///{gateway.data_dir / 'luthien.db'}")
    assert isinstance(reads, SessionReads)
    try:
        for later, status in ((299, "active"), (301, "inactive"), (599, "inactive"), (601, "completed")):
            at = turn.started_at + later
            book = SessionBook(reads, running={}, feed=Feed(), ttl_s=600, wall=lambda at=at: at)  # type: ignore[misc]
            page = await book.sessions(expression="", tags=(), agent="", status=status, limit=5, cursor=None)
            assert [info.status for info in page.sessions] == [status]
    finally:
        await reads.close()


@pytest.mark.parametrize("operation", ["chat", "messages", "responses", "ollama_chat", "completions", "embeddings", "other", "?"])
def test_no_body_is_too_strange_to_be_told(operation: str) -> None:
    strange = [
        b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"messages":{}}', b'{"messages":[1,null,[],"x",{}]}',
        b'{"input":"hi","messages":7}', b'{"input":[{"type":"function_call"},{"type":"reasoning","summary":5}]}',
        b'{"system":{"a":1},"messages":[{"role":5,"content":{"cache_control":1}}]}',
        b'{"messages":[{"role":"user","content":[{"cache_control":{},"text":"\\ud800"}]}]}',
        b'{"messages":' + b"[" * 3_000 + b"]" * 3_000 + b"}", b'{"messages":[{"role":"tool","tool_call_id":["x"],"content":3}]}',
        b'{"prompt":["a",["b"]],"tools":[{"name":{}}],"previous_response_id":{}}',
    ]  # fmt: skip
    story = Story(len(strange) ** 2)
    for number, body in enumerate(strange * 2, 1):
        answer = strange[number % len(strange)]
        row = TransactionRow(transaction_id=f"t{number}", started_at=float(number), operation=operation)
        turn = story.tell(
            RecordedTurn(
                number=number,
                row=row,
                request_body=body,
                response_body=answer,
                response_type="text/event-stream" if number % 3 else "application/json",
                ended_ns=number * 10**9,
            )
        )
        assert turn.number == number
        json_line(SessionInfo(id="s", started_at=0, last_at=0, totals=Totals()), turn)
