"""OpenAI Responses: requests, whole responses, and streams of named events.

A stream ends with `response.completed|incomplete|failed`, whose response is the answer; an `error` event ends it too.
Never raises; what cannot be read is opaque, or `problem` says so.
"""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.content_parts import tool_definitions
from proxy_core.wire.conversation import (
    Answer,
    Block,
    Conversation,
    EndEvent,
    Message,
    OpaqueBlock,
    OpaqueEvent,
    StopEvent,
    TextBlock,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageEvent,
)
from proxy_core.wire.draft import Part, gathered_blocks
from proxy_core.wire.openai_chat import settled
from proxy_core.wire.responses_items import call_of, item_blocks, item_message, read_item, response_answer
from proxy_core.wire.sse import SseEvent
from proxy_core.wire.stream_reading import SseStreamDecoder
from proxy_core.wire.tolerant_json import (
    UNREADABLE,
    as_index,
    as_text,
    as_text_or_none,
    first_byte,
    plain,
    raw_items,
    read,
)


class _Request(msgspec.Struct):
    model: Any = None
    stream: Any = None
    instructions: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct):
    type: Any = None
    output_index: Any = None
    content_index: Any = None
    delta: Any = None
    text: Any = None
    arguments: Any = None
    input: Any = None
    error: Any = None
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


_request = msgspec.json.Decoder(_Request)
_event = msgspec.json.Decoder(_Event)


class ResponsesCodec:
    """`/v1/responses`."""

    def read_request(self, body: bytes) -> Conversation:
        conversation, problem = read(body, _read_request)
        if conversation is None:
            return Conversation(problem=problem or "the body could not be read")
        return conversation if problem is None else msgspec.structs.replace(conversation, problem=problem)

    def read_response(self, body: bytes) -> Answer:
        answer, problem = read(body, response_answer)
        return settled(answer, problem, body, ResponsesStreamDecoder)

    def stream_decoder(self) -> ResponsesStreamDecoder:
        return ResponsesStreamDecoder()


CODEC = ResponsesCodec()


def _read_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    messages: list[Message] = []
    first = first_byte(request.instructions)
    if first == b'"':
        text = as_text(plain(request.instructions))
        messages.append(Message("system", (TextBlock(text, bytes(request.instructions)),), bytes(request.instructions)))
    elif first == b"[":
        messages += [item_message(raw) for raw in raw_items(request.instructions)]
    first = first_byte(request.input)
    if first == b'"':
        raw = bytes(request.input)
        messages.append(Message("user", (TextBlock(as_text(plain(raw)), raw),), raw))
    elif first == b"[":
        messages += [
            item_message(raw) if raw[:1] == b"{" else Message("", (OpaqueBlock("item", raw),), raw)
            for raw in raw_items(request.input)
        ]
    problem = None if first in (b'"', b"[", b"", b"n") else "the input is neither text nor a list"
    tools = tool_definitions(request.tools)
    return Conversation(as_text_or_none(request.model), tuple(messages), tools, request.stream is True, problem)


