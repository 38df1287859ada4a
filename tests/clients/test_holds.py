"""The real SDKs before a gateway that holds: they wait without a retry, and read whatever was decided."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from proxy_core.tasks import spawn
from tests.conftest import StartGateway
from tests.fault_payloads import TEXT, TOOL_ARGUMENTS, TOOL_NAME
from tests.fault_upstream import FaultUpstream
from tests.gateway.holding import OTHER_ARGUMENTS, SCHEMA, Operator, holding
from tests.gateway_fixtures import RunningGateway

KEY = "sk-clients-own-key-0000000000000000"
ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
FUNCTION = {"name": TOOL_NAME, "parameters": SCHEMA}


@dataclass(frozen=True)
class Heard:
    """What the SDK made of an answer."""

    text: str
    calls: tuple[tuple[str, str, Any], ...]
    """Id, name and arguments of each tool call."""
    stop: str | None


class Sdks:
    """Every SDK, with its own defaults for time and retries."""

    def __init__(self, gateway: RunningGateway, key: str = KEY) -> None:
        self.gateway = gateway
        self.openai = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key)
        self.anthropic = anthropic.AsyncAnthropic(base_url=gateway.url, api_key=key)
        self.ollama = ollama.AsyncClient(host=gateway.url, headers={"authorization": f"Bearer {key}"})

    async def openai_chat(self) -> Heard:
        tools: Any = [{"type": "function", "function": FUNCTION}]
        answer = await self.openai.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=tools)
        message = answer.choices[0].message
        calls = tuple((one.id, one.function.name, one.function.arguments) for one in message.tool_calls or [])  # type: ignore[union-attr]
        return Heard(message.content or "", calls, answer.choices[0].finish_reason)

    async def openai_chat_stream(self) -> Heard:
        tools: Any = [{"type": "function", "function": FUNCTION}]
        text, stop = "", None
        calls: dict[int, list[str]] = {}
        async for chunk in await self.openai.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=tools, stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                stop = choice.finish_reason or stop
                for part in choice.delta.tool_calls or []:
                    call = calls.setdefault(part.index, ["", "", ""])
                    given = (part.id, part.function and part.function.name, part.function and part.function.arguments)
                    calls[part.index] = [before + (more or "") for before, more in zip(call, given, strict=True)]
        assert list(calls) == list(range(len(calls)))
        return Heard(text, tuple((one[0], one[1], one[2]) for one in calls.values()), stop)

    async def openai_responses(self) -> Heard:
        tools: Any = [{"type": "function", **FUNCTION, "strict": False}]
        return _of_responses(await self.openai.responses.create(model="gpt-4o-mini", input="Weather in Paris?", tools=tools))

    async def openai_responses_stream(self) -> Heard:
        tools: Any = [{"type": "function", **FUNCTION, "strict": False}]
        numbers: list[int] = []
        answer: Any = None
        async for event in await self.openai.responses.create(
            model="gpt-4o-mini", input="Weather in Paris?", tools=tools, stream=True
        ):
            numbers.append(event.sequence_number)
            if event.type in ("response.completed", "response.incomplete", "response.failed"):
                answer = event.response
        assert numbers == sorted(set(numbers))
        return _of_responses(answer)

    async def anthropic_messages(self) -> Heard:
        tools: Any = [{"name": TOOL_NAME, "input_schema": SCHEMA}]
        answer = await self.anthropic.messages.create(model="claude-sonnet-5", max_tokens=99, messages=ASK, tools=tools)
        return _of_message(answer)

    async def anthropic_messages_stream(self) -> Heard:
        tools: Any = [{"name": TOOL_NAME, "input_schema": SCHEMA}]
        indices: list[int] = []
        async with self.anthropic.messages.stream(model="claude-sonnet-5", max_tokens=99, messages=ASK, tools=tools) as stream:
            async for event in stream:
                if event.type == "content_block_start":
                    indices.append(event.index)
            answer = await stream.get_final_message()
        assert indices == list(range(len(answer.content)))
        return _of_message(answer)

    async def ollama_chat(self) -> Heard:
        tools: Any = [{"type": "function", "function": FUNCTION}]
        answer = await self.ollama.chat(model="llama3.2", messages=ASK, tools=tools)
        return Heard(answer.message.content or "", _of_ollama(answer), answer.done_reason)

    async def ollama_chat_stream(self) -> Heard:
        tools: Any = [{"type": "function", "function": FUNCTION}]
        text, calls, stop = "", (), None
        async for part in await self.ollama.chat(model="llama3.2", messages=ASK, tools=tools, stream=True):
            text += part.message.content or ""
            calls += _of_ollama(part)
            stop = part.done_reason or stop
        return Heard(text, calls, stop)

    async def close(self) -> None:
        await self.openai.close()
        await self.anthropic.close()
        await self.ollama._client.aclose()


def _of_responses(answer: Any) -> Heard:
    calls = tuple((one.call_id, one.name, one.arguments) for one in answer.output if one.type == "function_call")
    return Heard(answer.output_text, calls, answer.status)


def _of_message(answer: Any) -> Heard:
    text = "".join(block.text for block in answer.content if block.type == "text")
    calls = tuple((block.id, block.name, json.dumps(block.input)) for block in answer.content if block.type == "tool_use")
    return Heard(text, calls, answer.stop_reason)


def _of_ollama(part: Any) -> tuple[tuple[str, str, Any], ...]:
    return tuple(("", one.function.name, json.dumps(dict(one.function.arguments))) for one in part.message.tool_calls or [])


WAYS = (
    "openai_chat",
    "openai_chat_stream",
    "openai_responses",
    "openai_responses_stream",
    "anthropic_messages",
    "anthropic_messages_stream",
    "ollama_chat",
    "ollama_chat_stream",
)
each_way = pytest.mark.parametrize("way", WAYS)
CALL_IDS = {"openai_chat": "call_1", "openai_responses": "call_1", "anthropic_messages": "toolu_1", "ollama_chat": ""}
STOPS = {"openai_chat": "tool_calls", "openai_responses": "completed", "anthropic_messages": "tool_use", "ollama_chat": "stop"}
STOPS_WITHOUT = {**STOPS, "openai_chat": "stop", "anthropic_messages": "end_turn"}


@pytest.fixture
async def start(start_gateway: StartGateway) -> AsyncIterator[Callable[..., Awaitable[tuple[Sdks, Operator]]]]:
    """The SDKs before a gateway that holds what the parameters say, and its operator."""
    async with AsyncExitStack() as stack:

        async def begin(**params: Any) -> tuple[Sdks, Operator]:
            gateway = await start_gateway(policies=holding(**params), holds={"heartbeat_s": 0.2})
            sdks = Sdks(gateway)
            stack.push_async_callback(sdks.close)
            return sdks, Operator(gateway)

        yield begin


Start = Callable[..., Awaitable[tuple[Sdks, Operator]]]


def ask(sdks: Sdks, way: str) -> asyncio.Task[Heard]:
    return spawn(getattr(sdks, way)(), name=way)


def of(way: str, table: dict[str, str]) -> str:
    return table[way.removesuffix("_stream")]


async def asked_once(operator: Operator, upstream: FaultUpstream, count: int = 1) -> None:
    assert len(upstream.exchanges) == count
    assert len(await operator.gateway.rows()) == count


@pytest.mark.parametrize("seconds", [1.0, pytest.param(90.0, marks=pytest.mark.slow)])
async def test_every_sdk_waits_through_a_hold_and_does_not_retry(start: Start, upstream: FaultUpstream, seconds: float) -> None:
    sdks, operator = await start()
    each = {way: Sdks(sdks.gateway, key=f"{KEY}-{way}") for way in WAYS}  # the same call of the same client is one hold
    clients = {way: ask(one, way) for way, one in each.items()}
    waiting = await operator.sees(lambda holds: len(holds) == len(WAYS))
    await asyncio.sleep(seconds)
    assert not [way for way, client in clients.items() if client.done()]
    assert [hold.waiting for hold in operator.gateway.plane.holds()] == [1] * len(WAYS)
    for hold in waiting:
        await operator.edit(OTHER_ARGUMENTS, hold)
    for way, client in clients.items():
        heard = await client
        ((call_id, name, arguments),) = heard.calls
        assert (call_id, name, json.loads(arguments)) == (of(way, CALL_IDS), TOOL_NAME, json.loads(OTHER_ARGUMENTS)), way
        assert heard.stop == of(way, STOPS), way
        await each[way].close()
    await asked_once(operator, upstream, len(WAYS))


@each_way
async def test_an_approved_call(start: Start, upstream: FaultUpstream, way: str) -> None:
    sdks, operator = await start()
    client = ask(sdks, way)
    await operator.approve()
    heard = await client
    ((call_id, name, arguments),) = heard.calls
    assert (call_id, name, json.loads(arguments)) == (of(way, CALL_IDS), TOOL_NAME, json.loads(TOOL_ARGUMENTS))
    assert heard.stop == of(way, STOPS)
    await asked_once(operator, upstream)


@each_way
async def test_a_denied_call_is_an_answer_to_go_on_from(start: Start, upstream: FaultUpstream, way: str) -> None:
    sdks, operator = await start()
    client = ask(sdks, way)
    await operator.deny("Look it up yourself.")
    heard = await client
    assert heard.calls == ()
    assert heard.text.removeprefix(TEXT) == f"[Tool call `{TOOL_NAME}` was denied by an operator: Look it up yourself.]"
    assert heard.stop == of(way, STOPS_WITHOUT)
    await asked_once(operator, upstream)


@each_way
async def test_a_denied_request_is_something_that_nobody_retries(start: Start, upstream: FaultUpstream, way: str) -> None:
    """An error; where a sign of life has opened the stream already, an error or a refusal inside it."""
    sdks, operator = await start(stage="request")
    client = ask(sdks, way)
    hold = await operator.only()
    await asyncio.sleep(0.5)
    await operator.deny("Not on production.", hold)
    try:
        heard = await client
    except (openai.APIError, anthropic.APIError, ollama.ResponseError) as error:
        said = str(error)
    else:
        assert way.endswith("_stream")
        assert heard.calls == ()
        assert heard.stop not in ("tool_calls", "tool_use", "completed")
        said = heard.text
    assert "denied by an operator: Not on production." in said
    assert upstream.exchanges == []
    assert len(await operator.gateway.rows()) == 1


@each_way
async def test_a_held_answer_comes_whole(start: Start, upstream: FaultUpstream, way: str) -> None:
    sdks, operator = await start(stage="response")
    client = ask(sdks, way)
    hold = await operator.only()
    await asyncio.sleep(0.5)
    await operator.approve(hold)
    ((_, name, arguments),) = (await client).calls
    assert (name, json.loads(arguments)) == (TOOL_NAME, json.loads(TOOL_ARGUMENTS))
    await asked_once(operator, upstream)


async def test_an_sdks_own_retry_joins_the_hold_that_it_left(start: Start, upstream: FaultUpstream) -> None:
    sdks, operator = await start(stage="request")
    impatient = sdks.openai.with_options(timeout=httpx.Timeout(0.5), max_retries=1)
    client = spawn(impatient.chat.completions.create(model="gpt-4o-mini", messages=ASK), name="impatient")
    first = await operator.only()
    (again,) = await operator.sees(lambda holds: holds[0].transaction_id != first.transaction_id)
    assert (again.id, again.content) == (first.id, first.content)
    await operator.approve(again)
    assert (await client).choices[0].message.content == TEXT
    assert len(upstream.exchanges) == 1
    assert operator.gateway.plane.holds() == []
