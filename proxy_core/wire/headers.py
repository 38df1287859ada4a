"""Which headers belong to one hop, and the end-to-end rest."""

from __future__ import annotations

from collections.abc import Iterable

RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_SENT_ON = HOP_BY_HOP | {b"host", b"content-length", b"expect"}


def request_headers(headers: Iterable[tuple[bytes, bytes]], own_prefixes: tuple[bytes, ...]) -> RawHeaders:
    """The headers of a request that go to the upstream; names are lower case already."""
    kept = []
    named: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name == b"connection":
            named |= _tokens(value)
        elif name not in _NOT_SENT_ON and not name.startswith(own_prefixes):
            kept.append((name, value))
    return [header for header in kept if header[0] not in named] if named else kept


def response_headers(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers of a response that go to the client, in lower case, `content-length` included."""
    kept = []
    named: frozenset[bytes] = frozenset()
    for raw_name, value in headers:
        name = raw_name.lower()
        if name == b"connection":
            named |= _tokens(value)
        elif name not in HOP_BY_HOP:
            kept.append((name, value))
    return [header for header in kept if header[0] not in named] if named else kept


def _tokens(value: bytes) -> frozenset[bytes]:
    """The headers that a `connection` header names beside the usual words."""
    tokens = frozenset(token.strip().lower() for token in value.split(b","))
    return tokens - {b"close", b"keep-alive", b"upgrade", b""}


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The announced length of a body in bytes; None where there is none, or not one plain number."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else None
    return None


def value_of(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str:
    """The first value of a header as text; empty where it is absent."""
    for name, value in headers:
        if name == wanted:
            return value.decode("latin-1")
    return ""
