"""What a request gives a model to read, as plain texts: for rules that look for words, never for changes.

Everything that was said counts: system prompt, messages, calls of tools and their results, reasoning, texts in documents and in
parts that luthien does not know. What stands in JSON is read from it, so that an escape hides nothing. Never raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Block, Conversation, ImageBlock, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.encodings import UnreadableEncoding, decoded
from proxy_core.wire.tolerant_json import UNREADABLE

_decode = msgspec.json.Decoder().decode
_DATA_FROM_CHARS = 256
"""A value named `data` of this length or more is a picture or a sound, not text."""


class Spoken(msgspec.Struct, frozen=True):
    """The texts of one request."""

    texts: tuple[str, ...] | None
    """All of them; None where nobody can tell, because the body is compressed in a way that is not known."""
    last_user: str = ""
    """What the user wrote last, its parts one paragraph each."""


def spoken(operation: Operation, body: bytes, encoding: str = "") -> Spoken:
    """The texts of a request; `encoding` is its content encoding."""
    if encoding.strip().lower() not in ("", "identity"):
        try:
            body = decoded(body, encoding)
        except UnreadableEncoding:
            return Spoken(None)
    if not body:
        return Spoken(())
    codec = codec_for(operation)
    if codec is None:
        return Spoken(tuple(_strings_of(body)))
    conversation = codec.read_request(body)
    last_user = _last_user(conversation)
    if conversation.problem is not None:
        return Spoken(tuple(_strings_of(body)), last_user)
    texts = tuple(text for message in conversation.messages for block in message.blocks for text in _texts(block))
    return Spoken(texts, last_user)


def _last_user(conversation: Conversation) -> str:
    for message in reversed(conversation.messages):
        if message.role == "user":
            parts = [block.text for block in message.blocks if isinstance(block, TextBlock)]
            if parts:
                return "\n\n".join(parts)
    return ""


def _texts(block: Block) -> Iterator[str]:
    if isinstance(block, TextBlock | ThinkingBlock):
        yield block.text
    elif isinstance(block, ToolCallBlock):
        yield block.name
        yield from _strings_of(block.arguments.encode("utf-8", "surrogatepass"))
    elif isinstance(block, ImageBlock | OpaqueBlock):
        if block.raw:
            yield from _strings_of(block.raw)
    else:
        yield block.content


def _strings_of(raw: bytes) -> Iterator[str]:
    """Every text in a JSON value, keys too; of what is no JSON, all of it."""
    try:
        value = _decode(raw)
    except UNREADABLE:
        try:
            value = json.loads(raw, object_pairs_hook=_pairs)  # reads UTF-16 too
        except (ValueError, RecursionError):
            yield raw.decode("utf-8", "replace")
            if b"\0" in raw[:4]:
                yield raw.decode("utf-16", "replace")
            return
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            for key, inner in one.items():
                yield key
                if not (key == "data" and isinstance(inner, str) and len(inner) >= _DATA_FROM_CHARS):
                    waiting.append(inner)
        elif isinstance(one, list):
            waiting.extend(one)


def _pairs(pairs: list[tuple[str, Any]]) -> list[Any]:
    """An object with all its members, those that stand twice too."""
    return [part for pair in pairs for part in pair]
