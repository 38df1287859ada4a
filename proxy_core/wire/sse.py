"""Reads server-sent events from bytes that are cut anywhere, and keeps every byte.

The same bytes give the same events however they were cut. The `raw` of all events, followed by `rest`, is the input
byte for byte; comments, pings and blocks without data come as events too, with `data` None. Never raises.
Format: WHATWG HTML, "server-sent events"; lines end with LF, CRLF or CR.
"""

from __future__ import annotations

import re

from msgspec import Struct

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A longer event is handed on in pieces of at most this size that name the problem."""
TOO_LONG = "the event is too long to be read"
ENDED_INSIDE = "the stream ended inside this event"


class SseEvent(Struct, frozen=True, gc=False):
    """One block of lines up to and including the empty line that ends it."""

    event: str
    """The `event:` field; empty where there is none, which means `message`."""
    data: bytes | None
    """The `data:` lines joined by LF; None where there are none."""
    raw: bytes
    problem: str | None = None
    """Why the block could not be read, or that the stream ended inside it."""
    event_id: str | None = None
    retry_ms: int | None = None


_BOM = b"\xef\xbb\xbf"
_BLOCK_END = re.compile(rb"(?>\r\n|\n|\r){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LOOK_BACK = 3
"""Bytes at the end of an unfinished block in which its empty line may have begun."""
_MAX_RETRY_DIGITS = 12


class SseParser:
    """Reads one stream. After `finish` it is not fed again."""

    __slots__ = ("_at_start", "_buffer", "_max_event_bytes", "_searched", "_skipping")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._searched = 0
        """Bytes of the buffer that hold no end of a block."""
        self._at_start = True
        self._skipping = False
        """True inside a block that is too long."""
        self._max_event_bytes = max_event_bytes

    @property
    def rest(self) -> bytes:
        """The bytes of the block that has not ended yet."""
        return bytes(self._buffer)

    def is_one_plain_event(self, chunk: bytes) -> bool:
        """Whether the next chunk is exactly one event of one `data: ` line, as most upstreams send them."""
        return (
            chunk[:6] == b"data: "
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk[-2:] == b"\n\n"
            and b"\r" not in chunk
            and not self._buffer
            and not self._skipping
            and len(chunk) <= self._max_event_bytes
        )

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completed."""
        buffer = self._buffer
        if not buffer:
            if self.is_one_plain_event(chunk):
                self._at_start = False
                return [SseEvent("", chunk[6:-2], chunk)]
            return self._take(chunk)
        buffer += chunk
        if len(buffer) <= self._max_event_bytes and _block_end(buffer, self._searched) < 0:
            self._searched = max(0, len(buffer) - _LOOK_BACK)
            return []
        window = bytes(buffer)
        buffer.clear()
        return self._take(window)

    def finish(self) -> list[SseEvent]:
        """What the end of the stream completes; a block without its empty line is given with a problem."""
        raw = bytes(self._buffer)
        self._buffer = bytearray()
        if not raw:
            return []
        if self._skipping:
            return [SseEvent("", None, raw, TOO_LONG)]
        event = self._read_block(raw)
        ended = _BLOCK_END.search(raw)
        if ended is None:
            event = SseEvent(event.event, event.data, raw, ENDED_INSIDE, event.event_id, event.retry_ms)
        return [event]

    def _take(self, window: bytes) -> list[SseEvent]:
        """Read all whole blocks of `window` and keep what is left."""
        events: list[SseEvent] = []
        start = 0
        size = len(window)
        lf_only = b"\r" not in window
        limit = self._max_event_bytes
        while start < size:
            if lf_only:
                end = window.find(b"\n\n", start) + 2
                if end == 1:
                    end = -1
            else:
                end = _block_end(window, start)
            if (end if end >= 0 else size) - start > limit:
                events.append(SseEvent("", None, window[start : start + limit], TOO_LONG))
                start += limit
                self._skipping, self._at_start = True, False
                continue
            if end < 0:
                break
            if self._skipping:
                events.append(SseEvent("", None, window[start:end], TOO_LONG))
                self._skipping = False
            elif lf_only and window.startswith(b"data: ", start) and window.find(b"\n", start) == end - 2:
                events.append(SseEvent("", window[start + 6 : end - 2], window[start:end]))
                self._at_start = False
            else:
                events.append(self._read_named(window, start, end) if lf_only else self._read_block(window[start:end]))
            start = end
        if start < size:
            self._buffer += window[start:] if start else window
            self._searched = max(0, len(self._buffer) - _LOOK_BACK)
        return events

    def _read_named(self, window: bytes, start: int, end: int) -> SseEvent:
        """The usual `event: …` line followed by one `data: …` line; anything else goes the long way."""
        if window.startswith(b"event: ", start):
            line_end = window.find(b"\n", start)
            if window.startswith(b"data: ", line_end + 1) and window.find(b"\n", line_end + 1) == end - 2:
                self._at_start = False
                name = window[start + 7 : line_end].decode("utf-8", "replace")
                return SseEvent(name, window[line_end + 7 : end - 2], window[start:end])
        return self._read_block(window[start:end])

    def _read_block(self, raw: bytes) -> SseEvent:
        text = raw
        if self._at_start:
            self._at_start = False
            text = raw.removeprefix(_BOM)
        name = ""
        event_id: str | None = None
        retry_ms: int | None = None
        data: list[bytes] = []
        for line in _LINE_END.split(text):
            field, colon, value = line.partition(b":")
            if colon and value.startswith(b" "):
                value = value[1:]
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id" and b"\0" not in value:
                event_id = value.decode("utf-8", "replace")
            elif field == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
                retry_ms = int(value)
        return SseEvent(name, b"\n".join(data) if data else None, raw, None, event_id, retry_ms)


def _block_end(window: bytes | bytearray, start: int) -> int:
    """Where the first block ends that ends at or after `start`; -1 where none surely does (a last CR may belong to a CRLF)."""
    found = _BLOCK_END.search(window, start)
    if found is None:
        return -1
    end = found.end()
    return -1 if end == len(window) and window[-1] == 0x0D else end
