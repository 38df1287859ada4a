"""Bad requests get an answer that names the fault, reach no upstream, and cost no other client anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, OLLAMA_CHAT, ONE_OF_EACH_DIALECT, Asking, error_message, name_of
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n"


async def refused(gateway: RunningGateway, data: bytes) -> RawResponse:
    """The answer to bytes that are no good request, after which the connection must be closed."""
    async with gateway.connect(timeout_s=5) as client:
        client.send(data)
        response = await client.response()
        assert response.whole
        assert await client.closed()
    return response


FRAMING = {
    "encoding and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "length and encoding": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths that differ": POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "two lengths that agree": POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "list of lengths": POST + b"content-length: 5, 5\r\n\r\nhello",
    "length with a sign": POST + b"content-length: +5\r\n\r\nhello",
    "negative length": POST + b"content-length: -1\r\n\r\n",
    "hexadecimal length": POST + b"content-length: 0x5\r\n\r\nhello",
    "length with underscore": POST + b"content-length: 5_0\r\n\r\nhello",
    "length of twenty digits": POST + b"content-length: 99999999999999999999\r\n\r\nhello",
    "unknown encoding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked is not last": POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "folded encoding": POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "encoding with vertical tab": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space before the colon": POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "encoding twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "encoding on 1.0": b"POST /v1/chat/completions HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "no host": b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    "two hosts": b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
    "host of another": b"POST http://evil.example/v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n",
    "host with a path": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a/b?c#d\r\ncontent-length: 0\r\n\r\n",
    "bare carriage return": POST + b"x-a: 1\rx-b: 2\r\ncontent-length: 0\r\n\r\n",
    "NUL in a value": POST + b"x-a: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "high byte in a name": POST + b"x-\x80: a\r\ncontent-length: 0\r\n\r\n",
    "no method": b" /v1/models HTTP/1.1\r\nhost: h\r\n\r\n",
    "no HTTP": b"hello there\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\x00" * 190,
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("case", FRAMING)
async def test_ambiguous_framing_is_refused(guarded: RunningGateway, case: str) -> None:
    response = await refused(guarded, FRAMING[case])
    assert response.status in (400, 501)
    assert error_message(response, "openai")


BAD_CHUNKS = {
    "hexadecimal prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "no number": b"z\r\nhello\r\n0\r\n\r\n",
    "too large": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "bare line feed": b"5\nhello\n0\n\n",
}


@pytest.mark.parametrize("case", BAD_CHUNKS)
async def test_bad_chunks_are_refused(guarded: RunningGateway, case: str) -> None:
    response = await refused(guarded, POST + b"transfer-encoding: chunked\r\n\r\n" + BAD_CHUNKS[case])
    assert response.status == 400


async def test_request_after_a_bad_one_on_the_same_connection_is_not_answered(guarded: RunningGateway) -> None:
    good = POST + b"content-length: %d\r\n\r\n" % len(CHAT.bytes()) + CHAT.bytes()
    response = await refused(guarded, FRAMING["encoding and length"] + good)
    assert response.status == 400


async def test_absolute_form_to_this_host_is_served(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        host = f"{gateway.host}:{gateway.port}"
        client.send(f"POST http://{host}/v1/echo?a=b HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1\r\n\r\nx".encode())
        assert (await client.response()).body == b"x"
    assert upstream.last.target == b"/v1/echo?a=b"


UNSAFE = [
    "/v1/../api/tags",
    "/v1/%2e%2e/api/tags",
    "/v1/.%2E/x",
    "/v1/./models",
    "/v1//models",
    "//evil.example/v1/models",
    "/v1/a%00b",
    "/v1/a%0d%0ab",
    "/v1/a;b=c",
    "/v1/a%3bb",
    "/v1/a\\b",
    "/v1/a%5cb",
    "/v1/%252e%252e/x",
    "/openai/../anthropic/v1/messages",
]


@pytest.mark.parametrize("path", UNSAFE)
async def test_path_that_can_be_read_in_two_ways_is_refused(guarded: RunningGateway, path: str) -> None:
    response = await guarded.ask("GET", path)
    assert response.status in (400, 404)
    assert error_message(response, "openai")
    assert response.header("x-should-retry") == "false"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/nowhere", "/v2/chat", "/v1", "/api", "/admin", "/.env", "/*"])
async def test_unknown_path_is_404_with_the_remedy(guarded: RunningGateway, method: str, path: str) -> None:
    response = await guarded.ask(method, path, b"{}" if method == "POST" else b"")
    assert response.status == 404
    assert "base URL" in error_message(response, "ollama" if path == "/api" else "openai")


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_api_without_an_upstream_is_404_in_its_words(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    other = "anthropic" if asking.dialect == "openai" else "openai"
    gateway = await start_gateway(upstreams={"one": {"api": other, "base_url": upstream.url}})
    response = await gateway.ask("POST", asking.path, asking.bytes())
    assert response.status == 404
    assert "upstreams" in error_message(response, asking.dialect)
    row = await gateway.row_when(lambda row: row.outcome == "refused")
    assert (row.outcome, row.status) == ("refused", 404)
    assert not upstream.exchanges


async def test_expect_100_continue(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.send(b"POST /v1/echo HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        assert (await client.head()).status == 100
        client.send(b"hello")
        assert (await client.response()).body == b"hello"
    assert upstream.last.header("expect") is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_client_of_http_1_0(gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, stream: bool) -> None:
    async with gateway.connect() as client:
        client.request("POST", asking.path, asking.bytes(stream=stream), version="1.0")
        response = await client.response()
        assert response.status == 200
        assert response.header("transfer-encoding") is None
        assert response.body == upstream.last.sent_body
        assert await client.closed()
    assert (await gateway.row()).outcome == "ok"


async def test_client_of_http_1_0_without_host(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        client.send(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert (await client.response()).status == 200


async def test_connection_close_is_honoured(gateway: RunningGateway) -> None:
    async with gateway.connect() as client:
        client.request("POST", "/v1/echo", b"1", {"connection": "close"})
        response = await client.response()
        assert (response.body, response.header("connection")) == (b"1", "close")
        assert await client.closed()


@pytest.mark.parametrize(
    "upgrade",
    [
        {"upgrade": "h2c", "connection": "Upgrade, HTTP2-Settings", "http2-settings": "AAMAAABkAAQAAP__"},
        {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-key": "x", "sec-websocket-version": "13"},
    ],
    ids=["h2c", "websocket"],
)
async def test_upgrades_are_not_followed(gateway: RunningGateway, upstream: FaultUpstream, upgrade: dict[str, str]) -> None:
    response = await gateway.ask("GET", "/v1/models", headers=upgrade)
    assert response.status in (200, 400, 426)
    if upstream.exchanges:
        assert upstream.last.header("upgrade") is None


async def test_the_request_that_was_refused_is_in_the_journal(gateway: RunningGateway) -> None:
    await gateway.ask("GET", "/v1/../x")
    row = await gateway.row_when(lambda row: row.outcome == "refused")
    assert (row.outcome, row.status, row.path) == ("refused", 400, "/v1/../x")


MARKS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "header": ({"x-luthien-session-id": "caf\xe9"}, {}),
    "conversation": ({}, {"conversation": "c1\r\nx-evil: 1"}),
    "previous response": ({}, {"previous_response_id": "r1\r\nx-evil: 1"}),
    "user id": ({}, {"metadata": {"user_id": "user_a_account_b_session_c1\r\nx-evil: 1"}}),
    "user id as json": ({}, {"metadata": {"user_id": '{"session_id":"c1\\r\\nx-evil: 1"}'}}),
    "client metadata": ({}, {"client_metadata": {"session_id": "c1\r\nx-evil: 1"}}),
    "cache key": ({}, {"prompt_cache_key": "01890a5d-ac96-774b-bcce-b302099a8057\r\nx-evil: 1"}),
    "model": ({}, {"model": "m\r\nx-evil: 1"}),
}


@pytest.mark.parametrize("mark", MARKS)
async def test_nothing_in_a_request_writes_headers_of_the_answer(gateway: RunningGateway, mark: str) -> None:
    headers, fields = MARKS[mark]
    for asking in (CHAT, MESSAGES, OLLAMA_CHAT):
        response = await gateway.ask("POST", asking.path, asking.bytes(**fields), headers)
        assert response.status == 200
        assert response.header("x-evil") is None
        assert all(character.isprintable() for _, value in response.headers for character in value)


async def test_nothing_of_a_bad_header_is_logged(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    await refused(gateway, POST + b"authorization: Bearer sk-canary\x00-1\r\ncontent-length: 0\r\n\r\n")
    await refused(gateway, POST + b"authorization: Bearer sk-canary\r-2\r\ncontent-length: 0\r\n\r\n")
    out, err = capfd.readouterr()
    assert "canary" not in caplog.text + out + err


async def test_a_hundred_idle_connections_do_not_stop_a_client(gateway: RunningGateway) -> None:
    async with asyncio.TaskGroup() as group:
        clients = [gateway.connect() for _ in range(100)]
        for client in clients:
            group.create_task(client.__aenter__())
    try:
        assert (await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes())).status == 200
    finally:
        for client in clients:
            await client.__aexit__()


async def test_slow_reader_is_waited_for_without_hoarding(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(repeat=8_000))
    async with gateway.connect() as client:
        client.request("GET", "/v1/files/f/content")
        exchange = await upstream.arrived()
        seen = -1
        while len(exchange.sent) != seen:  # until the pipe is full
            seen = len(exchange.sent)
            await asyncio.sleep(0.25)
        assert not exchange.done.is_set(), "the gateway took the whole body from the upstream though nobody read it"
        assert len(exchange.sent_body) < 20_000_000
        other = await gateway.ask("POST", OLLAMA_CHAT.path, OLLAMA_CHAT.bytes())
        assert other.status == 200
        response = await client.response(method="GET")
    assert response.whole
    assert len(response.body) == 8_000 * 4_096
