"""A first look into a request body: only what routing, sessions and the record need, with spans of its large parts.

One decode, no copies of the history: messages stay slices of the body. Never raises on bad input.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

PREVIEW_CHARS = 120
MARKS = (
    "metadata",
    "user",
    "safety_identifier",
    "previous_response_id",
    "conversation",
    "client_metadata",
    "prompt_cache_key",
)
_ABSENT = Raw()
_BRACKET, _QUOTE = b'["'


class _Body(Struct, kw_only=True):
    model: Any = None
    stream: Any = None
    messages: Raw = _ABSENT
    input: Raw = _ABSENT
    prompt: Raw = _ABSENT
    system: Raw = _ABSENT
    instructions: Raw = _ABSENT
    tools: Raw = _ABSENT
    metadata: Any = None
    user: Any = None
    safety_identifier: Any = None
    previous_response_id: Any = None
    conversation: Any = None
    client_metadata: Any = None
    prompt_cache_key: Any = None


class Glance(Struct, frozen=True):
    """What a request says of itself."""

    model: str = ""
    stream: bool | None = None
    """As asked for; None where the body does not say (Ollama streams then)."""
    history: tuple[memoryview, ...] = ()
    """Each entry of `messages` or `input` as a slice of the body; a string input is one entry."""
    preamble: tuple[memoryview, ...] = ()
    """Large parts beside the history: system prompt, instructions, tools."""
    system: bytes = b""
    """What makes the agent: `system`, `instructions`, or the leading system message as raw JSON."""
    marks: dict[str, Any] = {}
    """Fields that may name a session or a user: those of `MARKS` that are there."""
    problem: str = ""
    """Why the body could not be read; empty where it could."""


class _ChatBody(_Body, kw_only=True):
    """The usual form: `messages` is a list. Spares a second pass over the history."""

    messages: list[Raw]  # type: ignore[assignment]


_decoder = msgspec.json.Decoder(_Body)
_chat_decoder = msgspec.json.Decoder(_ChatBody)
_items = msgspec.json.Decoder(list[Raw])
_message = msgspec.json.Decoder(dict[str, Any])
_NO_MARKS = (None,) * len(MARKS)
_NOTHING = Glance()


def glance(body: bytes) -> Glance:
    """Look into a JSON body. A body that is no JSON object gives an empty Glance with `problem` set."""
    if not body:
        return _NOTHING
    read: _Body
    try:
        read = chat = _chat_decoder.decode(body)
        history = tuple([memoryview(item) for item in chat.messages])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            read = _decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            return Glance(problem=str(error))
        history = _entries(read.messages) or _entries(read.input) or _entries(read.prompt)
    said = (
        read.metadata,
        read.user,
        read.safety_identifier,
        read.previous_response_id,
        read.conversation,
        read.client_metadata,
        read.prompt_cache_key,
    )
    marks = {} if said == _NO_MARKS else {name: value for name, value in zip(MARKS, said, strict=True) if value is not None}
    alone = bytes(read.system) or bytes(read.instructions)
    return Glance(
        model=read.model if isinstance(read.model, str) else "",
        stream=read.stream if isinstance(read.stream, bool) else None,
        history=history,
        preamble=tuple([memoryview(part) for part in (read.system, read.instructions, read.tools) if part]),
        system=alone or _leading_system(history),
        marks=marks,
    )


def _entries(raw: Raw) -> tuple[memoryview, ...]:
    view = memoryview(raw)
    if not view:
        return ()
    if view[0] == _BRACKET:
        try:
            return tuple(memoryview(item) for item in _items.decode(view))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return (view,)
    return () if bytes(view) == b"null" else (view,)


def _leading_system(history: tuple[memoryview, ...]) -> bytes:
    if not history:
        return b""
    first = bytes(history[0])
    head = first[:200]
    return first if b'"system"' in head or b'"developer"' in head else b""


def preview(history: tuple[memoryview, ...]) -> str:
    """The beginning of what the user said last: at most 120 characters, empty where no user message can be read."""
    for entry in reversed(history[-6:]):
        if entry[0] == _QUOTE:
            text = _loose(entry)
            return text[:PREVIEW_CHARS] if isinstance(text, str) else ""
        if len(entry) > 200_000:
            continue
        message = _loose(entry)
        if isinstance(message, dict) and message.get("role") == "user" and (text := _text(message.get("content"))):
            return text[:PREVIEW_CHARS]
    return ""


def _loose(entry: memoryview) -> Any:
    try:
        return msgspec.json.decode(entry)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        for part in reversed(content):
            if isinstance(part, str):
                return part
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                return str(part["text"])
    return ""
