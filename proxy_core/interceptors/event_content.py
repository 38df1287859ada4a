"""What events say of an answer: its content, and why it ended.

Chat Completions and Ollama give their messages, Messages and Responses their blocks, whole answers as they stand on the wire.
Streams are put together in the same shapes, each of several choices for itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, Struct

from proxy_core.interceptors.base import Finished
from proxy_core.interceptors.redaction import on_one_line, redacted, safe_json
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import (
    Block,
    StopEvent,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallStart,
)
from proxy_core.wire.dialects import Operation

_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class _Choice(Struct):
    message: Raw = Raw(b"null")
    text: Any = None
    finish_reason: Any = None


class _Refusal(Struct):
    refusal: Any = None


class _Whole(Struct):
    choices: list[_Choice] = []
    content: Raw = Raw(b"null")
    message: Raw = Raw(b"null")
    system_fingerprint: Any = None
    stop_sequence: Any = None


_whole = msgspec.json.Decoder(_Whole)
_refusal = msgspec.json.Decoder(_Refusal)


def said(finished: Finished) -> dict[str, Any]:
    """`llm.response.content` and the words for the end, as the dialect has them."""
    secrets = finished.begun.secrets
    operation = finished.begun.operation
    whole = None if finished.is_stream else _read(finished.readable_body)
    ends: dict[str, Any]
    if operation in ("chat", "completions"):
        ends = {"finish_reason": finished.stop_reason or None}
        content: Any = _messages(whole) if whole is not None else _streamed_messages(finished)
        if whole is not None:
            ends["system_fingerprint"] = whole.system_fingerprint
            ends["refusal"] = _refused(whole)
        else:
            ends["system_fingerprint"] = _stream_fingerprint(finished.readable_body)
    elif operation == "messages":
        ends = {"stop_reason": finished.stop_reason or None}
        if whole is not None:
            ends["stop_sequence"] = whole.stop_sequence
        content = whole.content if whole is not None else _blocks(finished.answer.blocks)
    elif operation == "ollama_chat" and whole is not None:
        ends = {"finish_reason": finished.stop_reason or None}
        content = [whole.message]
    elif operation in ("ollama_chat", "ollama_generate"):
        ends = {"finish_reason": finished.stop_reason or None}
        content = [_message(finished.answer.blocks)]
    else:
        ends = {"finish_reason": finished.stop_reason or None}
        content = _blocks(finished.answer.blocks)
    # What stands on the wire as it is here was looked through as a whole; what was put together was not.
    clean = whole is not None and operation != "completions" and finished.readable_body is finished.shown_body
    given: dict[str, Any] = {"llm.response.content": _wire_json(content) if clean else safe_json(content, secrets)}
    return given | {name: _shown_word(secrets, value) for name, value in ends.items() if isinstance(value, str)}


@lru_cache(maxsize=1_000)
def _shown_word(secrets: tuple[bytes, ...], word: str) -> str:
    """A word of the answer as it may be written; there are few of them."""
    return redacted(word.encode("utf-8", "replace"), secrets).decode("utf-8", "replace")


def _wire_json(content: Any) -> Raw:
    return Raw(on_one_line(msgspec.json.encode(content)))


def _read(body: bytes) -> _Whole | None:
    try:
        return _whole.decode(body)
    except _UNREADABLE:
        return None


def _messages(whole: _Whole) -> list[Any]:
    return [
        choice.message if bytes(choice.message) != b"null" else {"role": "assistant", "content": choice.text}
        for choice in whole.choices
    ]


def _refused(whole: _Whole) -> str | None:
    for choice in whole.choices:
        try:
            said = _refusal.decode(choice.message).refusal
        except _UNREADABLE:
            continue
        if isinstance(said, str) and said:
            return said
    return None


def _blocks(blocks: tuple[Block, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, TextBlock):
            found.append({"type": "text", "text": block.text})
        elif isinstance(block, ThinkingBlock):
            found.append({"type": "thinking", "thinking": block.text})
        elif isinstance(block, ToolCallBlock):
            found.append({"type": "tool_use", "id": block.call_id, "name": block.name, "input": arguments_of(block.arguments)})
    return found


def _message(blocks: tuple[Block, ...]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(block.text for block in blocks if isinstance(block, TextBlock)),
    }
    calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
    if calls:
        message["tool_calls"] = [{"function": {"name": one.name, "arguments": arguments_of(one.arguments)}} for one in calls]
    return message


def _one_message(blocks: tuple[Block, ...]) -> dict[str, Any]:
    """The message of the only choice."""
    gathered = _Gathered()
    for number, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            gathered.text.append(block.text)
        elif isinstance(block, ThinkingBlock):
            gathered.thinking.append(block.text)
        elif isinstance(block, ToolCallBlock):
            function = {"name": block.name, "arguments": block.arguments}
            gathered.calls[number] = {"id": block.call_id, "type": "function", "function": function}
    return gathered.message()


class _Gathered:
    """One choice of a stream."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.thinking: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}

    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.text) or None}
        if self.thinking:
            message["reasoning_content"] = "".join(self.thinking)
        if self.calls:
            message["tool_calls"] = list(self.calls.values())
        return message


def _streamed_messages(finished: Finished) -> list[dict[str, Any]]:
    """The messages of all choices of a Chat Completions stream."""
    codec = codec_for(Operation(finished.begun.operation))
    if codec is None or not finished.is_stream:
        return []
    if b'"index":1' not in finished.body and b'"index": 1' not in finished.body:
        return [_one_message(finished.answer.blocks)]  # read already
    choices: dict[int, _Gathered] = {}
    owners: dict[int, _Gathered] = {}
    for event in codec.stream_decoder().feed(finished.readable_body):
        if isinstance(event, TextDelta):
            choices.setdefault(event.index, _Gathered()).text.append(event.text)
        elif isinstance(event, ThinkingDelta):
            choices.setdefault(event.index, _Gathered()).thinking.append(event.text)
        elif isinstance(event, ToolCallStart):
            owner = owners[event.index] = choices.setdefault(event.choice, _Gathered())
            function = {"name": event.name, "arguments": ""}
            owner.calls[event.index] = {"id": event.call_id, "type": "function", "function": function}
        elif isinstance(event, ToolCallDelta) and event.index in owners:
            owners[event.index].calls[event.index]["function"]["arguments"] += event.arguments
        elif isinstance(event, StopEvent):
            choices.setdefault(event.choice, _Gathered())
    return [choices[index].message() for index in sorted(choices)]


def _stream_fingerprint(body: bytes) -> Any:
    """The fingerprint of the first chunk; all chunks repeat it."""
    start = body.find(b"data:")
    line = body[start + 5 : body.find(b"\n", start)] if start >= 0 else b""
    whole = _read(line.strip()) if b"system_fingerprint" in line else None
    return whole.system_fingerprint if whole is not None else None


def arguments_of(arguments: str) -> Any:
    """Arguments of a tool as the JSON that they are; their text where they are none."""
    try:
        return msgspec.json.decode(arguments, type=Raw) if arguments else {}
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return arguments
