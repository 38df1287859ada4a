"""The contract of a policy.

A policy is one unit of control: it reads the transaction, may change it, and says what it did. It is built once from its
parameters and serves every transaction at once, so it keeps nothing of a transaction on itself: that goes to
`context.data`. `apply` runs before the send (`context.response is None`) and after it; a policy that gives `on_stream`
sees a streamed answer event by event instead.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from proxy_core.errors import Face, LuthienError
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import OnError, Stage
from proxy_core.wire.conversation import StreamEvent
from proxy_core.wire.dialects import Operation

if TYPE_CHECKING:
    from proxy_core.settings import Settings


class PolicyParams(BaseModel):
    """Parameters of a policy: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)


def tunable(default: Any, *, ge: float, le: float, step: float | None = None) -> Any:
    """A number that an operator may move while traffic runs, between `ge` and `le`."""
    return Field(default=default, ge=ge, le=le, json_schema_extra={"tunable": True, "step": step or (le - ge) / 100})


Params = TypeVar("Params", bound=PolicyParams)


class Release(IntEnum):
    """How much of a stream a policy keeps back before it lets it go."""

    PASS = 0
    """Nothing: each event leaves as it comes."""
    TAIL = 1
    """What could still become a match."""
    BLOCK = 2
    """One tool call or text block at a time."""
    FULL = 3
    """The whole answer."""


class PolicyDenied(LuthienError):
    """A policy refuses the transaction. The message goes to the client, so it holds no secret."""

    face = Face(400, "invalid_request_error", "policy_denied", "invalid_request_error")

    def __init__(self, reason: Reason, message: str, *, status: int = 400, policy: str = "", score: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.policy = policy
        self.score = score
        if status == 401:
            self.face = Face(401, "invalid_request_error", "invalid_api_key", "authentication_error")  # type: ignore[misc]
        elif status == 403:
            self.face = Face(403, "invalid_request_error", "policy_denied", "permission_error")  # type: ignore[misc]
        elif status == 500:
            self.face = Face(500, "server_error", "policy_error", "api_error")  # type: ignore[misc]


class PolicyFault(LuthienError):
    """A policy could not do its work, so its `on_error` decides; `reason` says what went wrong."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ControlPolicy(Generic[Params]):
    """Base of every policy.

    Subclass as `class AllCaps(ControlPolicy[AllCaps.Params])` or with a module-level Params; name `params_model` where
    there are parameters. Raise PolicyDenied to deny; raise PolicyFault, or anything, where the work cannot be done.
    """

    params_model: ClassVar[type[PolicyParams]] = PolicyParams
    summary: ClassVar[str] = ""
    """What it does, in one line; the docstring's first line where it is empty."""
    stages: ClassVar[frozenset[Stage] | None] = None
    """REQUEST, RESPONSE or both. None: what its place in the chain says, before the send or after it."""
    operations: ClassVar[frozenset[Operation] | None] = None
    """The operations that it can read; None for all. On others its verdict is `unsupported`."""
    release: ClassVar[Release | None] = None
    """What it keeps back of a stream. None: nothing where it has `on_stream`, else the whole."""
    sends: ClassVar[bool] = False
    """Whether it gets the answer itself, in place of the gateway's own sending."""
    default_on_error: ClassVar[OnError] = "deny"
    default_deadline_s: ClassVar[float] = 5.0
    """Time for its own work on one transaction, waiting for a person or for the upstream's next event not counted."""
    waits_for_people: ClassVar[bool] = False
    """Whether it may wait for an operator: then no deadline is set from outside."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.on_error: OnError = self.default_on_error
        """What happens when its work fails, as the chain has it."""

    @classmethod
    def built(cls, params: Params, settings: Settings, place: str) -> Self:
        """Make the policy. One that holds others builds them here; `place` names it in faults (`policies[2]`)."""
        return cls(params)

    async def apply(self, context: TransactionContext) -> TransactionContext:
        """Act on the request (`context.response is None`) or on the whole response."""
        return context

    def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        """Act on a streamed answer: an async generator that yields what goes on to the client.

        Yield an event unchanged to pass its bytes on. A changed or new event has empty `raw`
        (`msgspec.structs.replace(event, text=…, raw=b"")`); text that belongs to no block of the upstream's goes under
        the index INSERTED. Events that are not yielded are dropped; the encoder keeps what remains legal.
        """
        raise NotImplementedError

    @classmethod
    def registry_name(cls) -> str:
        """The class's name in snake case, without `Policy`."""
        name = cls.__name__.removesuffix("Policy")
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()

    @classmethod
    def streams(cls) -> bool:
        """Whether it sees streams event by event."""
        return cls.on_stream is not ControlPolicy.on_stream

    def release_mode(self) -> Release:
        """What it keeps back of a stream, with its parameters as they are."""
        if self.release is not None:
            return self.release
        return Release.PASS if self.streams() else Release.FULL

    def placed(self, *, before_send: bool) -> None:
        """Hear from the chain where it stands. One that holds others passes it on."""
        return

    def acts_on(self, stage: Stage, *, before_send: bool) -> bool:
        """Whether it has something to do at REQUEST or RESPONSE, standing before the send or after it."""
        if self.stages is None:
            return (stage is Stage.REQUEST) == before_send
        return stage in self.stages
