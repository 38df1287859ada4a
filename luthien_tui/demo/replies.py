"""A scripted reply in the words of an API: as one JSON body, or as the events of a stream.

Ids and token counts follow from the texts, so the same request always gets the same answer. Tokens are estimated as a
quarter of the characters; history that was sent before counts as cached.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from luthien_tui.demo.script import Reply, Wire, call_id, results_key

_PIECES = re.compile(r"[\u2e80-\U0002ffff]{1,2}|\s*[^\s\u2e80-\U0002ffff]{1,11}|\s+")
_CREATED = 1_767_225_600


@dataclass(frozen=True)
class Tokens:
    """Usage of one answer."""

    sent: int
    cached: int
    answered: int
    reasoning: int


@dataclass(frozen=True)
class Asked:
    """What a request asks for."""

    wire: Wire
    model: str
    text: str
    """The last user message, or the tool results at the end."""
    streamed: bool
    usage: bool
    """Whether a chat stream ends with its usage."""
    size: int
    """Characters of the whole conversation."""


@dataclass(frozen=True)
class Event:
    """One event of a stream; before a spoken one the model takes its time."""

    data: bytes
    spoken: bool = False


def pieces(text: str) -> list[str]:
    """The text as a model would stream it."""
    return _PIECES.findall(text)


def read_request(wire: Wire, body: dict[str, Any]) -> Asked:
    """Never raises: what is not there is empty."""
    messages = body.get("input" if wire == "responses" else "messages") or []
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    items = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    results: list[str] = []
    text = ""
    for one in reversed(items):
        found = _tool_results(one)
        if found:
            results[:0] = found
        else:
            text = _plain(one.get("content"))
            break
    options = body.get("stream_options")
    return Asked(
        wire=wire,
        model=str(body.get("model", "")),
        text=results_key(results) if results else text,
        streamed=bool(body.get("stream", wire == "ollama")),
        usage=isinstance(options, dict) and bool(options.get("include_usage")),
        size=len(json.dumps(body, ensure_ascii=False)),
    )


def _tool_results(message: dict[str, Any]) -> list[str]:
    if message.get("role") == "tool":
        return [_plain(message.get("content"))]
    if message.get("type") == "function_call_output":
        return [_plain(message.get("output"))]
    content = message.get("content")
    blocks = content if isinstance(content, list) else []
    return [_plain(one.get("content")) for one in blocks if isinstance(one, dict) and one.get("type") == "tool_result"]


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(one.get("text", "")) for one in content if isinstance(one, dict))
    return content if isinstance(content, str) else ""


def count(asked: Asked, reply: Reply) -> Tokens:
    calls = sum(len(one.name) + len(json.dumps(one.arguments)) for one in reply.calls)
    sent = asked.size // 4 + 1
    earlier = max(0, sent - len(asked.text) // 4 - 600) // 128 * 128
    reasoning = len(reply.thinking) // 4
    return Tokens(sent, earlier, (len(reply.text) + calls) // 4 + 1 + reasoning, reasoning)


def whole(asked: Asked, reply: Reply, key: str) -> dict[str, Any]:
    """The answer as one JSON value."""
    tokens = count(asked, reply)
    if asked.wire == "chat":
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
        if reply.calls:
            message["tool_calls"] = _chat_calls(reply, key)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if reply.calls else "stop"}
        return {**_chat_base(asked, key, "chat.completion"), "choices": [choice], "usage": _chat_usage(tokens)}
    if asked.wire == "messages":
        stop = "tool_use" if reply.calls else "end_turn"
        return {**_message_base(asked, key), "content": _blocks(reply, key), "stop_reason": stop, "stop_sequence": None,
                "usage": _message_usage(tokens)}  # fmt: skip
    if asked.wire == "responses":
        return _response(asked, reply, key, tokens)
    message = {"role": "assistant", "content": reply.text}
    return {"model": asked.model, "created_at": "2026-01-01T00:00:00Z", "message": message, **_ollama_end(tokens)}


def events(asked: Asked, reply: Reply, key: str) -> Iterator[Event]:
    """The answer as the events of its API's stream, terminator included."""
    tokens = count(asked, reply)
    makers = {"chat": _chat, "messages": _messages, "responses": _responses, "ollama": _ollama}
    return makers[asked.wire](asked, reply, key, tokens)


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _named(value: dict[str, Any], *, spoken: bool = False) -> Event:
    return Event(f"event: {value['type']}\n".encode() + _data(value), spoken)


