"""The attempts of one transaction: room at an upstream, its failure, and what else may take the request.

A request is sent again only while nothing has gone to the client, only where a second attempt does nothing twice, and only
within the budget of all attempts and the limits of who takes it. What an upstream does is told to its health. A request that must
stay local never leaves.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from msgspec import Struct

from proxy_core.admissions import Admissions
from proxy_core.errors import AdmissionRefused, RouteRefused, UpstreamError
from proxy_core.recording import Recorder
from proxy_core.routing.pool import May, Pool, Seat, with_reason
from proxy_core.routing.reasons import Reason
from proxy_core.routing.retries import FAILURES, RetryBudget, full_jitter, may_send_again, retry_after_s
from proxy_core.routing.router import Router
from proxy_core.routing.transport import UpstreamResponse
from proxy_core.routing.upstreams import Choice, Upstream, speaks
from proxy_core.running import Running
from proxy_core.settings import RetrySettings
from proxy_core.verdicts import Stage, Verdict
from proxy_core.wire.dialects import Endpoint
from proxy_core.wire.glance import glance

Once = Callable[[], Awaitable[UpstreamResponse]]

_REST_S = 5.0
"""For how long an upstream or a key is left alone that has reached its limit and does not say for how long."""
_MAX_REST_S = 300.0
MAX_KEY_REST_S = 300.0
"""For how long a key is left alone that was refused."""
_KEPT_LOCAL = frozenset({Reason.SENSITIVE_KEYWORD_MATCH, Reason.CONTENT_UNREADABLE, Reason.OPERATOR_OVERRIDE})


class _Next(Struct, frozen=True):
    upstream: Upstream
    wait_s: float = 0.0


class Attempts:
    """Sends requests, again where that is right."""

    def __init__(
        self,
        *,
        pool: Pool,
        router: Router,
        recorder: Recorder,
        admissions: Admissions,
        settings: RetrySettings,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._pool = pool
        self._members = pool.members
        self._router = router
        self._recorder = recorder
        self._admissions = admissions
        self._now = time.monotonic
        self._chance = chance
        self.failed: Counter[tuple[str, ...]] = Counter()
        """Failed attempts after which a request was sent again, by upstream and outcome."""
        self.budget = RetryBudget(settings.budget, window_s=settings.budget_window_s, clock=time.monotonic)
        self._settings = settings
        self.use(settings)

    def use(self, settings: RetrySettings) -> None:
        """Try again by these settings from now on."""
        if (settings.budget, settings.budget_window_s) != (self._settings.budget, self._settings.budget_window_s):
            self.budget.use(settings.budget, window_s=settings.budget_window_s)
        self._settings = settings
        self._statuses = frozenset(settings.statuses)
        self._retries = settings.max_attempts > 1 and (self._pool.turns or settings.same_upstream)

    def pick(self, running: Running, endpoint: Endpoint, choice: Choice, body: bytes) -> Choice:
        """The upstream that takes a request which the rules send to `choice`."""
        if not self._pool.pooled:
            return choice
        may = self._may(choice.upstream, choice.reason, endpoint, body)
        return self._pool.pick(choice, endpoint, running.row.session_id, may)

    async def admit(self, running: Running, endpoint: Endpoint, choice: Choice, body: bytes) -> Choice:
        """The upstream that the limits let the request go to: the chosen one, or another where that one has reached a limit of
        its own. Raises AdmissionRefused."""
        tried: set[str] = set()
        first: AdmissionRefused | None = None
        while True:
            try:
                await self._admissions.admit(running, choice.upstream, body)
                return choice
            except AdmissionRefused as refused:
                first = first or refused
                tried.add(choice.upstream.name)
                other: Upstream | None = None
                if refused.scope.startswith("upstream:"):
                    may = self._may(choice.upstream, choice.reason, endpoint, body)
                    other = self._pool.another(tried, choice, endpoint, running.row.session_id, may)
                if other is None:
                    raise first from None
                choice = Choice(other, with_reason(choice.reason, Reason(refused.reason)))

    async def send(self, running: Running, upstream: Upstream, endpoint: Endpoint, body: bytes, once: Once) -> UpstreamResponse:
        """`once` sends to `running.upstream`, with the key of `running.seat`. Raises UpstreamError, UpstreamBusy, UpstreamFrozen.

        `body` is what is sent, as the rules read it.
        """
        if self._retries:
            self.budget.request()
        number = 0
        while True:
            number += 1
            member = self._members[upstream.name]
            seat = running.seat = member.seat() or await member.wait()
            started = self._now()
            try:
                response = await once()
            except BaseException as error:
                running.seat = None
                seat.leave()
                if not isinstance(error, UpstreamError):
                    raise
                seat.health.failed(_short(error))
                following = await self._following(running, upstream, endpoint, body, number, seat, error=error)
                if following is None:
                    raise
                why = _short(error)
            else:
                now = self._now()
                if response.status < 400:
                    seat.health.answered(now, (now - started) * 1e3)
                    return response
                try:
                    rest_s = tell_health(seat, response, now, (now - started) * 1e3, ours=_ours(running, seat))
                    following = await self._following(
                        running, upstream, endpoint, body, number, seat, response=response, rest_s=rest_s
                    )
                except BaseException:
                    response.close()
                    raise
                if following is None:
                    return response
                why = f"status {response.status}"
                response.close()
                running.seat = None
                seat.leave()
            self._note(running, upstream, why, following)
            if following.wait_s:
                await asyncio.sleep(following.wait_s)
            if following.upstream is not upstream:
                upstream = running.upstream = following.upstream
                row = running.row
                row.upstream, row.reason = upstream.name, with_reason(row.reason, Reason.FALLBACK_AFTER_FAILURE)

    async def _following(
        self,
        running: Running,
        upstream: Upstream,
        endpoint: Endpoint,
        body: bytes,
        number: int,
        seat: Seat,
        *,
        error: UpstreamError | None = None,
        response: UpstreamResponse | None = None,
        rest_s: float | None = None,
    ) -> _Next | None:
        """What is tried after a failure; None where the client is told of it."""
        settings = self._settings
        status = response.status if response is not None else None
        if not self._retries or number >= settings.max_attempts or running.sent or not self.budget.left:
            return None
        following: _Next | None = None
        if status == 401:
            following = _Next(upstream) if _ours(running, seat) and seat.key_refused(MAX_KEY_REST_S) else None
        elif status is None or status in self._statuses:
            unsent = error is not None and error.unsent
            again = may_send_again(
                status, unsent=unsent, method=running.method, operation=endpoint.operation, unsafe=settings.unsafe
            )
            if again:
                following = await self._elsewhere(running, upstream, endpoint, body, number, seat, status, rest_s)
        return following if following is not None and self.budget.take() else None

    async def _elsewhere(
        self,
        running: Running,
        upstream: Upstream,
        endpoint: Endpoint,
        body: bytes,
        number: int,
        seat: Seat,
        status: int | None,
        rest_s: float | None,
    ) -> _Next | None:
        if status == 429 and _ours(running, seat) and seat.has_fresh_key:
            return _Next(upstream)
        row = running.row
        may = self._may(upstream, row.reason, endpoint, body)
        tried = {upstream.name, *running.tried}
        while True:
            other = self._pool.another(tried, Choice(upstream, row.reason), endpoint, row.session_id, may)
            if other is None:
                break
            if await self._admitted(running, other, body):
                return _Next(other)
            tried.add(other.name)
        wait_s = self._settings.max_wait_s
        if not self._settings.same_upstream or (rest_s is not None and rest_s > wait_s):
            return None
        pause_s = full_jitter(number, base_s=self._settings.backoff_s, cap_s=wait_s, chance=self._chance)
        return _Next(upstream, max(rest_s or 0.0, pause_s)) if await self._admitted(running, upstream, body) else None

    async def _admitted(self, running: Running, upstream: Upstream, body: bytes) -> bool:
        """Whether the limits let the request go there after its failure elsewhere."""
        try:
            await self._admissions.admit(running, upstream, body, attempted=True)
        except AdmissionRefused:
            return False
        return True

    def _may(self, chosen: Upstream, reason: str, endpoint: Endpoint, body: bytes) -> May:
        """Where a request may go that the rules sent to `chosen`: what was kept local stays so, whatever fails."""
        kept = reason.partition(",")[0] in _KEPT_LOCAL

        def may(upstream: Upstream) -> bool:
            if chosen.local and not upstream.local:
                if kept:
                    return False
                try:
                    self._router.check(upstream, endpoint.operation, body)
                except RouteRefused:
                    return False
            return speaks(upstream.api, endpoint) or self._router.fits(upstream, endpoint, body, glance(body).model)

        return may

    def _note(self, running: Running, upstream: Upstream, why: str, following: _Next) -> None:
        """Put a failed attempt on record."""
        running.tried = (*running.tried, upstream.name)
        self.failed[upstream.name, why] += 1
        there = following.upstream.name
        verdict = Verdict(
            policy="routing",
            stage=Stage.REQUEST,
            mode="enforce",
            action="route" if following.upstream is not upstream else "allow",
            reason=Reason.FALLBACK_AFTER_FAILURE,
            message=f"attempt {len(running.tried)} at '{upstream.name}': {why}; sent to '{there}' next",
            at_ms=running.ms_at(self._now()),
            detail={"attempt": len(running.tried), "upstream": upstream.name, "outcome": why, "next": there},
        )
        self._recorder.late(running, [verdict])


def tell_health(seat: Seat, response: UpstreamResponse, now: float, ms: float, *, ours: bool) -> float | None:
    """Note an answer that is an error, which came after this time; returns how long the upstream asks to wait, None where it
    says nothing. `ours`: the key that was sent is the upstream's, not the client's."""
    status = response.status
    asked = retry_after_s(response.headers, unix_time=time.time()) if status in (429, 503, 529) else None
    if status in FAILURES:
        seat.health.failed(f"status {status}", absent=False)
    elif status != 429:
        seat.health.answered(now, ms)
    if status == 429 or asked is not None:
        rest_s = min(_REST_S if asked is None else asked, _MAX_REST_S)
        if status != 429:
            seat.health.rest(rest_s)
        elif ours and not seat.key_refused(rest_s):
            # Its limit is that of our keys; a limit of a client's own key is no other client's matter.
            seat.health.rest(rest_s)
    return asked


def _ours(running: Running, seat: Seat) -> bool:
    """Whether the key that was sent is one of the upstream's, not the client's."""
    return seat.key is not None and running.key_added


def _short(error: UpstreamError) -> str:
    return error.face.openai_code
