"""Recordings in the form in which Cylestio's http_recorder writes them, and HARs as browsers export them; made here, small."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

START = 1_795_221_715.0
"""Unix time at which the recordings begin."""


def body_of(raw: bytes) -> dict[str, Any]:
    """A body as Cylestio writes it: JSON anew, else text, else base64."""
    if not raw:
        return {"size": 0, "content": None}
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {"size": len(raw), "type": "binary", "content": base64.b64encode(raw).decode()}
    try:
        return {"size": len(raw), "type": "json", "content": json.loads(text)}
    except ValueError:
        return {"size": len(raw), "type": "text", "content": text}


def asked(path: str, raw: bytes, *, at: float = 0.0, provider: str = "anthropic", query: str | None = None) -> dict[str, Any]:
    content = json.loads(raw) if raw else {}
    return {
        "type": "request",
        "timestamp": datetime.fromtimestamp(START + at, UTC).isoformat(),
        "method": "POST",
        "url": f"http://127.0.0.1:4000{path}",
        "path": path,
        "query": query,
        "headers": {
            "host": "127.0.0.1:4000",
            "x-api-key": "[REDACTED]",
            "content-type": "application/json",
            "content-length": str(len(raw)),
            "x-cylestio-tags": "user:alice,debug",
        },
        "body": body_of(raw),
        "session_id": "8c669f65-0000",
        "provider": provider,
        "model": content.get("model", "m"),
        "is_streaming": bool(content.get("stream")),
        "start_time": START + at,
    }


def told(raw: bytes, *, status: int = 200, end: float, took_ms: float, stream: bool = False) -> dict[str, Any]:
    kind = "text/event-stream; charset=utf-8" if stream else "application/json"
    return {
        "type": "response",
        "timestamp": datetime.fromtimestamp(START + end, UTC).isoformat(),
        "status_code": status,
        "headers": {"content-type": kind},
        "body": body_of(raw),
        "duration_ms": took_ms,
        "end_time": START + end,
    }


def failed(kind: str, message: str, path: str) -> dict[str, Any]:
    stamp = datetime.fromtimestamp(START, UTC).isoformat()
    return {"type": "error", "timestamp": stamp, "error_type": kind, "error_message": message, "method": "POST", "path": path}


def write_lines(file: Path, *records: dict[str, Any] | str) -> Path:
    lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in records]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def har(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"log": {"version": "1.2", "creator": {"name": "devtools", "version": "1"}, "pages": [], "entries": list(entries)}}


def entry(
    url: str, raw: bytes, answer: bytes, *, mime: str = "application/json", status: int = 200, **content: Any
) -> dict[str, Any]:
    """One entry; `content` overrides fields of the answer's content."""
    post = {"mimeType": "application/json", "text": raw.decode()} if raw else None
    return {
        "startedDateTime": "2026-11-21T00:41:55.410Z",
        "time": 84.5,
        "request": {
            "method": "POST" if raw else "GET",
            "url": url,
            "httpVersion": "http/2.0",
            "headers": [
                {"name": ":authority", "value": "api.openai.com"},
                {"name": "Content-Type", "value": "application/json"},
                {"name": "User-Agent", "value": "Mozilla/5.0"},
            ],
            "queryString": [],
            "cookies": [],
            **({"postData": post} if post else {}),
        },
        "response": {
            "status": status,
            "headers": [
                {"name": "content-type", "value": mime},
                {"name": "content-encoding", "value": "br"},
                {"name": "content-length", "value": "17"},
            ],
            "content": {"size": len(answer), "mimeType": mime, "text": answer.decode("utf-8", "replace"), **content},
        },
        "timings": {"send": 1, "wait": 40, "receive": 43.5},
    }


def anthropic_stream(text: str, model: str = "claude-sonnet-5") -> bytes:
    """A whole stream of the Messages API."""
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": model,
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {"input_tokens": 12, "output_tokens": 1},
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f"{w} "}} for w in text.split()),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


def chat_answer(text: str, model: str = "gpt-4o-mini") -> bytes:
    """A whole answer of Chat Completions."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}
    return json.dumps(answer).encode()


def chat(text: str, **more: Any) -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}).encode()


def messages(text: str, **more: Any) -> bytes:
    asked = {"model": "claude-sonnet-5", "max_tokens": 99, "messages": [{"role": "user", "content": text}]}
    return json.dumps({**asked, **more}, separators=(",", ":")).encode()
