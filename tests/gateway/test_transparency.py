"""What no policy changes passes unchanged: bytes, statuses and end-to-end headers, in both directions."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable

import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import BINARY, OUTPUT_TOKENS
from tests.fault_upstream import Exchange, Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, OLLAMA_CHAT, ONE_OF_EACH_DIALECT, Asking, name_of
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse

HOP_BY_HOP = ("connection", "transfer-encoding", "keep-alive")


def end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in headers if pair[0] not in HOP_BY_HOP and not pair[0].startswith("x-luthien-")]


def sent_headers(exchange: Exchange) -> list[tuple[str, str]]:
    lines = exchange.sent_head.decode("latin-1").split("\r\n\r\n")[-2].split("\r\n")[1:]
    pairs = [line.partition(": ") for line in lines]
    return end_to_end((name.lower(), value) for name, _, value in pairs)


def assert_same(response: RawResponse, exchange: Exchange) -> None:
    assert response.whole
    assert response.status == exchange.answer.status
    assert response.body == exchange.sent_body
    assert end_to_end(response.headers) == sent_headers(exchange)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_answer_is_what_the_upstream_sent(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, stream: bool
) -> None:
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=stream), asking.headers)
    assert_same(response, upstream.last)
    assert (len(response.chunks) > 1) is stream
    assert (await gateway.row()).outcome == "ok"


@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_request_is_what_the_client_sent(gateway: RunningGateway, upstream: FaultUpstream, asking: Asking) -> None:
    body = b' {"stream":false, "unknown":{"a":[1.0,1e400]},"model":"m","model":"m2" ,"messages":[ ],"x":"\\ud800"}\n'
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "X-ODD-Casing": "Value; with=\"quotes\", 'and' tab\there",
        "Authorization": "Bearer sk-own",
        "x-api-key": "own",
        "Cookie": "a=b; c=d",
        "Accept-Encoding": "zstd, br",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "Empty": "",
    }
    await gateway.ask("POST", asking.path, body, headers)
    assert upstream.last.body == body
    seen = {name.decode(): value.decode() for name, value in upstream.last.headers}
    host = seen.pop("host")
    assert host == upstream.url.removeprefix("http://")
    assert seen == {**{name.lower(): value for name, value in headers.items()}, "content-length": str(len(body))}
    assert (await gateway.detail()).request_body == body


async def test_repeated_request_headers_stay_apart_and_in_order(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nhost: h\r\nx-a: 1\r\nx-b: 2\r\nx-a: 3\r\nX-A: 4\r\n\r\n")
        await client.response(method="GET")
    assert upstream.last.header_values("x-a") == ["1", "3", "4"]


async def test_headers_of_the_hop_are_not_sent_on(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.send(
            b"GET /v1/models HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\n"
            b"te: trailers\r\nproxy-authorization: Basic eA==\r\nx-theirs: 2\r\n\r\n"
        )
        await client.response(method="GET")
    names = {name.lower() for name, _ in upstream.last.headers}
    assert names == {b"host", b"x-theirs"}


async def test_luthiens_own_headers_stay_here(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    own = {"x-luthien-session-id": "s1", "x-luthien-agent-id": "a1", "x-luthien-tags": "t"}
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), own)
    assert not [name for name, _ in upstream.last.headers if name.lower().startswith(b"x-luthien")]
    row = await gateway.row()
    assert (row.session_id, row.agent) == ("s1", "a1")


@pytest.mark.parametrize(
    "status", [200, 201, 202, 206, 299, 301, 302, 307, 400, 401, 402, 404, 409, 418, 429, 451, 500, 529, 599]
)
async def test_any_status_with_its_headers(gateway: RunningGateway, upstream: FaultUpstream, status: int) -> None:
    pairs = [
        ("Set-Cookie", "a=1; Path=/"),
        ("set-cookie", "b=2; Secure"),
        ("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("x-should-retry", "false"),
        ("Location", "http://elsewhere.example/v1"),
        ("Server", "cloudflare"),
        ("Date", "Wed, 21 Oct 2015 07:28:00 GMT"),
        ("X-Latin", "caf\xe9"),
    ]
    upstream.faults.append(Fault(status=status, headers=pairs))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert_same(response, upstream.last)
    assert response.all("set-cookie") == ["a=1; Path=/", "b=2; Secure"]
    assert len(upstream.exchanges) == 1
    row = await gateway.row()
    assert (row.status, row.outcome) == (status, "ok" if status < 400 else "error")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(gateway: RunningGateway, upstream: FaultUpstream, status: int) -> None:
    upstream.faults.append(Fault(status=status, body=""))
    response = await gateway.ask("DELETE", "/v1/files/f")
    assert (response.status, response.body, response.header("x-request-id")) == (status, b"", "req_000001")
    assert response.header("transfer-encoding") is None


async def test_redirects_are_passed_on_and_not_followed(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(status=307, headers=[("location", f"{upstream.url}/v1/models")], body="moved"))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert (response.status, response.header("location")) == (307, f"{upstream.url}/v1/models")
    assert len(upstream.exchanges) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_any_method(gateway: RunningGateway, upstream: FaultUpstream, method: str) -> None:
    body = b"\x00\xff\n" if method in ("POST", "PUT", "PATCH") else b""
    response = await gateway.ask(method, "/v1/echo", body)
    assert (upstream.last.method, upstream.last.body, response.body) == (method, body, body)
    assert (await gateway.row()).method == method


@pytest.mark.parametrize(
    "header",
    [
        ("x-connection-id", "7"),
        ("x-transfer-note", "late"),
        ("x-content-length", "3"),
        ("x-note", "caf\u00e9\tau lait"),
        ("x-none", ""),
    ],
)
async def test_headers_that_look_like_the_hops_pass(
    gateway: RunningGateway, upstream: FaultUpstream, header: tuple[str, str]
) -> None:
    upstream.faults.append(Fault(headers=[header]))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    assert response.whole
    assert response.all(header[0]) == [header[1]]
    assert end_to_end(response.headers) == sent_headers(upstream.last)


async def test_head_of_an_api_path_has_headers_and_no_body(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.request("HEAD", "/v1/models")
        response = await client.response(method="HEAD")
        assert (response.status, response.header("content-length")) == (200, str(len(upstream.last.answer.body)))
        client.request("GET", "/v1/models")
        assert_same(await client.response(method="GET"), upstream.last)


async def test_head_of_the_root_is_answered_here(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    assert (await gateway.ask("HEAD", "/")).status == 200
    assert not upstream.exchanges


@pytest.mark.parametrize(
    "target",
    [
        "/v1/messages?beta=true",
        "/v1/echo?a=%20%2B&b=%E4%BD%A0&c&a=2&d=a/b?c",
        "/v1/files/a%20b%E4%BD%A0.txt",
        "/v1/models/ft:gpt-4o:org::id",
        "/v1/echo/trailing/",
        "/api/blobs/sha256:0123",
    ],
)
async def test_paths_and_queries_arrive_as_sent(gateway: RunningGateway, upstream: FaultUpstream, target: str) -> None:
    await gateway.ask("POST", target, b"{}")
    assert upstream.last.target == target.encode()


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/chat/completions", "/v1/chat/completions"),
        ("/anthropic/v1/messages?beta=true", "/v1/messages?beta=true"),
        ("/ollama/api/chat", "/api/chat"),
        ("/ollama/v1/chat/completions", "/v1/chat/completions"),
    ],
)
async def test_prefixes_are_taken_off(gateway: RunningGateway, upstream: FaultUpstream, sent: str, arrives: str) -> None:
    await gateway.ask("POST", sent, b"{}")
    assert upstream.last.target == arrives.encode()


async def test_an_upstreams_name_leads_to_it(start_gateway: StartGateway) -> None:
    async with FaultUpstream() as other, FaultUpstream() as usual:
        gateway = await start_gateway(
            upstreams={
                "openai": {"api": "openai", "base_url": usual.url},
                "spare": {"api": "openai", "base_url": f"{other.url}/deep/v1/"},
            }
        )
        response = await gateway.ask("POST", "/spare/v1/chat/completions", CHAT.bytes())
        assert other.last.target == b"/deep/v1/chat/completions"
        assert response.header("x-luthien-upstream") == "spare"
        assert not usual.exchanges
        row = await gateway.row()
        assert (row.upstream, row.reason) == ("spare", "explicit_upstream")


async def test_a_request_cannot_choose_another_upstream(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with FaultUpstream() as evil:
        headers = {"x-upstream": evil.url, "x-forwarded-host": evil.url, "x-base-url": evil.url}
        body = CHAT.bytes(api_base=evil.url, base_url=evil.url, model=f"{evil.url}/m")
        await gateway.ask("POST", f"{CHAT.path}?api_base={evil.url}&url={evil.url}", body, headers)
        assert not evil.exchanges
    assert upstream.last.body == body


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_017])
async def test_binary_bodies_of_any_size(gateway: RunningGateway, upstream: FaultUpstream, size: int) -> None:
    body = random.Random(size).randbytes(size)
    response = await gateway.ask("POST", "/v1/echo", body, {"content-type": "application/octet-stream"})
    assert upstream.last.body == body
    assert_same(response, upstream.last)
    detail = await gateway.detail()
    assert (detail.request_body, detail.response_body) == (body, body)


async def test_chunked_request_bodies(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    async with gateway.connect() as client:
        client.send(b"POST /v1/echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
        for part in (b"3\r\nabc\r\n", b"001;ext=1\r\n\x00\r\n", b"0\r\ntrailer: x\r\n\r\n"):
            await client.send_all(part)
        response = await client.response()
    assert upstream.last.body == response.body == b"abc\x00"


async def test_multipart(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="file"; filename="\xc3\xa4.bin"\r\n\r\n' + BINARY + b"\r\n--b--\r\n"
    response = await gateway.ask("POST", "/v1/files", body, {"content-type": "multipart/form-data; boundary=b"})
    assert (response.json()["bytes"], upstream.last.body) == (len(body), body)
    assert (await gateway.row()).outcome == "ok"


async def test_compressed_request_body_is_not_touched(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    body = gzip.compress(CHAT.bytes())
    await gateway.ask("POST", CHAT.path, body, {"content-encoding": "gzip", "content-type": "application/json"})
    assert (upstream.last.body, upstream.last.header("content-encoding")) == (body, "gzip")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_compressed_answer_is_not_touched_and_yet_read(
    gateway: RunningGateway, upstream: FaultUpstream, asking: Asking, stream: bool
) -> None:
    upstream.faults.append(Fault(gzip=True))
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=stream), {"accept-encoding": "gzip"})
    assert_same(response, upstream.last)
    assert gzip.decompress(response.body)
    row = await gateway.row()
    assert (row.outcome, row.stream) == ("ok", stream)
    if not (stream and asking is CHAT):
        assert row.output_tokens == OUTPUT_TOKENS


@pytest.mark.parametrize(
    "odd",
    [
        ": comment\r\n\r\n",
        ":\n\n",
        "retry: 10\r\nid: 7\r\n\r\n",
        'event: odd_new_event\ndata: {"type":"odd_new_event"}\n\n',
        "data:no space\n\n",
        "data: two\ndata: lines\n\n",
        "data: {not json\n\n",
        "\n\n\n",
        "unknown field\n\n",
        "\ufeff",
    ],
)
async def test_unusual_sse_passes_byte_for_byte(gateway: RunningGateway, upstream: FaultUpstream, odd: str) -> None:
    for asking in (CHAT, MESSAGES):
        upstream.faults.append(Fault(insert={"0": odd, "3": odd}))
        response = await gateway.ask("POST", asking.path, asking.bytes(stream=True))
        assert_same(response, upstream.last)
        assert response.body.count(odd.encode()) >= 2


@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_stream_that_drips_byte_by_byte(gateway: RunningGateway, upstream: FaultUpstream, asking: Asking) -> None:
    upstream.faults.append(Fault(drip=True))
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=True))
    assert_same(response, upstream.last)
    row = await gateway.row()
    assert (row.outcome, row.stream) == ("ok", True)


async def test_what_comes_after_the_terminator_passes_too(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    plain = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True))
    upstream.faults.append(Fault(insert={str(len(upstream.last.sent)): ": goodbye\n\n"}))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True))
    assert response.body == plain.body + b": goodbye\n\n"


async def test_body_that_ends_with_the_connection(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    for asking in (CHAT, MESSAGES, OLLAMA_CHAT):
        for stream in (False, True):
            upstream.faults.append(Fault(close_delimited=True))
            response = await gateway.ask("POST", asking.path, asking.bytes(stream=stream))
            assert response.whole
            assert response.body == upstream.last.sent_body
            assert (await gateway.row()).outcome == "ok"


async def test_interim_answers_are_swallowed(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(interim=3))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert_same(response, upstream.last)


async def test_page_of_html_is_passed_on(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(html=True))
    response = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes())
    assert_same(response, upstream.last)
    assert (await gateway.row()).output_tokens is None


async def test_requests_on_one_connection_are_answered_in_order(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(latency_s=0.05))
    async with gateway.connect() as client:
        for number in range(3):
            client.request("POST", "/v1/echo", str(number).encode())
        bodies = [(await client.response()).body for _ in range(3)]
    assert bodies == [b"0", b"1", b"2"]


async def test_own_response_headers_can_be_switched_off(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(server={"response_headers": False})
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert not [name for name, _ in response.headers if name.startswith("x-luthien")]


async def test_configured_key_is_used_only_where_the_client_sends_none(
    start_gateway: StartGateway, upstream: FaultUpstream
) -> None:
    gateway = await start_gateway(
        upstreams={
            "openai": {"api": "openai", "base_url": upstream.url, "api_key": "sk-configured-key-1"},
            "anthropic": {"api": "anthropic", "base_url": upstream.url, "api_key": "sk-ant-configured-key-2"},
        }
    )
    await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert upstream.last.header("authorization") == "Bearer sk-configured-key-1"
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), {"authorization": "Bearer own"})
    assert upstream.last.header_values("authorization") == ["Bearer own"]
    await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes())
    assert upstream.last.header("x-api-key") == "sk-ant-configured-key-2"
    await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(), {"x-api-key": "own"})
    assert upstream.last.header_values("x-api-key") == ["own"]
