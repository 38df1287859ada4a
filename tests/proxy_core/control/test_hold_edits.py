"""What an operator may put in the place of what is held."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from proxy_core.control.hold_edits import check_edit
from proxy_core.control.hold_subject import HoldSubject
from proxy_core.control.plane import ControlInvalid
from proxy_core.policies.testing import answer_body, answer_stream, request_body
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from tests.proxy_core.control.hold_fixtures import tool_call

SCHEMA = {
    "type": "object",
    "properties": {"command": {"type": "string", "maxLength": 40}, "timeout": {"type": "integer"}},
    "required": ["command"],
    "additionalProperties": False,
}
CONVERSATIONS = [Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.OLLAMA_CHAT]


def refusal(subject: HoldSubject, edited: str) -> str:
    with pytest.raises(ControlInvalid) as raised:
        check_edit(subject, edited)
    assert raised.value.field == "edited"
    return raised.value.message


def with_schema(schema: Any) -> HoldSubject:
    return tool_call(tool_schema=schema if isinstance(schema, str) else json.dumps(schema))


@pytest.mark.parametrize(
    ("edited", "says"),
    [
        ("", "line 1, column 1"),
        ('{"command": "ls"', "line 1, column"),
        ("[]", "JSON object"),
        ('"rm"', "JSON object"),
        ("null", "JSON object"),
        ('{"a": NaN}', "NaN"),
        ('{"command": "ls", "command": "rm -rf /"}', "'command' is given twice"),
        ('{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "deep"),
        ('{"a": "\ud800"}', "surrogate"),
    ],
)
def test_arguments_are_one_json_object(edited: str, says: str) -> None:
    assert says in refusal(tool_call(), edited)


def test_arguments_fit_the_tools_schema() -> None:
    subject = with_schema(SCHEMA)
    check_edit(subject, '{"command": "ls", "timeout": 5}')
    assert "command" in refusal(subject, "{}")
    assert "timeout" in refusal(subject, '{"command": "ls", "timeout": "soon"}')
    assert "shell" in refusal(subject, '{"command": "ls", "shell": "zsh"}')
    assert len(refusal(subject, json.dumps({"command": "x" * 100_000}))) < 1_000


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{not json",
        "[]",
        {"type": "strin"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "https://example.org/own-dialect"},
        {"properties": {"command": {"pattern": "(?<=a)b"}}},
        "[" * 100_000,
    ],
)
def test_a_schema_that_cannot_be_used_is_left_aside(schema: Any) -> None:
    check_edit(with_schema(schema), '{"command": "ls"}')
    refusal(with_schema(schema), "[]")


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"properties": {"command": {"pattern": "^(a+)+$"}}}])
def test_a_hostile_schema_costs_no_time(schema: Any) -> None:
    started = time.thread_time()
    try:
        check_edit(with_schema(schema), json.dumps({"command": "a" * 5_000 + "!"}))
    except ControlInvalid:
        pass
    assert time.thread_time() - started < 0.5


@pytest.mark.parametrize("operation", CONVERSATIONS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_stays_one_of_its_dialect(operation: Operation, stream: bool) -> None:
    body = request_body(operation, "Delete it all", stream=stream).decode()
    subject = tool_call(stage=Stage.REQUEST, operation=operation, content=body, tool="")
    check_edit(subject, body.replace("Delete it all", "List it all"))
    assert refusal(subject, "{")
    assert refusal(subject, "[]")
    other = request_body(operation, "Delete it all", stream=not stream).decode()
    assert "stream" in refusal(subject, other)


@pytest.mark.parametrize("operation", CONVERSATIONS)
def test_an_answer_stays_one_of_its_dialect(operation: Operation) -> None:
    body = answer_body(operation, "Paris").decode()
    subject = tool_call(stage=Stage.RESPONSE, operation=operation, content=body, tool="")
    check_edit(subject, body.replace("Paris", "Rome"))
    assert refusal(subject, "Rome")
    assert refusal(subject, "[]")


@pytest.mark.parametrize("operation", CONVERSATIONS)
def test_a_stream_keeps_its_end(operation: Operation) -> None:
    body = answer_stream(operation, ["Par", "is"]).decode()
    subject = tool_call(stage=Stage.RESPONSE, operation=operation, content=body, tool="", streamed=True)
    check_edit(subject, body.replace("Par", "Mad"))
    boundary = "\n" if operation is Operation.OLLAMA_CHAT else "\n\n"
    assert "no end" in refusal(subject, boundary.join(body.split(boundary)[:2]) + boundary)
    assert refusal(subject, body[: len(body) // 3])
    assert refusal(subject, "")


def test_what_nobody_reads_stays_json_where_it_was() -> None:
    subject = tool_call(stage=Stage.REQUEST, operation=Operation.OTHER, content='{"file": 1}', tool="")
    check_edit(subject, '{"file": 2}')
    assert refusal(subject, "file 2")
    plain = tool_call(stage=Stage.REQUEST, operation=Operation.OTHER, content="file 1", tool="")
    check_edit(plain, "file 2")
