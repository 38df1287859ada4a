"""Finds where a dialect's terminator begins in a response stream that is cut anywhere, without parsing its events.

A match is anchored at the start of a line. JSON strings hold no raw line breaks and no unescaped quotes, and NDJSON
matches count at the top level only, so neither text nor tool arguments of a model can forge a terminator.
Costs a few hundred nanoseconds a chunk; memory is bounded by one line.
"""

from __future__ import annotations

import re
from typing import Protocol

from proxy_core.wire.dialects import Operation

MAX_LINE_BYTES = 16 * 1024 * 1024
"""An NDJSON line longer than this is not looked into."""


class TerminatorScan(Protocol):
    """Looks at one stream, chunk by chunk."""

    def feed(self, chunk: bytes) -> int | None:
        """Offset in `chunk` at which the terminator's line begins, 0 where it began in an earlier chunk.

        None where this chunk does not show it. Reports once: after the terminator every further call gives None.
        """
        ...


def terminator_scan(operation: Operation, content_type: str | None) -> TerminatorScan | None:
    """A scan for a streamed response of `operation`, or None where the response is no stream of a known dialect."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        known = _SSE_TERMINATORS.get(operation)
        return None if known is None else SseTerminatorScan(*known)
    if media_type in _NDJSON_MEDIA_TYPES and operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE):
        return NdjsonTerminatorScan()
    return None


_DONE_LINE = re.compile(rb"(?:\xef\xbb\xbf)?data: ?")
_NAMED_LINE = re.compile(rb'(?:\xef\xbb\xbf)?(?:event: ?|data: ?\{[ ]{0,4}"type"[ ]{0,4}:[ ]{0,4}")')
"""What stands between the start of a line and the terminator's own word."""
_LINE_REACH = 48
"""Bytes that are enough for anything the two expressions match, its line break, and the longest word."""

_SSE_TERMINATORS: dict[Operation, tuple[tuple[bytes, ...], re.Pattern[bytes]]] = {
    Operation.CHAT: ((b"[DONE]",), _DONE_LINE),
    Operation.COMPLETIONS: ((b"[DONE]",), _DONE_LINE),
    Operation.RESPONSES: ((b"response.completed", b"response.incomplete", b"response.failed"), _NAMED_LINE),
    Operation.MESSAGES: ((b"message_stop",), _NAMED_LINE),
}
_NDJSON_MEDIA_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})


class SseTerminatorScan:
    """Looks for a word that ends a line's known beginning, such as `[DONE]` after `data: `."""

    __slots__ = ("_begun", "_found", "_line", "_tail", "_words")

    def __init__(self, words: tuple[bytes, ...], line: re.Pattern[bytes]) -> None:
        self._words = words
        self._line = line
        self._tail = b""
        self._begun = False
        """True once the tail no longer reaches back to the start of the stream."""
        self._found = False

    def feed(self, chunk: bytes) -> int | None:
        if self._found:
            return None
        tail = self._tail
        window = tail + chunk
        position = -1
        for word in self._words:
            at = window.find(word)
            while at >= 0:
                line_start = self._line_start(window, at)
                if line_start >= 0:
                    position = line_start if position < 0 else min(position, line_start)
                    break
                at = window.find(word, at + 1)
        if position >= 0:
            self._found = True
            self._tail = b""
            return max(0, position - len(tail))
        if len(window) > _TAIL_BYTES:
            self._begun = True
            self._tail = window[-_TAIL_BYTES:]
        else:
            self._tail = window
        return None

    def _line_start(self, window: bytes, word_at: int) -> int:
        """Where the word's line starts, or -1 where the line begins with something else."""
        reach = max(0, word_at - _LINE_REACH)
        line_break = max(window.rfind(b"\n", reach, word_at), window.rfind(b"\r", reach, word_at))
        if line_break < 0 and (reach > 0 or self._begun):
            return -1
        return line_break + 1 if self._line.fullmatch(window, line_break + 1, word_at) else -1


_TAIL_BYTES = _LINE_REACH + 24


class NdjsonTerminatorScan:
    """Looks for `"done":true` among the outermost keys of a line."""

    __slots__ = ("_depth", "_found", "_line", "_resume", "_skipping")

    def __init__(self) -> None:
        self._line = bytearray()
        """The unfinished line."""
        self._resume = 0
        """A place in the unfinished line where the nesting is known, and how deep it is there."""
        self._depth = 0
        self._skipping = False
        """True inside a line that is too long."""
        self._found = False

    def feed(self, chunk: bytes) -> int | None:
        if self._found:
            return None
        line = self._line
        if not line and not self._skipping:
            return self._search(chunk, 0, 0)
        if self._skipping:
            line_break = chunk.find(b"\n")
            if line_break < 0:
                return None
            self._skipping = False
            return self._search(chunk, line_break + 1, line_break + 1)
        before = len(line)
        line += chunk
        position = self._search(line, max(0, before - _MARK_REACH), 0)
        return None if position is None else max(0, position - before)

    def _search(self, window: bytes | bytearray, searched: int, line_start: int) -> int | None:
        """Where the line with the mark starts; else keeps the unfinished line for the next chunk."""
        self._resume = max(self._resume, line_start)
        at = _find_done(window, searched)
        while at >= 0:
            line_break = window.rfind(b"\n", self._resume, at)
            if line_break >= 0:
                line_start = line_break + 1
                self._resume, self._depth = line_start, 0
            if self._is_outermost(window, at):
                self._found = True
                self._line = bytearray()
                return line_start
            at = _find_done(window, at + 1)
        line_break = window.rfind(b"\n", self._resume)
        if line_break >= 0:
            line_start = line_break + 1
            self._resume, self._depth = line_start, 0
        self._keep(window, line_start)
        return None

    def _keep(self, window: bytes | bytearray, line_start: int) -> None:
        self._resume -= line_start
        if window is self._line:
            del self._line[:line_start]
        elif line_start < len(window):
            self._line += window[line_start:]
        if len(self._line) > MAX_LINE_BYTES:
            self._line = bytearray()
            self._resume, self._depth, self._skipping = 0, 0, True

    def _is_outermost(self, window: bytes | bytearray, at: int) -> bool:
        """Count nesting from where it was last known up to the mark."""
        depth, resume = self._depth, self._resume
        for token in _TOKEN.finditer(window, resume):
            start = token.start()
            if start >= at:
                self._depth, self._resume = depth, start
                return start == at and depth == 1
            first = window[start]
            if first in b"{[":
                depth += 1
            elif first in b"}]":
                depth -= 1
        return False


_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]', re.DOTALL)
_DONE_MARK = re.compile(rb'"done"[ \t]{0,4}:[ \t]{0,4}true')
_MARK_REACH = 24


def _find_done(window: bytes | bytearray, start: int) -> int:
    at = window.find(b'"done"', start)
    while at >= 0:
        if _DONE_MARK.match(window, at):
            return at
        at = window.find(b'"done"', at + 1)
    return -1
