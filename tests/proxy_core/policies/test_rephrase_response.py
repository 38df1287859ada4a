"""Answers are rephrased by rules, by added words, or by a model; tool calls stay, the original is kept."""

from __future__ import annotations

import json

import pytest

from proxy_core.errors import UpstreamUnreachable
from proxy_core.policies.base import Release
from proxy_core.policies.rephrase_response import RephraseResponseParams, RephraseResponsePolicy
from proxy_core.policies.testing import (
    STREAMED,
    FakeServices,
    answer_body,
    answer_stream,
    assert_chunking_invariant,
    context_for,
    run_response,
)
from proxy_core.transaction import WholeResponse
from proxy_core.wire.conversation import EndEvent, StreamEvent, TextDelta
from proxy_core.wire.dialects import Operation

MODEL = {"upstream": "openai", "model": "gpt-small", "instructions": "Make it shorter."}


def policy(**params: object) -> RephraseResponsePolicy:
    return RephraseResponsePolicy(RephraseResponseParams.model_validate(params))


def says(*texts: str) -> FakeServices:
    bodies = [answer_body(Operation.CHAT, text) for text in texts]
    return FakeServices([WholeResponse(status=200, headers=[], body=body, upstream="openai") for body in bodies])


class TestRules:
    @pytest.mark.parametrize("operation", STREAMED)
    def test_give_the_same_in_a_whole_and_in_every_cut(self, operation: Operation) -> None:
        rules = [{"find": "very ", "replace": ""}, {"find": "good", "replace": "fine"}]
        found = assert_chunking_invariant(policy(rules=rules, prepend="Note: "), "very very good 😀 goo", operation=operation)
        assert found == "Note: fine 😀 goo"

    async def test_the_original_is_kept(self) -> None:
        for stream in (False, True):
            outcome = await run_response(policy(rules=[{"find": "bad", "replace": "good"}]), pieces=["b", "ad!"], stream=stream)
            assert outcome.context.data["original_response"] == "bad!"
            assert outcome.text == "good!"
            assert (outcome.verdict.action, outcome.verdict.reason) == ("modify", "response_rephrased")
            assert outcome.verdict.detail == {
                "replacements": 1,
                "model": None,
                "original_length": 4,
                "transformed_length": 5,
            }

    async def test_that_match_nothing_change_no_byte(self) -> None:
        for stream in (False, True):
            outcome = await run_response(policy(rules=[{"find": "absent"}]), pieces=["as ", "it is"], stream=stream)
            expected = answer_stream(Operation.CHAT, ["as ", "it is"]) if stream else answer_body(Operation.CHAT, "as it is")
            assert outcome.body == expected
            assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")
            assert "original_response" not in outcome.context.data

    def test_of_words_let_a_stream_flow_and_others_need_it_whole(self) -> None:
        assert policy(rules=[{"find": "a"}], prepend="x").release_mode() is Release.TAIL
        assert policy(rules=[{"find": "a", "regex": True}]).release_mode() is Release.FULL
        assert policy(append="x").release_mode() is Release.FULL
        assert policy(model=MODEL).release_mode() is Release.FULL


class TestWhatNeedsTheWholeAnswer:
    @pytest.mark.parametrize("operation", STREAMED)
    @pytest.mark.parametrize("stream", [False, True])
    async def test_regular_expressions_and_words_behind(self, operation: Operation, stream: bool) -> None:
        rules = [{"find": r"(\d+) Euro", "replace": r"€\1", "regex": True}]
        outcome = await run_response(
            policy(rules=rules, append=" (rounded)"),
            context_for(operation, stream=stream),
            pieces=["5", "0 Eu", "ro"],
            stream=stream,
        )
        assert outcome.text == "€50 (rounded)"

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_model_rewrites_the_text_and_leaves_tool_calls(self, stream: bool) -> None:
        services = says("Short.")
        blocks = [
            {"type": "text", "text": "Long one. "},
            {"type": "text", "text": "Long two."},
            {"type": "tool_use", "id": "toolu_1", "name": "run", "input": {"cmd": "ls"}},
        ]
        body = json.dumps({"type": "message", "role": "assistant", "content": blocks, "stop_reason": "tool_use"}).encode()
        if stream:
            body = _stream_of(blocks)
        context = context_for(Operation.MESSAGES, stream=stream, services=services)
        outcome = await run_response(policy(model=MODEL), context, body=body, stream=stream)
        assert outcome.answer is not None
        assert outcome.answer.text == "Short."
        assert [(call.call_id, json.loads(call.arguments)) for call in outcome.answer.tool_calls] == [("toolu_1", {"cmd": "ls"})]
        assert outcome.answer.stop_reason == "tool_use"
        assert "Long one. \n\nLong two." in json.loads(services.sent[0]["body"])["messages"][1]["content"]

    async def test_an_answer_without_text_is_not_asked_about(self) -> None:
        services = says("Short.")
        outcome = await run_response(policy(model=MODEL, append="x"), context_for(services=services), text="")
        assert (outcome.text, services.sent) == ("", [])
        assert outcome.verdict.reason == "passed"

    async def test_a_model_that_cannot_be_asked_leaves_it_to_on_error(self) -> None:
        services = FakeServices([UpstreamUnreachable("down")])
        outcome = await run_response(policy(model=MODEL), context_for(services=services), text="Long", on_error="allow")
        assert outcome.body == answer_body(Operation.CHAT, "Long")
        assert (outcome.verdict.ran, outcome.verdict.reason) == ("error", "judge_unavailable")

    async def test_works_event_by_event_too_where_it_stands_inside_another_policy(self) -> None:
        async def events() -> object:
            for event in (TextDelta(0, "Lo"), TextDelta(0, "ng"), EndEvent()):
                yield event

        stream = policy(model=MODEL, append="!").on_stream(context_for(services=says("Short.")), events())  # type: ignore[arg-type]
        got: list[StreamEvent] = [event async for event in stream]
        assert got == [TextDelta(0, "Short.!"), EndEvent()]


async def test_errors_of_the_upstream_are_left_alone() -> None:
    body = b'{"error":{"message":"bad","type":"x"}}'
    outcome = await run_response(policy(rules=[{"find": "bad"}], prepend="x"), body=body, status=400)
    assert outcome.body == body


def _stream_of(blocks: list[dict[str, object]]) -> bytes:
    events: list[dict[str, object]] = [{"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}}]
    for index, block in enumerate(blocks):
        text = block.get("text")
        start = block | ({"text": ""} if text else {"input": {}})
        delta = {"type": "text_delta", "text": text} if text else {"type": "input_json_delta", "partial_json": '{"cmd": "ls"}'}
        events += [
            {"type": "content_block_start", "index": index, "content_block": start},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    events += [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)
