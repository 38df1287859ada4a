"""Everything that luthien raises on purpose, and what each error means to whoever meets it.

LuthienError
├── ConfigurationError          a setting is wrong
├── ListenError                 the address cannot be listened on
├── StoreError                  the journal's store cannot be opened or written
├── RequestRefused              the client's request cannot be taken
│   ├── BadRequest
│   ├── NotFound
│   ├── RequestTooLarge
│   ├── HeadersTooLarge
│   ├── RequestTimeout
│   ├── UnknownUpstream
│   ├── RouteRefused
│   ├── Draining
│   ├── Killed
│   ├── JournalUnavailable
│   └── AdmissionRefused        by keys, limits and budgets
│       ├── KeyRefused
│       ├── ModelNotAllowed
│       ├── RateLimited
│       ├── BudgetExhausted
│       ├── BudgetUnavailable
│       └── UpstreamKeyMissing
├── UpstreamError               the upstream could not answer
│   ├── UpstreamUnreachable
│   ├── UpstreamTLSError
│   ├── UpstreamInvalid
│   └── UpstreamTimeout
└── ClientGone                  the client left; nobody to tell
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar

from msgspec import Struct


class ExitCode(IntEnum):
    """What the `luthien` process exits with."""

    OK = 0
    """Ended as asked."""
    CRASH = 1
    """A defect in luthien."""
    USAGE = 2
    """A wrong option or setting."""
    CANNOT_START = 3
    """The address is taken, or the gateway could not start."""
    STORE = 4
    """The journal's store is not writable."""
    INTERRUPTED = 130
    """Ended by ctrl+c before it could serve."""


class Face(Struct, frozen=True):
    """How an error shows: HTTP status, and the error types of each dialect."""

    status: int
    openai_type: str
    openai_code: str
    anthropic_type: str


class LuthienError(Exception):
    """Base of the tree. The message names the fault and the remedy, in one line, without secrets."""

    exit_code: ClassVar[ExitCode] = ExitCode.CRASH
    face: ClassVar[Face] = Face(500, "server_error", "internal_error", "api_error")


class ConfigurationError(LuthienError):
    """A setting is wrong; the message says which, where it came from, and what would be right."""

    exit_code = ExitCode.USAGE


class ListenError(LuthienError):
    """The address cannot be listened on."""

    exit_code = ExitCode.CANNOT_START


class StoreError(LuthienError):
    """The journal's store cannot be opened or written."""

    exit_code = ExitCode.STORE


class RequestRefused(LuthienError):
    """The client's request cannot be taken as it is."""


class BadRequest(RequestRefused):
    """The request is malformed."""

    face = Face(400, "invalid_request_error", "bad_request", "invalid_request_error")


class NotFound(RequestRefused):
    """No API that luthien knows has this path."""

    face = Face(404, "invalid_request_error", "unknown_url", "not_found_error")


class UnknownUpstream(RequestRefused):
    """No configured upstream speaks the API that was asked for."""

    face = Face(404, "invalid_request_error", "no_upstream", "not_found_error")


class RouteRefused(RequestRefused):
    """The request must stay local, and nothing local can take it; `reasons` are the codes, comma-separated."""

    face = Face(400, "invalid_request_error", "sensitive_keyword_match", "invalid_request_error")

    def __init__(self, message: str, reasons: str) -> None:
        super().__init__(message)
        self.reasons = reasons


class RequestTooLarge(RequestRefused):
    """The body is larger than the limit."""

    face = Face(413, "invalid_request_error", "request_too_large", "request_too_large")


class HeadersTooLarge(RequestRefused):
    """The header block is larger than the limit."""

    face = Face(431, "invalid_request_error", "headers_too_large", "invalid_request_error")


class RequestTimeout(RequestRefused):
    """The client did not send its request in time."""

    face = Face(408, "invalid_request_error", "request_timeout", "invalid_request_error")


class Draining(RequestRefused):
    """The gateway is shutting down and takes nothing new."""

    face = Face(503, "server_error", "draining", "overloaded_error")


class Killed(RequestRefused):
    """An operator ended the transaction."""

    face = Face(400, "invalid_request_error", "killed", "invalid_request_error")


class JournalUnavailable(RequestRefused):
    """Records cannot be written, and the journal is set to block."""

    face = Face(503, "server_error", "journal_unavailable", "api_error")


class AdmissionRefused(RequestRefused):
    """The client may not send this, or not now. `reason` is the code for the record, `headers` go with the answer.

    `scope` is whose limit it is: `key:NAME`, `agent:NAME`, `upstream:NAME`; empty for none of these."""

    def __init__(self, reason: str, message: str, headers: Sequence[tuple[bytes, bytes]] = (), *, scope: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.headers = list(headers)
        self.scope = scope


class KeyRefused(AdmissionRefused):
    """The client's key is missing, unknown or revoked."""

    face = Face(401, "invalid_request_error", "invalid_api_key", "authentication_error")


class ModelNotAllowed(AdmissionRefused):
    """The client may not use this model."""

    face = Face(403, "invalid_request_error", "model_not_allowed", "permission_error")


class RateLimited(AdmissionRefused):
    """Too many requests or tokens within a minute; later it goes."""

    face = Face(429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error")


class BudgetExhausted(AdmissionRefused):
    """The budget of a day or month is spent. 402, because clients try 429 again."""

    face = Face(402, "insufficient_quota", "insufficient_quota", "billing_error")


class BudgetUnavailable(AdmissionRefused):
    """What was spent cannot be looked up."""

    face = Face(503, "server_error", "budget_unavailable", "api_error")


class UpstreamKeyMissing(AdmissionRefused):
    """The client's key is luthien's own, and the upstream has none to take its place."""

    face = Face(403, "invalid_request_error", "upstream_key_missing", "permission_error")


class UpstreamBusy(AdmissionRefused):
    """The upstream takes no more requests at once, and the queue before it is full; later it goes."""

    face = Face(429, "rate_limit_error", "upstream_busy", "rate_limit_error")


class UpstreamFrozen(AdmissionRefused):
    """An operator lets nothing go to the upstream."""

    face = Face(503, "server_error", "upstream_frozen", "overloaded_error")


class UpstreamError(LuthienError):
    """The upstream could not answer."""

    face = Face(502, "upstream_error", "upstream_error", "api_error")
    unsent = False
    """Whether nothing of the request had gone out yet."""


class UpstreamUnreachable(UpstreamError):
    """No connection to the upstream: refused, reset, name not found."""

    face = Face(502, "upstream_error", "upstream_unreachable", "api_error")


class UpstreamTLSError(UpstreamError):
    """The upstream's certificate or TLS handshake failed; nothing was sent."""

    face = Face(502, "upstream_error", "upstream_tls_error", "api_error")


class UpstreamInvalid(UpstreamError):
    """What the upstream sent is not HTTP, or ended in the middle."""

    face = Face(502, "upstream_error", "upstream_invalid", "api_error")


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer in time."""

    face = Face(504, "upstream_error", "upstream_timeout", "timeout_error")


class ClientGone(LuthienError):
    """The client closed its connection before the answer was whole."""

    face = Face(499, "client_error", "client_gone", "api_error")