def _arguments(reply: Reply) -> list[str]:
    return [json.dumps(one.arguments, ensure_ascii=False) for one in reply.calls]


def _chat_base(asked: Asked, key: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{call_id(key, 99)}", "object": kind, "created": _CREATED, "model": asked.model}


def _chat_usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.sent,
        "completion_tokens": tokens.answered,
        "total_tokens": tokens.sent + tokens.answered,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def _chat_calls(reply: Reply, key: str) -> list[dict[str, Any]]:
    return [
        {"id": call_id(key, number), "type": "function", "function": {"name": one.name, "arguments": text}}
        for number, (one, text) in enumerate(zip(reply.calls, _arguments(reply), strict=True))
    ]


def _chat(asked: Asked, reply: Reply, key: str, tokens: Tokens) -> Iterator[Event]:
    base = _chat_base(asked, key, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, *, spoken: bool = False) -> Event:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return Event(_data({**base, "choices": choices}), spoken)

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(reply.text):
        yield chunk({"content": piece}, spoken=True)
    for number, one in enumerate(_chat_calls(reply, key)):
        arguments = one["function"]["arguments"]
        yield chunk({"tool_calls": [{**one, "index": number, "function": {**one["function"], "arguments": ""}}]})
        for piece in pieces(arguments):
            yield chunk({"tool_calls": [{"index": number, "function": {"arguments": piece}}]}, spoken=True)
    yield chunk({}, "tool_calls" if reply.calls else "stop")
    if asked.usage:
        yield Event(_data({**base, "choices": [], "usage": _chat_usage(tokens)}))
    yield Event(b"data: [DONE]\n\n")


def _message_base(asked: Asked, key: str) -> dict[str, Any]:
    return {"id": f"msg_{call_id(key, 99)}", "type": "message", "role": "assistant", "model": asked.model}


def _message_usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "input_tokens": tokens.sent - tokens.cached,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": tokens.answered,
    }


def _blocks(reply: Reply, key: str) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.thinking:
        blocks.append({"type": "thinking", "thinking": reply.thinking, "signature": call_id(key, 98)})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for number, one in enumerate(reply.calls):
        blocks.append({"type": "tool_use", "id": f"toolu_{call_id(key, number)}", "name": one.name, "input": one.arguments})
    return blocks


