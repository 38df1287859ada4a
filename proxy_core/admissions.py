"""Asks the limits for the requests of a transaction: its own, wherever it goes, and those that policies make in its name."""

from __future__ import annotations

from collections.abc import Callable

from proxy_core.limits.limiter import Admission, Asked, Limiter
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstream
from proxy_core.running import Running
from proxy_core.wire.dialects import READ_OPERATIONS, Operation
from proxy_core.wire.glance import glance


class Admissions:
    """The limits, as transactions ask them."""

    def __init__(self, limiter: Limiter | None, *, router: Router, key_name: Callable[[Running], str]) -> None:
        """Without a limiter nothing is limited. `key_name` tells the name of a transaction's key."""
        self._limiter = limiter
        self._router = router
        self._key_name = key_name

    def hold_for(self, running: Running) -> bool:
        """Whether anything may limit the transaction."""
        return self._limiter is not None and (self._limiter.active or running.client_key is not None)

    async def admit(self, running: Running, upstream: Upstream, body: bytes, *, attempted: bool = False) -> None:
        """Let the transaction go to this upstream, if it may not already; `attempted`: another has had it.

        Raises AdmissionRefused: then it may go to none.
        """
        limiter = self._limiter
        if limiter is None or not self.hold_for(running):
            return
        if running.admission is None or running.admission.at != upstream.name:
            asked = self._asked(running, upstream, body)
            running.admission = await limiter.move(running.admission, asked, attempted=attempted)

    async def admit_call(
        self, running: Running, upstream: Upstream, operation: Operation, method: str, body: bytes, *, instead: bool
    ) -> Admission | None:
        """Let a policy's own request pass, to be settled by who asks; `instead`: it goes in place of the transaction's.

        Raises AdmissionRefused.
        """
        limiter = self._limiter
        if limiter is None or not self.hold_for(running):
            return None
        if instead and running.admission is not None:
            await running.admission.give_back()
        asked = self._asked(running, upstream, body)
        asked.operation, asked.method, asked.by_policy, asked.model_there = operation, method, True, ""
        return await limiter.admit(asked)

    def _asked(self, running: Running, upstream: Upstream, body: bytes) -> Asked:
        key, endpoint = running.client_key, running.endpoint
        known = running.operation in READ_OPERATIONS and body is running.body
        model = running.glance.model if known else glance(body).model
        return Asked(
            key=self._key_name(running),
            own=key.limits if key is not None else None,
            agent=running.row.agent,
            upstream=upstream,
            model=model,
            operation=running.operation,
            method=running.method,
            body=body,
            model_there=self._router.model_there(upstream, endpoint, model) if endpoint is not None else "",
        )
