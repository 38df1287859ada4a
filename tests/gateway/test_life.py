"""Ends and beginnings: a gateway that stops lets streams finish, and one that starts again remembers what went before."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from proxy_core.tasks import spawn
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import ASK, CHAT, MESSAGES, RESPONSES, stream_error_message
from tests.gateway_fixtures import RunningGateway


async def test_a_running_stream_finishes_before_the_end(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(interval_s=0.04).header())
        await upstream.arrived()
        await client.head()
        gateway.runtime.begin_shutdown()
        assert gateway.plane.state().status == "draining"
        ended = spawn(gateway.runtime.wait_closed(), name="end")
        await upstream.last.done.wait()
        async with asyncio.timeout(30):
            await ended
    assert gateway.plane.state().status == "stopped"
    assert len(upstream.last.sent) == len(upstream.last.answer.pieces)
    assert not upstream.last.peer_gone.is_set()


async def test_client_of_a_stream_that_drains_gets_it_whole(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.request("POST", MESSAGES.path, MESSAGES.bytes(stream=True), Fault(interval_s=0.04).header())
        await upstream.arrived()
        gateway.runtime.begin_shutdown()
        response = await client.response()
        assert response.whole
        assert response.body == upstream.last.sent_body
        assert await client.closed()
    with pytest.raises(ConnectionError):
        async with gateway.connect():
            pass


async def test_stream_that_outlasts_the_drain_time_is_ended_with_an_error(
    start_gateway: StartGateway, upstream: FaultUpstream
) -> None:
    gateway = await start_gateway(server={"drain_s": 1.0})
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(stall_after=3).header())
        await upstream.arrived()
        gateway.runtime.begin_shutdown()
        response = await client.response()
    async with asyncio.timeout(30):
        await gateway.runtime.wait_closed()
        await upstream.last.peer_gone.wait()
    assert response.body.startswith(upstream.last.sent_body)
    assert stream_error_message(response.body, CHAT)
    await gateway.restart()
    assert (await gateway.row()).outcome in ("truncated", "cancelled")


async def test_a_second_call_ends_at_once(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(server={"drain_s": 60.0})
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(stall_after=3).header())
        await upstream.arrived()
        gateway.runtime.begin_shutdown()
        gateway.runtime.begin_shutdown()
        async with asyncio.timeout(30):
            await gateway.runtime.wait_closed()
    await gateway.restart()
    assert (await gateway.row()).outcome in ("truncated", "error")


async def test_sessions_go_on_after_a_restart(stored_gateway: RunningGateway) -> None:
    gateway = stored_gateway
    await gateway.ask("POST", CHAT.path, CHAT.bytes())
    first = await gateway.ask("POST", RESPONSES.path, RESPONSES.bytes())
    response_id = first.json()["id"]
    await gateway.restart()
    said = {"role": "assistant", "content": "Paris"}
    more = [*ASK, said, {"role": "user", "content": "And of Japan?"}]
    await gateway.ask("POST", CHAT.path, CHAT.bytes(messages=more))
    await gateway.ask("POST", RESPONSES.path, RESPONSES.bytes(input="and then?", previous_response_id=response_id))
    later_response, later_chat, response, chat = await gateway.rows()
    assert chat.session_id == later_chat.session_id
    assert response.session_id == later_response.session_id
    assert chat.session_id != response.session_id


async def test_journal_is_read_the_same_after_a_restart(stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    gateway = stored_gateway
    for asking in (CHAT, MESSAGES):
        await gateway.ask("POST", asking.path, asking.bytes(stream=True), asking.headers)
    before = [await gateway.plane.detail(row.transaction_id) for row in await gateway.rows()]
    await gateway.restart()
    after = [await gateway.plane.detail(row.transaction_id) for row in await gateway.rows()]
    assert [one and (one.request_body, one.response_body, one.request_headers) for one in before] == [
        one and (one.request_body, one.response_body, one.request_headers) for one in after
    ]
    assert [one and one.response_body for one in after] == [exchange.sent_body for exchange in reversed(upstream.exchanges)]


async def test_a_hundred_streams_at_once(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(routing={"timeouts": {"connect_s": 20.0}})  # a hundred connections, on whatever machine
    fault = Fault(interval_s=0.02).header()
    answers = await asyncio.gather(
        *(gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True, number=number), fault) for number in range(100))
    )
    assert {answer.body for answer in answers} == {upstream.last.sent_body}
    rows = await gateway.rows()
    assert [row.outcome for row in rows] == ["ok"] * 100
    assert len({row.transaction_id for row in rows}) == 100


async def test_a_journal_in_trouble_refuses_at_once_where_it_blocks(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    """The refusal does not wait for the store, and what came before waits until it is recorded."""
    gateway = await start_gateway(journal={"on_trouble": "block"})
    backend: Any = gateway.runtime._journal._backend
    await backend._writer.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(backend._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = spawn(gateway.ask("POST", CHAT.path, CHAT.bytes()), name="waiting request")
    async with asyncio.timeout(30):
        while gateway.plane.state().journal_status != "failing":
            await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        refused = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert refused.status == 503
    assert not upstream.exchanges
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(30):
        assert (await waiting).status == 200
