"""Holds in a gateway that serves: the client waits, a person decides, and exactly that happens."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from proxy_core.control.plane import ControlConflict, ControlInvalid
from proxy_core.routing.reasons import Reason
from proxy_core.tasks import spawn
from tests.conftest import StartGateway
from tests.fault_payloads import TEXT, TOOL_ARGUMENTS, TOOL_NAME
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT, ONE_OF_EACH_DIALECT, Asking, error_message, name_of
from tests.gateway.holding import EACH_TOOL_ASKING, OTHER_ARGUMENTS, Operator, ToolAsking, holding, same_json
from tests.gateway_fixtures import RunningGateway, running_gateway
from tests.raw_http import RawResponse

each_tool_asking = pytest.mark.parametrize("asked", EACH_TOOL_ASKING, ids=lambda one: one.asking.name)
each_way = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
each_dialect = pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)


@pytest.fixture
def start_holding(start_gateway: StartGateway) -> Callable[..., Awaitable[tuple[RunningGateway, Operator]]]:
    """A gateway that holds what the parameters say, and its operator."""

    async def start(holds: dict[str, Any] | None = None, **params: Any) -> tuple[RunningGateway, Operator]:
        gateway = await start_gateway(policies=holding(**params), holds={"heartbeat_s": 0.05, **(holds or {})})
        return gateway, Operator(gateway)

    return start


StartHolding = Callable[..., Awaitable[tuple[RunningGateway, Operator]]]


def ask(gateway: RunningGateway, asking: Asking, body: bytes) -> asyncio.Task[RawResponse]:
    return spawn(gateway.ask("POST", asking.path, body, asking.headers), name="client")


# --- one tool call ---


@each_way
@each_tool_asking
async def test_an_approved_call_reaches_the_client_as_it_came(
    start_holding: StartHolding, upstream: FaultUpstream, asked: ToolAsking, stream: bool
) -> None:
    gateway, operator = await start_holding()
    client = ask(gateway, asked.asking, asked.body(stream=stream))
    hold = await operator.only()
    assert (hold.stage, hold.tool, hold.policy) == ("tool_call", TOOL_NAME, "hold_for_approval")
    assert same_json(hold.content, TOOL_ARGUMENTS)
    assert json.loads(hold.tool_schema)["required"] == ["city"]
    (held,) = [record for record in gateway.plane.events(0)[0] if record.kind == "held"]
    assert held.row is not None
    assert held.row.state == "held"
    await upstream.last.done.wait()
    assert not client.done()
    await operator.approve()
    response = await client
    assert response.status == 200
    answer = asked.read(response.body, stream=stream)
    assert answer == asked.read(upstream.last.sent_body, stream=stream)
    if not stream:
        assert response.body == upstream.last.sent_body
    row = await gateway.row()
    assert (row.outcome, row.verdict, row.tool_calls) == ("ok", "allow", 1)
    (verdict,) = (await gateway.detail()).verdicts
    assert (verdict.action, verdict.reason, verdict.ran) == ("allow", Reason.APPROVED, "ran")
    assert verdict.detail["decided_by"] == "ada"


@each_way
@each_tool_asking
async def test_edited_arguments_keep_id_and_place(
    start_holding: StartHolding, upstream: FaultUpstream, asked: ToolAsking, stream: bool
) -> None:
    gateway, operator = await start_holding()
    client = ask(gateway, asked.asking, asked.body(stream=stream))
    hold = await operator.only()
    with pytest.raises(ControlInvalid, match="fahrenheit"):
        await operator.edit('{"city": "Rome", "unit": "fahrenheit"}', hold)
    with pytest.raises(ControlInvalid, match="city"):
        await operator.edit("{}", hold)
    await operator.edit(OTHER_ARGUMENTS, hold)
    answer = asked.read((await client).body, stream=stream)
    before = asked.read(upstream.last.sent_body, stream=stream)
    assert answer.problem is None
    assert answer.complete
    (call,), (original,) = answer.tool_calls, before.tool_calls
    assert (call.call_id, call.name) == (original.call_id, original.name)
    assert same_json(call.arguments, OTHER_ARGUMENTS)
    assert answer.stop_reason == before.stop_reason
    detail = await gateway.detail()
    assert (detail.row.verdict, detail.verdicts[-1].reason) == ("modify", Reason.APPROVED_EDITED)
    assert detail.upstream_body is not None


@each_way
@each_tool_asking
async def test_a_denied_call_leaves_an_answer_that_the_agent_can_go_on_from(
    start_holding: StartHolding, asked: ToolAsking, stream: bool
) -> None:
    gateway, operator = await start_holding()
    client = ask(gateway, asked.asking, asked.body(stream=stream))
    await operator.deny("Ask me about the weather in Rome.")
    response = await client
    assert response.status == 200
    answer = asked.read(response.body, stream=stream)
    assert (answer.problem, answer.complete, answer.tool_calls) == (None, True, ())
    assert (
        answer.text.removeprefix(TEXT)
        == f"[Tool call `{TOOL_NAME}` was denied by an operator: Ask me about the weather in Rome.]"
    )
    if asked.stop_reason.startswith("tool"):
        assert answer.stop_reason != asked.stop_reason
    assert (await gateway.row()).verdict == "deny"


async def test_text_passes_while_nothing_is_held(start_holding: StartHolding, upstream: FaultUpstream) -> None:
    gateway, _ = await start_holding()
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    assert response.body == upstream.last.sent_body
    assert gateway.plane.holds(decided=True) == []


# --- requests ---


@each_dialect
async def test_a_held_request_is_not_sent_before_it_is_approved(
    start_holding: StartHolding, upstream: FaultUpstream, asking: Asking
) -> None:
    gateway, operator = await start_holding(stage="request")
    body = asking.bytes()
    client = ask(gateway, asking, body)
    hold = await operator.only()
    assert (hold.content, hold.model) == (body.decode(), asking.body["model"])
    await asyncio.sleep(0.05)
    assert upstream.exchanges == []
    await operator.approve()
    assert (await client).status == 200
    assert upstream.last.body == body


@each_dialect
async def test_an_edited_request_is_what_the_upstream_gets(
    start_holding: StartHolding, upstream: FaultUpstream, asking: Asking
) -> None:
    gateway, operator = await start_holding(stage="request")
    client = ask(gateway, asking, asking.bytes(stream=True))
    hold = await operator.only()
    other = hold.content.replace("capital of France", "capital of Italy")
    assert other != hold.content
    with pytest.raises(ControlInvalid, match="stream"):
        await operator.edit(other.replace('"stream": true', '"stream": false'), hold)
    await operator.edit(other, hold)
    assert (await client).status == 200
    assert upstream.last.body.decode() == other
    detail = await gateway.detail()
    assert detail.request_body.decode() == hold.content
    assert detail.sent_body == upstream.last.body


@each_way
@each_dialect
async def test_a_denied_request_never_leaves(
    start_holding: StartHolding, upstream: FaultUpstream, asking: Asking, stream: bool
) -> None:
    gateway, operator = await start_holding(stage="request", holds={"heartbeat_s": 60.0})
    client = ask(gateway, asking, asking.bytes(stream=stream))
    await operator.deny("Not on production.")
    response = await client
    assert response.status == 400
    assert response.header("x-should-retry") == "false"
    assert "denied by an operator: Not on production." in error_message(response, asking.dialect)
    assert upstream.exchanges == []
    row = await gateway.row()
    assert (row.outcome, row.verdict) == ("refused", "deny")


async def test_where_nobody_decides_the_deadline_does(start_holding: StartHolding, upstream: FaultUpstream) -> None:
    gateway, operator = await start_holding(stage="request", timeout_s=1)
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    assert response.status == 400
    assert "not approved in time" in error_message(response, "openai")
    assert upstream.exchanges == []
    assert (await operator.decided()).status == "expired"


async def test_the_clock_of_the_transaction_stands_still_while_a_person_thinks(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(policies=holding(stage="request"), routing={"timeouts": {"total_s": 0.6}})
    client = ask(gateway, CHAT, CHAT.bytes())
    operator = Operator(gateway)
    hold = await operator.only()
    await asyncio.sleep(1.0)
    await operator.approve(hold)
    assert (await client).status == 200


# --- whole answers ---


@each_dialect
async def test_a_held_stream_says_nothing_but_that_it_lives(
    start_holding: StartHolding, upstream: FaultUpstream, asking: Asking
) -> None:
    gateway, operator = await start_holding(stage="response")
    async with gateway.connect() as client:
        client.request("POST", asking.path, asking.bytes(stream=True), asking.headers)
        hold = await operator.only()
        assert hold.content.encode() == upstream.last.sent_body
        await asyncio.sleep(0.3)
        await operator.approve(hold)
        response = await client.response()
    assert response.status == 200
    beats = response.body.removesuffix(upstream.last.sent_body)
    assert response.body.endswith(upstream.last.sent_body)
    assert TEXT.encode()[:5] not in beats
    if asking.dialect != "ollama":
        assert beats


@each_way
async def test_an_edited_answer_is_what_the_client_reads(start_holding: StartHolding, stream: bool) -> None:
    gateway, operator = await start_holding(stage="response")
    client = ask(gateway, CHAT, CHAT.bytes(stream=stream))
    hold = await operator.only()
    word = TEXT.split()[0]
    other = hold.content.replace(word, "Elsewhere")
    assert other != hold.content
    with pytest.raises(ControlInvalid):
        await operator.edit("Elsewhere", hold)
    await operator.edit(other, hold)
    assert (await client).body.decode().endswith(other)


# --- clients that leave, and come back ---


async def test_a_client_that_leaves_takes_its_hold_with_it(start_holding: StartHolding, upstream: FaultUpstream) -> None:
    gateway, operator = await start_holding(stage="request", holds={"retry_grace_s": 0.3})
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
        await operator.only()
        await asyncio.sleep(0.3)
        client.leave()
    left = time.monotonic()
    await operator.sees(lambda holds: not holds or holds[0].waiting == 0)
    assert time.monotonic() - left < 5.0
    assert (await operator.decided()).status == "withdrawn"
    assert upstream.exchanges == []
    assert (await gateway.row_when(lambda row: row.outcome == "cancelled")).outcome == "cancelled"


async def test_a_retry_joins_the_hold_and_one_decision_is_enough(start_holding: StartHolding, upstream: FaultUpstream) -> None:
    gateway, operator = await start_holding(stage="request")
    first, retry = ask(gateway, CHAT, CHAT.bytes()), None
    hold = await operator.only()
    retry = ask(gateway, CHAT, CHAT.bytes())
    (joined,) = await operator.sees(lambda holds: holds[0].waiting == 2)
    assert joined.id == hold.id
    first.cancel()
    (joined,) = await operator.sees(lambda holds: holds[0].waiting == 1)
    await operator.approve(joined)
    assert (await retry).status == 200
    assert len(upstream.exchanges) == 1
    with pytest.raises(ControlConflict, match="already approved by ada"):
        await operator.deny("", hold)


async def test_a_retry_that_comes_after_the_decision_gets_it(start_holding: StartHolding, upstream: FaultUpstream) -> None:
    gateway, operator = await start_holding(stage="request")
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
        await operator.only()
        await asyncio.sleep(0.3)
        client.leave()
    await operator.sees(lambda holds: holds[0].waiting == 0)
    await operator.approve()
    assert upstream.exchanges == []
    retry = await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    assert retry.status == 200
    assert len(upstream.exchanges) == 1
    third = ask(gateway, CHAT, CHAT.bytes())
    await operator.deny()
    assert (await third).status == 400


async def test_other_keys_hold_for_themselves(start_holding: StartHolding) -> None:
    gateway, operator = await start_holding(stage="request")
    clients = [
        spawn(gateway.ask("POST", CHAT.path, CHAT.bytes(), {**CHAT.headers, "authorization": f"Bearer sk-{name}"}), name="client")
        for name in ("one", "two")
    ]
    holds = await operator.sees(lambda holds: len(holds) == 2)
    assert len({hold.key for hold in holds}) == 2
    assert all("sk-" not in hold.key for hold in holds)
    await operator.approve(holds[0])
    await operator.deny("", holds[1])
    assert sorted([(await client).status for client in clients]) == [200, 400]


async def test_a_flood_fills_no_more_than_its_keys_share(start_holding: StartHolding, upstream: FaultUpstream) -> None:
    gateway, operator = await start_holding(stage="request", holds={"max_per_key": 5})
    clients = [ask(gateway, CHAT, CHAT.bytes(user=f"u-{n}")) for n in range(40)]
    await asyncio.wait(clients, return_when=asyncio.FIRST_COMPLETED)
    while sum(client.done() for client in clients) < 35:
        await asyncio.sleep(0.005)
    assert len(gateway.plane.holds()) == 5
    refused = [client.result() for client in clients if client.done()]
    assert {one.status for one in refused} == {400}
    assert "too much waits" in error_message(refused[0], "openai")
    for hold in await operator.sees():
        await operator.approve(hold)
    assert sum([(await client).status == 200 for client in clients]) == 5
    assert len(upstream.exchanges) == 5


# --- how it ends otherwise ---


async def test_a_transaction_that_is_ended_lets_go_of_its_hold(start_holding: StartHolding) -> None:
    gateway, operator = await start_holding(stage="request", holds={"retry_grace_s": 0.2})
    client = ask(gateway, CHAT, CHAT.bytes())
    hold = await operator.only()
    assert await gateway.plane.kill(hold.transaction_id, who="ada")
    assert (await client).status >= 400
    assert (await operator.decided()).status == "withdrawn"


@each_way
async def test_a_gateway_that_stops_decides_what_waits(start_holding: StartHolding, stream: bool) -> None:
    gateway, operator = await start_holding(stage="request", holds={"heartbeat_s": 60.0})
    client = ask(gateway, CHAT, CHAT.bytes(stream=stream))
    await operator.only()
    await gateway.restart()
    response = await client
    assert response.status == 400
    assert "before luthien stopped" in error_message(response, "openai")
    row = await gateway.row()
    assert (row.outcome, row.verdict) == ("refused", "deny")


async def test_in_shadow_mode_nobody_waits(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(policies=[{"use": "hold_for_approval", "mode": "shadow", "params": {"stage": "request"}}])
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    assert response.body == upstream.last.sent_body
    assert gateway.plane.holds(decided=True) == []
    detail = await gateway.detail()
    assert [(one.action, one.reason, one.mode) for one in detail.verdicts] == [("hold", Reason.HELD, "shadow")]
    assert detail.row.verdict == "allow"


# --- a gateway that died ---


@asynccontextmanager
async def after_a_crash(gateway: RunningGateway, folder: Path) -> AsyncIterator[tuple[RunningGateway, Operator]]:
    """A gateway that starts from what this one has on disk when it has the hold there, as if it had been killed."""
    with closing(sqlite3.connect(gateway.data_dir / "luthien.db")) as journal:
        async with asyncio.timeout(30.0):
            while not journal.execute("SELECT count(*) FROM holds").fetchone()[0]:
                await asyncio.sleep(0.005)
    shutil.copytree(gateway.data_dir, folder)
    async with running_gateway(gateway.settings, folder) as again:
        yield again, Operator(again)


async def test_after_a_crash_a_retry_finds_its_hold(start_holding: StartHolding, upstream: FaultUpstream, tmp_path: Path) -> None:
    gateway, operator = await start_holding(stage="request")
    client = ask(gateway, CHAT, CHAT.bytes())
    before = await operator.only()
    async with after_a_crash(gateway, tmp_path / "again") as (again, other):
        after = await other.only()
        assert (after.id, after.content, after.shown, after.waiting) == (before.id, before.content, before.shown, 0)
        assert after.deadline == pytest.approx(before.deadline, abs=1.0)
        retry = ask(again, CHAT, CHAT.bytes())
        (joined,) = await other.sees(lambda holds: holds[0].waiting == 1)
        assert joined.id == before.id
        await other.approve(joined)
        assert (await retry).status == 200
    await operator.deny()
    await client


async def test_after_a_crash_what_nobody_comes_back_for_is_withdrawn(start_holding: StartHolding, tmp_path: Path) -> None:
    gateway, operator = await start_holding(stage="request", holds={"retry_grace_s": 0.2})
    client = ask(gateway, CHAT, CHAT.bytes())
    before = await operator.only()
    async with after_a_crash(gateway, tmp_path / "again") as (again, other):
        withdrawn = await other.decided()
        assert (withdrawn.id, withdrawn.status) == (before.id, "withdrawn")
        assert "left" in withdrawn.message
        with pytest.raises(ControlConflict, match="already withdrawn"):
            await other.approve(before)
        await again.restart()
        assert again.plane.holds() == []
    await operator.deny()
    await client


async def test_what_was_decided_is_in_the_journal_when_the_operator_hears_of_it(
    start_holding: StartHolding, tmp_path: Path
) -> None:
    gateway, operator = await start_holding(stage="request")
    client = ask(gateway, CHAT, CHAT.bytes())
    await operator.deny("No.")
    async with after_a_crash(gateway, tmp_path / "again") as (again, _):
        assert again.plane.holds() == []
        (record,) = await again.runtime._journal.store.holds(10)
        assert (record.status, record.decided_by, record.message) == ("denied", "ada", "No.")
        assert record.content == CHAT.bytes().decode()
    await client
