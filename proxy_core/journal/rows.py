"""From records to rows: redaction, content addressing and compression, in one pure step.

Stored bodies start with one byte that names their form: `0` plain, `1` zstd, `2` a recipe of pieces, `3` nothing kept.
A recipe is msgpack `[skeleton, [offset…], [hash…]]`: the body is the skeleton with each piece put in at its offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

import msgspec
import zstandard

from proxy_core.detectors.secrets import redact_formats, redact_headers, redact_known, redact_query
from proxy_core.journal.records import Intent, Outcome, Piece, Record, clean
from proxy_core.wire.encodings import UnreadableEncoding, decoded

Capture = Literal["full", "redacted", "metadata"]
Row = tuple[Any, ...]

PLAIN, ZSTD, RECIPE, ABSENT = b"0", b"1", b"2", b"3"
COMPRESS_FROM_BYTES = 1_024
KNOWN_HASHES = 50_000
HASH_BYTES = 16

_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode


class RowSet:
    """Rows of one batch, table by table, in the column order of `journal.schema` without `seq`."""

    __slots__ = ("messages", "outcomes", "transactions")

    def __init__(self) -> None:
        self.transactions: list[Row] = []
        self.outcomes: list[Row] = []
        self.messages: list[Row] = []

    def as_lists(self) -> dict[str, list[Row]]:
        return {"messages": self.messages, "transactions": self.transactions, "outcomes": self.outcomes}


class RecentlySeen:
    """A set that remembers at least half of its capacity of the latest members: two generations, far smaller than an LRU."""

    def __init__(self, capacity: int) -> None:
        self._half = capacity // 2
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()

    def __contains__(self, member: bytes) -> bool:
        if member in self._young:
            return True
        if member in self._old:
            self.add(member)
            return True
        return False

    def add(self, member: bytes) -> None:
        if len(self._young) >= self._half:
            self._old, self._young = self._young, set()
        self._young.add(member)

    def clear(self) -> None:
        self._young, self._old = set(), set()


class RowBuilder:
    """Turns records into rows. Remembers which messages are stored already; used by one thread at a time."""

    def __init__(self, *, key: bytes, capture: Capture) -> None:
        self._key = key
        self._capture = capture
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._stored = RecentlySeen(KNOWN_HASHES)

    def build(self, records: Iterable[Record]) -> RowSet:
        rows = RowSet()
        for record in records:
            if isinstance(record, Intent):
                rows.transactions.append(self._intent(record, rows.messages))
            else:
                rows.outcomes.append(self._outcome(record))
        return rows

    def forget_stored(self) -> None:
        """After a batch that was not stored: nothing is taken for stored any more."""
        self._stored.clear()

    def digest(self, content: bytes | memoryview) -> bytes:
        return blake2b(content, digest_size=HASH_BYTES, key=self._key).digest()

    def _intent(self, intent: Intent, messages: list[Row]) -> Row:
        body, redacted = self._request_body(intent, messages)
        return (
            intent.transaction_id,
            intent.started_ns,
            intent.method[:16],
            clean(intent.path, 16_384),
            redact_known(redact_query(intent.query), intent.secrets),
            intent.dialect,
            intent.operation,
            clean(intent.session_id, 200),
            clean(intent.predecessor, 200),
            clean(intent.agent, 200),
            clean(intent.model, 200),
            intent.upstream,
            intent.reason,
            int(intent.stream),
            intent.client,
            "" if self._capture == "metadata" else self._text(intent.preview, intent.secrets, 200),
            _encode_json(redact_headers(intent.headers, intent.secrets)),
            body,
            len(intent.body),
            self._hash(intent.body),
            int(redacted),
            intent.chain,
            intent.history_length,
        )

    def _outcome(self, outcome: Outcome) -> Row:
        stored, redacted = self._response_body(outcome)
        error = outcome.error or outcome.answer_error
        if self._capture == "metadata" and not outcome.error:
            error = outcome.answer_error.partition(":")[0]
        return (
            outcome.transaction_id,
            outcome.finished_ns,
            outcome.outcome,
            outcome.status,
            outcome.verdict,
            _encode_json(redact_headers(outcome.headers, outcome.secrets)),
            stored,
            outcome.body_bytes,
            self._hash(outcome.body),
            int(redacted),
            int(outcome.complete),
            clean(outcome.model, 200),
            clean(outcome.response_id, 200),
            outcome.input_tokens,
            outcome.output_tokens,
            outcome.cached_tokens,
            outcome.cache_write_tokens,
            outcome.reasoning_tokens,
            outcome.cost_usd,
            outcome.ttft_ms,
            outcome.total_ms,
            outcome.overhead_ms,
            _encode_json(outcome.timing),
            self._text(error, outcome.secrets, 1_000),
            clean(outcome.stop_reason, 100),
            outcome.tool_calls,
        )

    def _redact(self, text: bytes, secrets: Sequence[bytes]) -> bytes:
        text = redact_known(text, secrets)
        return redact_formats(text) if self._capture == "redacted" else text

    def _hash(self, body: bytes) -> bytes:
        """What is left of a body that is not kept."""
        return self.digest(body) if body and self._capture == "metadata" else b""

    def _text(self, text: str, secrets: Sequence[bytes], limit: int) -> str:
        if not text:
            return text
        return clean(self._redact(text.encode("utf-8", "replace"), secrets).decode("utf-8", "replace"), limit)

    def _response_body(self, outcome: Outcome) -> tuple[bytes, bool]:
        """The response's body as stored, and whether something was taken out of it."""
        if self._capture == "metadata":
            return ABSENT, False
        body = outcome.body
        encoding = next((value for name, value in outcome.headers if name == b"content-encoding"), b"")
        if encoding and body:
            try:
                readable = decoded(body, encoding.decode("latin-1"))
            except UnreadableEncoding:
                readable = b""
            kept = self._redact(readable, outcome.secrets)
            # A key inside a compressed body cannot be cut out of it: then the body is kept in its readable form.
            return (self._pack(body), False) if kept == readable else (self._pack(kept), True)
        kept = self._redact(body, outcome.secrets)
        return self._pack(kept), kept != body

    def _pack(self, body: bytes) -> bytes:
        if len(body) < COMPRESS_FROM_BYTES:
            return PLAIN + body
        return ZSTD + self._compress(body)

    def _request_body(self, intent: Intent, messages: list[Row]) -> tuple[bytes, bool]:
        if self._capture == "metadata":
            return ABSENT, False
        redacted = False
        skeleton, offsets, hashes = cut(intent.body, intent.pieces)
        for digest, piece in intent.pieces:
            if digest in self._stored:
                continue
            kept = self._redact(bytes(piece), intent.secrets)
            changed = len(kept) != len(piece) or kept != piece
            messages.append((digest, len(piece), int(changed), self._pack(kept)))
            self._stored.add(digest)
        kept_skeleton = self._redact(skeleton, intent.secrets)
        if kept_skeleton != skeleton:
            # Offsets no longer fit a skeleton of another length: keep this body whole.
            redacted = True
            return self._pack(self._redact(intent.body, intent.secrets)), redacted
        if not hashes:
            return self._pack(skeleton), redacted
        return RECIPE + _encode((skeleton, offsets, hashes)), redacted


