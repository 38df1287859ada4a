"""Asks upstreams whether they are there, without a client: one small GET that no provider charges for.

By default only those that a breaker keeps clients from: while they do not answer it stays open, and when they do again a client's
request tries them at once. Where they are probed always, silence opens the breaker before a client meets it. Any answer but an
error of the server's counts; that an API answers does not undo what its models have failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

from proxy_core.credentials import add_credential
from proxy_core.errors import UpstreamError
from proxy_core.routing.pool import Member, Pool
from proxy_core.routing.transport import RawHeaders, UpstreamResponse
from proxy_core.routing.upstreams import Upstream
from proxy_core.settings import ProbeSettings
from proxy_core.tasks import spawn
from proxy_core.wire.dialects import Dialect

log = logging.getLogger(__name__)

PATHS = {Dialect.OPENAI: "/v1/models", Dialect.ANTHROPIC: "/v1/models", Dialect.OLLAMA: "/api/version"}
"""What is asked for where `probe_path` names nothing else."""
_LOOK_EVERY_S = 1.0
_HOLDS_FOR = 1.5
"""A bad answer keeps clients away for so many intervals, so that the next probe comes before them."""


class Sender(Protocol):
    async def send(
        self, upstream: Upstream, method: str, target: bytes, headers: RawHeaders, body: bytes
    ) -> UpstreamResponse: ...


class Probes:
    """Probes of all upstreams of a gateway."""

    def __init__(self, pool: Pool, transport: Sender, settings: ProbeSettings, *, loop: asyncio.AbstractEventLoop) -> None:
        self._members = tuple(pool.members.values())
        self._transport = transport
        self._settings = settings
        self._now = loop.time
        self._due = {member.upstream.name: 0.0 for member in self._members}
        self._task: asyncio.Task[None] | None = None
        self.results: Counter[tuple[str, ...]] = Counter()
        """How many there were, by upstream and result: `ok` or `failed`."""

    def start(self) -> None:
        if self._settings.when != "never":
            self._task = spawn(self._run(), name="probe upstreams")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        every_s = self._settings.interval_s
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, every_s))
            now = self._now()
            wanted = [one for one in self._members if self._wants(one) and self._due[one.upstream.name] <= now]
            for member in wanted:
                self._due[member.upstream.name] = now + every_s
            if wanted:
                await asyncio.gather(*(self.probe(member) for member in wanted))

    def _wants(self, member: Member) -> bool:
        health = member.health
        return health.operator != "frozen" and (self._settings.when == "always" or health.breaker != "closed")

    async def probe(self, member: Member) -> None:
        """Ask one, and tell its health."""
        upstream, health = member.upstream, member.health
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                status = await self._status(member)
        except TimeoutError:
            status, failure = 0, f"no answer within {self._settings.timeout_s:g} s"
        except UpstreamError as error:
            status, failure = 0, error.face.openai_code
        else:
            failure = f"status {status}" if status >= 500 else ""
        self.results[upstream.name, "failed" if failure else "ok"] += 1
        if failure:
            log.debug("probe of '%s': %s", upstream.name, failure)
            health.probed(failure, absent=True, keeps_s=self._settings.interval_s * _HOLDS_FOR)
        else:
            health.probed("ok" if status < 400 else f"status {status}", absent=False)

    async def _status(self, member: Member) -> int:
        upstream = member.upstream
        headers: RawHeaders = [(b"accept", b"application/json"), (b"accept-encoding", b"identity")]
        if upstream.api is Dialect.ANTHROPIC:
            headers.append((b"anthropic-version", b"2023-06-01"))
        key = member.key()
        if key is not None:
            add_credential(headers, upstream.api, key)
        target = (upstream.probe_path or PATHS[upstream.api]).encode("ascii")
        response = await self._transport.send(upstream, "GET", target, headers, b"")
        response.close()
        return response.status
