"""What policies may ask of the gateway in one transaction: requests of their own, holds, names of upstreams.

A policy reaches configured upstreams only, within the limits of the client and of the upstream, and takes the room and the keys
that all requests take. What it spends counts as the transaction's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from proxy_core.control.hold_subject import subject_of
from proxy_core.control.holds import HoldQueue
from proxy_core.credentials import add_credential, is_credential
from proxy_core.errors import UnknownUpstream, UpstreamError, UpstreamInvalid
from proxy_core.limits.limiter import Used
from proxy_core.routing.reasons import Reason
from proxy_core.routing.router import Router
from proxy_core.routing.transport import UpstreamResponse, UpstreamTransport
from proxy_core.routing.upstreams import Upstream, Upstreams, speaks
from proxy_core.running import RawHeaders, Running
from proxy_core.sessions.prices import PriceBook
from proxy_core.transaction import HoldOutcome, TransactionContext, WholeResponse
from proxy_core.verdicts import Stage
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer
from proxy_core.wire.dialects import Dialect, Operation, UnsafePath, find_endpoint
from proxy_core.wire.encodings import UnreadableEncoding, decoded
from proxy_core.wire.glance import glance
from proxy_core.wire.headers import response_headers, value_of

if TYPE_CHECKING:
    from proxy_core.admissions import Admissions
    from proxy_core.control.feed import Feed
    from proxy_core.errands import Errands

MAX_WHOLE_BYTES = 64 * 1024 * 1024
_DROPPED = (b"content-encoding", b"content-length", b"transfer-encoding")


class Call(Struct, frozen=True):
    """One request that a policy made."""

    upstream: str
    address: str
    cost_usd: float | None
    target: bytes
    """Raw path and query."""
    body: bytes
    response: WholeResponse


class Pausing(Protocol):
    """Stops the clock of a transaction while a person thinks, and starts it again."""

    def __call__(self, running: Running, *, paused: bool) -> None: ...


class PolicyServices:
    """The services of one transaction."""

    __slots__ = (
        "_admissions",
        "_errands",
        "_feed",
        "_holds",
        "_may_leave",
        "_pause",
        "_prices",
        "_router",
        "_running",
        "_transport",
        "_upstreams",
        "_waiting",
        "calls",
        "context",
    )

    context: TransactionContext

    def __init__(
        self,
        running: Running,
        *,
        upstreams: Upstreams,
        router: Router,
        transport: UpstreamTransport,
        errands: Errands,
        admissions: Admissions,
        prices: PriceBook,
        holds: HoldQueue,
        feed: Feed,
        pause: Pausing,
    ) -> None:
        self._running = running
        self._upstreams = upstreams
        self._router = router
        self._transport = transport
        self._errands = errands
        self._admissions = admissions
        self._prices = prices
        self._holds = holds
        self._feed = feed
        self._pause = pause
        self._waiting = 0
        self._may_leave: dict[str, bytes] = {}
        """The conversation as it was found to be free to go to an upstream."""
        self.calls: list[Call] = []

    def total_cost(self, answer_cost: float | None) -> float | None:
        """Cost of the answer and of what policies asked beside it, in USD; None where a part is unknown."""
        costs = [call.cost_usd for call in self.calls]
        control = self._running.control
        if control is None or control.chain.sender is None:
            costs.append(answer_cost)
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    async def send(
        self, context: TransactionContext, *, upstream: str | None = None, target: bytes | None = None, body: bytes | None = None
    ) -> WholeResponse:
        """Send a request and read the whole answer. Raises UnknownUpstream, UpstreamError, RouteRefused, AdmissionRefused."""
        chosen = self._named(upstream or context.route.upstream)
        where = context.target if target is None else target
        payload = context.request_body if body is None else body
        endpoint = self._running.endpoint
        if target is None and endpoint is not None and not speaks(chosen.api, endpoint):
            raise UpstreamInvalid(f"upstream '{chosen.name}' speaks {chosen.api.value}; what policies send is not translated")
        operation = _operation(context, where)
        self._router.check(chosen, operation, payload)
        if payload is not context.request_body and context.request_body is not self._may_leave.get(chosen.name):
            # Of a conversation that must stay local, no part goes elsewhere either.
            self._router.check(chosen, context.operation, context.request_body)
            self._may_leave[chosen.name] = context.request_body
        if target is None and endpoint is not None:
            payload = self._router.with_model(chosen, endpoint, payload, glance(payload).model)
        control = self._running.control
        admission = await self._admissions.admit_call(
            self._running,
            chosen,
            operation,
            context.method,
            payload,
            instead=target is None and control is not None and control.chain.sender is not None,
        )
        used = Used(outcome="error", sent=False, tokens=None, usd=None, received_bytes=0, stream=False)
        try:
            return await self._sent(context, chosen, where, payload, used, own_request=target is None)
        finally:
            if admission is not None:
                await admission.settle(used)

    async def _sent(
        self, context: TransactionContext, chosen: Upstream, where: bytes, payload: bytes, used: Used, *, own_request: bool
    ) -> WholeResponse:
        """The whole answer; what it has used is put into `used` as it becomes known."""
        started = time.monotonic()

        async def send(key: str | None) -> tuple[UpstreamResponse, bool]:
            headers = self._headers(context, chosen, own_request=own_request)
            ours = key is not None and add_credential(headers, chosen.api, key)
            used.sent = True
            return await self._transport.send(chosen, context.method, where, headers, payload), ours

        errand = await self._errands.send(self._running, chosen, send)
        used.outcome = "cancelled"
        response = errand.response
        try:
            parts: list[bytes] = []
            while chunk := await response.read():
                parts.append(chunk)
                used.received_bytes += len(chunk)
                if used.received_bytes > MAX_WHOLE_BYTES:
                    raise UpstreamInvalid(f"upstream '{chosen.name}' gave more than {MAX_WHOLE_BYTES:,} bytes to a policy")
        except UpstreamError as error:
            errand.failed(error)
            raise
        finally:
            errand.close()
        used.outcome = "ok" if response.status < 400 else "error"
        received = response_headers(response.headers)
        raw = b"".join(parts)
        try:
            whole = decoded(raw, value_of(received, b"content-encoding"))
        except UnreadableEncoding as error:
            raise UpstreamInvalid(f"upstream '{chosen.name}' answered in a form that cannot be read: {error}") from error
        answer = self._read(context, where, whole, value_of(received, b"content-type"))
        if answer is not None and answer.usage is not None and answer.usage.input_tokens is not None:
            used.tokens = answer.usage.input_tokens + (answer.usage.output_tokens or 0)
        used.usd = cost = await self._cost(chosen, answer)
        came = WholeResponse(
            status=response.status,
            headers=[one for one in received if one[0] not in _DROPPED],
            body=whole,
            upstream=chosen.name,
            answer=answer,
            cost_usd=cost,
            ms=round((time.monotonic() - started) * 1e3, 3),
        )
        self.calls.append(Call(chosen.name, chosen.base_url, cost, where, payload, came))
        return came

    async def hold(
        self,
        context: TransactionContext,
        *,
        stage: Stage,
        why: str,
        content: str,
        timeout_s: float,
        on_timeout: str,
        tool: str = "",
        call_id: str = "",
        tool_schema: str = "",
    ) -> HoldOutcome:
        """Put something before the operator and wait. Raises ClientGone where the client leaves."""
        if context.shadow:
            return HoldOutcome(decision="approve", reason=Reason.HELD)
        running = self._running
        row = running.row
        subject = subject_of(context, stage=stage, why=why, content=content, tool=tool, call_id=call_id, tool_schema=tool_schema)
        self._waiting += 1
        if self._waiting == 1:
            self._pause(running, paused=True)
            row.state, row.verdict = "held", "hold"
        try:
            return await self._holds.hold(subject, timeout_s=timeout_s, on_timeout=on_timeout)
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._pause(running, paused=False)
                row.state = "streaming" if running.sent else "waiting"
                self._feed.publish("policy", row)

    @property
    def waiting(self) -> bool:
        """Whether something of this transaction is before the operator."""
        return self._waiting > 0

    def upstream_dialect(self, name: str) -> Dialect:
        return self._named(name).api

    def upstream_at(self, url: str) -> str | None:
        wanted = url.rstrip("/")
        for tail in ("/v1", "/api"):
            wanted = wanted.removesuffix(tail)
        return next((one.name for one in self._upstreams.by_name.values() if one.base_url == wanted), None)

    def secrets(self, context: TransactionContext) -> tuple[bytes, ...]:
        return self._running.secrets

    def _named(self, name: str) -> Upstream:
        chosen = self._upstreams.by_name.get(name)
        if chosen is None:
            known = ", ".join(self._upstreams.by_name)
            raise UnknownUpstream(f"there is no upstream '{name}'; configured are: {known}")
        return chosen

    def _headers(self, context: TransactionContext, chosen: Upstream, *, own_request: bool) -> RawHeaders:
        """The client's headers for the client's request; for one that a policy made, only what it needs.

        The client's credential goes to the upstream that the client asked for, and to no other.
        """
        running = self._running
        endpoint = running.endpoint
        same = endpoint is not None and not self._router.moved(endpoint, chosen)
        given = context.request_headers
        if own_request:
            headers = [one for one in given if one[0] != b"accept-encoding" and (same or not is_credential(one[0]))]
        else:
            headers = [(b"content-type", b"application/json")]
            if same:
                headers += [one for one in given if is_credential(one[0]) and one in running.headers]
            if chosen.api is Dialect.ANTHROPIC:
                headers.append((b"anthropic-version", b"2023-06-01"))
        headers.append((b"accept-encoding", b"identity"))
        return headers

    def _read(self, context: TransactionContext, target: bytes, body: bytes, content_type: str) -> Answer | None:
        codec = codec_for(_operation(context, target))
        if codec is None:
            return None
        if content_type.startswith(("text/event-stream", "application/x-ndjson")):
            decoder = codec.stream_decoder()
            decoder.feed(body)
            return decoder.finish()
        return codec.read_response(body)

    async def _cost(self, chosen: Upstream, answer: Answer | None) -> float | None:
        unknown = 0.0 if chosen.api is Dialect.OLLAMA else None
        if answer is None or answer.usage is None:
            return unknown
        if not self._prices.ready:
            await self._prices.load()
        known = self._prices.cost_usd(chosen, answer.model or self._running.row.model, answer.usage)
        return unknown if known is None else known


def _operation(context: TransactionContext, target: bytes) -> Operation:
    """What a request to `target` asks for."""
    path = target.partition(b"?")[0].decode("latin-1")
    try:
        endpoint = find_endpoint(path, context.dialect is Dialect.ANTHROPIC, ())
    except UnsafePath:
        return Operation.OTHER
    return endpoint.operation if endpoint is not None else Operation.OTHER


ServicesFor = Callable[[Running], PolicyServices]
