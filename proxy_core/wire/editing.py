"""Changes to request and response bodies that leave everything else as it was.

What is not touched keeps its bytes: unknown fields, number forms, order of keys. What is touched is encoded in its
dialect. A body that two readers could take for different things is not changed: UnreadableBody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from proxy_core.wire.conversation import Block
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_json import UnreadableBody, json_of, open_object
from proxy_core.wire.editing_requests import TextKind, TextPart, edit_request_texts

__all__ = [
    "TextKind",
    "TextPart",
    "UnreadableBody",
    "edit_answer",
    "edit_request_texts",
    "last_user_text",
    "set_field",
    "set_model",
]


def edit_answer(
    operation: Operation, content_type: str, body: bytes, edit: Callable[[Block], Sequence[Block] | None]
) -> tuple[bytes, int]:
    """Give every block of a whole answer to `edit`; it returns what stands in its place, or None to leave it.

    An empty sequence removes the block. Ids, usage, unknown fields and the order of what stays are kept; a stop reason
    changes only where it became false. Returns the body (the same object where nothing changed) and how many blocks
    changed. Raises UnreadableBody, and what `edit` raises.
    """
    if content_type.lower().startswith(("text/event-stream", "application/x-ndjson")):
        from proxy_core.wire.stream_editing import edit_stream

        return edit_stream(operation, body, edit)
    from proxy_core.wire.editing_answers import edit_answer_body

    return edit_answer_body(operation, body, edit)


def set_field(body: bytes, name: str, value: Any) -> bytes:
    """Set one top-level field of a JSON object; the others keep their bytes. Raises UnreadableBody."""
    fields = open_object(body, (name,))
    new = json_of(value)
    if name in fields and bytes(fields[name]) == bytes(new):
        return body
    fields[name] = new
    return bytes(json_of(fields))


def set_model(operation: Operation, body: bytes, model: str) -> bytes:
    """Set the model that a request asks for. Raises UnreadableBody."""
    return set_field(body, "model", model)


def last_user_text(operation: Operation, body: bytes) -> str:
    """What the user wrote last, its parts one paragraph each; empty where there is nothing. Raises UnreadableBody."""
    texts: list[str] = []

    def collect(part: TextPart) -> None:
        if part.last_user:
            texts.append(part.text)

    edit_request_texts(operation, body, collect)
    return "\n\n".join(texts)
