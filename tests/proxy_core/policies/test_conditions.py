"""Conditions: what each kind says of values, what paths find, and what is refused when a condition is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy_core.policies.conditions import Condition, evaluate, paths_of
from proxy_core.policies.testing import context_for, request_body
from proxy_core.policies.transaction_paths import at_path, resolver
from proxy_core.wire.dialects import Operation

CONDITION: TypeAdapter[Condition] = TypeAdapter(Condition)


def holds(kind: str, left: Any, right: Any) -> bool:
    condition = {"type": kind, "left": {"type": "static", "value": left}, "right": {"type": "static", "value": right}}
    return evaluate(CONDITION.validate_python(condition), lambda path: None)


@pytest.mark.parametrize(
    ("kind", "left", "right", "expected"),
    [
        ("equals", 1, 1, True),
        ("equals", 1, 1.0, True),
        ("equals", 1, "1", False),
        ("equals", 1, True, False),
        ("equals", 0, False, False),
        ("equals", True, True, True),
        ("equals", [1, 2], [2, 1], False),
        ("equals", [1, True], [1, 1], False),
        ("equals", {"a": [1]}, {"a": [1]}, True),
        ("equals", {"a": 1}, {"a": True}, False),
        ("equals", None, None, True),
        ("equals", None, "", False),
        ("equals", "é", "e\u0301", False),
        ("not_equals", 1, 2, True),
        ("not_equals", 1, 1, False),
        ("not_equals", 1, "1", True),
        ("contains", "abc", "a", True),
        ("contains", "ac", "abc", False),
        ("contains", "abc", "", True),
        ("contains", [1, 2, 3], 1, True),
        ("contains", [1, 2, 3], "1", False),
        ("contains", [1, 2, 3], True, False),
        ("contains", [1, 2, 3], [1], False),
        ("contains", {"a": 1}, "a", True),
        ("contains", {"a": 1}, "b", False),
        ("contains", "abc", 1, False),
        ("contains", None, "a", False),
        ("contains", 12, 1, False),
        ("less_than", 1, 2, True),
        ("less_than", 2, 2, False),
        ("less_than", "a", "b", True),
        ("less_than", "1", 2, False),
        ("less_than", None, 2, False),
        ("less_than", False, 2, False),
        ("less_than_or_equal", 2, 2, True),
        ("greater_than", 3, 2, True),
        ("greater_than", 2, 2, False),
        ("greater_than_or_equal", 2.5, 2, True),
        ("greater_than_or_equal", None, None, False),
        ("regex_match", "abc", "^b", False),
        ("regex_match", "abc", "b", True),
        ("regex_match", 12, "1", False),
        ("regex_match", None, "", False),
    ],
)
def test_each_comparison(kind: str, left: Any, right: Any, expected: bool) -> None:
    assert holds(kind, left, right) is expected


def test_all_of_none_holds_and_any_of_none_does_not() -> None:
    def of(value: Any) -> bool:
        return evaluate(CONDITION.validate_python(value), lambda path: None)

    yes, no = {"type": "equals", "left": 1, "right": 1}, {"type": "equals", "left": 1, "right": 2}
    assert of({"type": "all", "conditions": []})
    assert not of({"type": "any", "conditions": []})
    assert of({"type": "not", "condition": no})
    assert not of({"type": "not", "cond": yes})
    assert of({"type": "not", "value": {"type": "all", "conditions": [yes, no]}})
    assert of({"type": "any", "conditions": [no, {"type": "all", "conditions": [yes, yes]}]})


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ({"type": "equalss", "left": 1, "right": 1}, "equalss"),
        ({"type": "equals", "left": 1}, "Field required"),
        ({"type": "regex_match", "left": "a", "right": "["}, "no regular expression: unterminated character set"),
        ({"type": "regex_match", "left": "a", "right": "a{99999999999}"}, "no regular expression"),
        ({"type": "regex_match", "left": "a", "right": {"path": "request.model"}}, "traffic cannot choose patterns"),
        ({"type": "equals", "left": {"path": "reqest.payload"}, "right": 1}, "did you mean request?"),
        ({"type": "equals", "left": {"path": "request.playload.model"}, "right": 1}, "did you mean payload?"),
        ({"type": "equals", "left": {"path": ""}, "right": 1}, "leads nowhere"),
        ({"type": "equals", "left": {"type": "dynamic"}, "right": 1}, "give a static value or {path: …}"),
        ({"type": "equals", "left": 1, "right": 1, "comparator": "less_than"}, "contradicts the type"),
        ({"type": "equals", "left": 1, "right": 1, "other": 1}, "Extra inputs"),
        ({"type": "not"}, "Field required"),
        ("equals", "valid dictionary"),
    ],
)
def test_what_can_never_hold_is_refused_when_it_is_read(condition: Any, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CONDITION.validate_python(condition)
    assert said in str(refused.value)


def test_json_round_trips_exactly() -> None:
    text = json.dumps(
        {
            "type": "all",
            "conditions": [
                {
                    "type": "equals",
                    "left": {"type": "transaction_path", "path": "request.payload.messages.-1.content", "transform": "lower"},
                    "right": {"type": "static", "value": [1, "ü", None, {"a": 1.5}]},
                },
                {
                    "type": "not",
                    "condition": {
                        "type": "regex_match",
                        "left": {"type": "transaction_path", "path": "agent", "transform": "none"},
                        "right": {"type": "static", "value": "^a\\d"},
                    },
                },
            ],
        }
    )
    condition = CONDITION.validate_json(text)
    assert json.loads(CONDITION.dump_json(condition)) == json.loads(text)
    assert CONDITION.validate_json(CONDITION.dump_json(condition)) == condition
    assert paths_of(condition) == {"request.payload.messages.-1.content", "agent"}


def test_paths_find_what_is_there_and_nothing_elsewhere() -> None:
    value = {"a": [{"b": 1}, [2]], "": 3}
    for path, expected in [("a.0.b", 1), ("a.-1.0", 2), ("a.2", None), ("a.x", None), ("a.0.b.c", None), ("", 3), ("a.-9", None)]:
        assert at_path(value, path.split(".")) == expected, path


def test_a_transaction_is_read_by_path() -> None:
    context = context_for(
        Operation.CHAT,
        text="Top SECRET",
        headers=[(b"authorization", b"Bearer sk-1"), (b"x-team", b"red"), (b"x-team", b"blue")],
        key="alice",
    )
    context.tags["project"] = "apollo"
    context.data["seen"] = {"count": 2}
    resolve = resolver(context)
    found = {
        "request.payload.model": "m-1",
        "request.payload.messages.0.content": "Top SECRET",
        "request.model": "m-1",
        "request.last_user_text": "Top SECRET",
        "request.headers.x-team": "red",
        "request.api_key": "sk-1",
        "request.method": "POST",
        "request.target": "/v1/chat/completions",
        "request.size": len(context.request_body),
        "key": "alice",
        "tags.project": "apollo",
        "data.seen.count": 2,
        "route.upstream": "openai",
        "dialect": "openai",
        "operation": "chat",
        "stream": False,
        "request.payload.absent.0": None,
        "response.status": None,
        "response.payload.id": None,
    }
    assert {path: resolve(path) for path in found} == found
    context.set_response(429, [(b"content-type", b"application/json")], b'{"error": {"code": 7}}')
    resolve = resolver(context)
    assert (resolve("response.status"), resolve("response.payload.error.code")) == (429, 7)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_bodies_that_cannot_be_read_have_no_values(body: bytes) -> None:
    resolve = resolver(context_for(Operation.CHAT, body))
    assert resolve("request.payload.model") is None
    assert resolve("request.model") is None


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}], "one"),
        ([{"role": "user", "content": "one"}, {"role": "user", "content": ""}], ""),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "a\nb"),
        ([{"role": "system", "content": "one"}], ""),
    ],
)
def test_the_last_thing_that_a_user_wrote(messages: list[Any], expected: str) -> None:
    body = json.dumps({"model": "m", "messages": messages}).encode()
    assert resolver(context_for(Operation.CHAT, body))("request.last_user_text") == expected


def test_a_tool_result_is_not_what_a_user_wrote() -> None:
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "w", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "internal"}]},
    ]
    body = json.dumps({"model": "m", "max_tokens": 1, "messages": messages}).encode()
    assert resolver(context_for(Operation.MESSAGES, body))("request.last_user_text") == "weather?"


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES, Operation.OLLAMA_CHAT])
def test_transforms(operation: Operation) -> None:
    resolve = resolver(context_for(operation, request_body(operation, "ÄB🙂")))
    path = {"type": "transaction_path", "path": "request.last_user_text"}
    lower = {"type": "contains", "left": path | {"transform": "lower"}, "right": "äb"}
    length = {"type": "equals", "left": path | {"transform": "length"}, "right": 3}
    of_nothing = {"type": "less_than_or_equal", "left": {"path": "request.size", "transform": "length"}, "right": 1000}
    assert [evaluate(CONDITION.validate_python(one), resolve) for one in (lower, length, of_nothing)] == [True, True, False]
