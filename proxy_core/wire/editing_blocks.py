"""Blocks of an answer offered to an edit, and blocks written as JSON in the shapes that dialects share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Raw, Struct, structs

from proxy_core.wire.conversation import Block, ImageBlock, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock
from proxy_core.wire.editing_json import Fields, UnreadableBody, first_byte, json_from, json_of, open_object

BlockEdit: TypeAlias = Callable[[Block], Sequence[Block] | None]


class Offers:
    """Gives blocks to an edit and counts what it changed."""

    def __init__(self, edit: BlockEdit, answer_id: str = "") -> None:
        self._edit = edit
        self._mark = re.sub(r"[^A-Za-z0-9]", "", answer_id)[-24:] or "inserted"
        self._made = 0
        self.changed = 0

    def replacement(self, block: Block) -> list[Block] | None:
        """What stands in the block's place, empty text left out; None where the block stays as it is."""
        given = self._edit(block)
        if given is None or (len(given) == 1 and same(given[0], block)):
            return None
        self.changed += 1
        return [one for one in given if not (isinstance(one, TextBlock) and not one.text)]

    def new_id(self, prefix: str) -> str:
        """An id for something that no upstream named: one of its own in every answer, for a history may hold several."""
        self._made += 1
        return f"{prefix}_{self._mark}_{self._made}"


def same(one: Block, other: Block) -> bool:
    """Whether two blocks say the same; their raw bytes count only where nothing else says what they are."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, OpaqueBlock | ImageBlock):
        return one == other
    return structs.replace(one, raw=b"") == structs.replace(other, raw=b"")


class Sorted(Struct, frozen=True):
    """A replacement by what it is made of."""

    texts: list[str]
    calls: list[ToolCallBlock]
    thinking: list[ThinkingBlock]
    stays: bool
    """Whether the original is among it."""


def sort_blocks(blocks: list[Block], original: Block) -> Sorted:
    """Raises UnreadableBody for blocks that an answer cannot be given."""
    found = Sorted([], [], [], any(same(block, original) for block in blocks))
    for block in blocks:
        if same(block, original):
            continue
        if isinstance(block, TextBlock):
            found.texts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            found.calls.append(block)
        elif isinstance(block, ThinkingBlock):
            found.thinking.append(block)
        else:
            raise UnreadableBody(f"an answer cannot be given a {type(block).__name__} that was not in it")
    return found


def arguments_like(arguments: str, old: Raw | None, *, as_object: bool) -> Raw:
    """Arguments in the form in which they stood, or where none stood, as a string or as an object."""
    first = b"" if old is None else first_byte(old)
    if first in (b"{", b"["):
        return json_from(arguments, first)
    if first != b'"' and as_object:
        return json_from(arguments or "{}", b"{")
    return json_of(arguments)


def rewrite_call(fields: Fields, old: ToolCallBlock, new: ToolCallBlock, arguments: str, *, as_object: bool) -> None:
    """Put a changed name and changed arguments (under the key `arguments`) where the old ones stood."""
    if new.name != old.name:
        fields["name"] = json_of(new.name)
    if new.arguments != old.arguments:
        fields[arguments] = arguments_like(new.arguments, fields.get(arguments), as_object=as_object)


def with_text(raw: Raw, text: str) -> Raw:
    """A text part with another text; log probabilities of the old one are dropped."""
    if first_byte(raw) != b"{":
        return json_of(text)
    fields = open_object(raw)
    fields["text"] = json_of(text)
    if "logprobs" in fields:
        fields["logprobs"] = Raw(b"[]")
    return json_of(fields)
