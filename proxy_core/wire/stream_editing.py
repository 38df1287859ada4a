"""Whole streams changed block by block, and whole streams made from an answer.

For what has the stream in one piece: policies that see whole answers, answers that policies make. Ids, order, usage and every
byte that nobody touched stay; what is touched is encoded as `encoder` says. Raises UnreadableBody where it cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from msgspec import structs

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import (
    INSERTED,
    Answer,
    Block,
    EndEvent,
    ErrorEvent,
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
    UsageEvent,
)
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_blocks import Offers, Sorted, sort_blocks
from proxy_core.wire.editing_json import UnreadableBody
from proxy_core.wire.encode_events import (
    Fields,
    clean,
    event_bytes,
    messages_usage_fields,
    sse_object,
)
from proxy_core.wire.encoder import IllegalStream, StreamEncoder, encoder_for
from proxy_core.wire.tolerant_json import as_index, as_object, as_text

_LINES = frozenset({Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE})
_FREE_NUMBERS = 1 << 20
"""From here on indices belong to no block of an upstream's."""
_APPENDING = frozenset({Operation.CHAT, Operation.COMPLETIONS, *_LINES})
"""Operations whose text is one string: what is added to it stands after a blank line."""


class _Span:
    """The events of one block, by their places in the stream."""

    __slots__ = ("index", "kind", "places")

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.places: list[int] = []


def edit_stream(operation: Operation, body: bytes, edit: Callable[[Block], Sequence[Block] | None]) -> tuple[bytes, int]:
    """Give every block of a whole stream to `edit`; it returns what stands in its place, or None to leave it.

    An empty sequence removes the block; texts in place of a tool call stand before the tool calls that remain. Returns the
    stream (the same object where nothing changed) and how many blocks changed. Raises UnreadableBody, and what `edit` raises.
    """
    codec = codec_for(operation)
    encoder = encoder_for(operation)
    if codec is None or encoder is None:
        return body, 0
    decoder = codec.stream_decoder()
    events = decoder.feed(body)
    rest = decoder.rest
    if rest and (operation in _LINES or rest.endswith((b"\n", b"\r"))):
        events += decoder.feed(b"\n" if operation in _LINES else b"\n\n")
    answer = decoder.finish()
    offers = Offers(edit, answer.response_id or "")
    edited = _edited(operation, events, offers)
    if not offers.changed:
        return body, 0
    return _encoded(encoder, events, edited), offers.changed


def stream_of(
    operation: Operation, answer: Answer, *, transaction_id: str = "", created: int = 0, with_usage: bool = False
) -> bytes:
    """A whole legal stream that says `answer`: text, thinking and tool calls; other blocks are left out.

    `created` is in seconds since 1970; `with_usage` gives Chat Completions their chunk of usage, which clients must ask for.
    Raises UnreadableBody where the operation has no streams, or the answer cannot be said in it.
    """
    encoder = encoder_for(operation, model=answer.model or "", transaction_id=transaction_id)
    codec = codec_for(operation)
    if codec is None or encoder is None:
        raise UnreadableBody(f"{operation.value} has no streams")
    events: list[StreamEvent] = []
    seen: list[StreamEvent] = []
    opening = opening_of(operation, answer, transaction_id, created)
    if opening:
        seen += codec.stream_decoder().feed(opening)
    events += seen
    blocks = list(answer.blocks)
    if operation is Operation.MESSAGES:
        blocks.sort(key=lambda block: isinstance(block, ToolCallBlock))
    for number, block in enumerate(blocks):
        if operation is Operation.MESSAGES and isinstance(block, ThinkingBlock) and block.signature:
            thinking = codec.stream_decoder().feed(_thinking(number, block))
            seen += thinking
            events += thinking
        else:
            events += _said(number if operation not in _APPENDING or isinstance(block, ToolCallBlock) else 0, block)
    if answer.usage is not None and (with_usage or operation not in (Operation.CHAT, Operation.COMPLETIONS)):
        events.append(UsageEvent(answer.usage))
    if answer.error is not None:
        events.append(ErrorEvent(answer.error))
    else:
        stop = _stop_of(operation, answer)
        if operation in (Operation.CHAT, Operation.COMPLETIONS) and isinstance(events[-1], UsageEvent):
            events.insert(len(events) - 1, stop)
        else:
            events.append(stop)
        events.append(EndEvent())
    return _encoded(encoder, seen, events)


def _encoded(encoder: StreamEncoder, seen: Sequence[StreamEvent], events: Sequence[StreamEvent]) -> bytes:
    try:
        encoder.seen(seen)
        return encoder.encode(events) + encoder.finish()
    except IllegalStream as error:
        raise UnreadableBody(f"the stream cannot be changed so: {error}") from error


