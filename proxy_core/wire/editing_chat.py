"""Whole answers of Chat Completions, legacy completions and Ollama with some of their blocks changed.

These keep text, reasoning and calls of a message in fields of their own, so text that takes a call's place joins the
message's content. What repeats the old text elsewhere (log probabilities, reasoning details, Ollama's context) goes.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

from proxy_core.wire.content_parts import function_call_block, part_block, thinking_text, tool_call_block
from proxy_core.wire.conversation import Block, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock
from proxy_core.wire.editing_blocks import Offers, Sorted, arguments_like, rewrite_call, sort_blocks, with_text
from proxy_core.wire.editing_json import (
    Fields,
    UnreadableBody,
    first_byte,
    json_of,
    open_items,
    open_object,
    parsed,
    text_of,
    value_of,
    word_of,
)
from proxy_core.wire.openai_chat_stream import details_text


class Form(Struct, frozen=True):
    """How a dialect writes a message."""

    content: str = "content"
    """The field of the visible text."""
    calls: bool = True
    """Whether it can carry calls."""
    object_arguments: bool = False
    null_content: bool = True
    """Whether a message of calls alone says `null` where its text would stand."""


CHAT = Form()
OLLAMA_CHAT = Form(object_arguments=True, null_content=False)
OLLAMA_GENERATE = Form(content="response", calls=False, null_content=False)
_THINKING_FIELDS = ("reasoning_content", "reasoning", "thinking")


def edit_chat_answer(fields: Fields, offers: Offers) -> None:
    """Edit the blocks of all choices in place; an error body has none. Raises UnreadableBody."""
    choices = fields.get("choices")
    if choices is None or first_byte(choices) != b"[":
        return
    before = offers.changed
    items = open_items(choices)
    for number, raw in enumerate(items):
        if first_byte(raw) == b"{":
            unchanged = offers.changed
            choice = open_object(raw)
            _edit_choice(choice, offers)
            if offers.changed != unchanged:
                items[number] = json_of(choice)
    if offers.changed != before:
        fields["choices"] = json_of(items)


def _edit_choice(choice: Fields, offers: Offers) -> None:
    before = offers.changed
    message = choice.get("message")
    if message is not None and first_byte(message) == b"{":
        inner = open_object(message)
        if edit_message(inner, offers, CHAT) and word_of(choice, "finish_reason") in ("tool_calls", "function_call"):
            choice["finish_reason"] = json_of("stop")
        if offers.changed != before:
            choice["message"] = json_of(inner)
    if word_of(choice, "text"):
        edit_message(choice, offers, Form(content="text", calls=False, null_content=False))
    if offers.changed != before and "logprobs" in choice:
        choice["logprobs"] = Raw(b"null")


def edit_ollama_answer(fields: Fields, offers: Offers) -> None:
    """Edit the blocks of an answer of chat or generate in place. Raises UnreadableBody."""
    before = offers.changed
    message = fields.get("message")
    if message is not None and first_byte(message) == b"{":
        inner = open_object(message)
        edit_message(inner, offers, OLLAMA_CHAT)
        if offers.changed != before:
            fields["message"] = json_of(inner)
    elif "response" in fields:
        edit_message(fields, offers, OLLAMA_GENERATE)
    if offers.changed != before:
        fields.pop("context", None)
        fields.pop("logprobs", None)


class _Added(Struct):
    """What leaves the place where it stood and joins the message elsewhere."""

    texts: list[str]
    calls: list[ToolCallBlock]

    def take(self, found: Sorted) -> None:
        self.texts += found.texts
        self.calls += found.calls


def edit_message(fields: Fields, offers: Offers, form: Form) -> bool:
    """Edit one message in place. Returns whether it had calls and lost them all. Raises UnreadableBody."""
    before = offers.changed
    added = _Added([], [])
    _edit_thinking(fields, offers, added)
    texts_before, added.texts = added.texts, []
    parts = _edit_content(fields, offers, added, form)
    if form.calls:
        _edit_opaque(fields, "refusal", offers, added)
    had = left = 0
    if form.calls:
        had, left = _edit_calls(fields, offers, added, form)
    if form.content == "content":
        _edit_opaque(fields, "audio", offers, added)
        _edit_images(fields, offers, added)
    if offers.changed == before:
        return False
    if added.calls:
        _add_calls(fields, added.calls, offers, form)
    _write_content(fields, texts_before, parts, added.texts, form)
    return had > 0 and left == 0 and not added.calls


# --- reasoning ---


def _edit_thinking(fields: Fields, offers: Offers, added: _Added) -> None:
    texts = {name: thinking_text(value_of(fields[name])) for name in _THINKING_FIELDS if name in fields}
    named = [name for name, text in texts.items() if text]
    details, signature = details_text(value_of(fields["reasoning_details"])) if "reasoning_details" in fields else ("", None)
    text = texts[named[0]] if named else details
    if not text and not signature:
        return
    block = ThinkingBlock(text, signature)
    given = offers.replacement(block)
    if given is None:
        return
    found = sort_blocks(given, block)
    added.take(found)
    if found.stays and not found.thinking:
        return
    fields.pop("reasoning_details", None)
    for name in named[1:] if found.thinking else named:
        del fields[name]
    if found.thinking:
        fields[named[0] if named else "reasoning"] = json_of("\n\n".join(one.text for one in found.thinking))


# --- visible text ---


class _Parts(Struct):
    """A message's content: texts, or items of a list as JSON."""

    texts: list[str]
    items: list[Raw] | None = None
    """None where the content is a string."""
    touched: bool = False


