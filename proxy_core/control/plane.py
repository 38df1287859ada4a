"""ControlPlane: all that a front end may ask of a gateway, whether in this process or elsewhere.

The user interface uses nothing else. Calls never block the loop; reads of the journal run off it.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from proxy_core.control.feed import FeedRecord
from proxy_core.control.rows import TransactionRow

Headers = tuple[tuple[str, str], ...]


class GatewayState(Struct, kw_only=True):
    """How the gateway fares, at one moment."""

    address: str
    """`host:port` of the data plane."""
    status: str
    """`serving`, `draining` or `stopped`."""
    started_at: float
    """Unix time in seconds."""
    active: int
    """Transactions that run now."""
    total: int
    """Transactions since the start."""
    store: str
    """`sqlite` or `postgres`."""
    journal_status: str
    """`ok`, `spilling` or `failing`."""
    journal_queue: int
    """Records waiting for their commit."""
    journal_oldest_ms: float
    """Age of the oldest of them, in ms."""
    spilled: int
    """Records in the spool that are not in the store yet."""
    loop_lag_ms: float
    """Worst lateness of the event loop over the last second, in ms."""
    upstreams: tuple[tuple[str, str], ...]
    """Name and base URL of each configured upstream."""
    demo: bool = False


class Timing(Struct, kw_only=True):
    """Milliseconds since the first byte of the request; None where that point was not reached."""

    received: float | None = None
    """Request body read."""
    recorded: float | None = None
    """Intent durable."""
    connected: float | None = None
    """A connection to the upstream was ready."""
    responded: float | None = None
    """Response headers arrived."""
    first_token: float | None = None
    last_byte: float | None = None
    """Response body complete."""
    finished: float | None = None
    """Outcome durable."""


class TransactionDetail(Struct, kw_only=True):
    """One transaction with its bodies. Secrets are already redacted."""

    row: TransactionRow
    request_headers: Headers = ()
    request_body: bytes = b""
    response_headers: Headers = ()
    response_body: bytes = b""
    """Of a running stream, what has come so far; of an ended one, without its content encoding where it can be undone."""
    timing: Timing
    redacted: bool = False
    """Whether a secret was taken out of a body, so that it differs from what was sent."""
    capture_note: str = ""
    """Why a body is absent or cut here, if it is."""


class ControlPlane(Protocol):
    """The gateway as an operator's tool sees it."""

    def state(self) -> GatewayState: ...

    def events(self, after: int, limit: int = 2_000) -> tuple[list[FeedRecord], int]:
        """Feed records after a sequence number, and how many were lost before them. Never waits."""
        ...

    async def history(self, limit: int, before: str | None = None) -> list[TransactionRow]:
        """Finished transactions from the journal, newest first, older than the transaction `before`."""
        ...

    async def detail(self, transaction_id: str) -> TransactionDetail | None: ...

    def live_body(self, transaction_id: str, offset: int) -> tuple[bytes, bool] | None:
        """Response bytes of a running transaction from `offset` on, and whether it has ended; None once it is forgotten."""
        ...
