"""One transaction from first to last byte: the only place that knows the order of things.

ingress → who is talking → intent durable → upstream → answer, piece by piece as it comes → outcome durable → last byte.
What the upstream sends goes to the client unchanged; what goes wrong is told in the client's dialect; a client that leaves
cancels the upstream. Each transaction leaves one intent and one outcome, whatever happens in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, TypedDict

from proxy_core.answers import Reading, read_answer
from proxy_core.control.feed import Feed
from proxy_core.detectors.secrets import known_secrets, redact_formats, redact_known
from proxy_core.errors import (
    BadRequest,
    ClientGone,
    Draining,
    JournalUnavailable,
    LuthienError,
    NotFound,
    RequestTimeout,
    RequestTooLarge,
    UpstreamTimeout,
)
from proxy_core.ids import new_ulid
from proxy_core.interceptors.metrics import GatewayMetrics
from proxy_core.journal.journal import Journal
from proxy_core.journal.records import Intent, Outcome
from proxy_core.routing.transport import UpstreamResponse, UpstreamTransport
from proxy_core.routing.upstreams import Upstreams
from proxy_core.running import RawHeaders, Running
from proxy_core.sessions.detector import Belonging, SessionDetector
from proxy_core.sessions.identity import OUR_HEADER_PREFIXES
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import Settings
from proxy_core.tasks import spawn
from proxy_core.transaction_row import TransactionRow
from proxy_core.wire.dialects import Dialect, Operation, UnsafePath, find_endpoint
from proxy_core.wire.errors import error_body, stream_error
from proxy_core.wire.glance import glance, preview
from proxy_core.wire.headers import content_length, request_headers, response_headers, value_of
from proxy_core.wire.terminator import terminator_scan

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WATCH_AFTER_S = 0.25
"""A transaction older than this has a watcher for a client that leaves; most are over before."""
TERMINATOR_GRACE_S = 0.05
"""How long the terminator of a stream is held back for the upstream's end of body to be recorded with it."""
MIN_BODY_BYTES_PER_S = 1_024
LAST_WORDS_S = 5.0
LINGER_S = 2.0
LINGER_BYTES = 128 * 1024 * 1024
_STREAM_TYPES = ("text/event-stream", "application/x-ndjson")
_READ_OPERATIONS = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.EMBEDDINGS,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.COUNT_TOKENS,
        Operation.OLLAMA_CHAT,
        Operation.OLLAMA_GENERATE,
        Operation.OLLAMA_EMBED,
    }
)


