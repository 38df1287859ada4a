"""What the journal is given: an intent before anything is sent, an outcome before the last byte goes back.

Where policies change the request or its route, `Sent` stands between the two; what operators do leaves a ControlChange or
a HoldRecord. All are appended, never changed afterwards. They hold the raw bytes; what is stored of them is decided while
writing (`journal.rows`), off the event loop.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from proxy_core.hold_record import HoldRecord
from proxy_core.verdicts import Verdict

RawHeaders = list[tuple[bytes, bytes]]
Piece = tuple[bytes, memoryview]
"""The keyed hash of a part of a request body, and the part itself."""


class Intent(Struct, kw_only=True, array_like=True):
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
    policy_digest: str = ""
    """Digest of the version of the chain that this transaction takes; empty where no policy is configured."""
    key: str = ""
    """Name of the client's key, never the key."""
    user: str = ""
    """Whom the request was made for, as the client says."""
    tags: tuple[tuple[str, str], ...] = ()
    """Names and values that the client gave it."""
    workflow: str = ""
    """From a path that begins with `/agent-workflow/{id}`."""
    parent_session: str = ""
    """The session whose agent started this one's; empty for most."""
    link: str = ""
    """How the session was told: `header`, `mark`, `response`, `prefix`, `inferred`, `new` or `none`."""
    side: bool = False
    """Whether it stands beside the conversation: a title, a summary, a memory."""


class Sent(Struct, kw_only=True):
    """A request in the form in which it goes upstream, where that is not the form in which it came."""

    transaction_id: str
    at_ns: int
    """Unix time in nanoseconds."""
    upstream: str
    reason: str
    """Why it goes there."""
    target: bytes
    """Path and query."""
    headers: RawHeaders
    body: bytes
    secrets: tuple[bytes, ...]
    verdicts: tuple[Verdict, ...] = ()
    """What the policies before the send have said, in case there never is an outcome."""


class Outcome(Struct, kw_only=True, array_like=True):
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
    timing: dict[str, float]
    error: str
    """What luthien says went wrong; empty where nothing did."""
    answer_error: str
    """`type: message` of an error that the upstream reported; its message is content."""
    stop_reason: str
    tool_calls: int
    secrets: tuple[bytes, ...]
    verdicts: tuple[Verdict, ...] = ()
    upstream_body: bytes | None = None
    """The response body that the upstream gave, without content encoding, where policies made it differ from `body`."""
    upstream_status: int | None = None
    """The upstream's status, where policies made it differ."""
    upstream: str = ""
    """Where the request went at last; empty where the intent already says it."""
    reason: str = ""
    """Why it went there; empty where the intent already says it."""
    estimated: bool = False
    """Whether the token counts were estimated, because the upstream gave none."""
    tools: tuple[str, ...] = ()
    """The tool of each call that the answer asks for, in order."""
    address: str = ""
    """The root of the URL that it was sent to; empty where nothing was sent."""


class LateVerdicts(Struct, kw_only=True):
    """What policies in shadow mode said when the transaction was already over."""

    transaction_id: str
    at_ns: int
    verdicts: tuple[Verdict, ...]
    secrets: tuple[bytes, ...] = ()


ChangeSource = Literal["api", "ui", "operator", "file", "start"]


class ControlChange(Struct, kw_only=True):
    """Something that was set otherwise while the gateway ran, or found set otherwise at its start."""

    at_ns: int
    who: str
    source: ChangeSource
    what: str
    """Name of the policy, or of the section: `holds`, `keys`, `logging`."""
    before: dict[str, Any]
    """As JSON, without secrets."""
    after: dict[str, Any]
    digest_before: str = ""
    """Digest of the global chain before the change, or of the rules of routing; empty where it is about neither."""
    digest_after: str = ""
    override: dict[str, Any] | None = None
    """What the operator has set for this policy in place of the file's, after this change: `{"mode"?, "params"?}`; `{}` where
    nothing is left of it, None where the record is not about that."""
    declared: str = ""
    """Keyed hash of the file's own entry for the policy, which the override stands in for."""


Record = Intent | Outcome | Sent | LateVerdicts | ControlChange | HoldRecord


def clean(text: str, limit: int) -> str:
    """`text` as every text column takes it: no NUL, no lone surrogate, at most `limit` characters."""
    if text.isascii() and len(text) <= limit and "\x00" not in text:
        return text
    return text[:limit].replace("\x00", "\N{SYMBOL FOR NULL}").encode("utf-8", "replace").decode("utf-8")