# --- editing ---


def _edited(operation: Operation, events: list[StreamEvent], offers: Offers) -> list[StreamEvent]:
    """The events with what `offers` puts in the place of their blocks."""
    spans = _spans(operation, events)
    dropped: set[int] = set()
    before: dict[int, list[StreamEvent]] = {}
    """What is put in front of an event, by its place."""
    first_call = min((span.places[0] for span in spans if span.kind == "call"), default=None)
    end_of_content = next((at for at, event in enumerate(events) if _ends_content(event)), len(events))
    numbers = count(_FREE_NUMBERS)
    for span in spans:
        block = _block(operation, events, span)
        given = offers.replacement(block)
        if given is None:
            continue
        found = sort_blocks(given, block)
        choice = _choice(events, span)
        if not found.stays:
            dropped.update(span.places)
            _put_in_place(events, span, block, found, dropped, before)
        place = first_call if span.kind == "call" and first_call is not None else _after(span)
        _add_texts(before.setdefault(place, []), operation, found.texts, choice)
        if found.thinking:
            raise UnreadableBody("thinking cannot be added to a stream")
        for call in found.calls:
            call_id = call.call_id or ("" if operation in _LINES else offers.new_id("call"))
            number = next(numbers)
            new: list[StreamEvent] = [
                ToolCallStart(number, call_id, call.name, b"", choice),
                ToolCallDelta(number, call.arguments),
                ToolCallEnd(number),
            ]
            before.setdefault(_after(span) if span.kind == "call" else end_of_content, []).extend(new)
    edited: list[StreamEvent] = []
    for place, event in enumerate(events):
        edited += before.get(place, ())
        if place not in dropped:
            edited.append(event)
    return edited + before.get(len(events), [])


def _put_in_place(
    events: list[StreamEvent],
    span: _Span,
    block: Block,
    found: Sorted,
    dropped: set[int],
    before: dict[int, list[StreamEvent]],
) -> None:
    """Let the first of the replacement that is of the block's kind stand where the block stood, under its index."""
    at = span.places[0]
    first = events[at]
    if isinstance(first, TextDelta) and found.texts:
        before.setdefault(at, []).append(TextDelta(span.index, found.texts.pop(0)))
    elif isinstance(first, ThinkingDelta) and found.thinking:
        before.setdefault(at, []).append(ThinkingDelta(span.index, found.thinking.pop(0).text))
    elif isinstance(first, ToolCallStart) and isinstance(block, ToolCallBlock) and found.calls:
        call = found.calls.pop(0)
        call_id = call.call_id or first.call_id
        if (call_id, call.name) == (first.call_id, first.name):
            dropped.discard(at)
        else:
            before.setdefault(at, []).append(structs.replace(first, call_id=call_id, name=call.name, raw=b""))
        last = span.places[-1]
        if call.arguments == block.arguments:
            dropped.difference_update(place for place in span.places if place != at)
            return
        ends = isinstance(events[last], ToolCallEnd)
        before.setdefault(last if ends else last + 1, []).append(ToolCallDelta(span.index, call.arguments))
        if ends:
            dropped.discard(last)


def _spans(operation: Operation, events: list[StreamEvent]) -> list[_Span]:
    """The blocks of a stream, in the order in which they begin."""
    spans: list[_Span] = []
    latest: dict[tuple[str, int], _Span] = {}
    for at, event in enumerate(events):
        if isinstance(event, TextDelta):
            key = ("text", event.index)
        elif isinstance(event, ThinkingDelta):
            key = ("thinking", event.index)
        elif isinstance(event, ToolCallStart | ToolCallDelta | ToolCallEnd):
            key = ("call", event.index)
        else:
            if isinstance(event, OpaqueEvent) and event.kind.endswith("_part.added"):
                latest = {key: span for key, span in latest.items() if key[0] == "call"}
            continue
        span = latest.get(key)
        if span is None or (operation in _LINES and key[0] != "call" and spans[-1] is not span):
            span = latest[key] = _Span(*key)
            spans.append(span)
        span.places.append(at)
    return spans


def _block(operation: Operation, events: list[StreamEvent], span: _Span) -> Block:
    """The block that a span's events say."""
    of_span = [events[at] for at in span.places]
    if span.kind == "call":
        start = next((event for event in of_span if isinstance(event, ToolCallStart)), ToolCallStart(span.index, "", ""))
        arguments = "".join(event.arguments for event in of_span if isinstance(event, ToolCallDelta))
        return ToolCallBlock(start.call_id, start.name, arguments)
    text = "".join(event.text for event in of_span if isinstance(event, TextDelta | ThinkingDelta))
    if span.kind == "text":
        return TextBlock(text)
    return ThinkingBlock(text, _signature(events, span) if operation is Operation.MESSAGES else None)


