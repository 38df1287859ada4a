"""What policies changed: the difference between two forms of a request, or of a response, in the words of the canonical form.

Both sides are read by the dialect's codec and compared as messages, blocks, tools and fields, so a stream that was cut into
other chunks does not differ, and one whose text was changed differs in that text. What no codec reads is compared as JSON,
else as text. Pure and bounded: at most MAX_CHANGES, long values cut around the place where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import (
    Answer,
    Block,
    Conversation,
    ImageBlock,
    Message,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolDefinition,
    ToolResultBlock,
)
from proxy_core.wire.dialects import Operation
from proxy_core.wire.tolerant_json import UNREADABLE, encode, plain

MAX_CHANGES = 500
MAX_VALUE = 4_000
"""Characters of a value that are shown; of a longer one the part that differs."""
CONTEXT = 200
"""Characters shown on either side of what differs in a long value."""
MAX_ALIGNED = 300
"""Longer stretches of unlike items are compared one by one, not aligned."""
ALIGNING_BUDGET = 1_000_000
"""Pairs of items that one diff may align; what is left is compared one by one."""
MAX_DEPTH = 30
_MISSING: Any = object()
_READ_FIELDS = frozenset({"model", "messages", "system", "input", "instructions", "prompt", "tools"})
"""Top-level fields of requests that a codec reads into the canonical form."""
_ANSWER_FIELDS = frozenset(
    {"model", "id", "content", "choices", "output", "message", "response", "thinking", "stop_reason", "done_reason", "usage"}
)

Kind = Literal["added", "removed", "changed"]
Item = TypeVar("Item")


class Change(Struct, frozen=True):
    """One thing that differs."""

    path: str
    """Such as `messages[2].content[0].text`, `tools.bash`, `temperature`, `content[1].arguments`, `stop_reason`."""
    kind: Kind
    before: str | None
    """Text, or the JSON of anything else; None where it was added."""
    after: str | None
    """None where it was removed."""
    cut: bool = False
    """Whether a value is too long to be shown whole."""


class Diff(Struct, frozen=True):
    """All that differs, in the order of the body."""

    changes: tuple[Change, ...] = ()
    truncated: bool = False
    """Whether there was more than MAX_CHANGES."""

    def __bool__(self) -> bool:
        return bool(self.changes)


def diff_request(operation: Operation, before: bytes, after: bytes) -> Diff:
    """What differs between two forms of a request body."""
    found = _Changes()
    if before == after:
        return found.diff()
    codec = codec_for(operation)
    one = codec.read_request(before) if codec is not None else Conversation(problem="unread")
    other = codec.read_request(after) if codec is not None else one
    if one.problem is not None or other.problem is not None:
        _unread(found, before, after)
        return found.diff()
    found.values("model", one.model, other.model)
    _messages(found, one.messages, other.messages)
    _tools(found, one.tools, other.tools)
    _other_fields(found, before, after, _READ_FIELDS)
    if not found.changes:
        _unread(found, before, after)
    return found.diff()


def diff_response(operation: Operation, before: bytes, after: bytes) -> Diff:
    """What differs between two forms of a response body, streamed or not, each without its content encoding."""
    found = _Changes()
    if before == after:
        return found.diff()
    one, other = _answer(operation, before), _answer(operation, after)
    if one is None or other is None:
        _unread(found, before, after)
        return found.diff()
    _blocks(found, "content", one.blocks, other.blocks)
    found.values("stop_reason", one.stop_reason, other.stop_reason)
    found.values("error", _json(one.error), _json(other.error))
    found.values("model", one.model, other.model)
    found.values("id", one.response_id, other.response_id)
    found.values("usage", _json(one.usage), _json(other.usage))
    if not _is_stream(before) and not _is_stream(after):
        _other_fields(found, before, after, _ANSWER_FIELDS)
        if not found.changes:
            _unread(found, before, after)
    elif one.complete != other.complete:
        found.values("complete", _json(one.complete), _json(other.complete))
    return found.diff()


# --- reading ---


def _answer(operation: Operation, body: bytes) -> Answer | None:
    """The answer in a body, as a stream where it looks like one; None where nobody can read it."""
    codec = codec_for(operation)
    if codec is None:
        return None
    if not _is_stream(body):
        answer = codec.read_response(body)
        return None if answer.problem is not None and not answer.blocks and answer.error is None else answer
    decoder = codec.stream_decoder()
    decoder.feed(body)
    return decoder.finish()


def _is_stream(body: bytes) -> bool:
    """Whether a body is SSE or NDJSON: a policy may answer in another form than the upstream did, so the body itself tells."""
    head = body[:4_096].lstrip()
    if head.startswith((b"data:", b"event:", b":", b"id:", b"retry:")):
        return True
    if not head.startswith(b"{"):
        return False
    lines = [line for line in body[:1_000_000].split(b"\n", 3)[:2] if line.strip()]
    return len(lines) > 1 and all(line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}") for line in lines)


def _value(body: bytes) -> Any:
    try:
        return plain(body)
    except UNREADABLE:
        return _MISSING


def _json(value: Any) -> str | None:
    return None if value is None else encode(value).decode("utf-8", "replace")


# --- comparing ---


class _Changes:
    """What was found so far."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.truncated = False
        self.aligning = ALIGNING_BUDGET

    def diff(self) -> Diff:
        return Diff(tuple(self.changes), self.truncated)

    def values(self, path: str, before: str | None, after: str | None) -> None:
        """Note a value that may differ."""
        if before == after:
            return
        if len(self.changes) >= MAX_CHANGES:
            self.truncated = True
            return
        kind: Kind = "added" if before is None else "removed" if after is None else "changed"
        shown_before, shown_after, cut = _excerpts(before, after)
        self.changes.append(Change(path, kind, shown_before, shown_after, cut))


