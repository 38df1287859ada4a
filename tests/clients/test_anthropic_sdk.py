"""The real anthropic package through the gateway: nothing looks different to it, and everything is in the journal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, TEXT, TOOL_ARGUMENTS, TOOL_NAME
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway_fixtures import RunningGateway

MODEL = "claude-sonnet-5"
ASK: list[Any] = [{"role": "user", "content": "What is the capital of France? 法国"}]
TOOLS: list[Any] = [{"name": TOOL_NAME, "input_schema": {"type": "object"}}]
KEY = "sk-ant-api03-clients-own-key-000000000000000"


@pytest.fixture(params=["", "/anthropic"])
async def client(stored_gateway: RunningGateway, request: pytest.FixtureRequest) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=stored_gateway.url + request.param, api_key=KEY) as sdk:
        yield sdk


@pytest.fixture
async def plain(gateway: RunningGateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY) as sdk:
        yield sdk


async def test_messages(client: anthropic.AsyncAnthropic, stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    answer = await client.messages.create(model=MODEL, max_tokens=99, messages=ASK, system="Be brief.")
    assert answer.content[0].type == "text"
    assert answer.content[0].text == TEXT
    assert upstream.last.target == b"/v1/messages"
    assert KEY in (upstream.last.header("authorization") or upstream.last.header("x-api-key") or "")
    assert upstream.last.header("anthropic-version")
    row = await stored_gateway.row()
    assert (row.dialect, row.operation, row.model, row.upstream) == ("anthropic", "messages", MODEL, "anthropic")
    assert (row.outcome, row.status, row.stop_reason) == ("ok", 200, "end_turn")
    assert row.output_tokens == OUTPUT_TOKENS
    assert row.cached_tokens == CACHED_TOKENS
    assert row.input_tokens == INPUT_TOKENS + CACHED_TOKENS
    assert row.cost_usd is not None
    detail = await stored_gateway.detail()
    assert detail.request_body == upstream.last.body
    assert detail.response_body == upstream.last.sent_body


async def test_beta_query_reaches_the_upstream(plain: anthropic.AsyncAnthropic, upstream: FaultUpstream) -> None:
    query = {"beta": "true"}
    await plain.beta.messages.create(model=MODEL, max_tokens=9, messages=ASK, betas=["files-api-2025-04-14"], extra_query=query)
    assert upstream.last.target == b"/v1/messages?beta=true"
    assert upstream.last.header("anthropic-beta") == "files-api-2025-04-14"


async def test_stream_with_a_tool(
    client: anthropic.AsyncAnthropic, stored_gateway: RunningGateway, upstream: FaultUpstream
) -> None:
    async with client.messages.stream(model=MODEL, max_tokens=99, messages=ASK, tools=TOOLS) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        answer = await stream.get_final_message()
    assert text == TEXT
    assert answer.content[1].type == "tool_use"
    assert answer.content[1].input == json.loads(TOOL_ARGUMENTS)
    row = await stored_gateway.row()
    assert (row.outcome, row.stream, row.tool_calls, row.stop_reason) == ("ok", True, 1, "tool_use")
    assert row.output_tokens == OUTPUT_TOKENS
    assert row.ttft_ms is not None
    assert (await stored_gateway.detail()).response_body == upstream.last.sent_body


async def test_a_conversation_is_one_session(plain: anthropic.AsyncAnthropic, gateway: RunningGateway) -> None:
    first = await plain.messages.create(model=MODEL, max_tokens=99, messages=ASK)
    said: Any = {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]}
    more = [*ASK, said, {"role": "user", "content": "And of Japan?"}]
    await plain.messages.create(model=MODEL, max_tokens=99, messages=more)
    await plain.messages.create(model=MODEL, max_tokens=99, messages=[{"role": "user", "content": "Something else"}])
    other, later, earlier = await gateway.rows()
    assert earlier.session_id == later.session_id != other.session_id


async def test_count_tokens_and_models(client: anthropic.AsyncAnthropic, stored_gateway: RunningGateway) -> None:
    assert (await client.messages.count_tokens(model=MODEL, messages=ASK)).input_tokens == INPUT_TOKENS
    row = await stored_gateway.row()
    assert (row.dialect, row.operation, row.outcome) == ("anthropic", "count_tokens", "ok")
    assert [model.type async for model in client.models.list()] == ["model"]
    row = await stored_gateway.row()
    assert (row.dialect, row.operation, row.upstream) == ("anthropic", "models", "anthropic")


async def test_headers_of_the_raw_response(plain: anthropic.AsyncAnthropic) -> None:
    raw = await plain.messages.with_raw_response.create(model=MODEL, max_tokens=9, messages=ASK)
    assert raw.headers["x-request-id"] == "req_000001"
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "41"


@pytest.mark.parametrize(
    ("status", "kind", "error", "attempts"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError, 1),
        (401, "authentication_error", anthropic.AuthenticationError, 1),
        (413, "request_too_large", anthropic.RequestTooLargeError, 1),
        (429, "rate_limit_error", anthropic.RateLimitError, 3),
        (529, "overloaded_error", anthropic.OverloadedError, 3),
    ],
)
async def test_error_classes_and_retries_are_as_without_a_gateway(
    plain: anthropic.AsyncAnthropic,
    gateway: RunningGateway,
    upstream: FaultUpstream,
    status: int,
    kind: str,
    error: type[anthropic.APIStatusError],
    attempts: int,
) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "no"}})
    pairs = [("retry-after-ms", "1"), ("retry-after", "7")]
    upstream.faults.extend(Fault(status=status, body=body, headers=pairs) for _ in range(attempts))
    with pytest.raises(error) as raised:
        await plain.messages.create(model=MODEL, max_tokens=9, messages=ASK)
    assert raised.value.status_code == status
    assert raised.value.response.headers["retry-after"] == "7"
    assert len(upstream.exchanges) == attempts
    assert [(row.status, row.outcome) for row in await gateway.rows()] == [(status, "error")] * attempts


async def test_stream_that_breaks_raises_in_the_sdk(
    plain: anthropic.AsyncAnthropic, gateway: RunningGateway, upstream: FaultUpstream
) -> None:
    upstream.faults.append(Fault(reset_after=5))
    with pytest.raises(anthropic.APIStatusError) as raised:
        async with plain.messages.stream(model=MODEL, max_tokens=9, messages=ASK) as stream:
            await stream.get_final_message()
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["type"] == "error"
    assert (await gateway.row_when(lambda row: row.outcome != "lost")).outcome == "truncated"


async def test_unreachable_upstream_is_an_error_in_anthropics_words(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(upstreams={"anthropic": {"api": "anthropic", "base_url": "http://127.0.0.1:9"}})
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as sdk:
        with pytest.raises(anthropic.InternalServerError) as raised:
            await sdk.messages.create(model=MODEL, max_tokens=9, messages=ASK)
    assert raised.value.status_code == 502
    body: Any = raised.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    assert body["request_id"] == (await gateway.row()).transaction_id
