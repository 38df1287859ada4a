"""Encodes streams of Anthropic Messages.

Blocks go out one after another with indices from 0 without gaps; a block that lost all it held vanishes with its start and
stop. Text of ours is a block of its own and never stands behind a tool call. `stop_reason` changes only where it became false.
Thinking leaves with its signature exactly as it came, or not at all.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

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
    Usage,
    UsageEvent,
)
from proxy_core.wire.encode_events import (
    EventEncoder,
    Fields,
    WireEvent,
    clean,
    decoded,
    event_bytes,
    fields_of,
    illegal,
    messages_usage_fields,
    sse_fields,
    sse_object,
    to_json,
)
from proxy_core.wire.tolerant_json import JsonObject, as_index, as_object, as_text

_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_END = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_HOLDABLE = {"text": "text", "thinking": "thinking"}
"""Kinds of blocks whose start waits for content, and the field of the start that may hold some."""


class _Block:
    """A block of the upstream's, or made by a policy, that has started and not stopped."""

    __slots__ = ("changed", "cut", "kind", "number", "start")

    def __init__(self, kind: str, number: int | None, start: bytes = b"") -> None:
        self.kind = kind
        self.number = number
        """Its index at the client; None while its start waits for content."""
        self.start = start
        """The start's bytes while they wait."""
        self.cut = False
        """Whether a first part of it was closed already."""
        self.changed = False
        """Whether some of its content was changed."""