class Gateway:
    """The data plane's hot path, as a plain ASGI callable for `http` scopes."""

    def __init__(
        self,
        *,
        settings: Settings,
        upstreams: Upstreams,
        transport: UpstreamTransport,
        journal: Journal,
        sessions: SessionDetector,
        prices: PriceBook,
        feed: Feed,
        metrics: GatewayMetrics,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = loop
        self._now = loop.time
        self._server = settings.server
        self._capture_limit = settings.journal.max_body_bytes
        self._upstreams = upstreams
        self._transport = transport
        self._journal = journal
        self._sessions = sessions
        self._prices = prices
        self._feed = feed
        self._metrics = metrics
        self._configured_secrets = tuple(one.api_key.encode() for one in upstreams.by_name.values() if one.api_key is not None)
        self.running: dict[str, Running] = {}
        self.total = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = self._begin(scope)
        loop = self._loop
        watchers: list[asyncio.Task[None]] = []
        # One timer at a time: for the request's body, then for the start of the watch, then for the whole.
        running.timer = loop.call_later(self._server.body_timeout_s, running.expire)
        try:
            try:
                await self._take_request(running, scope, receive)
                running.timer.cancel()
                running.timer = loop.call_later(WATCH_AFTER_S, self._watch_from_now, running, receive, watchers)
                response = await self._send_upstream(running)
                held = await self._relay(running, response, send)
            except asyncio.CancelledError:
                told = self._expiry(running)
                if told is None:
                    raise
                await self._tell(running, told, receive, send)
            except LuthienError as error:
                await self._tell(running, error, receive, send)
            except Exception:  # a defect of ours: the record and the client must know of it all the same
                log.exception("transaction %s failed", running.row.transaction_id)
                defect = LuthienError(f"luthien failed on this request; its log has more under {running.row.transaction_id}")
                await self._tell(running, defect, receive, send)
            else:
                await self._complete(running, held, send)
        except asyncio.CancelledError:
            await self._cancelled(running, receive, send)
        finally:
            running.timer.cancel()
            for watcher in watchers:
                watcher.cancel()
            # The server's functions in it refer to the scope: left there, each request would be a cycle for the collector.
            scope.get("extensions", {}).clear()
            self.running.pop(running.row.transaction_id, None)

    def _watch_from_now(self, running: Running, receive: Receive, watchers: list[asyncio.Task[None]]) -> None:
        """For a transaction that is not over at once: notice a client that leaves, and the limit of the whole."""
        watchers.append(spawn(_watch(running, receive), name="watch client"))
        total_s = running.upstream.timeouts.total_s if running.upstream else 0.0
        running.timer = self._loop.call_later(total_s, running.expire)

    def _expiry(self, running: Running) -> LuthienError | None:
        """The error of a transaction that was stopped by its timer; None where something else stopped it."""
        if not running.expired or running.client_gone:
            return None
        if running.task is not None:
            running.task.uncancel()
        if running.upstream is None or not running.intended:
            limit = self._server.body_timeout_s
            return RequestTimeout(f"the request body did not arrive within {limit:g} s; see 'server.body_timeout_s'")
        limit = running.upstream.timeouts.total_s
        return UpstreamTimeout(
            f"upstream '{running.upstream.name}' did not finish within {limit:g} s; see 'routing.timeouts.total_s'"
        )

    # --- the request ---

    def _begin(self, scope: Scope) -> Running:
        started_ns = time.time_ns()
        started = self._now()
        row = TransactionRow(
            transaction_id=new_ulid(started_ns // 1_000_000),
            started_at=started_ns / 1e9,
            started_monotonic=started,
            method=scope["method"],
            path=_shared(scope["raw_path"].decode("latin-1")),
        )
        running = Running(
            row,
            scope=scope,
            started=started,
            started_ns=started_ns,
            task=asyncio.current_task(),
            capture_limit=self._capture_limit,
        )
        self.total += 1
        self.running[row.transaction_id] = running
        return running

    async def _take_request(self, running: Running, scope: Scope, receive: Receive) -> None:
        """Read the request, tell what it is and record the intent. Raises RequestRefused, ClientGone."""
        row = running.row
        headers = dict(running.headers)
        try:
            endpoint = find_endpoint(row.path, b"anthropic-version" in headers, self._upstreams.names)
        except UnsafePath as error:
            raise BadRequest(f"{error}") from error
        running.endpoint = endpoint
        if endpoint is None:
            raise NotFound(
                f"luthien knows no API at {row.path}; point the SDK's base URL at luthien's root, or at /v1 for OpenAI"
            )
        row.dialect = endpoint.dialect.value
        row.operation = endpoint.operation.value
        running.body = await self._read_body(running, receive)
        row.request_bytes = len(running.body)
        running.mark("received", self._now())
        running.secrets = known_secrets(running.headers, running.query, self._configured_secrets)
        belonging = Belonging("", "")
        if endpoint.operation in _READ_OPERATIONS:
            running.glance = glance(running.body)
            belonging = self._sessions.belonging(headers, running.glance, running.body)
            row.model = _shared(running.glance.model)
            row.stream = bool(running.glance.stream)
            row.preview = self._without_secrets(running, preview(running.glance.history))
        else:
            belonging = self._sessions.belonging(headers, running.glance, b"")
        row.session_id = belonging.session_id
        row.agent = _shared(belonging.agent)
        choice = self._upstreams.choose(endpoint)
        running.upstream = choice.upstream
        row.upstream = choice.upstream.name
        row.reason = choice.reason
        row.state = "waiting"
        self._feed.publish("started", row)
        await self._journal.append(self._intent(running, scope, belonging))
        running.intended = True
        running.mark("recorded", self._now())
        self._feed.publish("routed", row)

    async def _read_body(self, running: Running, receive: Receive) -> bytes:
        limit = self._server.max_body_bytes
        announced = content_length(running.headers)
        if announced is not None and announced > limit:
            raise RequestTooLarge(_too_large(announced, limit))
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body", False):
            if len(body) > limit:
                raise RequestTooLarge(_too_large(len(body), limit))
            return body
        return await self._read_parts(running, message, receive)

    async def _read_parts(self, running: Running, message: Message, receive: Receive) -> bytes:
        """The body of a request that comes in several pieces, of which `message` is the first."""
        loop = self._loop
        limit, timeout_s = self._server.max_body_bytes, self._server.body_timeout_s
        begun = loop.time()
        parts: list[bytes] = []
        length = 0
        while True:
            if message["type"] == "http.disconnect":
                running.client_gone = True
                raise ClientGone("the client left before its request was complete")
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > limit:
                raise RequestTooLarge(_too_large(length, limit))
            if not message.get("more_body", False):
                return b"".join(parts)
            elapsed = loop.time() - begun
            if elapsed > timeout_s and length < elapsed * MIN_BODY_BYTES_PER_S:
                raise RequestTimeout("the request body came too slowly; see 'server.body_timeout_s'")
            running.timer.cancel()
            running.timer = loop.call_later(timeout_s, running.expire)
            message = await receive()

    def _intent(self, running: Running, scope: Scope, belonging: Belonging) -> Intent:
        row = running.row
        client = scope.get("client")
        history = running.glance.history
        pieces = [(self._journal.digest(part), part) for part in running.glance.preamble if len(part) >= _PIECE_FROM_BYTES]
        pieces += [
            (digest, part)
            for digest, part in zip(belonging.message_hashes, history, strict=False)
            if len(part) >= _PIECE_FROM_BYTES
        ]
        return Intent(
            transaction_id=row.transaction_id,
            started_ns=running.started_ns,
            method=row.method,
            path=row.path,
            query=running.query,
            dialect=row.dialect,
            operation=row.operation,
            session_id=row.session_id,
            predecessor=belonging.predecessor,
            agent=row.agent,
            model=row.model,
            upstream=row.upstream,
            reason=row.reason,
            stream=row.stream,
            client=f"{client[0]}:{client[1]}" if client else "",
            preview=row.preview,
            headers=running.headers,
            body=running.body,
            pieces=tuple(pieces),
            chain=belonging.chain,
            history_length=len(history),
            secrets=running.secrets,
        )

    # --- the upstream ---

    async def _send_upstream(self, running: Running) -> UpstreamResponse:
        upstream, endpoint = running.upstream, running.endpoint
        if upstream is None or endpoint is None:
            raise NotFound("no upstream was chosen")
        headers = request_headers(running.headers, OUR_HEADER_PREFIXES)
        if upstream.api_key is not None:
            _add_credential(headers, endpoint.dialect, upstream.api_key)
        target = endpoint.path.encode("latin-1")
        if running.query:
            target += b"?" + running.query
        now = self._now()
        running.row.overhead_ms = round((now - running.started) * 1e3, 3)
        response = await self._transport.send(upstream, running.method, target, headers, running.body)
        running.mark("connected", response.connected_at)
        running.mark("responded", self._now())
        return response

    async def _relay(self, running: Running, response: UpstreamResponse, send: Send) -> bytes:
        """Send the answer on as it comes, all but its last piece, which is returned.

        The last piece is what makes the answer whole for the client: the end of a body of known length, the terminator of a
        stream. It may go only when the outcome is durable.
        """
        row = running.row
        try:
            headers = response_headers(response.headers)
            running.response_headers = headers
            running.content_type = value_of(headers, b"content-type")
            running.content_encoding = value_of(headers, b"content-encoding")
            row.status = response.status
            row.stream = running.content_type.startswith(_STREAM_TYPES)
            row.state = "streaming"
            length = content_length(headers)
            start = {"type": "http.response.start", "status": response.status, "headers": self._with_own(running, headers)}
            if length is None:
                await send(start)
                running.sent = True
                held = await self._relay_stream(running, response, send)
            else:
                held = await self._relay_known_length(running, response, send, start, length)
            running.mark("last_byte", self._now())
            return held
        finally:
            response.close()

    async def _relay_known_length(
        self, running: Running, response: UpstreamResponse, send: Send, start: Message, length: int
    ) -> bytes:
        """A body whose end is known beforehand. One that came whole waits with its head, and both leave in one write."""
        if not response.waiting:
            await send(start)
            running.sent = True
        held = b""
        while chunk := await response.read():
            self._take(running, chunk)
            if running.received >= length:
                held = chunk
                continue
            if not running.sent:
                await send(start)
                running.sent = True
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        running.start_message = None if running.sent else start
        return held

    async def _relay_stream(self, running: Running, response: UpstreamResponse, send: Send) -> bytes:
        """A body that ends when it ends: each piece leaves as it comes, from the dialect's terminator on it is held."""
        scan = None
        if not running.content_encoding and response.status < 400:
            scan = terminator_scan(running.operation, running.content_type)
        outbox: list[bytes] = []
        write = running.write or _put_into(outbox)
        terminator: list[bytes] = []

        def forward(chunk: bytes) -> bool:
            self._take(running, chunk)
            if scan is not None and not terminator and (at := scan.feed(chunk)) is not None:
                if at:
                    write(chunk[:at])
                terminator.append(chunk[at:])
                return False
            return write(chunk)

        while not response.ended:
            await response.pump(forward)
            for chunk in outbox:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            outbox.clear()
            if terminator and (held := terminator[0]):
                if response.ended or await response.ends_within(TERMINATOR_GRACE_S):
                    while chunk := await response.read():
                        self._take(running, chunk)
                        held += chunk
                    return held
                # The upstream keeps the connection open after its last word: record now, let the client go on.
                await self._record_outcome(running, "")
                running.leaving = False
                terminator[0] = b""
                await send({"type": "http.response.body", "body": held, "more_body": True})
            elif not response.ended:
                # The client reads more slowly than the upstream writes: wait for it.
                await send({"type": "http.response.body", "body": b"", "more_body": True})
        return b""

    def _take(self, running: Running, chunk: bytes) -> None:
        now = self._now()
        running.take(chunk, now)
        if running.row.chunks == 1:
            # The first byte stands for the first token until the whole answer is read.
            running.row.ttft_ms = (now - running.started) * 1e3
            self._feed.publish("first_token", running.row)

    def _with_own(self, running: Running, headers: RawHeaders) -> RawHeaders:
        if not self._server.response_headers:
            return headers
        row = running.row
        own = [
            (b"x-luthien-transaction-id", row.transaction_id.encode("ascii")),
            *_route_headers(row.upstream, row.reason, row.verdict),
            (b"x-luthien-overhead-ms", b"%.2f" % (row.overhead_ms or 0.0)),
        ]
        if row.session_id:
            own.append((b"x-luthien-session-id", row.session_id.encode("latin-1", "replace")))
        return headers + own

    # --- the end ---

    async def _complete(self, running: Running, held: bytes, send: Send) -> None:
        """The upstream's answer has ended in order: record it, then let the last piece go."""
        await self._record_outcome(running, "")
        if running.start_message is not None:
            # The body came whole: head and body leave in one write.
            await send(running.start_message)
        await send({"type": "http.response.body", "body": held, "more_body": False})
        self._finished(running)

    async def _tell(self, running: Running, error: LuthienError, receive: Receive, send: Send) -> None:
        """Something went wrong that luthien knows of: record it, then tell the client as far as that is possible still."""
        row = running.row
        face = error.face
        running.error = str(error)
        if isinstance(error, ClientGone):
            await self._record_outcome(running, "cancelled")
            self._finished(running)
            return
        words: _Words = {
            "message": running.error,
            "openai_type": face.openai_type,
            "openai_code": face.openai_code,
            "anthropic_type": face.anthropic_type,
            "transaction_id": row.transaction_id,
        }
        if not running.sent:
            refused = not running.intended
            row.status = face.status
            body = error_body(_dialect_of(running), **words)
            running.response_headers = [(b"content-type", b"application/json")]
            running.received = len(body)
            running.response = bytearray(body)
            if isinstance(error, JournalUnavailable):
                # Nothing has passed, and the record would wait for the very store that is in trouble.
                row.outcome, row.error = "refused", running.error
                log.warning("%s refused: %s", row.transaction_id, error)
            else:
                await self._record_outcome(running, "refused" if refused else "error")
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode("ascii")),
            ]
            if refused and face.status not in (404, 503):
                headers.append((b"connection", b"close"))
            if face.status < 500 and face.status != 429:
                headers.append((b"x-should-retry", b"false"))
            await send({"type": "http.response.start", "status": face.status, "headers": self._with_own(running, headers)})
            if face.status == 413:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await _linger(receive)
                body = b""
            await send({"type": "http.response.body", "body": body, "more_body": False})
        elif running.content_type.startswith(_STREAM_TYPES):
            event = stream_error(running.dialect, running.operation, **words)
            await self._record_outcome(running, "truncated")
            await send({"type": "http.response.body", "body": _line_end(running) + event, "more_body": False})
        else:
            # Half of a body cannot be mended: cut the connection, so that nobody takes it for whole.
            await self._record_outcome(running, "truncated")
            running.cut_connection()
        self._finished(running)

    async def _cancelled(self, running: Running, receive: Receive, send: Send) -> None:
        """The client left, or the gateway is forced to stop: the transport has cut the upstream already."""
        if running.task is not None:
            running.task.uncancel()
        self._metrics.cancelled()
        if running.client_gone:
            running.error = running.error or "the client left"
            last = spawn(self._record_outcome(running, "cancelled"), name="record a cancelled transaction")
        else:
            stopped = Draining("luthien was stopped before this was finished; try again")
            last = spawn(self._tell(running, stopped, receive, send), name="tell of the stop")
        await asyncio.wait([last], timeout=LAST_WORDS_S)
        if running.row.state != "done":
            self._finished(running)

    async def _record_outcome(self, running: Running, outcome: str) -> None:
        """Read the answer, record how it ended, and return when that is durable. An empty `outcome` is told by the answer."""
        running.leaving = True
        row = running.row
        now = self._now()
        if not running.intended:
            self._refused_intent(running)
        reading = Reading()
        if running.received and outcome != "refused":
            reading = await read_answer(running)
            self._fill(running, reading)
        elif row.stream and running.operation in _READ_OPERATIONS and running.method != "HEAD":
            reading.complete = False
        if row.input_tokens is not None and running.upstream is not None:
            if not self._prices.ready:
                await self._prices.load()
            if running.upstream.api is not Dialect.OLLAMA and reading.usage is not None:
                row.cost_usd = self._prices.cost_usd(running.upstream.base_url, row.model or reading.model, reading.usage)
        if not outcome:
            outcome = _outcome_of(row, reading)
        row.outcome = outcome  # type: ignore[assignment]
        row.error = self._without_secrets(running, running.error or reading.error)
        row.total_ms = round((now - running.started) * 1e3, 3)
        usage = reading.usage
        await self._journal.append(
            Outcome(
                transaction_id=row.transaction_id,
                finished_ns=running.started_ns + int((now - running.started) * 1e9),
                outcome=outcome,
                status=row.status,
                verdict=row.verdict,
                headers=running.response_headers,
                body=bytes(running.response),
                body_bytes=running.received,
                complete=reading.complete and outcome in ("ok", "error", "refused"),
                model=reading.model,
                response_id=reading.response_id,
                input_tokens=row.input_tokens,
                output_tokens=row.output_tokens,
                cached_tokens=row.cached_tokens,
                cache_write_tokens=usage.cache_write_tokens if usage else None,
                reasoning_tokens=row.reasoning_tokens,
                cost_usd=row.cost_usd,
                ttft_ms=row.ttft_ms,
                total_ms=row.total_ms,
                overhead_ms=row.overhead_ms,
                timing={point: round(ms, 3) for point, ms in running.timing.items()},
                error=running.error,
                answer_error=reading.error,
                stop_reason=row.stop_reason,
                tool_calls=row.tool_calls,
                secrets=running.secrets,
            )
        )
        running.mark("finished", self._now())
        self._sessions.answered(row.session_id, reading.response_id)

    def _refused_intent(self, running: Running) -> None:
        """What was refused before its intent leaves a record too; nothing of it was sent, so nobody waits for it."""
        running.intended = True
        try:
            self._journal.append(self._intent(running, {}, Belonging(running.row.session_id, running.row.agent)))
        except LuthienError as error:
            log.warning("a refused request is not in the journal: %s", error)

    def _fill(self, running: Running, reading: Reading) -> None:
        row = running.row
        usage = reading.usage
        if usage is not None:
            row.input_tokens = usage.input_tokens
            row.output_tokens = usage.output_tokens
            row.cached_tokens = usage.cached_input_tokens
            row.reasoning_tokens = usage.reasoning_tokens
        row.stop_reason = _shared(reading.stop_reason)
        row.tool_calls = reading.tool_calls
        if not row.model:
            row.model = reading.model
        if running.arrivals:
            first = next((at for end, at in running.arrivals if end > reading.first_token_offset), running.arrivals[0][1])
            row.ttft_ms = round((first - running.started) * 1e3, 3)
            running.timing["first_token"] = row.ttft_ms

    def _without_secrets(self, running: Running, text: str) -> str:
        """Text of the traffic as front ends may have it."""
        if not text:
            return text
        raw = text.encode("utf-8", "replace")
        return redact_formats(redact_known(raw, running.secrets)).decode("utf-8", "replace")

    def _finished(self, running: Running) -> None:
        row = running.row
        row.state = "done"
        self.running.pop(row.transaction_id, None)
        self._feed.publish("finished", row)
        self._metrics.finished(row)


