"""Sends the request to its upstream and takes the answer.

In a chain it marks the place of the send, and the gateway itself sends there, so that answers stream. Run by hand, or as a
part of another policy, it sends and waits for the whole answer.
"""

from __future__ import annotations

from typing import ClassVar

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext


class SendBackendRequestPolicy(ControlPolicy[PolicyParams]):
    """Marks where the request is sent: what stands before it sees the request, what stands after it the answer."""

    sends: ClassVar[bool] = True

    async def apply(self, context: TransactionContext) -> TransactionContext:
        """Send and wait. Raises UpstreamError."""
        answer = await context.services.send(context)
        context.set_response(answer.status, answer.headers, answer.body)
        return context