def _edit_content(fields: Fields, offers: Offers, added: _Added, form: Form) -> _Parts:
    raw = fields.get(form.content)
    first = b"n" if raw is None else first_byte(raw)
    if raw is None or first == b"n":
        return _Parts([])
    if first == b'"':
        text = text_of(raw)
        parts = _Parts([text] if text else [])
        given = offers.replacement(TextBlock(text, bytes(raw))) if text else None
        if given is not None:
            found = sort_blocks(given, TextBlock(text))
            parts.touched = True
            parts.texts = [one.text for one in given if isinstance(one, TextBlock)]
            _only(found, "text")
            added.calls += found.calls
        return parts
    raws = open_items(raw) if first == b"[" else [raw]
    parts = _Parts([], [])
    for item in raws:
        block = (
            parsed(lambda data: part_block(value_of(data), data), item) if first == b"[" else OpaqueBlock("content", bytes(item))
        )
        given = offers.replacement(block)
        if given is None:
            parts.items = [*(parts.items or []), item]
            continue
        parts.touched = True
        parts.items = [*(parts.items or []), *_replaced_part(item, block, given, added)]
    return parts


def _replaced_part(raw: Raw, block: Block, given: list[Block], added: _Added) -> list[Raw]:
    found = sort_blocks(given, block)
    _only(found, "content part", thinking=isinstance(block, ThinkingBlock))
    added.calls += found.calls
    items = [raw] if found.stays else []
    if isinstance(block, TextBlock):
        if found.texts and not found.stays:
            items.append(with_text(raw, found.texts[0]))
            found.texts.pop(0)
    elif isinstance(block, ThinkingBlock):
        items += [json_of({"type": "thinking", "thinking": [{"type": "text", "text": one.text}]}) for one in found.thinking]
    return items + [_text_part(text) for text in found.texts]


def _only(found: Sorted, what: str, *, thinking: bool = False) -> None:
    if found.thinking and not thinking:
        raise UnreadableBody(f"reasoning cannot take the place of a {what}")


def _text_part(text: str) -> Raw:
    return json_of({"type": "text", "text": text})


def _write_content(fields: Fields, before: list[str], parts: _Parts, after: list[str], form: Form) -> None:
    if not (parts.touched or before or after):
        return
    if parts.items is not None:
        items = [*(_text_part(text) for text in before), *parts.items, *(_text_part(text) for text in after)]
        if items:
            fields[form.content] = json_of(items)
            return
    text = "\n\n".join([*before, *parts.texts, *after])
    carries_calls = "tool_calls" in fields or "function_call" in fields
    fields[form.content] = json_of(None if not text and form.null_content and carries_calls else text)


# --- calls ---


