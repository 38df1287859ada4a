"""Streams after policies: untouched ones byte for byte, touched ones legal, and read by the vendors' own clients."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.wire.codec import codec_for
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
    Usage,
    UsageEvent,
)
from proxy_core.wire.dialects import Operation
from proxy_core.wire.encode_events import sse_object
from proxy_core.wire.encoder import IllegalStream, StreamEncoder, encoder_for
from proxy_core.wire.tolerant_json import as_object, as_text
from proxy_core.wire.validator import check_stream
from tests.proxy_core.wire.rich_streams import (
    CHAT_ONE_CALL,
    CHAT_TOOLS,
    MESSAGE_START,
    MESSAGES_ONE_CALL,
    MESSAGES_SERVER_TOOL,
    MESSAGES_TEXT,
    MESSAGES_TOOLS,
    OLLAMA_TOOLS,
    PING,
    RESPONSES_OTHER_CALLS,
    RESPONSES_TOOLS,
    STREAMS,
    block_delta,
    block_start,
    block_stop,
    chunk,
    decode,
    edits,
    message_end,
    text_block,
    tool_block,
    with_arguments,
    with_texts,
    without_calls,
)
from tests.proxy_core.wire.sdk_reading import Read, read_with_sdk
from tests.proxy_core.wire.streams import cuts_of, pieces

NAMES = sorted(STREAMS)
WITH_TOOLS = ("chat tools", "messages tools", "responses tools", "ollama tools")
ONE_CALL = ("chat one call", "messages one call", "responses one call", "ollama one call")


def new_encoder(operation: Operation) -> StreamEncoder:
    encoder = encoder_for(operation, model="m-1", transaction_id="t1")
    assert encoder is not None
    return encoder


def encoded(operation: Operation, body: bytes, change: object) -> bytes:
    """The stream after `change` was made to its events."""
    events = decode(operation, body)
    encoder = new_encoder(operation)
    encoder.seen(events)
    return encoder.encode(change(events)) + encoder.finish()  # type: ignore[operator]


def read(operation: Operation, body: bytes) -> Read:
    assert check_stream(operation, body, strict=True) == []
    return read_with_sdk(operation, body)


def stops(operation: Operation, body: bytes) -> str:
    return next(event.reason for event in decode(operation, body) if isinstance(event, StopEvent))


def legal_stream(
    operation: Operation, events: list[StreamEvent], parts: list[list[StreamEvent]], *, late: bool = False, refused: bool = False
) -> tuple[bytes, str]:
    """What a client gets where policies made `parts` of `events`, checked to be legal; the rule for which it was refused, or "".

    `late`: the encoder sees each wire event only when something of it comes. `refused`: the last part is refused.
    """
    encoder = new_encoder(operation)
    unseen = wire_events(events)
    if not late:
        for wire in unseen:
            encoder.seen(wire)
        unseen = []
    out, rule = b"", ""
    try:
        for part in parts[:-1] if refused else parts:
            for event in part:
                while any(event is one for wire in unseen for one in wire):
                    encoder.seen(unseen.pop(0))
            out += encoder.encode(part)
        if refused:
            out += encoder.refusal("no")
        else:
            for wire in unseen:
                encoder.seen(wire)
            out += encoder.finish()
    except IllegalStream as error:
        assert error.rule and str(error)
        rule = error.rule
        out += error.before + encoder.refusal("no")
    assert check_stream(operation, out, strict=True) == []
    failed = any(isinstance(event, ErrorEvent) for event in decode(operation, out))  # the SDKs raise it, as they should
    if not failed and (operation is not Operation.CHAT or b'"index":1,"delta"' not in out.replace(b" ", b"")):
        read_with_sdk(operation, out)  # of Chat it wants choices in order
    return out, rule


# --- untouched ---


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_nobody_touches_leaves_byte_for_byte_however_it_is_cut(name: str, data: st.DataObject) -> None:
    operation, body = STREAMS[name]
    codec = codec_for(operation)
    assert codec is not None
    decoder, encoder = codec.stream_decoder(), new_encoder(operation)
    one_by_one = data.draw(st.booleans())
    out = b""
    for piece in pieces(body, data.draw(cuts_of(body))):
        events = decoder.feed(piece)
        encoder.seen(events)
        out += b"".join(encoder.encode([event]) for event in events) if one_by_one else encoder.encode(events)
    assert out + encoder.finish() == body
    assert not encoder.altered


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_stream_that_is_cut_anywhere_leaves_as_far_as_it_came(name: str, data: st.DataObject) -> None:
    operation, body = STREAMS[name]
    cut = body[: data.draw(st.integers(0, len(body)))]
    codec = codec_for(operation)
    assert codec is not None
    decoder, encoder = codec.stream_decoder(), new_encoder(operation)
    events = decoder.feed(cut)
    encoder.seen(events)
    assert encoder.encode(events) + encoder.finish() + decoder.rest == cut
    assert not encoder.altered


@pytest.mark.parametrize("name", NAMES)
def test_an_event_is_not_kept_back_longer_than_needed(name: str) -> None:
    operation, body = STREAMS[name]
    encoder = new_encoder(operation)
    events = decode(operation, body)
    encoder.seen(events)
    out = b""
    for event in events:
        out += encoder.encode([event])
        if isinstance(event, TextDelta | ThinkingDelta) and event.raw:
            assert event.raw in out or events[events.index(event) + 1].raw == b""


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=400), name=st.sampled_from(NAMES), data=st.data())
def test_whatever_an_upstream_sends_leaves_as_it_came(body: bytes, name: str, data: st.DataObject) -> None:
    operation, good = STREAMS[name]
    cut = data.draw(st.integers(0, len(good)))
    broken = good[:cut] + body + b"\n\n" + good[cut:]
    codec = codec_for(operation)
    assert codec is not None
    decoder, encoder = codec.stream_decoder(), new_encoder(operation)
    events = decoder.feed(broken)
    encoder.seen(events)
    assert encoder.encode(events) + encoder.finish() + decoder.rest == broken


def test_other_line_ends_are_kept_where_untouched_and_read_where_touched() -> None:
    line_end = b"\r\n"
    for name in ("messages tools", "chat tools", "responses tools"):
        operation, body = STREAMS[name]
        body = body.replace(b"\n", line_end)
        events = decode(operation, body)
        encoder = new_encoder(operation)
        encoder.seen(events)
        assert encoder.encode(events) == body
        blocked = encoded(operation, body, lambda events: without_calls(events, first_call(events)))
        assert [call[1] for call in read(operation, blocked).calls] == ["read"]


def first_call(events: list[StreamEvent]) -> int:
    return next(event.index for event in events if isinstance(event, ToolCallStart))


def wire_events(events: list[StreamEvent]) -> list[list[StreamEvent]]:
    """The events by the wire event that they came in."""
    wires: list[list[StreamEvent]] = []
    for event in events:
        if event.raw or not wires:
            wires.append([])
        wires[-1].append(event)
    return wires


def calls_of(events: list[StreamEvent]) -> list[int]:
    return [event.index for event in events if isinstance(event, ToolCallStart)]


# --- text ---


@pytest.mark.parametrize("name", [name for name in NAMES if "one call" not in name and "legacy" not in name])
def test_replaced_text_is_what_the_client_reads(name: str) -> None:
    operation, body = STREAMS[name]
    before = read(operation, body)
    after = read(operation, encoded(operation, body, lambda events: with_texts(events, str.upper)))
    assert after.text == before.text.upper()
    assert (after.calls, after.stop) == (before.calls, before.stop)


@pytest.mark.parametrize("name", NAMES)
def test_dropped_text_leaves_nothing_empty_behind(name: str) -> None:
    operation, body = STREAMS[name]
    before = read(operation, body)
    after = read(operation, encoded(operation, body, lambda events: with_texts(events, lambda _: "")))
    assert after.text == ""
    assert (after.calls, after.stop) == (before.calls, before.stop)


def test_a_block_that_was_empty_from_the_beginning_stays() -> None:
    body = (
        MESSAGE_START
        + block_start(0, {"type": "text", "text": ""})
        + block_stop(0)
        + text_block(1, "a")
        + message_end("end_turn")
    )
    out = encoded(Operation.MESSAGES, body, lambda events: with_texts(events, str.upper))
    assert out == body.replace(b'"text": "a"', b'"text": "A"').replace(
        b'data: {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "A"}}',
        b'data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"A"}}',
    )


@pytest.mark.parametrize(
    "name", ["chat tools", "messages tools", "responses tools", "ollama tools", "completions", "ollama generate"]
)
@pytest.mark.parametrize("place", ["first", "middle"])
def test_text_of_ours_stands_where_it_was_put(name: str, place: str) -> None:
    operation, body = STREAMS[name]

    def insert(events: list[StreamEvent]) -> list[StreamEvent]:
        texts = [at for at, event in enumerate(events) if isinstance(event, TextDelta)]
        at = 0 if place == "first" else texts[1]
        return [*events[:at], TextDelta(INSERTED, "[no"), TextDelta(INSERTED, "te]"), *events[at:]]

    before, after = read(operation, body), read(operation, encoded(operation, body, insert))
    expected = f"[note]{before.text}" if place == "first" else before.text.replace("Let me ", "Let me [note]").replace(
        "Once ", "Once [note]"
    )  # fmt: skip
    assert after.text.replace("\n\n", "") == expected
    assert (after.calls, after.stop) == (before.calls, before.stop)


def test_text_of_ours_waits_for_the_end_of_thinking() -> None:
    def insert(events: list[StreamEvent]) -> list[StreamEvent]:
        at = next(at for at, event in enumerate(events) if isinstance(event, ThinkingDelta))
        return [*events[: at + 1], TextDelta(INSERTED, "[note]"), *events[at + 1 :]]

    out = encoded(Operation.MESSAGES, MESSAGES_TOOLS, insert)
    assert read(Operation.MESSAGES, out).text.startswith("[note]Let me")
    thinking, note = out.index(b"signature_delta"), out.index(b"[note]")
    assert thinking < note


def test_text_behind_a_tool_call_is_illegal_for_anthropic_only() -> None:
    def insert(events: list[StreamEvent]) -> list[StreamEvent]:
        at = next(at for at, event in enumerate(events) if isinstance(event, ToolCallEnd))
        return [*events[: at + 1], TextDelta(INSERTED, "[note]"), *events[at + 1 :]]

    with pytest.raises(IllegalStream) as caught:
        encoded(Operation.MESSAGES, MESSAGES_TOOLS, insert)
    assert caught.value.rule == "text_after_tool_use"
    assert b"call_a" not in caught.value.before and b"toolu_a" in caught.value.before
    for name in ("chat tools", "responses tools", "ollama tools"):
        operation, body = STREAMS[name]
        assert "[note]" in read(operation, encoded(operation, body, insert)).text


def test_text_that_stood_behind_a_tool_call_already_may_stay() -> None:
    body = MESSAGE_START + tool_block(0, "t", "n", "{}") + text_block(1, "after") + message_end("tool_use")
    assert read(Operation.MESSAGES, encoded(Operation.MESSAGES, body, lambda e: with_texts(e, str.upper))).text == "AFTER"


# --- tool calls ---


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_calls_blocked_keeps_the_other_and_the_reason(name: str, which: int) -> None:
    operation, body = STREAMS[name]
    before = read(operation, body)

    def block(events: list[StreamEvent]) -> list[StreamEvent]:
        gone = calls_of(events)[which]
        marked = TextDelta(INSERTED, "[blocked]")
        at = next(at for at, event in enumerate(events) if isinstance(event, ToolCallStart))
        return [*without_calls(events[:at], gone), marked, *without_calls(events[at:], gone)]

    after = read(operation, encoded(operation, body, block))
    assert after.calls == [before.calls[1 - which]]
    assert after.stop == before.stop
    assert after.text.endswith("[blocked]")


@pytest.mark.parametrize("name", [*ONE_CALL, "chat legacy call"])
def test_the_only_call_blocked_changes_the_reason(name: str) -> None:
    operation, body = STREAMS[name]
    out = encoded(operation, body, lambda events: without_calls(events, *calls_of(events), marker="[blocked]"))
    reasons = {Operation.CHAT: "stop", Operation.MESSAGES: "end_turn", Operation.RESPONSES: "completed"}
    assert read(operation, out) == Read("[blocked]", [], reasons.get(operation, "stop"))


@pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "stop_sequence", "refusal", "pause_turn"])
def test_other_reasons_stay_although_the_calls_are_gone(reason: str) -> None:
    body = MESSAGE_START + tool_block(0, "t", "n", "{}") + message_end(reason)
    out = encoded(Operation.MESSAGES, body, lambda events: without_calls(events, 0, marker="x"))
    assert stops(Operation.MESSAGES, out) == reason


def test_each_choice_keeps_its_own_reason_and_numbers() -> None:
    operation, body = STREAMS["chat two choices"]
    out = encoded(operation, body, lambda events: without_calls(events, 0))
    assert [(event.choice, event.reason) for event in decode(operation, out) if isinstance(event, StopEvent)] == [
        (0, "stop"),
        (1, "tool_calls"),
    ]
    assert [call[1] for call in read(operation, out).calls] == ["two"]


@pytest.mark.parametrize("name", [*WITH_TOOLS, *ONE_CALL, "chat legacy call", "messages server tool", "responses other calls"])
def test_edited_arguments_keep_id_name_and_place(name: str) -> None:
    operation, body = STREAMS[name]
    before = read(operation, body)
    for at, index in enumerate(calls_of(decode(operation, body))):
        after = read(operation, encoded(operation, body, lambda e, index=index: with_arguments(e, index, '{"edited": [1, "—"]}')))
        assert [call[:2] for call in after.calls] == [call[:2] for call in before.calls]
        assert (after.text, after.stop) == (before.text, before.stop)
        if before.calls[at][1] != "local_shell_call":
            assert after.calls[at][2] == {"edited": [1, "—"]}
            assert [call for n, call in enumerate(after.calls) if n != at] == [c for n, c in enumerate(before.calls) if n != at]


@pytest.mark.parametrize("name", [*WITH_TOOLS, *ONE_CALL, "messages server tool", "responses other calls"])
def test_nothing_of_the_old_arguments_is_left_after_an_edit(name: str) -> None:
    operation, body = STREAMS[name]
    events = decode(operation, body)
    for index in calls_of(events):
        out = encoded(operation, body, lambda e, index=index: with_arguments(e, index, '{"edited": 1}'))
        left = [event for event in decode(operation, out) if isinstance(event, ToolCallDelta)]
        assert any("edited" in event.arguments for event in left)
        if len(calls_of(events)) == 1 or name == "responses other calls":
            secrets = {0: (b'"ls"', b'\\"ls', b"Begin"), 1: (b'"rm"',), 4: (b'"path": "b"',)}
            assert not any(secret in out for secret in secrets[index])


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_held_to_their_end_and_then_let_go_are_unchanged(name: str) -> None:
    operation, body = STREAMS[name]

    def hold(events: list[StreamEvent]) -> list[StreamEvent]:
        passed: list[StreamEvent] = []
        held: list[StreamEvent] = []
        for event in events:
            if isinstance(event, ToolCallStart | ToolCallDelta):
                held.append(event)
            elif isinstance(event, ToolCallEnd):
                passed += [*held, event]
                held.clear()
            else:
                passed.append(event)
        return passed

    assert read(operation, encoded(operation, body, hold)) == read(operation, body)


def test_a_call_that_a_policy_makes_becomes_part_of_the_answer() -> None:
    for name in ("chat tools", "messages text", "responses text", "ollama text"):
        operation, body = STREAMS[name]

        def add(events: list[StreamEvent]) -> list[StreamEvent]:
            call = [ToolCallStart(50, "id_1", "made"), ToolCallDelta(50, '{"a": '), ToolCallDelta(50, "1}"), ToolCallEnd(50)]
            at = next(at for at, event in enumerate(events) if isinstance(event, StopEvent | UsageEvent) and at > 1)
            if isinstance(events[at - 1], ToolCallEnd):
                at = next(at for at, event in enumerate(events) if isinstance(event, ToolCallEnd))
            return [*events[:at], *call, *events[at:]]

        after = read(operation, encoded(operation, body, add))
        assert after.calls[-1][1:] == ("made", {"a": 1})
        assert after.stop in ("tool_calls", "tool_use", "completed", "stop")
        assert (operation, after.stop) != (Operation.MESSAGES, "end_turn")


def test_extra_fields_of_a_renumbered_call_are_kept() -> None:
    extra = {"tool_calls": [{"index": 1, "id": "call_b", "type": "function", "function": {"name": "read", "arguments": "{}"},
                             "extra_content": {"google": {"thought_signature": "c2ln"}}}]}  # fmt: skip
    first = chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "x", "arguments": ""}}]})
    body = first + chunk(extra) + chunk({}, finish="tool_calls") + b"data: [DONE]\n\n"
    out = encoded(Operation.CHAT, body, lambda events: without_calls(events, 0))
    assert b"thought_signature" in out
    assert read(Operation.CHAT, out).calls == [("call_b", "read", {})]


# --- thinking ---


def test_thinking_leaves_with_its_signature_or_not_at_all() -> None:
    out = encoded(Operation.MESSAGES, MESSAGES_TOOLS, lambda events: with_texts(events, str.upper))
    start = MESSAGES_TOOLS.index(b"event: content_block_start")
    end = MESSAGES_TOOLS.index(block_stop(0)) + len(block_stop(0))
    assert MESSAGES_TOOLS[start:end] in out
    gone = encoded(Operation.MESSAGES, MESSAGES_TOOLS, lambda events: [e for e in events if not isinstance(e, ThinkingDelta)])
    assert b"thinking" not in gone and b"signature" not in gone
    assert read(Operation.MESSAGES, gone).calls == read(Operation.MESSAGES, MESSAGES_TOOLS).calls

    def change(events: list[StreamEvent]) -> list[StreamEvent]:
        return [msgspec.structs.replace(e, text="x", raw=b"") if isinstance(e, ThinkingDelta) else e for e in events]

    with pytest.raises(IllegalStream) as caught:
        encoded(Operation.MESSAGES, MESSAGES_TOOLS, change)
    assert caught.value.rule == "thinking_unchanged"


def test_reasoning_items_stay_without_their_summaries() -> None:
    out = encoded(Operation.RESPONSES, RESPONSES_TOOLS, lambda events: [e for e in events if not isinstance(e, ThinkingDelta)])
    assert check_stream(Operation.RESPONSES, out, strict=True) == []
    assert b"encrypted_content" in out and b"hm, " not in out


# --- the end ---


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_ends_the_stream_at_every_place(name: str) -> None:
    operation, body = STREAMS[name]
    events = decode(operation, body)
    ends = {Operation.MESSAGES: "refusal", Operation.CHAT: "content_filter", Operation.COMPLETIONS: "content_filter",
            Operation.RESPONSES: "incomplete"}  # fmt: skip
    for at in range(len(events) + 1):
        encoder = new_encoder(operation)
        encoder.seen(events[: at + 1])
        out = encoder.encode(events[:at])
        ended = any(isinstance(event, EndEvent) for event in events[:at])
        refusal = encoder.refusal("not \ud800 allowed")
        assert (refusal == b"") == ended
        after = read(operation, out + refusal)
        if not ended:
            assert encoder.altered
            stopped = any(isinstance(event, StopEvent) for event in events[:at])
            if not stopped:
                assert after.stop == ends.get(operation, "stop")
                said = "not ? allowed" in after.text
                assert said or (operation is Operation.MESSAGES and any(isinstance(e, ToolCallStart) for e in events[:at]))
        assert encoder.refusal("again") == b""


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_before_anything_came_is_a_whole_stream(name: str) -> None:
    operation, _ = STREAMS[name]
    after = read(operation, new_encoder(operation).refusal("no"))
    assert after.text == "no"


@pytest.mark.parametrize("name", NAMES)
def test_heartbeats_are_legal_at_every_place(name: str) -> None:
    operation, body = STREAMS[name]
    encoder = new_encoder(operation)
    events = decode(operation, body)
    out = b""
    encoder.seen(events)
    for event in events:
        out += encoder.heartbeat() + encoder.encode([event])
    assert read(operation, out) == read(operation, body)


@pytest.mark.parametrize("name", NAMES)
def test_a_dropped_end_is_made_good(name: str) -> None:
    operation, body = STREAMS[name]
    dropped = (EndEvent, StopEvent, UsageEvent)
    out = encoded(operation, body, lambda events: [event for event in events if not isinstance(event, dropped)])
    assert read(operation, out) == read(operation, body)


@pytest.mark.parametrize("name", NAMES)
def test_dropped_structure_is_made_good(name: str) -> None:
    operation, body = STREAMS[name]
    before = read(operation, body)
    out = encoded(operation, body, lambda events: [event for event in events if not isinstance(event, OpaqueEvent)])
    after = read(operation, out)
    assert (after.text, after.calls) == (before.text, before.calls)


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_the_upstream_cut_stays_cut(name: str) -> None:
    operation, body = STREAMS[name]
    events = [event for event in decode(operation, body) if not isinstance(event, EndEvent | StopEvent)][:-1]
    encoder = new_encoder(operation)
    encoder.seen(events)
    out = encoder.encode(with_texts(events, str.upper)) + encoder.finish()
    terminators = (b"[DONE]", b"message_stop", b"response.completed", b'"done":true', b'"done": true')
    assert not any(word in out for word in terminators)


def test_changed_usage_and_errors_are_said() -> None:
    for name in ("chat tools", "messages tools", "responses tools", "ollama tools"):
        operation, body = STREAMS[name]

        def change(events: list[StreamEvent]) -> list[StreamEvent]:
            return [UsageEvent(Usage(77, 88)) if isinstance(event, UsageEvent) else event for event in events]

        usages = [event.usage for event in decode(operation, encoded(operation, body, change)) if isinstance(event, UsageEvent)]
        assert (usages[-1].input_tokens, usages[-1].output_tokens) == (77, 88)
        failed = encoded(
            operation, body, lambda events: [*events[:4], ErrorEvent(AnswerError("overloaded_error", "busy \ud800"))]
        )
        error = next(event.error for event in decode(operation, failed) if isinstance(event, ErrorEvent))
        assert error.message == "busy ?"


# --- what cannot be said ---


@pytest.mark.parametrize("name", [*WITH_TOOLS, *ONE_CALL])
def test_illegal_sequences_are_named(name: str) -> None:
    operation, body = STREAMS[name]
    events = decode(operation, body)
    start = next(event for event in events if isinstance(event, ToolCallStart))
    alone = [event for event in events if event is not start]
    with pytest.raises(IllegalStream) as caught:
        encoded(operation, body, lambda _: alone)
    assert caught.value.rule in ("delta_after_start", "delta_after_added")
    twice = [
        piece for event in events for piece in ([event, ToolCallStart(start.index, "x", "y")] if event is start else [event])
    ]
    with pytest.raises(IllegalStream) as caught:
        encoded(operation, body, lambda _: twice)
    assert caught.value.rule in ("block_start_monotonic", "call_started_once", "item_added_once")
    with pytest.raises(IllegalStream) as caught:
        encoded(operation, body, lambda events: [*events, TextDelta(0, "late")])
    assert caught.value.rule in ("message_stop_last", "done_last", "terminator_last")


def test_a_policy_that_forgets_to_drop_the_raw_bytes_is_believed_by_its_text() -> None:
    for name in ("chat tools", "messages tools", "responses tools", "ollama tools"):
        operation, body = STREAMS[name]

        def change(events: list[StreamEvent]) -> list[StreamEvent]:
            return [msgspec.structs.replace(e, text="hidden") if isinstance(e, TextDelta) else e for e in events]

        out = encoded(operation, body, change)
        assert "Let me" not in read(operation, out).text
        assert b"Let me" not in out


def test_bytes_that_a_policy_made_up_are_not_sent() -> None:
    for name in NAMES:
        operation, body = STREAMS[name]
        out = encoded(operation, body, lambda events: [*events[:1], OpaqueEvent("x", b"data: {evil}\n\n"), *events[1:]])
        assert b"evil" not in out


MADE_CALL = [ToolCallStart(5, "id_new", "tool"), ToolCallDelta(5, "{}"), ToolCallEnd(5)]


def is_piece(event: StreamEvent) -> bool:
    return isinstance(event, TextDelta | ThinkingDelta)


def with_pieces_exchanged(events: list[StreamEvent], *, first: int, second: int) -> list[StreamEvent]:
    """The events with two pieces of text in each other's place."""
    places = [at for at, event in enumerate(events) if is_piece(event)]
    left = list(events)
    left[places[first]], left[places[second]] = left[places[second]], left[places[first]]
    return left


