"""What a request gives a model to read, as plain texts: for rules that look for words, never for changes.

Everything that was said counts: system prompt, messages, calls of tools and their results, reasoning, texts in documents and in
parts that luthien does not know. What stands in JSON or base64 is read from it, so that an escape hides nothing. Never raises.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from binascii import Error as NoBase64
from codecs import getincrementaldecoder
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import msgspec

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Block, Conversation, ImageBlock, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.encodings import UnreadableEncoding, decoded

_ASIDE = ("prediction", "prompt", "suffix", "template")
"""Fields of a request, beside the conversation, of which a model reads what stands in them."""
_ASIDE_IN_PARTS = ("citations", "reasoning_details")
_TOKENS = ("context", "input", "prompt")
"""Fields that may hold token numbers in place of text."""
_BASE64_FROM_CHARS = 256
"""A shorter value named `data` is looked at as it stands."""
_HEAD_CHARS = 4096
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\r\n-]+")
_URL_SAFE = str.maketrans("-_", "+/")
_utf8 = getincrementaldecoder("utf-8")


class Spoken(msgspec.Struct, frozen=True):
    """The texts of one request."""

    texts: tuple[str, ...] | None
    """All of them; None where nobody can tell: the body is compressed in a way that is not known, or holds token numbers."""
    last_user: str = ""
    """What the user wrote last, its parts one paragraph each."""


def spoken(operation: Operation, body: bytes, encoding: str = "", *, last_user_only: bool = False) -> Spoken:
    """The texts of a request; `encoding` is its content encoding. With `last_user_only` nobody looks at the texts."""
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
    if last_user_only:
        return Spoken((), last_user)
    aside = _Aside()
    fields = aside.read(body)
    if fields is None or conversation.problem is not None:
        return Spoken(tuple(_strings_of(body)), last_user)
    if any(_holds_tokens(fields.get(name)) for name in _TOKENS):
        return Spoken(None, last_user)
    texts = [text for message in conversation.messages for block in message.blocks for text in _texts(block)]
    for value in (*aside.found, *(fields[name] for name in _ASIDE if name in fields)):
        texts += _strings_in(value)
    return Spoken(tuple(texts), last_user)


class _Aside:
    """Reads a body for what its codec passes by."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self._twice = False

    def read(self, body: bytes) -> dict[str, Any] | None:
        """The body's members; None where it is no object, or where one in it has the same key twice: that can be read in two
        ways."""
        try:
            value = json.loads(body, object_pairs_hook=self._object)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) and not self._twice else None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            self._twice = True
        for name in _ASIDE_IN_PARTS:
            if name in fields:
                self.found.append(fields[name])
        if "role" in fields and "name" in fields:
            self.found.append(fields["name"])
        return fields


def _holds_tokens(value: Any) -> bool:
    """Whether it is a list of numbers, or of lists of them."""
    while isinstance(value, list) and value:
        value = value[0]
    return type(value) is int


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
        value = json.loads(raw, object_pairs_hook=_members)  # reads UTF-16 too
    except (ValueError, RecursionError):
        yield raw.decode("utf-8", "replace")
        if b"\0" in raw[:4]:
            yield raw.decode("utf-16", "replace")
        return
    yield from _strings_in(value)


def _strings_in(value: Any) -> Iterator[str]:
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield from _unwrapped(one) if one[:5].lower() == "data:" else (one,)
        elif isinstance(one, dict):
            for key, inner in one.items():
                yield key
                if key == "data" and isinstance(inner, str) and len(inner) >= _BASE64_FROM_CHARS:
                    yield from _decoded(inner)
                else:
                    waiting.append(inner)
        elif isinstance(one, list):
            waiting.extend(one)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any] | list[Any]:
    """An object; with all its members where some stand twice."""
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else [part for pair in pairs for part in pair]


def _unwrapped(url: str) -> Iterator[str]:
    """What a `data:` URL holds, where that is text."""
    head, comma, rest = url.partition(",")
    if not comma:
        yield url
    elif head.lower().endswith(";base64"):
        yield head
        yield from _decoded(rest)
    else:
        yield unquote(url)


def _decoded(text: str) -> Iterator[str]:
    """The text itself, or that which it holds in base64; nothing where it holds a picture, a sound or the like."""
    if _BASE64.fullmatch(text, 0, _HEAD_CHARS) is None:
        yield text
        return
    try:
        _utf8().decode(_bytes_in(text[:_HEAD_CHARS]))
        yield _bytes_in(text).decode("utf-8", "replace")
    except UnicodeDecodeError:
        return
    except NoBase64:
        yield text


def _bytes_in(text: str) -> bytes:
    plain = "".join(text.translate(_URL_SAFE).split()).rstrip("=")
    return b64decode(plain[: len(plain) // 4 * 4] if len(plain) % 4 == 1 else plain + "=" * (-len(plain) % 4))
