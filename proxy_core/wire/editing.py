"""Changes to request and response bodies that leave everything else as it was.

What is not touched keeps its bytes: unknown fields, number forms, order of keys. What is touched is encoded in its dialect.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

_fields = msgspec.json.Decoder(dict[str, Raw])


class UnreadableBody(ValueError):
    """The body is not of the dialect's form, so it cannot be changed."""


TextKind: TypeAlias = Literal["text", "tool_result", "tool_arguments"]


class TextPart(Struct, frozen=True):
    """One text of a request."""

    role: str
    """`system`, `developer`, `user`, `assistant`, `tool`, or the wire's own word."""
    kind: TextKind
    text: str
    """Of `tool_arguments`: the JSON text."""
    message: int
    """Number of the message in the history, from 0; -1 for a system prompt that stands outside it."""
    last_user: bool = False
    """Whether it belongs to the last message that a user wrote."""


def set_field(body: bytes, name: str, value: Any) -> bytes:
    """Set one top-level field of a JSON object; the others keep their bytes. Raises UnreadableBody."""
    try:
        fields: dict[str, Any] = _fields.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableBody(f"the body is not a JSON object: {error}") from error
    fields[name] = value
    return msgspec.json.encode(fields)
