"""What a well-behaved upstream answers: OpenAI, Anthropic and Ollama, streams and not.

Pure: a request in, an `Answer` out. Each piece of a streamed answer is one whole event, so that a test can say after which event
something goes wrong. Texts and usage are constants, so that a test can say what must have been recorded.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass, field
from typing import Any

WORDS = ["The ", "capital ", "of ", "France ", "is ", "Paris", " — ", "Grüße, 巴黎."]
TEXT = "".join(WORDS)
TOOL_NAME = "get_weather"
TOOL_ARGUMENTS = '{"city": "Paris", "unit": "celsius"}'
INPUT_TOKENS = 31
OUTPUT_TOKENS = 17
CACHED_TOKENS = 8
REASONING_TOKENS = 5
BINARY = bytes(range(256)) * 16
VECTOR = [0.125, -0.5, 0.25, 1.0]

Pairs = list[tuple[str, str]]


@dataclass
class Answer:
    """One answer, before any fault is put into it."""

    status: int = 200
    headers: Pairs = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    streamed: bool = False
    """Sent chunked, one piece a chunk; else with a content-length."""

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
    """`path` is the API's own path without query; `headers` have lower-case names."""
    if path == "/v1/echo":
        return Answer(headers=[("content-type", headers.get("content-type", "application/octet-stream"))], pieces=[body])
    if path.endswith("/content"):
        return Answer(headers=[("content-type", "application/octet-stream")], pieces=[BINARY])
    if path == "/v1/files" and method == "POST":
        return _json({"id": "file-1", "object": "file", "bytes": len(body), "created_at": 1, "filename": "a.bin",
                      "purpose": "assistants", "status": "processed"})  # fmt: skip
    if path in ("/v1/models", "/api/tags"):
        return _models(path, "anthropic-version" in headers)
    try:
        asked: Any = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        asked = {}
    if not isinstance(asked, dict) or (body and not asked):
        return _json({"error": {"message": "not JSON", "type": "invalid_request_error", "param": None, "code": None}}, 400)
    tool = bool(asked.get("tools")) and not _has_tool_result(asked)
    makers = {
        "/v1/chat/completions": _chat,
        "/v1/responses": _responses,
        "/v1/embeddings": _embeddings,
        "/v1/messages": _messages,
        "/v1/messages/count_tokens": lambda _asked, _tool: _json({"input_tokens": INPUT_TOKENS}),
        "/api/chat": _ollama_chat,
        "/api/generate": _ollama_generate,
    }
    maker = makers.get(path)
    if maker is None:
        return _json({"method": method, "path": path, "bytes": len(body)})
    return maker(asked, tool)


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, [("content-type", "application/json")], [json.dumps(value, ensure_ascii=False).encode()])


