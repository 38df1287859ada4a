"""The official SDKs on an upstream of another dialect: a tool is called, its result answered, streamed, whole, in trouble."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, TEXT, TOOL_ARGUMENTS, TOOL_NAME
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway_fixtures import RunningGateway

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
ASK = {"role": "user", "content": "What is the weather in Paris?"}
TARGETS = {"openai": b"/v1/chat/completions", "anthropic": b"/v1/messages", "ollama": b"/api/chat"}
CALLED = (TOOL_NAME, json.loads(TOOL_ARGUMENTS))
OTHERS = [
    (client, upstream)
    for client in TARGETS
    for upstream in TARGETS
    if client != upstream and (client, upstream) != ("openai", "ollama")
]
"""Ollama serves OpenAI's paths, so a client of OpenAI's needs no translation there."""


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream) -> Any:
    async def start(api: str, **more: Any) -> RunningGateway:
        upstreams = {name: {"api": name, "base_url": upstream.url} for name in TARGETS}
        upstreams["there"] = {"api": api, "base_url": upstream.url, "api_key": "sk-house", "default_model": "m-there"}
        return await start_gateway(upstreams=upstreams, routing={"default_provider": "there", **more})

    return start


async def with_openai(url: str, stream: bool) -> tuple[Any, str]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-mine", max_retries=0) as sdk:
        tools: Any = [{"type": "function", "function": {"name": TOOL_NAME, "parameters": SCHEMA}}]
        messages: Any = [{"role": "system", "content": "Be brief."}, ASK]
        if stream:
            async with sdk.chat.completions.stream(model="m", messages=messages, tools=tools) as events:
                first: Any = (await events.get_final_completion()).choices[0]
        else:
            first = (await sdk.chat.completions.create(model="m", messages=messages, tools=tools)).choices[0]
        assert first.finish_reason == "tool_calls"
        call = first.message.tool_calls[0]
        function = {"name": TOOL_NAME, "arguments": call.function.arguments}
        messages += [
            {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        if stream:
            async with sdk.chat.completions.stream(model="m", messages=messages, tools=tools) as events:
                last: Any = await events.get_final_completion()
        else:
            last = await sdk.chat.completions.create(model="m", messages=messages, tools=tools)
        return (call.function.name, json.loads(call.function.arguments)), last.choices[0].message.content


async def with_anthropic(url: str, stream: bool) -> tuple[Any, str]:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="sk-mine", max_retries=0) as sdk:
        given: Any = {
            "model": "m",
            "max_tokens": 99,
            "system": "Be brief.",
            "tools": [{"name": TOOL_NAME, "input_schema": SCHEMA}],
        }
        messages: Any = [ASK]

        async def said() -> Any:
            if not stream:
                return await sdk.messages.create(messages=messages, **given)
            async with sdk.messages.stream(messages=messages, **given) as events:
                return await events.get_final_message()

        first = await said()
        assert first.stop_reason == "tool_use"
        call = next(block for block in first.content if block.type == "tool_use")
        messages += [
            {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
        ]
        last = await said()
        return (call.name, call.input), "".join(block.text for block in last.content if block.type == "text")


async def with_ollama(url: str, stream: bool) -> tuple[Any, str]:
    sdk: Any = ollama.AsyncClient(host=url)
    try:
        return await _with_ollama(sdk, stream)
    finally:
        await sdk._client.aclose()


async def _with_ollama(sdk: Any, stream: bool) -> tuple[Any, str]:
    tools: Any = [{"type": "function", "function": {"name": TOOL_NAME, "parameters": SCHEMA}}]
    messages: Any = [{"role": "system", "content": "Be brief."}, ASK]

    async def said() -> tuple[list[Any], str]:
        if not stream:
            message = (await sdk.chat(model="m", messages=messages, tools=tools)).message
            return list(message.tool_calls or []), message.content or ""
        calls: list[Any] = []
        text = ""
        async for part in await sdk.chat(model="m", messages=messages, tools=tools, stream=True):
            calls += part.message.tool_calls or []
            text += part.message.content or ""
        return calls, text

    calls, _ = await said()
    function = calls[0].function
    messages += [
        {"role": "assistant", "tool_calls": [{"function": {"name": function.name, "arguments": function.arguments}}]},
        {"role": "tool", "tool_name": function.name, "content": "sunny"},
    ]
    return (function.name, function.arguments), (await said())[1]


CLIENTS = {"openai": with_openai, "anthropic": with_anthropic, "ollama": with_ollama}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("client", "api"), OTHERS)
async def test_a_tool_is_called_and_answered(start: Any, upstream: FaultUpstream, client: str, api: str, stream: bool) -> None:
    gateway = await start(api)
    called, text = await CLIENTS[client](gateway.url, stream)
    assert called == CALLED
    assert text == TEXT
    assert [one.target for one in upstream.exchanges] == [TARGETS[api]] * 2
    assert {one.json()["model"] for one in upstream.exchanges} == {"m-there"}
    assert b"sunny" in upstream.last.body
    assert all(b"sk-mine" not in one.head for one in upstream.exchanges)
    row = await gateway.row()
    assert (row.outcome, row.upstream, row.reason, row.stream) == ("ok", "there", "default", stream)
    cached = CACHED_TOKENS if api == "anthropic" else 0
    assert (row.input_tokens, row.output_tokens) == (INPUT_TOKENS + cached, OUTPUT_TOKENS)
    detail = await gateway.detail()
    assert json.loads(detail.request_body)["model"] == "m"
    assert detail.sent_body == upstream.last.body


@pytest.mark.parametrize(("client", "api"), OTHERS)
async def test_an_error_is_the_sdks_own(start: Any, upstream: FaultUpstream, client: str, api: str) -> None:
    gateway = await start(api)
    upstream.faults.append(Fault(status=429, headers=[("retry-after", "7")]))
    errors = {"openai": openai.RateLimitError, "anthropic": anthropic.RateLimitError, "ollama": ollama.ResponseError}
    with pytest.raises(errors[client]) as raised:
        await CLIENTS[client](gateway.url, True)
    if client != "ollama":
        assert raised.value.response.headers["retry-after"] == "7"  # type: ignore[attr-defined]
    row = await gateway.row()
    assert (row.outcome, row.status) == ("error", 429)


@pytest.mark.parametrize(("client", "api"), OTHERS)
async def test_a_stream_that_breaks_is_none_that_ended(start: Any, upstream: FaultUpstream, client: str, api: str) -> None:
    gateway = await start(api)
    upstream.faults.append(Fault(reset_after=1 if api == "ollama" else 2))
    with pytest.raises(Exception):  # noqa: B017 - each SDK has its own
        await CLIENTS[client](gateway.url, True)
    assert (await gateway.row_when(lambda row: bool(row.outcome))).outcome == "truncated"


async def test_what_cannot_be_carried_keeps_a_request_where_it_was_asked_to_go(start: Any, upstream: FaultUpstream) -> None:
    body = json.dumps({"model": "m", "messages": [ASK], "logit_bias": {"1": 2}}).encode()
    gateway = await start("anthropic")
    response = await gateway.ask("POST", "/v1/chat/completions", body)
    assert response.header("x-luthien-upstream") == "openai"
    assert response.header("x-luthien-reason") == "default,capability_missing"
    assert upstream.last.body == body
    gateway = await start("anthropic", on_unsupported="drop")
    response = await gateway.ask("POST", "/v1/chat/completions", body)
    assert response.header("x-luthien-upstream") == "there"
    assert "logit_bias" not in upstream.last.json()
    verdict = (await gateway.detail()).verdicts[0]
    assert (verdict.policy, verdict.action, verdict.reason, verdict.ran) == ("routing", "flag", "capability_missing", "partial")
    assert verdict.detail["lost"] == ["logit_bias"]


async def test_a_hint_is_left_out_and_named_and_keeps_nobody_back(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start("openai")
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    body = {"model": "m", "max_tokens": 9, "system": system, "messages": [ASK]}
    response = await gateway.ask("POST", "/v1/messages", json.dumps(body).encode())
    assert (response.header("x-luthien-upstream"), response.header("x-luthien-reason")) == ("there", "default")
    assert upstream.last.json()["messages"][0] == {"role": "system", "content": "Be brief."}
    detail = await gateway.detail()
    (verdict,) = detail.verdicts
    assert (verdict.action, verdict.reason, verdict.ran) == ("allow", "hint_dropped", "ran")
    assert (verdict.detail, detail.row.verdict) == ({"lost": [], "hints": ["cache_control"]}, "allow")


@pytest.mark.parametrize("stream", [False, True])
async def test_policies_work_in_the_clients_dialect(start_gateway: StartGateway, upstream: FaultUpstream, stream: bool) -> None:
    word = TEXT.split()[1]
    gateway = await start_gateway(
        upstreams={"openai": {"api": "openai", "base_url": upstream.url}, "near": {"api": "ollama", "base_url": upstream.url}},
        routing={"default_provider": "near"},
        policies=[{"use": "string_replacement", "params": {"replacements": [[word, "***"]]}}],
    )
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="sk-mine", max_retries=0) as sdk:
        given: Any = {"model": "m", "max_tokens": 9, "messages": [ASK]}
        if stream:
            async with sdk.messages.stream(**given) as events:
                message = await events.get_final_message()
        else:
            message = await sdk.messages.create(**given)
    assert message.content[0].text == TEXT.replace(word, "***")  # type: ignore[union-attr]
    assert upstream.last.target == b"/api/chat"
    assert (await gateway.row()).verdict == "modify"
