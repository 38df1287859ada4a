"""The real ollama package through the gateway: nothing looks different to it, and everything is in the journal."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import ollama
import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import INPUT_TOKENS, OUTPUT_TOKENS, TEXT, TOOL_ARGUMENTS, TOOL_NAME, WORDS
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway_fixtures import RunningGateway

MODEL = "llama3.2"
ASK: list[Any] = [{"role": "user", "content": "What is the capital of France? 法国"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": TOOL_NAME, "parameters": {"type": "object"}}}]


@pytest.fixture(params=["", "/ollama"])
async def client(stored_gateway: RunningGateway, request: pytest.FixtureRequest) -> AsyncIterator[ollama.AsyncClient]:
    sdk = ollama.AsyncClient(host=stored_gateway.url + request.param)
    yield sdk
    await sdk._client.aclose()


@pytest.fixture
async def plain(gateway: RunningGateway) -> AsyncIterator[ollama.AsyncClient]:
    sdk = ollama.AsyncClient(host=gateway.url)
    yield sdk
    await sdk._client.aclose()


async def test_chat(client: ollama.AsyncClient, stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    answer = await client.chat(model=MODEL, messages=ASK)
    assert answer.message.content == TEXT
    assert answer.eval_count == OUTPUT_TOKENS
    assert upstream.last.target == b"/api/chat"
    row = await stored_gateway.row()
    assert (row.dialect, row.operation, row.model, row.upstream) == ("ollama", "ollama_chat", MODEL, "ollama")
    assert (row.outcome, row.input_tokens, row.output_tokens) == ("ok", INPUT_TOKENS, OUTPUT_TOKENS)
    detail = await stored_gateway.detail()
    assert detail.request_body == upstream.last.body
    assert detail.response_body == upstream.last.sent_body


async def test_stream(client: ollama.AsyncClient, stored_gateway: RunningGateway, upstream: FaultUpstream) -> None:
    parts = [part async for part in await client.chat(model=MODEL, messages=ASK, stream=True)]
    assert [part.message.content for part in parts[:-1]] == WORDS
    assert parts[-1].done
    row = await stored_gateway.row()
    assert (row.outcome, row.stream, row.output_tokens) == ("ok", True, OUTPUT_TOKENS)
    assert (await stored_gateway.detail()).response_body == upstream.last.sent_body


async def test_streamed_tool_call(client: ollama.AsyncClient, stored_gateway: RunningGateway) -> None:
    parts = [part async for part in await client.chat(model=MODEL, messages=ASK, tools=TOOLS, stream=True)]
    calls = parts[0].message.tool_calls
    assert calls is not None
    assert (calls[0].function.name, calls[0].function.arguments) == (TOOL_NAME, json.loads(TOOL_ARGUMENTS))
    assert (await stored_gateway.row()).tool_calls == 1


async def test_generate_and_list(client: ollama.AsyncClient, stored_gateway: RunningGateway) -> None:
    assert (await client.generate(model=MODEL, prompt="hi")).response == TEXT
    row = await stored_gateway.row()
    assert (row.operation, row.outcome, row.output_tokens) == ("ollama_generate", "ok", OUTPUT_TOKENS)
    assert (await client.list()).models[0].model == "llama3.2:latest"
    row = await stored_gateway.row()
    assert (row.dialect, row.operation, row.method) == ("ollama", "models", "GET")


async def test_error_of_the_upstream_is_the_sdks_error(
    plain: ollama.AsyncClient, gateway: RunningGateway, upstream: FaultUpstream
) -> None:
    upstream.faults.append(Fault(status=404, body='{"error":"model \\"nope\\" not found, try pulling it first"}'))
    with pytest.raises(ollama.ResponseError) as raised:
        await plain.chat(model="nope", messages=ASK)
    assert raised.value.status_code == 404
    assert raised.value.error == 'model "nope" not found, try pulling it first'
    assert len(upstream.exchanges) == 1
    row = await gateway.row()
    assert (row.outcome, row.status) == ("error", 404)


async def test_stream_that_breaks_raises_in_the_sdk(
    plain: ollama.AsyncClient, gateway: RunningGateway, upstream: FaultUpstream
) -> None:
    upstream.faults.append(Fault(reset_after=3))
    with pytest.raises(ollama.ResponseError):
        async for _ in await plain.chat(model=MODEL, messages=ASK, stream=True):
            pass
    assert (await gateway.row_when(lambda row: row.outcome != "lost")).outcome == "truncated"


async def test_unreachable_upstream_is_an_error_in_ollamas_words(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(upstreams={"ollama": {"api": "ollama", "base_url": "http://127.0.0.1:9"}})
    sdk = ollama.AsyncClient(host=gateway.url)
    with pytest.raises(ollama.ResponseError) as raised:
        await sdk.chat(model=MODEL, messages=ASK)
    await sdk._client.aclose()
    assert raised.value.status_code == 502
    assert "http://127.0.0.1:9" in raised.value.error
