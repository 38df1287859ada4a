"""Errors as upstreams report them: in bodies and in stream events, in every shape that has been seen.

Every function takes a decoded JSON value of any type and never raises.
"""

from __future__ import annotations

import re
from typing import Any

from proxy_core.wire.conversation import Answer, AnswerError
from proxy_core.wire.tolerant_json import as_json_text, as_object, plain, read

_MAX_MESSAGE_CHARS = 2000
_MARKUP = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]{0,2000}>", re.DOTALL | re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]{0,200}>(.{1,500}?)</title>", re.DOTALL | re.IGNORECASE)


def reported_error(value: Any) -> AnswerError | None:
    """The error that a whole body reports, or None where it reports none."""
    if isinstance(value, dict):
        error = value.get("error")
        if error:
            return error_of(error, value)
        if value.get("object") == "error" or value.get("type") == "error":
            return error_of(value, value)
        if "detail" in value:
            return AnswerError(_word(value, "error"), _cut(as_json_text(value["detail"])))
        if isinstance(value.get("message"), str):
            return error_of(value, value)
        return None
    if isinstance(value, list) and len(value) == 1:
        return reported_error(value[0])
    if isinstance(value, str) and value:
        return AnswerError("text", _cut(value))
    return None


def error_of(error: Any, around: Any = None) -> AnswerError:
    """The error in what stands under `error`, with what stands `around` it."""
    if isinstance(error, dict):
        message = next((as_json_text(error[key]) for key in ("message", "detail", "msg", "error") if error.get(key)), "")
        return AnswerError(_word(error, "error"), _cut(message or as_json_text(error)))
    outer = as_object(around)
    message = as_json_text(error)
    if isinstance(error, str) and isinstance(outer.get("message"), str):
        return AnswerError(_cut(error), _cut(outer["message"]))
    return AnswerError(_word(outer, "error"), _cut(message))


def unreadable_answer(body: bytes, problem: str) -> Answer:
    """What can be said of a body that is no JSON: HTML and plain text are errors that something on the way reported."""
    start = body[:65536].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start or start[:1] in b'{["' or problem.startswith("the JSON"):
        return Answer(complete=False, problem=problem)
    text = start.decode("utf-8", "replace")
    if text.startswith("<"):
        title = _TITLE.search(text)
        message = title.group(1) if title else _MARKUP.sub(" ", text)
        return Answer(error=AnswerError("html", _cut(" ".join(message.split()))), problem=problem)
    if "\ufffd" in text or "\0" in text:
        return Answer(problem=problem)
    return Answer(error=AnswerError("text", _cut(text.strip())), problem=problem)


def other_answer(body: bytes) -> Answer:
    """The answer in JSON that is not the object which the API answers with."""
    value, problem = read(body, plain)
    if problem is not None and value is None:
        return unreadable_answer(body, problem)
    error = reported_error(value)
    return Answer(error=error, problem=problem if error else "the body is no object of its API")


def _word(error: dict[str, Any], default: str) -> str:
    """The error's own word for its kind."""
    for key in ("type", "code", "status", "status_code", "statusCode"):
        word = error.get(key)
        if (isinstance(word, str) and word and not (key == "type" and word == "error" and error.get("code"))) or type(
            word
        ) is int:
            return str(word)[:200]
    return default


def _cut(message: str) -> str:
    return message[:_MAX_MESSAGE_CHARS]
