"""One running transaction: what the gateway knows of it between its first and its last byte.

Only the gateway writes to it. Front ends see its row, and its response bytes while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxy_core.routing.upstreams import Upstream
from proxy_core.transaction_row import TransactionRow
from proxy_core.wire.dialects import Dialect, Endpoint, Operation
from proxy_core.wire.glance import Glance

if TYPE_CHECKING:
    from proxy_core.enforcement import Control
    from proxy_core.interceptors.outgoing import ToldRequest
    from proxy_core.limits.client_keys import ClientKey
    from proxy_core.limits.limiter import Admission
    from proxy_core.policies.streaming import StreamPipeline
    from proxy_core.routing.pool import Seat
    from proxy_core.routing.translated import TranslatedAnswer
    from proxy_core.wire.encoder import StreamEncoder

RawHeaders = list[tuple[bytes, bytes]]
FIRST_CHUNKS = 64
"""Arrival times are kept for so many chunks, to tell when the first token came."""
_NEVER = float("inf")


def _no_way_to_cut() -> None:
    raise RuntimeError("the answer was cut short, and this server has no way to close the connection")


class Running(Struct, kw_only=True, eq=False):
    """The state of one transaction."""

    row: TransactionRow
    task: asyncio.Task[Any] | None
    method: str
    headers: RawHeaders
    query: bytes
    started: float
    started_ns: int
    capture_limit: int
    endpoint: Endpoint | None = None
    upstream: Upstream | None = None
    glance: Glance = Glance()
    body: bytes = b""
    point: bytes = b""
    """Hash of the whole history: where the session stands when the request is answered."""
    secrets: tuple[bytes, ...] = ()
    tags: dict[str, str] = {}
    """The client's tags as it sent them; those of the row are without secrets."""
    intended: bool = False
    """Whether the intent is durable."""
    sent: bool = False
    """Whether the response's headers have gone to the client."""
    leaving: bool = False
    """Whether the outcome is being written: from here on a client that leaves changes nothing."""
    client_gone: bool = False
    key: str | None = None
    """Name of the client's key, or a fingerprint of it; None until somebody has asked."""
    client_key: ClientKey | None = None
    """The key of luthien's own that the client came with; it is never sent on."""
    admission: Admission | None = None
    """What was taken and reserved of the client's limits; None where nothing limits it."""
    answer_usd: float | None = None
    """What the answer cost, without what policies asked beside it."""
    cut_connection: Callable[[], None] = _no_way_to_cut
    """Closes the client's connection in the middle of an answer."""
    write: Callable[[bytes], bool] | None = None
    """Sends a piece of the body at once; False asks to wait until the client has read on. Not every server has it."""
    answer: Callable[[int, RawHeaders, bytes], bool] | None = None
    """Sends a whole answer at once; False where it has to go the ASGI way. Not every server has it."""
    deadline: float = _NEVER
    """The loop's clock when something is due: the watch over the client to begin, or the transaction to be stopped."""
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]] | None = None
    """What the watch over the client listens to, until it has begun."""
    watcher: asyncio.Task[None] | None = None
    expired: bool = False
    """Whether its deadline has stopped this transaction."""
    start_message: MutableMapping[str, Any] | None = None
    """The head of the response, where it waits to be sent with the body."""
    control: Control | None = None
    """The policies' side of it; None where no policy runs."""
    encoder: StreamEncoder | StreamPipeline | None = None
    """Encodes the stream to the client, where policies may change it."""
    translated: TranslatedAnswer | None = None
    """The answer, where the upstream speaks another dialect than the client."""
    sent_body: bytes = b""
    """The request's body as it goes upstream."""
    sent_headers: RawHeaders = []
    seat: Seat | None = None
    """Its room at the upstream, while it has one."""
    key_added: bool = False
    """Whether the upstream's configured key was sent, not one of the client's."""
    tried: tuple[str, ...] = ()
    """Upstreams of failed attempts after which it was sent again, in order."""
    killed_by: str = ""
    """The operator who ended it."""
    paused_at: float | None = None
    """The monotonic clock when a person was asked; while they think, no deadline ends the transaction."""
    paused_s: float = 0.0
    """Time of thinking by which the deadline has to be put off."""
    error: str = ""
    content_type: str = ""
    content_encoding: str = ""
    response_headers: RawHeaders = []
    response: bytearray = bytearray()
    received: int = 0
    """Bytes of the response body so far; `response` keeps at most `capture_limit` of them."""
    arrivals: list[tuple[int, float]] = []
    """Bytes received and the clock, after each of the first `chunks_timed` chunks."""
    chunks_timed: int = FIRST_CHUNKS
    told: ToldRequest | None = None
    """What interceptors were told of the request, until they are told of its end."""
    timing: dict[str, float] = {}

    @classmethod
    def begun(
        cls,
        row: TransactionRow,
        *,
        scope: dict[str, Any],
        started: float,
        started_ns: int,
        task: asyncio.Task[Any] | None,
        capture_limit: int,
    ) -> Running:
        """A transaction whose request has begun to come in, as the server's `scope` says."""
        extensions = scope.get("extensions", {})
        return cls(
            row=row,
            task=task,
            method=scope["method"],
            headers=scope["headers"],
            query=scope["query_string"],
            started=started,
            started_ns=started_ns,
            capture_limit=capture_limit,
            cut_connection=extensions.get("luthien.cut", _no_way_to_cut),
            write=extensions.get("luthien.write"),
            answer=extensions.get("luthien.answer"),
        )

    @property
    def dialect(self) -> Dialect:
        return self.endpoint.dialect if self.endpoint else Dialect.OPENAI

    @property
    def operation(self) -> Operation:
        return self.endpoint.operation if self.endpoint else Operation.OTHER

    @property
    def address(self) -> str:
        """The root of the URL that it was sent to, by the gateway or by a policy in its place; empty where nothing was sent."""
        if self.upstream is not None and self.row.overhead_ms is not None:
            return self.upstream.base_url
        control = self.control
        calls = control.services.calls if control is not None and control.chain.sender is not None else []
        return calls[-1].address if calls else ""

    def expire(self, now: float) -> None:
        """The time is up: stop whatever this transaction waits for."""
        self.deadline = _NEVER
        if self.leaving or self.task is None:
            return
        if self.paused_at is not None or self.paused_s:
            given, self.paused_s = self.paused_s or 1.0, 0.0
            self.deadline = now + given
        else:
            self.expired = True
            self.task.cancel()

    def pause(self, now: float) -> None:
        """A person is asked: their time is not the transaction's."""
        self.paused_at = now

    def go_on(self, now: float) -> None:
        """The person has answered."""
        if self.paused_at is not None:
            self.paused_s += now - self.paused_at
            self.paused_at = None

    def ms_at(self, now: float) -> float:
        """Milliseconds since the first byte, to the microsecond."""
        return int((now - self.started) * 1e6) / 1e3

    def mark(self, point: str, now: float) -> None:
        """Note when a point was reached, in ms since the first byte."""
        self.timing[point] = int((now - self.started) * 1e6) / 1e3

    def take(self, chunk: bytes, now: float) -> None:
        """Note a piece of the response body."""
        row = self.row
        received = self.received + len(chunk)
        if row.chunks < self.chunks_timed:
            self.arrivals.append((received, now))
        if received <= self.capture_limit:
            self.response += chunk
        elif self.received < self.capture_limit:
            self.response += chunk[: self.capture_limit - self.received]
        self.received = row.response_bytes = received
        row.chunks += 1
