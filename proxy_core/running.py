"""One running transaction: what the gateway knows of it between its first and its last byte.

Only the gateway writes to it. Front ends see its row, and its response bytes while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from proxy_core.routing.upstreams import Upstream
from proxy_core.transaction_row import TransactionRow
from proxy_core.wire.dialects import Dialect, Endpoint, Operation
from proxy_core.wire.glance import Glance

if TYPE_CHECKING:
    from proxy_core.enforcement import Control
    from proxy_core.interceptors.records import Began
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


class Running:
    """The state of one transaction."""

    __slots__ = (
        "admission",
        "answer",
        "answer_usd",
        "arrivals",
        "began",
        "body",
        "capture_limit",
        "chunks_timed",
        "client_gone",
        "client_key",
        "content_encoding",
        "content_type",
        "control",
        "cut_connection",
        "deadline",
        "encoder",
        "endpoint",
        "error",
        "expired",
        "glance",
        "headers",
        "intended",
        "key",
        "key_added",
        "killed_by",
        "leaving",
        "method",
        "paused_at",
        "paused_s",
        "point",
        "query",
        "receive",
        "received",
        "response",
        "response_headers",
        "row",
        "seat",
        "secrets",
        "sent",
        "sent_body",
        "sent_headers",
        "sent_target",
        "start_message",
        "started",
        "started_ns",
        "tags",
        "task",
        "timing",
        "translated",
        "tried",
        "upstream",
        "watcher",
        "write",
    )

    def __init__(
        self,
        row: TransactionRow,
        *,
        scope: dict[str, Any],
        started: float,
        started_ns: int,
        task: asyncio.Task[Any] | None,
        capture_limit: int,
    ) -> None:
        self.row = row
        self.task = task
        self.method: str = scope["method"]
        self.headers: RawHeaders = scope["headers"]
        self.query: bytes = scope["query_string"]
        self.started = started
        self.started_ns = started_ns
        self.capture_limit = capture_limit
        self.endpoint: Endpoint | None = None
        self.upstream: Upstream | None = None
        self.glance = Glance()
        self.body = b""
        self.point = b""
        """Hash of the whole history: where the session stands when the request is answered."""
        self.secrets: tuple[bytes, ...] = ()
        self.tags: dict[str, str] = {}
        """The client's tags as it sent them; those of the row are without secrets."""
        self.intended = False
        """Whether the intent is durable."""
        self.sent = False
        """Whether the response's headers have gone to the client."""
        self.leaving = False
        """Whether the outcome is being written: from here on a client that leaves changes nothing."""
        self.client_gone = False
        self.key: str | None = None
        """Name of the client's key, or a fingerprint of it; None until somebody has asked."""
        self.client_key: ClientKey | None = None
        """The key of luthien's own that the client came with; it is never sent on."""
        self.admission: Admission | None = None
        """What was taken and reserved of the client's limits; None where nothing limits it."""
        self.answer_usd: float | None = None
        """What the answer cost, without what policies asked beside it."""
        extensions = scope.get("extensions", {})
        self.cut_connection: Callable[[], None] = extensions.get("luthien.cut", _no_way_to_cut)
        """Closes the client's connection in the middle of an answer."""
        self.write: Callable[[bytes], bool] | None = extensions.get("luthien.write")
        """Sends a piece of the body at once; False asks to wait until the client has read on. Not every server has it."""
        self.answer: Callable[[int, RawHeaders, bytes], bool] | None = extensions.get("luthien.answer")
        """Sends a whole answer at once; False where it has to go the ASGI way. Not every server has it."""
        self.deadline = _NEVER
        """The loop's clock when something is due: the watch over the client to begin, or the transaction to be stopped."""
        self.receive: Callable[[], Awaitable[MutableMapping[str, Any]]] | None = None
        """What the watch over the client listens to, until it has begun."""
        self.watcher: asyncio.Task[None] | None = None
        self.expired = False
        """Whether its deadline has stopped this transaction."""
        self.start_message: MutableMapping[str, Any] | None = None
        """The head of the response, where it waits to be sent with the body."""
        self.control: Control | None = None
        """The policies' side of it; None where no policy runs."""
        self.encoder: StreamEncoder | StreamPipeline | None = None
        """Encodes the stream to the client, where policies may change it."""
        self.translated: TranslatedAnswer | None = None
        """The answer, where the upstream speaks another dialect than the client."""
        self.sent_body = b""
        """The request's body as it goes upstream."""
        self.sent_headers: RawHeaders = []
        self.sent_target = b""
        self.seat: Seat | None = None
        """Its room at the upstream, while it has one."""
        self.key_added = False
        """Whether the upstream's configured key was sent, not one of the client's."""
        self.tried: tuple[str, ...] = ()
        """Upstreams of failed attempts after which it was sent again, in order."""
        self.killed_by = ""
        """The operator who ended it."""
        self.paused_at: float | None = None
        """The loop's clock when a person was asked; while they think, no deadline ends the transaction."""
        self.paused_s = 0.0
        """Time of thinking by which the deadline has to be put off."""
        self.error = ""
        self.content_type = ""
        self.content_encoding = ""
        self.response_headers: RawHeaders = []
        self.response = bytearray()
        self.received = 0
        """Bytes of the response body so far; `response` keeps at most `capture_limit` of them."""
        self.arrivals: list[tuple[int, float]] = []
        """Bytes received and the clock, after each of the first `chunks_timed` chunks."""
        self.chunks_timed = FIRST_CHUNKS
        self.began: Began | None = None
        """What interceptors were told of the request, until they are told of its end."""
        self.timing: dict[str, float] = {}

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


def _no_way_to_cut() -> None:
    raise RuntimeError("the answer was cut short, and this server has no way to close the connection")
