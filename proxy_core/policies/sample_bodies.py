"""Usual bodies of each operation, for tests and trials of policies: requests, whole answers, and streams cut as asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from proxy_core.wire.dialects import Operation

STREAMED = (
    Operation.CHAT,
    Operation.COMPLETIONS,
    Operation.RESPONSES,
    Operation.MESSAGES,
    Operation.OLLAMA_CHAT,
    Operation.OLLAMA_GENERATE,
)
"""The operations whose answers stream text."""
ANTHROPIC = (Operation.MESSAGES, Operation.COUNT_TOKENS)
OLLAMA = (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE, Operation.OLLAMA_EMBED)


def request_body(operation: Operation, text: str, *, system: str = "", stream: bool = False) -> bytes:
    """A usual request of the operation in which a user says `text`."""
    messages = [{"role": "user", "content": text}]
    fields: dict[str, Any] = {"model": "m-1"}
    if operation in (Operation.EMBEDDINGS, Operation.OLLAMA_EMBED):
        return msgspec.json.encode(fields | {"input": text})
    if operation is Operation.RESPONSES:
        fields |= ({"instructions": system} if system else {}) | {"input": messages}
    elif operation in ANTHROPIC:
        fields |= {"max_tokens": 1000} | ({"system": system} if system else {}) | {"messages": messages}
    elif operation in (Operation.COMPLETIONS, Operation.OLLAMA_GENERATE):
        fields |= ({"system": system} if system and operation is Operation.OLLAMA_GENERATE else {}) | {"prompt": text}
    else:
        fields |= {"messages": [{"role": "system", "content": system}, *messages] if system else messages}
    if stream or operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE):
        fields |= {"stream": stream}
    return msgspec.json.encode(fields)


def answer_body(operation: Operation, text: str) -> bytes:
    """A usual whole answer of the operation that says `text`."""
    message = {"role": "assistant", "content": text}
    answer: dict[str, Any]
    if operation is Operation.RESPONSES:
        answer = {"id": "resp_1", "object": "response", "status": "completed", "model": "m-1", "output": [_item(text)]}
    elif operation is Operation.MESSAGES:
        answer = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1"}
        answer |= {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None}
        answer |= {"usage": {"input_tokens": 3, "output_tokens": 5}}
    elif operation is Operation.COUNT_TOKENS:
        answer = {"input_tokens": 3}
    elif operation is Operation.OLLAMA_CHAT:
        answer = {"model": "m-1", "message": message, "done": True, "done_reason": "stop"}
    elif operation is Operation.OLLAMA_GENERATE:
        answer = {"model": "m-1", "response": text, "done": True, "done_reason": "stop"}
    elif operation is Operation.EMBEDDINGS:
        answer = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "m-1"}
    elif operation is Operation.OLLAMA_EMBED:
        answer = {"model": "m-1", "embeddings": [[0.5]]}
    else:
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice |= {"text": text} if operation is Operation.COMPLETIONS else {"message": message}
        answer = {"id": "c-1", "object": "chat.completion", "model": "m-1", "choices": [choice]}
    return msgspec.json.encode(answer)


def answer_stream(operation: Operation, pieces: Sequence[str]) -> bytes:
    """A usual streamed answer of the operation whose text comes in `pieces`."""
    if operation is Operation.MESSAGES:
        return _messages_stream(pieces)
    if operation is Operation.RESPONSES:
        return _responses_stream(pieces)
    if operation is Operation.OLLAMA_CHAT:
        lines = [{"model": "m-1", "message": {"role": "assistant", "content": piece}, "done": False} for piece in pieces]
        lines.append({"model": "m-1", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"})
        return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    if operation is Operation.OLLAMA_GENERATE:
        lines = [{"model": "m-1", "response": piece, "done": False} for piece in pieces]
        lines.append({"model": "m-1", "response": "", "done": True, "done_reason": "stop"})
        return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    choices: list[dict[str, Any]]
    if operation is Operation.COMPLETIONS:
        choices = [{"index": 0, "text": piece, "finish_reason": None} for piece in pieces]
        choices.append({"index": 0, "text": "", "finish_reason": "stop"})
    else:
        choices = [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
        choices += [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunks = [msgspec.json.encode({"id": "c-1", "model": "m-1", "choices": [choice]}) for choice in choices]
    return b"".join(b"data: %b\n\n" % chunk for chunk in [*chunks, b"[DONE]"])


def _messages_stream(pieces: Sequence[str]) -> bytes:
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message | {"usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in pieces),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]
    return _named(events)


def _responses_stream(pieces: Sequence[str]) -> bytes:
    text = "".join(pieces)
    response = {"id": "resp_1", "object": "response", "model": "m-1"}
    begun = {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response | {"status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.content_part.added", **at, "part": {"type": "output_text", "text": "", "annotations": []}},
        *({"type": "response.output_text.delta", **at, "delta": piece} for piece in pieces),
        {"type": "response.output_text.done", **at, "text": text},
        {"type": "response.content_part.done", **at, "part": {"type": "output_text", "text": text, "annotations": []}},
        {"type": "response.output_item.done", "output_index": 0, "item": _item(text)},
        {"type": "response.completed", "response": response | {"status": "completed", "output": [_item(text)]}},
    ]
    return _named([event | {"sequence_number": number} for number, event in enumerate(events)])


def _named(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (one["type"].encode(), msgspec.json.encode(one)) for one in events)


def _item(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