def _edit_calls(fields: Fields, offers: Offers, added: _Added, form: Form) -> tuple[int, int]:
    """How many calls there were, and how many are left where they stood."""
    had = left = 0
    listed = fields.get("tool_calls")
    if listed is not None and first_byte(listed) == b"[":
        before = offers.changed
        kept: list[Raw] = []
        for raw in open_items(listed):
            block = parsed(tool_call_block, raw)
            given = offers.replacement(block)
            now = [raw] if given is None else _replaced_call(raw, block, given, added, form)
            had += isinstance(block, ToolCallBlock)
            left += len(now)
            kept += now
        if offers.changed != before:
            fields["tool_calls"] = json_of(kept)
            if not kept:
                del fields["tool_calls"]
    legacy = None if form.object_arguments else fields.get("function_call")
    call = None if legacy is None else parsed(lambda data: function_call_block(Raw(data)), legacy)
    if legacy is not None and isinstance(call, ToolCallBlock):
        had += 1
        left += _edit_legacy_call(fields, legacy, call, offers, added)
    return had, left


def _edit_legacy_call(fields: Fields, raw: Raw, call: ToolCallBlock, offers: Offers, added: _Added) -> bool:
    """Whether a call stays in `function_call`."""
    given = offers.replacement(call)
    if given is None:
        return True
    found = sort_blocks(given, call)
    _only(found, "call")
    added.texts += found.texts
    if found.calls and not found.stays:
        inner = open_object(raw)
        rewrite_call(inner, call, found.calls.pop(0), "arguments", as_object=False)
        fields["function_call"] = json_of(inner)
    elif not found.stays:
        del fields["function_call"]
    added.calls += found.calls
    return "function_call" in fields


def _replaced_call(raw: Raw, block: Block, given: list[Block], added: _Added, form: Form) -> list[Raw]:
    """What stays in the list of calls in a call's place."""
    found = sort_blocks(given, block)
    _only(found, "call")
    added.texts += found.texts
    kept = [raw] if found.stays else []
    if found.calls and isinstance(block, ToolCallBlock) and not found.stays:
        kept.append(_rewritten(raw, block, found.calls.pop(0), form))
    added.calls += found.calls
    return kept


def _rewritten(raw: Raw, old: ToolCallBlock, new: ToolCallBlock, form: Form) -> Raw:
    fields = open_object(raw)
    function = fields.get("function")
    kind, arguments = ("function", "arguments") if function is not None and first_byte(function) == b"{" else ("custom", "input")
    inner = open_object(fields[kind])
    rewrite_call(inner, old, new, arguments, as_object=form.object_arguments)
    fields[kind] = json_of(inner)
    if new.call_id != old.call_id:
        fields["id"] = json_of(new.call_id)
    return json_of(fields)


def _add_calls(fields: Fields, calls: list[ToolCallBlock], offers: Offers, form: Form) -> None:
    if not form.calls:
        raise UnreadableBody("this operation's answers cannot carry tool calls")
    listed = fields.get("tool_calls")
    items = open_items(listed) if listed is not None and first_byte(listed) == b"[" else []
    for call in calls:
        arguments = arguments_like(call.arguments, None, as_object=form.object_arguments)
        written: dict[str, Any] = {"function": {"name": call.name, "arguments": arguments}}
        if not form.object_arguments:
            written = {"id": call.call_id or offers.new_id("call"), "type": "function", **written}
        elif call.call_id:
            written = {"id": call.call_id, **written}
        items.append(json_of(written))
    fields["tool_calls"] = json_of(items)


# --- what is carried but not understood ---


def _edit_opaque(fields: Fields, name: str, offers: Offers, added: _Added) -> None:
    raw = fields.get(name)
    if raw is None or bytes(raw) in (b"null", b'""', b"false"):
        return
    block = OpaqueBlock(name, bytes(raw))
    given = offers.replacement(block)
    if given is not None:
        found = sort_blocks(given, block)
        _only(found, name)
        added.take(found)
        if not found.stays:
            fields[name] = Raw(b"null")


def _edit_images(fields: Fields, offers: Offers, added: _Added) -> None:
    raw = fields.get("images")
    if raw is None or first_byte(raw) != b"[":
        return
    before = offers.changed
    kept: list[Raw] = []
    for item in open_items(raw):
        block = parsed(lambda data: part_block(value_of(data), data), item)
        shown = OpaqueBlock("image", bytes(item)) if isinstance(block, TextBlock | ThinkingBlock) else block
        given = offers.replacement(shown)
        if given is None:
            kept.append(item)
            continue
        found = sort_blocks(given, shown)
        _only(found, "picture")
        added.take(found)
        if found.stays:
            kept.append(item)
    if offers.changed != before:
        fields["images"] = json_of(kept)
