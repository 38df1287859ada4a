"""The rules of streams of OpenAI Responses."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.tolerant_json import JsonObject, as_list, as_object, as_text, read
from proxy_core.wire.validator import Findings


class _Event(msgspec.Struct):
    type: Any = None
    sequence_number: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    item_id: Any = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    part: Any = None
    item: Any = None
    response: Any = None


_event = msgspec.json.Decoder(_Event)
_BEGINS = frozenset({"response.created", "response.in_progress", "response.queued"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_TEXT_DELTAS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "content",
    "response.reasoning_text.delta": "content",
    "response.reasoning_summary_text.delta": "summary",
}
_TEXT_DONES = {name.replace(".delta", ".done"): family for name, family in _TEXT_DELTAS.items()}
_CALL_DELTAS = frozenset({"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"})
_CALL_DONES = frozenset({"response.function_call_arguments.done", "response.custom_tool_call_input.done"})


class _Item:
    __slots__ = ("arguments", "done", "item_id", "kind", "parts", "parts_done", "saw_arguments")

    def __init__(self, item: JsonObject) -> None:
        self.kind = as_text(item.get("type"))
        self.item_id = as_text(item.get("id"))
        self.done = False
        self.arguments: list[str] = []
        self.saw_arguments = False
        self.parts: dict[tuple[str, int], list[str]] = {}
        self.parts_done: set[tuple[str, int]] = set()


class ResponsesRules(Findings):
    """Applied to one stream."""

    def __init__(self, strict: bool) -> None:
        super().__init__(strict)
        self._first = True
        self._ended = False
        self._sequence = -1
        self._items: dict[int, _Item] = {}
        self._whole: list[Any] = []
        """The items that are done, in the order of their indices."""

    def event(self, name: str, data: bytes) -> None:
        if data[:6] == b"[DONE]":
            return
        event, _ = read(data, _event.decode)
        if event is None:
            self.say("event_readable", "an event's data is no JSON object")
            return
        kind = as_text(event.type) or name
        if self._ended:
            self.say("terminator_last", f"{kind} comes after the stream's end")
            return
        number = event.sequence_number
        if type(number) is int:
            if number <= self._sequence:
                self.say("sequence_monotonic", f"{kind} has the number {number} after {self._sequence}")
            self._sequence = max(number, self._sequence)
        if self._first and kind != "response.created" and kind != "error":
            self.say("created_first", f"the stream begins with {kind}")
        elif not self._first and kind == "response.created":
            self.say("created_first", "the response is created twice")
        self._first = False
        if kind == "error":
            self._ended = True
        elif kind in _ENDS:
            self._ended = True
            self._end_of(kind, as_object(event.response))
        elif type(event.output_index) is int:
            self._of_item(kind, event.output_index, event)

    def end(self) -> None:
        if not self._ended:
            self.say("terminator_last", "the stream ends without response.completed, incomplete or failed")

    def _of_item(self, kind: str, index: int, event: _Event) -> None:
        item = self._items.get(index)
        if kind == "response.output_item.added":
            if item is not None:
                self.say("item_added_once", f"output item {index} begins twice")
            elif self.strict and index != len(self._items):
                self.say("output_index_contiguous", f"output item {index} comes in place of {len(self._items)}")
            self._items[index] = _Item(as_object(event.item))
            return
        if item is None:
            self.say("delta_after_added", f"{kind} comes for output item {index}, which has not begun")
            return
        if item.done:
            rule = "item_done_once" if kind == "response.output_item.done" else "delta_before_done"
            self.say(rule, f"{kind} comes after output item {index} was done")
            return
        if kind == "response.output_item.done":
            item.done = True
            self._whole.append((index, event.item))
            if self.strict:
                self._agree(index, item, as_object(event.item))
        elif kind in _CALL_DELTAS:
            if item.saw_arguments:
                self.say("delta_before_done", f"arguments of output item {index} come after their end")
            item.arguments.append(as_text(event.delta))
        elif kind in _CALL_DONES:
            item.saw_arguments = True
            whole = event.input if "custom" in kind else event.arguments
            if self.strict and item.arguments and "".join(item.arguments) != whole:
                self.say("arguments_agree", f"the arguments of output item {index} are not their pieces")
            item.arguments = [as_text(whole)]
        else:
            self._of_part(kind, index, item, event)

    def _of_part(self, kind: str, index: int, item: _Item, event: _Event) -> None:
        family = "summary" if "summary" in kind else "content"
        number = event.summary_index if family == "summary" else event.content_index
        key = (family, number if type(number) is int else 0)
        pieces = item.parts.get(key)
        if kind.endswith("_part.added"):
            if self.strict and pieces is not None:
                self.say("part_added_once", f"part {key[1]} of output item {index} begins twice")
            if self.strict and key[1] != sum(1 for of, _ in item.parts if of == family):
                self.say("part_index_contiguous", f"part {key[1]} of output item {index} is out of order")
            item.parts[key] = []
        elif kind in _TEXT_DELTAS or kind in _TEXT_DONES or kind.endswith("_part.done"):
            if pieces is None:
                if self.strict:
                    self.say("part_added", f"{kind} comes before part {key[1]} of output item {index} began")
                pieces = item.parts[key] = []
            if key in item.parts_done and (kind in _TEXT_DELTAS or kind in _TEXT_DONES):
                self.say("delta_before_done", f"{kind} comes after the end of its part")
            if kind in _TEXT_DELTAS:
                pieces.append(as_text(event.delta))
                return
            part = as_object(event.part)
            given = (part.get("text", part.get("refusal"))) if kind.endswith("_part.done") else (event.text or event.refusal)
            if self.strict and as_text(given) != "".join(pieces):
                self.say("text_agrees", f"the text of output item {index} is not its pieces")
            item.parts_done.add(key)

    def _agree(self, index: int, item: _Item, whole: JsonObject) -> None:
        if item.kind in ("function_call", "custom_tool_call") and not (as_text(whole.get("name")) and whole.get("call_id")):
            self.say("call_named", f"the tool call {index} has no name or no id")
        if as_text(whole.get("type")) != item.kind or as_text(whole.get("id")) != item.item_id:
            self.say("item_agrees", f"output item {index} is another when it is done")
        if item.arguments and as_text(whole.get("arguments") or whole.get("input")) != "".join(item.arguments):
            self.say("arguments_agree", f"output item {index} has other arguments than its pieces")
        for family in ("content", "summary"):
            said = ["".join(pieces) for (of, _), pieces in sorted(item.parts.items()) if of == family]
            parts = [as_object(part) for part in as_list(whole.get(family))]
            given = [as_text(part.get("text")) or as_text(part.get("refusal")) for part in parts]
            if said and said != given:
                self.say("text_agrees", f"output item {index} has other texts than its pieces")

    def _end_of(self, kind: str, response: JsonObject) -> None:
        if not self.strict:
            return
        for index, item in self._items.items():
            if not item.done and kind == "response.completed":
                self.say("items_done", f"output item {index} is not done")
        output = response.get("output")
        if output and [item for _, item in sorted(self._whole, key=lambda pair: pair[0])] != output:
            self.say("output_agrees", "the response's output is not what was sent")
        if not output and self._whole and isinstance(output, list):
            self.say("output_agrees", "the response's output is empty")
