"""Requests that are too large or too slow are refused with the limit's name, early, and reach no upstream."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT, ONE_OF_EACH_DIALECT, Asking, error_message, name_of
from tests.gateway.test_ingress import POST, refused
from tests.gateway_fixtures import RunningGateway


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_announced_body_over_the_limit_is_refused_before_it_is_sent(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    gateway = await start_gateway(server={"max_body_bytes": 10_000})
    async with gateway.connect() as client:
        client.send(f"POST {asking.path} HTTP/1.1\r\nhost: h\r\ncontent-length: 10001\r\n\r\n".encode())
        response = await client.response()
    assert response.status == 413
    assert "10,000" in error_message(response, asking.dialect)
    row = await gateway.row_when(lambda row: row.outcome == "refused")
    assert (row.outcome, row.status) == ("refused", 413)
    assert not upstream.exchanges


async def test_announced_body_over_the_limit_gets_no_continue(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"max_body_bytes": 10_000})
    async with gateway.connect() as client:
        client.send(POST + b"content-length: 10001\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.head()).status == 413


async def test_chunked_body_over_the_limit_is_refused_early(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(server={"max_body_bytes": 10_000})
    async with gateway.connect() as client:
        client.send(POST + b"transfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        client.send(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        response = await client.response()
    assert response.status == 413
    assert not upstream.exchanges


async def test_client_that_sends_on_still_reads_why_it_was_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"max_body_bytes": 10_000})
    response = await gateway.ask("POST", CHAT.path, b"x" * 5_000_000)
    assert response.status == 413


async def test_body_of_exactly_the_limit_passes(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"max_body_bytes": 10_000})
    assert (await gateway.ask("POST", "/v1/echo", b"x" * 10_000)).body == b"x" * 10_000


@pytest.mark.parametrize(
    "head",
    [
        b"x-large: " + b"h" * 70_000 + b"\r\n",
        b"".join(b"x-%d: %s\r\n" % (number, b"v" * 1_000) for number in range(70)),
        b"".join(b"x-%d: v\r\n" % number for number in range(1_000)),
    ],
    ids=["one", "long", "many"],
)
async def test_headers_over_the_limit_are_431(guarded: RunningGateway, head: bytes) -> None:
    response = await refused(guarded, POST + b"content-length: 0\r\n" + head + b"\r\n")
    assert response.status == 431
    assert "max_header_bytes" in error_message(response, "openai")


async def test_headers_that_never_end_are_431(guarded: RunningGateway) -> None:
    async with guarded.connect() as client:
        client.send(POST)
        for number in range(100):
            client.send(b"x-%d: %s\r\n" % (number, b"v" * 1_000))
        assert (await client.response()).status == 431


async def test_target_over_16_kB_is_refused(guarded: RunningGateway) -> None:
    response = await guarded.ask("GET", "/v1/" + "a" * 20_000)
    assert response.status in (400, 414, 431)


async def test_slow_headers_are_408(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(server={"header_timeout_s": 0.3})
    async with gateway.connect(timeout_s=3) as client:
        begun = time.monotonic()
        client.send(POST)
        response = await client.response()
        assert (response.status, await client.closed()) == (408, True)
        assert 0.25 < time.monotonic() - begun < 2
    assert not upstream.exchanges


async def test_headers_that_drip_are_408_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"header_timeout_s": 0.3})
    async with gateway.connect(timeout_s=0.05) as client:
        begun = time.monotonic()
        client.send(POST)
        while time.monotonic() - begun < 3:
            client.send(b"x")
            try:
                response = await client.response()
                break
            except TimeoutError:
                continue
        assert response.status == 408


async def test_silent_connection_is_closed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"header_timeout_s": 0.3})
    async with gateway.connect(timeout_s=3) as client:
        assert await client.closed()


async def test_idle_kept_connection_outlives_the_header_timeout(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"header_timeout_s": 0.3})
    async with gateway.connect() as client:
        client.request("POST", "/v1/echo", b"1")
        await client.response()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await client.closed()
        client.request("POST", "/v1/echo", b"2")
        assert (await client.response()).body == b"2"


async def test_idle_kept_connection_is_closed_after_its_time(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"keep_alive_s": 1})
    async with gateway.connect(timeout_s=4) as client:
        client.request("POST", "/v1/echo", b"1")
        assert (await client.response()).whole
        answered = time.monotonic()
        assert await client.closed()
        assert time.monotonic() - answered > 0.9


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_body_that_stops_is_408(start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking) -> None:
    gateway = await start_gateway(server={"body_timeout_s": 0.3})
    async with gateway.connect(timeout_s=30) as client:
        client.send(f"POST {asking.path} HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{{".encode())
        response = await client.response()
        assert response.status == 408
        assert error_message(response, asking.dialect)
        assert await client.closed()
    assert not upstream.exchanges
    assert (await gateway.row_when(lambda row: row.outcome == "refused")).status == 408


@pytest.mark.parametrize("leave", ["close", "leave"])
async def test_body_cut_short_reaches_nobody(gateway: RunningGateway, upstream: FaultUpstream, leave: str) -> None:
    async with gateway.connect() as client:
        await client.send_all(POST + b"content-length: 100\r\n\r\n{")
        getattr(client, leave)()
        row = await gateway.row_when(lambda row: row.outcome not in ("", "lost"))
    assert row.outcome == "cancelled"
    assert not upstream.exchanges
