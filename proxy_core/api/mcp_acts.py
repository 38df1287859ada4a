"""What a model may do over MCP where `control.mcp_write` lets it: decide holds, set policies, end requests.

Each act leaves the record that the same act of an operator leaves, under the name that the client gave, else `mcp`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from proxy_core.api.mcp_reads import TransactionOf
from proxy_core.api.mcp_tools import Given, McpTool, tool
from proxy_core.control.plane import ControlPlane


class _Decide(Given):
    hold_id: str = Field(max_length=64)
    decision: str = Field(pattern="^(approve|edit|deny)$")
    shown: str = Field(max_length=200, description="`shown` of the hold as you read it; refused where it is another by now.")
    edited: str | None = Field(default=None, max_length=500_000, description="With `edit`: what takes the place of the content.")
    reason: str = Field(default="", max_length=2_000, description="With `deny`: what the client is told.")


class _SetPolicy(Given):
    name: str = Field(max_length=200)
    mode: str | None = Field(default=None, pattern="^(enforce|shadow|off)$")
    params: dict[str, Any] = Field(default={}, description="Parameters to change, by name.")


def acting_tools(plane: ControlPlane) -> list[McpTool]:
    """Every tool that acts."""
    acts = _Acts(plane)
    return [
        tool("decide_hold", _Decide, acts.decide, writes=True),
        tool("set_policy", _SetPolicy, acts.set_policy, writes=True),
        tool("kill_transaction", TransactionOf, acts.kill, writes=True),
    ]


class _Acts:
    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def decide(self, given: _Decide, who: str) -> Any:
        """Approve, edit or deny what waits for a person. Acts on live traffic."""
        return await self._plane.decide_hold(
            given.hold_id, decision=given.decision, shown=given.shown, edited=given.edited, reason=given.reason, who=who
        )

    async def set_policy(self, given: _SetPolicy, who: str) -> Any:
        """Set a policy's mode or parameters, for every later request. Acts on live traffic."""
        return await self._plane.set_policy(given.name, mode=given.mode, params=given.params or None, who=who)

    async def kill(self, given: TransactionOf, who: str) -> Any:
        """End a running request: its client gets an error. Acts on live traffic."""
        return {"killed": await self._plane.kill(given.transaction_id, who=who)}