def cut(body: bytes, pieces: Sequence[Piece]) -> tuple[bytes, list[int], list[bytes]]:
    """`body` without its pieces, where each was taken out (as an offset in what remains), and their hashes.

    Any occurrence of a piece's bytes after the previous one will do: putting the same bytes back gives the same body.
    """
    if not pieces:
        return body, [], []
    rest: list[bytes] = []
    offsets: list[int] = []
    hashes: list[bytes] = []
    position = 0
    length = 0
    for digest, piece in pieces:
        found = body.find(piece, position)
        if found < 0:
            continue
        rest.append(body[position:found])
        length += found - position
        offsets.append(length)
        hashes.append(digest)
        position = found + len(piece)
    rest.append(body[position:])
    return b"".join(rest), offsets, hashes


def recipe_of(stored: bytes) -> tuple[bytes, list[int], list[bytes]] | None:
    """The recipe in a stored body, or None where it is none."""
    if stored[:1] != RECIPE:
        return None
    skeleton, offsets, hashes = msgspec.msgpack.decode(stored[1:])
    return skeleton, offsets, hashes


def unpack(stored: bytes) -> bytes:
    """A stored body that is no recipe, as it was."""
    form = stored[:1]
    if form == ZSTD:
        return zstandard.ZstdDecompressor().decompress(stored[1:], max_output_size=1 << 31)
    return b"" if form == ABSENT else stored[1:]


def assemble(skeleton: bytes, offsets: Sequence[int], hashes: Sequence[bytes], pieces: Mapping[bytes, bytes]) -> bytes:
    """Put the pieces back. Raises KeyError for a piece that is not there."""
    parts: list[bytes] = []
    position = 0
    for offset, digest in zip(offsets, hashes, strict=True):
        parts.append(skeleton[position:offset])
        parts.append(pieces[digest])
        position = offset
    parts.append(skeleton[position:])
    return b"".join(parts)
