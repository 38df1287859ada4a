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
    responses_usage_fields,
    sse_data,
    sse_fields,
    without,
)
from proxy_core.wire.encode_responses_items import (
    ARGUMENTS,
    FORM_OF_DELTA,
    FORM_OF_KIND,
    FORM_OF_TEXT_DONE,
    OUTPUT_TEXT,
    REASONING_TEXT,
    SUMMARY,
    Item,
    Key,
    Part,
    PartForm,
    item_of,
    raw_item,
    waits_for_arguments,
)
from proxy_core.wire.tolerant_json import UNREADABLE, as_index, as_list, as_object, as_text

_BEGINS = frozenset({"response.created", "response.in_progress", "response.queued"})
_STATUS = {"completed": "completed", "incomplete": "incomplete", "failed": "failed"}
_PARTS_ADDED = frozenset({"response.content_part.added", "response.reasoning_summary_part.added"})
_PARTS_DONE = frozenset({"response.content_part.done", "response.reasoning_summary_part.done"})
_ARGUMENTS_DONE = frozenset(f"{events}.done" for _, events in ARGUMENTS.values())


class _Place(msgspec.Struct):
    type: Any = None
    sequence_number: Any = None
    item_id: Any = None
    content_index: Any = None
    summary_index: Any = None


_place = msgspec.json.Decoder(_Place)


