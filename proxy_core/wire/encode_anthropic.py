"""Encodes streams of Anthropic Messages.

Blocks go out one after another with indices from 0 without gaps; a block that lost all it held vanishes with its start and
stop. Text of ours is a block of its own and never stands behind a tool call. `stop_reason` changes only where it became false.
Thinking leaves with its signature exactly as it came, or not at all.
"""

from __future__ import annotations

from proxy_core.wire.conversation import (
    INSERTED,
    EndEvent,
    ErrorEvent,
    OpaqueEvent,
    StopEvent,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageEvent,
)
from proxy_core.wire.encode_anthropic_blocks import BlockEncoder, OpenBlock, waits
from proxy_core.wire.encode_events import (
    WireEvent,
    clean,
    event_bytes,
    illegal,
    sse_object,
)
from proxy_core.wire.tolerant_json import as_index, as_object, as_text

_OF_MESSAGE = frozenset({"message_start", "message_delta", "content_block_start", "content_block_delta", "content_block_stop"})
_END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class MessagesEncoder(BlockEncoder):
    """Encodes one stream of Messages."""

    # --- pristine ---

    def _pass(self, event: StreamEvent) -> None:
        kind = type(event)
        if kind is TextDelta or kind is ToolCallDelta or kind is ThinkingDelta:
            block = self._open.get(event.index)  # type: ignore[union-attr]
            if block is not None and block.number is not None:
                self._out.append(event.raw)
                return
        self._follow(event)

    def _follow(self, event: StreamEvent) -> None:
        """An event that is no plain delta of an open block."""
        raw = event.raw
        fields = sse_object(raw)
        kind = as_text(fields.get("type"))
        index = as_index(fields.get("index"))
        if kind == "content_block_start":
            block = as_object(fields.get("content_block"))
            name = as_text(block.get("type"))
            self._closed.discard(index)
            self._next = max(self._next, index + 1)
            if waits(name, block):
                self._open[index] = OpenBlock(name, None, raw)
                self._held.append((raw, True))
                return
            self._open[index] = OpenBlock(name, index)
            if name == "tool_use":
                self._name_call(index, as_text(block.get("id")))
                self._calls_sent += 1
                self._last_call = max(self._last_call, index)
        elif kind == "content_block_stop":
            self._release_held()
            self._open.pop(index, None)
            self._closed.add(index)
        elif kind == "message_start":
            self._begun = True
        elif kind == "message_delta":
            self._content_over = True
        elif type(event) is EndEvent or type(event) is ErrorEvent:
            self._ended = True
        elif self._held and (
            (type(event) is OpaqueEvent and kind != "content_block_delta") or (type(event) is TextDelta and not event.text)
        ):
            self._held.append((raw, type(event) is TextDelta))
            return
        self._release_held()
        self._out.append(raw)

    def _pass_wire(self, events: list[StreamEvent], raw: bytes) -> None:
        self._follow(events[0])

    def _release_held(self) -> None:
        if self._held:
            for index, block in self._open.items():
                if block.number is None:
                    block.number, block.start = index, b""
                    if block.kind == "tool_use":
                        self._calls_sent += 1
                        self._last_call = max(self._last_call, index)
            self._out += [raw for raw, _ in self._held]
            self._held.clear()

    def _alter(self) -> None:
        self._out += [raw for raw, of_block in self._held if not of_block]
        self._held.clear()
        self._next = min((index for index, block in self._open.items() if block.number is None), default=self._next)
        super()._alter()

    # --- altered ---

    def _remember_wire(self, events: list[StreamEvent]) -> None:
        super()._remember_wire(events)
        for event in events:
            if isinstance(event, TextDelta | ThinkingDelta) and event.text:
                self._owed[event.index] = self._owed.get(event.index, 0) + 1

    def _place(self, event: StreamEvent) -> None:
        raw = event.raw
        if isinstance(event, TextDelta | ThinkingDelta):
            self._place_text(event, "text" if isinstance(event, TextDelta) else "thinking")
        elif isinstance(event, ToolCallStart):
            self._name_call(event.index, event.call_id)
            self._start(event.index, "tool_use", raw)
        elif isinstance(event, ToolCallDelta):
            self._send_indexed(raw, event.index, self._call(event.index))
        elif isinstance(event, ToolCallEnd):
            self._call(event.index, ending=True)
            self._stop(event.index, raw)
        elif isinstance(event, EndEvent):
            self._end(raw)
        elif isinstance(event, ErrorEvent):
            self._error(raw)
        elif isinstance(event, OpaqueEvent | UsageEvent | StopEvent):
            self._place_other(event, raw)

    def _place_text(self, event: TextDelta | ThinkingDelta, kind: str) -> None:
        index = event.index
        block = self._open.get(index)
        if block is None and sse_object(event.raw).get("type") == "content_block_start":
            self._start(index, kind, event.raw)
        elif event.text or block is None or block.number is not None:
            self._send_indexed(event.raw, index, self._block_for(index, kind))
        if event.text and self._owed.get(index):
            self._owed[index] -= 1

    def _place_other(self, event: OpaqueEvent | UsageEvent | StopEvent, raw: bytes) -> None:
        fields = sse_object(raw)
        kind = as_text(fields.get("type"))
        index = as_index(fields.get("index"))
        if kind in _OF_MESSAGE:
            self._check_open_end()
        if kind == "message_start":
            if self._begun and not self._start_made:
                raise illegal("message_start_first", "the message starts twice")
            if not self._begun:
                self._out.append(raw)
            self._begun, self._start_made = True, False
        elif kind == "message_delta":
            self._finish_message(raw)
        elif kind == "content_block_start":
            self._start(index, as_text(as_object(fields.get("content_block")).get("type")), raw)
        elif kind == "content_block_stop":
            self._stop(index, raw)
        elif kind == "content_block_delta":
            block = self._open.get(index)
            if block is None or (block.number is None and not block.start):
                return
            if block.kind == "thinking" and (block.changed or self._owed.get(index)):
                if block.number is None:
                    return
                raise illegal("thinking_unchanged", "thinking that was changed cannot carry its signature")
            self._send_indexed(raw, index, self._opened(index, block))
        elif not self._ended or event.kind == "comment":  # type: ignore[union-attr]
            self._out.append(raw)

    def _place_wire(self, wire: WireEvent, came: list[StreamEvent], whole: bool) -> None:
        first = wire.events[0]
        if isinstance(first, ToolCallDelta):
            block = self._open.get(first.index)
            as_it_was = whole and block is not None and block.kind == "tool_use" and block.number is None
            for event in came:
                if not as_it_was:
                    self._put(event)
                elif isinstance(event, ToolCallEnd) and block is not None:
                    self._opened(first.index, block)
                    self._stop(first.index, wire.raw)
            return
        self._finish_message(wire.raw)

    def _put(self, event: StreamEvent) -> None:
        if isinstance(event, TextDelta):
            if event.index == INSERTED:
                self._insert(clean(event.text))
            elif event.text:
                self._say(event.index, "text", {"type": "text_delta", "text": clean(event.text)})
        elif isinstance(event, ThinkingDelta):
            if event.text:
                self._say(event.index, "thinking", {"type": "thinking_delta", "thinking": clean(event.text)})
        elif isinstance(event, ToolCallStart):
            if not event.name:
                raise illegal("tool_named", f"the tool call at {event.index} has no name")
            self._name_call(event.index, event.call_id, made=True)
            self._start(event.index, "tool_use", self._call_start(event))
        elif isinstance(event, ToolCallDelta):
            block = self._call(event.index)
            if event.arguments:
                delta = {"type": "input_json_delta", "partial_json": clean(event.arguments)}
                self._send({"type": "content_block_delta", "index": block.number, "delta": delta})
        elif isinstance(event, ToolCallEnd):
            self._call(event.index, ending=True)
            self._stop(event.index, b"")
        elif isinstance(event, StopEvent):
            self._check_open_end()
            self._reason = clean(event.reason)
        elif isinstance(event, UsageEvent):
            self._usage = event.usage
        elif isinstance(event, EndEvent):
            self._end(_END)
        elif isinstance(event, ErrorEvent):
            error = {"type": clean(event.error.type), "message": clean(event.error.message)}
            self._error(event_bytes({"type": "error", "error": error, "request_id": self._transaction_id or None}, "error"))

    def _refuse(self, text: str) -> None:
        self._ensure_begun()
        if not self._content_over:
            self._deferred.clear()
            self._close_all()
            if text and not self._calls_sent:
                self._insert(text)
                self._close_own()
            details = {"type": "refusal", "category": None, "explanation": text or None}
            delta = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
            self._send({"type": "message_delta", "delta": delta, "usage": self._final_usage()})
        self._out.append(_END)
