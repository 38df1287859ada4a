"""Answers that call tools, whole and streamed, in four dialects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from proxy_core.wire.dialects import Operation

Call = tuple[str, str, str]
"""Id, name, and arguments as the model gives them."""
DIALECTS = (Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES, Operation.OLLAMA_CHAT)
RM: Call = ("call_1", "Bash", '{"command": "rm -rf /srv/builds"}')
LS: Call = ("call_2", "Bash", '{"command": "ls"}')
READ: Call = ("call_3", "Read", '{"file_path": "README.md"}')


def whole_answer(operation: Operation, text: str, calls: Sequence[Call]) -> bytes:
    """A whole answer with a text and some calls."""
    if operation is Operation.MESSAGES:
        blocks: list[Any] = [{"type": "text", "text": text}] if text else []
        blocks += [{"type": "tool_use", "id": one, "name": name, "input": json.loads(given)} for one, name, given in calls]
        return _json(
            {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": blocks, "stop_sequence": None}
            | {"stop_reason": "tool_use" if calls else "end_turn", "usage": {"input_tokens": 3, "output_tokens": 5}}
        )
    if operation is Operation.RESPONSES:
        return _json({"id": "resp_1", "object": "response", "status": "completed", "model": "m-1", "output": _items(text, calls)})
    if operation is Operation.OLLAMA_CHAT:
        made = [{"function": {"name": name, "arguments": json.loads(given)}} for _, name, given in calls]
        message = {"role": "assistant", "content": text, "tool_calls": made}
        return _json({"model": "m-1", "message": message, "done": True, "done_reason": "stop"})
    made = [{"id": one, "type": "function", "function": {"name": name, "arguments": given}} for one, name, given in calls]
    message = {"role": "assistant", "content": text or None} | ({"tool_calls": made} if made else {})
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return _json({"id": "c-1", "object": "chat.completion", "model": "m-1", "choices": [choice]})


def streamed_answer(operation: Operation, text: str, calls: Sequence[Call], *, cut: int = 7) -> bytes:
    """The same as a stream; text and arguments come in pieces of `cut` characters."""
    if operation is Operation.MESSAGES:
        return _messages(text, calls, cut)
    if operation is Operation.RESPONSES:
        return _responses(text, calls, cut)
    if operation is Operation.OLLAMA_CHAT:
        lines = [{"model": "m-1", "message": {"role": "assistant", "content": piece}, "done": False} for piece in _cut(text, cut)]
        made = [{"function": {"name": name, "arguments": json.loads(given)}} for _, name, given in calls]
        if made:
            lines.append({"model": "m-1", "message": {"role": "assistant", "content": "", "tool_calls": made}, "done": False})
        lines.append({"model": "m-1", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"})
        return b"".join(_json(line) + b"\n" for line in lines)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in _cut(text, cut)]
    for number, (one, name, given) in enumerate(calls):
        begun = {"index": number, "id": one, "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        deltas += [{"tool_calls": [{"index": number, "function": {"arguments": piece}}]} for piece in _cut(given, cut)]
    chunks = [_chunk(delta, None) for delta in deltas] + [_chunk({}, "tool_calls" if calls else "stop")]
    return b"".join(b"data: " + _json(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def _chunk(delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1", "choices": [choice]}


def _messages(text: str, calls: Sequence[Call], cut: int) -> bytes:
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": []}
    message |= {"stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}]
    index = 0
    if text:
        events.append({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
        deltas = [{"type": "text_delta", "text": piece} for piece in _cut(text, cut)]
        events += [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": 0})
        index = 1
    for number, (one, name, given) in enumerate(calls, index):
        block = {"type": "tool_use", "id": one, "name": name, "input": {}}
        events.append({"type": "content_block_start", "index": number, "content_block": block})
        events += [
            {"type": "content_block_delta", "index": number, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in _cut(given, cut)
        ]
        events.append({"type": "content_block_stop", "index": number})
    stop = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    events += [{"type": "message_delta", "delta": stop, "usage": {"output_tokens": 5}}, {"type": "message_stop"}]
    return _named(events)


def _items(text: str, calls: Sequence[Call]) -> list[dict[str, Any]]:
    content = {"type": "output_text", "text": text, "annotations": []}
    items: list[dict[str, Any]] = []
    if text:
        items.append({"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [content]})
    return items + [
        {"id": f"fc_{one}", "type": "function_call", "call_id": one, "name": name, "arguments": given, "status": "completed"}
        for one, name, given in calls
    ]


def _responses(text: str, calls: Sequence[Call], cut: int) -> bytes:
    response = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "m-1", "output": []}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    for index, item in enumerate(_items(text, calls)):
        if item["type"] == "message":
            place = {"item_id": "msg_1", "output_index": index, "content_index": 0}
            begun = item | {"status": "in_progress", "content": []}
            part = {"type": "output_text", "text": "", "annotations": []}
            events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
            events.append({"type": "response.content_part.added", "part": part} | place)
            events += [{"type": "response.output_text.delta", "delta": piece} | place for piece in _cut(text, cut)]
            events.append({"type": "response.output_text.done", "text": text} | place)
            events.append({"type": "response.content_part.done", "part": part | {"text": text}} | place)
        else:
            place = {"item_id": item["id"], "output_index": index}
            begun = item | {"status": "in_progress", "arguments": ""}
            events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
            given = item["arguments"]
            events += [{"type": "response.function_call_arguments.delta", "delta": piece} | place for piece in _cut(given, cut)]
            events.append({"type": "response.function_call_arguments.done", "arguments": given} | place)
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    done = response | {"status": "completed", "output": _items(text, calls)}
    events.append({"type": "response.completed", "response": done})
    return _named([event | {"sequence_number": number} for number, event in enumerate(events)])


def _named(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(b"event: " + event["type"].encode() + b"\ndata: " + _json(event) + b"\n\n" for event in events)


def _cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
