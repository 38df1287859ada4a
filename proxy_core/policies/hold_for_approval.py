"""HoldForApproval: holds requests, answers or single tool calls for a person, who approves, edits or denies them.

What is held is said by a filter, which may ask for the verdicts of policies that stand before this one. What is approved is
exactly what was shown. Where nobody decides in time, `on_timeout` does.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from proxy_core.control.subjects import FilterError, Subject, parse_subject
from proxy_core.policies.base import PolicyDenied, PolicyFault, PolicyParams, Release, tunable
from proxy_core.policies.tool_policy import ALLOW, ToolCallPolicy, ToolDecision, shown_name
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import HoldOutcome, TransactionContext
from proxy_core.verdicts import Action, Stage
from proxy_core.wire.conversation import ToolCallBlock
from proxy_core.wire.dialects import Operation

_WHY_CHARS = 1_000
_WORDS = {
    Reason.DENIED_BY_OPERATOR: "denied by an operator",
    Reason.HOLD_EXPIRED: "not approved in time",
    Reason.HOLD_CAP_REACHED: "not approved, because too much waits for an operator already",
    Reason.HOLD_SHUTDOWN: "not approved before luthien stopped",
}


class HoldForApprovalParams(PolicyParams):
    stage: Literal["request", "response", "tool_call"] = "tool_call"
    """What is held: the whole request, the whole response, or each tool call of the response."""
    filter: str = ""
    """Which of them, in the filter language: `tool:bash* args:"rm -rf"`, `policy:tool_call_judge score>0.5`; empty for all."""
    timeout_s: float = tunable(600.0, ge=1, le=86_400, step=30)
    """Time for a decision, in seconds."""
    on_timeout: Literal["deny", "approve"] = "deny"
    """What happens where nobody decides."""
    message: str = Field(default="", max_length=2_000)
    """What the client is told where the operator denies without a reason of their own."""

    @field_validator("filter")
    @classmethod
    def _can_be_read(cls, value: str) -> str:
        try:
            parse_subject(value)
        except FilterError as error:
            raise ValueError(str(error)) from error
        return value


class HoldForApproval(ToolCallPolicy[HoldForApprovalParams]):
    """Holds requests, answers or tool calls until a person decides."""

    params_model = HoldForApprovalParams
    operations: ClassVar[frozenset[Operation] | None] = None
    waits_for_people = True
    decides_at_once = True

    def __init__(self, params: HoldForApprovalParams) -> None:
        super().__init__(params)
        self._stage = Stage(params.stage)
        self._filter = parse_subject(params.filter)

    def release_mode(self) -> Release:
        return {Stage.REQUEST: Release.PASS, Stage.RESPONSE: Release.FULL, Stage.TOOL_CALL: Release.BLOCK}[self._stage]

    def acts_on(self, stage: Stage, *, before_send: bool) -> bool:
        return stage is (Stage.REQUEST if self._stage is Stage.REQUEST else Stage.RESPONSE)

    async def apply(self, context: TransactionContext) -> TransactionContext:
        if self._stage is Stage.TOOL_CALL:
            if context.operation not in (ToolCallPolicy.operations or ()):
                context.verdict("allow", Reason.UNSUPPORTED_DIALECT, ran="unsupported")
                return context
            return await super().apply(context)
        status = context.response_status
        if self._stage is Stage.REQUEST:
            if status is None and (edited := await self._whole(context, context.request_body)) is not None:
                context.request_body = edited
        elif status is not None and status < 400:
            edited = await self._whole(context, context.response_body)
            if edited is not None:
                context.response_body = edited
        return context

    async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
        subject = Subject(
            context,
            stage=Stage.TOOL_CALL,
            content=call.arguments,
            tool=call.name,
            arguments=call.arguments,
            call_id=call.call_id,
        )
        if not self._filter.matches(subject):
            return ALLOW
        if context.shadow:
            self.say(context, call, "hold", Reason.HELD)
            return ALLOW
        schema = next((tool.parameters for tool in context.conversation.tools if tool.name == call.name), "")
        outcome, detail = await self._ask(subject, tool_schema=schema)
        self.say(context, call, _action(outcome), outcome.reason, outcome.message, **detail)
        if outcome.decision == "deny":
            words = self._words(outcome)
            return ToolDecision("block", text=f"[Tool call `{shown_name(call.name)}` was {words}]")
        if outcome.edited is not None:
            return ToolDecision("replace", arguments=outcome.edited)
        return ALLOW

    async def _whole(self, context: TransactionContext, body: bytes) -> bytes | None:
        """Hold a whole body; what takes its place, if anything does. Raises PolicyDenied."""
        try:
            content = body.decode()
        except UnicodeDecodeError as error:
            raise PolicyFault(Reason.UNSUPPORTED_DIALECT, "the body is not text, so nobody could see what they decide") from error
        subject = Subject(context, stage=self._stage, content=content)
        if not self._filter.matches(subject):
            return None
        if context.shadow:
            context.verdict("hold", Reason.HELD)
            return None
        outcome, detail = await self._ask(subject)
        context.verdict(_action(outcome), outcome.reason, outcome.message, **detail)
        if outcome.decision == "deny":
            raise PolicyDenied(outcome.reason, f"This {self._stage.value} was {self._words(outcome)}")
        return None if outcome.edited is None else outcome.edited.encode()

    async def _ask(self, subject: Subject, *, tool_schema: str = "") -> tuple[HoldOutcome, dict[str, Any]]:
        """The outcome, and what the verdict says besides it."""
        began = time.monotonic()
        outcome = await subject.context.services.hold(
            subject.context,
            stage=self._stage,
            why=self._why(subject),
            content=subject.content,
            timeout_s=self.params.timeout_s,
            on_timeout=self.params.on_timeout,
            tool=subject.tool,
            call_id=subject.call_id,
            tool_schema=tool_schema,
        )
        detail: dict[str, Any] = {"held_ms": round((time.monotonic() - began) * 1e3, 1)}
        if outcome.who:
            detail["decided_by"] = outcome.who
        return outcome, detail

    def _why(self, subject: Subject) -> str:
        """For the operator: what was asked for, and what other policies said of it."""
        rule = f"matches {self._filter}" if self._filter else f"every {self._stage.value.replace('_', ' ')} is held"
        lines = [f"{subject.row.method} {subject.row.path}: {rule}"]
        for verdict in subject.verdicts:
            if verdict.action not in ("allow", "route"):
                score = "" if verdict.score is None else f" {verdict.score:.2f}"
                said = f": {verdict.message}" if verdict.message else ""
                lines.append(f"{verdict.policy} {verdict.action} {verdict.reason}{score}{said}")
        return "\n".join(lines)[:_WHY_CHARS]

    def _words(self, outcome: HoldOutcome) -> str:
        words = _WORDS.get(outcome.reason, "denied")
        said = (outcome.message if outcome.who else "") or self.params.message
        return f"{words}: {said}" if said else words


def _action(outcome: HoldOutcome) -> Action:
    if outcome.decision == "deny":
        return "deny"
    return "allow" if outcome.edited is None else "modify"
