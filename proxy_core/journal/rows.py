"""From records to rows: redaction, content addressing and compression, in one pure step.

The rows stand in the column order of `journal.schema`; bodies are in the forms of `journal.bodies`. Nothing that a client,
an upstream or a policy says can make it fail: what cannot be stored as it is, is stored as what can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

import msgspec
import zstandard

from proxy_core.detectors.secrets import redact_formats, redact_headers, redact_known, redact_query
from proxy_core.hold_record import HoldRecord
from proxy_core.journal.bodies import ABSENT, PLAIN, ZSTD, cut, recipe
from proxy_core.journal.records import ControlChange, Intent, LateVerdicts, Outcome, Piece, RawHeaders, Record, Sent, clean
from proxy_core.journal.said import plain, stored_verdicts
from proxy_core.verdicts import Verdict
from proxy_core.wire.encodings import UnreadableEncoding, decoded
from proxy_core.wire.glance import glance

Capture = Literal["full", "redacted", "metadata"]
Row = tuple[Any, ...]

COMPRESS_FROM_BYTES = 1_024
PIECE_FROM_BYTES = 64
"""Smaller parts of a body stay in it: a row of their own would be larger than they are."""
KNOWN_HASHES = 16_000
HASH_BYTES = 16
MAX_TOOLS = 50
"""Tools that are counted of one answer."""

HOLD_FACTS = ("on_timeout", "operation", "target", "key", "session_id", "agent", "model", "tool", "call_id")

_ADDED: dict[str, tuple[int, Row]] = {
    "transactions": (23, ("", "", "", "", "", "", "", 0)),
    "outcomes": (26, (None, "", "", 0, "", "")),
}
"""Tables that have grown: how many columns a row of the first version has, and what the later ones are without a value."""

_encode_json = msgspec.json.Encoder().encode


class RowSet:
    """Rows of one batch, table by table, in the column order of `journal.schema` without `seq`."""

    __slots__ = ("messages", "others", "outcomes", "transactions")

    def __init__(self) -> None:
        self.transactions: list[Row] = []
        self.outcomes: list[Row] = []
        self.messages: list[Row] = []
        self.others: dict[str, list[Row]] = {}
        """Tables that most batches have nothing for."""

    def add(self, table: str, row: Row) -> None:
        self.others.setdefault(table, []).append(row)

    def as_lists(self) -> dict[str, list[Row]]:
        return {"messages": self.messages, "transactions": self.transactions, "outcomes": self.outcomes, **self.others}


def grown(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Rows that an older version spooled, as the tables are now."""
    found: dict[str, list[Row]] = {}
    for table, table_rows in rows.items():
        first, rest = _ADDED.get(table, (0, ()))
        found[table] = [(*row, *rest[len(row) - first :]) if len(row) >= first else row for row in table_rows]
    return found


