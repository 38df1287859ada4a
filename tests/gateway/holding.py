"""Requests whose answers call a tool, and an operator who decides on what is held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proxy_core.control.plane import HoldInfo
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer
from proxy_core.wire.dialects import Operation
from tests.fault_payloads import TOOL_NAME
from tests.gateway.asking import CHAT, MESSAGES, OLLAMA_CHAT, RESPONSES, Asking
from tests.gateway_fixtures import RunningGateway

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "kelvin"]}},
    "required": ["city"],
}
OTHER_ARGUMENTS = '{"city": "Rome", "unit": "kelvin"}'


@dataclass(frozen=True)
class ToolAsking:
    """A request that an upstream of this API answers with one tool call."""

    asking: Asking
    operation: Operation
    tool: dict[str, Any]
    stop_reason: str
    """What the answer's stop reason reads while the call stands."""

    def body(self, *, stream: bool, **more: Any) -> bytes:
        return self.asking.bytes(stream=stream, tools=[self.tool], **more)

    def read(self, body: bytes, *, stream: bool) -> Answer:
        """The answer as a client's SDK would read it."""
        codec = codec_for(self.operation)
        assert codec is not None
        if not stream:
            return codec.read_response(body)
        decoder = codec.stream_decoder()
        decoder.feed(body)
        return decoder.finish()


_FUNCTION = {"name": TOOL_NAME, "parameters": SCHEMA}
EACH_TOOL_ASKING = [
    ToolAsking(CHAT, Operation.CHAT, {"type": "function", "function": _FUNCTION}, "tool_calls"),
    ToolAsking(RESPONSES, Operation.RESPONSES, {"type": "function", **_FUNCTION}, "completed"),
    ToolAsking(MESSAGES, Operation.MESSAGES, {"name": TOOL_NAME, "input_schema": SCHEMA}, "tool_use"),
    ToolAsking(OLLAMA_CHAT, Operation.OLLAMA_CHAT, {"type": "function", "function": _FUNCTION}, "stop"),
]


def holding(**params: Any) -> list[dict[str, Any]]:
    """The policies of a gateway that holds."""
    return [{"use": "hold_for_approval", "params": params}]


class Operator:
    """Looks at what waits, and decides."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway

    async def sees(self, holds: Callable[[list[HoldInfo]], bool] = bool, *, timeout_s: float = 30.0) -> list[HoldInfo]:
        """What waits, as soon as it is as wanted."""
        async with asyncio.timeout(timeout_s):
            while not holds(waiting := self.gateway.plane.holds()):
                await asyncio.sleep(0.005)
        return waiting

    async def only(self) -> HoldInfo:
        (hold,) = await self.sees()
        return hold

    async def decided(self, timeout_s: float = 30.0) -> HoldInfo:
        """The latest one that no longer waits, when nothing waits."""
        async with asyncio.timeout(timeout_s):
            while True:
                holds = self.gateway.plane.holds(decided=True)
                if holds and all(hold.status != "pending" for hold in holds):
                    return holds[0]
                await asyncio.sleep(0.005)

    async def approve(self, hold: HoldInfo | None = None) -> HoldInfo:
        return await self.decide("approve", hold)

    async def edit(self, edited: str, hold: HoldInfo | None = None) -> HoldInfo:
        return await self.decide("edit", hold, edited=edited)

    async def deny(self, reason: str = "", hold: HoldInfo | None = None) -> HoldInfo:
        return await self.decide("deny", hold, reason=reason)

    async def decide(self, decision: str, hold: HoldInfo | None = None, **more: Any) -> HoldInfo:
        hold = hold or await self.only()
        return await self.gateway.plane.decide_hold(hold.id, decision=decision, shown=hold.shown, who="ada", **more)


def same_json(one: str, other: str) -> bool:
    return bool(json.loads(one) == json.loads(other))
