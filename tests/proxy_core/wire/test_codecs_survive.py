"""No bytes make a codec raise, no cutting changes what it reads, and no byte of a stream is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer, Conversation
from proxy_core.wire.dialects import Operation
from tests.proxy_core.wire.streams import CHAT, MESSAGES, OLLAMA, RESPONSES, cuts_of, pieces

OPERATIONS = [operation for operation in Operation if codec_for(operation) is not None]
STREAMS = {
    Operation.CHAT: CHAT,
    Operation.MESSAGES: MESSAGES,
    Operation.RESPONSES: RESPONSES,
    Operation.OLLAMA_CHAT: OLLAMA,
}
KEYS_TEXT = """
id model choices message messages delta content text type role index usage prompt_tokens completion_tokens error
input output tool_calls function name arguments item response output_index content_block system tools
finish_reason done thinking signature reasoning reasoning_details stop_reason input_tokens output_tokens
prompt_tokens_details call_id summary instructions images prompt function_call custom action status detail
"""
KEYS = st.sampled_from(KEYS_TEXT.split())
WORDS_TEXT = """
text tool_use tool_result thinking message function_call reasoning custom_tool_call local_shell_call image_url
image error tool assistant user content_block_start content_block_delta content_block_stop message_start
message_delta message_stop text_delta input_json_delta thinking_delta signature_delta response.created
response.completed response.failed response.output_item.added response.output_item.done response.output_text.delta
response.function_call_arguments.delta response.function_call_arguments.done function_call_output
"""
WORDS = st.sampled_from(WORDS_TEXT.split())
NUMBERS = st.integers(-3, 5) | st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30]) | st.floats()
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)
SHAPES = st.dictionaries(KEYS, VALUES, max_size=8)
DEEP = b'{"messages":' * 50_000
UGLY = [
    b"", b" ", b"null", b"[]", b'"text"', b"7", b"{", b'{"choices":[{"message":{"content":"cut o', b"<html><title>502</title>",
    b"Bad Gateway", b"\xff\xfe", b"\xef\xbb\xbf{}", DEEP, b"[" * 100_000, b'{"usage":{"prompt_tokens":' + b"9" * 5000 + b"}}",
    b'{"model":NaN,"choices":[],"messages":[]}', b'{"model":"\\ud800","choices":[],"messages":[]}',
    b'{"model":"\xff","choices":[]}',
    b'{"error":"x"}', b'{"error":["x"]}', b'{"error":7}', b'{"error":{"message":{"a":1},"code":9}}', b'{"detail":[{"msg":"x"}]}',
    b'{"output":[{"type":[]}],"input":[{"type":{}}]}',
    b'[{"error":{"message":"x"}}]', b'{"a":1e999}', b"data: x\n\n", b'event: error\ndata: "x"\n\n', b": only a comment\n\n",
]  # fmt: skip


def check(operation: Operation, data: bytes, cuts: list[int]) -> Answer:
    """Read `data` in every way and require the promises that hold for all bytes."""
    codec = codec_for(operation)
    assert codec is not None
    assert isinstance(codec.read_request(data), Conversation)
    assert isinstance(codec.read_response(data), Answer)
    decoder = codec.stream_decoder()
    whole_events = decoder.feed(data)
    answer = decoder.finish()
    for text in [answer.text, *(call.arguments for call in answer.tool_calls)]:
        text.encode("utf-8")
    cut = codec.stream_decoder()
    events = [event for piece in pieces(data, cuts) for event in cut.feed(piece)]
    assert events == whole_events
    assert cut.finish() == answer
    raw = b"".join(event.raw for event in events)
    assert data.startswith(raw)
    return answer


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("body", UGLY, ids=range(len(UGLY)))
def test_ugly_bodies(operation: Operation, body: bytes) -> None:
    check(operation, body, [1, 5, 9])
    codec = codec_for(operation)
    assert codec is not None
    answer = codec.read_response(body)
    assert answer.problem or answer.error or not answer.complete or b"{" in body


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=60, deadline=None)
@given(value=VALUES | SHAPES, cuts=st.lists(st.integers(0, 400), max_size=4), names=st.lists(WORDS, min_size=1, max_size=3))
def test_any_json(operation: Operation, value: Any, cuts: list[int], names: list[str]) -> None:
    data = json.dumps(value).encode()
    check(operation, data, cuts)
    check(operation, data + b"\n", cuts)
    stream = b"".join(b"event: " + name.encode() + b"\ndata: " + data + b"\n\n" for name in names)
    check(operation, stream, cuts)


@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=4))
def test_any_bytes(operation: Operation, data: bytes, cuts: list[int]) -> None:
    check(operation, data, cuts)
    check(operation, b"data: " + data + b"\n\n", cuts)


@pytest.mark.parametrize(("operation", "stream"), STREAMS.items())
@settings(max_examples=60, deadline=None)
@given(choice=st.data())
def test_golden_streams_read_the_same_however_cut(operation: Operation, stream: bytes, choice: st.DataObject) -> None:
    answer = check(operation, stream, choice.draw(cuts_of(stream)))
    assert answer.complete
    assert answer.problem is None
    assert answer.tool_calls


@pytest.mark.parametrize(("operation", "stream"), STREAMS.items())
@settings(max_examples=60, deadline=None)
@given(choice=st.data())
def test_a_damaged_stream_still_reads_the_same_however_cut(operation: Operation, stream: bytes, choice: st.DataObject) -> None:
    at = choice.draw(st.integers(0, len(stream) - 1))
    damaged = stream[:at] + choice.draw(st.binary(max_size=3)) + stream[at + choice.draw(st.integers(0, 40)) :]
    check(operation, damaged, choice.draw(cuts_of(damaged)))


@pytest.mark.parametrize(("operation", "stream"), STREAMS.items())
def test_all_raw_bytes_of_a_stream_are_in_its_events(operation: Operation, stream: bytes) -> None:
    codec = codec_for(operation)
    assert codec is not None
    assert b"".join(event.raw for event in codec.stream_decoder().feed(stream)) == stream


@pytest.mark.parametrize(("operation", "stream"), STREAMS.items())
def test_a_stream_without_its_terminator_is_not_complete(operation: Operation, stream: bytes) -> None:
    codec = codec_for(operation)
    assert codec is not None
    separator = b"\n" if operation is Operation.OLLAMA_CHAT else b"\n\n"
    decoder = codec.stream_decoder()
    decoder.feed(stream[: stream.rstrip(b"\n").rindex(separator) + len(separator)])
    assert decoder.finish().complete is False
