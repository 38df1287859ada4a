"""Reads newline-delimited JSON from bytes that are cut anywhere, and keeps every byte.

The same bytes give the same lines however they were cut; the `raw` of all lines, followed by `rest`, is the input.
A line is not parsed here. Never raises.
"""

from __future__ import annotations

from msgspec import Struct

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is handed on in pieces of at most this size that name the problem."""
TOO_LONG = "the line is too long to be read"


class NdjsonLine(Struct, frozen=True, gc=False):
    """One line with the line break that ends it."""

    data: bytes
    """The line without its line break and surrounding blanks; empty for a blank line or a line that is too long."""
    raw: bytes
    problem: str | None = None


class NdjsonParser:
    """Reads one stream. After `finish` it is not fed again."""

    __slots__ = ("_buffer", "_max_line_bytes", "_skipping")

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._buffer = bytearray()
        self._skipping = False
        self._max_line_bytes = max_line_bytes

    @property
    def rest(self) -> bytes:
        """The bytes of the line that has not ended yet."""
        return bytes(self._buffer)

    def feed(self, chunk: bytes) -> list[NdjsonLine]:
        """The lines that `chunk` completed."""
        buffer = self._buffer
        if buffer:
            searched = len(buffer)
            buffer += chunk
            if len(buffer) <= self._max_line_bytes and buffer.find(b"\n", searched) < 0:
                return []
            chunk = bytes(buffer)
            buffer.clear()
        lines: list[NdjsonLine] = []
        start, size, limit = 0, len(chunk), self._max_line_bytes
        while start < size:
            end = chunk.find(b"\n", start) + 1
            if (end or size) - start > limit:
                lines.append(NdjsonLine(b"", chunk[start : start + limit], TOO_LONG))
                start += limit
                self._skipping = True
                continue
            if not end:
                break
            raw = chunk[start:end]
            lines.append(self._line(raw))
            start = end
        if start < size:
            buffer += chunk[start:] if start else chunk
        return lines

    def finish(self) -> list[NdjsonLine]:
        """The last line, where no line break ended it."""
        raw = bytes(self._buffer)
        self._buffer = bytearray()
        return [self._line(raw)] if raw else []

    def _line(self, raw: bytes) -> NdjsonLine:
        if self._skipping:
            self._skipping = False
            return NdjsonLine(b"", raw, TOO_LONG)
        return NdjsonLine(raw.strip(b" \t\r\n"), raw)
