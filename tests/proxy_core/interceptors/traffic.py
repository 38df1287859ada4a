"""Requests and answers as interceptors are told of them, made from their bytes alone."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

from proxy_core.interceptors.base import Begun, Finished
from proxy_core.interceptors.records import Began, Ended, begun_of, end_of, finished_of
from proxy_core.journal.records import Intent, Outcome
from proxy_core.running import Running
from proxy_core.transaction_row import TransactionRow
from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Operation
from proxy_core.wire.glance import glance

DIALECTS = {"chat": "openai", "completions": "openai", "responses": "openai", "messages": "anthropic"}
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "ollama_chat": "/api/chat",
    "ollama_generate": "/api/generate",
    "models": "/v1/models",
}


def running_for(operation: str, body: dict[str, Any] | bytes, **intent: Any) -> tuple[Running, Intent, tuple[bytes, ...]]:
    """What the gateway's loop hands over when a request has come."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    seen = glance(raw)
    number = intent.pop("number", 1)
    started_ns = int(intent.pop("at", 1_000.0) * 1e9)
    fields: dict[str, Any] = {
        "transaction_id": f"T{number:025d}",
        "started_ns": started_ns,
        "method": "POST",
        "path": PATHS[operation],
        "query": b"",
        "dialect": DIALECTS.get(operation, "ollama"),
        "operation": operation,
        "session_id": "s-1",
        "predecessor": "",
        "agent": "agent-1",
        "model": seen.model,
        "upstream": "openai",
        "reason": "path",
        "stream": bool(seen.stream),
        "client": "127.0.0.1:5000",
        "preview": "",
        "headers": [(b"host", b"localhost:4000"), (b"content-type", b"application/json")],
        "body": raw,
        "pieces": (),
        "chain": b"",
        "history_length": len(seen.history),
        "secrets": (),
    }
    made = Intent(**(fields | intent))
    row = TransactionRow(transaction_id=made.transaction_id, started_at=started_ns / 1e9, upstream="openai")
    scope = {"method": made.method, "headers": made.headers, "query_string": made.query}
    running = Running.begun(row, scope=scope, started=0.0, started_ns=started_ns, task=None, capture_limit=1 << 30)
    running.glance = seen
    return running, made, tuple(blake2b(entry, digest_size=16).digest() for entry in seen.history)


def outcome_for(running: Running, intent: Intent, answer: dict[str, Any] | bytes, **outcome: Any) -> Outcome:
    """What the gateway's loop hands over when the answer has gone."""
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    streamed = raw.startswith((b"data:", b"event:"))
    running.content_type = "text/event-stream" if streamed else "application/json"
    codec = codec_for(Operation(intent.operation))
    assert codec is not None
    if streamed:
        decoder = codec.stream_decoder()
        decoder.feed(raw)
        read = decoder.finish()
    else:
        read = codec.read_response(raw)
    usage = read.usage
    fields: dict[str, Any] = {
        "transaction_id": intent.transaction_id,
        "finished_ns": intent.started_ns + 250_000_000,
        "outcome": "error" if (outcome.get("status", 200) or 0) >= 400 or read.error else "ok",
        "status": 200,
        "verdict": "allow",
        "headers": [(b"content-type", running.content_type.encode())],
        "body": raw,
        "body_bytes": len(raw),
        "complete": True,
        "model": read.model or "",
        "response_id": read.response_id or "",
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "total_ms": 250.0,
        "timing": {"responded": 1.0},
        "error": "",
        "answer_error": f"{read.error.type}: {read.error.message}" if read.error else "",
        "stop_reason": read.stop_reason or "",
        "tool_calls": len(read.tool_calls),
        "secrets": intent.secrets,
    }
    return Outcome(**(fields | outcome))


def begun_for(operation: str, body: dict[str, Any] | bytes, **intent: Any) -> Begun:
    running, made, hashes = running_for(operation, body, **intent)
    return begun_of(Began(made, running.glance, hashes))


def pair_for(
    operation: str,
    body: dict[str, Any] | bytes,
    answer: dict[str, Any] | bytes,
    outcome: dict[str, Any] | None = None,
    **intent: Any,
) -> tuple[Begun, Finished]:
    """A request and its end."""
    running, made, hashes = running_for(operation, body, **intent)
    began = Began(made, running.glance, hashes)
    return begun_of(began), finished_of(Ended(began, end_of(outcome_for(running, made, answer, **(outcome or {})), running)))


def sse(*events: dict[str, Any], done: bool = False, named: bool = False) -> bytes:
    """A stream of these events."""
    parts = [(f"event: {one['type']}\n" if named else "") + f"data: {json.dumps(one)}\n\n" for one in events]
    return ("".join(parts) + ("data: [DONE]\n\n" if done else "")).encode()
