"""Encodes streams of OpenAI Responses.

Every text and item is said several times there: in pieces, whole when it is done, and in the response that ends the stream. Once
something was touched all of them are made from what the client was sent. Items are numbered from 0 without gaps; text of ours
is a message of its own; `sequence_number` only grows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.conversation import (
    INSERTED,
    AnswerError,
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
from proxy_core.wire.encode_events import (
    Fields,
    WireEvent,
    clean,
    decoded,
    illegal,
    responses_usage_fields,
    sse_data,
    sse_fields,
)
from proxy_core.wire.encode_responses_following import (
    ARGUMENTS_DONE,
    BEGINS,
    PARTS_ADDED,
    PARTS_DONE,
    STATUS,
    key_of,
    part_place,
)
from proxy_core.wire.encode_responses_items import (
    ARGUMENTS,
    FORM_OF_DELTA,
    FORM_OF_TEXT_DONE,
    OUTPUT_TEXT,
    REASONING_TEXT,
    SUMMARY,
    Item,
    item_of,
)
from proxy_core.wire.encode_responses_output import ResponsesOutput
from proxy_core.wire.tolerant_json import UNREADABLE, as_index, as_text


class _Place(msgspec.Struct):
    type: Any = None
    sequence_number: Any = None
    item_id: Any = None
    content_index: Any = None
    summary_index: Any = None


_place = msgspec.json.Decoder(_Place)


class ResponsesEncoder(ResponsesOutput):
    """Encodes one stream of Responses."""

    # --- altered ---

    def _remember_wire(self, events: list[StreamEvent]) -> None:
        super()._remember_wire(events)
        for event in events:
            if isinstance(event, TextDelta | ThinkingDelta) and event.text:
                self._said.add(event.index)

    def _continues(self, event: TextDelta | ThinkingDelta | ToolCallDelta) -> bool:
        """Send a piece that goes on where the last one stopped, where it needs no change; False where it may."""
        item = self._items.get(event.index)
        if item is None or item.number != event.index or item.cut or self._ended or self._own is not None:
            return False
        try:
            place = _place.decode(sse_data(event.raw))
        except UNREADABLE:
            return False
        number = place.sequence_number
        if type(number) is not int or number <= self._sequence or place.item_id != item.item_id:
            return False
        if isinstance(event, ToolCallDelta):
            if (
                item.kind not in ARGUMENTS
                or item.arguments_done
                or item.unsaid
                or place.type != f"{ARGUMENTS[item.kind][1]}.delta"
            ):
                return False
            item.arguments.append(event.arguments)
        else:
            key = item.current
            part = item.parts.get(key) if key is not None else None
            if key is None or part is None or part.number != key[1] or part.stage or place.type != part.form.delta:
                return False
            if key[1] != (place.content_index if key[0] == "content" else place.summary_index):
                return False
            part.pieces.append(event.text)
        self._sequence = number
        self._out.append(event.raw)
        return True

    def _place(self, event: StreamEvent) -> None:
        raw = event.raw
        if isinstance(event, TextDelta | ThinkingDelta | ToolCallDelta) and self._continues(event):
            return
        if isinstance(event, ErrorEvent):
            self._check_end()
            self._send_raw(raw, sse_fields(raw))
            self._ended = True
            return
        fields = sse_fields(raw)
        kind = as_text(decoded(fields.get("type")))
        if not kind:
            if self._ended and isinstance(event, OpaqueEvent) and event.kind not in ("comment", "[DONE]"):
                raise illegal("terminator_last", "an event comes after the stream's end")
            self._out.append(raw)
            return
        self._place_typed(event, kind, raw, fields)

    def _place_typed(self, event: StreamEvent, kind: str, raw: bytes, fields: Fields) -> None:
        index = as_index(decoded(fields.get("output_index")))
        self._check_end()
        if kind in BEGINS:
            if kind == "response.created":
                if self._begun and not self._begin_made:
                    raise illegal("created_first", "the response is created twice")
                if self._begun:
                    return
                self._begun = True
            self._ensure_begun()
            self._send_raw(raw, fields)
        elif kind == "response.output_item.added":
            self._start(index, item_of(fields), raw)
        elif kind in PARTS_ADDED:
            item = self._items.get(index)
            if item is not None:
                form, key = part_place(kind, fields)
                if key not in item.parts:
                    item.new_part(form, key, raw)
        elif kind in FORM_OF_DELTA:
            text = as_text(decoded(fields.get("delta")))
            if text:
                self._say(index, FORM_OF_DELTA[kind], key_of(FORM_OF_DELTA[kind], fields), text, raw, fields)
        elif kind in FORM_OF_TEXT_DONE:
            self._text_done(index, FORM_OF_TEXT_DONE[kind], key_of(FORM_OF_TEXT_DONE[kind], fields), raw, fields)
        elif kind in PARTS_DONE:
            item = self._items.get(index)
            form, key = part_place(kind, fields)
            if item is not None and key in item.parts and item.parts[key].form is form:
                self._part_done(item, key, raw, fields)
        elif isinstance(event, ToolCallDelta):
            item = self._call(index)
            if kind in ARGUMENTS_DONE:
                self._add_whole(item, event.arguments)
                item.arguments_raw = raw
            elif event.arguments:
                self._say_arguments(item, event.arguments, raw, fields)
        elif kind == "response.output_item.done":
            if isinstance(event, ToolCallEnd):
                self._call(index)
            self._item_done(index, raw, fields)
        elif "output_index" in fields:
            item = self._items.get(index)
            if item is not None and item.number is not None and not (item.changed and "annotation" in kind):
                self._send_of(item, raw, fields)
        elif kind.removeprefix("response.") in STATUS:
            self._finish(raw)
        else:
            self._ensure_begun()
            self._send_raw(raw, fields)

    def _place_wire(self, wire: WireEvent, came: list[StreamEvent], whole: bool) -> None:
        fields = sse_fields(wire.raw)
        kind = as_text(decoded(fields.get("type")))
        index = as_index(decoded(fields.get("output_index")))
        self._check_end()
        if kind == "response.output_item.done" and isinstance(wire.events[-1], ToolCallEnd):
            item = self._items.get(index)
            if whole and (item is None or item.is_call):
                if item is None and isinstance(wire.events[0], ToolCallStart):
                    item = self._start(index, item_of(fields), b"")
                elif item is None:
                    item = self._call(index)
                delta = next(event for event in came if isinstance(event, ToolCallDelta))
                self._add_whole(item, delta.arguments)
                self._item_done(index, wire.raw, fields)
                return
            for event in came:
                if isinstance(event, ToolCallEnd) and index in self._items:
                    self._call(index).changed = True
                    self._item_done(index, wire.raw, fields)
                else:
                    self._put(event)
            return
        if kind == "response.output_item.done" or kind in FORM_OF_TEXT_DONE:
            for event in came:
                if not isinstance(event, OpaqueEvent):
                    self._put(event)
                elif kind in FORM_OF_TEXT_DONE:
                    self._text_done(index, FORM_OF_TEXT_DONE[kind], key_of(FORM_OF_TEXT_DONE[kind], fields), wire.raw, fields)
                else:
                    self._item_done(index, wire.raw, fields)
            return
        if any(isinstance(event, EndEvent) for event in came):
            self._finish(wire.raw)

    def _put(self, event: StreamEvent) -> None:
        if isinstance(event, OpaqueEvent):
            return
        self._check_end()
        if isinstance(event, TextDelta):
            if event.index == INSERTED:
                self._insert(clean(event.text))
            elif event.text:
                self._say(event.index, OUTPUT_TEXT, None, clean(event.text))
        elif isinstance(event, ThinkingDelta):
            if event.text:
                item = self._items.get(event.index)
                key = item.current if item is not None else None
                form = REASONING_TEXT if key is not None and key[0] == "content" else SUMMARY
                self._say(event.index, form, None, clean(event.text))
        elif isinstance(event, ToolCallStart):
            self._put_call(event)
        elif isinstance(event, ToolCallDelta):
            item = self._call(event.index)
            if event.arguments:
                self._say_arguments(item, clean(event.arguments))
        elif isinstance(event, ToolCallEnd):
            self._call(event.index).changed = True
            self._item_done(event.index, b"", {})
        elif isinstance(event, UsageEvent):
            self._usage = event.usage
        elif isinstance(event, StopEvent):
            self._status = STATUS.get(event.reason, "completed")
        elif isinstance(event, EndEvent):
            self._finish(self._end_raw)
        elif isinstance(event, ErrorEvent):
            self._put_error(event.error)

    def _say_arguments(self, item: Item, text: str, raw: bytes = b"", fields: Fields | None = None) -> None:
        """A piece of a call's arguments: untouched where `raw` is given."""
        if item.arguments_done:
            raise illegal("delta_before_done", f"arguments of output item {item.number} come after their end")
        unsaid, item.unsaid = item.unsaid, ""
        item.arguments.append(text)
        if item.kind not in ARGUMENTS:
            item.changed = True
            return
        kind = f"{ARGUMENTS[item.kind][1]}.delta"
        if unsaid:
            self._send_item_event(item, kind, delta=unsaid)
        if raw:
            self._send_of(item, raw, fields or {})
        else:
            item.changed = True
            self._send_item_event(item, kind, delta=text)

    def _add_whole(self, item: Item, arguments: str) -> None:
        """Arguments that the upstream says only where they end: a piece like others, where others were sent before them."""
        if any(item.arguments):
            if arguments:
                self._say_arguments(item, arguments)
        else:
            item.arguments.append(arguments)
            item.unsaid = arguments

    def _put_call(self, event: ToolCallStart) -> None:
        self._name_call(event.index, event.call_id, made=True)
        template = item_of(sse_fields(self._calls_seen.get(event.index, b"")))
        fixed_name = as_text(decoded(template.get("type"))) not in ARGUMENTS
        if not template or (fixed_name and event.name != self._names_seen.get(event.index)):
            template = {"type": "function_call"}
        item = self._start(event.index, template, b"")
        item.item_id = item.item_id or self._own_id("fc")
        item.call_id = clean(event.call_id) or item.call_id or item.item_id
        if "name" in template or item.kind in ARGUMENTS:
            item.name = clean(event.name)
        item.changed = True
        if item.kind in ARGUMENTS:
            if not item.name:
                raise illegal("call_named", f"tool call {event.index} has no name")
            self._opened(item)

    def _put_error(self, error: AnswerError) -> None:
        fields = {"code": clean(error.type), "message": clean(error.message), "param": None}
        self._send({"type": "error", **fields})
        self._ended = True

    def _refuse(self, text: str) -> None:
        self._ensure_begun()
        self._deferred.clear()
        self._close_own()
        for index, item in list(self._items.items()):
            if item.number is None or item.is_call:
                # A call that is not whole is never said to be done: clients carry it out when it is.
                self._forget(index)
            else:
                self._item_done(index, b"", {}, "incomplete")
        if text:
            self._insert(text)
            self._close_own()
        response = {**self._whole(), "status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
        if self._usage is not None:
            response["usage"] = responses_usage_fields(self._usage)
        response["output"] = self._output()
        self._send({"type": "response.incomplete", "response": response})
