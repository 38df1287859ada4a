"""Any cutting of any bytes gives the same lines, and no byte is lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.wire.ndjson import TOO_LONG, NdjsonLine, NdjsonParser
from tests.proxy_core.wire.streams import pieces

STREAMS = st.lists(st.sampled_from([b'{"a":1}', b"\n", b"\r\n", b"\r", b" ", b"\xff", b"x"]), max_size=25).map(b"".join)


def read(chunks: list[bytes], limit: int = 10**6) -> list[NdjsonLine]:
    parser = NdjsonParser(limit)
    return [line for chunk in chunks for line in parser.feed(chunk)] + parser.finish()


@settings(max_examples=300, deadline=None)
@given(STREAMS, st.lists(st.integers(0, 90), max_size=10), st.sampled_from([5, 10**6]))
def test_every_cutting_gives_the_same_lines(stream: bytes, cuts: list[int], limit: int) -> None:
    whole = read([stream], limit)
    assert read(list(pieces(stream, cuts)), limit) == whole
    assert read([stream[at : at + 1] for at in range(len(stream))], limit) == whole
    assert b"".join(line.raw for line in whole) == stream


def test_lines_end_with_any_line_break_and_the_last_needs_none() -> None:
    assert [line.data for line in read([b'{"a":1}\r\n\n{"b":2}\n{"c":3}'])] == [b'{"a":1}', b"", b'{"b":2}', b'{"c":3}']


def test_a_line_that_is_too_long_is_named_and_the_next_one_is_read() -> None:
    lines = read([b"x" * 30 + b"\n{}\n"], 10)
    assert {line.problem for line in lines[:-1]} == {TOO_LONG}
    assert lines[-1] == NdjsonLine(b"{}", b"{}\n")
