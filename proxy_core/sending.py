"""How a request goes to an upstream: which one, in which words, with whose credential, and what the record says of it.

The rules choose first, then the pool; policies may change both the request and its upstream, and the rules are asked again
about what they made of it. An upstream of another API gets a translation. What differs from what came is recorded before it
is sent.
"""

from __future__ import annotations

import time

from proxy_core.admissions import Admissions
from proxy_core.attempts import Attempts
from proxy_core.control.feed import Feed
from proxy_core.credentials import add_credential, is_credential, require_credential
from proxy_core.detectors.secrets import known_secrets
from proxy_core.enforcement import Control, client_headers
from proxy_core.errors import BadRequest, ConfigurationError, NotFound, RouteRefused
from proxy_core.recording import Recorder, shared
from proxy_core.routing.pool import Pool
from proxy_core.routing.reasons import Reason
from proxy_core.routing.router import CHAT_OF, Router
from proxy_core.routing.translated import request_headers as translated_headers
from proxy_core.routing.translated import translated_answer
from proxy_core.routing.transport import UpstreamResponse, UpstreamTransport
from proxy_core.routing.upstreams import Choice, Upstream, Upstreams, speaks
from proxy_core.running import Running
from proxy_core.verdicts import Stage, Verdict
from proxy_core.wire.dialects import Dialect, Endpoint
from proxy_core.wire.glance import glance
from proxy_core.wire.translate import Translated


