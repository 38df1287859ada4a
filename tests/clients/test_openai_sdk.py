"""The real openai package through the gateway: nothing looks different to it, and everything is in the journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import (
    BINARY,
    CACHED_TOKENS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    REASONING_TOKENS,
    TEXT,
    TOOL_ARGUMENTS,
    TOOL_NAME,
    VECTOR,
)
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway_fixtures import RunningGateway

MODEL = "gpt-4o-mini"
ASK: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of France? 法国"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": TOOL_NAME, "parameters": {"type": "object"}}}]
KEY = "sk-proj-clients-own-key-00000000000000000000"


@pytest.fixture(params=["/v1", "/openai", "/openai/v1"])
async def client(stored_gateway: RunningGateway, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=stored_gateway.url + request.param, api_key=KEY) as sdk:
        yield sdk


@pytest.fixture
async def plain(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as sdk:
        yield sdk


async def test_chat(client: openai.AsyncOpenAI, stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    answer = await client.chat.completions.create(model=MODEL, messages=ASK, seed=7)
    assert answer.choices[0].message.content == TEXT
    assert answer.model_extra == {"x_unknown": {"kept": [1, 2]}}
    assert upstream.last.target == b"/v1/chat/completions"
    assert upstream.last.header("authorization") == f"Bearer {KEY}"
    row = await stored_gateway.row()
    assert (row.dialect, row.operation, row.model, row.upstream) == ("openai", "chat", MODEL, "openai")
    assert (row.outcome, row.status, row.stream, row.verdict) == ("ok", 200, False, "allow")
    assert (row.input_tokens, row.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert (row.cached_tokens, row.reasoning_tokens) == (CACHED_TOKENS, REASONING_TOKENS)
    assert row.cost_usd is not None
    assert row.cost_usd > 0
    assert row.preview == ASK[1]["content"]
    assert row.stop_reason
    assert row.session_id
    detail = await stored_gateway.detail()
    assert detail.request_body == upstream.last.body
    assert detail.response_body == upstream.last.sent_body


async def test_stream(client: openai.AsyncOpenAI, stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage is not None
    row = await stored_gateway.row()
    assert (row.outcome, row.stream, row.input_tokens, row.output_tokens) == ("ok", True, INPUT_TOKENS, OUTPUT_TOKENS)
    assert row.ttft_ms is not None
    assert row.total_ms is not None
    assert 0 < row.ttft_ms <= row.total_ms
    assert (await stored_gateway.detail()).response_body == upstream.last.sent_body


async def test_streamed_tool_call(client: openai.AsyncOpenAI, stored_gateway: RunningGateway) -> None:
    async with client.chat.completions.stream(model=MODEL, messages=ASK, tools=TOOLS) as stream:
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].function.arguments, calls[0].id) == (TOOL_NAME, TOOL_ARGUMENTS, "call_1")
    row = await stored_gateway.row()
    assert (row.tool_calls, row.outcome) == (1, "ok")
    assert "tool" in row.stop_reason


async def test_tool_call_and_its_result_are_one_session(plain: openai.AsyncOpenAI, gateway: RunningGateway) -> None:
    first = await plain.chat.completions.create(model=MODEL, messages=ASK, tools=TOOLS)
    said: Any = first.choices[0].message.model_dump(exclude_none=True)
    result: Any = {"role": "tool", "tool_call_id": "call_1", "content": "21 °C"}
    await plain.chat.completions.create(model=MODEL, messages=[*ASK, said, result], tools=TOOLS)
    later, earlier = await gateway.rows()
    assert (earlier.tool_calls, later.tool_calls) == (1, 0)
    assert earlier.session_id == later.session_id


async def test_responses(client: openai.AsyncOpenAI, stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    answer = await client.responses.create(model=MODEL, input="hello")
    assert answer.output_text == TEXT
    assert upstream.last.target == b"/v1/responses"
    row = await stored_gateway.row()
    assert (row.operation, row.outcome, row.model) == ("responses", "ok", MODEL)
    assert (row.input_tokens, row.output_tokens) == (INPUT_TOKENS, OUTPUT_TOKENS)
    assert (row.cached_tokens, row.reasoning_tokens) == (CACHED_TOKENS, REASONING_TOKENS)


async def test_responses_stream_with_a_tool(client: openai.AsyncOpenAI, stored_gateway: RunningGateway) -> None:
    tools: list[Any] = [{"type": "function", "name": TOOL_NAME, "parameters": {"type": "object"}, "strict": False}]
    async with client.responses.stream(model=MODEL, input="hello", tools=tools) as stream:
        kinds = [event.type async for event in stream]
        answer = await stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert answer.output[0].type == "function_call"
    row = await stored_gateway.row()
    assert (row.outcome, row.stream, row.tool_calls, row.output_tokens) == ("ok", True, 1, OUTPUT_TOKENS)


async def test_response_that_continues_another_is_in_its_session(plain: openai.AsyncOpenAI, gateway: RunningGateway) -> None:
    first = await plain.responses.create(model=MODEL, input="hello")
    await plain.responses.create(model=MODEL, input="and more", previous_response_id=first.id)
    later, earlier = await gateway.rows()
    assert earlier.session_id == later.session_id


async def test_embeddings(client: openai.AsyncOpenAI, stored_gateway: RunningGateway) -> None:
    answer = await client.embeddings.create(model="text-embedding-3-small", input="x")
    assert answer.data[0].embedding == VECTOR
    row = await stored_gateway.row()
    assert (row.operation, row.outcome, row.input_tokens) == ("embeddings", "ok", INPUT_TOKENS)


async def test_models_files_and_binary(
    client: openai.AsyncOpenAI, stored_gateway: RunningGateway, upstream: FaultUpstream
) -> None:
    assert [model.id async for model in client.models.list()] == ["gpt-4o-mini"]
    uploaded = await client.files.create(file=("a.bin", BINARY), purpose="assistants")
    assert uploaded.bytes == len(upstream.last.body)
    assert BINARY in upstream.last.body
    assert (await client.files.content("file-1")).content == BINARY
    assert (await stored_gateway.detail()).response_body == BINARY
    assert [row.method for row in await stored_gateway.rows()] == ["GET", "POST", "GET"]


async def test_headers_of_the_raw_response(plain: openai.AsyncOpenAI, gateway: RunningGateway) -> None:
    raw = await plain.chat.completions.with_raw_response.create(model=MODEL, messages=ASK)
    assert raw.request_id == "req_000001"
    assert raw.headers["x-ratelimit-remaining-requests"] == "41"
    assert raw.headers["x-luthien-upstream"] == "openai"
    assert raw.headers["x-luthien-transaction-id"] == (await gateway.row()).transaction_id


@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [
        (400, openai.BadRequestError, 1),
        (401, openai.AuthenticationError, 1),
        (404, openai.NotFoundError, 1),
        (422, openai.UnprocessableEntityError, 1),
        (429, openai.RateLimitError, 3),
        (500, openai.InternalServerError, 3),
        (503, openai.InternalServerError, 3),
    ],
)
async def test_error_classes_and_retries_are_as_without_a_gateway(
    plain: openai.AsyncOpenAI,
    gateway: RunningGateway,
    upstream: FaultUpstream,
    status: int,
    error: type[openai.APIStatusError],
    attempts: int,
) -> None:
    body = '{"error":{"message":"no","type":"some_type","param":"p","code":"some_code"}}'
    pairs = [("retry-after-ms", "1"), ("retry-after", "7"), ("x-ratelimit-reset-requests", "7s")]
    upstream.faults.extend(Fault(status=status, body=body, headers=pairs) for _ in range(attempts))
    with pytest.raises(error) as raised:
        await plain.chat.completions.create(model=MODEL, messages=ASK)
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.response.headers["x-ratelimit-reset-requests"] == "7s"
    assert raised.value.code == "some_code"
    assert len(upstream.exchanges) == attempts
    rows = await gateway.rows()
    assert [(row.status, row.outcome) for row in rows] == [(status, "error")] * attempts


@pytest.mark.parametrize(("should", "attempts"), [("true", 3), ("false", 1)])
async def test_x_should_retry_of_the_upstream_is_obeyed(
    plain: openai.AsyncOpenAI, upstream: FaultUpstream, should: str, attempts: int
) -> None:
    status = 400 if should == "true" else 500
    pairs = [("x-should-retry", should), ("retry-after-ms", "1")]
    upstream.faults.extend(Fault(status=status, body="{}", headers=pairs) for _ in range(attempts))
    with pytest.raises(openai.APIStatusError):
        await plain.chat.completions.create(model=MODEL, messages=ASK)
    assert len(upstream.exchanges) == attempts


async def test_stream_that_breaks_raises_in_the_sdk(
    plain: openai.AsyncOpenAI, gateway: RunningGateway, upstream: FaultUpstream
) -> None:
    upstream.faults.append(Fault(reset_after=4))
    with pytest.raises(openai.APIError):
        async for _ in await plain.chat.completions.create(model=MODEL, messages=ASK, stream=True):
            pass
    assert (await gateway.row_when(lambda row: row.outcome != "lost")).outcome == "truncated"


async def test_unreachable_upstream_is_an_error_that_names_it(start_gateway: StartGateway) -> None:
    nowhere = {"openai": {"api": "openai", "base_url": "http://127.0.0.1:9"}}
    gateway = await start_gateway(upstreams=nowhere)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as sdk:
        with pytest.raises(openai.InternalServerError) as raised:
            await sdk.chat.completions.create(model=MODEL, messages=ASK)
    assert raised.value.status_code == 502
    assert "http://127.0.0.1:9" in raised.value.message
    assert (await gateway.row()).outcome == "error"
