"""What an operator may put in the place of something held: checked before it is taken, so that it cannot break the client.

Arguments must be a JSON object that the tool's schema allows; a request or response must be readable in its dialect, and
keep what the client relies on. A schema comes from the client: no reference in it is ever followed outside it, and its
patterns are matched in linear time. One that cannot be used is left aside.
"""

from __future__ import annotations

import json
from typing import Any

from proxy_core.control.hold_subject import HoldSubject
from proxy_core.control.plane import ControlInvalid
from proxy_core.verdicts import Stage
from proxy_core.wire.codec import codec_for

MAX_SCHEMA_CHARS = 1_000_000
MAX_FAULTS = 3
_FIELD = "edited"


def check_edit(subject: HoldSubject, edited: str) -> None:
    """Raise ControlInvalid for a text that cannot stand in the subject's place."""
    try:
        body = edited.encode()
    except UnicodeEncodeError as error:
        raise ControlInvalid(_FIELD, f"character {error.start + 1} is half of a surrogate pair") from error
    if subject.stage is Stage.TOOL_CALL:
        arguments = _object(edited, "arguments are a JSON object")
        _check_schema(subject.tool_schema, arguments)
    elif subject.stage is Stage.REQUEST:
        _check_request(subject, edited, body)
    else:
        _check_response(subject, edited, body)


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ControlInvalid(_FIELD, f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        message = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise ControlInvalid(_FIELD, message) from error
    if not isinstance(value, dict):
        raise ControlInvalid(_FIELD, what)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _check_schema(schema: str, arguments: dict[str, Any]) -> None:
    if not schema or len(schema) > MAX_SCHEMA_CHARS:
        return
    import jsonschema_rs

    try:
        validator = jsonschema_rs.validator_for(
            json.loads(schema), retriever=_refuse, pattern_options=jsonschema_rs.RegexOptions(size_limit=1_000_000)
        )
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError):
        return
    faults = []
    for fault in validator.iter_errors(arguments):
        place = ".".join(str(step) for step in fault.instance_path)
        faults.append(f"{place}: {fault.message}"[:300] if place else fault.message[:300])
        if len(faults) == MAX_FAULTS:
            break
    if faults:
        raise ControlInvalid(_FIELD, f"the tool's schema does not allow it: {'; '.join(faults)}")


def _refuse(uri: str) -> Any:
    raise ValueError("schemas are not fetched")


def _check_request(subject: HoldSubject, edited: str, body: bytes) -> None:
    codec = codec_for(subject.operation)
    if codec is None:
        if _is_object(subject.content):
            _object(edited, "the request was a JSON object")
        return
    _object(edited, "a request is a JSON object")
    conversation = codec.read_request(body)
    if conversation.problem is not None:
        raise ControlInvalid(_FIELD, conversation.problem)
    wants_stream = codec.read_request(subject.content.encode()).stream
    if conversation.stream is not wants_stream:
        wanted = "a stream" if wants_stream else "no stream"
        raise ControlInvalid(_FIELD, f"keep `stream` as it is: the client waits for {wanted}")


def _check_response(subject: HoldSubject, edited: str, body: bytes) -> None:
    codec = codec_for(subject.operation)
    if subject.streamed:
        if codec is None:
            return
        decoder = codec.stream_decoder()
        decoder.feed(body)
        answer = decoder.finish()
        if answer.problem is None and not answer.complete:
            raise ControlInvalid(_FIELD, "the stream has no end")
    else:
        if _is_object(subject.content):
            _object(edited, "the response was a JSON object")
        if codec is None:
            return
        answer = codec.read_response(body)
    if answer.problem is not None:
        raise ControlInvalid(_FIELD, answer.problem)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
