"""Each event of a stream reaches the client as it is sent, not when the next one comes."""

from __future__ import annotations

import asyncio
import statistics

from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, Asking
from tests.gateway_fixtures import RunningGateway

EVERY_S = 0.1
MEDIAN_MS = 5.0
WORST_MS = 25.0
"""Machines are shared: a single event may meet another process's slice."""


async def test_each_event_arrives_within_five_milliseconds(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    await gateway.ask("POST", CHAT.path, CHAT.bytes())  # connections and caches
    upstream.exchanges.clear()

    async def delays(asking: Asking) -> list[float]:
        async with gateway.connect() as client:
            client.request("POST", asking.path, asking.bytes(stream=True), Fault(interval_s=EVERY_S).header())
            response = await client.response()
        exchange = next(one for one in upstream.exchanges if one.target == asking.path.encode())
        assert response.body == exchange.sent_body
        assert [chunk for _, chunk in response.chunks] == [piece for _, piece in exchange.sent]
        pairs = zip(exchange.sent, response.chunks, strict=True)
        return [(arrived_ns - sent_ns) / 1e6 for (sent_ns, _), (arrived_ns, _) in pairs]

    found = await asyncio.gather(*(delays(asking) for asking in EVERY))
    for one in found:
        assert statistics.median(one) <= MEDIAN_MS, one
        assert max(one) <= WORST_MS, one


async def test_head_arrives_before_the_first_event(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect(timeout_s=30) as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(stall_after=0).header())
        assert (await client.head()).status == 200


async def test_live_body_shows_what_has_come_so_far(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(stall_after=3).header())
        head = await client.head()
        transaction_id = head.header("x-luthien-transaction-id")
        assert transaction_id
        async with asyncio.timeout(30):
            while len(upstream.last.sent) < 3 or (gateway.plane.live_body(transaction_id, 0) or (b"",))[0] == b"":
                await asyncio.sleep(0.01)
            while (live := gateway.plane.live_body(transaction_id, 0)) != (upstream.last.sent_body, False):
                assert live is not None
                await asyncio.sleep(0.01)
        state = gateway.plane.state()
        assert (state.active, state.status) == (1, "serving")
