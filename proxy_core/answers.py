"""What an upstream's answer says, read once after it has ended: usage, tool calls, stop reason, error.

Reading never changes or delays what the client gets but for its own time; large bodies are read in a thread.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from proxy_core.running import Running
from proxy_core.wire.codec import Codec, codec_for
from proxy_core.wire.conversation import (
    Answer,
    Block,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)
from proxy_core.wire.encodings import UnreadableEncoding, decoded

THREAD_FROM_BYTES = 256 * 1024
_CONTENT = (TextDelta, ThinkingDelta, ToolCallStart, ToolCallDelta)


class Reading(Struct):
    """An answer's facts; the defaults are those of a body that nobody can read."""

    usage: Usage | None = None
    stop_reason: str = ""
    tools: tuple[str, ...] = ()
    """The tool of each call, in order."""
    model: str = ""
    response_id: str = ""
    error: str = ""
    problem: str = ""
    complete: bool = True
    answer: Answer | None = None
    """The whole of it; None where nobody could read it."""
    said_chars: int = 0
    """Characters of text, thinking and tool calls; counted only where the answer does not tell all its tokens."""
    first_token_offset: int = 0
    """Bytes of the body before the event that carries the first token; 0 for a body that is no stream."""


async def read_large_answer(running: Running) -> Reading:
    """The same in a thread, for answers from `THREAD_FROM_BYTES` on."""
    return await asyncio.to_thread(read_answer, running)


def read_answer(running: Running) -> Reading:
    """Read the response that `running` has received."""
    codec = codec_for(running.operation)
    if codec is None:
        return Reading()
    cut = running.received > len(running.response)
    reading = _read(codec, bytes(running.response), running.content_type, running.content_encoding)
    if cut:
        # What is not kept was not read: nothing can be said of the end of this answer.
        reading.complete = True
        reading.problem = "only the beginning of the body was kept and read"
    return reading


def _read(codec: Codec, body: bytes, content_type: str, encoding: str) -> Reading:
    if encoding:
        try:
            body = decoded(body, encoding)
        except UnreadableEncoding as error:
            return Reading(problem=str(error))
    if content_type.startswith(("text/event-stream", "application/x-ndjson")):
        return _read_stream(codec, body)
    return reading_of(codec.read_response(body))


def _read_stream(codec: Codec, body: bytes) -> Reading:
    decoder = codec.stream_decoder()
    offset = 0
    first = 0
    for event in decoder.feed(body):
        if isinstance(event, _CONTENT):
            first = offset
            break
        offset += len(event.raw)
    reading = reading_of(decoder.finish())
    reading.first_token_offset = first
    return reading


def reading_of(answer: Answer) -> Reading:
    """An answer's facts."""
    error, usage = answer.error, answer.usage
    told = answer.complete and usage is not None and usage.output_tokens is not None
    return Reading(
        usage=usage,
        stop_reason=answer.stop_reason or "",
        tools=tuple([block.name for block in answer.blocks if isinstance(block, ToolCallBlock)]),
        model=answer.model or "",
        response_id=answer.response_id or "",
        error=f"{error.type}: {error.message}" if error else "",
        problem=answer.problem or "",
        complete=answer.complete,
        answer=answer,
        said_chars=0 if told else sum(map(_length, answer.blocks)),
    )


def _length(block: Block) -> int:
    if isinstance(block, TextBlock | ThinkingBlock):
        return len(block.text)
    return len(block.name) + len(block.arguments) if isinstance(block, ToolCallBlock) else 0
