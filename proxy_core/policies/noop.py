"""Does nothing: a place in a chain that can be given a name, and the measure of what a policy costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

from proxy_core.policies.base import ControlPolicy, PolicyParams, Release
from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import StreamEvent


class NoopPolicy(ControlPolicy[PolicyParams]):
    """Lets everything pass untouched."""

    release: ClassVar[Release | None] = Release.PASS

    def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        return events
