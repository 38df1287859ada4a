"""Several policies as one, in order (`compound` in older files).

The request goes through the first, then the second; so does the response, streamed or not. Nesting is allowed. With a
policy inside that sends (`send_backend_request` too), streams are held back whole; in the chain itself they are not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar, Self

from pydantic import Field

from proxy_core.errors import ConfigurationError
from proxy_core.policies.base import PolicyParams
from proxy_core.policies.nested import Child, Composite, NestedPolicy, build_children
from proxy_core.settings import Settings
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent


class SerialParams(PolicyParams):
    policies: list[NestedPolicy] = Field(default_factory=list)
    """The policies, in order."""


class SerialPolicy(Composite[SerialParams]):
    """Runs several policies in order, as one entry of a chain with one mode and one `on_error`."""

    params_model: ClassVar[type[PolicyParams]] = SerialParams

    def __init__(self, params: SerialParams, children: tuple[Child, ...] = ()) -> None:
        super().__init__(params, children)
        senders = [at for at, child in enumerate(self.children) if child.policy.sends]
        self.send_at = senders[0] if senders else None
        if len(senders) > 1:
            names = " and ".join(self.children[at].name for at in senders)
            raise ConfigurationError(f"only one policy can send, and {names} both do")

    @classmethod
    def built(cls, params: SerialParams, settings: Settings, place: str) -> Self:
        around = f"{place}." if place else ""
        places = [f"{around}params.policies[{at}]" for at in range(len(params.policies))]
        children = build_children(params.policies, settings, places)
        try:
            return cls(params, tuple(children))
        except ConfigurationError as fault:
            raise ConfigurationError(f"{around}params.policies: {fault}") from None

    def placed(self, *, before_send: bool) -> None:
        super().placed(before_send=before_send)
        if self.send_at is not None:
            for at, child in enumerate(self.children):
                child.policy.placed(before_send=at < self.send_at)

    async def apply(self, context: TransactionContext) -> TransactionContext:
        if self.send_at is not None:
            return await self._send(context, self.send_at)
        stage = context.stage
        answered = context.response_status is not None
        for child in self.children:
            if self.acts(child, stage):
                context = await self.run(child, context)
                if not answered and context.response_status is not None:
                    return context  # answered here: nothing is sent
        return context

    async def _send(self, context: TransactionContext, at: int) -> TransactionContext:
        """With a policy inside that gets the answer itself: all that stands before it, it, and all that acts on the answer."""
        for child in self.children[:at]:
            if child.policy.acts_on(Stage.REQUEST, before_send=True):
                context = await self.run(child, context)
                if context.response_status is not None:
                    return context
        context = await self.run(self.children[at], context)
        context.stage = Stage.RESPONSE
        for number, child in enumerate(self.children):
            if number != at and child.policy.acts_on(Stage.RESPONSE, before_send=number < at):
                context = await self.run(child, context)
        return context

    def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        for child in self.children:
            if self.acts(child, Stage.RESPONSE):
                events = self.stream(child, context, events)
        return events
