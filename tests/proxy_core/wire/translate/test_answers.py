"""An answer says the same in another dialect, in a form that the vendors' own types accept."""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import ThinkingBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.translate import UnreadableBody, translate_response
from tests.proxy_core.wire.test_codecs_survive import SHAPES, UGLY
from tests.proxy_core.wire.translate.test_requests import CHAT, MESSAGES, OLLAMA, PAIRS

TID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
TYPES: dict[Operation, Any] = {CHAT: ChatCompletion, MESSAGES: Message, OLLAMA: ollama.ChatResponse}

CHAT_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1755008546, "model": "m",
    "choices": [{"index": 0, "finish_reason": "tool_calls", "logprobs": None, "message": {
        "role": "assistant", "content": "Looking.", "refusal": None, "reasoning_content": "hm", "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "clock", "arguments": ""}},
        ]}}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
              "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
              "completion_tokens_details": {"reasoning_tokens": 5}},
}  # fmt: skip
MESSAGES_ANSWER: dict[str, Any] = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "call_b", "name": "clock", "input": {}},
    ],
    "stop_reason": "tool_use", "stop_sequence": None,
    "usage": {"input_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10, "output_tokens": 20,
              "output_tokens_details": {"thinking_tokens": 5}},
}  # fmt: skip
OLLAMA_ANSWER: dict[str, Any] = {
    "model": "m", "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": "stop",
    "message": {"role": "assistant", "content": "Looking.", "thinking": "hm", "tool_calls": [
        {"function": {"name": "weather", "arguments": {"city": "Oslo"}}},
        {"function": {"name": "clock", "arguments": {}}},
    ]},
    "prompt_eval_count": 100, "eval_count": 20,
}  # fmt: skip
ANSWERS: dict[Operation, dict[str, Any]] = {CHAT: CHAT_ANSWER, MESSAGES: MESSAGES_ANSWER, OLLAMA: OLLAMA_ANSWER}
STOPS = {CHAT: "tool_calls", MESSAGES: "tool_use", OLLAMA: "stop"}


def answered(source: Operation, target: Operation, fields: Any, status: int = 200) -> Any:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return json.loads(translate_response(source, target, status, body, transaction_id=TID))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_an_answer_that_thinks_speaks_and_calls(source: Operation, target: Operation) -> None:
    body = translate_response(source, target, 200, json.dumps(ANSWERS[source]).encode(), transaction_id=TID)
    TYPES[target].model_validate_json(body)
    codec = codec_for(target)
    assert codec is not None
    answer = codec.read_response(body)
    assert answer.problem is None
    assert answer.text == "Looking."
    assert "".join(block.text for block in answer.blocks if isinstance(block, ThinkingBlock)) == "hm"
    assert [(call.name, json.loads(call.arguments or "{}")) for call in answer.tool_calls] == [
        ("weather", {"city": "Oslo"}), ("clock", {}),
    ]  # fmt: skip
    assert answer.stop_reason == STOPS[target]
    assert (answer.model, answer.usage.input_tokens, answer.usage.output_tokens) == ("m", 100, 20)  # type: ignore[union-attr]
    ids = [call.call_id for call in answer.tool_calls]
    if target is not OLLAMA:
        made = [f"call_{TID}_0", f"call_{TID}_1"]
        assert ids == (made if source is OLLAMA else ["call_a", "call_b"])
    elif source is not OLLAMA:
        assert ids == ["call_a", "call_b"]


@pytest.mark.parametrize(("source", "target"), [(CHAT, MESSAGES), (MESSAGES, CHAT)])
def test_counts_that_both_know(source: Operation, target: Operation) -> None:
    assert answered(source, target, ANSWERS[source])["usage"] == ANSWERS[target]["usage"]


def test_an_answer_of_ollama_gets_the_transactions_id_and_time() -> None:
    got = answered(OLLAMA, CHAT, OLLAMA_ANSWER)
    assert (got["id"], got["created"]) == (f"chatcmpl-{TID}", 1469922850)
    assert answered(OLLAMA, MESSAGES, OLLAMA_ANSWER)["id"] == f"msg_{TID}"
    assert answered(CHAT, OLLAMA, CHAT_ANSWER)["created_at"] == "2016-07-30T23:54:10Z"


def test_a_signature_comes_back_with_what_it_signs() -> None:
    message = answered(MESSAGES, CHAT, MESSAGES_ANSWER)["choices"][0]["message"]
    assert message["reasoning_details"] == [{"type": "reasoning.text", "text": "hm", "signature": "sig"}]