def before_end_of_call(events: list[StreamEvent], *made: StreamEvent) -> list[StreamEvent]:
    at = next(at for at, event in enumerate(events) if isinstance(event, ToolCallEnd))
    return [*events[:at], *made, *events[at:]]


def before_stop(events: list[StreamEvent], *made: StreamEvent) -> list[StreamEvent]:
    at = next(at for at, event in enumerate(events) if isinstance(event, StopEvent))
    return [*events[:at], *made, *events[at:]]


def only(events: list[StreamEvent], index: int, *kinds: type) -> list[StreamEvent]:
    return [event for event in events if isinstance(event, kinds) and getattr(event, "index", None) == index]


@pytest.mark.parametrize(
    ("name", "change", "rule"),
    [
        pytest.param("responses text", lambda e: [*MADE_CALL, *e], "", id="a call before the response was created"),
        pytest.param("responses text", lambda e: [TextDelta(INSERTED, "note"), *e], "", id="text before it was created"),
        pytest.param(
            "responses one call",
            lambda e: before_end_of_call(e, ToolCallDelta(0, "{}")),
            "delta_before_done",
            id="arguments after their end",
        ),
        pytest.param(
            "responses other calls",
            lambda e: before_end_of_call(e, ToolCallDelta(0, "{}")),
            "delta_before_done",
            id="input after its end",
        ),
        pytest.param(
            "responses other parts",
            lambda e: [piece for event in e for piece in [event] * (1 + isinstance(event, ToolCallDelta))],
            "delta_before_done",
            id="whole arguments twice",
        ),
        pytest.param(
            "responses other parts",
            lambda e: [
                piece
                for event in e
                for piece in ([ToolCallDelta(3, "x"), event] if isinstance(event, ToolCallDelta) else [event])
            ],
            "",
            id="pieces of arguments before all of them",
        ),
        pytest.param(
            "responses tools",
            lambda e: with_pieces_exchanged(e, first=0, second=2),
            "delta_before_done",
            id="pieces of two summaries exchanged",
        ),
        pytest.param(
            "responses tools",
            lambda e: with_pieces_exchanged(e, first=3, second=5),
            "delta_before_done",
            id="pieces of two texts exchanged",
        ),
        pytest.param(
            "responses tools", lambda e: only(e, 1, TextDelta)[::-1], "", id="pieces of two texts backwards and nothing else"
        ),
        pytest.param(
            "responses other calls",
            lambda e: [ToolCallStart(1, "id_new", "tool"), *only(e, 1, ToolCallEnd)],
            "",
            id="a made call ended by another's end",
        ),
        pytest.param(
            "responses other calls",
            lambda e: [*only(e, 1, ToolCallStart), ToolCallDelta(1, "[1]"), ToolCallEnd(1)],
            "arguments_are_object",
            id="arguments that a shell call cannot have",
        ),
        pytest.param(
            "responses one call", lambda e: [ToolCallStart(0, "", "tool"), *e[3:]], "", id="a call begun anew without its id"
        ),
        pytest.param(
            "responses other parts",
            lambda e: [*e[:-6], TextDelta(4, "x"), *e[-6:]],
            "",
            id="text beside a refusal",
        ),
        pytest.param(
            "responses other parts", lambda e: [*e[:10], TextDelta(1, "x"), *e[10:]], "delta_matches_item", id="text of a search"
        ),
        *(
            pytest.param(
                name, lambda e: before_stop(e, ToolCallStart(5, "id_new", "")), rule, id=f"a call without a name: {name}"
            )
            for name, rule in (
                ("chat one call", "call_named"),
                ("messages one call", "tool_named"),
                ("responses one call", "call_named"),
                ("ollama one call", "calls_whole"),
            )
        ),
        *(
            pytest.param(
                f"{dialect} one call",
                lambda e: [ToolCallStart(5, next(x.call_id for x in e if isinstance(x, ToolCallStart)), "tool"), *e],
                "call_ids_distinct",
                id=f"a call with the id of a later one: {dialect}",
            )
            for dialect in ("chat", "messages", "responses")
        ),
        pytest.param(
            "messages one call",
            lambda e: before_stop(e, ToolCallStart(5, "", "tool"), ToolCallEnd(5)),
            "",
            id="a call without an id",
        ),
        pytest.param(
            "chat one call",
            lambda e: [*e[:-1], ErrorEvent(AnswerError("busy", "busy")), TextDelta(0, "x"), e[-1]],
            "done_last",
            id="text after an error",
        ),
        pytest.param(
            "chat tools",
            lambda e: [ErrorEvent(AnswerError("busy", "busy")), EndEvent()],
            "",
            id="an error and nothing else",
        ),
        pytest.param(
            "messages server tool",
            lambda e: [*e[:8], ErrorEvent(AnswerError("busy", "busy")), *e[8:]],
            "message_stop_last",
            id="the end of a block after an error",
        ),
        pytest.param("chat one call", lambda e: [*e[:2], EndEvent()], "", id="an end in the middle of a call"),
        pytest.param("chat tools", lambda e: [*e[:2], EndEvent()], "", id="an end after the role"),
        pytest.param(
            "chat tools", lambda e: before_stop(without_calls(e, 0, 1), StopEvent("tool_calls"))[:-3], "", id="a stop for no call"
        ),
        pytest.param("chat two choices", lambda e: [TextDelta(2, "x"), *e], "choice_contiguous", id="a choice left out"),
        pytest.param("messages one call", lambda e: [*e[:1], StopEvent("end_turn"), *e[1:]], "", id="another stop before a call"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_is_made_of_a_stream_is_legal_or_refused(name: str, change: object, rule: str, late: bool) -> None:
    operation, body = STREAMS[name]
    events = decode(operation, body)
    assert legal_stream(operation, events, [[event] for event in change(events)], late=late)[1] == rule  # type: ignore[operator]


def test_a_response_that_was_begun_before_the_upstreams_keeps_its_id() -> None:
    operation, body = STREAMS["responses text"]
    events = decode(operation, body)
    out, _ = legal_stream(operation, events, [[TextDelta(INSERTED, "note")], events], late=True)
    ids = [as_text(as_object(sse_object(raw + b"\n\n").get("response")).get("id")) for raw in out.split(b"\n\n")]
    assert {response_id for response_id in ids if response_id} == {"resp_t1"}


def test_parts_are_told_in_the_order_in_which_they_were_sent() -> None:
    operation, body = STREAMS["responses tools"]
    events = decode(operation, body)
    out, rule = legal_stream(operation, events, [[*only(events, 1, TextDelta)[::-1], events[-1]]])
    assert rule == ""
    assert read_with_sdk(operation, out).text == "And more.look — 巴黎.Let me "


# --- anything ---


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), wild=st.booleans())
def test_whatever_policies_do_the_stream_is_legal_or_refused(name: str, data: st.DataObject, wild: bool) -> None:
    operation, body = STREAMS[name]
    events = decode(operation, body)
    left = data.draw(edits(events, wild=wild))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(left)), max_size=4)))
    refused = data.draw(st.booleans()) and data.draw(st.booleans())
    late = data.draw(st.booleans())
    parts = [left[start:end] for start, end in pairwise([0, *cuts, len(left)])]
    out, rule = legal_stream(operation, events, parts, late=late, refused=refused)
    if not refused and not wild and not rule:
        said = "".join(event.text for event in left if isinstance(event, TextDelta))
        heard = "".join(event.text for event in decode(operation, out) if isinstance(event, TextDelta))
        if name != "chat two choices":
            assert heard.replace("\n\n", "") == said


