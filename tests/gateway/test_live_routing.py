"""Routing while traffic runs: thresholds and overrides that hold at once and after a restart, and what they would have moved."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy_core.control.plane import ControlInvalid, ControlNotFound
from proxy_core.errors import JournalUnavailable
from proxy_core.settings import RoutingSettings
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, OLLAMA_CHAT
from tests.gateway_fixtures import RunningGateway

LENGTH = "cost.max_prompt_length_for_local"


@pytest.fixture
async def local() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream, local: FaultUpstream) -> Any:
    async def start(**routing: Any) -> RunningGateway:
        upstreams = {
            "openai": {"api": "openai", "base_url": upstream.url},
            "anthropic": {"api": "anthropic", "base_url": upstream.url},
            "near": {"api": "ollama", "base_url": local.url},
        }
        return await start_gateway(upstreams=upstreams, routing=routing)

    return start


async def ask(gateway: RunningGateway, text: str, **headers: str) -> str:
    """Where a prompt went."""
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}).encode()
    answer = await gateway.ask("POST", CHAT.path, body, headers)
    return answer.header("x-luthien-upstream") or str(answer.status)


async def changes(gateway: RunningGateway) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    recorded = await gateway.runtime._journal.store.control_changes(100)
    return [(one.what, one.who, one.before, one.after) for one in reversed(recorded)]


async def test_a_threshold_holds_at_once_and_is_recorded(start: Any) -> None:
    gateway = await start()
    assert await ask(gateway, "short") == "openai"
    info = await gateway.plane.set_routing({LENGTH: 10}, who="ann")
    assert info.source.startswith("operator ann at ")
    assert (await ask(gateway, "short"), await ask(gateway, "longer than ten")) == ("near", "openai")
    await gateway.plane.set_routing({LENGTH: None}, who="ann")
    assert await ask(gateway, "short") == "openai"
    assert gateway.plane.routing().source == "file"
    assert await changes(gateway) == [
        ("routing", "ann", {LENGTH: None}, {LENGTH: 10}),
        ("routing", "ann", {LENGTH: 10}, {LENGTH: None}),
    ]


async def test_what_changes_nothing_is_not_recorded(start: Any) -> None:
    gateway = await start(cost={"max_prompt_length_for_local": 10})
    await gateway.plane.set_routing({LENGTH: 10})
    await gateway.plane.force_local(False)
    assert await changes(gateway) == []


async def test_the_figures_of_the_last_hour_survive_a_restart(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start(cost={"max_prompt_length_for_local": 3})
    upstream.faults.append(Fault(status=500))
    assert [await ask(gateway, text) for text in ("long enough", "hi", "long enough too")] == ["openai", "near", "openai"]
    before = gateway.plane.routing()
    await gateway.restart()
    async with asyncio.timeout(30):
        while not gateway.plane.routing().recent:
            await asyncio.sleep(0.005)
    after = gateway.plane.routing()
    assert (after.reasons, after.recent) == (before.reasons, before.recent)
    assert [(one.requests_1h, one.error_rate, one.cost_usd_1h) for one in after.upstreams] == [
        (one.requests_1h, one.error_rate, one.cost_usd_1h) for one in before.upstreams
    ]
    assert after.upstreams[0].error_rate == 0.5
    await ask(gateway, "long enough again")
    assert gateway.plane.routing().upstreams[0].requests_1h == 3


async def test_a_threshold_survives_a_restart_until_the_configuration_says_otherwise(start: Any) -> None:
    gateway = await start(cost={"max_prompt_length_for_local": 3})
    await gateway.plane.set_routing({LENGTH: 10}, who="ann")
    await gateway.restart()
    assert await ask(gateway, "short") == "near"
    assert gateway.plane.routing().source.startswith("operator ann at ")
    routing = gateway.settings.routing
    cost = routing.cost.model_copy(update={"max_prompt_length_for_local": 2})
    gateway.settings = gateway.settings.model_copy(update={"routing": routing.model_copy(update={"cost": cost})})
    await gateway.restart()
    assert await ask(gateway, "short") == "openai"
    assert gateway.plane.routing().source == "file"
    assert (await changes(gateway))[-1][1] == "luthien"
    await gateway.restart()
    assert len(await changes(gateway)) == 2, "the end of it is recorded once"


async def test_an_operator_keeps_everything_local_over_restarts(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start()
    info = await gateway.plane.force_local(True, who="ann")
    assert info.override == "local"
    assert await ask(gateway, "anything") == "near"
    named = await gateway.ask("POST", "/openai" + CHAT.path, CHAT.bytes())
    assert named.header("x-luthien-reason") == "operator_override"
    await gateway.restart()
    assert await ask(gateway, "anything") == "near"
    assert gateway.plane.routing().override == "local"
    assert not upstream.exchanges
    await gateway.plane.force_local(False, who="ann")
    assert await ask(gateway, "anything") == "openai"
    assert [one[0] for one in await changes(gateway)] == ["force local", "force local"]


async def test_one_change_of_both_is_one_record_and_survives_a_restart(start: Any) -> None:
    gateway = await start()
    info = await gateway.plane.set_routing({LENGTH: 10}, local=True, who="ann")
    assert (info.override, info.source[:12]) == ("local", "operator ann")
    before, after = {LENGTH: None, "force_local": False}, {LENGTH: 10, "force_local": True}
    assert await changes(gateway) == [("routing", "ann", before, after)]
    await gateway.plane.set_routing({LENGTH: 20}, who="bob")
    await gateway.restart()
    assert gateway.plane.routing().override == "local", "a later change of a threshold leaves it so"
    await gateway.plane.force_local(False, who="bob")
    await gateway.restart()
    assert (gateway.plane.routing().override, gateway.plane.routing().source[:12]) == ("", "operator bob")
    assert len(await changes(gateway)) == 3


async def test_what_nobody_local_takes_is_refused_while_everything_is_kept_local(
    start: Any, upstream: FaultUpstream, local: FaultUpstream
) -> None:
    gateway = await start()
    await gateway.plane.force_local(True)
    answer = await gateway.ask("POST", MESSAGES.path + "/count_tokens", MESSAGES.bytes(), MESSAGES.headers)
    assert answer.status == 400, answer.body
    assert b"keeps everything local" in answer.body
    assert not upstream.exchanges
    assert not local.exchanges


async def test_a_frozen_upstream_gets_nothing_over_restarts_until_it_is_taken_back(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start()
    info = await gateway.plane.set_upstream("openai", "frozen", who="ann")
    assert [one.state for one in info.upstreams] == ["frozen", "active", "active"]
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes())).status >= 400
    await gateway.restart()
    assert gateway.plane.routing().upstreams[0].state == "frozen"
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes())).status >= 400
    assert not upstream.exchanges
    await gateway.plane.set_upstream("openai", "active", who="ann")
    assert await ask(gateway, "hello") == "openai"
    assert await changes(gateway) == [
        ("upstream openai", "ann", {"state": "active"}, {"state": "frozen"}),
        ("upstream openai", "ann", {"state": "frozen"}, {"state": "active"}),
    ]
    await gateway.restart()
    assert gateway.plane.routing().upstreams[0].state == "active"


async def test_an_upstream_that_is_not_there_or_a_state_that_is_none_changes_nothing(start: Any) -> None:
    gateway = await start()
    with pytest.raises(ControlNotFound):
        await gateway.plane.set_upstream("nowhere", "frozen")
    with pytest.raises(ControlInvalid):
        await gateway.plane.set_upstream("openai", "melted")
    assert await changes(gateway) == []


async def test_a_change_that_cannot_be_recorded_does_not_hold(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await start()

    def full(record: Any) -> Any:
        raise JournalUnavailable("the store is full")

    with monkeypatch.context() as patched:
        patched.setattr(gateway.runtime._journal, "append", full)
        with pytest.raises(JournalUnavailable):
            await gateway.plane.set_routing({LENGTH: 10})
        with pytest.raises(JournalUnavailable):
            await gateway.plane.force_local(True)
        with pytest.raises(JournalUnavailable):
            await gateway.plane.set_upstream("openai", "frozen")
    assert await ask(gateway, "short") == "openai"
    assert gateway.plane.routing().override == ""


async def test_what_other_rules_would_have_moved(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start(cost={"max_prompt_length_for_local": 3})
    for text in ("hi", "four", "five5", "a long question that stays"):
        await ask(gateway, text)
    asked = len(upstream.exchanges)
    found = await gateway.plane.what_if({LENGTH: 5})
    assert (found.total, found.unread, found.moved) == (4, 0, 2)
    assert [(one.from_upstream, one.to_upstream, one.count) for one in found.moves] == [("openai", "near", 2)]
    assert [one.reasons for one in found.examples] == [("cost_prefer_local",)] * 2
    assert found.cost_after_usd == 0.0
    assert (await gateway.plane.what_if({LENGTH: None})).moves[0].from_upstream == "near"
    assert (await gateway.plane.what_if({LENGTH: 3})).moved == 0
    assert (await gateway.plane.what_if({LENGTH: 5}, limit=2)).total == 2
    assert len(upstream.exchanges) == asked, "nothing is sent"
    assert await ask(gateway, "four") == "openai", "nothing is changed"
    with pytest.raises(ControlInvalid):
        await gateway.plane.what_if({LENGTH: -1})


async def test_other_ways_to_look_for_keywords_are_tried_on_the_whole_conversation(start: Any) -> None:
    gateway = await start(sensitivity={"keywords": ["intern"]})
    await ask(gateway, "an internal plan")
    await ask(gateway, "the intern said")
    body = {"model": "m", "messages": [{"role": "system", "content": "intern"}, {"role": "user", "content": "hi"}]}
    await gateway.ask("POST", CHAT.path, json.dumps(body).encode())
    assert [row.upstream for row in reversed(await gateway.rows())] == ["openai", "near", "near"]
    found = await gateway.plane.what_if({"sensitivity.match": "substring"})
    assert [(one.from_upstream, one.to_upstream, one.count) for one in found.moves] == [("openai", "near", 1)]
    found = await gateway.plane.what_if({"sensitivity.scope": "last_user"})
    assert [(one.from_upstream, one.to_upstream, one.count) for one in found.moves] == [("near", "openai", 1)]


async def test_routing_tells_what_was_decided_and_how_upstreams_fared(start: Any) -> None:
    gateway = await start(sensitivity={"keywords": ["internal"]})
    await ask(gateway, "our internal plan")
    for _ in range(2):
        await ask(gateway, "hello")
    await gateway.ask("POST", OLLAMA_CHAT.path, OLLAMA_CHAT.bytes())
    info = gateway.plane.routing()
    assert dict(info.reasons) == {"default": 3, "sensitive_keyword_match": 1}
    assert [(one.upstream, one.rule) for one in info.recent] == [
        ("near", "default"), ("openai", "default"), ("openai", "default"), ("near", "sensitivity")
    ]  # fmt: skip
    assert [(one.name, one.local, one.requests_1h, one.in_flight) for one in info.upstreams] == [
        ("openai", False, 2, 0), ("anthropic", False, 0, 0), ("near", True, 2, 0)
    ]  # fmt: skip
    assert info.keywords == 1
    assert "internal" not in str(info)


async def test_times_retries_and_breakers_change_while_traffic_runs(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start(retries={"max_attempts": 1})
    running = gateway.runtime
    upstream.faults.append(Fault(status=503))
    assert await ask(gateway, "a") == "openai"
    assert len(upstream.exchanges) == 1

    def take(**routing: Any) -> None:
        wanted = RoutingSettings.model_validate(routing)
        running._take(gateway.settings.model_copy(update={"routing": wanted}))

    take(retries={"max_attempts": 2, "same_upstream": True, "backoff_s": 0.001})
    upstream.faults.append(Fault(status=503))
    answer = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert (answer.status, len(upstream.exchanges)) == (200, 3)
    take(timeouts={"first_byte_s": 0.05}, breaker={"failures": 1, "pause_s": 60})
    upstream.faults.append(Fault(stall_after=-1))
    answer = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert answer.status == 504
    assert next(one for one in gateway.plane.routing().upstreams if one.name == "openai").breaker == "open"
