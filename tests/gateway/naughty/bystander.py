"""A policy that does nothing, waits a moment now and then, and must not be disturbed by its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent


class Bystander(ControlPolicy[PolicyParams]):
    """Looks on."""

    stages = frozenset({Stage.REQUEST, Stage.RESPONSE})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        async with asyncio.timeout(30):
            await asyncio.sleep(0)
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        async for event in events:
            await asyncio.sleep(0)
            yield event