def keyed_hash(key: bytes) -> Callable[[bytes | memoryview], bytes]:
    """The keyed hash of contents: 16 bytes of BLAKE2b. The key is taken in once, which halves the cost of short contents."""
    begun = blake2b(digest_size=HASH_BYTES, key=key).copy

    def digest(content: bytes | memoryview) -> bytes:
        one = begun()
        one.update(content)
        return one.digest()

    return digest


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
        self.digest = keyed_hash(key)
        self._capture = capture
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._stored = RecentlySeen(KNOWN_HASHES)

    def build(self, records: Iterable[Record]) -> RowSet:
        rows = RowSet()
        for record in records:
            if isinstance(record, Intent):
                rows.transactions.append(self._intent(record, rows.messages))
            elif isinstance(record, Outcome):
                rows.outcomes.append(self._outcome(record))
                if record.upstream_body is not None or record.upstream_status is not None:
                    rows.add("upstream_answers", self._upstream_answer(record))
            elif isinstance(record, Sent):
                rows.add("sent_requests", self._sent(record, rows.messages))
            elif isinstance(record, LateVerdicts):
                rows.add("late_verdicts", self._late_verdicts(record))
            elif isinstance(record, HoldRecord):
                rows.add("holds", self._hold(record))
            else:
                rows.add("control_changes", self._control_change(record))
        return rows

    def forget_stored(self) -> None:
        """After a batch that was not stored: nothing is taken for stored any more."""
        self._stored.clear()

    # --- one row each ---

    def _intent(self, intent: Intent, messages: list[Row]) -> Row:
        body, redacted = self._request_body(intent.body, intent.pieces, intent.secrets, messages)
        return (
            intent.transaction_id,
            intent.started_ns,
            intent.method[:16],
            self._name(intent.path, intent.secrets, 16_384),
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
            intent.policy_digest,
            intent.key and clean(intent.key, 200),
            intent.user and self._name(intent.user, intent.secrets),
            self._tags(intent.tags, intent.secrets) if intent.tags else "",
            intent.workflow and self._name(intent.workflow, intent.secrets),
            intent.parent_session and clean(intent.parent_session, 200),
            intent.link,
            int(intent.side),
        )

    def _outcome(self, outcome: Outcome) -> Row:
        stored, redacted = self._response_body(outcome.body, outcome.headers, outcome.secrets)
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
            self._verdicts(outcome.verdicts, outcome.secrets),
            outcome.upstream,
            outcome.reason,
            int(outcome.estimated),
            self._tools(outcome.tools, outcome.secrets) if outcome.tools else "",
            outcome.address,
        )

    def _sent(self, sent: Sent, messages: list[Row]) -> Row:
        pieces: list[Piece] = []
        if self._capture != "metadata":
            # What the policies left alone has the hash of the intent's piece, so it is there already.
            seen = glance(sent.body)
            parts = (*seen.preamble, *seen.history)
            pieces = [(self.digest(part), part) for part in parts if len(part) >= PIECE_FROM_BYTES]
        body, redacted = self._request_body(sent.body, pieces, sent.secrets, messages)
        path, mark, query = sent.target.partition(b"?")
        return (
            sent.transaction_id,
            sent.at_ns,
            sent.upstream,
            sent.reason,
            redact_known(path + mark + redact_query(query), sent.secrets),
            _encode_json(redact_headers(sent.headers, sent.secrets)),
            body,
            len(sent.body),
            self._hash(sent.body),
            int(redacted),
            self._verdicts(sent.verdicts, sent.secrets),
        )

    def _upstream_answer(self, outcome: Outcome) -> Row:
        body = outcome.upstream_body or b""
        stored, redacted = self._body(body, outcome.secrets)
        if outcome.upstream_body is None:
            stored = ABSENT
        return (outcome.transaction_id, outcome.upstream_status, stored, len(body), self._hash(body), int(redacted))

    def _late_verdicts(self, late: LateVerdicts) -> Row:
        return (late.transaction_id, late.at_ns, self._verdicts(late.verdicts, late.secrets) or b"[]")

    def _control_change(self, change: ControlChange) -> Row:
        def json(tree: dict[str, Any]) -> bytes:
            return _encode_json(plain(tree, self._setting))

        return (
            change.at_ns,
            clean(change.who, 200),
            change.source,
            clean(change.what, 200),
            json(change.before),
            json(change.after),
            change.digest_before,
            change.digest_after,
            None if change.override is None else json(change.override),
            change.declared,
        )

    def _hold(self, hold: HoldRecord) -> Row:
        content = hold.content.encode("utf-8", "replace")
        stored, redacted = self._body(content, hold.secrets)
        edited = None if hold.edited is None else self._body(hold.edited.encode("utf-8", "replace"), hold.secrets)[0]
        keep = self._keep(hold.secrets)
        return (
            clean(hold.id, 64),
            clean(hold.transaction_id, 32),
            clean(hold.stage, 16),
            clean(hold.policy, 200),
            clean(keep(hold.why), 2_000),
            stored,
            len(content),
            self._hash(content),
            clean(hold.shown, 64),
            hold.created_ns,
            hold.deadline_ns,
            clean(hold.status, 16),
            clean(hold.decided_by, 200),
            clean(keep(hold.message), 2_000),
            edited,
            hold.at_ns,
            int(redacted),
            _encode_json(self._facts(hold)),
        )

    def _facts(self, hold: HoldRecord) -> dict[str, Any]:
        """What else is known of a hold, where there is something to say."""
        facts: dict[str, Any] = {name: text for name in HOLD_FACTS if (text := clean(getattr(hold, name), 1_000))}
        if hold.streamed:
            facts["streamed"] = True
        if hold.tool_schema:
            facts["tool_schema"] = self._keep(hold.secrets)(hold.tool_schema)
        return facts

    # --- texts ---

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

    def _name(self, text: str, secrets: Sequence[bytes], limit: int = 600) -> str:
        """What a client calls something. In every mode of capture, and never with a secret in it."""
        raw = redact_formats(redact_known(text.encode("utf-8", "replace"), secrets))
        return clean(raw.decode("utf-8", "replace"), limit)

    def _tags(self, tags: Sequence[tuple[str, str]], secrets: Sequence[bytes]) -> str:
        kept = {self._name(name, secrets): self._name(value, secrets) for name, value in tags}
        return _encode_json(kept).decode("utf-8")

    def _tools(self, names: Sequence[str], secrets: Sequence[bytes]) -> str:
        """How often each tool was called; of more than 50 tools those that came first."""
        counts: dict[str, int] = {}
        for name in names:
            kept = self._name(name, secrets)[:200]
            if kept in counts or len(counts) < MAX_TOOLS:
                counts[kept] = counts.get(kept, 0) + 1
        return _encode_json(counts).decode("utf-8")

    def _keep(self, secrets: Sequence[bytes]) -> Callable[[str], str]:
        """What is stored of a text that a policy or an operator wrote and that may quote the traffic."""

        def keep(text: str) -> str:
            raw = text.encode("utf-8", "replace")
            if not raw:
                return ""
            if self._capture == "metadata":
                return f"[{len(raw)} bytes, hash {self.digest(raw).hex()}]"
            return self._redact(raw, secrets).decode("utf-8", "replace")

        return keep

    def _setting(self, text: str) -> str:
        """A value of the configuration: its secrets are masked already, so this is for those that nobody declared as such."""
        return redact_formats(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def _verdicts(self, verdicts: Sequence[Verdict], secrets: Sequence[bytes]) -> bytes | None:
        return stored_verdicts(verdicts, self._keep(secrets)) if verdicts else None

    # --- bodies ---

    def _body(self, body: bytes, secrets: Sequence[bytes]) -> tuple[bytes, bool]:
        """A body as stored, and whether something was taken out of it."""
        if self._capture == "metadata":
            return ABSENT, False
        kept = self._redact(body, secrets)
        return self._pack(kept), kept != body

    def _response_body(self, body: bytes, headers: RawHeaders, secrets: Sequence[bytes]) -> tuple[bytes, bool]:
        encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
        if not encoding or not body or self._capture == "metadata":
            return self._body(body, secrets)
        try:
            readable = decoded(body, encoding.decode("latin-1"))
        except UnreadableEncoding:
            readable = b""
        kept = self._redact(readable, secrets)
        # A key inside a compressed body cannot be cut out of it: then the body is kept in its readable form.
        return (self._pack(body), False) if kept == readable else (self._pack(kept), True)

    def _pack(self, body: bytes) -> bytes:
        if len(body) < COMPRESS_FROM_BYTES:
            return PLAIN + body
        return ZSTD + self._compress(body)

    def _request_body(
        self, whole: bytes, pieces: Sequence[Piece], secrets: Sequence[bytes], messages: list[Row]
    ) -> tuple[bytes, bool]:
        if self._capture == "metadata":
            return ABSENT, False
        skeleton, offsets, hashes = cut(whole, pieces)
        for digest, piece in pieces:
            if digest in self._stored:
                continue
            kept = self._redact(bytes(piece), secrets)
            changed = len(kept) != len(piece) or kept != piece
            messages.append((digest, len(piece), int(changed), self._pack(kept)))
            self._stored.add(digest)
        if self._redact(skeleton, secrets) != skeleton:
            # Offsets no longer fit a skeleton of another length: keep this body whole.
            return self._pack(self._redact(whole, secrets)), True
        return (recipe(skeleton, offsets, hashes) if hashes else self._pack(skeleton)), False
