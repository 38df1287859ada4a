"""What kind of error an answer is: the word of its body where it has one, else a word for its status.

OpenAI's bodies say it by `code`, then `type`; Anthropic's by the `type` of `error`. Pure functions that never raise.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

_OPENAI = {
    400: "bad_request",
    401: "authentication_error",
    403: "permission_denied",
    404: "not_found",
    429: "rate_limit_error",
    500: "server_error",
    502: "bad_gateway",
    503: "service_unavailable",
}
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
MAX_MESSAGE_CHARS = 2_000


class AnswerFault(Struct, frozen=True):
    """An error as an event tells it."""

    type: str
    message: str


def type_of_status(dialect: str, status: int) -> str:
    """The word for a status where the body has none."""
    table = _ANTHROPIC if dialect == "anthropic" else _OPENAI
    return table.get(status, f"http_{status}")


def fault_of(dialect: str, status: int, body: bytes) -> AnswerFault | None:
    """The error that a whole answer is; None for one that is none."""
    value = _read(body)
    error = _error_in(dialect, value)
    if status < 400 and error is None:
        return None
    word, message = "", ""
    if isinstance(error, dict):
        names = ("type",) if dialect == "anthropic" else ("code", "type")
        word = next((text for name in names if isinstance(text := error.get(name), str) and text), "")
        said = error.get("message")
        message = said if isinstance(said, str) else ""
    elif isinstance(error, str):
        message = error
    elif isinstance(value, str):
        message = value
    inferred = type_of_status(dialect, status) if status >= 400 else "error"
    return AnswerFault(word[:200] or inferred, message[:MAX_MESSAGE_CHARS] or f"HTTP {status}")


def _error_in(dialect: str, value: Any) -> Any:
    """What stands for the error in a body; None where it reports none."""
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if dialect == "anthropic" and value.get("type") == "error":
        return error or {}
    return error or None


def _read(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return body.decode("utf-8", "replace").strip() if body[:1] not in b'{["<' else None