def _sse(events: list[bytes]) -> Answer:
    return Answer(200, [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")], events, True)


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def _named(value: dict[str, Any]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\n" + _data(value)


def _has_tool_result(asked: dict[str, Any]) -> bool:
    text = json.dumps(asked)
    return any(mark in text for mark in ('"role": "tool"', '"tool_result"', '"function_call_output"'))


def _models(path: str, anthropic: bool) -> Answer:
    if path == "/api/tags":
        return _json({"models": [{"model": "llama3.2:latest", "name": "llama3.2:latest", "size": 1, "digest": "d"}]})
    if anthropic:
        one = {"type": "model", "id": "claude-sonnet-5", "display_name": "Claude", "created_at": "2025-01-01T00:00:00Z"}
        return _json({"data": [one], "has_more": False, "first_id": one["id"], "last_id": one["id"]})
    return _json({"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "openai"}]})


def _embeddings(asked: dict[str, Any], tool: bool) -> Answer:
    packed = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    vector: object = packed if asked.get("encoding_format") == "base64" else VECTOR
    usage = {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS}
    return _json({"object": "list", "model": asked.get("model"), "usage": usage,
                  "data": [{"object": "embedding", "index": 0, "embedding": vector}]})  # fmt: skip


def _chat(asked: dict[str, Any], tool: bool) -> Answer:
    usage = {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
    }
    model = asked.get("model", "gpt-4o-mini")
    call = {"id": "call_1", "type": "function", "function": {"name": TOOL_NAME, "arguments": TOOL_ARGUMENTS}}
    reason = "tool_calls" if tool else "stop"
    if not asked.get("stream"):
        message: dict[str, Any] = {"role": "assistant", "content": None if tool else TEXT, "refusal": None}
        if tool:
            message["tool_calls"] = [call]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return _json({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice],
                      "usage": usage, "x_unknown": {"kept": [1, 2]}})  # fmt: skip

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return _data({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices})

    events = [chunk({"role": "assistant", "content": ""})]
    if tool:
        function = {"name": TOOL_NAME, "arguments": ""}
        events.append(chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}))
        for start in range(0, len(TOOL_ARGUMENTS), 9):
            part = {"arguments": TOOL_ARGUMENTS[start : start + 9]}
            events.append(chunk({"tool_calls": [{"index": 0, "function": part}]}))
    else:
        events += [chunk({"content": word}) for word in WORDS]
    events.append(chunk({}, reason))
    if (asked.get("stream_options") or {}).get("include_usage"):
        events.append(_data({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
                             "choices": [], "usage": usage}))  # fmt: skip
    return _sse([*events, b"data: [DONE]\n\n"])


def _responses(asked: dict[str, Any], tool: bool) -> Answer:
    item: dict[str, Any]
    if tool:
        item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": TOOL_NAME, "arguments": TOOL_ARGUMENTS,
                "status": "completed"}  # fmt: skip
    else:
        part = {"type": "output_text", "text": TEXT, "annotations": []}
        item = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
    usage = {
        "input_tokens": INPUT_TOKENS,
        "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": OUTPUT_TOKENS,
        "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    }
    whole: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": asked.get("model"),
                             "status": "completed", "output": [item], "usage": usage, "error": None, "tools": [],
                             "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
                             "parallel_tool_calls": True, "tool_choice": "auto"}  # fmt: skip
    if not asked.get("stream"):
        return _json(whole)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    plan: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    if tool:
        place = {"output_index": 0, "item_id": "fc_1"}
        plan.append({"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}})
        plan += [
            {"type": "response.function_call_arguments.delta", **place, "delta": TOOL_ARGUMENTS[start : start + 9]}
            for start in range(0, len(TOOL_ARGUMENTS), 9)
        ]
        plan.append({"type": "response.function_call_arguments.done", **place, "name": TOOL_NAME, "arguments": TOOL_ARGUMENTS})
    else:
        place = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
        plan.append({"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}})
        plan.append({"type": "response.content_part.added", **place, "part": {**item["content"][0], "text": ""}})
        plan += [{"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in WORDS]
        plan.append({"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []})
        plan.append({"type": "response.content_part.done", **place, "part": item["content"][0]})
    plan.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    plan.append({"type": "response.completed", "response": whole})
    return _sse([_named({**event, "sequence_number": number}) for number, event in enumerate(plan)])


def _messages(asked: dict[str, Any], tool: bool) -> Answer:
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "cache_read_input_tokens": CACHED_TOKENS,
             "cache_creation_input_tokens": 0}  # fmt: skip
    reason = "tool_use" if tool else "end_turn"
    use = {"type": "tool_use", "id": "toolu_1", "name": TOOL_NAME, "input": json.loads(TOOL_ARGUMENTS)}
    message: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": asked.get("model"),
                               "stop_reason": reason, "stop_sequence": None, "usage": usage}  # fmt: skip
    if not asked.get("stream"):
        return _json({**message, "content": [{"type": "text", "text": TEXT}, *([use] if tool else [])]})
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    text = {"type": "text", "text": ""}
    events = [
        _named({"type": "message_start", "message": begun}),
        _named({"type": "content_block_start", "index": 0, "content_block": text}),
        _named({"type": "ping"}),
    ]
    events += [_named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": w}}) for w in WORDS]
    events.append(_named({"type": "content_block_stop", "index": 0}))
    if tool:
        events.append(_named({"type": "content_block_start", "index": 1, "content_block": {**use, "input": {}}}))
        for start in range(0, len(TOOL_ARGUMENTS), 9):
            delta = {"type": "input_json_delta", "partial_json": TOOL_ARGUMENTS[start : start + 9]}
            events.append(_named({"type": "content_block_delta", "index": 1, "delta": delta}))
        events.append(_named({"type": "content_block_stop", "index": 1}))
    end = {"stop_reason": reason, "stop_sequence": None}
    events.append(_named({"type": "message_delta", "delta": end, "usage": {"output_tokens": OUTPUT_TOKENS}}))
    return _sse([*events, _named({"type": "message_stop"})])


def _ollama(asked: dict[str, Any], parts: list[dict[str, Any]]) -> Answer:
    base = {"model": asked.get("model"), "created_at": "2025-01-01T00:00:00Z"}
    counts = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": INPUT_TOKENS, "prompt_eval_duration": 3,
              "eval_count": OUTPUT_TOKENS, "eval_duration": 5}  # fmt: skip
    lines = [{**base, **part, "done": False} for part in parts[:-1]]
    lines.append({**base, **parts[-1], "done": True, "done_reason": "stop", **counts})
    pieces = [json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines]
    streamed = len(pieces) > 1
    kind = "application/x-ndjson" if streamed else "application/json; charset=utf-8"
    return Answer(200, [("content-type", kind)], pieces, streamed)


def _ollama_chat(asked: dict[str, Any], tool: bool) -> Answer:
    def said(text: str, **more: object) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, **more}}

    call = {"function": {"name": TOOL_NAME, "arguments": json.loads(TOOL_ARGUMENTS)}}
    if asked.get("stream") is False:
        return _ollama(asked, [said("", tool_calls=[call]) if tool else said(TEXT)])
    return _ollama(asked, [said("", tool_calls=[call]), said("")] if tool else [*map(said, WORDS), said("")])


def _ollama_generate(asked: dict[str, Any], tool: bool) -> Answer:
    if asked.get("stream") is False:
        return _ollama(asked, [{"response": TEXT}])
    return _ollama(asked, [*({"response": word} for word in WORDS), {"response": ""}])
