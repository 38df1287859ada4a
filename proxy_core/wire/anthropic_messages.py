"""Anthropic Messages and its token counting: bodies, and streams of named events ended by `message_stop`.

Blocks that the provider runs itself (server tools, their results, compaction) are opaque under their own type.
Thinking signatures stay byte-exact. Never raises; what cannot be read is opaque, or `problem` says so.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.content_parts import raw_text, tool_definitions
from proxy_core.wire.conversation import (
    Answer,
    Block,
    Conversation,
    EndEvent,
    ImageBlock,
    Message,
    OpaqueBlock,
    OpaqueEvent,
    StopEvent,
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
from proxy_core.wire.draft import Part
from proxy_core.wire.openai_chat import settled
from proxy_core.wire.reported import error_of, reported_error
from proxy_core.wire.sse import SseEvent
from proxy_core.wire.stream_reading import SseStreamDecoder
from proxy_core.wire.tolerant_json import (
    UNREADABLE,
    JsonObject,
    as_count,
    as_index,
    as_object,
    as_text,
    as_text_or_none,
    encode,
    first_byte,
    plain,
    raw_items,
    read,
)
from proxy_core.wire.usage import messages_usage


class _Request(msgspec.Struct):
    model: Any = None
    stream: Any = None
    system: msgspec.Raw = msgspec.Raw()
    messages: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    role: Any = None
    content: msgspec.Raw = msgspec.Raw()


class _Block(msgspec.Struct):
    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    id: Any = None
    name: Any = None
    tool_use_id: Any = None
    is_error: Any = None
    source: Any = None
    input: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    type: Any = None
    id: Any = None
    model: Any = None
    stop_reason: Any = None
    usage: Any = None
    error: Any = None
    input_tokens: Any = None
    content: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct):
    type: Any = None
    index: Any = None
    delta: Any = None
    content_block: Any = None
    message: Any = None
    usage: Any = None
    error: Any = None


_request = msgspec.json.Decoder(_Request)
_message = msgspec.json.Decoder(_Message)
_block = msgspec.json.Decoder(_Block)
_response = msgspec.json.Decoder(_Response)
_event = msgspec.json.Decoder(_Event)


class MessagesCodec:
    """`/v1/messages`."""

    def read_request(self, body: bytes) -> Conversation:
        conversation, problem = read(body, _read_request)
        if conversation is None:
            return Conversation(problem=problem or "the body could not be read")
        return conversation if problem is None else msgspec.structs.replace(conversation, problem=problem)

    def read_response(self, body: bytes) -> Answer:
        answer, problem = read(body, _read_response)
        return settled(answer, problem, body, MessagesStreamDecoder)

    def stream_decoder(self) -> MessagesStreamDecoder:
        return MessagesStreamDecoder()


class CountTokensCodec(MessagesCodec):
    """`/v1/messages/count_tokens`: the same request; the answer is a number of input tokens."""

    def read_response(self, body: bytes) -> Answer:
        answer, problem = read(body, _read_count)
        return settled(answer, problem, body, MessagesStreamDecoder)


CODEC = MessagesCodec()
COUNT_TOKENS_CODEC = CountTokensCodec()


def _read_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    messages: list[Message] = []
    if first_byte(request.system) not in (b"", b"n"):
        messages.append(Message("system", _content_blocks(request.system), bytes(request.system)))
    messages += [_read_message(raw) for raw in raw_items(request.messages)]
    problem = None if first_byte(request.messages) == b"[" else "the body has no list of messages"
    tools = tool_definitions(request.tools)
    return Conversation(as_text_or_none(request.model), tuple(messages), tools, request.stream is True, problem)


def _read_message(raw: bytes) -> Message:
    if raw[:1] != b"{":
        return Message("", (OpaqueBlock("message", raw),), raw)
    message = _message.decode(raw)
    return Message(as_text(message.role), _content_blocks(message.content), raw)


def _content_blocks(content: msgspec.Raw) -> tuple[Block, ...]:
    first = first_byte(content)
    if first == b'"':
        return (TextBlock(as_text(plain(content)), bytes(content)),)
    if first == b"[":
        return tuple(_read_block(raw) for raw in raw_items(content))
    return () if first in (b"", b"n") else (OpaqueBlock("content", bytes(content)),)


def _read_block(raw: bytes) -> Block:
    if raw[:1] != b"{":
        return OpaqueBlock("content block", raw)
    block = _block.decode(raw)
    kind = as_text(block.type)
    if kind == "text" and isinstance(block.text, str):
        return TextBlock(block.text, raw)
    if kind == "tool_use":
        return ToolCallBlock(as_text(block.id), as_text(block.name), raw_text(block.input), raw)
    if kind == "tool_result":
        return ToolResultBlock(as_text(block.tool_use_id), _result_text(block.content), block.is_error is True, raw)
    if kind == "thinking":
        return ThinkingBlock(as_text(block.thinking), as_text_or_none(block.signature), raw)
    if kind in ("image", "document"):
        source = as_object(block.source)
        return ImageBlock(kind, as_text_or_none(source.get("media_type")), as_text_or_none(source.get("url")), raw)
    return OpaqueBlock(kind or "content block", raw)


def _result_text(content: msgspec.Raw) -> str:
    """A tool result as text: the text parts joined, or the JSON of anything else."""
    if first_byte(content) != b"[":
        return raw_text(content)
    blocks = _content_blocks(content)
    if all(isinstance(block, TextBlock) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    return raw_text(content)


def _read_response(body: bytes) -> Answer | None:
    response = _response.decode(body)
    usage = messages_usage(as_object(response.usage))
    model, response_id = as_text_or_none(response.model), as_text_or_none(response.id)
    if response.error or first_byte(response.content) != b"[":
        error = error_of(response.error, {}) if response.error else reported_error(plain(body))
        problem = None if error else "the body has no content"
        return Answer((), usage, None, error, model, response_id, True, problem)
    blocks = tuple(_read_block(raw) for raw in raw_items(response.content))
    return Answer(blocks, usage, as_text_or_none(response.stop_reason), None, model, response_id, True, None)


def _read_count(body: bytes) -> Answer | None:
    response = _response.decode(body)
    tokens = as_count(response.input_tokens)
    error = reported_error(plain(body)) if tokens is None else None
    return Answer(usage=None if tokens is None else Usage(input_tokens=tokens), error=error)


class MessagesStreamDecoder(SseStreamDecoder):
    """Reads one stream of Messages."""

    def __init__(self) -> None:
        super().__init__()
        self._by_index: dict[int, Part] = {}
        self._started: dict[int, JsonObject] = {}
        """The `content_block` that began each part which is not text or thinking."""
        self._usage_fields: JsonObject = {}

    def _read_data(self, event: SseEvent, data: bytes) -> None:
        try:
            fields = _event.decode(data)
        except UNREADABLE:
            repaired, problem = read(data, _event.decode)
            if repaired is None:
                self._read_unreadable(event, data, problem)
                return
            self._problem = self._problem or event.problem or problem
            fields = repaired
        kind = fields.type if type(fields.type) is str else event.event
        raw = event.raw
        if kind == "content_block_delta":
            self._read_delta(as_index(fields.index), as_object(fields.delta), raw)
        elif kind == "content_block_start":
            self._start(as_index(fields.index), as_object(fields.content_block), raw)
        elif kind == "content_block_stop":
            self._stop(as_index(fields.index), raw)
        elif kind == "message_start":
            message = as_object(fields.message)
            self._model = as_text_or_none(message.get("model"))
            self._response_id = as_text_or_none(message.get("id"))
            self._add_usage(message.get("usage"), raw)
        elif kind == "message_delta":
            reason = as_object(fields.delta).get("stop_reason")
            if isinstance(reason, str) and reason:
                self._stop_reason = reason
                self._events.append(StopEvent(reason, raw))
                raw = b""
            self._add_usage(fields.usage, raw)
        elif kind == "message_stop":
            self._ended = True
            self._events.append(EndEvent(raw))
        elif kind == "error" or fields.error:
            self._report_value(read(data, plain)[0], raw)
        else:
            self._events.append(OpaqueEvent(kind or "event", raw))

    def _add_usage(self, usage: Any, raw: bytes) -> None:
        """Later counts replace earlier ones; what is left out stays, and what an imitator makes 0 at the end."""
        if isinstance(usage, dict):
            known = self._usage_fields
            for key, value in usage.items():
                imitated = value == 0 and known.get(key) and "iterations" not in usage
                if value is not None and not imitated:
                    known[key] = value
            merged = messages_usage(self._usage_fields)
            if merged is not None:
                self._usage = merged
                self._events.append(UsageEvent(merged, raw))

    def _part(self, index: int, kind: str) -> Part:
        """The part at `index`; one that was never started begins with its first delta."""
        part = self._by_index.get(index)
        if part is None:
            part = self._by_index[index] = Part(kind, 0, index)
            self._parts.append(part)
        return part

    def _start(self, index: int, block: JsonObject, raw: bytes) -> None:
        self._by_index.pop(index, None)
        kind = as_text(block.get("type"))
        if kind == "text":
            text = as_text(block.get("text"))
            self._part(index, "text").pieces.append(text)
            self._events.append(TextDelta(index, text, raw) if text else OpaqueEvent("content_block_start", raw))
        elif kind == "thinking":
            part = self._part(index, "thinking")
            text = as_text(block.get("thinking"))
            part.pieces.append(text)
            part.signature = as_text_or_none(block.get("signature"))
            self._events.append(ThinkingDelta(index, text, raw) if text else OpaqueEvent("content_block_start", raw))
        elif kind == "tool_use":
            part = self._part(index, "tool_call")
            part.call_id, part.name = as_text(block.get("id")), as_text(block.get("name"))
            self._started[index] = block
            self._events.append(ToolCallStart(index, part.call_id, part.name, raw))
        else:
            self._part(index, kind or "content block").whole = encode(block)
            self._started[index] = block
            self._events.append(OpaqueEvent(kind or "content_block_start", raw))

    def _read_delta(self, index: int, delta: JsonObject, raw: bytes) -> None:
        kind = delta.get("type")
        if kind == "text_delta":
            text = as_text(delta.get("text"))
            self._part(index, "text").pieces.append(text)
            self._events.append(TextDelta(index, text, raw))
        elif kind == "input_json_delta":
            text = as_text(delta.get("partial_json"))
            part = self._part(index, "tool_call")
            part.pieces.append(text)
            self._events.append(ToolCallDelta(index, text, raw) if part.kind == "tool_call" else OpaqueEvent(part.kind, raw))
        elif kind == "thinking_delta":
            text = as_text(delta.get("thinking"))
            self._part(index, "thinking").pieces.append(text)
            self._events.append(ThinkingDelta(index, text, raw))
        elif kind == "signature_delta":
            part = self._part(index, "thinking")
            part.signature = (part.signature or "") + as_text(delta.get("signature"))
            self._events.append(OpaqueEvent("signature_delta", raw))
        else:
            self._events.append(OpaqueEvent(as_text(kind) or "content_block_delta", raw))

    def _stop(self, index: int, raw: bytes) -> None:
        part = self._by_index.get(index)
        if part is None or part.ended:
            self._events.append(OpaqueEvent("content_block_stop", raw))
            return
        part.ended = True
        started = self._started.pop(index, None)
        unsaid = part.kind == "tool_call" and not part.pieces and started is not None and started.get("input")
        self._settle(part, started)
        if unsaid:
            self._events.append(ToolCallDelta(index, "".join(part.pieces), raw))
            raw = b""
        self._events.append(ToolCallEnd(index, raw) if part.kind == "tool_call" else OpaqueEvent("content_block_stop", raw))

    def _settle(self, part: Part, started: JsonObject | None) -> None:
        """Join a started block with the input that came for it in pieces."""
        if started is None:
            return
        pieces = "".join(part.pieces)
        if part.kind == "tool_call":
            if not pieces and "input" in started:
                part.pieces = [encode(started["input"]).decode("utf-8", "replace")]
        elif pieces:
            value, problem = read(pieces.encode("utf-8", "replace"), plain)
            part.whole = encode({**started, "input": pieces if problem else value})

    def _blocks(self) -> tuple[Block, ...]:
        for index, started in self._started.items():
            part = self._by_index.get(index)
            if part is not None and not part.ended and part.kind != "tool_call":
                self._settle(part, started)
        return super()._blocks()
