"""The texts of a request, in wire order, and the request with some of them changed.

One walk serves all dialects, because the same words mean the same in each: `content`, `text`, `arguments`, … A text
that stands where no known field leads (tool definitions, metadata, encrypted and signed reasoning) is not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Raw, Struct

from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_json import (
    Fields,
    UnreadableBody,
    first_byte,
    json_from,
    json_of,
    json_text,
    open_items,
    open_object,
    text_of,
    word_of,
)

TextKind: TypeAlias = Literal["text", "thinking", "tool_result", "tool_arguments"]


class TextPart(Struct, frozen=True):
    """One text of a request."""

    role: str
    """`system`, `developer`, `user`, `assistant`, `tool`, or the wire's own word."""
    kind: TextKind
    """`thinking` is reasoning without a signature; signed reasoning is never offered."""
    text: str
    """Never empty. Of `tool_arguments`: the JSON text, or the free text of a custom tool."""
    message: int
    """Number of the message in the history, from 0; -1 for what stands outside it, as a system prompt."""
    last_user: bool = False
    """Whether it belongs to the last message that a user wrote, tool results not counted."""


Edit: TypeAlias = Callable[[TextPart], str | None]
_Rule: TypeAlias = Callable[["_Walk", Raw, TextKind], Raw | None]
_MAX_DEPTH = 12


class _Walk:
    """Where the walk stands, and how much it changed."""

    def __init__(self, edit: Edit) -> None:
        self.edit = edit
        self.changed = 0
        self.role = "system"
        self.message = -1
        self.last_user = False
        self.depth = 0

    def offer(self, text: str, kind: TextKind) -> str | None:
        """The new text, or None where it stays."""
        if not text:
            return None
        last_user = self.last_user and kind == "text"
        new = self.edit(TextPart(self.role, kind, text, self.message, last_user))
        if new is None or new == text:
            return None
        self.changed += 1
        return new

    def members(self, fields: Fields, rules: dict[str, _Rule], kind: TextKind) -> Raw | None:
        """Apply `rules` to the members in their order; None where nothing changed."""
        before = self.changed
        for name, raw in fields.items():
            rule = rules.get(name)
            if rule is not None:
                new = rule(self, raw, kind)
                if new is not None:
                    fields[name] = new
        return json_of(fields) if self.changed != before else None

    def each(self, raw: Raw, rule: _Rule, kind: TextKind) -> Raw | None:
        """Apply `rule` to the items of an array; None where nothing changed."""
        before = self.changed
        items = open_items(raw)
        for number, item in enumerate(items):
            new = rule(self, item, kind)
            if new is not None:
                items[number] = new
        return json_of(items) if self.changed != before else None


def edit_request_texts(operation: Operation, body: bytes, edit: Edit) -> tuple[bytes, int]:
    """Give every text of the request to `edit`; its answer is the new text, or None to leave it.

    Returns the body (the same object where nothing changed) and how many texts changed. An operation whose bodies
    nobody reads offers nothing. Raises UnreadableBody, and what `edit` raises.
    """
    rules = _REQUESTS.get(operation)
    if rules is None:
        return body, 0
    walk = _Walk(edit)
    new = walk.members(open_object(body, rules), rules, "text")
    return (body if new is None else bytes(new)), walk.changed


# --- what a text can stand in ---


