"""A policy that looks at everything and changes nothing: what the chain itself costs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent


class PassThrough(ControlPolicy[PolicyParams]):
    """Looks on."""

    stages = frozenset({Stage.REQUEST, Stage.RESPONSE})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        async for event in events:
            yield event
