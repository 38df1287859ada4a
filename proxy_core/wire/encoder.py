"""Encoding streams for the client: what no policy touched leaves with its own bytes, the rest is encoded anew and stays legal.

One encoder serves one stream. It sees every event of the upstream first (`seen`) and then what the policies let go
(`encode`). It raises nothing but IllegalStream, whatever is dropped, changed, moved or made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proxy_core.wire.conversation import StreamEvent
from proxy_core.wire.dialects import Operation


class IllegalStream(Exception):
    """What the policies made of a stream cannot be said in its dialect."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        """Name of the rule that it breaks; the validator of streams uses the same names."""
        self.before = b""
        """What was encoded in the same call before it, and is legal."""


class StreamEncoder(Protocol):
    """Encodes one stream."""

    def seen(self, events: Sequence[StreamEvent]) -> None:
        """Events of the upstream as decoded, in order, before any policy. All events of one wire event come in one call."""
        ...

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        """Bytes for the client.

        A wire event whose events all come, as the same objects and in order, leaves with its own bytes where its numbering
        and meaning still hold; a part of one waits for the rest until something else comes. Raises IllegalStream.
        """
        ...

    def heartbeat(self) -> bytes:
        """A sign of life that is legal at this place."""
        ...

    def refusal(self, text: str) -> bytes:
        """End the stream legally with a refusal, from wherever it stands; empty where it has ended. Raises IllegalStream."""
        ...

    def finish(self) -> bytes:
        """What is owed at the end of the upstream's stream: nothing, unless policies dropped its end. Raises IllegalStream."""
        ...

    @property
    def altered(self) -> bool:
        """Whether anything left otherwise than it came, or may have: dropped, changed, moved or added."""
        ...


def encoder_for(operation: Operation, *, model: str = "", transaction_id: str = "") -> StreamEncoder | None:
    """A new encoder, or None where `operation` has no stream that luthien reads.

    `model` and `transaction_id` stand in a stream that begins here, because nothing of the upstream's was seen.
    """
    from proxy_core.wire import encode_anthropic, encode_chat, encode_ollama, encode_responses

    if operation is Operation.CHAT:
        return encode_chat.ChatEncoder(model, transaction_id)
    if operation is Operation.COMPLETIONS:
        return encode_chat.CompletionsEncoder(model, transaction_id)
    if operation is Operation.RESPONSES:
        return encode_responses.ResponsesEncoder(model, transaction_id)
    if operation is Operation.MESSAGES:
        return encode_anthropic.MessagesEncoder(model, transaction_id)
    if operation is Operation.OLLAMA_CHAT:
        return encode_ollama.OllamaEncoder(model, transaction_id)
    if operation is Operation.OLLAMA_GENERATE:
        return encode_ollama.OllamaEncoder(model, transaction_id, chat=False)
    return None
