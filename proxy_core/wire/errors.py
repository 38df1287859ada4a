"""Errors of our own in the words of each dialect: as a whole body, or as an event inside a stream.

Takes plain strings, so nothing here depends on the exception tree. The text is always valid UTF-8 JSON on one line,
whatever the message holds; a message can therefore never break out of its event.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.dialects import Dialect, Operation


def error_body(
    dialect: Dialect, *, message: str, openai_type: str, openai_code: str, anthropic_type: str, transaction_id: str
) -> bytes:
    """The JSON body of an error response, without a final newline."""
    if dialect is Dialect.ANTHROPIC:
        return _json(_anthropic_error(message, anthropic_type, transaction_id))
    if dialect is Dialect.OLLAMA:
        return _json({"error": _clean(message)})
    return _json(_openai_error(message, openai_type, openai_code))


def stream_error(
    dialect: Dialect,
    operation: Operation,
    *,
    message: str,
    openai_type: str,
    openai_code: str,
    anthropic_type: str,
    transaction_id: str,
    sequence_number: int = 0,
) -> bytes:
    """One whole event that tells the client of an error after the stream has begun.

    It must follow a whole event: a caller that has sent half of one ends it with `\\n\\n` (SSE) or `\\n` (NDJSON) first.
    `sequence_number` is the next number of a Responses stream, where the caller knows it.
    """
    if dialect is Dialect.OLLAMA:
        return _json({"error": _clean(message)}) + b"\n"
    if dialect is Dialect.ANTHROPIC:
        return b"event: error\ndata: " + _json(_anthropic_error(message, anthropic_type, transaction_id)) + b"\n\n"
    if operation is Operation.RESPONSES:
        event = {
            "type": "error",
            "code": openai_code,
            "message": _clean(message),
            "param": None,
            "sequence_number": sequence_number,
        }
        return b"event: error\ndata: " + _json(event) + b"\n\n"
    return b"data: " + _json(_openai_error(message, openai_type, openai_code)) + b"\n\n"


def _openai_error(message: str, error_type: str, code: str) -> dict[str, Any]:
    return {"error": {"message": _clean(message), "type": error_type, "param": None, "code": code}}


def _anthropic_error(message: str, error_type: str, transaction_id: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": error_type, "message": _clean(message)}, "request_id": transaction_id}


def _clean(message: str) -> str:
    """Lone surrogates cannot be sent as UTF-8."""
    return message.encode("utf-8", "replace").decode("utf-8")


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