REASONS = [
    (CHAT, "stop", {MESSAGES: "end_turn", OLLAMA: "stop"}),
    (CHAT, "length", {MESSAGES: "max_tokens", OLLAMA: "length"}),
    (CHAT, "content_filter", {MESSAGES: "refusal", OLLAMA: "stop"}),
    (MESSAGES, "end_turn", {CHAT: "stop", OLLAMA: "stop"}),
    (MESSAGES, "stop_sequence", {CHAT: "stop", OLLAMA: "stop"}),
    (MESSAGES, "max_tokens", {CHAT: "length", OLLAMA: "length"}),
    (MESSAGES, "refusal", {CHAT: "content_filter", OLLAMA: "stop"}),
    (MESSAGES, "tool_use", {CHAT: "stop", OLLAMA: "stop"}),
    (OLLAMA, "stop", {CHAT: "stop", MESSAGES: "end_turn"}),
    (OLLAMA, "length", {CHAT: "length", MESSAGES: "max_tokens"}),
]


def with_reason(operation: Operation, reason: str) -> dict[str, Any]:
    """A plain answer that stopped so."""
    if operation is CHAT:
        message = {"role": "assistant", "content": "x"}
        return {**CHAT_ANSWER, "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    if operation is MESSAGES:
        return {**MESSAGES_ANSWER, "content": [{"type": "text", "text": "x"}], "stop_reason": reason}
    return {**OLLAMA_ANSWER, "message": {"role": "assistant", "content": "x"}, "done_reason": reason}


@pytest.mark.parametrize(("source", "reason", "words"), REASONS)
def test_why_it_stopped(source: Operation, reason: str, words: dict[Operation, str]) -> None:
    for target, word in words.items():
        got = answered(source, target, with_reason(source, reason))
        found = {
            CHAT: lambda got: got["choices"][0]["finish_reason"],
            MESSAGES: lambda got: got["stop_reason"],
            OLLAMA: lambda got: got["done_reason"],
        }[target](got)
        assert found == word


def test_a_refusal_is_said_and_named() -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    fields = {**CHAT_ANSWER, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    got = answered(CHAT, MESSAGES, fields)
    assert (got["content"], got["stop_reason"]) == ([{"type": "text", "text": "I cannot."}], "refusal")
    assert answered(CHAT, OLLAMA, fields)["message"]["content"] == "I cannot."


ERRORS = {
    CHAT: {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
    MESSAGES: {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}, "request_id": "r"},
    OLLAMA: {"error": "Slow down."},
}
SHOWN = {
    CHAT: {"error": {"message": "Slow down.", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}},
    MESSAGES: {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}, "request_id": TID},
    OLLAMA: {"error": "Slow down."},
}


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_errors_take_the_clients_shape(source: Operation, target: Operation) -> None:
    assert answered(source, target, ERRORS[source], 429) == SHOWN[target]


def test_errors_without_words() -> None:
    assert answered(CHAT, MESSAGES, b"<html><title>Bad Gateway</title></html>", 502)["error"] == {
        "type": "api_error", "message": "Bad Gateway",
    }  # fmt: skip
    assert answered(OLLAMA, CHAT, b"", 503)["error"]["type"] == "overloaded_error"
    assert answered(MESSAGES, CHAT, {"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}})["error"] == {
        "message": "Busy", "type": "overloaded_error", "param": None, "code": "overloaded",
    }  # fmt: skip


def test_arguments_that_are_no_object_cannot_be_said() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{oops"}}
    fields = {**CHAT_ANSWER, "choices": [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}
    for target in (MESSAGES, OLLAMA):
        with pytest.raises(UnreadableBody):
            answered(CHAT, target, fields)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PAIRS), SHAPES, st.sampled_from([200, 400, 529]))
def test_no_shape_raises_anything_else(pair: tuple[Operation, Operation], shape: Any, status: int) -> None:
    wrapped = {**shape, "choices": [shape], "content": [shape], "message": shape, "type": "message"}
    for fields in (shape, wrapped):
        try:
            body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
            json.loads(translate_response(*pair, status, body, transaction_id=TID))
        except UnreadableBody:
            assert status == 200


@pytest.mark.parametrize("body", UGLY)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_ugly_bodies(source: Operation, target: Operation, body: bytes) -> None:
    json.loads(translate_response(source, target, 500, body, transaction_id="\ud800"))
    try:
        json.loads(translate_response(source, target, 200, body, transaction_id=TID))
    except UnreadableBody:
        pass
