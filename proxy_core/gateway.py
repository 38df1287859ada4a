"""One transaction from first to last byte: the only place that knows the order of things.

ingress → who is talking → intent durable → policies → upstream → policies → answer, piece by piece as it comes → outcome
durable → last byte. What the upstream sends and no policy changed goes to the client unchanged; what goes wrong is told in
the client's dialect; a client that leaves cancels the upstream. Each transaction leaves one intent and one outcome, whatever
happens in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from proxy_core.admissions import Admissions
from proxy_core.attempts import Attempts
from proxy_core.control.feed import Feed
from proxy_core.controlled_relay import ControlledRelay
from proxy_core.detectors.secrets import known_secrets
from proxy_core.enforcement import ChainSource, Control, Enforcement
from proxy_core.errands import Errands
from proxy_core.errors import (
    BadRequest,
    ClientGone,
    Draining,
    Killed,
    LuthienError,
    NotFound,
    RequestTimeout,
    RequestTooLarge,
    UpstreamTimeout,
)
from proxy_core.ids import new_ulid
from proxy_core.interceptors.metrics import GatewayMetrics
from proxy_core.journal.journal import Journal
from proxy_core.limits.client_keys import KeyCheck, refuse_luthien_key
from proxy_core.limits.limiter import Limiter
from proxy_core.policy_services import ServicesFor
from proxy_core.recording import Recorder, shared, used_by, without_secrets
from proxy_core.relay import Message, Receive, Relay, Send
from proxy_core.routing.pool import Pool
from proxy_core.routing.router import Router
from proxy_core.routing.transport import UpstreamResponse, UpstreamTransport
from proxy_core.routing.upstreams import Choice, Upstreams
from proxy_core.running import Running
from proxy_core.sending import Sending
from proxy_core.sessions.detector import Belonging, SessionDetector
from proxy_core.sessions.identity import person_of, redacted_tags
from proxy_core.sessions.prices import PriceBook
from proxy_core.sessions.usage import UsageEstimates
from proxy_core.settings import Settings
from proxy_core.tasks import spawn
from proxy_core.telling import Telling
from proxy_core.transaction_row import TransactionRow
from proxy_core.wire.dialects import NAMES, READ_OPERATIONS, TURNS, Dialect, UnsafePath, find_endpoint
from proxy_core.wire.glance import glance, preview

if TYPE_CHECKING:
    from proxy_core.interceptors.process import InterceptorProcess

log = logging.getLogger(__name__)

Scope = dict[str, Any]

TICK_S = 0.1
"""How often deadlines are looked at: one timer for all transactions, since two for each cost more than reading its body."""
WATCH_AFTER_S = 0.25
"""A transaction older than this has a watcher for a client that leaves; most are over before."""
MIN_BODY_BYTES_PER_S = 1_024
LAST_WORDS_S = 5.0


class Gateway:
    """The data plane's hot path, as a plain ASGI callable for `http` scopes."""

    def __init__(
        self,
        *,
        settings: Settings,
        upstreams: Upstreams,
        router: Router,
        transport: UpstreamTransport,
        journal: Journal,
        sessions: SessionDetector,
        prices: PriceBook,
        feed: Feed,
        metrics: GatewayMetrics,
        policies: ChainSource,
        services: ServicesFor,
        loop: asyncio.AbstractEventLoop,
        keys: KeyCheck | None = None,
        limiter: Limiter | None = None,
        new_id: Callable[[int], str] = new_ulid,
        interceptors: InterceptorProcess | None = None,
    ) -> None:
        """Without `keys` every client passes with its own credential; without `limiter` nothing is limited.

        `new_id` names a transaction that begins at a Unix time in ms."""
        self._loop = loop
        self._now = time.monotonic  # not that of the loop, which tells milliseconds only
        self._new_id = new_id
        self._server = settings.server
        self._capture_limit = settings.journal.max_body_bytes
        self._upstreams = upstreams
        self._keys = keys
        self._limiter = limiter
        self._sessions = sessions
        self._recorder = Recorder(
            journal=journal,
            sessions=sessions,
            prices=prices,
            estimates=UsageEstimates(settings.prices),
            interceptors=interceptors,
        )
        self._relay = Relay(recorder=self._recorder, feed=feed, own_headers=settings.server.response_headers)
        self._telling = Telling(recorder=self._recorder, relay=self._relay)
        self._enforcement = Enforcement(source=policies, services=services, keys=settings.keys, digest=journal.digest, loop=loop)
        self._controlled = ControlledRelay(
            relay=self._relay,
            heartbeat_s=settings.holds.heartbeat_s,
            max_body_bytes=settings.journal.max_body_bytes,
            loop=loop,
        )
        self._feed = feed
        self._metrics = metrics
        self.pool = Pool(upstreams, settings.routing, clock=loop.time)
        self.admissions = Admissions(limiter, router=router, key_name=self._enforcement.key_name)
        retries = settings.routing.retries
        self._attempts = Attempts(
            pool=self.pool,
            router=router,
            recorder=self._recorder,
            admissions=self.admissions,
            settings=retries,
        )
        self._sending = Sending(
            upstreams=upstreams,
            router=router,
            pool=self.pool,
            attempts=self._attempts,
            admissions=self.admissions,
            transport=transport,
            recorder=self._recorder,
            feed=feed,
        )
        self.errands = Errands(pool=self.pool, budget=self._attempts.budget, max_attempts=retries.max_attempts)
        metrics.watch_labelled(
            "luthien_retries",
            "Failed attempts after which a request was sent again.",
            ("upstream", "outcome"),
            lambda: self._attempts.failed,
        )
        self._configured_secrets = tuple(key.encode() for one in upstreams.by_name.values() for key in one.keys)
        self.running: dict[str, Running] = {}
        self.total = 0
        self._ticking = False

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send, *, begun: Callable[[TransactionRow], None] | None = None
    ) -> None:
        """`begun` is given the row of the transaction, which is whole when this returns."""
        running = self._begin(scope)
        if begun is not None:
            begun(running.row)
        # One deadline at a time: for the request's body, then for the start of the watch, then for the whole.
        running.deadline = running.started + self._server.body_timeout_s
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)
        try:
            try:
                await self._take_request(running, scope, receive)
                running.receive = receive
                running.deadline = self._now() + WATCH_AFTER_S
                if running.control is None:
                    held = await self._forward(running, send)
                else:
                    held = await self._control(running, running.control, send)
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
            if running.watcher is not None:
                running.watcher.cancel()
            if running.seat is not None:
                running.seat.leave()
            # The server's functions in it refer to the scope: left there, each request would be a cycle for the collector.
            scope.get("extensions", {}).clear()
            self.running.pop(running.row.transaction_id, None)

    def _tick(self) -> None:
        """See what is due; goes on for as long as anything runs."""
        now = self._now()
        for running in list(self.running.values()):
            if running.deadline <= now:
                if running.receive is not None:
                    self._watch_from_now(running, running.receive, now)
                else:
                    running.expire(now)
        self._ticking = bool(self.running)
        if self._ticking:
            self._loop.call_later(TICK_S, self._tick)

    def _watch_from_now(self, running: Running, receive: Receive, now: float) -> None:
        """For a transaction that is not over at once: notice a client that leaves, and the limit of the whole."""
        running.receive = None
        running.watcher = spawn(_watch(running, receive), name="watch client")
        running.deadline = now + (running.upstream.timeouts.total_s if running.upstream else 0.0)

    def take(self, settings: Settings) -> None:
        """Put in force what of a changed configuration concerns requests beside their policies."""
        routing = settings.routing
        self.pool.use(routing.breaker)
        self._attempts.use(routing.retries)
        self.errands.max_attempts = routing.retries.max_attempts
        self._upstreams.use(routing.timeouts)
        self._enforcement.use_keys(settings.keys)
        if self._keys is not None:
            self._keys.use(settings.keys)
        if self._limiter is not None:
            self._limiter.use(settings.limits)
        self._controlled.heartbeat_s = settings.holds.heartbeat_s
        self._recorder.take(settings.prices)

    def kill(self, transaction_id: str, who: str) -> bool:
        """End a running transaction; False where it is not running, or over but for its record."""
        running = self.running.get(transaction_id)
        if running is None or running.leaving or running.task is None:
            return False
        running.killed_by = who
        running.task.cancel()
        return True

    def pause(self, running: Running, *, paused: bool) -> None:
        """Stop the clock of a transaction while a person thinks, and start it again."""
        if paused:
            running.pause(self._now())
        else:
            running.go_on(self._now())

    def _expiry(self, running: Running) -> LuthienError | None:
        """The error of a transaction that was stopped by its deadline or an operator; None where something else stopped it."""
        if running.killed_by and not running.client_gone:
            if running.task is not None:
                running.task.uncancel()
            return Killed(f"{running.killed_by} ended this transaction")
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
            transaction_id=self._new_id(started_ns // 1_000_000),
            started_at=started_ns / 1e9,
            started_monotonic=started,
            method=shared(scope["method"]),
            path=_path(scope["raw_path"]),
        )
        running = Running.begun(
            row,
            scope=scope,
            started=started,
            started_ns=started_ns,
            task=asyncio.current_task(self._loop),
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
        row.dialect = NAMES[endpoint.dialect]
        row.operation = NAMES[endpoint.operation]
        if self._keys is not None:
            running.client_key = await self._keys.admit(running.headers, running.query)
        running.body = await self._read_body(running, headers.get(b"content-length", b""), receive)
        row.request_bytes = len(running.body)
        running.mark("received", self._now())
        running.secrets = known_secrets(running.headers, running.query, self._configured_secrets)
        if (path := without_secrets(running, row.path)) is not row.path:
            row.path = shared(path)
        running.key = self._enforcement.key_name(running)
        if self._keys is None:
            refuse_luthien_key(running.secrets)
        belonging = Belonging("", "")
        if endpoint.operation in READ_OPERATIONS:
            running.glance = glance(running.body)
            turn = endpoint.operation in TURNS
            belonging = self._sessions.belonging(headers, running.glance, running.body, turn=turn)
            row.model = shared(running.glance.model)
            row.stream = bool(running.glance.stream)
            row.preview = without_secrets(running, preview(running.glance.history))
        else:
            belonging = self._sessions.belonging(headers, running.glance, b"", turn=False)
        row.session_id = belonging.session_id
        running.point = belonging.chain
        row.agent = shared(belonging.agent)
        row.parent_session, row.link, row.side = belonging.parent_session, belonging.link, belonging.side
        person = person_of(headers, running.headers, running.glance.marks)
        if endpoint.workflow:
            row.workflow = shared(without_secrets(running, endpoint.workflow))
        if person.user:
            row.user = without_secrets(running, person.user)
        if person.tags:
            running.tags = person.tags
            row.tags = redacted_tags(person.tags, partial(without_secrets, running))
        choice, refused = self._sending.choose(running, endpoint)
        running.upstream = choice.upstream
        row.reason = choice.reason
        row.state = "waiting"
        control = running.control = self._enforcement.begin(running, endpoint, belonging.predecessor)
        if refused is not None and control is None:
            running.upstream = None
            row.verdict = "deny"
            raise refused
        if self.admissions.hold_for(running):
            # What may go nowhere as it came is not moved by a limit either: policies may yet take out what keeps it.
            given = Choice(choice.upstream, "") if refused is not None else choice
            admitted = await self._attempts.admit(running, endpoint, given, running.body)
            if admitted is not given:
                running.upstream = admitted.upstream
                row.upstream, row.reason = admitted.upstream.name, admitted.reason
                control = running.control = self._enforcement.begin(running, endpoint, belonging.predecessor)
        if control is not None:
            control.late = lambda verdicts: self._recorder.late(running, verdicts)
        self._feed.publish("started", row)
        await self._recorder.intent(running, scope, belonging)
        running.mark("recorded", self._now())
        self._feed.publish("routed", row)

    async def _read_body(self, running: Running, announced: bytes, receive: Receive) -> bytes:
        limit = self._server.max_body_bytes
        if announced.isdigit() and (length := int(announced[:20])) > limit:
            raise RequestTooLarge(_too_large(length, limit))
        message = await receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body", False):
            if len(body) > limit:
                raise RequestTooLarge(_too_large(len(body), limit))
            return body
        return await self._read_parts(running, message, receive)

    async def _read_parts(self, running: Running, message: Message, receive: Receive) -> bytes:
        """The body of a request that comes in several pieces, of which `message` is the first."""
        limit, timeout_s = self._server.max_body_bytes, self._server.body_timeout_s
        begun = self._now()
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
            elapsed = self._now() - begun
            if elapsed > timeout_s and length < elapsed * MIN_BODY_BYTES_PER_S:
                raise RequestTimeout("the request body came too slowly; see 'server.body_timeout_s'")
            running.deadline = self._now() + timeout_s
            message = await receive()

    # --- the answer ---

    async def _forward(self, running: Running, send: Send) -> bytes:
        """Send the request as it came, and the answer back; returns the last piece of the answer."""
        response = await self._sending.as_it_came(running)
        try:
            held = await self._relay.relay(running, response, send)
            running.mark("last_byte", self._now())
            return held
        finally:
            response.close()

    async def _control(self, running: Running, control: Control, send: Send) -> bytes:
        """The same through the policies. Raises PolicyDenied."""
        heartbeat = self._controlled.heartbeat(running, send) if _wants_stream(running) else None
        response: UpstreamResponse | None = None
        try:
            await control.before_send()
            running.row.verdict = control.verdict
            if control.context.response_status is not None:
                held = await self._controlled.answered(running, control, send)
            else:
                response = await self._sending.as_policies_left_it(running, control)
                held = await self._controlled.relay(running, control, response, send)
            running.mark("last_byte", self._now())
            return held
        finally:
            running.row.verdict = control.verdict
            if heartbeat is not None:
                await heartbeat.stop()
            if response is not None:
                response.close()

    # --- the end ---

    async def _complete(self, running: Running, held: bytes, send: Send) -> None:
        """The upstream's answer has ended in order: record it, then let the last piece go."""
        denied = running.control is not None and running.control.denied
        await self._recorder.outcome(running, "refused" if denied else "")
        start = running.start_message
        if start is not None:
            # The body came whole: head and body leave in one write.
            if running.answer is not None and running.answer(start["status"], start["headers"], held):
                self._finished(running)
                return
            await send(start)
        await send({"type": "http.response.body", "body": held, "more_body": False})
        self._finished(running)

    async def _tell(self, running: Running, error: LuthienError, receive: Receive, send: Send) -> None:
        """Something went wrong that luthien knows of."""
        await self._telling.tell(running, error, receive, send)
        self._finished(running)

    async def _cancelled(self, running: Running, receive: Receive, send: Send) -> None:
        """The client left, or the gateway is forced to stop: the transport has cut the upstream already."""
        if running.task is not None:
            running.task.uncancel()
        self._metrics.cancelled()
        if running.client_gone:
            running.error = running.error or "the client left"
            last = spawn(self._recorder.outcome(running, "cancelled"), name="record a cancelled transaction")
        else:
            stopped = Draining("luthien was stopped before this was finished; try again")
            last = spawn(self._tell(running, stopped, receive, send), name="tell of the stop")
        await asyncio.wait([last], timeout=LAST_WORDS_S)
        if running.row.state != "done":
            self._finished(running)

    def _finished(self, running: Running) -> None:
        row = running.row
        if running.admission is not None and not running.admission.settled:
            spawn(running.admission.settle(used_by(running)), name="settle an admission")
        row.state = "done"
        self.running.pop(row.transaction_id, None)
        self._feed.publish("finished", row)
        self._metrics.finished(row)


async def _watch(running: Running, receive: Receive) -> None:
    """Wait until the client leaves, then stop the transaction."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
    if not running.leaving and running.task is not None:
        running.client_gone = True
        running.task.cancel()


@lru_cache(maxsize=2_000)
def _path(raw: bytes) -> str:
    """A path as text, one string for all rows that hold it."""
    return raw.decode("latin-1")


def _wants_stream(running: Running) -> bool:
    """Whether the client waits for a stream; Ollama streams unless it is told not to."""
    stream = running.glance.stream
    if stream is None:
        return running.dialect is Dialect.OLLAMA and running.operation in READ_OPERATIONS
    return stream


def _too_large(size: int, limit: int) -> str:
    return f"the request body has {size:,} bytes or more, the limit is {limit:,}; raise 'server.max_body_bytes' to allow it"
