"""Writes a Responses stream: items and their parts opened, said and done, and the response that ends it."""

from __future__ import annotations

from typing import Any

from proxy_core.wire.encode_events import (
    Fields,
    decoded,
    event_bytes,
    fields_of,
    illegal,
    responses_usage_fields,
    sse_fields,
    without,
)
from proxy_core.wire.encode_responses_following import ResponsesFollower
from proxy_core.wire.encode_responses_items import (
    ARGUMENTS,
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
from proxy_core.wire.tolerant_json import as_list, as_object, as_text


class ResponsesOutput(ResponsesFollower):
    """Writes items under numbers of their own."""

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
        untouched = item.raw and not item.cut and not item.changed
        if not untouched and (item.cut or not item.item_id):
            item.item_id = self._own_id("rs" if item.kind == "reasoning" else "msg")
        begun = {} if untouched else item.begun_fields()  # raises, so nothing may be counted before
        item.number = self._next
        self._next += 1
        if untouched:
            self._send_of(item, item.raw, sse_fields(item.raw))
        else:
            self._send({"type": "response.output_item.added", "output_index": item.number, "item": begun})
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
        if item.kind not in ("message", "reasoning") and not raw and not item.parts:
            raise illegal("delta_matches_item", f"text is made for a {item.kind}")
        key = key or item.place_of(form)
        if key in item.parts and item.parts[key].form is not form:
            raise illegal("delta_matches_part", f"{form.kind} comes for a part of output item {index} that is another's")
        self._opened(item)
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
        if part is not None and part.form is not form:
            return
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
        if as_text(decoded(given.get("type"))) not in ("", item.kind):
            raw, fields, given = b"", {}, {}  # the end of another item than the one that began here
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
            return
        response = self._whole()
        self._made_id = as_text(response["id"])
        self._send({"type": "response.created", "response": response})
        self._begin_seen = self._out[-1]

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
        if self._made_id and "response" in fields:
            response = fields_of(fields["response"])
            if decoded(response.get("id")) != self._made_id:
                fields = {**fields, "response": {**response, "id": self._made_id}}
                changed = True
        number = decoded(fields.get("sequence_number"))
        if type(number) is int and number > self._sequence:
            self._sequence = number
        elif type(number) is int or not raw:
            self._sequence += 1
            fields = {**fields, "sequence_number": self._sequence}
            changed = True
        self._out.append(event_bytes(fields, as_text(decoded(fields.get("type")))) if changed else raw)


def _has_text(item: Fields) -> bool:
    return any(as_text(as_object(part).get("text")) for part in as_list(decoded(item.get("content"))))


def _message_texts(output: list[Any]) -> list[str]:
    texts: list[str] = []
    for item in output:
        fields = as_object(decoded(item))
        if fields.get("type") == "message":
            texts += [as_text(as_object(part).get("text")) for part in as_list(fields.get("content"))]
    return texts
