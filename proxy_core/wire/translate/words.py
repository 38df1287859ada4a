"""Words of one dialect in another's: why an answer stopped, and what kind of error it was."""

from __future__ import annotations

from msgspec import Struct

from proxy_core.wire.dialects import Operation

_MEANINGS = {
    "length": "length",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "calls",
    "function_call": "calls",
    "tool_use": "calls",
    "content_filter": "refusal",
    "refusal": "refusal",
}
_STOP_WORDS = {
    Operation.CHAT: {"end": "stop", "length": "length", "calls": "tool_calls", "refusal": "content_filter"},
    Operation.MESSAGES: {"end": "end_turn", "length": "max_tokens", "calls": "tool_use", "refusal": "refusal"},
    Operation.OLLAMA_CHAT: {"end": "stop", "length": "length", "calls": "stop", "refusal": "stop"},
}


def stop_word(target: Operation, reason: str | None, *, calls: bool) -> str:
    """`reason` of any dialect in the word of `target`; `calls` tells whether the answer calls tools."""
    meaning = _MEANINGS.get(reason or "", "end")
    if meaning in ("end", "calls"):
        meaning = "calls" if calls else "end"
    return _STOP_WORDS[target][meaning]


class ErrorWords(Struct, frozen=True):
    """One kind of error in the words of the dialects that have words for it."""

    openai_type: str
    openai_code: str
    anthropic_type: str


_BY_STATUS = {
    400: ErrorWords("invalid_request_error", "invalid_request", "invalid_request_error"),
    401: ErrorWords("authentication_error", "invalid_api_key", "authentication_error"),
    402: ErrorWords("insufficient_quota", "insufficient_quota", "billing_error"),
    403: ErrorWords("permission_error", "permission_denied", "permission_error"),
    404: ErrorWords("not_found_error", "not_found", "not_found_error"),
    408: ErrorWords("timeout_error", "timeout", "timeout_error"),
    413: ErrorWords("invalid_request_error", "request_too_large", "request_too_large"),
    429: ErrorWords("rate_limit_error", "rate_limit_exceeded", "rate_limit_error"),
    500: ErrorWords("server_error", "server_error", "api_error"),
    504: ErrorWords("timeout_error", "timeout", "timeout_error"),
    503: ErrorWords("overloaded_error", "overloaded", "overloaded_error"),
    529: ErrorWords("overloaded_error", "overloaded", "overloaded_error"),
}
_STATUS_OF_WORD = {
    word: status
    for status, words in reversed(_BY_STATUS.items())
    for word in (words.openai_type, words.openai_code, words.anthropic_type)
}


def error_words(status: int, said: str = "") -> ErrorWords:
    """The words for an error: by what the upstream `said` where that is known, else by its status (0 for none)."""
    if status < 400:
        status = _STATUS_OF_WORD.get(said, 500)
    return _BY_STATUS.get(status) or _BY_STATUS[400 if status < 500 else 500]
