"""Whole answers of the Messages API with some of their blocks changed.

Text that takes a call's place goes before the calls that remain, for no text may follow a call that did not before.
"""

from __future__ import annotations

from msgspec import Raw, Struct

from proxy_core.wire.anthropic_messages import CODEC
from proxy_core.wire.conversation import Block, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock
from proxy_core.wire.editing_blocks import Offers, rewrite_call, same, with_text
from proxy_core.wire.editing_json import (
    Fields,
    UnreadableBody,
    first_byte,
    json_from,
    json_of,
    open_items,
    open_object,
    word_of,
)


def edit_messages_answer(fields: Fields, offers: Offers) -> None:
    """Edit the blocks of an answer in place; an error body has none. Raises UnreadableBody."""
    content = fields.get("content")
    if content is None or first_byte(content) != b"[":
        return
    raws = open_items(content)
    blocks = _blocks(content, len(raws))
    before = offers.changed
    placed = [one for raw, block in zip(raws, blocks, strict=True) for one in _replaced(raw, block, offers)]
    if offers.changed == before:
        return
    items = [one.raw for one in placed]
    first_call = next((n for n, one in enumerate(placed) if isinstance(one.block, ToolCallBlock) and not one.added), len(placed))
    early = [one.raw for one in placed[first_call:] if one.added and isinstance(one.block, TextBlock)]
    late = [one.raw for one in placed if one.added and isinstance(one.block, ToolCallBlock)]
    moved = {id(raw) for raw in early + late}
    head = [raw for raw in items[:first_call] if id(raw) not in moved]
    tail = [raw for raw in items[first_call:] if id(raw) not in moved]
    fields["content"] = json_of(head + early + tail + late)
    had_calls = any(isinstance(block, ToolCallBlock) for block in blocks)
    has_calls = any(isinstance(one.block, ToolCallBlock) for one in placed)
    if had_calls and not has_calls and word_of(fields, "stop_reason") == "tool_use":
        fields["stop_reason"] = json_of("end_turn")


class _Placed(Struct, frozen=True):
    """A block as it stands in the new answer."""

    block: Block
    raw: Raw
    added: bool = False
    """Whether it is text where no text was, or a call where no call was."""


def _blocks(content: Raw, count: int) -> tuple[Block, ...]:
    answer = CODEC.read_response(b'{"content":' + bytes(content) + b"}")
    if answer.problem is not None or len(answer.blocks) != count:
        raise UnreadableBody(answer.problem or "the content cannot be read")
    return answer.blocks


def _replaced(raw: Raw, block: Block, offers: Offers) -> list[_Placed]:
    """What stands in a block's place."""
    given = offers.replacement(block)
    if given is None:
        return [_Placed(block, raw)]
    rewritten = False
    placed: list[_Placed] = []
    for new in given:
        if same(new, block):
            placed.append(_Placed(new, raw))
        elif type(new) is type(block) and not rewritten:
            rewritten = True
            placed.append(_Placed(new, _rewrite(raw, block, new)))
        else:
            added = isinstance(new, TextBlock | ToolCallBlock) and type(new) is not type(block)
            placed.append(_Placed(new, _write(new, offers), added))
    return placed


def _rewrite(raw: Raw, old: Block, new: Block) -> Raw:
    """The block with what is new in it; its other fields stay."""
    if isinstance(new, TextBlock):
        return with_text(raw, new.text)
    fields = open_object(raw)
    if isinstance(new, ToolCallBlock) and isinstance(old, ToolCallBlock):
        rewrite_call(fields, old, new, "input", as_object=True)
        if new.call_id != old.call_id:
            fields["id"] = json_of(new.call_id)
        return json_of(fields)
    if isinstance(new, ThinkingBlock):
        fields["thinking"] = json_of(new.text)
        if new.signature is None:
            fields.pop("signature", None)
        else:
            fields["signature"] = json_of(new.signature)
        return json_of(fields)
    raise UnreadableBody(f"a {type(new).__name__} cannot be changed")


def _write(block: Block, offers: Offers) -> Raw:
    if isinstance(block, TextBlock):
        return json_of({"type": "text", "text": block.text})
    if isinstance(block, ToolCallBlock):
        arguments = json_from(block.arguments or "{}", b"{")
        call_id = block.call_id or offers.new_id("toolu")
        return json_of({"type": "tool_use", "id": call_id, "name": block.name, "input": arguments})
    if isinstance(block, ThinkingBlock):
        return json_of({"type": "thinking", "thinking": block.text, "signature": block.signature or ""})
    if isinstance(block, OpaqueBlock):
        return json_of(open_object(block.raw))
    raise UnreadableBody(f"an answer cannot be given a {type(block).__name__}")
