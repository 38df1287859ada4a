"""The rules of streams, one table a dialect: what is legal is found legal, and each break has its name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.wire.dialects import Operation
from proxy_core.wire.validator import StreamValidator, check_stream
from tests.proxy_core.wire.rich_streams import (
    MESSAGE_START,
    MESSAGES_TEXT,
    MESSAGES_TOOLS,
    PING,
    RESPONSES_TEXT,
    RESPONSES_TOOLS,
    STREAMS,
    block_delta,
    block_start,
    block_stop,
    chat_call,
    chat_piece,
    chunk,
    line,
    message_end,
    named,
    text_block,
    tool_block,
)
from tests.proxy_core.wire.streams import cuts_of, pieces

DONE = b"data: [DONE]\n\n"
TEXT = {"type": "text", "text": ""}
END = message_end("end_turn")
STOP = named({"type": "message_stop"})


def rules(operation: Operation, body: bytes, *, strict: bool = False) -> list[str]:
    return [violation.rule for violation in check_stream(operation, body, strict=strict)]


@pytest.mark.parametrize("name", sorted(STREAMS))
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_legal_streams_are_legal_however_they_are_cut(name: str, data: st.DataObject) -> None:
    operation, body = STREAMS[name]
    validator = StreamValidator(operation, strict=True)
    found = [violation for piece in pieces(body, data.draw(cuts_of(body))) for violation in validator.feed(piece)]
    assert [*found, *validator.finish()] == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(MESSAGES_TEXT, [], id="one text"),
        pytest.param(MESSAGES_TOOLS, [], id="parallel tools"),
        pytest.param(PING + MESSAGE_START + PING + text_block(0, "a") + PING + END, [], id="pings"),
        pytest.param(text_block(0, "a") + END, ["message_start_first"], id="no message_start"),
        pytest.param(
            block_start(0, TEXT) + MESSAGE_START + block_stop(0) + END,
            ["message_start_first", "message_start_first"],
            id="late message_start",
        ),
        pytest.param(MESSAGE_START + text_block(0, "a"), ["message_stop_last"], id="no message_stop"),
        pytest.param(MESSAGES_TEXT + text_block(1, "a"), ["message_stop_last"] * 3, id="content after message_stop"),
        pytest.param(
            MESSAGE_START + END.replace(STOP, b"") + text_block(0, "a") + STOP,
            ["content_before_message_delta"] * 3,
            id="a block after message_delta",
        ),
        pytest.param(
            MESSAGE_START + named({"type": "content_block_start", "content_block": TEXT}) + END,
            ["block_index_present"],
            id="no index",
        ),
        pytest.param(MESSAGE_START + block_start(-1, TEXT) + END, ["block_index_non_negative"], id="negative index"),
        pytest.param(
            MESSAGE_START + block_delta(0, "text_delta", "text", "a") + END, ["delta_after_start"], id="delta without start"
        ),
        pytest.param(MESSAGE_START + block_stop(0) + END, ["stop_after_start"], id="stop without start"),
        pytest.param(
            MESSAGE_START + text_block(0, "a") + block_delta(0, "text_delta", "text", "b") + END,
            ["delta_before_stop"],
            id="delta after stop",
        ),
        pytest.param(MESSAGE_START + text_block(0, "a") + block_stop(0) + END, ["block_stopped_once"], id="double stop"),
        pytest.param(MESSAGE_START + block_start(0, TEXT) + END, ["blocks_closed"], id="unclosed block"),
        pytest.param(
            MESSAGE_START + text_block(0, "a") + text_block(0, "b") + END, ["block_start_monotonic"], id="duplicate start"
        ),
        pytest.param(
            MESSAGE_START + text_block(1, "a") + text_block(0, "b") + END, ["block_start_monotonic"], id="decreasing start"
        ),
        pytest.param(b"", ["non_empty"], id="empty"),
        pytest.param(b": only a comment\n\n", ["non_empty"], id="comments only"),
        pytest.param(MESSAGE_START + named({"type": "error", "error": {}}), [], id="an error ends it"),
        pytest.param(MESSAGE_START + b"data: [1, 2]\n\n" + END, ["event_readable"], id="no object"),
        pytest.param(MESSAGES_TEXT + b"data: {", ["whole_events"], id="half an event"),
    ],
)
def test_messages(body: bytes, expected: list[str]) -> None:
    assert rules(Operation.MESSAGES, body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (MESSAGE_START + text_block(0) + END, ["text_non_empty"]),
        (MESSAGE_START + text_block(0, "a") + text_block(2, "b") + END, ["block_start_contiguous"]),
        (MESSAGE_START + text_block(0, "a") + message_end("tool_use"), ["stop_reason_true"]),
        (MESSAGE_START + tool_block(0, "t", "n", "{}") + message_end("end_turn"), ["stop_reason_true"]),
        (MESSAGE_START + text_block(0, "a") + STOP, ["message_delta_present"]),
    ],
)
def test_messages_of_ours(body: bytes, expected: list[str]) -> None:
    assert rules(Operation.MESSAGES, body) == []
    assert rules(Operation.MESSAGES, body, strict=True) == expected


FIRST = chunk({"role": "assistant", "content": "a"})
FINISH = chunk({}, finish="stop")
CALL = chunk(chat_call(0, "a", "n", "{}"))
CALLED = chunk({}, finish="tool_calls")


@pytest.mark.parametrize(
    ("body", "always", "ours"),
    [
        (FIRST + FINISH + DONE, [], []),
        (FIRST + FINISH, ["done_last"], []),
        (FIRST + FINISH + DONE + FIRST, ["done_last"], []),
        (FIRST + FINISH + FIRST.replace(b'"role": "assistant", ', b"") + DONE, ["delta_before_finish"], []),
        (FIRST + FINISH + FINISH + DONE, ["finish_once"], []),
        (chunk(chat_piece(0, "{}")) + CALLED + DONE, ["delta_after_start"], []),
        (b"data: nonsense\n\n" + FINISH + DONE, ["event_readable"], []),
        (b'data: {"error": {"message": "busy"}}\n\n', [], []),
        (b'data: {"error": {"message": "busy"}}\n\n' + FIRST, ["done_last"], []),
        (FIRST + DONE, [], ["finish_present"]),
        (FIRST + CALLED + DONE, [], ["finish_reason_true"]),
        (CALL + FINISH + DONE, [], ["finish_reason_true"]),
        (CALL + CALL + CALLED + DONE, [], ["call_named_once"]),
        (chunk(chat_call(1, "a", "n")) + CALLED + DONE, [], ["call_index_contiguous"]),
        (FIRST + FIRST + FINISH + DONE, [], ["role_once"]),
    ],
)
def test_chat(body: bytes, always: list[str], ours: list[str]) -> None:
    assert rules(Operation.CHAT, body) == always
    assert rules(Operation.CHAT, body, strict=True) == [*always, *ours]


def without_event(body: bytes, kind: str, nth: int = 0) -> bytes:
    events = [event + b"\n\n" for event in body.split(b"\n\n") if event]
    found = [event for event in events if event.startswith(f"event: {kind}\n".encode())]
    return b"".join(event for event in events if event is not found[nth])


def swapped(body: bytes, old: str, new: str) -> bytes:
    assert old.encode() in body
    return body.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    ("body", "always", "ours"),
    [
        (without_event(RESPONSES_TEXT, "response.created"), ["created_first"], []),
        (without_event(RESPONSES_TEXT, "response.completed"), ["terminator_last"], []),
        (RESPONSES_TEXT + RESPONSES_TEXT[:400].partition(b"\n\n")[0] + b"\n\n", ["terminator_last"], []),
        (without_event(RESPONSES_TOOLS, "response.output_item.added", 3), ["delta_after_added"] * 3, None),
        (without_event(RESPONSES_TEXT, "response.output_item.done"), [], ["items_done", "output_agrees"]),
        (without_event(RESPONSES_TEXT, "response.content_part.added"), [], ["part_added"]),
        (without_event(RESPONSES_TEXT, "response.output_text.delta"), [], ["text_agrees"] * 3),
        (without_event(RESPONSES_TOOLS, "response.function_call_arguments.delta"), [], ["arguments_agree"]),
        (swapped(RESPONSES_TEXT, '"sequence_number": 4', '"sequence_number": 3'), ["sequence_monotonic"], []),
        (swapped(RESPONSES_TEXT, '"delta": "Hello "', '"delta": "Hallo "'), [], ["text_agrees"] * 3),
        (RESPONSES_TEXT.replace(b'"output_index": 0', b'"output_index": 1'), [], ["output_index_contiguous"]),
    ],
)
def test_responses(body: bytes, always: list[str], ours: list[str] | None) -> None:
    assert rules(Operation.RESPONSES, body) == always
    if ours is not None:
        assert rules(Operation.RESPONSES, body, strict=True) == [*always, *ours]


LAST = line({}, done=True, done_reason="stop")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (line({"content": "a"}) + LAST, []),
        (line({"content": "a"}), ["done_last"]),
        (LAST + line({"content": "a"}), ["done_last"]),
        (b"[]\n" + LAST, ["event_readable"]),
        (b'{"error": "busy"}\n', []),
        (line({"tool_calls": [{"function": {"name": "n", "arguments": "{}"}}]}) + LAST, ["calls_whole"]),
        (b"\n\n", ["non_empty"]),
        (LAST[:-1], ["whole_events"]),
    ],
)
def test_ollama(body: bytes, expected: list[str]) -> None:
    assert rules(Operation.OLLAMA_CHAT, body) == expected


@settings(max_examples=80, deadline=None)
@given(body=st.binary(max_size=300), name=st.sampled_from(sorted(STREAMS)), value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "index", "delta", "choices", "item", "part", "output_index", "message", "done"]),
                      inner, max_size=4), max_leaves=12))  # fmt: skip
def test_nothing_makes_it_raise(body: bytes, name: str, value: object) -> None:
    operation, good = STREAMS[name]
    made = json.dumps(value).encode()
    for piece in (body, b"data: " + body + b"\n\n", b"data: " + made + b"\n\n", made + b"\n"):
        check_stream(operation, good[:200].rpartition(b"\n\n")[0] + b"\n\n" + piece, strict=True)


def test_other_operations_have_no_streams() -> None:
    with pytest.raises(ValueError, match="no streams"):
        StreamValidator(Operation.EMBEDDINGS)
