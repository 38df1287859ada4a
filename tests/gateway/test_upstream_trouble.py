"""Whatever the upstream does, the client gets a whole answer or an error in its own dialect, and the record says which."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxy_core.settings import RoutingSettings
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import (
    CHAT,
    EVERY,
    MESSAGES,
    ONE_OF_EACH_DIALECT,
    Asking,
    error_message,
    name_of,
    stream_error_message,
)
from tests.gateway_fixtures import RunningGateway

each_dialect = pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
each_api = pytest.mark.parametrize("asking", EVERY, ids=name_of)


def at(asking: Asking, url: str) -> dict[str, Any]:
    return {"somewhere": {"api": asking.dialect, "base_url": url}}


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def assert_told(gateway: RunningGateway, asking: Asking, status: int, *, names: str) -> None:
    """One request; its answer is an error of luthien's own in the right words, and so is the record."""
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=True), asking.headers)
    assert response.status == status
    assert response.whole
    message = error_message(response, asking.dialect)
    assert names in message
    assert "\n" not in message
    row = await gateway.row()
    assert (row.outcome, row.status) == ("error", status)
    assert names in row.error
    assert (await gateway.detail()).request_body == asking.bytes(stream=True)


@each_api
async def test_refused_connection_is_502(start_gateway: StartGateway, asking: Asking, closed_port: int) -> None:
    gateway = await start_gateway(upstreams=at(asking, f"http://127.0.0.1:{closed_port}"))
    await assert_told(gateway, asking, 502, names=f"127.0.0.1:{closed_port}")


@each_dialect
async def test_unknown_host_is_502(start_gateway: StartGateway, asking: Asking) -> None:
    gateway = await start_gateway(upstreams=at(asking, "http://nowhere.invalid"))
    await assert_told(gateway, asking, 502, names="nowhere.invalid")


@each_dialect
@pytest.mark.parametrize(
    "garbage",
    [
        "hello there\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nx-a: a\x00b\r\ncontent-length: 0\r\n\r\n",
        "\x16\x03\x01\x02\x00",
        "",
    ],
)
async def test_answer_that_is_no_http_is_502(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, garbage: str
) -> None:
    upstream.faults.append(Fault(garbage=garbage))
    await assert_told(gateway, asking, 502, names=upstream.url)
    assert len(upstream.exchanges) == 1


@each_dialect
@pytest.mark.parametrize(
    "fault",
    [Fault(reset_after=-1), Fault(te_and_cl=True), Fault(huge_header=5_000_000), Fault(many_headers=50_000)],
    ids=["reset", "encoding and length", "huge header", "many headers"],
)
async def test_head_that_cannot_be_taken_is_502(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, fault: Fault
) -> None:
    upstream.faults.append(fault)
    await assert_told(gateway, asking, 502, names=upstream.url)


@each_dialect
async def test_no_answer_in_time_is_504(start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking) -> None:
    gateway = await start_gateway(routing={"timeouts": {"first_byte_s": 0.2}})
    upstream.faults.append(Fault(stall_after=-1))
    await assert_told(gateway, asking, 504, names=upstream.url)
    async with asyncio.timeout(30):
        await upstream.last.peer_gone.wait()


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address at which nobody answers when a connection is asked for."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        queued = []
        for _ in range(3):  # the queue of connections that wait is full: the next gets no answer at all
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            queued.append(one)
        yield f"http://127.0.0.1:{full.getsockname()[1]}"
        for one in queued:
            one.close()


@each_dialect
async def test_no_connection_in_time_is_504(start_gateway: StartGateway, deaf: str, asking: Asking) -> None:
    gateway = await start_gateway(upstreams=at(asking, deaf), routing={"timeouts": {"connect_s": 0.3}})
    await assert_told(gateway, asking, 504, names=deaf)


async def test_the_time_to_connect_changes_while_traffic_runs(start_gateway: StartGateway, deaf: str) -> None:
    gateway = await start_gateway(upstreams=at(CHAT, deaf), routing={"timeouts": {"connect_s": 0.05}})
    await assert_told(gateway, CHAT, 504, names="within 0.05 s")
    gateway.runtime._take(
        gateway.settings.model_copy(update={"routing": RoutingSettings.model_validate({"timeouts": {"connect_s": 0.3}})})
    )
    begun = time.monotonic()
    await assert_told(gateway, CHAT, 504, names="within 0.3 s")
    assert time.monotonic() - begun >= 0.3


async def test_total_time_is_bounded(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(routing={"timeouts": {"total_s": 0.4}})
    upstream.faults.append(Fault(interval_s=0.1))
    begun = time.monotonic()
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True))
    assert 0.3 < time.monotonic() - begun < 2
    assert "total_s" in stream_error_message(response.body, CHAT)
    assert (await gateway.row_when(lambda row: row.outcome != "lost")).outcome == "truncated"


