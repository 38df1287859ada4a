"""Items of a Responses stream while they go out: what was sent of each, and the JSON that says so when it is done."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from proxy_core.wire.encode_events import Fields, decoded, fields_of, illegal, to_json
from proxy_core.wire.tolerant_json import as_list, as_object, as_text, plain, read

ARGUMENTS = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
"""Calls whose arguments are text that comes in pieces: the field, and the beginning of the events' names."""
_OBJECTS = {
    "local_shell_call": ("action", "operation"),
    "shell_call": ("action", "operation"),
    "computer_call": ("action", "operation"),
    "apply_patch_call": ("operation", "action"),
    "tool_search_call": ("arguments", "arguments"),
}
"""Calls whose arguments are an object that comes whole, and the fields that may hold it."""

Key = tuple[str, int]
"""A part of an item: `content` or `summary`, and its index at the upstream."""


class PartForm:
    """How the events of one kind of part are named."""

    def __init__(self, kind: str, part: str, text: str, index: str, field: str = "text") -> None:
        self.kind = kind
        self.added = f"response.{part}.added"
        self.part_done = f"response.{part}.done"
        self.delta = f"response.{text}.delta"
        self.text_done = f"response.{text}.done"
        self.index = index
        self.field = field
        """The field that holds the text, in the part and in the event that ends its text."""

    def part(self, text: str) -> Fields:
        if self.kind == "output_text":
            return {"type": self.kind, "text": text, "annotations": [], "logprobs": []}
        return {"type": self.kind, self.field: text}


OUTPUT_TEXT = PartForm("output_text", "content_part", "output_text", "content_index")
REASONING_TEXT = PartForm("reasoning_text", "content_part", "reasoning_text", "content_index")
REFUSAL = PartForm("refusal", "content_part", "refusal", "content_index", "refusal")
SUMMARY = PartForm("summary_text", "reasoning_summary_part", "reasoning_summary_text", "summary_index")
FORMS = (OUTPUT_TEXT, REASONING_TEXT, REFUSAL, SUMMARY)
FORM_OF_DELTA = {form.delta: form for form in FORMS}
FORM_OF_TEXT_DONE = {form.text_done: form for form in FORMS}
FORM_OF_KIND = {form.kind: form for form in FORMS}


