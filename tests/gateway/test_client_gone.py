"""A client that leaves stops its upstream within a second, and what it had got is in the journal."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.fault_upstream import Exchange, Fault, FaultUpstream
from tests.gateway.asking import CHAT, ONE_OF_EACH_DIALECT, Asking, name_of
from tests.gateway_fixtures import RunningGateway

each_dialect = pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
each_way = pytest.mark.parametrize("leave", ["close", "leave"], ids=["FIN", "RST"])


async def assert_upstream_stopped(exchange: Exchange, left_ns: int) -> None:
    async with asyncio.timeout(30):
        await exchange.peer_gone.wait()
    assert exchange.peer_gone_ns is not None
    assert (exchange.peer_gone_ns - left_ns) / 1e9 < 5.0


async def assert_cancelled(gateway: RunningGateway, partial: bytes) -> None:
    row = await gateway.row_when(lambda row: row.outcome not in ("", "lost"))
    assert row.outcome == "cancelled"
    assert (await gateway.detail()).response_body == partial
    await nothing_runs(gateway)


async def nothing_runs(gateway: RunningGateway) -> None:
    """A row has its outcome before the last of the work for it is done."""
    async with asyncio.timeout(30):
        while gateway.plane.state().active:
            await asyncio.sleep(0.01)


@each_way
@each_dialect
async def test_before_the_first_byte(gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, leave: str) -> None:
    async with gateway.connect() as client:
        client.request("POST", asking.path, asking.bytes(stream=True), Fault(stall_after=-1).header())
        exchange = await upstream.arrived()
        getattr(client, leave)()
        await assert_upstream_stopped(exchange, time.perf_counter_ns())
        await assert_cancelled(gateway, b"")


@each_way
@each_dialect
async def test_in_the_middle_of_a_stream(gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, leave: str) -> None:
    async with gateway.connect() as client:
        client.request("POST", asking.path, asking.bytes(stream=True), Fault(stall_after=4).header())
        exchange = await upstream.arrived()
        head = await client.head()
        assert head.status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.response()
        getattr(client, leave)()
        await assert_upstream_stopped(exchange, time.perf_counter_ns())
        assert len(exchange.sent) == 4
        await assert_cancelled(gateway, exchange.sent_body)


async def test_in_the_middle_of_a_running_stream(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(interval_s=0.05, repeat=50).header())
        exchange = await upstream.arrived()
        await client.head()
        await asyncio.sleep(0.2)
        client.close()
        await assert_upstream_stopped(exchange, time.perf_counter_ns())
    row = await gateway.row_when(lambda row: row.outcome not in ("", "lost"))
    assert row.outcome == "cancelled"
    body = (await gateway.detail()).response_body
    assert body
    assert exchange.sent_body.startswith(body)


async def test_while_a_plain_answer_is_awaited(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(), Fault(latency_s=30).header())
        exchange = await upstream.arrived()
        client.close()
        await assert_upstream_stopped(exchange, time.perf_counter_ns())
        await assert_cancelled(gateway, b"")


async def test_many_leave_at_once(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    clients = [gateway.connect() for _ in range(20)]
    for client in clients:
        await client.__aenter__()
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(stall_after=2).header())
    await upstream.arrived(20)
    for client in clients:
        client.leave()
    async with asyncio.timeout(30):
        await asyncio.gather(*(exchange.peer_gone.wait() for exchange in upstream.exchanges))
    await nothing_runs(gateway)
    assert {row.outcome for row in await gateway.rows()} == {"cancelled"}


async def test_client_that_closes_its_sending_side_counts_as_gone(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    """Its FIN looks the same as that of a client that has left, and the upstream must be stopped for that one."""
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(), Fault(latency_s=30).header())
        exchange = await upstream.arrived()
        client.half_close()
        await assert_upstream_stopped(exchange, time.perf_counter_ns())
        await assert_cancelled(gateway, b"")
