"""The contract of a dialect codec, and the one place that finds the codec of an endpoint.

A codec never raises on bad input, never changes bytes, and reads only when asked.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

from proxy_core.wire.conversation import Answer, Conversation, StreamEvent
from proxy_core.wire.dialects import Operation


class StreamDecoder(Protocol):
    """Reads one response stream, in chunks cut anywhere."""

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that `chunk` completed. One wire event may give several; the first of them carries its raw bytes."""
        ...

    @property
    def rest(self) -> bytes:
        """The bytes of an event that has begun and not ended."""
        ...

    def finish(self) -> Answer:
        """The whole answer so far; `complete` is False where the terminator was not seen. May be called once, at the end."""
        ...


class Codec(Protocol):
    """Reads one operation of one dialect."""

    def read_request(self, body: bytes) -> Conversation: ...

    def read_response(self, body: bytes) -> Answer:
        """The answer in a whole, not streamed body; an error body gives `Answer.error`."""
        ...

    def stream_decoder(self) -> StreamDecoder: ...


@cache
def codec_for(operation: Operation) -> Codec | None:
    """The codec that reads `operation`, or None where bodies are carried unread (files, audio, unknown paths)."""
    from proxy_core.wire import anthropic_messages, ollama, openai_chat, openai_responses

    codecs: dict[Operation, Codec] = {
        Operation.CHAT: openai_chat.CODEC,
        Operation.COMPLETIONS: openai_chat.COMPLETIONS_CODEC,
        Operation.EMBEDDINGS: openai_chat.EMBEDDINGS_CODEC,
        Operation.RESPONSES: openai_responses.CODEC,
        Operation.MESSAGES: anthropic_messages.CODEC,
        Operation.COUNT_TOKENS: anthropic_messages.COUNT_TOKENS_CODEC,
        Operation.OLLAMA_CHAT: ollama.CHAT_CODEC,
        Operation.OLLAMA_GENERATE: ollama.GENERATE_CODEC,
        Operation.OLLAMA_EMBED: ollama.EMBED_CODEC,
    }
    return codecs.get(operation)
