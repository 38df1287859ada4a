"""Requests that policies make of their own accord, on the way that all requests take: room, health and keys of the upstream.

A policy names its upstream, so no other stands in. Who has room there already needs no more, so that nobody waits for itself.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from proxy_core.attempts import MAX_KEY_REST_S, tell_health
from proxy_core.errors import UpstreamError
from proxy_core.routing.pool import Pool, Seat
from proxy_core.routing.retries import RetryBudget
from proxy_core.routing.transport import UpstreamResponse
from proxy_core.routing.upstreams import Upstream
from proxy_core.running import Running

Send = Callable[[str | None], Awaitable[tuple[UpstreamResponse, bool]]]
"""Sends with a key, or with none; also tells whether that key was sent."""


class Errand:
    """One request that is answered, until `close`."""

    __slots__ = ("_seat", "response")

    def __init__(self, seat: Seat, response: UpstreamResponse) -> None:
        self._seat = seat
        self.response = response

    def failed(self, error: UpstreamError) -> None:
        """The answer broke off."""
        self._seat.health.failed(error.face.openai_code)

    def close(self) -> None:
        self.response.close()
        self._seat.leave()


class Errands:
    """Sends them."""

    def __init__(self, *, pool: Pool, budget: RetryBudget, max_attempts: int) -> None:
        self._members = pool.members
        self._budget = budget
        self.max_attempts = max_attempts
        self._now = time.monotonic

    async def send(self, running: Running, upstream: Upstream, send: Send) -> Errand:
        """The head of the answer. Raises UpstreamError, UpstreamBusy, UpstreamFrozen."""
        member = self._members[upstream.name]
        self._budget.request()
        number = 0
        while True:
            number += 1
            seat = member.beside(running.seat) or member.seat() or await member.wait()
            started = self._now()
            try:
                response, ours = await send(seat.key)
            except BaseException as error:
                if isinstance(error, UpstreamError):
                    seat.health.failed(error.face.openai_code)
                seat.leave()
                raise
            now = self._now()
            if response.status < 400:
                seat.health.answered(now, (now - started) * 1e3)
                return Errand(seat, response)
            tell_health(seat, response, now, (now - started) * 1e3, ours=ours)
            if not (ours and number < self.max_attempts and self._next_key(seat, response.status) and self._budget.take()):
                return Errand(seat, response)
            response.close()
            seat.leave()

    def _next_key(self, seat: Seat, status: int) -> bool:
        """Whether another of the upstream's keys may do better."""
        if status == 401:
            return seat.key_refused(MAX_KEY_REST_S)
        return status == 429 and seat.has_fresh_key
