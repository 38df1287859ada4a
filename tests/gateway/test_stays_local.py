"""What holds a keyword never reaches a cloud: wherever it stands, whatever fails, whatever policies do, in every dialect.

One local upstream and a cloud that stands in for everything, with as many attempts as the settings allow.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, OLLAMA_CHAT, RESPONSES, Asking
from tests.gateway_fixtures import RunningGateway

WORD = "Zanzibar-7"
RELENTLESS = {
    "sensitivity": {"keywords": [WORD]},
    "timeouts": {"connect_s": 0.5, "first_byte_s": 0.3, "idle_s": 0.3},
    "retries": {"max_attempts": 5, "same_upstream": True, "unsafe": True, "backoff_s": 0.001, "budget": 1},
    "breaker": {"failures": 1, "pause_s": 0.01},
    "on_unsupported": "drop",
}
CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
CALL_ITEM = {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"}
USE = {"type": "tool_use", "id": "c1", "name": "read", "input": {}}
HI = {"role": "user", "content": "hi"}
PLACES: list[tuple[str, Asking, dict[str, Any]]] = [
    ("system", CHAT, {"messages": [{"role": "system", "content": WORD}, HI]}),
    ("earlier", CHAT, {"messages": [{"role": "user", "content": WORD}, {"role": "assistant", "content": "ok"}, HI]}),
    ("result", CHAT, {"messages": [HI, {"role": "assistant", "tool_calls": [CALL]},
                                   {"role": "tool", "tool_call_id": "c1", "content": f"path /{WORD}/x"}]}),
    ("system", MESSAGES, {"system": [{"type": "text", "text": WORD}], "messages": [HI]}),
    ("earlier", MESSAGES, {"messages": [{"role": "user", "content": [{"type": "text", "text": WORD}]},
                                        {"role": "assistant", "content": "ok"}, HI]}),
    ("result", MESSAGES, {"messages": [HI, {"role": "assistant", "content": [USE]}, {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": WORD}]}]}]}),
    ("system", RESPONSES, {"instructions": WORD, "input": "hi"}),
    ("earlier", RESPONSES, {"input": [{"role": "user", "content": WORD}, {"role": "assistant", "content": "ok"}, HI]}),
    ("result", RESPONSES, {"input": [HI, CALL_ITEM, {"type": "function_call_output", "call_id": "c1", "output": WORD}]}),
    ("system", OLLAMA_CHAT, {"messages": [{"role": "system", "content": WORD}, HI]}),
    ("earlier", OLLAMA_CHAT, {"messages": [{"role": "user", "content": WORD}, {"role": "assistant", "content": "ok"}, HI]}),
    ("result", OLLAMA_CHAT, {"messages": [HI, {"role": "assistant", "content": "", "tool_calls": [{"function": {
        "name": "read", "arguments": {}}}]}, {"role": "tool", "tool_name": "read", "content": WORD}]}),
]  # fmt: skip
FAULTS = [
    Fault(status=503), Fault(reset_after=-1), Fault(status=429, headers=[("retry-after-ms", "1")]), Fault(stall_after=-1),
    Fault(status=500),
]  # fmt: skip
POLICIES: dict[str, list[dict[str, Any]]] = {
    "plain": [],
    "a sender": [{"use": "backend_call", "params": {"backend_call_spec": {"api_endpoint": "cloud-{api}"}}}],
    "a choice": [{"use": "set_backend", "params": {"backend_url": "{cloud}"}}],
    "judges": [
        {"use": "rephrase_request", "on_error": "allow", "params": {"model": {
            "upstream": "cloud-openai", "model": "m", "instructions": "x"}}},
        {"use": "simple_llm", "on_error": "allow", "params": {
            "upstream": "cloud-anthropic", "model": "m", "instructions": "x", "max_retries": 0}},
    ],
}  # fmt: skip


@pytest.fixture
async def local() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream, local: FaultUpstream) -> Any:
    async def start(policies: str, **routing: Any) -> RunningGateway:
        apis = ("openai", "anthropic", "ollama")
        upstreams: dict[str, Any] = {
            f"cloud-{api}": {
                "api": api, "base_url": upstream.url, "api_key": "sk-cloud", "local": False, "priority": 0,
                "default_model": "m", "stands_in_for": [one for one in apis if one != api],
            }
            for api in apis
        }  # fmt: skip
        near = {"api": "ollama", "base_url": local.url, "priority": 1, "default_model": "m"}
        upstreams |= {"near": {**near, "stands_in_for": ["openai", "anthropic"]}}
        text = json.dumps(POLICIES[policies]).replace("{cloud}", upstream.url).replace("{api}", "openai")
        return await start_gateway(upstreams=upstreams, routing={**RELENTLESS, **routing}, policies=json.loads(text))

    return start


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("policies", POLICIES)
async def test_it_never_leaves(start: Any, upstream: FaultUpstream, local: FaultUpstream, stream: bool, policies: str) -> None:
    gateway = await start(policies)
    for number, (place, asking, fields) in enumerate(PLACES):
        where = f"{asking.name} {place}"
        body = json.dumps({**asking.body, **fields, "stream": stream}).encode()
        local.faults.extend([FAULTS[number % len(FAULTS)], Fault(status=503), *[Fault(status=500)] * 4])
        assert (await gateway.ask("POST", asking.path, body, asking.headers)).status >= 400, where
        local.faults.clear()
        response = await gateway.ask("POST", asking.path, body, asking.headers)
        assert not upstream.exchanges, where
        detail = await gateway.detail()
        if policies in ("plain", "judges") and asking is not RESPONSES:
            assert response.status == 200, where
            assert (detail.row.upstream, detail.address) == ("near", local.url)
            assert detail.row.reason.startswith("sensitive_keyword_match")
    rows = await gateway.rows()
    assert len(rows) == 2 * len(PLACES)
    assert {row.upstream for row in rows} <= {"near", ""}
    assert (WORD.encode() in b"".join(one.body for one in local.exchanges)) is (policies != "a sender")


async def test_no_part_of_it_is_shown_to_a_judge_elsewhere(start: Any, upstream: FaultUpstream, local: FaultUpstream) -> None:
    """The judge would see the answer alone, in which the word is not."""
    gateway = await start("judges")
    body = json.dumps({**CHAT.body, "messages": [{"role": "system", "content": WORD}, HI]}).encode()
    assert (await gateway.ask("POST", CHAT.path, body, CHAT.headers)).status == 200
    assert not upstream.exchanges
    said = [one for one in (await gateway.detail()).verdicts if one.ran == "error"]
    assert [one.policy for one in said] == ["rephrase_request", "simple_llm"]
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)).status == 200
    assert len(upstream.exchanges) >= 2, "of others they are asked"


@pytest.mark.parametrize("asking", [CHAT, MESSAGES, OLLAMA_CHAT], ids=lambda one: one.name)
async def test_what_holds_none_leaves_and_the_record_says_whereto(start: Any, upstream: FaultUpstream, asking: Asking) -> None:
    """The same gateway: it is the keyword that keeps a request."""
    gateway = await start("plain")
    assert (await gateway.ask("POST", asking.path, asking.bytes(), asking.headers)).status == 200
    assert (await gateway.detail()).address == upstream.url