def test_the_golden_bytes_of_a_blocked_call() -> None:
    out = encoded(Operation.MESSAGES, MESSAGES_ONE_CALL, lambda events: without_calls(events, 0, marker="[blocked]"))
    assert out == MESSAGE_START + (
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"[blocked]"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_sequence":null,"stop_reason":"end_turn"},'
        b'"usage":{"output_tokens": 42}}\n\n'
        b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
    )
    out = encoded(Operation.CHAT, CHAT_ONE_CALL, lambda events: without_calls(events, 0, marker="[blocked]"))
    top = b'data: {"id":"chatcmpl-7","object":"chat.completion.chunk","created":17,"model":"g-1","system_fingerprint":"fp_1",'
    assert out == (
        top + b'"choices":[{"index":0,"delta":{"role":"assistant","content":"[blocked]"},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
        + top + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29, "x_detail": {"kept": 1}}}\n\n'
        b"data: [DONE]\n\n"
    )  # fmt: skip


def test_later_blocks_are_renumbered_and_pings_pass() -> None:
    out = encoded(Operation.MESSAGES, MESSAGES_TOOLS, lambda events: without_calls(events, 2))
    assert out.count(PING) == 2
    assert b'"index":2' in out and b'"index":3' not in out and b'"index": 3' not in out
    assert block_delta(1, "text_delta", "text", "Let me ") in out


