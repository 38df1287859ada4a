"""What an interceptor is, and what it is told: records of transactions that have begun and ended.

An interceptor is a passive observer. It runs in a process of its own, after the fact, and nothing that it does, raises or waits
for reaches the traffic. Records never change; they hold the traffic as it was, secrets included, so whatever is written
anywhere goes through `redacted`, `redacted_text` or `shown_headers` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Struct
from pydantic import BaseModel, ConfigDict

from proxy_core.detectors.secrets import redact_query, redacted_headers
from proxy_core.interceptors.redaction import redacted
from proxy_core.verdicts import Verdict
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer
from proxy_core.wire.dialects import Operation
from proxy_core.wire.encodings import UnreadableEncoding, decoded

if TYPE_CHECKING:
    from proxy_core.interceptors.events import Event
    from proxy_core.interceptors.surroundings import Surroundings
    from proxy_core.policy_services import Call


@lru_cache(maxsize=256)
def timestamp_of(at: float) -> str:
    """Unix time as ISO 8601 with offset."""
    return datetime.fromtimestamp(at, UTC).isoformat()


RawHeaders = list[tuple[bytes, bytes]]
STREAM_TYPES = ("text/event-stream", "application/x-ndjson")


class Config(BaseModel):
    """The keys of an interceptor in the configuration: unknown ones are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Begun(Struct, frozen=True, kw_only=True):
    """A request that is on record and about to be sent on, or was refused."""

    transaction_id: str
    started_at: float
    """Unix time in seconds at its first byte."""
    method: str
    path: str
    """As the client sent it, without the query."""
    query: bytes
    headers: RawHeaders
    """Names in lower case, credentials included."""
    body: bytes
    client: str
    """The client's address, `host:port`."""
    dialect: str
    """`openai`, `anthropic` or `ollama`; empty where the path belongs to no API."""
    operation: str
    """A value of wire.dialects.Operation; empty as well."""
    model: str
    upstream: str
    """Where it is meant to go; policies and failures may yet send it elsewhere."""
    reason: str
    stream: bool
    session_id: str
    """Empty where none could be told."""
    predecessor: str
    """The expired session that this one continues."""
    parent_session: str
    link: str
    """How the session was told: `header`, `mark`, `response`, `prefix`, `inferred`, `new` or `none`."""
    side: bool
    """Whether it stands beside the conversation: a title, a summary, a memory."""
    agent: str
    user: str
    tags: tuple[tuple[str, str], ...]
    workflow: str
    key: str
    """Name of the client's key, never the key."""
    history: tuple[memoryview, ...]
    """Each entry of `messages` or `input` as a slice of the body."""
    history_hashes: tuple[bytes, ...]
    """A keyed hash of each entry."""
    system: bytes
    """System prompt or instructions as raw JSON; a leading system message as a whole."""
    secrets: tuple[bytes, ...]
    """The credentials that it carries."""
    _shown_body: bytes | None = None

    @property
    def shown_body(self) -> bytes:
        """The body as it may be written; the same object where there was nothing to take out."""
        if self._shown_body is None:
            msgspec.structs.force_setattr(self, "_shown_body", self.redacted(self.body))
        return self._shown_body or b""

    def redacted(self, raw: bytes) -> bytes:
        """Bytes of this transaction as they may be written: without its credentials and all that looks like a key."""
        return redacted(raw, self.secrets)

    def redacted_text(self, text: str) -> str:
        """The same for text."""
        if not text:
            return text
        raw = text.encode("utf-8", "replace")
        kept = self.redacted(raw)
        return text if kept is raw else kept.decode("utf-8", "replace")

    def shown_headers(self, headers: RawHeaders) -> tuple[list[tuple[str, str]], bool]:
        """Headers of this transaction as they may be written, and whether anything was taken out."""
        return redacted_headers(headers, self.secrets)

    @property
    def shown_query(self) -> str:
        """The query as it may be written."""
        return self.redacted(redact_query(self.query)).decode("latin-1") if self.query else ""


