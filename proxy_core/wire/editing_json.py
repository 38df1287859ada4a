"""JSON that is opened one level at a time, so that what nobody touches keeps its bytes.

An object whose keys could be read in two ways is refused: twice the same key, or a key that differs from one that
matters in upper and lower case only (readers in Go take both). Raises nothing but UnreadableBody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from proxy_core.wire.tolerant_json import UNREADABLE, first_byte

__all__ = [
    "Fields",
    "UnreadableBody",
    "first_byte",
    "json_from",
    "json_of",
    "json_text",
    "open_items",
    "open_object",
    "parsed",
    "text_of",
    "value_of",
    "word_of",
]

Parsed = TypeVar("Parsed")
Fields = dict[str, Raw]
"""The members of an object, each as its exact bytes."""

_fields = msgspec.json.Decoder(Fields)
_items = msgspec.json.Decoder(list[Raw])
_text = msgspec.json.Decoder(str)
_value = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_KEY = re.compile(rb'[ \t\n\r]*"[^"\\]*(?:\\.[^"\\]*)*"[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_AFTER = re.compile(rb"[ \t\n\r]*([,}])")


class UnreadableBody(ValueError):
    """The body is not of the dialect's form, so it cannot be changed."""


def open_object(raw: bytes | Raw, known: Collection[str] = ()) -> Fields:
    """The members of a JSON object; `known` are the keys that matter to the caller."""
    data = bytes(raw)
    try:
        fields = _fields.decode(data)
        compact = len(_encoder.encode(fields)) == len(data)
    except UNREADABLE as error:
        raise UnreadableBody(f"not a JSON object that can be read: {error}") from error
    if not compact and not _keys_are_unique(data, fields):
        raise UnreadableBody("an object of the body has the same key twice")
    if known:
        for name in fields:
            if name not in known and name.casefold() in known:
                raise UnreadableBody(f"the key {name!r} differs from {name.casefold()!r} in upper and lower case only")
    return fields


def _keys_are_unique(data: bytes, fields: Fields) -> bool:
    """Whether `data` holds no more members than `fields`, which were decoded from it."""
    position = data.index(b"{") + 1
    if not fields:
        return True
    for raw in fields.values():
        key, value = _KEY.match(data, position), bytes(raw)
        if key is None or not data.startswith(value, key.end()):
            return False
        after = _AFTER.match(data, key.end() + len(value))
        if after is None:
            return False
        position = after.end()
    return data[position - 1 : position] == b"}"


def open_items(raw: bytes | Raw) -> list[Raw]:
    """The items of a JSON array."""
    try:
        return _items.decode(raw)
    except UNREADABLE as error:
        raise UnreadableBody(f"not a JSON array that can be read: {error}") from error


def text_of(raw: bytes | Raw) -> str:
    """The text of a JSON string."""
    try:
        return _text.decode(raw)
    except UNREADABLE as error:
        raise UnreadableBody(f"not a JSON string that can be read: {error}") from error


def value_of(raw: bytes | Raw) -> Any:
    """Any JSON value."""
    try:
        return _value.decode(raw)
    except UNREADABLE as error:
        raise UnreadableBody(f"not JSON that can be read: {error}") from error


def word_of(fields: Mapping[str, Raw], name: str) -> str:
    """The text under `name`; empty where there is none."""
    raw = fields.get(name)
    return text_of(raw) if raw is not None and first_byte(raw) == b'"' else ""


def json_of(value: Any) -> Raw:
    """`value` as JSON. Raises UnreadableBody for text that no JSON can carry, as lone surrogates."""
    try:
        return Raw(_encoder.encode(value))
    except (*UNREADABLE, TypeError) as error:
        raise UnreadableBody(f"the new value cannot be written as JSON: {error}") from error


def json_text(raw: bytes | Raw) -> str:
    """JSON as text, byte for byte."""
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise UnreadableBody(f"the JSON is not UTF-8: {error}") from error


def json_from(text: str, like: bytes) -> Raw:
    """JSON text as it goes on the wire; `like` is the first byte (`{` or `[`) that it must have."""
    try:
        data = text.strip(" \t\r\n").encode()
        _value.decode(data)
    except UNREADABLE as error:
        raise UnreadableBody(f"the new arguments are not JSON: {error}") from error
    if data[:1] != like:
        raise UnreadableBody("the new arguments are not a JSON " + ("object" if like == b"{" else "array"))
    return Raw(data)


def parsed(parse: Callable[[bytes], Parsed], raw: bytes | Raw) -> Parsed:
    """What `parse` reads in `raw`, where it may raise what a decoder raises."""
    try:
        return parse(bytes(raw))
    except UNREADABLE as error:
        raise UnreadableBody(f"a part of the body cannot be read: {error}") from error
