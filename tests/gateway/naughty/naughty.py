"""A policy that fails in every way there is, at the request, at a whole answer, or in a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyParams
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent, TextDelta


class NaughtyParams(PolicyParams):
    how: Literal["raise", "exit", "hang", "hang_on", "junk", "huge", "deny", "half", "cancel"]
    at: Literal["request", "response"]


class Naughty(ControlPolicy[NaughtyParams]):
    """Does harm."""

    params_model = NaughtyParams
    stages = frozenset({Stage.REQUEST, Stage.RESPONSE})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        if context.stage.value != self.params.at:
            return context
        return await self._misbehave(context)

    async def _misbehave(self, context: TransactionContext) -> TransactionContext:
        match self.params.how:
            case "raise":
                raise RuntimeError("no luck")
            case "exit":
                raise SystemExit(3)
            case "cancel":
                raise asyncio.CancelledError
            case "hang":
                await asyncio.sleep(600)
            case "hang_on":
                while True:
                    try:
                        await asyncio.sleep(600)
                    except asyncio.CancelledError:
                        continue
            case "junk":
                return 42  # type: ignore[return-value]
            case "huge":
                if context.response_status is None:
                    context.request_body = b"x" * (65 * 1024 * 1024)
                else:
                    context.response_body = b"x" * (65 * 1024 * 1024)
            case "half":
                context.remove_header(b"content-type")
                context.request_body = b"half"
                raise RuntimeError("half done")
            case "deny":
                raise PolicyDenied(Reason.POLICY_DECISION, "not today")
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        texts = 0
        async for event in events:
            if isinstance(event, TextDelta) and self.params.at == "response":
                texts += 1
                if texts == 2:
                    if self.params.how in ("junk", "huge"):
                        yield 42  # type: ignore[misc]
                    await self._misbehave(context)
            yield event