BREAKS = {
    "reset": Fault(reset_after=4),
    "closed": Fault(cut_after=4),
    "half closed": Fault(half_close_after=4),
    "bad chunk size": Fault(bad_chunk_size=True, interval_s=0.02),
    "stalled": Fault(stall_after=4),
}


@each_api
@pytest.mark.parametrize("case", BREAKS)
async def test_stream_that_breaks_ends_with_an_error_event(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking, case: str
) -> None:
    gateway = await start_gateway(routing={"timeouts": {"idle_s": 0.3}})
    upstream.faults.append(BREAKS[case])
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=True))
    assert response.status == 200
    assert response.whole, "the stream must end as HTTP: the error event says that it is not whole"
    sent = b"".join(piece for _, piece in upstream.last.sent[: 1 if case == "bad chunk size" else 4])
    assert response.body.startswith(sent)
    assert asking.terminator not in response.body
    assert stream_error_message(response.body, asking)
    row = await gateway.row_when(lambda row: row.outcome != "lost")
    assert (row.outcome, row.status, row.stream) == ("truncated", 200, True)
    assert row.error
    assert (await gateway.detail()).response_body.startswith(sent)


@each_api
@pytest.mark.parametrize("events", [0, 4])
async def test_stream_without_its_terminator_passes_unchanged_and_is_recorded_as_truncated(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, events: int
) -> None:
    """Some upstreams never send a terminator: what ended in order as HTTP is not ours to change, only to call by its name."""
    upstream.faults.append(Fault(end_after=events))
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=True))
    assert response.whole
    assert response.body == b"".join(piece for _, piece in upstream.last.sent[:events])
    assert (await gateway.row_when(lambda row: row.outcome != "lost")).outcome == "truncated"


@each_dialect
async def test_error_event_stands_alone_after_half_an_event(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    upstream.faults.append(Fault(insert={"3": 'data: {"half": "an ev'}, cut_after=4))
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=True))
    assert stream_error_message(response.body, asking)


@each_dialect
async def test_json_body_cut_short_cuts_the_client_too(gateway: RunningGateway, upstream: FaultUpstream, asking: Asking) -> None:
    upstream.faults.append(Fault(content_length=100_000))
    async with gateway.connect() as client:
        client.request("POST", asking.path, asking.bytes())
        response = await client.response()
        assert not response.whole
        assert await client.closed()
    assert response.body == upstream.last.sent_body
    assert (await gateway.row_when(lambda row: row.outcome != "lost")).outcome == "truncated"


async def test_body_longer_than_announced_does_not_leak_into_the_next_answer(
    gateway: RunningGateway, upstream: FaultUpstream
) -> None:
    upstream.faults.append(Fault(content_length=20))
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes())
        response = await client.response()
        if response.status == 200:
            assert response.body == upstream.last.sent_body[:20]
        else:
            assert response.status == 502
    for number in range(3):
        assert (await gateway.ask("POST", "/v1/echo", b"%d" % number)).body == b"%d" % number


@each_dialect
@pytest.mark.parametrize("status", [429, 500, 503, 529])
async def test_errors_of_the_upstream_are_not_retried_here(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, status: int
) -> None:
    upstream.faults.append(Fault(status=status, headers=[("retry-after", "1")], body='{"error": "theirs"}'))
    response = await gateway.ask("POST", asking.path, asking.bytes())
    assert (response.status, response.body, response.header("retry-after")) == (status, b'{"error": "theirs"}', "1")
    assert len(upstream.exchanges) == 1


@each_api
async def test_error_event_of_the_upstream_is_recorded_as_an_error(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    events = {
        "chat": 'data: {"error":{"message":"Overloaded","type":"server_error","code":null,"param":null}}\n\n',
        "responses": 'event: error\ndata: {"type":"error","code":"server_error","message":"Overloaded","sequence_number":3}\n\n',
        "messages": 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
    }
    event = events.get(asking.name, '{"error":"Overloaded"}\n')
    upstream.faults.append(Fault(insert={"3": event}, end_after=4))
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=True))
    assert response.body == upstream.last.sent_body, "the upstream's own error is the end: nothing is added to it"
    row = await gateway.row_when(lambda row: row.outcome != "lost")
    assert (row.outcome, row.status) == ("error", 200)
    assert "Overloaded" in row.error


async def test_connection_that_was_closed_while_idle_is_not_used(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    for number in range(3):
        response = await gateway.ask("POST", CHAT.path, CHAT.bytes())
        assert response.status == 200
        assert upstream.connections == number + 1
        upstream.drop_idle_connections()


async def test_connections_are_kept_and_used_again(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    for _ in range(5):
        await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True))
        await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes())
    assert upstream.connections <= 2


async def test_other_clients_do_not_notice_a_stalled_upstream(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), Fault(stall_after=2).header())
        await upstream.arrived()
        answers = await asyncio.gather(*(gateway.ask("POST", CHAT.path, CHAT.bytes()) for _ in range(20)))
    assert [answer.status for answer in answers] == [200] * 20
