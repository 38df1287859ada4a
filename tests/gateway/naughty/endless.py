"""A policy that never stops talking."""

from __future__ import annotations

from collections.abc import AsyncIterator

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import INSERTED, StreamEvent, TextDelta


class Endless(ControlPolicy[PolicyParams]):
    """Never stops talking."""

    stages = frozenset({Stage.RESPONSE})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        async for event in events:
            yield event
            while isinstance(event, TextDelta):
                yield TextDelta(INSERTED, "more ")