def _text(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    if first_byte(raw) != b'"':
        return None
    new = walk.offer(text_of(raw), kind)
    return None if new is None else json_of(new)


def _arguments(walk: _Walk, raw: Raw, _: TextKind) -> Raw | None:
    """Arguments as a string of JSON, or as JSON itself."""
    first = first_byte(raw)
    if first == b'"':
        return _text(walk, raw, "tool_arguments")
    if first not in (b"{", b"["):
        return None
    new = walk.offer(json_text(raw), "tool_arguments")
    return None if new is None else json_from(new, first)


def _content(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """A string, a part, or a list of them."""
    first = first_byte(raw)
    if first == b'"':
        return _text(walk, raw, kind)
    if first not in (b"[", b"{"):
        return None
    if walk.depth >= _MAX_DEPTH:
        raise UnreadableBody("the content is nested too deeply")
    walk.depth += 1
    try:
        return walk.each(raw, _content, kind) if first == b"[" else _part(walk, raw, kind)
    finally:
        walk.depth -= 1


def _source(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """What a document is made of; its text only where it is given as text."""
    if first_byte(raw) != b"{":
        return None
    fields = open_object(raw, _SOURCE_FIELDS)
    shape = word_of(fields, "type")
    if shape == "text":
        return walk.members(fields, {"data": _text}, kind)
    return walk.members(fields, {"content": _content}, kind) if shape == "content" else None


_SOURCE_FIELDS = frozenset({"type", "data", "content"})


def _tool_call(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """One item of `tool_calls`."""
    return walk.members(open_object(raw, _CALL), _CALL, kind) if first_byte(raw) == b"{" else None


def _function(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """What an item of `tool_calls` calls; a legacy `function_call`."""
    return walk.members(open_object(raw, _FUNCTION), _FUNCTION, kind) if first_byte(raw) == b"{" else None


def _results(walk: _Walk, raw: Raw, _: TextKind) -> Raw | None:
    return _content(walk, raw, "tool_result")


def _tool_calls(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    return walk.each(raw, _tool_call, kind) if first_byte(raw) == b"[" else None


def _part(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """A content part, block or item that is an object."""
    fields = open_object(raw, _KNOWN)
    shape = word_of(fields, "type")
    if shape.endswith(("_result", "_output", "_approval_response")):
        kind = "tool_result"
    elif shape in _REASONING:
        if shape == "redacted_thinking" or _signed(fields):
            return None
        kind = "thinking"
    return walk.members(fields, _PART, kind)


def _signed(fields: Fields) -> bool:
    return any(first_byte(fields[name]) not in (b"n", b"") for name in _SIGNATURES if name in fields)


_FUNCTION: dict[str, _Rule] = {"arguments": _arguments, "input": _arguments}
_CALL: dict[str, _Rule] = {"function": _function, "custom": _function}
_REASONING = frozenset({"thinking", "reasoning", "redacted_thinking"})
_SIGNATURES = ("signature", "encrypted_content", "reasoning_details")
_PART: dict[str, _Rule] = {
    **dict.fromkeys(("text", "refusal", "title", "context", "stdout", "stderr", "logs"), _text),
    **dict.fromkeys(("content", "summary", "thinking"), _content),
    **dict.fromkeys(("output", "outputs", "results"), _results),
    **dict.fromkeys(("arguments", "input", "action", "operation", "code"), _arguments),
    "source": _source,
}


def _reasoning(walk: _Walk, raw: Raw, _: TextKind) -> Raw | None:
    return _content(walk, raw, "thinking")


_MESSAGE: dict[str, _Rule] = {
    **_PART,
    "thinking": _reasoning,
    "reasoning_content": _reasoning,
    "reasoning": _reasoning,
    "tool_calls": _tool_calls,
    "function_call": _function,
}
_SIGNED_MESSAGE = {name: rule for name, rule in _MESSAGE.items() if rule is not _reasoning}
_KNOWN = frozenset({*_MESSAGE, *_SIGNATURES, "role", "type"})


# --- where messages stand ---


def _message(walk: _Walk, raw: Raw, _: TextKind) -> Raw | None:
    """One message, or item, of the history."""
    fields = open_object(raw, _KNOWN)
    shape = word_of(fields, "type")
    walk.role = word_of(fields, "role") or _role_of(shape)
    if shape in _REASONING or (not word_of(fields, "role") and shape):
        return _part(walk, raw, "text")
    kind: TextKind = "tool_result" if walk.role in ("tool", "function") else "text"
    return walk.members(fields, _SIGNED_MESSAGE if _signed(fields) else _MESSAGE, kind)


def _role_of(shape: str) -> str:
    """Who an item is from that does not say so."""
    if shape.endswith(("_output", "_approval_response")):
        return "tool"
    return "assistant" if shape in _REASONING or shape.endswith("_call") else shape


def _user_wrote(raw: Raw) -> bool:
    """Whether a message is a user's, and more than tool results."""
    fields = open_object(raw, _KNOWN)
    if word_of(fields, "role") != "user" or "content" not in fields:
        return False
    content = fields["content"]
    if first_byte(content) != b"[":
        return True
    parts = open_items(content)
    return any(first_byte(part) != b"{" or word_of(open_object(part), "type") != "tool_result" for part in parts)


def _history(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    first = first_byte(raw)
    if first == b"n":
        return None
    if first != b"[":
        raise UnreadableBody("the history is not a list of messages")
    before = walk.changed
    items = open_items(raw)
    if any(first_byte(item) != b"{" for item in items):
        raise UnreadableBody("the history has a message that is no object")
    last = next((number for number in range(len(items) - 1, -1, -1) if _user_wrote(items[number])), -1)
    for number, item in enumerate(items):
        walk.message, walk.last_user = number, number == last
        new = _message(walk, item, kind)
        if new is not None:
            items[number] = new
    walk.role, walk.message, walk.last_user = "system", -1, False
    return json_of(items) if walk.changed != before else None


def _prompts(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """A prompt or a list of them, from the user; prompts of token numbers hold no text."""
    if first_byte(raw) not in (b'"', b"[", b"{"):
        return None
    whole = first_byte(raw) != b"["
    before = walk.changed
    items = [raw] if whole else open_items(raw)
    walk.role = "user"
    for number, item in enumerate(items):
        walk.message, walk.last_user = number, number == len(items) - 1
        new = _content(walk, item, kind)
        if new is not None:
            items[number] = new
    walk.role, walk.message, walk.last_user = "system", -1, False
    if walk.changed == before:
        return None
    return items[0] if whole else json_of(items)


def _input(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """The input of Responses: a prompt, or the history."""
    return _prompts(walk, raw, kind) if first_byte(raw) == b'"' else _history(walk, raw, kind)


def _instructions(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """Text, or a list of items."""
    if first_byte(raw) != b"[":
        return _content(walk, raw, kind)
    new = walk.each(raw, lambda walk, item, kind: _message(walk, item, kind) if first_byte(item) == b"{" else None, kind)
    walk.role = "system"
    return new


def _outside(role: str, rules: dict[str, _Rule] | None = None) -> _Rule:
    """Text of `role` beside the history: content itself, or an object with such members."""

    def rule(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
        walk.role = role
        try:
            if rules is None:
                return _content(walk, raw, kind)
            return walk.members(open_object(raw, rules), rules, kind) if first_byte(raw) == b"{" else None
        finally:
            walk.role = "system"

    return rule


def _variables(walk: _Walk, raw: Raw, kind: TextKind) -> Raw | None:
    """What is put into a stored prompt: texts or parts under names of the caller's."""
    if first_byte(raw) != b"{":
        return None
    fields = open_object(raw)
    return walk.members(fields, dict.fromkeys(fields, _content), kind)


_CHAT: dict[str, _Rule] = {
    "messages": _history,
    "prompt": _prompts,
    "suffix": _outside("user"),
    "prediction": _outside("assistant", {"content": _content}),
}
_MESSAGES: dict[str, _Rule] = {"system": _content, "messages": _history}
_EMBED: dict[str, _Rule] = {"input": _prompts, "prompt": _prompts, "messages": _history}
_REQUESTS: dict[Operation, dict[str, _Rule]] = {
    Operation.CHAT: _CHAT,
    Operation.COMPLETIONS: _CHAT,
    Operation.EMBEDDINGS: _EMBED,
    Operation.RESPONSES: {
        "instructions": _instructions,
        "input": _input,
        "prompt": _outside("user", {"variables": _variables}),
    },
    Operation.MESSAGES: _MESSAGES,
    Operation.COUNT_TOKENS: _MESSAGES,
    Operation.OLLAMA_CHAT: _CHAT,
    Operation.OLLAMA_GENERATE: {"system": _content, "template": _text, "prompt": _prompts, "suffix": _outside("user")},
    Operation.OLLAMA_EMBED: _EMBED,
}
