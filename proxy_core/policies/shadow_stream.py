"""A policy in shadow mode on a stream: it gets the events as they pass its place in the chain, in a task of its own.

What it yields is thrown away; what it says is kept. One that wants the whole answer gets it when the stream has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from proxy_core.policies.base import PolicyFault, Release
from proxy_core.policies.chain import Entry, Shadows
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import EVENT_TYPES, StreamEvent
from proxy_core.wire.encoder import encoder_for


class ShadowStream:
    """One such policy on one stream."""

    def __init__(self, entry: Entry, context: TransactionContext, shadows: Shadows) -> None:
        self._events: deque[StreamEvent] = deque()
        self._more = asyncio.Event()
        self._over = False
        self._entry = entry
        self.whole = entry.policy.release_mode() is Release.FULL
        """Whether the policy wants the answer whole."""
        self.came: list[StreamEvent] = []
        """What came from the upstream, once it has ended."""
        self._idle_s = 0.0
        self._task = shadows.add(entry, context, self._consume, deadline_s=None, idle_s=lambda: self._idle_s)

    async def tap(self, inner: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        """The events as they pass this policy's place in the chain, unchanged."""
        try:
            async for event in inner:
                self._events.append(event)
                self._more.set()
                yield event
        finally:
            self.close()

    def close(self) -> None:
        """No more events come: from now on the policy has its deadline."""
        if not self._over:
            self._over = True
            self._more.set()
            self._task.get_loop().call_later(self._entry.deadline_s, self._task.cancel)

    async def _consume(self, copy: TransactionContext) -> None:
        policy = self._entry.policy
        if self.whole:
            await self._apply(copy)
            return
        async for event in policy.on_stream(copy, self._source()):
            if type(event) not in EVENT_TYPES:
                raise PolicyFault(Reason.POLICY_JUNK, f"on_stream gave {type(event).__name__} in place of an event")

    async def _apply(self, copy: TransactionContext) -> None:
        events = [event async for event in self._source()]
        encoder = encoder_for(copy.operation, transaction_id=copy.transaction_id)
        if encoder is not None:
            encoder.seen(self.came)
            body = encoder.encode(events) + encoder.finish()
            copy.set_response(copy.response_status or 200, copy.response_headers, body)
            await self._entry.policy.apply(copy)

    async def _source(self) -> AsyncIterator[StreamEvent]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._over:
                return
            self._more.clear()
            since = time.perf_counter()
            await self._more.wait()
            self._idle_s += time.perf_counter() - since
