"""Any cutting of any bytes gives the same events, and no byte is lost."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy_core.wire.sse import ENDED_INSIDE, TOO_LONG, SseEvent, SseParser
from tests.proxy_core.wire.streams import pieces

FRAGMENTS = st.sampled_from(
    [
        b"data: x\n\n", b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"event: a\ndata: b\n\n", b"\xef\xbb\xbf",
        b"\xc3\xa9", b"\xff", b"id: 1", b"retry: 5", b"retry: soon", b": note", b"data: \xe2\x82\xac", b"\0", b"event",
    ]
)  # fmt: skip
STREAMS = st.lists(FRAGMENTS, max_size=25).map(b"".join) | st.binary(max_size=80)


def read(chunks: list[bytes], limit: int = 10**6) -> tuple[list[SseEvent], bytes]:
    parser = SseParser(limit)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    rest = parser.rest
    return events + parser.finish(), rest


@settings(max_examples=400, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 90), max_size=10), st.sampled_from([7, 20, 10**6]))
@example(b"data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", [1, 2, 9, 10], 10**6)
def test_every_cutting_gives_the_same_events(stream: bytes, cuts: list[int], limit: int) -> None:
    whole, _ = read([stream], limit)
    assert read(list(pieces(stream, cuts)), limit)[0] == whole
    assert read([stream[at : at + 1] for at in range(len(stream))], limit)[0] == whole
    assert b"".join(event.raw for event in whole) == stream


@settings(max_examples=200, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 90), max_size=10))
def test_events_and_the_unfinished_rest_are_the_input(stream: bytes, cuts: list[int]) -> None:
    parser = SseParser()
    fed = b""
    raw = b""
    for piece in pieces(stream, cuts):
        fed += piece
        raw += b"".join(event.raw for event in parser.feed(piece))
        assert raw + parser.rest == fed


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: one\n\n", [("", b"one")]),
        (b"data:one\n\n", [("", b"one")]),
        (b"data:  two blanks\n\n", [("", b" two blanks")]),
        (b"data\n\n", [("", b"")]),
        (b"data: a\ndata: b\ndata:\n\n", [("", b"a\nb\n")]),
        (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
        (b"data: {}\nevent: late\n\n", [("late", b"{}")]),
        (b"event: lonely\n\n", [("lonely", None)]),
        (b": comment\n\ndata: x\n\n", [("", None), ("", b"x")]),
        (b": comment\ndata: x\n\n", [("", b"x")]),
        (b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n", [("", b"x"), ("", None)]),
        (b"data: a\r\n\r\nevent: e\r\ndata: b\r\n\r\n", [("", b"a"), ("e", b"b")]),
        (b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
        (b"data: a\n\r\ndata: b\r\n\ndata: c\r\n\r", [("", b"a"), ("", b"b"), ("", b"c")]),
        (b"\n\ndata: x\n\n\n\n", [("", None), ("", b"x"), ("", None)]),
        (b"colour: red\ndata: x\n\n", [("", b"x")]),
    ],
)
def test_fields_and_line_ends(stream: bytes, expected: list[tuple[str, bytes | None]]) -> None:
    events, _ = read([stream])
    assert [(event.event, event.data) for event in events] == expected
    assert all(event.problem is None for event in events)


def test_id_and_retry_are_read_where_they_are_legal() -> None:
    (event,) = read([b"id: 7\nretry: 3000\ndata: x\n\n"])[0]
    assert (event.event_id, event.retry_ms) == ("7", 3000)
    (event,) = read([b"id: a\0b\nretry: " + b"9" * 5000 + b"\ndata: x\n\n"])[0]
    assert (event.event_id, event.retry_ms) == (None, None)


def test_an_event_without_its_empty_line_is_given_at_the_end_with_a_problem() -> None:
    parser = SseParser()
    assert parser.feed(b"data: half") == []
    assert parser.rest == b"data: half"
    assert parser.finish() == [SseEvent("", b"half", b"data: half", ENDED_INSIDE)]


def test_an_event_that_is_too_long_is_named_and_the_next_one_is_read() -> None:
    events, _ = read([b"data: " + b"x" * 50 + b"\n\ndata: y\n\n"], 20)
    assert [event.problem for event in events[:-1]] == [TOO_LONG] * (len(events) - 1)
    assert events[-1].data == b"y"


def test_a_long_event_in_small_chunks_takes_linear_time() -> None:
    parser = SseParser()
    started = time.process_time()
    for _ in range(8 * 1024):
        parser.feed(b"x" * 1024)
    assert parser.feed(b"\n\n")[0].data is None
    assert time.process_time() - started < 5
