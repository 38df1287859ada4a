"""What the vendors' own clients make of a stream's bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import anthropic
import httpx
import httpx2
import ollama
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

from proxy_core.wire.dialects import Operation


@dataclass
class Read:
    """An answer as a client's program has it."""

    text: str = ""
    calls: list[tuple[str, str, object]] = field(default_factory=list)
    """Id, name and arguments (the value that their JSON stands for, else the text)."""
    stop: str | None = None


def read_with_sdk(operation: Operation, body: bytes) -> Read:
    """Let the SDK of the dialect read a whole stream. Raises what the SDK raises."""
    lines = operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE)
    kind = "application/x-ndjson" if lines else "text/event-stream"
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers={"content-type": kind}, content=body))
    if lines:
        return _ollama(operation, transport)
    newer = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": kind}, content=body))
    with httpx2.Client(transport=newer) as client:
        return _messages(client) if operation is Operation.MESSAGES else _openai(operation, client)


def _openai(operation: Operation, http: httpx2.Client) -> Read:
    client = openai.OpenAI(api_key="k", base_url="http://test/v1", http_client=http, max_retries=0)
    if operation is Operation.RESPONSES:
        with client.responses.stream(model="m", input="hi") as stream:
            for event in stream:
                last = event
        response = last.response  # type: ignore[union-attr]
        calls = [
            (
                getattr(item, "call_id", ""),
                getattr(item, "name", item.type),
                _value(getattr(item, "arguments", None) or getattr(item, "input", None)),
            )
            for item in response.output
            if item.type.endswith("_call") and getattr(item, "call_id", "")
        ]
        return Read(response.output_text, calls, response.status)
    if operation is Operation.COMPLETIONS:
        read = Read()
        for part in client.completions.create(model="m", prompt="hi", stream=True):
            for one in part.choices:
                read.text += one.text
                read.stop = one.finish_reason or read.stop
        return read
    state = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
        state.handle_chunk(chunk)
    completion = state.current_completion_snapshot
    read = Read(stop=completion.choices[0].finish_reason)
    for choice in completion.choices:
        assert choice.message.role == "assistant"
        read.text += choice.message.content or ""
        for call in choice.message.tool_calls or []:
            read.calls.append((call.id, call.function.name, _value(call.function.arguments)))
        if choice.message.function_call is not None:
            read.calls.append(("", choice.message.function_call.name, _value(choice.message.function_call.arguments)))
    return read


def _messages(http: httpx2.Client) -> Read:
    client = anthropic.Anthropic(api_key="k", base_url="http://test", http_client=http, max_retries=0)
    with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
        message = stream.get_final_message()
    read = Read(stop=message.stop_reason)
    for block in message.content:
        if block.type == "text":
            read.text += block.text
        elif block.type == "tool_use":
            read.calls.append((block.id, block.name, block.input))
    return read


def _ollama(operation: Operation, transport: httpx.MockTransport) -> Read:
    client = ollama.Client(host="http://test", transport=transport)
    read = Read()
    if operation is Operation.OLLAMA_GENERATE:
        for part in client.generate(model="m", prompt="hi", stream=True):
            read.text += part.response
            read.stop = part.done_reason if part.done else read.stop
        return read
    for chunk in client.chat(model="m", messages=[], stream=True):
        read.text += chunk.message.content or ""
        for call in chunk.message.tool_calls or []:
            read.calls.append(("", call.function.name, dict(call.function.arguments)))
        read.stop = chunk.done_reason if chunk.done else read.stop
    return read


def _value(text: str | None) -> object:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text