class Sending:
    """Sends requests to upstreams, again where that is allowed and of use."""

    def __init__(
        self,
        *,
        upstreams: Upstreams,
        router: Router,
        pool: Pool,
        attempts: Attempts,
        admissions: Admissions,
        transport: UpstreamTransport,
        recorder: Recorder,
        feed: Feed,
    ) -> None:
        self._upstreams = upstreams
        self._router = router
        self._pool = pool
        self._attempts = attempts
        self._admissions = admissions
        self._transport = transport
        self._recorder = recorder
        self._feed = feed
        self._now = time.monotonic

    def choose(self, running: Running, endpoint: Endpoint) -> tuple[Choice, RouteRefused | None]:
        """Where the request goes as it came. Where it may go nowhere, its usual upstream, and the refusal: policies may
        yet take out what keeps it. Raises UnknownUpstream."""
        refused: RouteRefused | None = None
        if self._router.idle:
            choice = self._upstreams.choose(endpoint)
        else:
            choice, refused = self._by_rules(running, endpoint)
        if refused is None:
            running.row.upstream = choice.upstream.name
            if self._pool.pooled:
                choice = self._attempts.pick(running, endpoint, choice, running.body)
                running.row.upstream = choice.upstream.name
        return choice, refused

    def _by_rules(self, running: Running, endpoint: Endpoint) -> tuple[Choice, RouteRefused | None]:
        try:
            choice = self._router.choose(
                endpoint, headers=running.headers, body=running.body, model=running.glance.model, tags=running.tags
            )
        except RouteRefused as refused:
            return Choice(self._upstreams.choose(endpoint).upstream, refused.reasons), refused
        return choice, None

    async def as_it_came(self, running: Running) -> UpstreamResponse:
        """Send what the client sent, but for what the upstream needs otherwise: its model's name, its credential, its API."""
        endpoint = running.endpoint
        if endpoint is None:
            raise NotFound("no upstream was chosen")
        target = endpoint.path.encode("latin-1")
        if running.query:
            target += b"?" + running.query

        async def once() -> UpstreamResponse:
            upstream, headers, body = running.upstream, client_headers(running), running.body
            if upstream is not None and not (self._router.idle and not self._router.maps_models and not self._pool.pooled):
                body = self._router.with_model(upstream, endpoint, body, running.glance.model)
                if self._router.moved(endpoint, upstream):
                    headers = _without_credentials(running, headers)
                if body is not running.body or running.tried:
                    running.row.model = shared(glance(body).model)
                    running.sent_headers, running.sent_body = headers, body
                    await self._recorder.sent(running, target)
            return await self._send_upstream(running, target, headers, body)

        if running.upstream is None:
            raise NotFound("no upstream was chosen")
        return await self._attempts.send(running, running.upstream, endpoint, running.body, once)

    async def as_policies_left_it(self, running: Running, control: Control) -> UpstreamResponse:
        """Send what the policies made of the request, recorded first where it is not what came."""
        context = control.context
        before = running.upstream
        endpoint, first = running.endpoint, self._take_route(running, control)
        if endpoint is None:
            raise NotFound("no upstream was chosen")
        if self._admissions.hold_for(running):
            given = Choice(first, running.row.reason)
            admitted = await self._attempts.admit(running, endpoint, given, context.request_body)
            first = running.upstream = admitted.upstream
            running.row.upstream, running.row.reason = first.name, admitted.reason
        same_target = context.target.partition(b"?")[0] == endpoint.path.encode("latin-1")

        async def once() -> UpstreamResponse:
            upstream = running.upstream or first
            headers = list(context.request_headers)
            body = context.request_body
            if upstream is not first:
                # A credential that a policy gave is meant for the upstream that it saw.
                headers = [one for one in headers if not is_credential(one[0]) or one in running.headers]
            if self._router.moved(endpoint, upstream):
                headers = _without_credentials(running, headers)
            if self._router.maps_models:
                body = self._router.with_model(upstream, endpoint, body, glance(body).model)
            running.sent_headers, running.sent_body = headers, body
            if headers != running.headers:
                running.secrets = tuple({*running.secrets, *known_secrets(headers, b"")})
            if running.sent_body != running.body or running.tried:
                model = glance(running.sent_body).model
                running.row.model = shared(model) if model else running.row.model
            if running.sent_body != running.body or upstream is not before or not same_target or running.tried:
                await self._recorder.sent(running, context.target)
            self._feed.publish("policy", running.row)
            return await self._send_upstream(running, context.target, headers, running.sent_body)

        return await self._attempts.send(running, first, endpoint, context.request_body, once)

    def _take_route(self, running: Running, control: Control) -> Upstream:
        """Go where the policies and the rules say.

        Raises ConfigurationError where a policy chose an upstream that speaks another API, and RouteRefused.
        """
        context = control.context
        route = context.route
        row = running.row
        chosen = self._upstreams.by_name.get(route.upstream)
        endpoint = running.endpoint
        if chosen is None or endpoint is None:
            raise ConfigurationError(f"a policy chose the upstream '{route.upstream}', which is not configured")
        reason = str(route.reason)
        by_policy = running.upstream is None or chosen is not running.upstream or reason != row.reason
        if by_policy and not speaks(chosen.api, endpoint):
            raise ConfigurationError(
                f"a policy chose the upstream '{chosen.name}', which speaks {chosen.api.value}, "
                f"for a request that speaks {endpoint.api.value}"
            )
        if not self._router.idle and (by_policy or not row.upstream or context.request_body is not running.body):
            chosen, reason = self._route_again(running, control, (chosen.name, _code(reason)) if by_policy else None)
            if not by_policy and self._pool.pooled:
                choice = self._attempts.pick(running, endpoint, Choice(chosen, reason), context.request_body)
                chosen, reason = choice.upstream, choice.reason
        running.upstream = chosen
        row.upstream, row.reason = chosen.name, reason
        return chosen

    def _route_again(self, running: Running, control: Control, asked: tuple[str, Reason] | None) -> tuple[Upstream, str]:
        """Ask the rules about what the policies made of the request. Raises RouteRefused, UnknownUpstream."""
        context, endpoint = control.context, running.endpoint
        if endpoint is None:
            raise NotFound("no upstream was chosen")
        try:
            choice = self._router.choose(
                endpoint,
                headers=context.request_headers,
                body=context.request_body,
                model=glance(context.request_body).model,
                tags=context.tags,
                asked=asked,
            )
        except RouteRefused as refused:
            running.upstream = None
            running.row.upstream, running.row.reason = "", refused.reasons
            context.policy = "routing"
            context.verdict("deny", Reason(refused.reasons.partition(",")[0]), str(refused))
            raise
        return choice.upstream, choice.reason

    async def _send_upstream(
        self, running: Running, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> UpstreamResponse:
        upstream, endpoint = running.upstream, running.endpoint
        if upstream is None or endpoint is None:
            raise NotFound("no upstream was chosen")
        translated: Translated | None = None
        running.translated = None
        if not speaks(upstream.api, endpoint):
            translated = self._router.translation(upstream, endpoint, body)
            if translated is None:
                raise BadRequest(f"this request cannot be said in the API of upstream '{upstream.name}'")
            target, body = translated.path.encode("ascii"), translated.body
            headers = translated_headers(headers, translated)
            running.sent_headers, running.sent_body = headers, body
            await self._recorder.sent(running, target)
            if translated.lost or translated.hints:
                self._recorder.late(running, [_left_out(translated, running.ms_at(self._now()))])
        key = running.seat.key if running.seat is not None else upstream.api_key
        if key is not None:
            dialect = upstream.api if translated is not None else endpoint.dialect
            running.key_added = add_credential(headers, dialect, key)
        elif running.client_key is not None and upstream.api is not Dialect.OLLAMA:
            require_credential(headers, upstream.name)
        now = self._now()
        running.row.overhead_ms = running.ms_at(now)
        response = await self._transport.send(upstream, running.method, target, headers, body)
        running.mark("connected", response.connected_at)
        running.mark("responded", self._now())
        if translated is None:
            return response
        try:
            running.translated = await translated_answer(
                response,
                CHAT_OF[upstream.api],
                endpoint.operation,
                translated,
                transaction_id=running.row.transaction_id,
                model=running.row.model,
            )
        except BaseException:
            response.close()
            raise
        return running.translated


def _without_credentials(running: Running, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The client's credential is meant for the upstream that it asked for; one that a policy gave stays."""
    return [one for one in headers if not (is_credential(one[0]) and one in running.headers)]


def _left_out(translated: Translated, at_ms: float) -> Verdict:
    """The word of the record on what could not be carried into another dialect; hints alone are no reason to flag."""
    lost, hints = list(translated.lost), list(translated.hints)
    return Verdict(
        policy="routing",
        stage=Stage.REQUEST,
        mode="enforce",
        ran="partial" if lost else "ran",
        action="flag" if lost else "allow",
        reason=Reason.CAPABILITY_MISSING if lost else Reason.HINT_DROPPED,
        message=f"left out, because the upstream's API cannot say it: {', '.join([*lost, *hints])}",
        at_ms=round(at_ms, 3),
        detail={"lost": lost, "hints": hints},
    )


def _code(reason: str) -> Reason:
    """The code that a policy gave its route; those of others may say what they like."""
    try:
        return Reason(reason)
    except ValueError:
        return Reason.BACKEND_SET
