"""The rules of streams of Anthropic Messages."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.tolerant_json import as_object, as_text, read
from proxy_core.wire.validator import Findings


class _Event(msgspec.Struct):
    type: Any = None
    index: Any = None
    delta: Any = None
    content_block: Any = None


_event = msgspec.json.Decoder(_Event)


class _Block:
    __slots__ = ("filled", "kind", "stopped")

    def __init__(self, kind: str, filled: bool) -> None:
        self.kind = kind
        self.filled = filled
        self.stopped = False


class MessagesRules(Findings):
    """Applied to one stream."""

    def __init__(self, strict: bool) -> None:
        super().__init__(strict)
        self._first = True
        self._stopped = False
        self._failed = False
        self._message_delta = False
        self._last_start = -1
        self._blocks: dict[int, _Block] = {}
        self._tool_at = -1
        """Index of the first tool call."""
        self._tools = 0

    def event(self, name: str, data: bytes) -> None:
        event, _ = read(data, _event.decode)
        if event is None:
            self.say("event_readable", "an event's data is no JSON object")
            return
        kind = as_text(event.type) or name
        if kind == "ping":
            return
        if self._stopped or self._failed:
            self.say("message_stop_last", f"{kind} comes after the stream's end")
            return
        if kind == "error":
            self._failed = True
            return
        if self._first and kind != "message_start":
            self.say("message_start_first", f"the stream begins with {kind}")
        elif not self._first and kind == "message_start":
            self.say("message_start_first", "message_start comes late, or twice")
        self._first = False
        if kind.startswith("content_block_"):
            self._content(kind, event)
        elif kind == "message_delta":
            self._message_delta = True
            self._reason(as_object(event.delta).get("stop_reason"))
        elif kind == "message_stop":
            self._stopped = True
            if self.strict and not self._message_delta:
                self.say("message_delta_present", "the message stops without message_delta")

    def end(self) -> None:
        if self._failed:
            return
        if not self._stopped:
            self.say("message_stop_last", "the stream ends without message_stop")
        for index, block in self._blocks.items():
            if not block.stopped:
                self.say("blocks_closed", f"block {index} is not closed")

    def _content(self, kind: str, event: _Event) -> None:
        if self._message_delta:
            self.say("content_before_message_delta", f"{kind} comes after message_delta")
        index = event.index
        if type(index) is not int:
            self.say("block_index_present", f"{kind} has no index")
            return
        if index < 0:
            self.say("block_index_non_negative", f"{kind} has the index {index}")
            return
        block = self._blocks.get(index)
        if kind == "content_block_start":
            self._start(index, as_object(event.content_block))
        elif kind == "content_block_delta":
            if block is None:
                self.say("delta_after_start", f"a delta of block {index} comes before its start")
            elif block.stopped:
                self.say("delta_before_stop", f"a delta of block {index} comes after its stop")
            else:
                delta = as_object(event.delta)
                block.filled = block.filled or bool(delta.get("text") or delta.get("thinking") or delta.get("signature"))
        elif kind == "content_block_stop":
            if block is None:
                self.say("stop_after_start", f"block {index} stops without a start")
            elif block.stopped:
                self.say("block_stopped_once", f"block {index} stops twice")
            else:
                block.stopped = True
                if self.strict and block.kind == "text" and not block.filled:
                    self.say("text_non_empty", f"block {index} is a text without text")

    def _start(self, index: int, block: dict[str, Any]) -> None:
        if index <= self._last_start:
            self.say("block_start_monotonic", f"block {index} starts after block {self._last_start}")
        elif self.strict and index != self._last_start + 1:
            self.say("block_start_contiguous", f"block {index} starts after block {self._last_start}")
        self._last_start = max(self._last_start, index)
        kind = as_text(block.get("type"))
        self._blocks[index] = _Block(kind, bool(block.get("text")))
        if kind == "tool_use":
            self._tools += 1
            if not as_text(block.get("id")) or not as_text(block.get("name")):
                self.say("tool_named", f"the tool call at {index} has no id or no name")

    def _reason(self, reason: Any) -> None:
        if self.strict and reason == "tool_use" and not self._tools:
            self.say("stop_reason_true", "the message stops for a tool call and has none")
        if self.strict and reason == "end_turn" and self._tools:
            self.say("stop_reason_true", "the message has a tool call and does not stop for it")
