"""What events say of a request: its new messages, the results of tools among them, the prompt and the tools on offer.

Works on slices of the body; only new messages are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from proxy_core.interceptors.base import Begun
from proxy_core.interceptors.redaction import on_one_line, safe_json, safe_line
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Message, ToolCallBlock, ToolResultBlock
from proxy_core.wire.dialects import Operation

NO_PROMPT = "default-system"
"""What events call the prompt of a session without one."""
LOOK_BACK = 16
"""So many messages before the new ones are looked through for the calls that results belong to."""


class NewResult(Struct, frozen=True):
    """What a tool answered."""

    call_id: str
    """Empty for none; the tool's name where the dialect has no ids."""
    name: str | None
    content: str
    failed: bool


class _Named(Struct):
    name: Any = None
    tool_name: Any = None


class _Verdict(Struct):
    error: Any = None
    is_error: Any = None
    isError: Any = None  # noqa: N815 - the name on the wire


class _Content(Struct):
    content: Any = None


class _Tools(Struct):
    tools: Raw = Raw(b"null")
    functions: Raw = Raw(b"null")


_named = msgspec.json.Decoder(_Named)
_verdict = msgspec.json.Decoder(_Verdict)
_tools = msgspec.json.Decoder(_Tools)
_fields = msgspec.json.Decoder(dict[str, Raw])
_encoder = msgspec.json.Encoder()
_ABOUT = b'{"total_messages":%d,"new_messages":%d,"from_index":%d,"external_session":%s}'
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def holder_of(fields: dict[str, Raw]) -> str | None:
    """The field of a body that holds its messages as a list."""
    for name in ("messages", "input"):
        if (held := fields.get(name)) is not None and bytes(memoryview(held)[:1]) == b"[":
            return name
    return None


def new_results(begun: Begun, first: int) -> list[NewResult]:
    """The results among the messages from `first` on."""
    new = begun.history[first:]
    if not any(_may_hold_result(entry) for entry in new):
        return []
    names = _names_of_calls(begun, first)
    found = []
    for message in _messages(begun, new):
        for block in message.blocks:
            if isinstance(block, ToolResultBlock):
                name = _own_name(message) or names.get(block.call_id)
                failed = block.is_error or (begun.dialect != "anthropic" and _says_failed(block.content))
                found.append(NewResult(block.call_id, name, block.content, failed))
    return found


def request_data(begun: Begun, first: int) -> Raw:
    """The body with its new messages alone, and what was left out."""
    try:
        fields = _fields.decode(begun.body)
    except _UNREADABLE:
        return Raw(b"null")
    clean = begun.shown_body is begun.body
    total = len(begun.history)
    holder = holder_of(fields)
    if holder is not None:
        fields[holder] = Raw(b"[" + b",".join(begun.history[first:]) + b"]")
    else:
        first = 0
    external = b"true" if begun.link in ("header", "mark") else b"false"
    fields["_cylestio_metadata"] = Raw(_ABOUT % (total, total - first, first, external))
    encoded = _encoder.encode(fields)
    # What was looked through as a whole need not be again: these are parts of it.
    return Raw(on_one_line(encoded) if clean else safe_line(encoded, begun.secrets))


def offered_tools(begun: Begun) -> Raw | None:
    """The tools that a request offers, as it does; None where it offers none."""
    try:
        offered = _tools.decode(begun.body)
    except _UNREADABLE:
        return None
    raw = next((one for one in (offered.tools, offered.functions) if bytes(one) != b"null"), None)
    if raw is None:
        return None
    return Raw(on_one_line(bytes(raw))) if begun.shown_body is begun.body else safe_json(raw, begun.secrets)


def prompt_of(begun: Begun) -> str:
    """System prompt or instructions as text."""
    if not begun.system:
        return NO_PROMPT
    try:
        value = msgspec.json.decode(begun.system)
    except _UNREADABLE:
        return NO_PROMPT
    return _text(value.get("content") if isinstance(value, dict) else value) or NO_PROMPT


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        parts = (part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else "" for part in value)
        return "\n".join(part for part in parts if isinstance(part, str) and part)
    return ""


def _may_hold_result(entry: memoryview) -> bool:
    raw = bytes(entry)
    return b"tool" in raw or b'"function' in raw or b"_output" in raw


def _names_of_calls(begun: Begun, first: int) -> dict[str, str]:
    names: dict[str, str] = {}
    for message in _messages(begun, begun.history[max(0, first - LOOK_BACK) :]):
        for block in message.blocks:
            if isinstance(block, ToolCallBlock) and block.name:
                names[block.call_id] = block.name
    return names


def _messages(begun: Begun, entries: Sequence[memoryview]) -> tuple[Message, ...]:
    """Entries of a history, read by the codec of their dialect."""
    codec = codec_for(Operation(begun.operation))
    if codec is None:
        return ()
    holder = b'{"input":[' if begun.operation == "responses" else b'{"messages":['
    return codec.read_request(holder + b",".join(entries) + b"]}").messages


def _own_name(message: Message) -> str | None:
    """The name of the tool, where the message with its result says it."""
    if message.role not in ("tool", "function"):
        return None
    try:
        said = _named.decode(message.raw)
    except _UNREADABLE:
        return None
    return next((name for name in (said.name, said.tool_name) if isinstance(name, str) and name), None)


def _says_failed(content: str) -> bool:
    """Whether a result says itself that it is an error; its dialect has no mark for it."""
    if not content.startswith("{"):
        return False
    try:
        said = _verdict.decode(content)
    except _UNREADABLE:
        return False
    return bool(said.error) or said.is_error is True or said.isError is True
