"""Ollama's own API: chat, generate and embeddings, whole or as NDJSON that ends with `"done":true`.

Tool calls have no ids there, and their arguments are objects; both are kept so. Never raises; what cannot be read is
opaque, or `problem` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from proxy_core.wire.content_parts import tool_call_block, tool_definitions
from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
    Block,
    Conversation,
    EndEvent,
    ErrorEvent,
    ImageBlock,
    Message,
    OpaqueBlock,
    OpaqueEvent,
    StopEvent,
    StreamEvent,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolResultBlock,
    Usage,
    UsageEvent,
)
from proxy_core.wire.draft import Part, gathered_blocks
from proxy_core.wire.ndjson import NdjsonLine, NdjsonParser
from proxy_core.wire.reported import error_of, other_answer
from proxy_core.wire.tolerant_json import (
    UNREADABLE,
    as_text,
    as_text_or_none,
    encode,
    first_byte,
    plain,
    raw_items,
    read,
)
from proxy_core.wire.usage import ollama_usage


class _Request(msgspec.Struct):
    model: Any = None
    stream: Any = None
    system: Any = None
    messages: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    images: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    role: Any = None
    content: Any = None
    thinking: Any = None
    tool_name: Any = None
    tool_calls: msgspec.Raw = msgspec.Raw()
    images: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    model: Any = None
    message: msgspec.Raw = msgspec.Raw()
    response: Any = None
    thinking: Any = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None
    embeddings: msgspec.Raw = msgspec.Raw()
    embedding: msgspec.Raw = msgspec.Raw()


_request = msgspec.json.Decoder(_Request)
_message = msgspec.json.Decoder(_Message)
_line = msgspec.json.Decoder(_Line)


class OllamaCodec:
    """One of the operations; they differ in how the request is read."""

    def __init__(self, read_request: Callable[[bytes], Conversation]) -> None:
        self._read_request = read_request

    def read_request(self, body: bytes) -> Conversation:
        conversation, problem = read(body, self._read_request)
        if conversation is None:
            return Conversation(problem=problem or "the body could not be read")
        return conversation if problem is None else msgspec.structs.replace(conversation, problem=problem)

    def read_response(self, body: bytes) -> Answer:
        answer, problem = read(body, _read_response)
        if answer is not None:
            return answer if problem is None else msgspec.structs.replace(answer, problem=problem)
        if b"\n" in body.strip():
            decoder = OllamaStreamDecoder()
            decoder.feed(body)
            streamed = decoder.finish()
            if streamed.complete:
                return streamed
        return other_answer(body)

    def stream_decoder(self) -> OllamaStreamDecoder:
        return OllamaStreamDecoder()


def _chat_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    messages = tuple(_read_message(raw) for raw in raw_items(request.messages))
    problem = None if first_byte(request.messages) == b"[" else "the body has no list of messages"
    tools = tool_definitions(request.tools)
    return Conversation(as_text_or_none(request.model), messages, tools, request.stream is not False, problem)


def _generate_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    messages: list[Message] = []
    system = as_text(request.system)
    if system:
        messages.append(Message("system", (TextBlock(system),)))
    blocks = _texts(request.prompt) + _images(request.images)
    if blocks:
        messages.append(Message("user", tuple(blocks), bytes(request.prompt)))
    return Conversation(as_text_or_none(request.model), tuple(messages), (), request.stream is not False)


def _embed_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    given = request.input if first_byte(request.input) else request.prompt
    messages = tuple(Message("user", (block,), block.raw) for block in _texts(given))
    return Conversation(as_text_or_none(request.model), messages)


CHAT_CODEC = OllamaCodec(_chat_request)
GENERATE_CODEC = OllamaCodec(_generate_request)
EMBED_CODEC = OllamaCodec(_embed_request)


def _texts(value: msgspec.Raw) -> list[Block]:
    """A string, or a list of strings."""
    first = first_byte(value)
    if first == b'"':
        return [TextBlock(as_text(plain(value)), bytes(value))]
    if first == b"[":
        return [TextBlock(as_text(plain(raw)), raw) if raw[:1] == b'"' else OpaqueBlock("input", raw) for raw in raw_items(value)]
    return [] if first in (b"", b"n") else [OpaqueBlock("input", bytes(value))]


def _images(value: msgspec.Raw) -> list[Block]:
    return [ImageBlock("image", None, None, raw) for raw in raw_items(value)]


def _read_message(raw: bytes) -> Message:
    if raw[:1] != b"{":
        return Message("", (OpaqueBlock("message", raw),), raw)
    message = _message.decode(raw)
    role = as_text(message.role)
    if role == "tool":
        return Message(role, (ToolResultBlock(as_text(message.tool_name), as_text(message.content)),), raw)
    return Message(role, tuple(_message_blocks(message)), raw)


def _message_blocks(message: _Message) -> list[Block]:
    blocks: list[Block] = []
    if isinstance(message.thinking, str) and message.thinking:
        blocks.append(ThinkingBlock(message.thinking))
    if isinstance(message.content, str):
        if message.content:
            blocks.append(TextBlock(message.content))
    elif message.content is not None:
        blocks.append(OpaqueBlock("content", encode(message.content)))
    blocks += _images(message.images)
    blocks += [tool_call_block(raw) for raw in raw_items(message.tool_calls)]
    return blocks


def _line_blocks(line: _Line) -> list[Block]:
    """The blocks of one line, or of a whole body."""
    if first_byte(line.message) == b"{":
        return _message_blocks(_message.decode(line.message))
    blocks: list[Block] = []
    if isinstance(line.thinking, str) and line.thinking:
        blocks.append(ThinkingBlock(line.thinking))
    if isinstance(line.response, str) and line.response:
        blocks.append(TextBlock(line.response))
    return blocks


def _read_response(body: bytes) -> Answer | None:
    line = _line.decode(body)
    usage = ollama_usage(line.prompt_eval_count, line.eval_count)
    error = error_of(line.error, {}) if line.error else None
    model = as_text_or_none(line.model)
    known = first_byte(line.message) or first_byte(line.embeddings) or first_byte(line.embedding) or line.response is not None
    if error is None and not known:
        other = other_answer(body)
        return msgspec.structs.replace(other, usage=usage, model=model)
    blocks = tuple(_line_blocks(line))
    complete = line.done is not False
    return Answer(blocks, usage, as_text_or_none(line.done_reason), error, model, None, complete, None)


class OllamaStreamDecoder:
    """Reads one NDJSON stream of chat or generate."""

    def __init__(self) -> None:
        self._parser = NdjsonParser()
        self._parts: list[Part] = []
        self._events: list[StreamEvent] = []
        self._calls_begun = 0
        self._usage: Usage | None = None
        self._stop_reason: str | None = None
        self._error: AnswerError | None = None
        self._model: str | None = None
        self._ended = False
        self._problem: str | None = None
        self._lines_read = 0
        self._unreadable_start = b""

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that `chunk` completed."""
        events: list[StreamEvent] = []
        self._events = events
        for line in self._parser.feed(chunk):
            self._read(line)
        return events

    @property
    def rest(self) -> bytes:
        """The bytes of a line that has begun and not ended."""
        return self._parser.rest

    def finish(self) -> Answer:
        """The whole answer so far."""
        self._events = []
        for line in self._parser.finish():
            self._read(line)
        if not self._lines_read and self._unreadable_start:
            return msgspec.structs.replace(other_answer(self._unreadable_start), complete=False)
        return Answer(
            gathered_blocks(self._parts),
            self._usage,
            self._stop_reason,
            self._error,
            self._model,
            None,
            self._ended,
            self._problem,
        )

    def _read(self, line: NdjsonLine) -> None:
        if not line.data:
            self._events.append(OpaqueEvent("oversized" if line.problem else "blank", line.raw))
            self._problem = self._problem or line.problem
            return
        before = len(self._events)
        try:
            self._read_line(_line.decode(line.data), line.raw)
        except UNREADABLE:
            del self._events[before:]
            done, problem = read(line.data, lambda data: self._read_line(_line.decode(data), line.raw))
            self._problem = self._problem or problem
            if not done:
                del self._events[before:]
                self._events.append(OpaqueEvent("unreadable", line.raw))
                if not self._lines_read and len(self._unreadable_start) < 65536:
                    self._unreadable_start += line.raw

    def _read_line(self, line: _Line, raw: bytes) -> bool:
        blocks = _line_blocks(line)
        self._lines_read += 1
        events = self._events
        first = len(events)
        self._model = self._model or as_text_or_none(line.model)
        for block in blocks:
            self._add(block, raw if len(events) == first else b"")
        if line.error:
            self._error = error_of(line.error, {})
            events.append(ErrorEvent(self._error, raw if len(events) == first else b""))
        if line.done is True:
            self._ended = True
            usage = ollama_usage(line.prompt_eval_count, line.eval_count)
            if usage is not None:
                self._usage = usage
                events.append(UsageEvent(usage, raw if len(events) == first else b""))
            reason = as_text_or_none(line.done_reason)
            if reason is not None:
                self._stop_reason = reason
                events.append(StopEvent(reason, raw if len(events) == first else b""))
            events.append(EndEvent(raw if len(events) == first else b""))
        if len(events) == first:
            events.append(OpaqueEvent("line", raw))
        return True

    def _add(self, block: Block, raw: bytes) -> None:
        if isinstance(block, TextBlock):
            self._part("text").pieces.append(block.text)
            self._events.append(TextDelta(0, block.text, raw))
        elif isinstance(block, ThinkingBlock):
            self._part("thinking").pieces.append(block.text)
            self._events.append(ThinkingDelta(0, block.text, raw))
        elif isinstance(block, ToolCallBlock):
            number = self._calls_begun
            self._calls_begun += 1
            part = Part("tool_call", 0, number)
            part.call_id, part.name, part.whole = block.call_id, block.name, block.raw
            part.pieces.append(block.arguments)
            self._parts.append(part)
            self._events += [
                ToolCallStart(number, block.call_id, block.name, raw),
                ToolCallDelta(number, block.arguments),
                ToolCallEnd(number),
            ]
        else:
            part = Part(block.kind if isinstance(block, OpaqueBlock | ImageBlock) else "block")
            part.whole = block.raw
            self._parts.append(part)
            self._events.append(OpaqueEvent(part.kind, raw))

    def _part(self, kind: str) -> Part:
        """The part that grows: the last one if it is of this kind, else a new one."""
        if self._parts and self._parts[-1].kind == kind:
            return self._parts[-1]
        part = Part(kind)
        self._parts.append(part)
        return part