class ResponsesEncoder(EventEncoder):
    """Encodes one stream of Responses."""

    def __init__(self, model: str = "", transaction_id: str = "") -> None:
        super().__init__(model, transaction_id)
        self._begun = False
        self._begin_made = False
        """Whether the response was begun although its own beginning had not come."""
        self._begin_seen = b""
        self._end_raw = b""
        """The event with which the upstream ended."""
        self._calls_seen: dict[int, bytes] = {}
        """The wire event that began each of the upstream's calls."""
        self._said: set[int] = set()
        """Altered: items of which a piece of text was seen."""
        self._items: dict[int, Item] = {}
        self._closed: set[int] = set()
        self._sent: dict[int, Any] = {}
        """The JSON of each item that is done, by its index at the client."""
        self._next = 0
        self._own: Item | None = None
        """Our own message while it is open."""
        self._deferred: list[str] = []
        """Text of ours that waits for the end of an item that should not be interrupted."""
        self._sequence = -1
        self._last_raw = b""
        """Pristine: the last event that was sent."""
        self._pieces: dict[int, list[str]] = {}
        """Pristine: where the next piece of each item belongs."""
        self._held: list[tuple[bytes, bool]] = []
        """Pristine: beginnings that wait for content, and what came after them; whether it belongs to an item."""
        self._status: str | None = None
        self._usage: Usage | None = None
        """What a policy put in place of the upstream's."""

    def seen(self, events: Any) -> None:
        raw = b""
        for event in events:
            raw = event.raw or raw
            kind = type(event)
            if kind is ToolCallStart:
                self._calls_seen[event.index] = raw
            elif kind is EndEvent:
                self._end_raw = raw
        super().seen(events)

    def _learn(self, event: StreamEvent) -> None:
        if not self._begin_seen and event.raw and b"response.created" in event.raw:
            self._begin_seen = event.raw

    # --- pristine ---

    def _pass(self, event: StreamEvent) -> None:
        kind = type(event)
        if kind is TextDelta or kind is ThinkingDelta:
            pieces = self._pieces.get(event.index)  # type: ignore[union-attr]
            if pieces is not None and not self._held:
                pieces.append(event.text)  # type: ignore[union-attr]
                self._last_raw = event.raw
                self._out.append(event.raw)
                return
        elif kind is ToolCallDelta and event.arguments:  # type: ignore[union-attr]
            pieces = self._pieces.get(event.index)  # type: ignore[union-attr]
            if pieces is not None and not self._held:
                pieces.append(event.arguments)  # type: ignore[union-attr]
                self._last_raw = event.raw
                self._out.append(event.raw)
                return
        self._follow(event.raw)

    def _pass_wire(self, events: list[StreamEvent], raw: bytes) -> None:
        self._follow(raw)

    def _follow(self, raw: bytes) -> None:
        """Note what an event means, and send it, or let it wait where it begins something."""
        fields = sse_fields(raw)
        kind = as_text(decoded(fields.get("type")))
        index = as_index(decoded(fields.get("output_index")))
        if not kind:
            self._held.append((raw, False)) if self._held else self._out.append(raw)
            return
        item = self._items.get(index)
        if kind == "response.output_item.added":
            item = self._new_item(index, item_of(fields), raw)
            if item.kind == "message" or (item.is_call and waits_for_arguments(item.kind, item.template)):
                self._held.append((raw, True))
                return
        elif kind in _PARTS_ADDED and item is not None:
            form, key = _part_place(kind, fields)
            item.new_part(form, key, raw)
            self._pieces[index] = item.parts[key].pieces
            self._held.append((raw, True))
            return
        elif self._held and "output_index" not in fields and kind != "error" and kind.removeprefix("response.") not in _STATUS:
            self._held.append((raw, False))
            return
        self._release_held()
        self._note(kind, index, fields)
        if "sequence_number" in fields:
            self._last_raw = raw
        self._out.append(raw)

    def _note(self, kind: str, index: int, fields: Fields) -> None:
        """Follow an event that is sent as it is."""
        item = self._items.get(index)
        if kind in _BEGINS:
            self._begun = True
        elif kind in FORM_OF_DELTA:
            item = item or self._new_item(index, {}, b"")
            form = FORM_OF_DELTA[kind]
            key = _key(form, fields)
            part = item.parts.get(key) or item.new_part(form, key)
            item.number = index if item.number is None else item.number
            part.number = key[1] if part.number is None else part.number
            part.pieces.append(as_text(decoded(fields.get("delta"))))
            self._pieces[index] = part.pieces
        elif kind in _ARGUMENTS_DONE or kind.endswith(("_arguments.delta", "_input.delta")):
            if item is not None:
                if kind in _ARGUMENTS_DONE:
                    item.arguments_done = True
                    item.arguments[:] = [as_text(decoded(fields.get(_argument_field(kind))))]
                else:
                    item.arguments.append(as_text(decoded(fields.get("delta"))))
        elif kind in FORM_OF_TEXT_DONE or kind in _PARTS_DONE:
            ended = _part_of(item, kind, fields)
            if ended is not None:
                ended.stage = max(ended.stage, 2 if kind in _PARTS_DONE else 1)
        elif kind == "response.output_item.done":
            number = index if item is None or item.number is None else item.number
            self._sent[number] = fields.get("item")
            self._next = max(self._next, number + 1)
            self._forget(index)
        elif kind == "error" or kind.removeprefix("response.") in _STATUS:
            self._ended = True

    def _new_item(self, index: int, template: Fields, raw: bytes) -> Item:
        item = Item(as_text(decoded(template.get("type"))) or "message", as_text(decoded(template.get("id"))), raw, template)
        item.call_id = as_text(decoded(template.get("call_id")))
        item.name = as_text(decoded(template.get("name")))
        self._items[index] = item
        self._closed.discard(index)
        if raw:
            self._name_call(index, item.call_id)
        if not self._altered:
            self._pieces.pop(index, None)
            if item.kind in ARGUMENTS:
                self._pieces[index] = item.arguments
            if not raw or not (item.kind == "message" or (item.is_call and waits_for_arguments(item.kind, template))):
                item.number = index
                self._next = max(self._next, index + 1)
        return item

    def _release_held(self) -> None:
        if not self._held:
            return
        for index, item in self._items.items():
            if item.number is None:
                item.number, item.raw = index, b""
                self._next = max(self._next, index + 1)
            for (_, number), part in item.parts.items():
                if part.number is None:
                    part.number, part.raw = number, b""
        for raw, of_item in self._held:
            self._out.append(raw)
            if of_item:
                self._last_raw = raw
        self._held.clear()

    def _forget(self, index: int) -> None:
        self._items.pop(index, None)
        self._pieces.pop(index, None)
        self._closed.add(index)

    def _alter(self) -> None:
        self._out += [raw for raw, of_item in self._held if not of_item]
        self._held.clear()
        number = decoded(sse_fields(self._last_raw).get("sequence_number"))
        self._sequence = number if type(number) is int else -1
        super()._alter()

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
            if item.kind not in ARGUMENTS or item.arguments_done or place.type != f"{ARGUMENTS[item.kind][1]}.delta":
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
        if kind in _BEGINS:
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
        elif kind in _PARTS_ADDED:
            item = self._items.get(index)
            if item is not None:
                form, key = _part_place(kind, fields)
                if key not in item.parts:
                    item.new_part(form, key, raw)
        elif kind in FORM_OF_DELTA:
            text = as_text(decoded(fields.get("delta")))
            if text:
                self._say(index, FORM_OF_DELTA[kind], _key(FORM_OF_DELTA[kind], fields), text, raw, fields)
        elif kind in FORM_OF_TEXT_DONE:
            self._text_done(index, FORM_OF_TEXT_DONE[kind], _key(FORM_OF_TEXT_DONE[kind], fields), raw, fields)
        elif kind in _PARTS_DONE:
            item = self._items.get(index)
            key = _part_place(kind, fields)[1]
            if item is not None and key in item.parts:
                self._part_done(item, key, raw, fields)
        elif isinstance(event, ToolCallDelta):
            item = self._call(index)
            if kind in _ARGUMENTS_DONE:
                if event.arguments:
                    item.arguments[:] = [event.arguments]
                item.arguments_raw = raw
            elif event.arguments:
                item.arguments.append(event.arguments)
                self._send_of(item, raw, fields)
        elif kind == "response.output_item.done":
            if isinstance(event, ToolCallEnd):
                self._call(index)
            self._item_done(index, raw, fields)
        elif "output_index" in fields:
            item = self._items.get(index)
            if item is not None and item.number is not None and not (item.changed and "annotation" in kind):
                self._send_of(item, raw, fields)
        elif kind.removeprefix("response.") in _STATUS:
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
                item.arguments[:] = [delta.arguments]
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
                    self._text_done(index, FORM_OF_TEXT_DONE[kind], _key(FORM_OF_TEXT_DONE[kind], fields), wire.raw, fields)
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
                text = clean(event.arguments)
                item.arguments.append(text)
                item.changed = True
                if item.kind in ARGUMENTS:
                    self._send_item_event(item, f"{ARGUMENTS[item.kind][1]}.delta", delta=text)
        elif isinstance(event, ToolCallEnd):
            self._call(event.index).changed = True
            self._item_done(event.index, b"", {})
        elif isinstance(event, UsageEvent):
            self._usage = event.usage
        elif isinstance(event, StopEvent):
            self._status = _STATUS.get(event.reason, "completed")
        elif isinstance(event, EndEvent):
            self._finish(self._end_raw)
        elif isinstance(event, ErrorEvent):
            self._put_error(event.error)

    def _put_call(self, event: ToolCallStart) -> None:
        self._name_call(event.index, event.call_id, made=True)
        template = item_of(sse_fields(self._calls_seen.get(event.index, b"")))
        if not template:
            template = {"type": "function_call"}
        item = self._start(event.index, template, b"")
        item.item_id = item.item_id or self._own_id("fc")
        item.call_id = clean(event.call_id) or item.item_id
        if "name" in template or item.kind in ARGUMENTS:
            item.name = clean(event.name)
        item.changed = True
        if item.kind in ARGUMENTS:
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

    # --- items ---

    def _check_end(self) -> None:
        if self._ended:
            raise illegal("terminator_last", "the stream has ended already")

    def _own_id(self, prefix: str) -> str:
        return f"{prefix}_{self._transaction_id or 'luthien'}_{self._next}"

    def _start(self, index: int, template: Fields, raw: bytes) -> Item:
        """An item begins; messages and calls whose arguments came with them wait."""
        if index in self._items or index in self._closed:
            raise illegal("item_added_once", f"output item {index} begins twice")
        item = self._new_item(index, template, raw)
        if raw and item.kind != "message" and not (item.is_call and waits_for_arguments(item.kind, template)):
            self._opened(item)
        return item

    def _call(self, index: int) -> Item:
        item = self._items.get(index)
        if item is None or not item.is_call:
            rule = "delta_before_done" if index in self._closed else "delta_after_added"
            raise illegal(rule, f"tool call {index} is not open")
        if item.kind in ARGUMENTS and item.number is None:
            item.changed = True
            self._opened(item)
        return item

    def _opened(self, item: Item) -> Item:
        """The item, with its beginning sent."""
        if item.number is not None:
            return item
        self._ensure_begun()
        self._close_own()
        item.number = self._next
        self._next += 1
        if item.raw and not item.cut and not item.changed:
            self._send_of(item, item.raw, sse_fields(item.raw))
        else:
            if item.cut or not item.item_id:
                item.item_id = f"{'rs' if item.kind == 'reasoning' else 'msg'}_{self._transaction_id or 'luthien'}_{item.number}"
            self._send({"type": "response.output_item.added", "output_index": item.number, "item": item.begun_fields()})
        item.raw = b""
        return item

    def _say(
        self, index: int, form: PartForm, key: Key | None, text: str, raw: bytes = b"", fields: Fields | None = None
    ) -> None:
        """Text of an item: untouched where `raw` is given."""
        item = self._items.get(index)
        if item is None:
            if index in self._closed:
                raise illegal("delta_before_done", f"text of output item {index} comes after its end")
            kind = "message" if form.kind in ("output_text", "refusal") else "reasoning"
            item = self._new_item(index, {"type": kind}, b"")
        if item.is_call or (item.kind == "reasoning") != (form.kind in ("summary_text", "reasoning_text")):
            raise illegal("delta_matches_item", f"text comes for a {item.kind}")
        self._opened(item)
        if key is None:
            key = item.current or ("summary" if form is SUMMARY else "content", 0)
        part = self._opened_part(item, key, form)
        part.pieces.append(text)
        if raw:
            self._send_of(item, raw, fields or {}, **{form.index: part.number})
            return
        item.changed = True
        more: Fields = {form.index: part.number, "delta": text}
        if form is OUTPUT_TEXT:
            more["logprobs"] = []
        self._send_item_event(item, form.delta, **more)

    def _opened_part(self, item: Item, key: Key, form: PartForm) -> Part:
        part = item.parts.get(key)
        if part is None:
            part = item.new_part(form, key)
        if part.stage:
            raise illegal("delta_before_done", "text comes after the end of its part")
        if part.number is not None:
            return part
        part.number = item.next_part_number(key[0])
        if part.raw:
            fields = sse_fields(part.raw)
            if as_text(as_object(decoded(fields.get("part"))).get(part.form.field)):
                fields["part"] = part.form.part("")
            self._send_of(item, part.raw, fields, **{part.form.index: part.number})
        else:
            self._send_item_event(item, part.form.added, **{part.form.index: part.number, "part": part.form.part("")})
        part.raw = b""
        return part

    def _text_done(self, index: int, form: PartForm, key: Key, raw: bytes, fields: Fields) -> None:
        item = self._items.get(index)
        if item is None:
            return
        part = item.parts.get(key)
        given = as_text(decoded(fields.get(form.field)))
        if (part is None or part.number is None) and not given and not item.cut and index not in self._said:
            self._opened(item)
            part = self._opened_part(item, key, form)
        if part is None or part.number is None or part.stage:
            return
        part.stage = 1
        more: Fields = {form.index: part.number}
        if given != part.text:
            more[form.field] = part.text
            if form is OUTPUT_TEXT:
                more["logprobs"] = []
        self._send_of(item, raw, fields, **more)

    def _part_done(self, item: Item, key: Key, raw: bytes, fields: Fields) -> None:
        part = item.parts[key]
        if part.number is None or part.stage == 2:
            return
        if part.stage == 0 and item.changed:
            self._end_text(item, part)
        part.stage = 2
        given = as_object(decoded(fields.get("part")))
        more: Fields = {part.form.index: part.number}
        if as_text(given.get(part.form.field)) != part.text:
            more["part"] = {**part.form.part(part.text), **without(given, (part.form.field, "annotations", "logprobs"))}
        self._send_of(item, raw, fields, **more)

    def _end_text(self, item: Item, part: Part) -> None:
        more: Fields = {part.form.index: part.number, part.form.field: part.text}
        if part.form is OUTPUT_TEXT:
            more["logprobs"] = []
        self._send_item_event(item, part.form.text_done, **more)
        part.stage = 1

    def _arguments_done(self, item: Item, *, anyway: bool) -> None:
        """Say all arguments of a call: where the upstream does, or `anyway`."""
        raw = item.arguments_raw
        if item.kind not in ARGUMENTS or item.arguments_done or not (raw or anyway):
            return
        item.arguments_done = True
        field, events = ARGUMENTS[item.kind]
        said = "".join(item.arguments)
        if raw:
            fields = sse_fields(raw)
            more: Fields = {} if as_text(decoded(fields.get(field))) == said else {field: said}
            self._send_of(item, raw, fields, **more)
        else:
            self._send_item_event(item, f"{events}.done", **{field: said})

    def _item_done(self, index: int, raw: bytes, fields: Fields, status: str = "completed") -> None:
        """An item is done: what was not ended of it is, and its JSON says what was sent."""
        item = self._items.get(index)
        if item is None:
            return
        given = item_of(fields)
        if item.number is None:
            if item.cut or (item.kind == "message" and (index in self._said or _has_text(given))):
                self._forget(index)
                return
            if item.is_call and item.changed and not raw:
                item.template = {**item.template, **without(given, ("status",))}
            self._opened(item)
        self._arguments_done(item, anyway=item.changed or not raw)
        if item.changed or not raw:
            for part in item.parts.values():
                if part.number is not None and part.stage < 2:
                    if part.stage == 0:
                        self._end_text(item, part)
                    part.stage = 2
                    more: Fields = {part.form.index: part.number, "part": part.form.part(part.text)}
                    self._send_item_event(item, part.form.part_done, **more)
        if item.kind == "reasoning" and index in self._said:
            for family in ("summary", "content"):
                for at in range(len(as_list(decoded(given.get(family))))):
                    item.parts.setdefault((family, at), Part(SUMMARY if family == "summary" else REASONING_TEXT))
        done = item.done_fields(given, status)
        if raw and done == given:
            self._send_of(item, raw, fields)
        elif raw:
            self._send_of(item, raw, fields, item=done)
        else:
            self._send({"type": "response.output_item.done", "output_index": item.number, "item": done})
        self._sent[item.number or 0] = raw_item(done)
        self._forget(index)
        self._say_deferred()

    # --- text of ours ---

    def _insert(self, text: str) -> None:
        if not text:
            return
        if any(item.number is not None and item.kind != "message" for item in self._items.values()):
            self._deferred.append(text)
            return
        if self._own is None:
            self._ensure_begun()
            for index, item in list(self._items.items()):
                if item.number is not None:
                    self._cut(index, item)
            item = Item("message", self._own_id("msg"))
            self._opened(item)
            self._own = item
        part = self._opened_part(self._own, ("content", 0), OUTPUT_TEXT)
        part.pieces.append(text)
        self._send_item_event(self._own, OUTPUT_TEXT.delta, content_index=0, delta=text, logprobs=[])

    def _cut(self, index: int, item: Item) -> None:
        """Close a message in the middle; what follows of it becomes another."""
        item.changed = True
        self._item_done(index, b"", {})
        self._closed.discard(index)
        rest = self._items[index] = Item("message", "", b"", item.template)
        rest.cut = rest.changed = True

    def _close_own(self) -> None:
        item, self._own = self._own, None
        if item is None:
            return
        part = item.parts["content", 0]
        self._end_text(item, part)
        self._send_item_event(item, OUTPUT_TEXT.part_done, content_index=0, part=OUTPUT_TEXT.part(part.text))
        done = item.done_fields({})
        self._send({"type": "response.output_item.done", "output_index": item.number, "item": done})
        self._sent[item.number or 0] = raw_item(done)

    def _say_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for text in deferred:
            self._insert(text)
        if deferred:
            self._close_own()

    # --- the response ---

    def _whole(self) -> Fields:
        """The response as it began."""
        seen = fields_of(sse_fields(self._begin_seen).get("response")) if self._begin_seen else {}
        return seen or {
            "id": f"resp_{self._transaction_id or 'luthien'}",
            "object": "response",
            "created_at": 0,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": self._model,
            "output": [],
            "parallel_tool_calls": True,
            "temperature": None,
            "tool_choice": "auto",
            "tools": [],
            "top_p": None,
            "usage": None,
        }

    def _ensure_begun(self) -> None:
        if self._begun:
            return
        self._begun = self._begin_made = True
        if self._begin_seen:
            self._send_raw(self._begin_seen, sse_fields(self._begin_seen))
        else:
            self._send({"type": "response.created", "response": self._whole()})

    def _output(self) -> list[Any]:
        return [self._sent[number] for number in sorted(self._sent)]

    def _finish(self, raw: bytes) -> None:
        """Send the event that ends the stream, whose response says what was sent."""
        self._ensure_begun()
        self._close_own()
        for index, item in list(self._items.items()):
            if item.number is not None or item.is_call:
                item.changed = True
                self._item_done(index, b"", {})
        self._say_deferred()
        fields = sse_fields(raw) if raw else {}
        response = fields_of(fields.get("response")) or {**self._whole(), "status": "completed"}
        output = self._output()
        given = decoded(response.get("output"))
        kind = as_text(decoded(fields.get("type"))) or "response.completed"
        changed: Fields = {}
        if not raw or (given and given != [decoded(item) for item in output]):
            changed["output"] = output
            if "output_text" in response:
                changed["output_text"] = "".join(_message_texts(output))
        if self._usage is not None:
            changed["usage"] = responses_usage_fields(self._usage)
        if self._status is not None and self._status != decoded(response.get("status")):
            changed["status"] = self._status
            kind = f"response.{self._status}"
        if raw and not changed:
            self._send_raw(raw, fields)
        else:
            self._send_raw(b"", {**fields, "type": kind, "response": {**response, **changed}}, changed=True)
        self._ended = True

    # --- bytes ---

    def _send_of(self, item: Item, raw: bytes, fields: Fields, /, **more: Any) -> None:
        """Send an event of an item under the item's index and id at the client, with other fields where they changed."""
        fields = dict(fields)
        changed = False
        places: Fields = {"output_index": item.number, **more}
        if "item_id" in fields and item.item_id:
            places["item_id"] = item.item_id
        for name, value in places.items():
            if decoded(fields.get(name)) != value:
                fields[name] = value
                changed = True
        self._send_raw(raw, fields, changed=changed)

    def _send_item_event(self, item: Item, kind: str, /, **more: Any) -> None:
        self._send({"type": kind, "item_id": item.item_id, "output_index": item.number, **more})

    def _send(self, value: Fields) -> None:
        self._send_raw(b"", value, changed=True)

    def _send_raw(self, raw: bytes, fields: Fields, *, changed: bool = False) -> None:
        """Send an event with a number that is higher than the last."""
        number = decoded(fields.get("sequence_number"))
        if type(number) is int and number > self._sequence:
            self._sequence = number
        elif type(number) is int or not raw:
            self._sequence += 1
            fields = {**fields, "sequence_number": self._sequence}
            changed = True
        self._out.append(event_bytes(fields, as_text(decoded(fields.get("type")))) if changed else raw)