def _signature(events: list[StreamEvent], span: _Span) -> str | None:
    pieces: list[str] = []
    for event in events[span.places[0] :]:
        if isinstance(event, OpaqueEvent) and event.kind == "signature_delta":
            fields = sse_object(event.raw)
            if as_index(fields.get("index")) == span.index:
                pieces.append(as_text(as_object(fields.get("delta")).get("signature")))
    return "".join(pieces) or None


def _choice(events: list[StreamEvent], span: _Span) -> int:
    first = events[span.places[0]]
    return first.choice if isinstance(first, ToolCallStart) else max(span.index, 0)


def _add_texts(added: list[StreamEvent], operation: Operation, texts: list[str], choice: int) -> None:
    """Add texts that stand beside a block: of their own, or joined to their choice's text."""
    for text in texts:
        if operation is Operation.CHAT and choice:
            added.append(TextDelta(choice, f"\n\n{text}"))
        else:
            follows = any(isinstance(event, TextDelta) and event.index == INSERTED for event in added)
            added.append(TextDelta(INSERTED, f"\n\n{text}" if follows else text))


def _after(span: _Span) -> int:
    return span.places[-1] + 1


def _ends_content(event: StreamEvent) -> bool:
    return isinstance(event, StopEvent | EndEvent | ErrorEvent)


# --- making ---


def _said(index: int, block: Block) -> list[StreamEvent]:
    if isinstance(block, TextBlock):
        return [TextDelta(index, block.text)]
    if isinstance(block, ThinkingBlock):
        return [ThinkingDelta(index, block.text)]
    if isinstance(block, ToolCallBlock):
        call = ToolCallStart(index, block.call_id, block.name)
        return [call, ToolCallDelta(index, block.arguments), ToolCallEnd(index)]
    return []


def _thinking(index: int, block: ThinkingBlock) -> bytes:
    """A thinking block with its signature, as the upstream would send it."""
    start: Fields = {"type": "thinking", "thinking": "", "signature": ""}
    deltas: list[Fields] = [{"type": "thinking_delta", "thinking": clean(block.text)}] if block.text else []
    deltas.append({"type": "signature_delta", "signature": clean(block.signature or "")})
    events: list[Fields] = [{"type": "content_block_start", "index": index, "content_block": start}]
    events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    events.append({"type": "content_block_stop", "index": index})
    return b"".join(event_bytes(event, event["type"]) for event in events)


def opening_of(operation: Operation, answer: Answer, transaction_id: str, created: int) -> bytes:
    """The first event of a stream: it carries the answer's id and model."""
    model = clean(answer.model or "")
    if operation is Operation.CHAT:
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        top = {"id": answer.response_id or f"chatcmpl-{transaction_id}", "object": "chat.completion.chunk"}
        return event_bytes({**top, "created": created, "model": model, "choices": [choice]})
    if operation is Operation.MESSAGES:
        usage = messages_usage_fields(answer.usage) if answer.usage else {"input_tokens": 0}
        message: Fields = {"id": answer.response_id or f"msg_{transaction_id}", "type": "message", "role": "assistant",
                           "model": model, "content": [], "stop_reason": None, "stop_sequence": None,
                           "usage": {**usage, "output_tokens": 0}}  # fmt: skip
        return event_bytes({"type": "message_start", "message": message}, "message_start")
    if operation is Operation.RESPONSES:
        response = {"id": answer.response_id or f"resp_{transaction_id}", "object": "response", "created_at": created,
                    "status": "in_progress", "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
                    "model": model, "output": [], "parallel_tool_calls": True, "temperature": None, "tool_choice": "auto",
                    "tools": [], "top_p": None, "usage": None}  # fmt: skip
        fields = {"type": "response.created", "response": response, "sequence_number": 0}
        return event_bytes(fields, "response.created")
    return b""


def _stop_of(operation: Operation, answer: Answer) -> StopEvent:
    if answer.stop_reason:
        return StopEvent(answer.stop_reason)
    words = {Operation.MESSAGES: ("end_turn", "tool_use"), Operation.CHAT: ("stop", "tool_calls")}
    plain, calling = words.get(operation, ("completed", "completed") if operation is Operation.RESPONSES else ("stop", "stop"))
    return StopEvent(calling if answer.tool_calls else plain)