def test_what_the_provider_runs_itself_passes_with_new_numbers() -> None:
    def drop_first_text(events: list[StreamEvent]) -> list[StreamEvent]:
        return [event for event in events if not (isinstance(event, TextDelta) and event.index == 0)]

    out = encoded(Operation.MESSAGES, MESSAGES_SERVER_TOOL, drop_first_text)
    assert read(Operation.MESSAGES, out).text == "Found"
    assert b'"index":0,"content_block":{"type": "server_tool_use"' in out


def test_empty_pieces_of_a_blocked_call_do_not_leak() -> None:
    empty = chunk({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]})
    body = CHAT_TOOLS.replace(chunk({}, finish="tool_calls"), empty + chunk({}, finish="tool_calls"))
    assert [call[1] for call in read(Operation.CHAT, encoded(Operation.CHAT, body, lambda e: without_calls(e, 0))).calls] == [
        "read"
    ]


def test_text_that_comes_only_whole_is_seen_by_policies() -> None:
    whole = b"".join(
        block + b"\n\n"
        for block in RESPONSES_OTHER_CALLS.split(b"\n\n")
        if block and b"event: response.output_text.delta" not in block
    )
    out = encoded(Operation.RESPONSES, whole, lambda events: with_texts(events, str.upper))
    assert read(Operation.RESPONSES, out).text == "DONE"
    assert b'"done"' not in out.replace(b"_done", b"").replace(b".done", b"")