@lru_cache(maxsize=256)
def _route_headers(upstream: str, reason: str, verdict: str) -> RawHeaders:
    """The headers that are the same for all transactions of a route."""
    return [
        (b"x-luthien-upstream", upstream.encode("ascii")),
        (b"x-luthien-reason", reason.encode("ascii")),
        (b"x-luthien-verdict", verdict.encode("ascii")),
        (b"x-luthien-attempts", b"1" if upstream else b"0"),
    ]


class _Words(TypedDict):
    message: str
    openai_type: str
    openai_code: str
    anthropic_type: str
    transaction_id: str


_PIECE_FROM_BYTES = 64
"""Smaller parts of a body stay in it: a row of their own would be larger than they are."""


def _put_into(outbox: list[bytes]) -> Callable[[bytes], bool]:
    """What stands for a direct way to the client where the server offers none: pieces wait to be sent the ASGI way."""

    def put(chunk: bytes) -> bool:
        outbox.append(chunk)
        return False

    return put


async def _watch(running: Running, receive: Receive) -> None:
    """Wait until the client leaves, then stop the transaction."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
    if not running.leaving and running.task is not None:
        running.client_gone = True
        running.task.cancel()


async def _linger(receive: Receive) -> None:
    """Read and forget what the client is still sending, so that it gets to read why it was refused."""
    read = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while read < LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                read += len(message.get("body", b""))
    except TimeoutError:
        return


@lru_cache(maxsize=2_000)
def _shared(text: str) -> str:
    """One string for all rows that hold the same text: tens of thousands of them stay on a screen."""
    return text


def _too_large(size: int, limit: int) -> str:
    return f"the request body has {size:,} bytes or more, the limit is {limit:,}; raise 'server.max_body_bytes' to allow it"


def _add_credential(headers: RawHeaders, dialect: Dialect, api_key: str) -> None:
    """Give the configured key where the client has sent none."""
    if any(name in (b"authorization", b"x-api-key", b"api-key") for name, _ in headers):
        return
    if dialect is Dialect.ANTHROPIC:
        headers.append((b"x-api-key", api_key.encode()))
    else:
        headers.append((b"authorization", b"Bearer " + api_key.encode()))


def _dialect_of(running: Running) -> Dialect:
    """The dialect to complain in, where the endpoint is not known: the path or the headers give a hint."""
    if running.endpoint is not None:
        return running.endpoint.dialect
    path = running.row.path
    if path.startswith(("/anthropic", "/v1/messages")) or any(name == b"anthropic-version" for name, _ in running.headers):
        return Dialect.ANTHROPIC
    return Dialect.OLLAMA if path.startswith(("/api", "/ollama")) else Dialect.OPENAI


def _outcome_of(row: TransactionRow, reading: Reading) -> str:
    if row.status is not None and row.status >= 400:
        return "error"
    if reading.error and not reading.problem:
        return "error"
    return "ok" if reading.complete else "truncated"


def _line_end(running: Running) -> bytes:
    """What ends the event that the upstream left unfinished, so that ours stands alone."""
    tail = bytes(running.response[-4:])
    if not tail or tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        return b""
    if running.dialect is Dialect.OLLAMA:
        return b"" if tail.endswith(b"\n") else b"\n"
    return b"\n" if tail.endswith((b"\n", b"\r")) else b"\n\n"
