"""A stream says the same in another dialect: legal there, ended there, and the same bytes however it arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer, ThinkingBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.translate import StreamTranslator, UnreadableBody
from proxy_core.wire.validator import StreamValidator, check_stream
from tests.proxy_core.wire import rich_streams as rich
from tests.proxy_core.wire import streams
from tests.proxy_core.wire.sdk_reading import read_with_sdk
from tests.proxy_core.wire.streams import cuts_of, pieces
from tests.proxy_core.wire.test_codecs_survive import SHAPES, UGLY
from tests.proxy_core.wire.translate.test_answers import TID
from tests.proxy_core.wire.translate.test_requests import CHAT, MESSAGES, OLLAMA, PAIRS

GIVEN: dict[Operation, list[bytes]] = {
    CHAT: [streams.CHAT, rich.CHAT_TOOLS, rich.CHAT_ONE_CALL],
    MESSAGES: [streams.MESSAGES, rich.MESSAGES_TOOLS, rich.MESSAGES_ONE_CALL, rich.MESSAGES_TEXT],
    OLLAMA: [streams.OLLAMA, rich.OLLAMA_TOOLS, rich.OLLAMA_ONE_CALL, rich.OLLAMA_TEXT],
}
CASES = [(source, target, body) for source, target in PAIRS for body in GIVEN[source]]
STOPS = {CHAT: ("stop", "tool_calls"), MESSAGES: ("end_turn", "tool_use"), OLLAMA: ("stop", "stop")}


def translate(source: Operation, target: Operation, body: bytes, cuts: list[int] | None = None, **more: Any) -> bytes:
    translator = StreamTranslator(source, target, transaction_id=TID, **more)
    return b"".join([*(translator.feed(piece) for piece in pieces(body, cuts or [])), translator.finish()])


def read(operation: Operation, body: bytes) -> Answer:
    codec = codec_for(operation)
    assert codec is not None
    decoder = codec.stream_decoder()
    decoder.feed(body)
    return decoder.finish()


def thinking(answer: Answer) -> str:
    return "".join(block.text for block in answer.blocks if isinstance(block, ThinkingBlock))


@pytest.mark.parametrize(("source", "target", "body"), CASES, ids=str)
def test_a_stream_says_the_same(source: Operation, target: Operation, body: bytes) -> None:
    got = translate(source, target, body)
    assert check_stream(target, got, strict=True) == []
    before, after = read(source, body), read(target, got)
    assert (after.complete, after.problem, after.error) == (True, None, None)
    assert (after.text, thinking(after)) == (before.text, thinking(before))
    assert [(call.name, json.loads(call.arguments or "{}")) for call in after.tool_calls] == [
        (call.name, json.loads(call.arguments or "{}")) for call in before.tool_calls
    ]
    assert after.model == before.model
    assert after.stop_reason == STOPS[target][bool(before.tool_calls)]
    assert before.usage is not None
    assert after.usage is not None
    assert (after.usage.input_tokens, after.usage.output_tokens) == (before.usage.input_tokens, before.usage.output_tokens)


@pytest.mark.parametrize(("source", "target", "body"), CASES, ids=str)
def test_the_vendors_clients_read_it(source: Operation, target: Operation, body: bytes) -> None:
    before, after = read(source, body), read_with_sdk(target, translate(source, target, body))
    assert after.text == before.text
    assert [(name, arguments) for _, name, arguments in after.calls] == [
        (call.name, json.loads(call.arguments or "{}")) for call in before.tool_calls
    ]
    assert after.stop == STOPS[target][bool(before.tool_calls)]
    if OLLAMA not in (source, target):
        assert [call_id for call_id, _, _ in after.calls] == [call.call_id for call in before.tool_calls]
    elif source is OLLAMA:
        assert [call_id for call_id, _, _ in after.calls] == [f"call_{TID}_{number}" for number in range(len(after.calls))]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cutting_changes_nothing(data: st.DataObject) -> None:
    source, target, body = data.draw(st.sampled_from(CASES))
    assert translate(source, target, body, data.draw(cuts_of(body))) == translate(source, target, body)


@pytest.mark.parametrize(("source", "target", "body"), CASES, ids=str)
def test_each_event_leaves_as_it_comes(source: Operation, target: Operation, body: bytes) -> None:
    """Text is not kept back: after every event of text, the client has all text so far."""
    translator = StreamTranslator(source, target, transaction_id=TID)
    separator = b"\n" if source is OLLAMA else b"\n\n"
    sent = got = b""
    for piece in body.split(separator)[:-1]:
        sent += piece + separator
        got += translator.feed(piece + separator)
        said = read(source, sent)
        if not said.tool_calls:
            assert (read(target, got).text, thinking(read(target, got))) == (said.text, thinking(said))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_stream_that_is_cut_off_is_not_ended(data: st.DataObject) -> None:
    source, target, body = data.draw(st.sampled_from(CASES))
    cut = body[: data.draw(st.integers(0, len(body)))]
    got, before = translate(source, target, cut), read(source, cut)
    assert read(target, got).complete == (before.stop_reason is not None or before.complete)


def test_counts_are_given_to_those_who_asked() -> None:
    assert b'"usage"' in translate(MESSAGES, CHAT, rich.MESSAGES_TEXT)
    without = translate(MESSAGES, CHAT, rich.MESSAGES_TEXT, stream_usage=False)
    assert b'"usage"' not in without
    assert without.endswith(b"data: [DONE]\n\n")


def test_pieces_of_calls_that_are_mixed_are_put_in_order() -> None:
    """Chat Completions may say two calls at once; Messages and Ollama cannot."""
    got = read(MESSAGES, translate(CHAT, MESSAGES, streams.CHAT))
    assert [(call.call_id, call.name, call.arguments) for call in got.tool_calls] == [
        ("call_a", "weather", '{"city":"Bonn"}'), ("call_b", "clock", "{}"),
    ]  # fmt: skip


def test_a_signature_reaches_the_client_that_must_bring_it_back() -> None:
    answer = read(CHAT, translate(MESSAGES, CHAT, streams.MESSAGES))
    assert answer.blocks[0] == ThinkingBlock("hm", "c2ln+/=")


def test_only_the_first_choice_is_carried() -> None:
    got = read(MESSAGES, translate(CHAT, MESSAGES, rich.CHAT_TWO_CHOICES))
    first = "".join(
        choice["delta"].get("content") or ""
        for event in rich.CHAT_TWO_CHOICES.decode().split("\n\n")
        if event.startswith("data: {")
        for choice in json.loads(event[6:])["choices"]
        if choice["index"] == 0
    )
    assert got.text == first


def test_a_refusal_is_said_and_named() -> None:
    body = rich.chunk({"role": "assistant", "refusal": "I "}) + rich.chunk({"refusal": "cannot."}) + rich.chunk({}, finish="stop")
    got = read(MESSAGES, translate(CHAT, MESSAGES, body + b"data: [DONE]\n\n"))
    assert (got.text, got.stop_reason) == ("I cannot.", "refusal")


ERRORS = {
    CHAT: b'data: {"error":{"message":"Busy","type":"rate_limit_error","param":null,"code":null}}\n\n',
    MESSAGES: b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"Busy"}}\n\n',
    OLLAMA: b'{"error":"Busy"}\n',
}


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("begun", [False, True])
def test_errors_inside_a_stream(source: Operation, target: Operation, begun: bool) -> None:
    start = {CHAT: rich.chunk({"content": "Hel"}), MESSAGES: rich.MESSAGE_START, OLLAMA: rich.line({"content": "Hel"})}[source]
    got = translate(source, target, (start if begun else b"") + ERRORS[source] + start)
    error = read(target, got).error
    assert error is not None
    kind = "api_error" if target is MESSAGES else "server_error"
    assert error.message == "Busy"
    assert error.type == ("error" if target is OLLAMA else kind if source is OLLAMA else "rate_limit_error")
    assert got.endswith(b"\n\n" if target is not OLLAMA else b'{"error":"Busy"}\n')


@pytest.mark.parametrize("body", [b'{"error":{"message":"Busy","type":"server_error"}}', b"<html>Bad Gateway</html>", b'{"a":1}'])
def test_a_body_that_is_no_stream_is_an_error(body: bytes) -> None:
    for source, target in PAIRS:
        if source is not OLLAMA:
            assert read(target, translate(source, target, body)).error is not None


def test_arguments_that_ollama_cannot_say_are_an_error() -> None:
    call = rich.chunk(rich.chat_call(0, "call_a", "f", "{oops"))
    got = translate(
        CHAT, OLLAMA, rich.chunk({"content": "Hm"}) + call + rich.chunk({}, finish="tool_calls") + b"data: [DONE]\n\n"
    )
    answer = read(OLLAMA, got)
    assert (answer.text, answer.complete, answer.error is not None) == ("Hm", False, True)


def test_a_stream_without_its_last_word_is_ended_where_the_model_was_done() -> None:
    got = translate(CHAT, MESSAGES, rich.chunk({"content": "Hi"}) + rich.chunk({}, finish="stop"))
    assert read(MESSAGES, got).complete
    assert not read(MESSAGES, translate(CHAT, MESSAGES, rich.chunk({"content": "Hi"}))).complete


def test_only_chats_are_translated() -> None:
    with pytest.raises(UnreadableBody):
        StreamTranslator(Operation.RESPONSES, CHAT, transaction_id=TID)


@pytest.mark.parametrize("body", UGLY)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_ugly_bytes(source: Operation, target: Operation, body: bytes) -> None:
    translate(source, target, body)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PAIRS), st.lists(SHAPES, max_size=6))
def test_no_events_make_it_raise(pair: tuple[Operation, Operation], shapes: list[Any]) -> None:
    wrapped = [*shapes, *({"choices": [{"delta": shape, **shape}], **shape} for shape in shapes)]
    texts = [json.dumps(shape, ensure_ascii=False).encode("utf-8", "replace") for shape in wrapped]
    body = b"".join(text + b"\n" if pair[0] is OLLAMA else b"data: " + text + b"\n\n" for text in texts)
    got = translate(*pair, body)
    assert got == translate(*pair, body, [len(body) // 3, len(body) // 2])
    assert StreamValidator(pair[1], strict=True).feed(got) == []


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_events_that_are_missing_doubled_or_moved_give_a_legal_stream(data: st.DataObject) -> None:
    source, target, body = data.draw(st.sampled_from(CASES))
    separator = b"\n" if source is OLLAMA else b"\n\n"
    events = body.split(separator)[:-1]
    drawn = data.draw(st.lists(st.sampled_from(events), max_size=3))
    order = data.draw(st.permutations(range(len(events))) | st.just(range(len(events))))
    kept = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    mixed = [events[place] for place in order if kept[place]] + drawn
    got = translate(source, target, b"".join(event + separator for event in mixed))
    assert StreamValidator(target, strict=True).feed(got) == []