_THINKING = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
_ARGUMENTS = frozenset({"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"})
_ARGUMENTS_DONE = frozenset({"response.function_call_arguments.done", "response.custom_tool_call_input.done"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_BEGINS = frozenset({"response.created", "response.in_progress", "response.queued"})


class ResponsesStreamDecoder(SseStreamDecoder):
    """Reads one stream of Responses."""

    def __init__(self) -> None:
        super().__init__()
        self._by_index: dict[tuple[int, str], Part] = {}
        self._whole_items: dict[int, list[Block]] = {}
        """The blocks of each item that was given whole when it was done."""
        self._output: tuple[Block, ...] = ()
        """The blocks of the response that ended the stream."""

    def _read_data(self, event: SseEvent, data: bytes) -> None:
        if data[:6] == b"[DONE]":
            self._events.append(OpaqueEvent("[DONE]", event.raw))
            return
        before = len(self._events)
        try:
            self._read_event(_event.decode(data), event, data)
        except UNREADABLE:
            del self._events[before:]
            done, problem = read(data, lambda repaired: self._read_event(_event.decode(repaired), event, repaired))
            if done is None:
                del self._events[before:]
                self._read_unreadable(event, data, problem)
            else:
                self._problem = self._problem or event.problem or problem

    def _read_event(self, fields: _Event, event: SseEvent, data: bytes) -> bool:
        kind = fields.type if type(fields.type) is str else event.event
        index = as_index(fields.output_index)
        raw = event.raw
        events = self._events
        if kind == "response.output_text.delta":
            text = as_text(fields.delta)
            self._part(index, "text").pieces.append(text)
            events.append(TextDelta(index, text, raw))
        elif kind in _ARGUMENTS:
            self._add_arguments(index, as_text(fields.delta), raw)
        elif kind in _THINKING:
            text = as_text(fields.delta)
            self._part(index, "thinking").pieces.append(text)
            events.append(ThinkingDelta(index, text, raw))
        elif kind == "response.output_item.added":
            self._begin_item(index, bytes(fields.item), raw)
        elif kind == "response.output_item.done":
            self._end_item(index, bytes(fields.item), raw)
        elif kind in _ARGUMENTS_DONE:
            part = self._by_index.get((index, "tool_call"))
            text = as_text(fields.arguments) or as_text(fields.input)
            if text and (part is None or not part.pieces):
                self._add_arguments(index, text, raw)
            elif part is not None:
                events.append(ToolCallDelta(index, "", raw))
        elif kind == "response.output_text.done":
            self._add_unsaid(index, as_text(fields.text), kind, raw)
        elif kind == "response.refusal.delta":
            self._part(index, "refusal").pieces.append(as_text(fields.delta))
            events.append(OpaqueEvent("refusal", raw))
        elif kind in _BEGINS:
            answer = response_answer(fields.response) if first_byte(fields.response) == b"{" else Answer()
            self._model, self._response_id = answer.model, answer.response_id
        elif kind in _ENDS:
            self._end(kind, fields, raw)
        elif kind == "error" or fields.error:
            self._report_value(read(data, plain)[0], raw)
            self._ended = True
        return True

    def _part(self, index: int, kind: str) -> Part:
        part = self._by_index.get((index, kind))
        if part is None:
            part = self._by_index[index, kind] = Part(kind, index, index)
            self._parts.append(part)
        return part

    def _add_arguments(self, index: int, text: str, raw: bytes) -> None:
        self._part(index, "tool_call").pieces.append(text)
        self._events.append(ToolCallDelta(index, text, raw))

    def _add_unsaid(self, index: int, text: str, kind: str, raw: bytes) -> bool:
        """Give events for text that came whole without having come in pieces; False where there is none."""
        part = self._by_index.get((index, "text"))
        if not text or (part is not None and part.pieces):
            return False
        self._part(index, "text").pieces.append(text)
        self._events += [TextDelta(index, text, raw), OpaqueEvent(kind)]
        return True

    def _begin_item(self, index: int, item_raw: bytes, raw: bytes) -> None:
        item = read_item(item_raw)
        call = call_of(item, item_raw)
        if call is None:
            self._events.append(OpaqueEvent(as_text(item.type) or "response.output_item.added", raw))
            return
        part = self._part(index, "tool_call")
        part.call_id, part.name = call.call_id, call.name
        self._events.append(ToolCallStart(index, call.call_id, call.name, raw))

    def _end_item(self, index: int, item_raw: bytes, raw: bytes) -> None:
        item = read_item(item_raw)
        if item_raw[:1] == b"{":
            self._whole_items[index] = item_blocks(item_raw)
        call = call_of(item, item_raw)
        if call is None:
            if item.type == "message":
                text = "".join(block.text for block in self._whole_items[index] if isinstance(block, TextBlock))
                if self._add_unsaid(index, text, "message", raw):
                    return
            self._events.append(OpaqueEvent(as_text(item.type) or "response.output_item.done", raw))
            return
        part = self._by_index.get((index, "tool_call"))
        if part is None:
            self._events.append(ToolCallStart(index, call.call_id, call.name, raw))
            raw = b""
            part = self._part(index, "tool_call")
            part.call_id, part.name = call.call_id, call.name
        if not part.pieces and call.arguments:
            self._add_arguments(index, call.arguments, raw)
            raw = b""
        if not part.ended:
            part.ended = True
            self._events.append(ToolCallEnd(index, raw))

    def _end(self, kind: str, fields: _Event, raw: bytes) -> None:
        """The response that ends the stream is the answer."""
        answer = response_answer(fields.response) if first_byte(fields.response) == b"{" else Answer()
        self._model = answer.model or self._model
        self._response_id = answer.response_id or self._response_id
        self._output = answer.blocks
        events = self._events
        if answer.usage is not None:
            self._usage = answer.usage
            events.append(UsageEvent(answer.usage, raw))
            raw = b""
        if answer.error is not None:
            self._report(answer.error, raw)
            raw = b""
        self._stop_reason = answer.stop_reason or kind.removeprefix("response.")
        events.append(StopEvent(self._stop_reason, raw))
        events.append(EndEvent())
        self._ended = True

    def _blocks(self) -> tuple[Block, ...]:
        if self._output:
            return self._output
        blocks: list[Block] = []
        for index in sorted({part.number for part in self._parts} | set(self._whole_items)):
            whole = self._whole_items.get(index)
            blocks += gathered_blocks(part for part in self._parts if part.number == index) if whole is None else whole
        return tuple(blocks)
