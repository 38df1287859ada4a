"""What the presets that block commands share: parameters, and how a finding of a detector becomes a decision.

A preset names its detector. A finding below the threshold, or one that the operator allows, is let pass; arguments that
cannot be read are blocked where the tool is one that runs commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import Field

from proxy_core.detectors.commands import Finding, worst
from proxy_core.detectors.tool_arguments import comparable, read_arguments, texts
from proxy_core.policies.base import PolicyParams, tunable
from proxy_core.policies.tool_policy import ALLOW, ToolCallPolicy, ToolDecision, shown_name
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import ToolCallBlock


class CommandParams(PolicyParams):
    threshold: float = tunable(0.5, ge=0.0, le=1.0, step=0.05)
    """Score from which on a call is blocked: 1.0 only the worst, 0.3 also what is merely worth a look."""
    tools: list[str] = Field(default_factory=list)
    """More tools whose texts are read as shell commands, besides those that luthien knows; `*` stands for any text."""
    allow: list[str] = Field(default_factory=list)
    """What is let pass all the same: the program with its arguments (`rm -rf build/*`), or the path or address;
    `*` stands for any text. Each program of a command is looked at by itself."""
    message: str = ""
    """What the agent reads in place of a blocked call; {tool_name} stands for its name. Empty for the usual notice."""
    action: Literal["block", "flag"] = "block"
    """Whether a call is blocked, or only noted."""


class CommandPolicy(ToolCallPolicy[CommandParams]):
    """Base of the presets."""

    params_model: ClassVar[type[PolicyParams]] = CommandParams
    decides_at_once: ClassVar[bool] = True
    reason: ClassVar[Reason]

    def __init__(self, params: CommandParams) -> None:
        super().__init__(params)
        self._tools = [comparable(one) for one in params.tools]

    def findings(self, name: str, arguments: str) -> Iterable[Finding]:
        """What the detector finds in a call."""
        raise NotImplementedError

    async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
        found = list(self.findings(call.name, call.arguments))
        name = comparable(call.name)
        if any(fnmatchcase(name, pattern) for pattern in self._tools):
            for text in texts(read_arguments(call.arguments).value or call.arguments):
                found += self.findings("shell", msgspec.json.encode({"command": text}).decode())
        finding = worst(one for one in found if one.rule != "unreadable" and not self._is_allowed(one))
        unreadable = next((one for one in found if one.rule == "unreadable"), None)
        if unreadable is not None and (finding is None or finding.score < self.params.threshold):
            return self._decision(context, call, f"{shown_name(call.name)}: {unreadable.text}", None, {"rule": "unreadable"})
        if finding is None:
            self.say(context, call, "allow", Reason.PASSED, score=0.0)
            return ALLOW
        detail: dict[str, Any] = {"rule": finding.rule, "found": finding.text[:500]}
        if finding.score < self.params.threshold:
            self.say(context, call, "allow", Reason.PASSED, score=finding.score, **detail)
            return ALLOW
        message = f"{shown_name(call.name)}: {finding.rule.replace('_', ' ')}"
        return self._decision(context, call, message, finding.score, detail)

    def _decision(
        self, context: TransactionContext, call: ToolCallBlock, message: str, score: float | None, detail: dict[str, Any]
    ) -> ToolDecision:
        blocks = self.params.action == "block"
        self.say(context, call, "deny" if blocks else "flag", self.reason, message, score=score, **detail)
        if not blocks:
            return ALLOW
        return ToolDecision("block", text=self.params.message.replace("{tool_name}", shown_name(call.name)))

    def _is_allowed(self, finding: Finding) -> bool:
        return any(fnmatchcase(finding.text, pattern) for pattern in self.params.allow)
