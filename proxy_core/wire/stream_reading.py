"""What all decoders of SSE streams share: framing, problems, and the answer that is gathered.

A subclass reads one event with data in `_read_data`; everything else (comments, oversized events, a plain body in
place of a stream, a stream that ends inside an event) is settled here, the same way for every dialect.
"""

from __future__ import annotations

import msgspec

from proxy_core.wire.conversation import Answer, AnswerError, Block, ErrorEvent, OpaqueEvent, StreamEvent, Usage
from proxy_core.wire.draft import Part, gathered_blocks
from proxy_core.wire.reported import error_of, other_answer
from proxy_core.wire.sse import SseEvent, SseParser
from proxy_core.wire.tolerant_json import as_object, plain, read


class SseStreamDecoder:
    """Reads one stream."""

    def __init__(self) -> None:
        self._parser = SseParser()
        self._read_anything = False
        self._events: list[StreamEvent] = []
        """The events of the chunk that is being read."""
        self._parts: list[Part] = []
        self._usage: Usage | None = None
        self._stop_reason: str | None = None
        self._error: AnswerError | None = None
        self._model: str | None = None
        self._response_id: str | None = None
        self._ended = False
        """True once the terminator was seen."""
        self._problem: str | None = None

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that `chunk` completed."""
        events: list[StreamEvent] = []
        self._events = events
        for event in self._parser.feed(chunk):
            self._read(event)
        return events

    @property
    def rest(self) -> bytes:
        """The bytes of an event that has begun and not ended."""
        return self._parser.rest

    def finish(self) -> Answer:
        """The whole answer so far."""
        rest = self._parser.rest
        if not self._read_anything and rest.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[", b"<"):
            return msgspec.structs.replace(other_answer(rest), complete=False)
        self._events = []
        for event in self._parser.finish():
            self._read(event)
        return Answer(
            self._blocks(),
            self._usage,
            self._stop_reason,
            self._error,
            self._model,
            self._response_id,
            self._ended,
            self._problem,
        )

    def _blocks(self) -> tuple[Block, ...]:
        return gathered_blocks(self._parts)

    def _read(self, event: SseEvent) -> None:
        data = event.data
        if data is None:
            self._events.append(OpaqueEvent("oversized" if event.problem else event.event or "comment", event.raw))
            self._problem = self._problem or event.problem
            return
        self._read_anything = True
        before = len(self._events)
        self._read_data(event, data)
        if len(self._events) == before:
            self._events.append(OpaqueEvent(event.event or "event", event.raw))

    def _read_data(self, event: SseEvent, data: bytes) -> None:
        raise NotImplementedError

    def _read_unreadable(self, event: SseEvent, data: bytes, problem: str | None) -> None:
        """Data that is no JSON object: an error as plain text, or nothing that can be named."""
        value, _ = read(data, plain)
        if event.event == "error" or isinstance(value, str):
            text = value if isinstance(value, str) else data[:2000].decode("utf-8", "replace")
            self._report(AnswerError("text", text), event.raw)
            return
        self._events.append(OpaqueEvent("unreadable", event.raw))
        self._problem = self._problem or event.problem or problem or "an event is not an object"

    def _report(self, error: AnswerError, raw: bytes) -> None:
        self._error = error
        self._events.append(ErrorEvent(error, raw))

    def _report_value(self, value: object, raw: bytes) -> None:
        """An error event's object: the error itself, or an object that holds it under `error`."""
        fields = as_object(value)
        self._report(error_of(fields.get("error") or fields, fields), raw)
