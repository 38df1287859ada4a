"""Mixed traffic: all dialects, streams and whole answers, tools, secrets, denials, holds and faults, many at a time.

Which request is which depends on its number alone, so that a test can ask for as many as it likes and gets the same again.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import suppress
from typing import Any

from proxy_core.control.plane import ControlConflict
from tests.fault_upstream import Fault
from tests.gateway.asking import EVERY, Asking
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse

SECRET = "sk-ant-api03-" + "Zx9" * 12
_HOLD = {"use": "hold_for_approval", "params": {"filter": "tool:get_weather agent:asks*"}}
_WATCH = {"use": "tool_allow_deny", "mode": "shadow", "params": {"deny": ["get_weather"]}}
_DENY = {"use": "leaked_api_key_detection"}
POLICIES: dict[str, list[dict[str, Any]]] = {
    "policies": [
        _DENY,
        {"use": "strip_secrets", "params": {"formats": False}},
        {"use": "string_replacement", "params": {"replacements": [["capital", "harbour"], ["hi", "hello"]]}},
        _HOLD,
        _WATCH,
    ],
    "chains": [
        {
            "match": {"upstream": "anthropic"},
            "policies": [{**one, "name": f"{one['use']}_there"} for one in (_DENY, _HOLD, _WATCH)],
        }
    ],
}
"""Sections of settings: policies that change, deny, hold and watch; answers of one upstream are left as they are."""
_TOOL = {"name": "get_weather", "parameters": {"type": "object"}}
_TOOLS: dict[str, list[dict[str, Any]]] = {
    "chat": [{"type": "function", "function": _TOOL}],
    "responses": [{"type": "function", **_TOOL}],
    "messages": [{"name": "get_weather", "input_schema": {"type": "object"}}],
    "ollama_chat": [{"type": "function", "function": _TOOL}],
}
_FAULTS = (
    Fault(status=500),
    Fault(status=429, headers=[("retry-after", "1")]),
    Fault(cut_after=1),
    Fault(garbage="what is HTTP?"),
    Fault(gzip=True),
    Fault(html=True),
    Fault(reset_after=-1),
    Fault(close_delimited=True),
    Fault(cut_after=4, interval_s=0.002),
)
_OTHERS: tuple[tuple[str, str, bytes], ...] = (
    ("GET", "/v1/models", b""),
    ("POST", "/v1/files?purpose=batch", bytes(range(256)) * 4),
    ("GET", "/v1/files/file-1/content", b""),
    ("GET", "/nowhere", b""),
    ("POST", "/v1/chat/../completions", b"{}"),
    ("POST", "/v1/chat/completions", b"this is no JSON"),
    ("POST", "/v1/embeddings", b'{"model": "text-embedding-3-small", "input": "a\\u00e9b"}'),
    ("POST", "/v1/messages/count_tokens", b'{"model":"claude-sonnet-5","messages":[{"role":"user","content":"hi"}]}'),
)


async def mixed_traffic(gateway: RunningGateway, count: int, *, at_once: int = 12) -> list[RawResponse]:
    """Send `count` requests, `at_once` of them under way, and decide what is held as an operator would."""
    room = asyncio.Semaphore(at_once)

    async def one(number: int) -> RawResponse:
        async with room:
            return await gateway.ask(*request(number))

    deciding = asyncio.get_running_loop().create_task(_operator(gateway))
    try:
        return await asyncio.gather(*(one(number) for number in range(count)))
    finally:
        deciding.cancel()


async def _operator(gateway: RunningGateway) -> None:
    """Approves what is held, or denies it with a reason where the agent's number is odd."""
    while True:
        for hold in gateway.plane.holds():
            odd = int(hold.agent.rpartition("-")[2]) % 2
            with suppress(ControlConflict):
                await gateway.plane.decide_hold(
                    hold.id, decision="deny" if odd else "approve", shown=hold.shown, reason="not today" if odd else ""
                )
        await asyncio.sleep(0.005)


def request(number: int) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, target, body and headers of one request."""
    if number % 9 == 8:
        method, target, body = _OTHERS[number // 9 % len(_OTHERS)]
        return method, target, body, {"user-agent": "mixed/1", "content-type": "application/octet-stream"}
    asking = EVERY[number % len(EVERY)]
    headers = {**asking.headers, "user-agent": f"mixed/{number % 3}"}
    if asking.dialect == "openai":
        headers["authorization"] = f"Bearer {SECRET}"
    if asking.dialect == "anthropic":
        headers["x-api-key"] = SECRET
    more: dict[str, Any] = {}
    if number % 4 == 1 and asking.name in _TOOLS:
        more["tools"] = _TOOLS[asking.name]
        if number % 3 == 0:
            headers["x-luthien-agent-id"] = f"asks-{number}"
    if number % 6 == 2:
        headers |= Fault(interval_s=0.003).header()
    if number % 7 == 3:
        headers |= _FAULTS[number // 7 % len(_FAULTS)].header()
    if number % 5 == 2:
        headers["x-luthien-session-id"] = f"session-{number % 25}"
    if number % 13 == 6:
        more["note"] = f"my key is {SECRET}"
    if number % 17 == 5:
        more |= _with_leaked_key(asking)
    target = f"/agent-workflow/wf-{number % 2}{asking.path}" if number % 11 == 4 else asking.path
    target += "?beta=true" if number % 6 == 5 else ""
    body = asking.bytes(stream=number % 3 != 1, **more)
    if number % 10 == 7:
        body = json.dumps(json.loads(body), indent=1, ensure_ascii=False).encode()
    return "POST", target, body, headers


def _with_leaked_key(asking: Asking) -> dict[str, Any]:
    """A field that brings somebody's key into what the user says."""
    text = "deploy with AKIAIOSFODNN7EXAMPLE please"
    field = "messages" if "messages" in asking.body else "input" if "input" in asking.body else "prompt"
    return {field: [{"role": "user", "content": text}] if field == "messages" else text}


def plain_body(response: RawResponse) -> bytes:
    """The body of a response without its content encoding."""
    return gzip.decompress(response.body) if response.header("content-encoding") == "gzip" else response.body