def test_a_call_of_another_tool_in_place_of_a_shell_call_is_a_function_call() -> None:
    def swap(events: list[StreamEvent]) -> list[StreamEvent]:
        new = [ToolCallStart(1, "call_n", "notify"), ToolCallDelta(1, '{"a": 1}'), ToolCallEnd(1)]
        return [*without_calls(events[:-3], 1), *new, *events[-3:]]

    out = encoded(Operation.RESPONSES, RESPONSES_OTHER_CALLS, swap)
    assert read(Operation.RESPONSES, out).calls[1] == ("call_n", "notify", {"a": 1})
    assert b"local_shell" not in out


def test_ollama_calls_stand_whole_in_one_line() -> None:
    out = encoded(Operation.OLLAMA_CHAT, OLLAMA_TOOLS, lambda events: with_arguments(events, 0, '{"x": 1}'))
    assert read(Operation.OLLAMA_CHAT, out).calls[0] == ("", "bash", {"x": 1})
    with pytest.raises(IllegalStream) as caught:
        encoded(Operation.OLLAMA_CHAT, OLLAMA_TOOLS, lambda events: with_arguments(events, 0, "[1]"))
    assert caught.value.rule == "arguments_are_object"


def test_there_is_no_encoder_for_what_is_not_read() -> None:
    assert encoder_for(Operation.OTHER) is None
    assert encoder_for(Operation.EMBEDDINGS) is None


def test_a_text_block_that_stands_alone_is_replaced_in_place() -> None:
    out = encoded(Operation.MESSAGES, MESSAGES_TEXT, lambda events: with_texts(events, str.title))
    assert out.count(b"content_block_start\n") == 1