class MessagesEncoder(EventEncoder):
    """Encodes one stream of Messages."""

    def __init__(self, model: str = "", transaction_id: str = "") -> None:
        super().__init__(model, transaction_id)
        self._begun = False
        self._start_made = False
        """Whether the message was begun although its own start had not come."""
        self._start_seen = b""
        """The upstream's `message_start`."""
        self._delta_seen = b""
        """The upstream's last `message_delta` with a reason."""
        self._calls_seen: dict[int, bytes] = {}
        """The starts of the upstream's tool calls, by index."""
        self._calls_sent = 0
        self._last_call = -1
        """The highest index of the upstream's that went out as a tool call."""
        self._open: dict[int, _Block] = {}
        self._closed: set[int] = set()
        self._next = 0
        self._held: list[tuple[bytes, bool]] = []
        """Pristine: starts that wait for content, and what came after them; whether it belongs to a block."""
        self._owed: dict[int, int] = {}
        """Altered: deltas of each block that were seen and have not gone out as they came."""
        self._own: int | None = None
        """Index of our own text block while it is open."""
        self._deferred: list[str] = []
        """Text of ours that waits for the end of a block that must not be interrupted."""
        self._content_over = False
        """Whether `message_delta` was sent."""
        self._reason: str | None = None
        self._usage: Usage | None = None
        """The reason and counts that a policy put in place of the upstream's."""

    def heartbeat(self) -> bytes:
        return _PING

    def _learn(self, event: StreamEvent) -> None:
        if type(event) is ToolCallStart:
            self._calls_seen[event.index] = event.raw
        elif type(event) is StopEvent:
            self._delta_seen = event.raw or self._delta_seen
        elif not self._start_seen and event.raw and b"message_start" in event.raw:
            self._start_seen = event.raw

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
            if _waits(name, block):
                self._open[index] = _Block(name, None, raw)
                self._held.append((raw, True))
                return
            self._open[index] = _Block(name, index)
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
        if kind == "message_start":
            self._check_open_end()
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

    # --- blocks ---

    def _check_open_end(self) -> None:
        if self._ended:
            raise illegal("message_stop_last", "the stream has ended already")

    def _ensure_begun(self) -> None:
        self._check_open_end()
        if self._begun:
            return
        self._begun = self._start_made = True
        seen = sse_fields(self._start_seen)
        if seen and self._usage is None:
            self._out.append(self._start_seen)
            return
        message = fields_of(seen.get("message")) or {
            "id": f"msg_{self._transaction_id or 'luthien'}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
        }
        counts: Fields = {"input_tokens": 0, "output_tokens": 0}
        message["usage"] = {**counts, **messages_usage_fields(self._usage)} if self._usage else counts
        self._send({**seen, "type": "message_start", "message": message})

    def _start(self, index: int, kind: str, raw: bytes) -> None:
        """A block starts; one that may turn out empty waits for its content."""
        self._check_open_end()
        if index in self._open or index in self._closed:
            raise illegal("block_start_monotonic", f"block {index} starts twice")
        block = self._open[index] = _Block(kind, None, raw)
        if not _waits(kind, as_object(sse_object(raw).get("content_block"))):
            self._opened(index, block)

    def _opened(self, index: int, block: _Block) -> _Block:
        """The block, with its start sent."""
        if block.number is not None:
            return block
        if self._content_over:
            raise illegal("content_before_message_delta", "content comes after the message's end")
        if block.kind == "text" and index < self._last_call:
            raise illegal("text_after_tool_use", "text must not come behind a tool call that it stood before")
        self._ensure_begun()
        self._close_all(keep=block)
        number = block.number = self._next
        self._next += 1
        if block.kind == "tool_use":
            self._calls_sent += 1
            self._last_call = max(self._last_call, index)
        if block.start and not block.cut:
            self._send_indexed(block.start, index, block)
        else:
            empty: Fields = {"type": block.kind, _HOLDABLE.get(block.kind, "text"): ""}
            if block.kind == "thinking":
                empty["signature"] = ""
            self._send({"type": "content_block_start", "index": number, "content_block": empty})
        block.start = b""
        return block

    def _block_for(self, index: int, kind: str) -> _Block:
        """The block that text or thinking of `index` goes to; one that never started starts here."""
        self._check_open_end()
        block = self._open.get(index)
        if block is None:
            if index in self._closed:
                raise illegal("delta_before_stop", f"content for block {index} comes after its stop")
            block = self._open[index] = _Block(kind, None)
        elif block.kind != kind:
            raise illegal("delta_matches_block", f"{kind} comes for a block of {block.kind}")
        if self._own is not None:
            self._close_own()
        return self._opened(index, block)

    def _call(self, index: int, ending: bool = False) -> _Block:
        """The open tool call of `index`."""
        self._check_open_end()
        block = self._open.get(index)
        if block is not None and block.kind == "tool_use" and block.number is None:
            block.start = _without_input(block.start)
            return self._opened(index, block)
        if block is None or block.kind != "tool_use":
            if index in self._closed:
                rule = "block_stopped_once" if ending else "delta_before_stop"
                raise illegal(rule, f"tool call {index} has ended already")
            raise illegal("stop_after_start" if ending else "delta_after_start", f"tool call {index} was never begun")
        return block

    def _say(self, index: int, kind: str, delta: Fields) -> None:
        block = self._block_for(index, kind)
        block.changed = True
        self._send({"type": "content_block_delta", "index": block.number, "delta": delta})

    def _insert(self, text: str) -> None:
        """Text of ours, in a block of its own."""
        self._check_open_end()
        if not text:
            return
        if self._calls_sent:
            raise illegal("text_after_tool_use", "text must not come behind a tool call")
        if self._content_over:
            raise illegal("content_before_message_delta", "text comes after the message's end")
        if any(block.number is not None and block.kind != "text" for block in self._open.values()):
            self._deferred.append(text)
            return
        if self._own is None:
            self._ensure_begun()
            self._close_all()
            self._own = self._next
            self._next += 1
            self._send({"type": "content_block_start", "index": self._own, "content_block": {"type": "text", "text": ""}})
        delta = {"type": "text_delta", "text": text}
        self._send({"type": "content_block_delta", "index": self._own, "delta": delta})

    def _close_own(self) -> None:
        if self._own is not None:
            self._send({"type": "content_block_stop", "index": self._own})
            self._own = None

    def _close_all(self, keep: _Block | None = None) -> None:
        """Close what is open at the client; text that is cut may go on in a new block."""
        self._close_own()
        for index, block in list(self._open.items()):
            if block is keep or block.number is None:
                continue
            self._send({"type": "content_block_stop", "index": block.number})
            if block.kind == "text":
                block.number, block.cut = None, True
            else:
                del self._open[index]
                self._closed.add(index)
        self._say_deferred()

    def _say_deferred(self) -> None:
        """Say what waited, in a block that is closed again."""
        deferred, self._deferred = self._deferred, []
        if deferred:
            self._insert("".join(deferred))
            self._close_own()

    def _stop(self, index: int, raw: bytes) -> None:
        """A block stops: one whose start still waits vanishes, unless it was empty from the beginning."""
        block = self._open.get(index)
        if block is None:
            return
        if block.number is None and not block.cut and block.start and not self._owed.get(index):
            self._opened(index, block)
        del self._open[index]
        self._closed.add(index)
        if block.number is None:
            return
        if raw:
            self._send_indexed(raw, index, block)
        else:
            self._send({"type": "content_block_stop", "index": block.number})
        self._say_deferred()

    # --- the end ---

    def _finish_message(self, raw: bytes) -> None:
        """Send `message_delta`, with the reason that is true now."""
        self._ensure_begun()
        self._close_all()
        fields = sse_fields(raw)
        delta = fields_of(fields.get("delta"))
        reason = as_text(decoded(delta.get("stop_reason"))) or None
        true = self._true_reason(self._reason or reason)
        if true != reason or (self._usage is not None):
            if true != reason:
                fields["delta"] = {"stop_sequence": None, **delta, "stop_reason": true}
            if self._usage is not None:
                fields["usage"] = {**fields_of(fields.get("usage")), **messages_usage_fields(self._usage)}
                self._usage = None
            self._out.append(event_bytes({"type": "message_delta", **fields}, "message_delta"))
        else:
            self._out.append(raw)
        self._content_over = True

    def _true_reason(self, reason: str | None) -> str | None:
        if reason == "tool_use" and self._calls_seen and not self._calls_sent:
            return "end_turn"
        if reason == "end_turn" and self._calls_sent and not self._calls_seen:
            return "tool_use"
        return reason

    def _final_usage(self) -> Any:
        if self._usage is not None:
            return messages_usage_fields(self._usage)
        return sse_fields(self._delta_seen).get("usage") or {"output_tokens": 0}

    def _end(self, raw: bytes) -> None:
        self._ensure_begun()
        self._close_all()
        if not self._content_over and self._delta_seen:
            self._finish_message(self._delta_seen)
        elif not self._content_over:
            delta = {"stop_reason": self._true_reason(self._reason or "end_turn"), "stop_sequence": None}
            self._send({"type": "message_delta", "delta": delta, "usage": self._final_usage()})
        self._out.append(raw)
        self._ended = True

    def _error(self, raw: bytes) -> None:
        self._check_open_end()
        self._out.append(raw)
        self._ended = True

    # --- bytes ---

    def _call_start(self, event: ToolCallStart) -> bytes:
        seen = sse_fields(self._calls_seen.get(event.index, b""))
        block = {"type": "tool_use", **fields_of(seen.get("content_block"))}
        block |= {"id": clean(event.call_id), "name": clean(event.name), "input": {}}
        seen |= {"type": "content_block_start", "index": event.index, "content_block": block}
        return event_bytes(seen, "content_block_start")

    def _send_indexed(self, raw: bytes, index: int, block: _Block) -> None:
        """Send an event of a block under the block's index at the client."""
        if block.number == index:
            self._out.append(raw)
            return
        fields = sse_fields(raw)
        if not fields:
            raise illegal("block_index_present", f"an event of block {index} cannot be read")
        fields["index"] = block.number
        self._out.append(event_bytes(fields, as_text(decoded(fields.get("type"))) or "content_block_delta"))

    def _send(self, value: Fields) -> None:
        self._out.append(event_bytes(value, value["type"]))


def _waits(kind: str, block: JsonObject) -> bool:
    """Whether a start waits: for content, because it has none, or because the input of a call may yet be changed."""
    if kind == "tool_use":
        return bool(block.get("input"))
    return kind in _HOLDABLE and not block.get(_HOLDABLE[kind])


def _without_input(raw: bytes) -> bytes:
    """The start of a tool call whose input came with it, without that input."""
    fields = sse_fields(raw)
    block = fields_of(fields.get("content_block"))
    block["input"] = Raw(b"{}")
    fields["content_block"] = Raw(to_json(block))
    return event_bytes(fields, "content_block_start")
