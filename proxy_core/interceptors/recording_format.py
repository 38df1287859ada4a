"""The lines of an HTTP recording: one JSON object a line, a request, a response or an error.

The names and meanings of Cylestio's http_recorder are kept, so that its readers understand the basic fields, and its lines are
read here. What it lacks stands beside them: `transaction_id` ties the lines of one transaction, headers keep their order and
repetitions, a body is what it was to the last byte, and `chunks` say when which part of the upstream's answer came.
Nothing is redacted here: what is given is written.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

FORMAT = 1
"""Stands in each line that luthien wrote."""
_NULL = Raw(b"null")

Pairs = Iterable[tuple[bytes, bytes]]


class UnreadableRecord(ValueError):
    """A line that is no record; the message says why, without file and line."""


class Body(Struct, kw_only=True, omit_defaults=True):
    """The bytes of a body. Make it with `body_of`, read it with `bytes_of`."""

    size: int
    """Bytes of the body as it was, also where less of it is here."""
    type: str = ""
    """`json`, `text` (UTF-8) or `binary`; empty where there is no content."""
    encoding: str = ""
    """`base64` for `binary`."""
    content: Raw = _NULL
    """A JSON value: the body's own, its text, or its bytes in base64."""
    raw: str | None = None
    """The exact text of a `json` body that cannot stand in a line as it is: one with line breaks or spaces around it."""
    truncated: bool = False
    """Whether only the beginning is here."""
    redacted: bool = False
    """Whether something was taken out of it."""


class UpstreamAnswer(Struct, kw_only=True):
    """What an upstream answered, before policies and translation."""

    name: str = ""
    """The upstream's name in the configuration."""
    api: str = ""
    """The API in which its answer stands here: `openai`, `anthropic` or `ollama`; the client's, where it was translated."""
    status_code: int = 0
    headers: dict[str, str] = {}
    header_list: list[tuple[str, str]] | None = None
    body: Body | None = None
    """None where the client was given the same bytes."""
    complete: bool = True
    """False where it broke off."""


class PolicyCall(Struct, kw_only=True):
    """A request that a policy made, and its answer: to a judge, or several in place of the client's."""

    upstream: str
    target: str
    """Path and query."""
    request: Body
    status_code: int
    headers: dict[str, str] = {}
    header_list: list[tuple[str, str]] | None = None
    body: Body
    """Without content encoding."""


class RecordedVerdict(Struct, kw_only=True, omit_defaults=True):
    """What one policy said; the fields are those of `verdicts.Verdict`."""

    policy: str
    stage: str
    action: str
    reason: str
    mode: str = "enforce"
    ran: str = "ran"
    message: str = ""
    score: float | None = None
    detail: dict[str, Any] = {}


class Facts(Struct, kw_only=True):
    """How a transaction ended, as the journal has it. None is unknown, never zero."""

    outcome: str = ""
    """A value of transaction_row.Outcome."""
    verdict: str = "allow"
    verdicts: list[RecordedVerdict] = []
    session_id: str = ""
    agent: str = ""
    upstream: str = ""
    reason: str = ""
    """Routing reason codes."""
    model: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False
    cost_usd: float | None = None
    stop_reason: str = ""
    tool_calls: int = 0
    error: str = ""


class Request(Struct, kw_only=True, tag_field="type", tag="request"):
    """What a client sent."""

    format: int = 0
    """1: written by luthien; 0: by another program."""
    transaction_id: str = ""
    timestamp: str = ""
    """ISO 8601."""
    method: str = "POST"
    url: str = ""
    path: str = ""
    """As the client sent it, percent-encoded."""
    query: str | None = None
    headers: dict[str, str] = {}
    """Repeated ones joined by a comma."""
    header_list: list[tuple[str, str]] | None = None
    """All of them in order, where `headers` cannot say it."""
    body: Body | None = None
    session_id: str | None = None
    provider: str | None = None
    model: str | None = None
    is_streaming: bool | None = None
    start_time: float | None = None
    """Unix time in seconds at the first byte."""
    redacted: list[str] = []
    """Parts that something was taken out of: `headers`, `query`, `body`."""


class Response(Struct, kw_only=True, tag_field="type", tag="response"):
    """What the client was answered, and what stood behind it."""

    format: int = 0
    transaction_id: str = ""
    timestamp: str = ""
    status_code: int = 0
    headers: dict[str, str] = {}
    header_list: list[tuple[str, str]] | None = None
    body: Body | None = None
    duration_ms: float | None = None
    """From the first byte of the request to the end of the answer."""
    end_time: float | None = None
    chunks: list[tuple[int, float]] = []
    """The pieces of the upstream's body as they came: offset of the piece's end, and ms since the first byte of the request. Of
    an answer that policies changed, the pieces that the client was given."""
    upstream: UpstreamAnswer | None = None
    """None where no upstream had answered: denied, failed, or luthien's own answer."""
    calls: list[PolicyCall] = []
    """What policies asked upstreams themselves, in order of the answers."""
    facts: Facts | None = None
    redacted: list[str] = []