def _key(form: PartForm, fields: Fields) -> Key:
    return ("summary" if form is SUMMARY else "content", as_index(decoded(fields.get(form.index))))


def _part_place(kind: str, fields: Fields) -> tuple[PartForm, Key]:
    """The form of a part that begins or ends, and its place."""
    if "summary" in kind:
        return SUMMARY, _key(SUMMARY, fields)
    form = FORM_OF_KIND.get(as_text(as_object(decoded(fields.get("part"))).get("type")), OUTPUT_TEXT)
    return form, _key(form, fields)


def _part_of(item: Item | None, kind: str, fields: Fields) -> Part | None:
    if item is None:
        return None
    form = FORM_OF_TEXT_DONE.get(kind)
    return item.parts.get(_key(form, fields) if form is not None else _part_place(kind, fields)[1])


def _argument_field(kind: str) -> str:
    return next(field for field, events in ARGUMENTS.values() if kind == f"{events}.done")


def _has_text(item: Fields) -> bool:
    return any(as_text(as_object(part).get("text")) for part in as_list(decoded(item.get("content"))))


def _message_texts(output: list[Any]) -> list[str]:
    texts: list[str] = []
    for item in output:
        fields = as_object(decoded(item))
        if fields.get("type") == "message":
            texts += [as_text(as_object(part).get("text")) for part in as_list(fields.get("content"))]
    return texts