def _messages(asked: Asked, reply: Reply, key: str, tokens: Tokens) -> Iterator[Event]:
    begun = {**_message_base(asked, key), "content": [], "stop_reason": None, "stop_sequence": None}
    yield _named({"type": "message_start", "message": {**begun, "usage": {**_message_usage(tokens), "output_tokens": 1}}})
    yield _named({"type": "ping"})
    for index, block in enumerate(_blocks(reply, key)):
        kind = block["type"]
        field, delta, text = {
            "thinking": ("thinking", "thinking_delta", reply.thinking),
            "text": ("text", "text_delta", reply.text),
            "tool_use": ("partial_json", "input_json_delta", json.dumps(block.get("input"), ensure_ascii=False)),
        }[kind]
        empty = {**block, "input": {}} if kind == "tool_use" else {"type": kind, field: ""}
        yield _named({"type": "content_block_start", "index": index, "content_block": empty})
        for piece in pieces(text):
            one = {"type": "content_block_delta", "index": index, "delta": {"type": delta, field: piece}}
            yield _named(one, spoken=True)
        if kind == "thinking":
            signed = {"type": "signature_delta", "signature": block["signature"]}
            yield _named({"type": "content_block_delta", "index": index, "delta": signed})
        yield _named({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "tool_use" if reply.calls else "end_turn", "stop_sequence": None}
    yield _named({"type": "message_delta", "delta": end, "usage": {"output_tokens": tokens.answered}})
    yield _named({"type": "message_stop"})


def _response_items(reply: Reply, key: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if reply.thinking:
        summary = [{"type": "summary_text", "text": reply.thinking}]
        items.append({"type": "reasoning", "id": f"rs_{call_id(key, 97)}", "summary": summary})
    if reply.text:
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        items.append({"type": "message", "id": f"msg_{call_id(key, 96)}", "role": "assistant", "status": "completed",
                      "content": [part]})  # fmt: skip
    for number, (one, text) in enumerate(zip(reply.calls, _arguments(reply), strict=True)):
        ids = {"id": f"fc_{call_id(key, number)}", "call_id": f"call_{call_id(key, number)}"}
        items.append({"type": "function_call", **ids, "name": one.name, "arguments": text, "status": "completed"})
    return items


def _response(asked: Asked, reply: Reply, key: str, tokens: Tokens) -> dict[str, Any]:
    usage = {
        "input_tokens": tokens.sent,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens": tokens.answered,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.sent + tokens.answered,
    }
    return {"id": f"resp_{call_id(key, 99)}", "object": "response", "created_at": _CREATED, "status": "completed",
            "model": asked.model, "output": _response_items(reply, key), "usage": usage, "error": None}  # fmt: skip


def _responses(asked: Asked, reply: Reply, key: str, tokens: Tokens) -> Iterator[Event]:
    numbered = -1
    done = _response(asked, reply, key, tokens)

    def event(kind: str, *, spoken: bool = False, **more: Any) -> Event:
        nonlocal numbered
        numbered += 1
        return _named({"type": f"response.{kind}", "sequence_number": numbered, **more}, spoken=spoken)

    begun = {**done, "status": "in_progress", "output": [], "usage": None}
    yield event("created", response=begun)
    yield event("in_progress", response=begun)
    for index, item in enumerate(done["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "function_call":
            yield event("output_item.added", output_index=index, item={**item, "arguments": "", "status": "in_progress"})
            for piece in pieces(item["arguments"]):
                yield event("function_call_arguments.delta", spoken=True, **place, delta=piece)
            yield event("function_call_arguments.done", **place, arguments=item["arguments"])
        elif item["type"] == "reasoning":
            yield event("output_item.added", output_index=index, item={**item, "summary": []})
            for piece in pieces(reply.thinking):
                yield event("reasoning_summary_text.delta", spoken=True, **place, summary_index=0, delta=piece)
        else:
            part = item["content"][0]
            yield event("output_item.added", output_index=index, item={**item, "content": [], "status": "in_progress"})
            yield event("content_part.added", **place, content_index=0, part={**part, "text": ""})
            for piece in pieces(reply.text):
                yield event("output_text.delta", spoken=True, **place, content_index=0, delta=piece)
            yield event("output_text.done", **place, content_index=0, text=reply.text)
            yield event("content_part.done", **place, content_index=0, part=part)
        yield event("output_item.done", output_index=index, item=item)
    yield event("completed", response=done)


def _ollama_end(tokens: Tokens) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": "stop",
        "total_duration": tokens.answered * 30_000_000,
        "load_duration": 12_000_000,
        "prompt_eval_count": tokens.sent,
        "prompt_eval_duration": tokens.sent * 400_000,
        "eval_count": tokens.answered,
        "eval_duration": tokens.answered * 29_000_000,
    }


def _ollama(asked: Asked, reply: Reply, key: str, tokens: Tokens) -> Iterator[Event]:
    base = {"model": asked.model, "created_at": "2026-01-01T00:00:00Z"}

    def line(text: str, *, spoken: bool = False, **more: Any) -> Event:
        value = {**base, "message": {"role": "assistant", "content": text}, "done": False, **more}
        return Event(json.dumps(value, ensure_ascii=False).encode() + b"\n", spoken)

    for piece in pieces(reply.text):
        yield line(piece, spoken=True)
    yield line("", **_ollama_end(tokens))
