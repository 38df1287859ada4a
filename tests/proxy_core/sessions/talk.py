"""A detector with a clock of its own, and requests of every dialect to ask it about."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from proxy_core.sessions.detector import Belonging, SessionDetector
from proxy_core.wire.conversation import Block, TextBlock, ToolCallBlock
from proxy_core.wire.glance import glance

Message = dict[str, Any]


class Talk:
    """Sessions are named s-1, s-2, … in the order in which they are told."""

    def __init__(self, max_sessions: int = 100, ttl_s: float = 3_600, min_common_messages: int = 3) -> None:
        self.now = 0.0
        names = itertools.count(1)
        self.detector = SessionDetector(
            digest=lambda part: blake2b(part, digest_size=16).digest(),
            new_id=lambda: f"s-{next(names)}",
            ttl_s=ttl_s,
            max_sessions=max_sessions,
            clock=lambda: self.now,
            min_common_messages=min_common_messages,
        )

    def send(self, body: dict[str, Any], headers: dict[str, str] | None = None, *, turn: bool = True) -> Belonging:
        """A request with this body."""
        raw = json.dumps(body).encode()
        sent = {name.encode(): value.encode() for name, value in (headers or {}).items()}
        return self.detector.belonging(sent, glance(raw), raw, turn=turn)

    def chat(self, *messages: Message, headers: dict[str, str] | None = None, **fields: Any) -> Belonging:
        """A chat request."""
        return self.send({"model": "m", "messages": list(messages), **fields}, headers)

    def responses(self, *items: Message, **fields: Any) -> Belonging:
        """A request of the Responses API."""
        return self.send({"model": "m", "input": list(items), **fields})

    def ask(self, *said: str, headers: dict[str, str] | None = None, **fields: Any) -> Belonging:
        """A chat in which `said` alternates user and assistant after a system prompt."""
        roles = itertools.cycle(["user", "assistant"])
        messages = [system("You help."), *({"role": next(roles), "content": text} for text in said)]
        return self.chat(*messages, headers=headers, **fields)

    def answer(self, to: Belonging, text: str = "", calls: Iterable[Block] = (), *, response_id: str = "") -> None:
        """The request was answered so."""
        blocks = [*([TextBlock(text)] if text else []), *calls]
        self.detector.answered(to.session_id, response_id, point=to.chain, blocks=blocks)

    def fail(self, to: Belonging) -> None:
        """The request had no answer."""
        self.detector.answered(to.session_id, "", point=to.chain, failed=True)


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str | None, *calls: tuple[str, str, str]) -> Message:
    """A chat answer; a call is its id, name and arguments."""
    message: Message = {"role": "assistant", "content": text}
    if calls:
        listed = [{"id": one, "type": "function", "function": {"name": name, "arguments": args}} for one, name, args in calls]
        message["tool_calls"] = listed
    return message


def tool(call_id: str, text: str) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def call(name: str, arguments: str, call_id: str = "") -> ToolCallBlock:
    return ToolCallBlock(call_id, name, arguments)
