"""Requests from one dialect into another. Raises nothing but UnreadableBody, and never guesses: what it leaves out it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_json import UnreadableBody, json_of
from proxy_core.wire.translate.form import Request
from proxy_core.wire.translate.read_chat import read_chat
from proxy_core.wire.translate.read_messages import read_messages
from proxy_core.wire.translate.read_ollama import read_ollama
from proxy_core.wire.translate.write_chat import write_chat
from proxy_core.wire.translate.write_messages import write_messages
from proxy_core.wire.translate.write_ollama import write_ollama

ANTHROPIC_VERSION = b"2023-06-01"

_READERS: dict[Operation, Callable[[bytes], Request]] = {
    Operation.CHAT: read_chat,
    Operation.MESSAGES: read_messages,
    Operation.OLLAMA_CHAT: read_ollama,
}
_WRITERS: dict[Operation, Callable[[Request], dict[str, Any]]] = {
    Operation.CHAT: write_chat,
    Operation.MESSAGES: write_messages,
    Operation.OLLAMA_CHAT: write_ollama,
}
_PATHS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.MESSAGES: "/v1/messages",
    Operation.OLLAMA_CHAT: "/api/chat",
}


class Translated(Struct, frozen=True):
    """A request as another dialect says it."""

    body: bytes
    path: str
    """The API's own path."""
    headers: tuple[tuple[bytes, bytes], ...]
    """To be set; the client's own of the same names are to be replaced. Credentials are not among them."""
    lost: tuple[str, ...]
    """What cannot be carried, each thing once; empty where all is."""
    hints: tuple[str, ...]
    """What is left out besides, and changes nothing of the answer; see `hints.py`."""
    stream: bool
    """Whether the client wants a stream."""
    stream_usage: bool
    """Whether the client wants token counts in its stream; for the StreamTranslator."""


def can_translate(source: Operation, target: Operation) -> bool:
    """Whether requests and answers of `source` can be carried over `target`."""
    return source in _READERS and target in _WRITERS and source is not target


def translate_request(source: Operation, target: Operation, body: bytes, *, model: str | None = None) -> Translated:
    """The request of a client that speaks `source`, for an upstream that speaks `target`.

    `model` replaces the model's name. Raises UnreadableBody where the body is not of its form, where it could be read in two
    ways, and where the two operations have nothing to say to each other.
    """
    if not can_translate(source, target):
        raise UnreadableBody(f"{source.value} cannot be translated to {target.value}")
    request = _READERS[source](body)
    if model is not None:
        request.model = model
    client_wants_usage = request.stream_usage
    if target is Operation.CHAT:
        request.stream_usage = True
    translated = bytes(json_of(_WRITERS[target](request)))
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    if target is Operation.MESSAGES:
        headers += ((b"anthropic-version", ANTHROPIC_VERSION),)
    losses = request.losses
    return Translated(translated, _PATHS[target], headers, losses.names, losses.hints, request.stream, client_wants_usage)
