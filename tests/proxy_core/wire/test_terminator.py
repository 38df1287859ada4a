"""The terminator is found at the same place for every cutting, and text cannot forge it."""

from __future__ import annotations

import pytest

from proxy_core.wire.dialects import Operation
from proxy_core.wire.terminator import MAX_LINE_BYTES, terminator_scan
from tests.proxy_core.wire.streams import CHAT, MESSAGES, OLLAMA, RESPONSES

SSE = "text/event-stream; charset=utf-8"
NDJSON = "application/x-ndjson"

UNNAMED_MESSAGES = MESSAGES.replace(b"event: message_stop\ndata", b"data")
GOLDEN = [
    pytest.param(Operation.CHAT, SSE, CHAT, CHAT.rindex(b"data: [DONE]"), id="chat"),
    pytest.param(Operation.COMPLETIONS, SSE, b"data:[DONE]\n\n", 0, id="first line"),
    pytest.param(Operation.MESSAGES, SSE, MESSAGES, MESSAGES.rindex(b"event: message_stop\n"), id="messages"),
    pytest.param(Operation.MESSAGES, SSE, UNNAMED_MESSAGES, UNNAMED_MESSAGES.rindex(b"data: {"), id="messages without names"),
    pytest.param(Operation.RESPONSES, SSE, RESPONSES, RESPONSES.rindex(b"event: response.completed\n"), id="responses"),
    pytest.param(Operation.OLLAMA_CHAT, NDJSON, OLLAMA, OLLAMA.rindex(b"\n", 0, -1) + 1, id="ollama"),
    pytest.param(Operation.CHAT, SSE, b"data: {}\r\n\r\ndata: [DONE]\r\n\r\n", 12, id="crlf"),
    pytest.param(Operation.CHAT, SSE, b"data: {}\r\rdata: [DONE]\r\r", 10, id="cr"),
    pytest.param(Operation.CHAT, SSE, b"\xef\xbb\xbfdata: [DONE]\n\n", 0, id="bom"),
]


@pytest.mark.parametrize(("operation", "content_type", "stream", "position"), GOLDEN)
def test_every_cutting_finds_the_same_place(operation: Operation, content_type: str, stream: bytes, position: int) -> None:
    everywhere = [(first, size) for size in (13, len(stream)) for first in range(len(stream))]
    for first, size in [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), *everywhere]:
        scan = terminator_scan(operation, content_type)
        assert scan is not None
        found: list[tuple[int, int]] = []
        chunks = [stream[:first]] + [stream[at : at + size] for at in range(first, len(stream), size)]
        offset = 0
        for chunk in chunks:
            at = scan.feed(chunk)
            if at is not None:
                assert 0 <= at <= len(chunk)
                found.append((offset + at, offset))
            offset += len(chunk)
        assert len(found) == 1, (first, size)
        assert found[0][0] == max(position, found[0][1]), (first, size)


@pytest.mark.parametrize(
    ("operation", "content_type", "stream"),
    [
        (Operation.CHAT, SSE, b'data: {"t":"data: [DONE]"}\n\ndata: x [DONE]\n\n'),
        (Operation.MESSAGES, SSE, b'data: {"input":{"type":"message_stop"}}\n\n'),
        (Operation.RESPONSES, SSE, b'event: response.created\ndata: {"a":"response.completed"}\n\n'),
        (Operation.OLLAMA_CHAT, NDJSON, b'{"m":{"done":true},"done":false}\n{"t":"\\"done\\":true"}\n[{"done":true}]\n'),
        (Operation.OLLAMA_CHAT, NDJSON, b'{"a":"{","m":{"x":"}}","done":true}}\n'),
    ],
)
def test_content_cannot_forge_it(operation: Operation, content_type: str, stream: bytes) -> None:
    for size in (1, 3, len(stream)):
        scan = terminator_scan(operation, content_type)
        assert scan is not None
        assert [scan.feed(stream[at : at + size]) for at in range(0, len(stream), size)] == [None] * -(-len(stream) // size)


def test_only_streams_of_known_dialects_are_scanned() -> None:
    assert terminator_scan(Operation.CHAT, "application/json") is None
    assert terminator_scan(Operation.CHAT, None) is None
    assert terminator_scan(Operation.OTHER, SSE) is None
    assert terminator_scan(Operation.OLLAMA_CHAT, "application/json") is None


def test_after_a_line_that_is_too_long_the_next_is_scanned() -> None:
    scan = terminator_scan(Operation.OLLAMA_CHAT, NDJSON)
    assert scan is not None
    chunk = b'{"a":"' + b"x" * (MAX_LINE_BYTES // 4)
    for _ in range(5):
        assert scan.feed(chunk) is None
    assert scan.feed(b'"}\n{"done":true}\n') == 3
