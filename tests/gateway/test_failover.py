"""Upstreams that stand in for each other: shares, sessions, health, keys, room and what an operator says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, ONE_OF_EACH_DIALECT, Asking, error_message, name_of
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse


@pytest.fixture
async def second() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream) -> Any:
    async def start(one: dict[str, Any], two: dict[str, Any], *, api: str = "openai", **sections: Any) -> RunningGateway:
        upstreams = {
            "one": {"api": api, "base_url": upstream.url, "api_key": "sk-one", **one},
            "two": {"api": api, "base_url": second.url, "api_key": "sk-two", **two},
        }
        return await start_gateway(upstreams=upstreams, **sections)

    return start


async def chat(gateway: RunningGateway, path: str = CHAT.path, **headers: str) -> RawResponse:
    return await gateway.ask("POST", path, CHAT.bytes(), {**CHAT.headers, **headers})


def said(text: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


async def test_without_a_priority_nobody_stands_in(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start({}, {})
    upstream.faults.append(Fault(status=503))
    response = await chat(gateway)
    assert response.status == 503
    assert response.header("x-luthien-attempts") == "1"
    assert not second.exchanges


async def test_the_next_priority_stands_in_with_its_own_key(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start({}, {"priority": 1, "models": {"gpt-*": "other"}})
    upstream.faults.append(Fault(status=503))
    response = await chat(gateway, authorization="Bearer sk-client")
    assert response.status == 200
    assert response.header("x-luthien-upstream") == "two"
    assert response.header("x-luthien-attempts") == "2"
    assert response.header("x-luthien-reason") == "default,fallback_after_failure"
    assert upstream.last.header("authorization") == "Bearer sk-client"
    assert second.last.header("authorization") == "Bearer sk-two"
    assert second.last.json()["model"] == "other"
    detail = await gateway.detail()
    assert (detail.row.upstream, detail.row.reason) == ("two", "default,fallback_after_failure")
    (verdict,) = detail.verdicts
    assert verdict.detail == {"attempt": 1, "upstream": "one", "outcome": "status 503", "next": "two"}
    assert (await chat(gateway)).header("x-luthien-upstream") == "one", "one failure is not the end of an upstream"
    metrics = await gateway.ask("GET", "/metrics")
    assert b'luthien_retries_total{outcome="status 503",upstream="one"} 1.0' in metrics.body


async def test_a_key_that_a_policy_gave_goes_to_the_upstream_that_it_saw(
    start: Any, upstream: FaultUpstream, second: FaultUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_ONE", "sk-policy")
    policy = {"use": "add_api_key_header_from_env", "params": {"api_key_env_var_name": "KEY_OF_ONE"}}
    gateway = await start({}, {"priority": 1}, policies=[policy])
    upstream.faults.append(Fault(status=503))
    assert (await chat(gateway)).status == 200
    assert upstream.last.header("authorization") == "Bearer sk-policy"
    assert second.last.header("authorization") == "Bearer sk-two"


async def test_sessions_stay_and_are_shared_by_weight(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start({"weight": 3}, {"priority": 0})
    went: dict[str, set[str]] = {}
    for number in range(60):
        response = await chat(gateway, **{"x-luthien-session-id": f"s{number % 30}"})
        went.setdefault(f"s{number % 30}", set()).add(response.header("x-luthien-upstream") or "")
    assert all(len(names) == 1 for names in went.values())
    assert len(upstream.exchanges) > len(second.exchanges) > 0


async def test_an_upstream_in_trouble_is_left_alone_and_taken_back(
    start: Any, upstream: FaultUpstream, second: FaultUpstream
) -> None:
    gateway = await start({}, {"priority": 1}, routing={"breaker": {"failures": 2, "pause_s": 0.05}})
    upstream.faults.extend([Fault(status=503), Fault(status=503)])
    for _ in range(2):
        assert (await chat(gateway)).header("x-luthien-upstream") == "two"
    response = await chat(gateway)
    assert response.header("x-luthien-upstream") == "two"
    assert response.header("x-luthien-reason") == "default,upstream_unhealthy"
    assert response.header("x-luthien-attempts") == "1"
    assert len(upstream.exchanges) == 2
    pool = gateway.runtime._gateway.pool
    async with asyncio.timeout(30):
        while pool.views()[0].breaker == "open":
            await asyncio.sleep(0.005)
    assert (await chat(gateway)).header("x-luthien-upstream") == "one"
    assert pool.views()[0].breaker == "closed"


async def test_what_a_path_names_goes_there_or_nowhere(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start({}, {"priority": 1})
    upstream.faults.append(Fault(status=503))
    assert (await chat(gateway, "/one/v1/chat/completions")).status == 503
    assert not second.exchanges


async def test_what_a_policy_or_a_tag_names_goes_there_or_nowhere(
    start: Any, upstream: FaultUpstream, second: FaultUpstream
) -> None:
    gateway = await start(
        {"priority": 1}, {"priority": 0}, policies=[{"use": "set_backend", "params": {"backend_url": upstream.url}}]
    )
    upstream.faults.append(Fault(status=503))
    response = await chat(gateway)
    assert (response.status, response.header("x-luthien-upstream")) == (503, "one")
    gateway = await start({"priority": 1}, {"priority": 0}, routing={"tags": {"team:legal": "one"}})
    upstream.faults.append(Fault(status=503))
    response = await chat(gateway, **{"x-luthien-tags": "team:legal"})
    assert (response.status, response.header("x-luthien-reason")) == (503, "tag_rule")
    assert not second.exchanges


@pytest.mark.parametrize("model_rule", [False, True], ids=["by keyword", "by model"])
async def test_what_must_stay_local_fails_before_it_leaves(
    start: Any, upstream: FaultUpstream, second: FaultUpstream, model_rule: bool
) -> None:
    routing: dict[str, Any] = {"sensitivity": {"keywords": ["internal"]}}
    if model_rule:
        routing["models"] = {"m": "one"}
    gateway = await start({"local": True}, {"priority": 1}, routing=routing)
    upstream.faults.extend([Fault(status=503), Fault(status=503)])
    response = await gateway.ask("POST", CHAT.path, said("an internal plan"), CHAT.headers)
    assert response.status == 503
    assert not second.exchanges
    assert (await gateway.ask("POST", CHAT.path, said("the weather"), CHAT.headers)).status == 200
    assert second.last.json()["messages"][0]["content"] == "the weather"


async def test_a_limited_upstream_rests_as_long_as_it_asks(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start({}, {"priority": 1})
    upstream.faults.append(Fault(status=429, headers=[("retry-after", "60")]))
    assert (await chat(gateway)).header("x-luthien-attempts") == "2"
    response = await chat(gateway)
    assert response.header("x-luthien-upstream") == "two"
    assert response.header("x-luthien-attempts") == "1"
    assert 50 < gateway.runtime._gateway.pool.views()[0].ready_in_s <= 60
    assert len(upstream.exchanges) == 1


async def test_a_limit_of_the_clients_own_key_concerns_no_other(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start({}, {"priority": 1})
    upstream.faults.append(Fault(status=429, headers=[("retry-after", "60")]))
    await chat(gateway, authorization="Bearer sk-client")
    assert (await chat(gateway)).header("x-luthien-upstream") == "one"


@pytest.mark.parametrize("status", [401, 429])
async def test_keys_take_turns_where_one_is_refused(start_gateway: StartGateway, upstream: FaultUpstream, status: int) -> None:
    one = {"api": "openai", "base_url": upstream.url, "api_key": "sk-first", "api_keys": ["sk-next"]}
    gateway = await start_gateway(upstreams={"openai": one})
    upstream.faults.append(Fault(status=status))
    response = await chat(gateway)
    assert response.status == 200
    assert [exchange.header("authorization") for exchange in upstream.exchanges] == ["Bearer sk-first", "Bearer sk-next"]
    assert (await chat(gateway)).status == 200
    assert upstream.last.header("authorization") == "Bearer sk-next"
    upstream.faults.append(Fault(status=status))
    assert (await chat(gateway)).status == status, "no key is left"
    assert len(upstream.exchanges) == 4


async def test_a_clients_own_key_is_never_replaced(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    one = {"api": "openai", "base_url": upstream.url, "api_keys": ["sk-first", "sk-next"]}
    gateway = await start_gateway(upstreams={"openai": one})
    upstream.faults.append(Fault(status=401))
    assert (await chat(gateway, authorization="Bearer sk-client")).status == 401
    assert len(upstream.exchanges) == 1


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_a_full_queue_is_429_in_the_clients_dialect(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    one = {"api": asking.dialect, "base_url": upstream.url, "max_concurrency": 1, "queue": 1}
    gateway = await start_gateway(upstreams={"only": one})
    upstream.faults.append(Fault(stall_after=-1))
    first = asyncio.ensure_future(gateway.ask("POST", asking.path, asking.bytes(), asking.headers))
    await upstream.arrived(1)
    waiting = asyncio.ensure_future(gateway.ask("POST", asking.path, asking.bytes(), asking.headers))
    member = gateway.runtime._gateway.pool.members["only"]
    async with asyncio.timeout(30):
        while not member.waiting:
            await asyncio.sleep(0.005)
    refused = await gateway.ask("POST", asking.path, asking.bytes(), asking.headers)
    assert refused.status == 429
    assert refused.header("retry-after") == "1"
    assert refused.header("x-luthien-reason") == "upstream_busy"
    assert "busy" in error_message(refused, asking.dialect)
    first.cancel()
    assert (await waiting).status == 200, "the client that left made room"
    assert len(upstream.exchanges) == 2
    assert (await gateway.row_when(lambda row: row.outcome != "")).outcome == "refused"
    assert (member.health.in_flight, len(member.waiting)) == (0, 0)


async def test_nobody_waits_longer_than_the_queue_allows(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    one = {"api": "openai", "base_url": upstream.url, "max_concurrency": 1, "queue_timeout_s": 0.05}
    gateway = await start_gateway(upstreams={"only": one})
    upstream.faults.append(Fault(stall_after=-1))
    first = asyncio.ensure_future(chat(gateway))
    await upstream.arrived(1)
    assert (await chat(gateway)).status == 429
    first.cancel()
    member = gateway.runtime._gateway.pool.members["only"]
    async with asyncio.timeout(30):
        while member.health.in_flight:
            await asyncio.sleep(0.005)
    assert (await chat(gateway)).status == 200


async def test_a_busy_upstream_hands_over(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start({"max_concurrency": 1}, {"priority": 1})
    upstream.faults.append(Fault(stall_after=-1))
    first = asyncio.ensure_future(chat(gateway))
    await upstream.arrived(1)
    response = await chat(gateway)
    assert response.header("x-luthien-upstream") == "two"
    assert response.header("x-luthien-reason") == "default,upstream_busy"
    first.cancel()


async def test_an_operator_drains_and_freezes(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start({}, {"priority": 1})
    pool = gateway.runtime._gateway.pool
    pool.set_state("one", "drained")
    response = await chat(gateway)
    assert response.header("x-luthien-upstream") == "two"
    assert response.header("x-luthien-reason") == "default,operator_override"
    assert (await chat(gateway, "/one/v1/chat/completions")).status == 200, "nothing else can take what names it"
    pool.set_state("one", "frozen")
    frozen = await chat(gateway, "/one/v1/chat/completions")
    assert frozen.status == 503
    assert "frozen" in error_message(frozen, "openai")
    assert len(upstream.exchanges) == 1
    pool.set_state("one", "active")
    assert (await chat(gateway)).header("x-luthien-upstream") == "one"


async def test_a_lone_upstream_is_tried_again_where_that_is_set(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(routing={"retries": {"same_upstream": True, "max_attempts": 3, "backoff_s": 0.001}})
    upstream.faults.extend([Fault(status=503), Fault(status=529, headers=[("retry-after-ms", "1")])])
    response = await chat(gateway)
    assert response.status == 200
    assert response.header("x-luthien-attempts") == "3"
    assert response.header("x-luthien-reason") == "default"


async def test_an_upstream_that_asks_for_more_patience_than_there_is_is_believed(
    start_gateway: StartGateway, upstream: FaultUpstream
) -> None:
    gateway = await start_gateway(routing={"retries": {"same_upstream": True, "backoff_s": 0.001}})
    upstream.faults.append(Fault(status=429, headers=[("retry-after", "3600")]))
    response = await chat(gateway)
    assert response.status == 429
    assert response.header("retry-after") == "3600"
    assert len(upstream.exchanges) == 1


async def test_private_addresses_are_refused_where_they_are_not_allowed(
    start_gateway: StartGateway, upstream: FaultUpstream
) -> None:
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{upstream.port}"
        gateway = await start_gateway(upstreams={"openai": {"api": "openai", "base_url": url, "allow_private": False}})
        response = await chat(gateway)
        assert response.status == 502
        assert "allow_private" in error_message(response, "openai")
    assert not upstream.connections