class Error(Struct, kw_only=True, tag_field="type", tag="error"):
    """A transaction that ended without an answer to the client."""

    format: int = 0
    transaction_id: str = ""
    timestamp: str = ""
    error_type: str = ""
    """A word for the kind of error: of ours an error code such as `upstream_timeout`, elsewhere the name of an exception."""
    error_message: str = ""
    method: str | None = None
    path: str | None = None
    duration_ms: float | None = None
    end_time: float | None = None
    facts: Facts | None = None


Record = Request | Response | Error
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def write_record(record: Record) -> bytes:
    """The record as one line, line end included."""
    return _encoder.encode(record) + b"\n"


def read_record(line: bytes) -> Record:
    """The record that a line holds. Raises UnreadableRecord."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UnreadableRecord(str(error) or type(error).__name__) from error


def body_of(content: bytes, *, size: int | None = None, redacted: bool = False) -> Body:
    """The body whose bytes are `content`; `size` is what it had where only the beginning is given."""
    full = len(content) if size is None else size
    truncated = full > len(content) and not redacted
    body = Body(size=full, truncated=truncated, redacted=redacted)
    if not content:
        return body
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        body.type, body.encoding = "binary", "base64"
        body.content = Raw(msgspec.json.encode(base64.b64encode(content).decode("ascii")))
        return body
    if not truncated and _is_json(content):
        body.type = "json"
        if _fits_a_line(content):
            body.content = Raw(content)
        else:
            body.content, body.raw = Raw(msgspec.json.format(content, indent=-1)), text
        return body
    body.type, body.content = "text", Raw(msgspec.json.encode(text))
    return body


def bytes_of(body: Body | None) -> bytes:
    """The bytes that a body has, as far as they were recorded. Raises UnreadableRecord."""
    if body is None:
        return b""
    content = bytes(body.content)
    if content == b"null" and body.type != "json":
        return b""
    if body.type == "json":
        if body.raw is not None:
            return body.raw.encode("utf-8", "surrogatepass")
        return content if body.redacted or len(content) == body.size else _as_long_as(content, body.size)
    try:
        text = msgspec.json.decode(content, type=str)
        return base64.b64decode(text, validate=True) if body.type == "binary" else text.encode("utf-8")
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise UnreadableRecord(f"the content of a body of type '{body.type[:20]}' cannot be read: {error}") from error


def headers_of(pairs: Pairs) -> tuple[dict[str, str], list[tuple[str, str]] | None]:
    """Raw headers as the two fields `headers` and `header_list` of a record."""
    return named_and_listed([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])


def named_and_listed(listed: list[tuple[str, str]]) -> tuple[dict[str, str], list[tuple[str, str]] | None]:
    """The same of headers as text."""
    named = dict(listed)
    if len(named) == len(listed):
        return named, None
    named.clear()
    for name, value in listed:
        named[name] = f"{named[name]}, {value}" if name in named else value
    return named, listed


def pairs_of(headers: dict[str, str], header_list: Sequence[tuple[str, str]] | None) -> list[tuple[bytes, bytes]]:
    """Raw headers again, names in lower case; bytes that a reader of other encodings wrote become UTF-8."""
    listed = header_list if header_list is not None else headers.items()
    return [(_header_bytes(name).lower(), _header_bytes(value)) for name, value in listed]


def _header_bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _is_json(content: bytes) -> bool:
    try:
        msgspec.json.decode(content, type=Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _fits_a_line(content: bytes) -> bool:
    """Whether a JSON value can stand within a line and be read back to the byte."""
    return b"\n" not in content and b"\r" not in content and content == content.strip(b" \t")


_FORMS: tuple[Callable[[Any], str], ...] = tuple(
    lambda value, ascii_only=ascii_only, separators=separators: json.dumps(  # type: ignore[misc]
        value, ensure_ascii=ascii_only, separators=separators
    )
    for separators in ((",", ":"), (", ", ": "))
    for ascii_only in (False, True)
)


def _as_long_as(content: bytes, size: int) -> bytes:
    """JSON that another program wrote down anew, in the usual form that has the length of the original; else as it stands."""
    try:
        value = json.loads(content)
        for form in _FORMS:
            if len(text := form(value).encode("utf-8", "surrogatepass")) == size:
                return text
    except (ValueError, RecursionError):
        pass
    return content
