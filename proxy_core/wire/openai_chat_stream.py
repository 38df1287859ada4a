"""Streams of Chat Completions and legacy completions: `data:` events of chunks, ended by `[DONE]`.

Tool calls are gathered by choice and index; a new id with a new name at a used index is a new call, because some
upstreams give every parallel call the index 0. `finish_reason` ends the calls of its choice.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from proxy_core.wire.content_parts import thinking_text
from proxy_core.wire.conversation import (
    EndEvent,
    OpaqueEvent,
    StopEvent,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageEvent,
)
from proxy_core.wire.draft import Part
from proxy_core.wire.reported import error_of, reported_error
from proxy_core.wire.sse import SseEvent
from proxy_core.wire.stream_reading import SseStreamDecoder
from proxy_core.wire.tolerant_json import (
    UNREADABLE,
    as_index,
    as_json_text,
    as_list,
    as_object,
    as_text,
    as_text_or_none,
    encode,
    plain,
    read,
)
from proxy_core.wire.usage import at_tier, chat_usage


class _Chunk(msgspec.Struct):
    choices: Any = None
    usage: Any = None
    error: Any = None
    id: Any = None
    model: Any = None
    x_groq: Any = None
    service_tier: Any = None


_chunk = msgspec.json.Decoder(_Chunk)


class _PlainDelta(msgspec.Struct):
    """A delta of nothing but text: anything else in it fails to decode, and is read the long way."""

    content: str
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_content: None = None
    reasoning: None = None
    reasoning_details: None = None
    audio: None = None
    images: None = None
    annotations: None = None


class _PlainChoice(msgspec.Struct):
    delta: _PlainDelta
    index: Annotated[int, msgspec.Meta(ge=0, le=127)] = 0
    finish_reason: None = None


class _PlainChunk(msgspec.Struct):
    choices: Annotated[list[_PlainChoice], msgspec.Meta(min_length=1, max_length=1)]
    usage: None = None
    error: None = None
    x_groq: None = None


_plain_chunk = msgspec.json.Decoder(_PlainChunk)


class ChatStreamDecoder(SseStreamDecoder):
    """Reads one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._texts: dict[tuple[str, int], Part] = {}
        self._calls: dict[tuple[int, int | None], Part] = {}
        """The latest call at each index of each choice."""
        self._calls_begun = 0
        self._begun = False
        """Whether id and model are known, so that a piece of text is all that a chunk can say."""

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that `chunk` completed; a chunk that is one piece of text, as most are, goes the short way."""
        if self._begun and self._parser.is_one_plain_event(chunk):
            try:
                choice = _plain_chunk.decode(chunk[6:-2]).choices[0]
            except UNREADABLE:
                pass
            else:
                if text := choice.delta.content:
                    self._text("text", choice.index, text)
                    return [TextDelta(choice.index, text, chunk)]
        return super().feed(chunk)

    def _read_data(self, event: SseEvent, data: bytes) -> None:
        if data[:6] == b"[DONE]":
            self._ended = True
            self._events.append(EndEvent(event.raw))
            return
        if self._begun and event.event != "error":
            try:
                choice = _plain_chunk.decode(data).choices[0]
            except UNREADABLE:
                pass
            else:
                if text := choice.delta.content:
                    self._text("text", choice.index, text)
                    self._events.append(TextDelta(choice.index, text, event.raw))
                    return
        try:
            chunk = _chunk.decode(data)
        except UNREADABLE:
            repaired, problem = read(data, _chunk.decode)
            if repaired is None:
                self._read_unreadable(event, data, problem)
                return
            self._problem = self._problem or event.problem or problem
            chunk = repaired
        self._read_chunk(chunk, event)

    def _read_chunk(self, chunk: _Chunk, event: SseEvent) -> None:
        raw = event.raw
        events = self._events
        if self._response_id is None:
            self._response_id = as_text_or_none(chunk.id)
        if self._model is None:
            self._model = as_text_or_none(chunk.model)
        self._begun = self._response_id is not None and self._model is not None
        choices = chunk.choices
        if type(choices) is list:
            for choice in choices:
                if type(choice) is dict:
                    before = len(events)
                    self._read_choice(choice, raw)
                    if len(events) > before:
                        raw = b""
        usage = chat_usage(chunk.usage) if chunk.usage is not None else None
        if usage is None and chunk.x_groq is not None:
            usage = chat_usage(as_object(chunk.x_groq).get("usage"))
        usage = at_tier(usage, chunk.service_tier)
        if usage is not None:
            self._usage = usage
            events.append(UsageEvent(usage, raw))
            raw = b""
        if chunk.error:
            self._report(error_of(chunk.error, {}), raw)
        elif event.event == "error" or (choices is None and usage is None):
            error = reported_error(as_object(read(event.data or b"", plain)[0]))
            if error is not None:
                self._report(error, raw)

    def _read_choice(self, choice: dict[str, Any], raw: bytes) -> None:
        events = self._events
        index = as_index(choice.get("index"))
        delta = choice.get("delta")
        if type(delta) is dict:
            content = delta.get("content")
            if content:
                if type(content) is str:
                    self._text("text", index, content)
                    events.append(TextDelta(index, content, raw))
                    raw = b""
                elif type(content) is list:
                    raw = self._read_parts(index, content, raw)
            if len(delta) > 1 or not content:
                raw = self._read_delta(index, delta, raw)
        elif type(delta) is str:
            self._text("text", index, delta)
            events.append(TextDelta(index, delta, raw))
            raw = b""
        elif type(choice.get("message")) is dict:
            raw = self._read_delta(index, {**choice["message"], "content": None}, raw)
            content = choice["message"].get("content")
            if isinstance(content, str) and content:
                self._text("text", index, content)
                events.append(TextDelta(index, content, raw))
                raw = b""
        else:
            text = choice.get("text")
            if type(text) is str and text:
                self._text("text", index, text)
                events.append(TextDelta(index, text, raw))
                raw = b""
        reason = choice.get("finish_reason")
        if type(reason) is str and reason:
            if self._stop_reason is None or index == 0:
                self._stop_reason = reason
            raw = self._end_calls(index, raw)
            events.append(StopEvent(reason, raw, index))

    def _text(self, kind: str, index: int, text: str) -> None:
        part = self._texts.get((kind, index))
        if part is None:
            part = self._text_part(kind, index)
        part.pieces.append(text)

    def _text_part(self, kind: str, index: int) -> Part:
        part = self._texts[kind, index] = Part(kind, index, index)
        self._parts.append(part)
        return part

    def _read_parts(self, index: int, parts: list[Any], raw: bytes) -> bytes:
        """Content as a list of parts: text and thinking are read, the rest is kept."""
        for part in parts:
            fields = as_object(part)
            kind = fields.get("type")
            if kind == "thinking":
                raw = self._thinking(index, thinking_text(fields.get("thinking")), raw)
            elif isinstance(fields.get("text"), str):
                self._text("text", index, fields["text"])
                self._events.append(TextDelta(index, fields["text"], raw))
                raw = b""
            else:
                self._opaque(as_text(kind) or "content part", index, part)
        return raw

    def _thinking(self, index: int, text: str, raw: bytes) -> bytes:
        if not text:
            return raw
        self._text("thinking", index, text)
        self._events.append(ThinkingDelta(index, text, raw))
        return b""

    def _opaque(self, kind: str, index: int, value: Any) -> None:
        part = Part(kind, index, index)
        part.whole = encode(value)
        self._parts.append(part)

    def _read_delta(self, index: int, delta: dict[str, Any], raw: bytes) -> bytes:
        """Everything in a delta beside its text."""
        thinking = delta.get("reasoning_content") or delta.get("reasoning")
        details = delta.get("reasoning_details")
        if thinking:
            raw = self._thinking(index, thinking_text(thinking), raw)
        if details:
            text, signature = details_text(details)
            if not thinking:
                raw = self._thinking(index, text, raw)
            if signature is not None:
                part = self._texts.get(("thinking", index)) or self._text_part("thinking", index)
                part.signature = signature
        refusal = delta.get("refusal")
        if type(refusal) is str and refusal:
            self._text("refusal", index, refusal)
            self._events.append(OpaqueEvent("refusal", raw))
            raw = b""
        for call in as_list(delta.get("tool_calls")):
            raw = self._read_call(index, as_object(call), raw)
        legacy_call = delta.get("function_call")
        if isinstance(legacy_call, dict):
            raw = self._read_call(index, {"index": -1, "function": legacy_call}, raw)
        for kind in ("audio", "images", "annotations"):
            if delta.get(kind):
                self._opaque(kind, index, delta[kind])
        return raw

    def _read_call(self, choice: int, call: dict[str, Any], raw: bytes) -> bytes:
        function = as_object(call.get("function")) or as_object(call.get("custom"))
        call_id = as_text(call.get("id"))
        name = as_text(function.get("name"))
        arguments = as_json_text(function.get("arguments") if "arguments" in function else function.get("input"))
        wire_index = call.get("index")
        key = (choice, wire_index if type(wire_index) is int else None)
        part = self._calls.get(key)
        if part is None or _is_another(part, call_id, name, key[1] is None):
            part = self._calls[key] = Part("tool_call", choice, self._calls_begun)
            self._parts.append(part)
            self._calls_begun += 1
            self._events.append(ToolCallStart(part.number, call_id, name, raw, choice))
            raw = b""
        part.call_id = part.call_id or call_id
        part.name = part.name or name
        if arguments:
            part.pieces.append(arguments)
            self._events.append(ToolCallDelta(part.number, arguments, raw))
            raw = b""
        return raw

    def _end_calls(self, choice: int, raw: bytes) -> bytes:
        if not self._calls:
            return raw
        for part in self._parts:
            if part.kind == "tool_call" and part.choice == choice and not part.ended:
                part.ended = True
                self._events.append(ToolCallEnd(part.number, raw))
                raw = b""
        return raw


def _is_another(part: Part, call_id: str, name: str, unnumbered: bool) -> bool:
    """Whether a delta at the index of `part` begins another call."""
    if not name:
        return False
    if call_id and part.call_id:
        return call_id != part.call_id
    return unnumbered and bool(part.pieces)


def details_text(details: Any) -> tuple[str, str | None]:
    """Text and signature (or encrypted data) of `reasoning_details`."""
    texts: list[str] = []
    signature: str | None = None
    for detail in as_list(details):
        fields = as_object(detail)
        texts.append(as_text(fields.get("text")) or as_text(fields.get("summary")))
        signature = as_text_or_none(fields.get("signature")) or as_text_or_none(fields.get("data")) or signature
    return "".join(texts), signature
