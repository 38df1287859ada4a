"""Policies that change text see each text of an answer once, whole or cut, and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import pytest

from proxy_core.policies.base import PolicyParams
from proxy_core.policies.string_replacement import StringReplacementParams, StringReplacementPolicy
from proxy_core.policies.testing import STREAMED, answer_stream, assert_chunking_invariant, context_for, run_request, run_response
from proxy_core.policies.text_policy import TextPolicy, TextTransducer
from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import (
    INSERTED,
    AnswerError,
    EndEvent,
    ErrorEvent,
    OpaqueEvent,
    StopEvent,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from proxy_core.wire.dialects import Operation
from tests.proxy_core.wire import streams


def hello_to_goodbye() -> StringReplacementPolicy:
    return StringReplacementPolicy(StringReplacementParams(replacements=[("hello", "goodbye")], apply_to="both"))


async def through(
    policy: TextPolicy[PolicyParams] | StringReplacementPolicy, events: Sequence[StreamEvent], operation: Operation
) -> list[StreamEvent]:
    async def source() -> AsyncIterator[StreamEvent]:
        for event in events:
            yield event

    return [event async for event in policy.on_stream(context_for(operation), source())]


@pytest.mark.parametrize("operation", STREAMED)
def test_every_cut_of_every_dialect_gives_the_text_of_the_whole(operation: Operation) -> None:
    assert (
        assert_chunking_invariant(hello_to_goodbye(), "say hello, hellhello", operation=operation) == "say goodbye, hellgoodbye"
    )


@pytest.mark.parametrize("operation", STREAMED)
@pytest.mark.parametrize("chunk_bytes", [0, 1, 17])
async def test_a_stream_without_a_match_leaves_byte_by_byte_as_it_came(operation: Operation, chunk_bytes: int) -> None:
    pieces = ["Grüße ", "an 😀 ", "alle"]
    outcome = await run_response(
        hello_to_goodbye(), context_for(operation, stream=True), pieces=pieces, stream=True, chunk_bytes=chunk_bytes
    )
    assert outcome.body == answer_stream(operation, pieces)
    assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")


@pytest.mark.parametrize(
    ("operation", "stream"),
    [
        (Operation.CHAT, streams.CHAT),
        (Operation.MESSAGES, streams.MESSAGES),
        (Operation.RESPONSES, streams.RESPONSES),
        (Operation.OLLAMA_CHAT, streams.OLLAMA),
    ],
)
async def test_thinking_and_tool_calls_are_left_alone(operation: Operation, stream: bytes) -> None:
    words = [("let me see", "X"), ("hm", "X"), ("plan", "X"), ("well", "X"), ("city", "X"), ("path", "X"), ("cmd", "X")]
    policy = StringReplacementPolicy(StringReplacementParams(replacements=words))
    outcome = await run_response(policy, context_for(operation, stream=True), body=stream, stream=True, chunk_bytes=5)
    assert outcome.body == stream


class TestWhatIsHeldBack:
    async def test_leaves_before_the_event_that_ends_the_block(self) -> None:
        stop = OpaqueEvent("content_block_stop", b"stop")
        out = await through(hello_to_goodbye(), [TextDelta(0, "say hel", b"1"), stop], Operation.MESSAGES)
        assert out == [TextDelta(0, "say "), TextDelta(0, "hel"), stop]

    async def test_a_ping_inside_a_block_does_not_end_it(self) -> None:
        ping = OpaqueEvent("ping", b"ping")
        out = await through(hello_to_goodbye(), [TextDelta(0, "hel"), ping, TextDelta(0, "lo"), EndEvent()], Operation.MESSAGES)
        assert out == [ping, TextDelta(0, "goodbye"), EndEvent()]

    async def test_choices_that_come_mixed_are_told_apart(self) -> None:
        events = [
            TextDelta(0, "hel"),
            TextDelta(1, "hell"),
            TextDelta(0, "lo"),
            StopEvent("stop", b"", 0),
            TextDelta(1, "o hel"),
            StopEvent("stop", b"", 1),
            EndEvent(),
        ]
        out = await through(hello_to_goodbye(), events, Operation.CHAT)
        assert out == [
            TextDelta(0, "goodbye"),
            StopEvent("stop", b"", 0),
            TextDelta(1, "goodbye "),
            TextDelta(1, "hel"),
            StopEvent("stop", b"", 1),
            EndEvent(),
        ]

    async def test_thinking_between_two_pieces_of_one_chat_message_splits_no_word(self) -> None:
        events = [TextDelta(0, "hel"), ThinkingDelta(0, "hm"), TextDelta(0, "lo"), EndEvent()]
        out = await through(hello_to_goodbye(), events, Operation.CHAT)
        assert out == [ThinkingDelta(0, "hm"), TextDelta(0, "goodbye"), EndEvent()]

    @pytest.mark.parametrize(
        "ending",
        [
            ToolCallStart(1, "call", "run"),
            ThinkingDelta(1, "hm"),
            StopEvent("end_turn"),
            ErrorEvent(AnswerError("overloaded", "later")),
            OpaqueEvent("content_block_start"),
        ],
    )
    async def test_leaves_before_whatever_follows_a_block(self, ending: StreamEvent) -> None:
        out = await through(hello_to_goodbye(), [TextDelta(0, "hel"), ending, EndEvent()], Operation.MESSAGES)
        assert out == [TextDelta(0, "hel"), ending, EndEvent()]

    async def test_leaves_before_the_text_of_the_next_block(self) -> None:
        out = await through(hello_to_goodbye(), [TextDelta(0, "hel"), TextDelta(1, "lo"), EndEvent()], Operation.RESPONSES)
        assert out == [TextDelta(0, "hel"), TextDelta(1, "lo"), EndEvent()]

    async def test_text_that_a_policy_added_is_a_block_of_its_own(self) -> None:
        events = [TextDelta(0, "hel"), TextDelta(INSERTED, "hel"), TextDelta(0, "lo"), EndEvent()]
        out = await through(hello_to_goodbye(), events, Operation.CHAT)
        assert "".join(event.text for event in out if isinstance(event, TextDelta)) == "helhello"

    async def test_leaves_where_a_stream_is_cut_off(self) -> None:
        assert await through(hello_to_goodbye(), [TextDelta(0, "say hel")], Operation.CHAT) == [
            TextDelta(0, "say "),
            TextDelta(0, "hel"),
        ]

    async def test_a_verdict_on_a_stream_that_was_left_early_says_so(self) -> None:
        context = context_for()

        async def endless() -> AsyncIterator[StreamEvent]:
            while True:
                yield TextDelta(0, "hello ")

        stream = hello_to_goodbye().on_stream(context, endless())
        assert await anext(stream) == TextDelta(0, "goodbye ")
        await stream.aclose()  # type: ignore[attr-defined]
        assert [(one.action, one.ran) for one in context.verdicts] == [("modify", "partial")]


async def test_events_that_do_not_change_are_the_same_objects() -> None:
    events: list[StreamEvent] = [
        OpaqueEvent("message_start", b"a"),
        TextDelta(0, "", b"b"),
        TextDelta(0, "nothing", b"c"),
        ToolCallStart(1, "call", "hello", b"d"),
        ToolCallDelta(1, '{"hello":1}', b"e"),
        ToolCallEnd(1, b"f"),
        StopEvent("tool_use", b"g"),
        EndEvent(b"h"),
    ]
    out = await through(hello_to_goodbye(), events, Operation.MESSAGES)
    assert all(after is before for after, before in zip(out, events, strict=True))


async def test_a_policy_without_a_word_on_answers_leaves_them_alone() -> None:
    class Requests(TextPolicy[PolicyParams]):
        """Changes requests only."""

        def request_text(self, context: TransactionContext, part: object) -> str:
            return "changed"

    outcome = await run_response(Requests(PolicyParams()), text="as it is")
    assert outcome.text == "as it is"
    asked = await run_request(Requests(PolicyParams()), context_for(text="as it is"))
    assert asked.text == "changed"


async def test_a_policy_may_choose_the_answers_it_changes() -> None:
    class Never(TextPolicy[PolicyParams]):
        """Changes nothing after all."""

        def transducer(self, context: TransactionContext) -> TextTransducer | None:
            return None

    for stream in (False, True):
        outcome = await run_response(Never(PolicyParams()), text="as it is", stream=stream)
        assert outcome.text == "as it is"


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff\xfe", b'{"messages": 5}', b'{"messages":[],"messages":[]}', b"{" * 100_000])
async def test_bodies_that_nobody_can_read_pass_and_the_verdict_says_so(body: bytes) -> None:
    outcome = await run_request(hello_to_goodbye(), context_for(Operation.CHAT, body))
    assert outcome.body == body
    assert outcome.verdict.action == "allow"
    assert outcome.verdict.ran == "unsupported" or body == b'{"messages": 5}'


async def test_a_stream_of_which_something_cannot_be_read_passes_and_the_verdict_says_so() -> None:
    broken = b'data: {"choices": [{"ind\n\n'
    for text, action in (("nothing", "allow"), ("hello", "modify")):
        body = broken + answer_stream(Operation.CHAT, [text])
        outcome = await run_response(hello_to_goodbye(), body=body, stream=True)
        assert outcome.body.startswith(broken)
        assert (outcome.verdict.action, outcome.verdict.ran) == (action, "partial")


async def test_an_operation_without_texts_is_unsupported() -> None:
    outcome = await run_request(hello_to_goodbye(), context_for(Operation.OTHER, b"hello"))
    assert (outcome.body, outcome.verdict.ran, outcome.verdict.reason) == (b"hello", "unsupported", "unsupported_dialect")


async def test_an_error_of_the_upstream_is_left_alone() -> None:
    body = json.dumps({"error": {"message": "hello", "type": "overloaded"}}).encode()
    outcome = await run_response(hello_to_goodbye(), body=body, status=529)
    assert outcome.body == body


async def test_in_shadow_mode_nothing_changes_and_the_verdict_says_what_would_have() -> None:
    for stream in (False, True):
        context = context_for(stream=stream)
        outcome = await run_response(hello_to_goodbye(), context, pieces=["hel", "lo"], stream=stream, mode="shadow")
        assert outcome.text == "hello"
        assert (outcome.verdict.mode, outcome.verdict.action) == ("shadow", "modify")
