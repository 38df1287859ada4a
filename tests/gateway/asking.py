"""One request of each API, and what its errors look like."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.raw_http import RawResponse

ASK = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass(frozen=True)
class Asking:
    """A request that an upstream of this API answers with text."""

    name: str
    path: str
    body: dict[str, Any]
    dialect: str
    terminator: bytes
    """In the last event of a whole stream."""

    @property
    def headers(self) -> dict[str, str]:
        return {
            "content-type": "application/json",
            **({"anthropic-version": "2023-06-01"} if self.dialect == "anthropic" else {}),
        }

    def bytes(self, *, stream: bool = False, **more: Any) -> bytes:
        return json.dumps({**self.body, "stream": stream, **more}).encode()


CHAT = Asking("chat", "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": ASK}, "openai", b"data: [DONE]\n\n")
RESPONSES = Asking("responses", "/v1/responses", {"model": "gpt-4o-mini", "input": "hi"}, "openai", b'"response.completed"')
MESSAGES = Asking(
    "messages", "/v1/messages", {"model": "claude-sonnet-5", "max_tokens": 99, "messages": ASK}, "anthropic", b'"message_stop"'
)
OLLAMA_CHAT = Asking("ollama_chat", "/api/chat", {"model": "llama3.2", "messages": ASK}, "ollama", b'"done": true')
OLLAMA_GENERATE = Asking("ollama_generate", "/api/generate", {"model": "llama3.2", "prompt": "hi"}, "ollama", b'"done": true')
EVERY = [CHAT, RESPONSES, MESSAGES, OLLAMA_CHAT, OLLAMA_GENERATE]
ONE_OF_EACH_DIALECT = [CHAT, MESSAGES, OLLAMA_CHAT]


def name_of(asking: object) -> str:
    return asking.name if isinstance(asking, Asking) else str(asking)


def error_message(response: RawResponse, dialect: str) -> str:
    """The message of an error answer; fails where it has not the dialect's shape."""
    assert response.header("content-type") == "application/json"
    body = response.json()
    if dialect == "anthropic":
        assert set(body) == {"type", "error", "request_id"}
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
        return str(body["error"]["message"])
    if dialect == "ollama":
        assert set(body) == {"error"}
        return str(body["error"])
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])


def stream_error_message(tail: bytes, asking: Asking) -> str:
    """The message of an error event at the end of a stream; fails where it has not the dialect's shape."""
    if asking.dialect == "ollama":
        last = json.loads(tail.rstrip(b"\n").rpartition(b"\n")[2])
        assert set(last) == {"error"}
        return str(last["error"])
    event = tail[:-2].rpartition(b"\n\n")[2]
    assert tail.endswith(b"\n\n")
    lines = event.split(b"\n")
    data = json.loads(lines[-1].removeprefix(b"data: "))
    if asking is CHAT:
        return str(data["error"]["message"])
    assert lines[0] == b"event: error"
    assert data["type"] == "error"
    return str(data["message"] if asking is RESPONSES else data["error"]["message"])
