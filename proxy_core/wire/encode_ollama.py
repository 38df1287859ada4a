"""Encodes streams of Ollama's chat and generate: one JSON object a line, ended by a line with `"done":true`.

A tool call always stands whole in one line, so what comes of one in pieces waits for its end. Text and calls that are encoded
anew get lines of their own; the counts of the last line stay.
"""

from __future__ import annotations

from typing import Any

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
from proxy_core.wire.encode_events import EventEncoder, Fields, WireEvent, clean, decoded, fields_of, illegal, to_json
from proxy_core.wire.tolerant_json import as_list, as_object, plain, read

_CONTENT = ("thinking", "tool_calls", "images")
_EPOCH = "1970-01-01T00:00:00Z"


class _Call:
    """A tool call whose pieces come."""

    __slots__ = ("arguments", "fields", "name")

    def __init__(self, name: str, fields: Fields) -> None:
        self.name = name
        self.fields = fields
        """The call as the upstream sent it; empty for one that a policy made."""
        self.arguments: list[str] = []


class OllamaEncoder(EventEncoder):
    """Encodes one stream."""

    def __init__(self, model: str = "", transaction_id: str = "", *, chat: bool = True) -> None:
        super().__init__(model, transaction_id)
        self._chat = chat
        self._line_seen = b""
        """The latest line of the upstream's."""
        self._done_seen = b""
        self._calls_seen: dict[int, tuple[bytes, int]] = {}
        """Line and place in it of each of the upstream's calls."""
        self._open: dict[int, _Call] = {}
        self._begun: set[int] = set()
        self._calls_sent = 0
        self._own_spoke: bool | None = None
        """Whether the last text was our own; a blank line stands between the upstream's and ours."""
        self._ending: Fields = {}
        """Fields of the last line that a policy changed."""

    def seen(self, events: Any) -> None:
        raw, place = b"", 0
        for event in events:
            if event.raw:
                raw, place = event.raw, 0
            if type(event) is ToolCallStart:
                self._calls_seen[event.index] = (raw, place)
                place += 1
            elif type(event) is EndEvent:
                self._done_seen = raw
        if events and raw[:1] == b"{":
            self._line_seen = raw
        super().seen(events)

    def heartbeat(self) -> bytes:
        return self._line({})

    def _learn(self, event: StreamEvent) -> None:
        return

    # --- pristine ---

    def _pass(self, event: StreamEvent) -> None:
        self._out.append(event.raw)
        if type(event) is TextDelta:
            self._own_spoke = False
        elif type(event) is EndEvent or type(event) is ErrorEvent:
            self._ended = True

    def _pass_wire(self, events: list[StreamEvent], raw: bytes) -> None:
        self._out.append(raw)
        self._follow(events)

    def _follow(self, events: list[StreamEvent]) -> None:
        for event in events:
            if type(event) is ToolCallStart:
                self._begun.add(event.index)
                self._calls_sent += 1
            elif type(event) is TextDelta:
                self._own_spoke = False
            elif type(event) is EndEvent or type(event) is ErrorEvent:
                self._ended = True

    # --- altered ---

    def _place(self, event: StreamEvent) -> None:
        if isinstance(event, OpaqueEvent) and event.kind == "blank":
            self._out.append(event.raw)
            return
        self._check_end()
        if isinstance(event, EndEvent):
            self._end(event.raw)
            return
        if isinstance(event, ErrorEvent):
            self._ended = True
        elif isinstance(event, TextDelta):
            self._speak(own=False)
        self._out.append(event.raw)

    def _place_wire(self, wire: WireEvent, came: list[StreamEvent], whole: bool) -> None:
        starts = [event for event in wire.events if isinstance(event, ToolCallStart)]
        moved = bool(starts) and self._calls_sent != min(event.index for event in starts) and b'"index"' in wire.raw
        ends = type(wire.events[-1]) is EndEvent
        if not whole or moved or (ends and (self._open or self._ending)):
            for event in came:
                self._put(event)
            return
        self._check_end()
        if any(event.index in self._begun for event in starts):
            raise illegal("call_started_once", "a tool call starts twice")
        if any(type(event) is TextDelta for event in came):
            self._speak(own=False)
        self._out.append(wire.raw)
        self._follow(came)

    def _put(self, event: StreamEvent) -> None:
        if isinstance(event, OpaqueEvent):
            return
        self._check_end()
        if isinstance(event, TextDelta):
            if event.text:
                self._speak(own=event.index == INSERTED)
                self._out.append(self._line({"content": clean(event.text)}))
        elif isinstance(event, ThinkingDelta):
            if event.text:
                self._out.append(self._line({"content": "", "thinking": clean(event.text)}))
        elif isinstance(event, ToolCallStart):
            self._start(event)
        elif isinstance(event, ToolCallDelta):
            self._call(event.index, "delta_after_start").arguments.append(event.arguments)
        elif isinstance(event, ToolCallEnd):
            self._call(event.index, "stop_after_start")
            self._send_call(event.index)
        elif isinstance(event, UsageEvent):
            for name, count in (
                ("prompt_eval_count", event.usage.input_tokens),
                ("eval_count", event.usage.output_tokens),
            ):
                if count is not None:
                    self._ending[name] = count
        elif isinstance(event, StopEvent):
            self._ending["done_reason"] = clean(event.reason)
        elif isinstance(event, EndEvent):
            self._end(b"")
        elif isinstance(event, ErrorEvent):
            self._out.append(to_json({"error": clean(event.error.message)}) + b"\n")
            self._ended = True

    def _refuse(self, text: str) -> None:
        if text:
            self._speak(own=True)
            self._out.append(self._line({"content": text}))
        self._out.append(self._line({}, {"done": True, "done_reason": "stop"}))

    def _speak(self, *, own: bool) -> None:
        """Text comes, of ours or the upstream's: what it does not continue, it is parted from."""
        if self._own_spoke is not None and self._own_spoke != own:
            self._out.append(self._line({"content": "\n\n"}))
        self._own_spoke = own

    # --- calls ---

    def _start(self, event: ToolCallStart) -> None:
        if not self._chat:
            raise illegal("text_only", "generate carries text only")
        if event.index in self._begun:
            raise illegal("call_started_once", f"tool call {event.index} starts twice")
        if not event.name:
            raise illegal("calls_whole", f"tool call {event.index} has no name")
        self._begun.add(event.index)
        raw, place = self._calls_seen.get(event.index, (b"", 0))
        calls = as_list(decoded(fields_of(fields_of(raw).get("message")).get("tool_calls"))) if raw else []
        found = [as_object(call) for call in calls]
        self._open[event.index] = _Call(clean(event.name), found[place] if place < len(found) else {})

    def _call(self, index: int, rule: str) -> _Call:
        call = self._open.get(index)
        if call is None:
            if index in self._begun:
                raise illegal("call_ended_once", f"tool call {index} goes on after its end")
            raise illegal(rule, f"tool call {index} was never begun")
        return call

    def _send_call(self, index: int) -> None:
        call = self._open.pop(index)
        text = "".join(call.arguments).strip() or "{}"
        arguments, problem = read(text.encode("utf-8", "replace"), plain)
        if not isinstance(arguments, dict):
            raise illegal(
                "arguments_are_object", f"the arguments of tool call {index} are no JSON object: {problem or 'a value'}"
            )
        function: Fields = {**as_object(call.fields.get("function")), "name": call.name, "arguments": arguments}
        if "index" in function:
            function["index"] = self._calls_sent
        self._calls_sent += 1
        self._out.append(self._line({"content": "", "tool_calls": [{**call.fields, "function": function}]}))

    # --- lines ---

    def _check_end(self) -> None:
        if self._ended:
            raise illegal("done_last", "the stream has ended already")

    def _end(self, raw: bytes) -> None:
        """The last line: with the upstream's counts, without content of its own."""
        for index in sorted(self._open):
            self._send_call(index)
        if raw and not self._ending:
            self._out.append(raw)
        else:
            fields = fields_of(self._done_seen) if self._done_seen else {}
            known = {name: value for name, value in fields.items() if name not in ("message", "response", *_CONTENT)}
            self._out.append(
                self._line({}, {**known, "done": True, **({} if known else {"done_reason": "stop"}), **self._ending})
            )
        self._ended = True

    def _line(self, message: Fields, more: Fields | None = None) -> bytes:
        """One line of ours, with model and time of the upstream's latest line."""
        seen = fields_of(self._line_seen) if self._line_seen else {}
        value: Fields = {
            "model": seen.get("model") or self._model,
            "created_at": seen.get("created_at") or _EPOCH,
        }
        if self._chat:
            value["message"] = {"role": "assistant", "content": "", **message}
        else:
            value["response"] = message.get("content", "")
            if "thinking" in message:
                value["thinking"] = message["thinking"]
        return to_json({**value, "done": False, **(more or {})}) + b"\n"
