"""Changes to request and response bodies that leave everything else as it was.

What is not touched keeps its bytes: unknown fields, number forms, order of keys. What is touched is encoded in its
dialect. A body that two readers could take for different things is not changed: UnreadableBody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Block, TextBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_answers import edit_answer_body
from proxy_core.wire.editing_json import UnreadableBody, first_byte, json_of, open_items, open_object, text_of, word_of
from proxy_core.wire.editing_requests import TextKind, TextPart, edit_request_texts

__all__ = [
    "TextKind",
    "TextPart",
    "UnreadableBody",
    "answer_texts",
    "append_system_text",
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
    if content_type.lower().startswith(("text/event-stream", "application/x-ndjson")) or _is_stream(operation, body):
        from proxy_core.wire.stream_editing import edit_stream

        return edit_stream(operation, body, edit)
    return edit_answer_body(operation, body, edit)


def _is_stream(operation: Operation, body: bytes) -> bool:
    """Whether a body is a stream although its headers do not say so."""
    if operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE):
        first, _, rest = body.strip().partition(b"\n")
        return bool(rest) and _is_object(first)
    return body[:64].lstrip().startswith((b"data:", b"event:", b":"))


def _is_object(line: bytes) -> bool:
    try:
        open_object(line)
    except UnreadableBody:
        return False
    return True


def answer_texts(operation: Operation, body: bytes) -> tuple[str, ...]:
    """The texts of an answer, whole or streamed, in order; those of all choices. Raises UnreadableBody."""
    codec = codec_for(operation)
    if codec is None:
        return ()
    answer = codec.read_response(body)
    if answer.problem is not None and not answer.blocks:
        raise UnreadableBody(answer.problem)
    return tuple(block.text for block in answer.blocks if isinstance(block, TextBlock))


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


def append_system_text(operation: Operation, body: bytes, text: str) -> bytes:
    """Add a paragraph to the system prompt, which begins with it where there is none.

    Raises UnreadableBody, also for operations that have no system prompt.
    """
    if operation is Operation.RESPONSES:
        return _append_to_field(body, "instructions", text, {"type": "message", "role": "developer", "content": text})
    if operation in (Operation.MESSAGES, Operation.COUNT_TOKENS, Operation.OLLAMA_GENERATE):
        return _append_to_field(body, "system", text, {"type": "text", "text": text})
    if operation not in (Operation.CHAT, Operation.OLLAMA_CHAT):
        raise UnreadableBody("this operation has no system prompt")
    fields = open_object(body, ("messages",))
    messages = open_items(fields["messages"]) if "messages" in fields else []
    for number, raw in enumerate(messages):
        message = open_object(raw, ("role", "content"))
        if word_of(message, "role") in ("system", "developer"):
            message["content"] = _appended(message.get("content"), text, {"type": "text", "text": text})
            messages[number] = json_of(message)
            break
    else:
        messages.insert(0, json_of({"role": "system", "content": text}))
    fields["messages"] = json_of(messages)
    return bytes(json_of(fields))


def _append_to_field(body: bytes, name: str, text: str, item: dict[str, str]) -> bytes:
    fields = open_object(body, (name,))
    fields[name] = _appended(fields.get(name), text, item)
    return bytes(json_of(fields))


def _appended(old: Raw | None, text: str, item: dict[str, str]) -> Raw:
    """`old` and `text`: as one string, or as a list with one item more."""
    first = b"n" if old is None else first_byte(old)
    if old is None or first == b"n":
        return json_of(text)
    if first == b"[":
        return json_of([*open_items(old), item])
    if first != b'"':
        raise UnreadableBody("the system prompt is neither text nor a list")
    before = text_of(old)
    return json_of(f"{before}\n\n{text}" if before else text)