def _excerpts(before: str | None, after: str | None) -> tuple[str | None, str | None, bool]:
    if max(len(before or ""), len(after or "")) <= MAX_VALUE:
        return before, after, False
    start = 0
    if before is not None and after is not None:
        start = max(0, common_start(before, after) - CONTEXT)
    return _window(before, start), _window(after, start), True


def _window(text: str | None, start: int) -> str | None:
    if text is None:
        return None
    piece = text[start : start + MAX_VALUE]
    return ("…" if start else "") + piece + ("…" if start + MAX_VALUE < len(text) else "")


def common_start(one: str | list[str], other: str | list[str]) -> int:
    """Length of the common beginning of two texts or lists, by halves: comparing slices is quick."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _pairs(
    found: _Changes, before: Sequence[Item], after: Sequence[Item], key: Callable[[Item], Any]
) -> list[tuple[int | None, int | None]]:
    """Which items of two lists stand for each other, by position; equal ones are left out. None: it has no counterpart."""
    keys_before, keys_after = [key(one) for one in before], [key(one) for one in after]
    start, end_before, end_after = 0, len(keys_before), len(keys_after)
    while start < min(end_before, end_after) and keys_before[start] == keys_after[start]:
        start += 1
    while end_before > start and end_after > start and keys_before[end_before - 1] == keys_after[end_after - 1]:
        end_before, end_after = end_before - 1, end_after - 1
    found.aligning -= (end_before - start) * (end_after - start)
    if max(end_before, end_after) - start > MAX_ALIGNED or found.aligning < 0:
        return _by_position(start, end_before, start, end_after)
    matcher = SequenceMatcher(None, keys_before[start:end_before], keys_after[start:end_after], autojunk=False)
    pairs: list[tuple[int | None, int | None]] = []
    for tag, b1, b2, a1, a2 in matcher.get_opcodes():
        if tag != "equal":
            pairs += _by_position(start + b1, start + b2, start + a1, start + a2)
    return pairs


def _by_position(b1: int, b2: int, a1: int, a2: int) -> list[tuple[int | None, int | None]]:
    common = min(b2 - b1, a2 - a1)
    both: list[tuple[int | None, int | None]] = [(b1 + i, a1 + i) for i in range(common)]
    return both + [(i, None) for i in range(b1 + common, b2)] + [(None, i) for i in range(a1 + common, a2)]


def _messages(found: _Changes, before: Sequence[Message], after: Sequence[Message]) -> None:
    for b, a in _pairs(found, before, after, lambda one: one.raw or one):
        if b is None or a is None:
            path = f"messages[{b if a is None else a}]"
            found.values(path, None if b is None else _message_text(before[b]), None if a is None else _message_text(after[a]))
            continue
        path, seen = f"messages[{a}]", len(found.changes)
        found.values(f"{path}.role", before[b].role, after[a].role)
        _blocks(found, f"{path}.content", before[b].blocks, after[a].blocks)
        if len(found.changes) == seen and not found.truncated:
            _raw_values(found, path, before[b].raw, after[a].raw)


def _message_text(message: Message) -> str:
    return f"{message.role}: " + "\n".join(_block_text(block) for block in message.blocks)


def _blocks(found: _Changes, path: str, before: Sequence[Block], after: Sequence[Block]) -> None:
    for b, a in _pairs(found, before, after, _block_key):
        one, other = (None if b is None else before[b]), (None if a is None else after[a])
        if one is not None and other is not None and type(one) is type(other):
            _block(found, f"{path}[{a}]", one, other)
        else:
            if one is not None:
                found.values(f"{path}[{b}]", _block_text(one), None)
            if other is not None:
                found.values(f"{path}[{a}]", None, _block_text(other))


def _block(found: _Changes, path: str, before: Block, after: Block) -> None:
    """Two blocks of one kind that differ."""
    if isinstance(before, OpaqueBlock | ImageBlock) or isinstance(after, OpaqueBlock | ImageBlock):
        found.values(path, _block_text(before), _block_text(after))
        return
    for field in before.__struct_fields__:
        if field == "raw":
            continue
        one, other = getattr(before, field), getattr(after, field)
        if one != other and not (field == "arguments" and _same_json(one, other)):
            found.values(f"{path}.{field}", *(x if isinstance(x, str) else _json(x) for x in (one, other)))


def _block_key(block: Block) -> tuple[Any, ...]:
    """What makes two blocks the same: all that a reader sees of them, and the bytes only where nothing else is known."""
    if isinstance(block, OpaqueBlock | ImageBlock):
        return (type(block).__name__, _canonical(block.raw))
    fields = [getattr(block, field) for field in block.__struct_fields__ if field != "raw"]
    if isinstance(block, ToolCallBlock):
        fields[-1] = _canonical(block.arguments.encode("utf-8", "replace"))
    return (type(block).__name__, *fields)


def _canonical(raw: bytes) -> bytes:
    """One form for all ways to write a JSON value; anything else as it is."""
    value = _value(raw)
    if value is _MISSING:
        return raw
    try:
        return msgspec.json.encode(value, order="sorted")
    except (*UNREADABLE, TypeError):
        return raw


def _same_json(one: str, other: str) -> bool:
    return _canonical(one.encode("utf-8", "replace")) == _canonical(other.encode("utf-8", "replace"))


def _block_text(block: Block) -> str:
    match block:
        case TextBlock(text=text) | ThinkingBlock(text=text):
            return text
        case ToolCallBlock(name=name, arguments=arguments):
            return f"{name}({arguments})"
        case ToolResultBlock(content=content):
            return content
        case _:
            return block.raw.decode("utf-8", "replace") or block.kind


def _tools(found: _Changes, before: Sequence[ToolDefinition], after: Sequence[ToolDefinition]) -> None:
    names_before = {tool.name: tool for tool in before}
    names_after = {tool.name: tool for tool in after}
    for name in dict.fromkeys([*names_before, *names_after]):
        one, other = names_before.get(name), names_after.get(name)
        path = f"tools.{name}"
        if one is not None and other is not None:
            _raw_values(found, path, one.raw, other.raw)
        else:
            found.values(path, _raw_text(one.raw) if one else None, _raw_text(other.raw) if other else None)


def _raw_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _raw_values(found: _Changes, path: str, before: bytes, after: bytes) -> None:
    one, other = _value(before), _value(after)
    if one is _MISSING or other is _MISSING:
        found.values(path, _raw_text(before), _raw_text(after))
    else:
        _json_values(found, path, one, other, 0)


def _other_fields(found: _Changes, before: bytes, after: bytes, known: frozenset[str]) -> None:
    """Top-level fields beside those that the canonical form has."""
    one, other = _value(before), _value(after)
    if not isinstance(one, dict) or not isinstance(other, dict):
        return
    for name in dict.fromkeys([*one, *other]):
        if name not in known:
            _json_values(found, name, one.get(name, _MISSING), other.get(name, _MISSING), 0)


def _unread(found: _Changes, before: bytes, after: bytes) -> None:
    """Bodies without a canonical form, or that differ outside of it."""
    one, other = _value(before), _value(after)
    if one is _MISSING or other is _MISSING:
        found.values("body", _raw_text(before), _raw_text(after))
    else:
        _json_values(found, "", one, other, 0)


def _json_values(found: _Changes, path: str, one: Any, other: Any, depth: int) -> None:
    if found.truncated or (type(one) is type(other) and not isinstance(one, dict | list) and one == other):
        return
    if depth < MAX_DEPTH and isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys([*one, *other]):
            inner = f"{path}.{name}" if path else str(name)
            _json_values(found, inner, one.get(name, _MISSING), other.get(name, _MISSING), depth + 1)
    elif depth < MAX_DEPTH and isinstance(one, list) and isinstance(other, list):
        for b, a in _pairs(found, one, other, _item_key):
            inner = f"{path}[{b if a is None else a}]"
            _json_values(found, inner, _MISSING if b is None else one[b], _MISSING if a is None else other[a], depth + 1)
    else:
        found.values(path or "body", _shown(one), _shown(other))


def _item_key(value: Any) -> Any:
    try:
        return msgspec.json.encode(value, order="sorted")
    except (*UNREADABLE, TypeError):
        return repr(value)


def _shown(value: Any) -> str | None:
    if value is _MISSING:
        return None
    return value if isinstance(value, str) else encode(value).decode("utf-8", "replace")
