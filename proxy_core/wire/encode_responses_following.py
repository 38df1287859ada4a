"""Follows an untouched Responses stream: what has begun, what was said of it, and what has to wait for its content."""

from __future__ import annotations

from typing import Any

from proxy_core.wire.conversation import (
    EndEvent,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from proxy_core.wire.encode_events import (
    EventEncoder,
    Fields,
    decoded,
    sse_fields,
)
from proxy_core.wire.encode_responses_items import (
    ARGUMENTS,
    FORM_OF_DELTA,
    FORM_OF_KIND,
    FORM_OF_TEXT_DONE,
    OUTPUT_TEXT,
    SUMMARY,
    Item,
    Key,
    Part,
    PartForm,
    item_of,
    waits_for_arguments,
)
from proxy_core.wire.tolerant_json import as_index, as_object, as_text

BEGINS = frozenset({"response.created", "response.in_progress", "response.queued"})
STATUS = {"completed": "completed", "incomplete": "incomplete", "failed": "failed"}
PARTS_ADDED = frozenset({"response.content_part.added", "response.reasoning_summary_part.added"})
PARTS_DONE = frozenset({"response.content_part.done", "response.reasoning_summary_part.done"})
ARGUMENTS_DONE = frozenset(f"{events}.done" for _, events in ARGUMENTS.values())


class ResponsesFollower(EventEncoder):
    """Passes events on and knows where the stream stands."""

    def __init__(self, model: str = "", transaction_id: str = "") -> None:
        super().__init__(model, transaction_id)
        self._begun = False
        self._begin_made = False
        """Whether the response was begun although its own beginning had not come."""
        self._made_id = ""
        """The id of a response that was begun before anything of the upstream's was seen; all that follows says it."""
        self._begin_seen = b""
        self._end_raw = b""
        """The event with which the upstream ended."""
        self._calls_seen: dict[int, bytes] = {}
        """The wire event that began each of the upstream's calls."""
        self._names_seen: dict[int, str] = {}
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
                self._names_seen[event.index] = event.name
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
            if pieces and not self._held:  # the first of them may be the event that says all
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
        elif kind in PARTS_ADDED and item is not None:
            form, key = part_place(kind, fields)
            item.new_part(form, key, raw)
            self._pieces[index] = item.parts[key].pieces
            self._held.append((raw, True))
            return
        elif self._held and "output_index" not in fields and kind != "error" and kind.removeprefix("response.") not in STATUS:
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
        if kind in BEGINS:
            self._begun = True
        elif kind in FORM_OF_DELTA:
            item = item or self._new_item(index, {}, b"")
            form = FORM_OF_DELTA[kind]
            key = key_of(form, fields)
            part = item.parts.get(key) or item.new_part(form, key)
            item.number = index if item.number is None else item.number
            part.number = key[1] if part.number is None else part.number
            part.pieces.append(as_text(decoded(fields.get("delta"))))
            self._pieces[index] = part.pieces
        elif kind in ARGUMENTS_DONE or kind.endswith(("_arguments.delta", "_input.delta")):
            if item is not None:
                if kind in ARGUMENTS_DONE:
                    item.arguments_done = True
                    item.arguments[:] = [as_text(decoded(fields.get(argument_field(kind))))]
                else:
                    item.arguments.append(as_text(decoded(fields.get("delta"))))
        elif kind in FORM_OF_TEXT_DONE or kind in PARTS_DONE:
            ended = part_of(item, kind, fields)
            if ended is not None:
                ended.stage = max(ended.stage, 2 if kind in PARTS_DONE else 1)
                self._pieces.pop(index, None)
        elif kind == "response.output_item.done":
            number = index if item is None or item.number is None else item.number
            self._sent[number] = fields.get("item")
            self._next = max(self._next, number + 1)
            self._forget(index)
        elif kind == "error" or kind.removeprefix("response.") in STATUS:
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


def key_of(form: PartForm, fields: Fields) -> Key:
    return ("summary" if form is SUMMARY else "content", as_index(decoded(fields.get(form.index))))


def part_place(kind: str, fields: Fields) -> tuple[PartForm, Key]:
    """The form of a part that begins or ends, and its place."""
    if "summary" in kind:
        return SUMMARY, key_of(SUMMARY, fields)
    form = FORM_OF_KIND.get(as_text(as_object(decoded(fields.get("part"))).get("type")), OUTPUT_TEXT)
    return form, key_of(form, fields)


def part_of(item: Item | None, kind: str, fields: Fields) -> Part | None:
    if item is None:
        return None
    form = FORM_OF_TEXT_DONE.get(kind)
    return item.parts.get(key_of(form, fields) if form is not None else part_place(kind, fields)[1])


def argument_field(kind: str) -> str:
    return next(field for field, events in ARGUMENTS.values() if kind == f"{events}.done")
