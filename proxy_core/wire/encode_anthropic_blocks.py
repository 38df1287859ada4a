"""Blocks of an Anthropic stream as the encoder opens, closes and numbers them, and the end of the message."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from proxy_core.wire.conversation import (
    StopEvent,
    StreamEvent,
    ToolCallStart,
    Usage,
)
from proxy_core.wire.encode_events import (
    EventEncoder,
    Fields,
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
from proxy_core.wire.tolerant_json import JsonObject, as_object, as_text

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
HOLDABLE = {"text": "text", "thinking": "thinking"}
"""Kinds of blocks whose start waits for content, and the field of the start that may hold some."""


class OpenBlock:
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


class BlockEncoder(EventEncoder):
    """Writes a message block by block."""

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
        self._open: dict[int, OpenBlock] = {}
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
        return PING

    def _learn(self, event: StreamEvent) -> None:
        if type(event) is ToolCallStart:
            self._calls_seen[event.index] = event.raw
        elif type(event) is StopEvent:
            self._delta_seen = event.raw or self._delta_seen
        elif not self._start_seen and event.raw and b"message_start" in event.raw:
            self._start_seen = event.raw

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
        block = self._open[index] = OpenBlock(kind, None, raw)
        if not waits(kind, as_object(sse_object(raw).get("content_block"))):
            self._opened(index, block)

    def _opened(self, index: int, block: OpenBlock) -> OpenBlock:
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
            empty: Fields = {"type": block.kind, HOLDABLE.get(block.kind, "text"): ""}
            if block.kind == "thinking":
                empty["signature"] = ""
            self._send({"type": "content_block_start", "index": number, "content_block": empty})
        block.start = b""
        return block

    def _block_for(self, index: int, kind: str) -> OpenBlock:
        """The block that text or thinking of `index` goes to; one that never started starts here."""
        self._check_open_end()
        block = self._open.get(index)
        if block is None:
            if index in self._closed:
                raise illegal("delta_before_stop", f"content for block {index} comes after its stop")
            block = self._open[index] = OpenBlock(kind, None)
        elif block.kind != kind:
            raise illegal("delta_matches_block", f"{kind} comes for a block of {block.kind}")
        if self._own is not None:
            self._close_own()
        return self._opened(index, block)

    def _call(self, index: int, ending: bool = False) -> OpenBlock:
        """The open tool call of `index`."""
        self._check_open_end()
        block = self._open.get(index)
        if block is not None and block.kind == "tool_use" and block.number is None:
            block.start = without_input(block.start)
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

    def _close_all(self, keep: OpenBlock | None = None) -> None:
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
        self._close_message()
        fields = sse_fields(raw)
        delta = fields_of(fields.get("delta"))
        reason = as_text(decoded(delta.get("stop_reason"))) or None
        true = self._true_reason(self._reason or reason, made=self._reason not in (None, reason))
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

    def _true_reason(self, reason: str | None, *, made: bool) -> str | None:
        """The reason, where it became false another; a false one of the upstream's own stays."""
        if reason == "tool_use" and not self._calls_sent and (made or self._calls_seen):
            return "end_turn"
        if reason == "end_turn" and self._calls_sent and (made or not self._calls_seen):
            return "tool_use"
        return reason

    def _final_usage(self) -> Any:
        if self._usage is not None:
            return messages_usage_fields(self._usage)
        return sse_fields(self._delta_seen).get("usage") or {"output_tokens": 0}

    def _close_message(self) -> None:
        """Nothing more comes for any block; a call that still waits goes out without its input."""
        self._ensure_begun()
        for index, block in list(self._open.items()):
            if block.kind == "tool_use" and not self._content_over:
                self._call(index)
        self._close_all()

    def _end(self, raw: bytes) -> None:
        self._close_message()
        if not self._content_over and self._delta_seen:
            self._finish_message(self._delta_seen)
        elif not self._content_over:
            delta = {"stop_reason": self._true_reason(self._reason or "end_turn", made=True), "stop_sequence": None}
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
        call_id = clean(event.call_id) or f"toolu_{self._transaction_id or 'luthien'}_{self._next}"
        block |= {"id": call_id, "name": clean(event.name), "input": {}}
        seen |= {"type": "content_block_start", "index": event.index, "content_block": block}
        return event_bytes(seen, "content_block_start")

    def _send_indexed(self, raw: bytes, index: int, block: OpenBlock) -> None:
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


def waits(kind: str, block: JsonObject) -> bool:
    """Whether a start waits: for content, because it has none, or because the input of a call may yet be changed."""
    if kind == "tool_use":
        return bool(block.get("input"))
    return kind in HOLDABLE and not block.get(HOLDABLE[kind])


def without_input(raw: bytes) -> bytes:
    """The start of a tool call whose input came with it, without that input."""
    fields = sse_fields(raw)
    block = fields_of(fields.get("content_block"))
    block["input"] = Raw(b"{}")
    fields["content_block"] = Raw(to_json(block))
    return event_bytes(fields, "content_block_start")
