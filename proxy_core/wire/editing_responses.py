"""Whole answers of the Responses API with some of their blocks changed.

Each block is an item of `output`, or a part of a message item. Text that takes a call's place becomes a message item
there; a message item that lost all its parts goes. The status stays.
"""

from __future__ import annotations

from msgspec import Raw

from proxy_core.wire.content_parts import content_blocks, part_block
from proxy_core.wire.conversation import Block, TextBlock, ThinkingBlock, ToolCallBlock
from proxy_core.wire.editing_blocks import Offers, rewrite_call, same, sort_blocks, with_text
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
from proxy_core.wire.responses_items import item_blocks

_ARGUMENTS = {
    "function_call": "arguments",
    "tool_search_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "computer_call": "action",
    "apply_patch_call": "operation",
}


def edit_responses_answer(fields: Fields, offers: Offers) -> None:
    """Edit the blocks of an answer in place; an error body has none. Raises UnreadableBody."""
    output = fields.get("output")
    if output is None or first_byte(output) != b"[":
        return
    before = offers.changed
    items = [new for raw in open_items(output) for new in _item(raw, offers)]
    if offers.changed == before:
        return
    fields["output"] = json_of(items)
    if "output_text" in fields and first_byte(fields["output_text"]) == b'"':
        fields["output_text"] = json_of("".join(_visible_text(raw) for raw in items))


def _item(raw: Raw, offers: Offers) -> list[Raw]:
    """What stands in an item's place."""
    if first_byte(raw) != b"{":
        return [raw]
    fields = open_object(raw)
    kind = word_of(fields, "type")
    if kind == "message" or (not kind and "role" in fields):
        return _message(raw, fields, offers)
    blocks = parsed(item_blocks, raw)
    if len(blocks) != 1:
        return [raw]
    block = blocks[0]
    given = offers.replacement(block)
    if given is None:
        return [raw]
    items: list[Raw] = []
    rewritten = False
    sort_blocks(given, block)
    for new in given:
        if same(new, block):
            items.append(raw)
        elif type(new) is type(block) and not rewritten:
            rewritten = True
            items.append(_rewritten(raw, kind, block, new))
        else:
            items.append(_written(new, offers))
    return items


def _rewritten(raw: Raw, kind: str, old: Block, new: Block) -> Raw:
    """The item with what is new in it; its other fields stay."""
    fields = open_object(raw)
    if isinstance(old, ToolCallBlock) and isinstance(new, ToolCallBlock):
        if kind not in ("function_call", "custom_tool_call") and new.name != old.name:
            raise UnreadableBody(f"a {kind} cannot be given another name")
        rewrite_call(
            fields, old, new, _arguments_field(fields, kind), as_object=kind not in ("function_call", "custom_tool_call")
        )
        if new.call_id != old.call_id:
            fields["call_id"] = json_of(new.call_id)
    elif isinstance(new, ThinkingBlock):
        content = fields.get("content")
        summary = fields.get("summary")
        open_reasoning = content is not None and bytes(content) not in (b"null", b"[]")
        if open_reasoning and (summary is None or bytes(summary) in (b"null", b"[]")):
            fields["content"] = json_of([{"type": "reasoning_text", "text": new.text}] if new.text else [])
        else:
            fields["summary"] = json_of([{"type": "summary_text", "text": new.text}] if new.text else [])
            if open_reasoning:
                fields["content"] = Raw(b"[]")
        if new.signature is None:
            fields.pop("encrypted_content", None)
        else:
            fields["encrypted_content"] = json_of(new.signature)
    else:
        raise UnreadableBody(f"a {kind} item cannot be changed")
    return json_of(fields)


def _arguments_field(fields: Fields, kind: str) -> str:
    name = _ARGUMENTS[kind]
    return "operation" if name == "action" and name not in fields and "operation" in fields else name


def _written(block: Block, offers: Offers) -> Raw:
    if isinstance(block, TextBlock):
        part = {"type": "output_text", "text": block.text, "annotations": []}
        item = {"type": "message", "id": offers.new_id("msg"), "status": "completed", "role": "assistant", "content": [part]}
        return json_of(item)
    if isinstance(block, ToolCallBlock):
        number = offers.new_id("fc")
        item = {"type": "function_call", "id": number, "call_id": block.call_id or f"call_{number}", "name": block.name}
        return json_of({**item, "arguments": block.arguments, "status": "completed"})
    if isinstance(block, ThinkingBlock):
        summary = [{"type": "summary_text", "text": block.text}]
        return json_of({"type": "reasoning", "id": offers.new_id("rs"), "summary": summary})
    raise UnreadableBody(f"an answer cannot be given a {type(block).__name__}")


# --- message items ---


def _message(raw: Raw, fields: Fields, offers: Offers) -> list[Raw]:
    """A message item with its parts edited, then the calls that took the place of some."""
    content = fields.get("content")
    if content is None:
        return [raw]
    before = offers.changed
    behind: list[Raw] = []
    if first_byte(content) == b"[":
        parts = [new for part in open_items(content) for new in _part(part, offers, behind)]
    else:
        blocks = parsed(lambda data: content_blocks(Raw(data)), content)
        parts = [new for _ in blocks for new in _part(content, offers, behind)]
    if offers.changed == before:
        return [raw]
    if not parts:
        return behind
    if first_byte(content) == b'"' and len(parts) == 1 and first_byte(parts[0]) == b'"':
        fields["content"] = parts[0]
    else:
        fields["content"] = json_of([_as_part(part) for part in parts])
    return [json_of(fields), *behind]


def _part(raw: Raw, offers: Offers, behind: list[Raw]) -> list[Raw]:
    """What stands in a part's place; calls go to `behind`."""
    block = parsed(lambda data: part_block(value_of(data), data), raw)
    given = offers.replacement(block)
    if given is None:
        return [raw]
    found = sort_blocks(given, block)
    behind += [_written(call, offers) for call in found.calls]
    if found.thinking:
        raise UnreadableBody("reasoning cannot take the place of a message's part")
    parts: list[Raw] = []
    rewritten = False
    for new in given:
        if same(new, block):
            parts.append(raw)
        elif isinstance(new, TextBlock):
            fresh = rewritten or found.stays or not isinstance(block, TextBlock)
            parts.append(_text_part(new.text) if fresh else with_text(raw, new.text))
            rewritten = True
    return parts


def _text_part(text: str) -> Raw:
    return json_of({"type": "output_text", "text": text, "annotations": []})


def _as_part(raw: Raw) -> Raw:
    return _text_part(text_of(raw)) if first_byte(raw) == b'"' else raw


def _visible_text(raw: Raw) -> str:
    """The text of a message item; empty for other items."""
    if first_byte(raw) != b"{" or word_of(open_object(raw), "type") != "message":
        return ""
    return "".join(block.text for block in parsed(item_blocks, raw) if isinstance(block, TextBlock))
