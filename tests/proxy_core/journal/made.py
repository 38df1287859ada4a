"""Records made for tests."""

from __future__ import annotations

from typing import Any

from proxy_core.ids import new_ulid
from proxy_core.journal.journal import Journal
from proxy_core.journal.records import Intent, Outcome
from proxy_core.wire.glance import glance

STARTED_NS = 1_795_000_000_000_000_000
_count = 0


def chat_body(*texts: str) -> bytes:
    messages = ",".join(f'{{"role":"user","content":"{text}{"." * 80}"}}' for text in texts)
    return f'{{"model":"gpt-5.4",  "messages":[{messages}],"stream":false}}'.encode()


def intent(journal: Journal, body: bytes, **other: Any) -> Intent:
    global _count
    _count += 1
    fields: dict[str, Any] = {
        "transaction_id": new_ulid(STARTED_NS // 1_000_000 + _count),
        "started_ns": STARTED_NS + _count,
        "method": "POST",
        "path": "/v1/chat/completions",
        "query": b"",
        "dialect": "openai",
        "operation": "chat",
        "session_id": "s-1",
        "predecessor": "",
        "agent": "",
        "model": "gpt-5.4",
        "upstream": "openai",
        "reason": "default",
        "stream": False,
        "client": "127.0.0.1:5",
        "preview": "hello",
        "headers": [(b"content-type", b"application/json"), (b"authorization", b"Bearer sk-canary-000000")],
        "body": body,
        "pieces": tuple((journal.digest(part), part) for part in glance(body).history),
        "chain": b"c" * 16,
        "history_length": 1,
        "secrets": (b"sk-canary-000000",),
    }
    return Intent(**(fields | other))


def outcome(transaction_id: str, body: bytes = b'{"ok":true}', **other: Any) -> Outcome:
    fields: dict[str, Any] = {
        "transaction_id": transaction_id,
        "finished_ns": STARTED_NS + 9,
        "outcome": "ok",
        "status": 200,
        "verdict": "allow",
        "headers": [(b"content-type", b"application/json")],
        "body": body,
        "body_bytes": len(body),
        "complete": True,
        "model": "gpt-5.4",
        "response_id": "r-1",
        "timing": {"received": 0.1},
        "error": "",
        "answer_error": "",
        "stop_reason": "stop",
        "tool_calls": 0,
        "secrets": (b"sk-canary-000000",),
    }
    return Outcome(**(fields | other))
