"""What the journal is given: an intent before anything is sent, an outcome before the last byte goes back.

Both are appended, never changed afterwards. They hold the raw bytes; what is stored of them is decided while writing
(`journal.rows`), off the event loop.
"""

from __future__ import annotations

from msgspec import Struct

RawHeaders = list[tuple[bytes, bytes]]
Piece = tuple[bytes, memoryview]
"""The keyed hash of a part of a request body, and the part itself."""


class Intent(Struct, kw_only=True):
    """A request that is about to be sent to an upstream, or was refused."""

    transaction_id: str
    started_ns: int
    """Unix time in nanoseconds at the first byte of the request."""
    method: str
    path: str
    query: bytes
    dialect: str
    operation: str
    session_id: str
    predecessor: str
    """The expired session that this one continues; empty for most."""
    agent: str
    model: str
    upstream: str
    reason: str
    stream: bool
    client: str
    """Address of the client, `host:port`."""
    preview: str
    headers: RawHeaders
    body: bytes
    pieces: tuple[Piece, ...]
    """Parts of the body, in order, that are stored once however often they are sent."""
    chain: bytes
    """Hash over the whole history, by which a continuation is recognised; empty where there is none."""
    history_length: int
    secrets: tuple[bytes, ...]
    """Known credentials to take out of whatever is stored."""


class Outcome(Struct, kw_only=True):
    """How a transaction ended."""

    transaction_id: str
    finished_ns: int
    outcome: str
    """A value of control.rows.Outcome."""
    status: int | None
    verdict: str
    headers: RawHeaders
    body: bytes
    """The response body as received, or its beginning."""
    body_bytes: int
    """Its full length."""
    complete: bool
    model: str
    response_id: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    ttft_ms: float | None = None
    total_ms: float | None = None
    overhead_ms: float | None = None
    timing: dict[str, float | None]
    error: str
    """What luthien says went wrong; empty where nothing did."""
    answer_error: str
    """`type: message` of an error that the upstream reported; its message is content."""
    stop_reason: str
    tool_calls: int
    secrets: tuple[bytes, ...]


Record = Intent | Outcome


def clean(text: str, limit: int) -> str:
    """`text` as every text column takes it: no NUL, no lone surrogate, at most `limit` characters."""
    if text.isascii() and len(text) <= limit and "\x00" not in text:
        return text
    return text[:limit].replace("\x00", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode("utf-8")