class Finished(Struct, frozen=True, kw_only=True):
    """A transaction that has ended and whose outcome is on record. None is unknown, never zero."""

    begun: Begun
    finished_at: float
    """Unix time in seconds."""
    outcome: str
    """A value of transaction_row.Outcome."""
    verdict: str
    verdicts: tuple[Verdict, ...]
    status: int | None
    """HTTP status sent to the client; None where nothing was."""
    headers: RawHeaders
    """Of the answer."""
    content_type: str
    content_encoding: str
    body: bytes
    """What the client was given, or the beginning of it."""
    body_bytes: int
    """Its full length."""
    complete: bool
    arrivals: list[tuple[int, float]]
    """Pieces of the answer as they came: offset of the piece's end, and ms since the first byte of the request."""
    upstream: str
    """The upstream that was asked last; empty where none was."""
    upstream_api: str
    """The API that it speaks."""
    upstream_answered: bool
    translated: bool
    """Whether the upstream spoke another API than the client; what is here of its answer is in the client's."""
    upstream_status: int | None
    """Its status, where policies made the client's differ."""
    upstream_body: bytes | None
    """Its body, without content encoding, where policies made the client's differ."""
    reason: str
    """Why it went there: routing reason codes."""
    model: str
    """As asked for, or as answered where the request names none."""
    response_id: str
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    estimated: bool
    """Whether luthien estimated the tokens."""
    cost_usd: float | None
    ttft_ms: float | None
    total_ms: float | None
    error: str
    """What luthien says went wrong."""
    answer_error: str
    """`type: message` of an error that the upstream reported."""
    stop_reason: str
    tool_calls: int
    calls: tuple[Call, ...] = ()
    """What policies asked upstreams beside the request, or in its place, and what they were answered."""
    _answer: Answer | None = None
    _readable_body: bytes | None = None
    _shown_body: bytes | None = None

    @property
    def shown_body(self) -> bytes:
        """The body as it may be written; the same object where there was nothing to take out."""
        if self._shown_body is None:
            msgspec.structs.force_setattr(self, "_shown_body", self.begun.redacted(self.body))
        return self._shown_body or b""

    @property
    def readable_body(self) -> bytes:
        """The body without content encoding; as it is where that cannot be undone."""
        if not self.content_encoding:
            return self.body
        if self._readable_body is None:
            try:
                readable = decoded(self.body, self.content_encoding)
            except UnreadableEncoding:
                readable = self.body
            msgspec.structs.force_setattr(self, "_readable_body", readable)
        return self._readable_body or b""

    @property
    def is_stream(self) -> bool:
        return self.content_type.startswith(STREAM_TYPES)

    @property
    def may_call_tools(self) -> bool:
        """Whether the answer may ask for tools: quicker than `answer`, and never False where it does. A whole answer with a call
        has one of three words in it, whatever its dialect; the last stands for letters that are written otherwise."""
        body = self.readable_body
        return self.is_stream or b"_call" in body or b"tool_use" in body or b"\\u" in body

    @property
    def answer(self) -> Answer:
        """What the client was answered, in the canonical form; read once, at the first call."""
        if self._answer is None:
            msgspec.structs.force_setattr(self, "_answer", self._read())
        return self._answer or Answer()

    def _read(self) -> Answer:
        operation = self.begun.operation
        codec = codec_for(Operation(operation)) if operation else None
        body = self.readable_body
        if codec is None or not body:
            return Answer(complete=self.complete)
        if not self.is_stream:
            return codec.read_response(body)
        decoder = codec.stream_decoder()
        decoder.feed(body)
        return decoder.finish()


C = TypeVar("C", bound=Config)


class Interceptor(Generic[C]):
    """Watches transactions. A subclass sets `config_model` and overrides what it wants to hear; it is never called
    from two threads at a time, and whatever it raises is counted, logged once a minute and forgotten."""

    config_model: ClassVar[type[Any]] = Config
    times_chunks: ClassVar[bool] = False
    """Whether it wants the time of every chunk of a stream (the first 20,000), not of the first 64 alone."""
    dropped = 0
    """What it had to leave out itself, beside what never reached it; counts in `luthien_interceptor_dropped_total`."""

    def __init__(self, config: C, surroundings: Surroundings) -> None:
        """Raises ConfigurationError where it cannot work; touches neither disk nor network yet."""
        self.config = config
        self.surroundings = surroundings

    def start(self) -> None:
        """Records will come. Called once, first; threads are to be started here, since elsewhere they may inherit a priority
        at which they get a CPU only where nobody else wants it."""

    def begun(self, begun: Begun) -> None:
        """A request came."""

    def finished(self, finished: Finished) -> None:
        """A transaction ended."""

    def events(self, events: Sequence[Event]) -> None:
        """What a transaction means in the event schema; comes beside `begun` and `finished`, and when a session ends."""

    def flush(self, now: float) -> None:
        """After each batch, and a few times a second while nothing happens: write what was gathered. `now` is a monotonic clock
        in seconds."""

    def close(self) -> None:
        """The gateway stops: write the rest at once. Called once, last."""