class Part:
    """A piece of text inside an item."""

    __slots__ = ("form", "number", "pieces", "raw", "stage")

    def __init__(self, form: PartForm, raw: bytes = b"") -> None:
        self.form = form
        self.raw = raw
        """The bytes of its beginning while they wait."""
        self.number: int | None = None
        """Its index at the client; None while it waits for content."""
        self.pieces: list[str] = []
        """What was sent of it."""
        self.stage = 0
        """0: open, 1: its text is done, 2: it is done."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Item:
    """One item of the output that has begun and is not done."""

    __slots__ = (
        "arguments",
        "arguments_done",
        "arguments_raw",
        "call_id",
        "changed",
        "current",
        "cut",
        "item_id",
        "kind",
        "name",
        "number",
        "parts",
        "raw",
        "template",
        "unsaid",
    )

    def __init__(self, kind: str, item_id: str = "", raw: bytes = b"", template: Fields | None = None) -> None:
        self.kind = kind
        self.item_id = item_id
        self.raw = raw
        """The bytes of its beginning while they wait."""
        self.template = template or {}
        """The item as the upstream began it."""
        self.number: int | None = None
        """Its index at the client; None while it waits for content."""
        self.parts: dict[Key, Part] = {}
        self.current: Key | None = None
        self.arguments: list[str] = []
        self.arguments_done = False
        """Whether the event that says all of them was sent."""
        self.arguments_raw = b""
        """That event, which waits for the end of the item, because pieces may still come."""
        self.unsaid = ""
        """Altered: arguments that no piece has said, because the upstream says them only where they end."""
        self.call_id = ""
        self.name = ""
        self.changed = False
        self.cut = False
        """Whether a first part of it was closed as an item of its own."""

    @property
    def is_call(self) -> bool:
        return self.kind in ARGUMENTS or self.kind in _OBJECTS

    def new_part(self, form: PartForm, key: Key, raw: bytes = b"") -> Part:
        part = self.parts[key] = Part(form, raw)
        self.current = key
        return part

    def place_of(self, form: PartForm) -> Key:
        """Where text of a form goes that names no part: on with the last part, or into one after it."""
        if self.current is not None and self.parts[self.current].form is form:
            return self.current
        family = "summary" if form is SUMMARY else "content"
        return family, max((index for of, index in self.parts if of == family), default=-1) + 1

    def next_part_number(self, family: str) -> int:
        return sum(1 for (of, _), part in self.parts.items() if of == family and part.number is not None)

    def done_fields(self, given: Fields, status: str = "completed") -> Fields:
        """The item's JSON fields when it is done: `given` where they tell what was sent, else corrected."""
        fields = dict(given) if given else {"status": status, **self.template, "type": self.kind}
        if not given:
            fields["status"] = status
        if self.item_id and decoded(fields.get("id")) != self.item_id:
            fields["id"] = self.item_id
        if self.is_call:
            self._set_arguments(fields)
            return fields
        if self.kind == "message":
            fields.setdefault("role", "assistant")
        for family, name in (("content", "content"), ("summary", "summary")):
            parts = {index: part for (of, index), part in self.parts.items() if of == family}
            if parts or (not given and name == "content" and self.kind == "message"):
                before = decoded(fields.get(name))
                after = _texts(as_list(before), parts)
                if after != before:
                    fields[name] = after
        return fields

    def _set_arguments(self, fields: Fields) -> None:
        said = "".join(self.arguments)
        if self.kind in ARGUMENTS:
            name = ARGUMENTS[self.kind][0]
            if decoded(fields.get(name)) != said:
                fields[name] = said
        else:
            self._set_object(fields, said)
        self._set_call_id(fields)
        if self.name and (self.kind in ARGUMENTS or "name" in fields) and decoded(fields.get("name")) != self.name:
            fields["name"] = self.name

    def _set_call_id(self, fields: Fields) -> None:
        """Say the call's id, but not where the upstream has the item's id alone for it."""
        unsaid = "call_id" not in fields and decoded(self.template.get("id")) == self.call_id
        if self.call_id and not unsaid and decoded(fields.get("call_id")) != self.call_id:
            fields["call_id"] = self.call_id

    def _set_object(self, fields: Fields, said: str) -> None:
        first, second = _OBJECTS[self.kind]
        name = second if second in fields and first not in fields else first
        before = fields.get(name)
        if (before is None and not said) or (isinstance(before, Raw) and bytes(before) == said.encode("utf-8", "replace")):
            return
        given, problem = read(said.encode("utf-8", "replace") or b"{}", plain)
        if not isinstance(given, dict):
            raise illegal("arguments_are_object", f"the arguments of a {self.kind} are no JSON object: {problem or 'a value'}")
        if given != decoded(before):
            fields[name] = given

    def begun_fields(self) -> Fields:
        """The item's JSON fields when it begins, without content and arguments."""
        fields: Fields = {**self.template, "type": self.kind, "id": self.item_id, "status": "in_progress"}
        if self.kind == "message":
            return {**fields, "role": "assistant", "content": []}
        if self.kind in ARGUMENTS:
            fields.update({ARGUMENTS[self.kind][0]: "", "name": self.name})
            self._set_call_id(fields)
        elif self.kind in _OBJECTS:
            self._set_arguments(fields)
        elif self.kind == "reasoning":
            fields["summary"] = []
        return fields


def waits_for_arguments(kind: str, fields: Fields) -> bool:
    """Whether the beginning of a call holds arguments that may yet be changed."""
    if kind in _OBJECTS:
        return True
    return kind in ARGUMENTS and bool(as_text(decoded(fields.get(ARGUMENTS[kind][0]))))


def _texts(entries: list[Any], parts: dict[int, Part]) -> list[Any]:
    """The list of an item's parts with the texts that were sent, without those that were not."""
    sent: list[Any] = []
    numbers: list[int] = []
    for index in range(max(len(entries), max(parts, default=-1) + 1)):
        entry = as_object(entries[index]) if index < len(entries) else {}
        part = parts.get(index)
        if part is None:
            if entry and entry.get("type") not in FORM_OF_KIND:
                sent.append(entry)
                numbers.append(numbers[-1] if numbers else -1)
        elif part.number is not None:
            numbers.append(part.number)
            if entry.get("type") != part.form.kind:
                sent.append(part.form.part(part.text))
            else:
                sent.append(entry if entry.get(part.form.field) == part.text else corrected(entry, part))
    return [sent[at] for at in sorted(range(len(sent)), key=numbers.__getitem__)]


def corrected(entry: Fields, part: Part) -> Fields:
    """A part's JSON with the text that was sent; notes that point into the old text go."""
    fields = {**entry, part.form.field: part.text}
    for name in ("annotations", "logprobs"):
        if name in fields:
            fields[name] = []
    return fields


def raw_item(fields: Fields) -> Raw:
    return Raw(to_json(fields))


def item_of(fields: Fields) -> Fields:
    return fields_of(fields.get("item"))
