"""Upstreams that luthien itself asks whether they are there: when, with what, and what comes of it for clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy_core.control.routing_infos import UpstreamInfo
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, ONE_OF_EACH_DIALECT, Asking, name_of
from tests.gateway_fixtures import RunningGateway

QUICK = {"interval_s": 0.03, "timeout_s": 0.2}
FRAGILE = {"failures": 1, "pause_s": 60}
ABSENT = Fault(reset_after=-1)


@pytest.fixture
async def second() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream) -> Any:
    async def start(**routing: Any) -> RunningGateway:
        upstreams = {
            "one": {"api": "openai", "base_url": upstream.url, "api_key": "sk-one"},
            "two": {"api": "openai", "base_url": second.url, "priority": 1},
        }
        return await start_gateway(upstreams=upstreams, routing={"breaker": FRAGILE, **routing})

    return start


async def one_when(gateway: RunningGateway, holds: Callable[[UpstreamInfo], bool]) -> UpstreamInfo:
    async with asyncio.timeout(30):
        while not holds(one := gateway.plane.routing().upstreams[0]):
            await asyncio.sleep(0.005)
    return one


async def upstream_of(gateway: RunningGateway) -> str | None:
    return (await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)).header("x-luthien-upstream")


async def test_one_that_is_back_is_tried_at_once(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start(probes=QUICK)
    upstream.faults.extend([ABSENT, ABSENT])
    assert await upstream_of(gateway) == "one"
    assert (await one_when(gateway, lambda one: one.probe != "")).breaker == "open"
    one = await one_when(gateway, lambda one: one.breaker == "half_open")
    assert (one.probe, one.ready_in_s, one.last_failure) == ("ok", 0.0, "upstream_unreachable")
    assert await upstream_of(gateway) == "one"
    assert gateway.plane.routing().upstreams[0].breaker == "closed"


async def test_one_that_stays_away_gets_no_clients_request(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start(probes=QUICK, breaker={"failures": 1, "pause_s": 0.1})
    upstream.faults.extend([ABSENT] * 60)
    await upstream_of(gateway)
    await upstream.arrived(15)
    assert await upstream_of(gateway) == "two"
    assert [one.method for one in upstream.exchanges][:15] == ["POST"] + ["GET"] * 14


async def test_an_api_that_answers_does_not_undo_what_its_models_failed(start: Any, upstream: FaultUpstream) -> None:
    gateway = await start(probes=QUICK, retries={"max_attempts": 1})
    upstream.faults.append(Fault(status=500))
    await upstream_of(gateway)
    one = await one_when(gateway, lambda one: one.probe == "ok")
    assert (one.breaker, one.last_failure) == ("open", "status 500")
    assert one.ready_in_s > 50


async def test_silence_is_noticed_before_a_client_meets_it(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start(probes={**QUICK, "when": "always"}, breaker={"failures": 3, "pause_s": 60})
    upstream.faults.extend([Fault(status=503), ABSENT, Fault(stall_after=-1)])
    one = await one_when(gateway, lambda one: one.breaker == "open")
    assert one.last_failure == "probe: no answer within 0.2 s"
    assert await gateway.rows() == []
    metrics = await gateway.ask("GET", "/metrics")
    assert b'luthien_upstream_probes_total{result="failed",upstream="one"} 3.0' in metrics.body
    assert b'luthien_upstream_probes_total{result="ok",upstream="two"}' in metrics.body


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_what_is_asked_costs_nothing_and_brings_the_key(
    start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking
) -> None:
    one = {"api": asking.dialect, "base_url": f"{upstream.url}/v1", "api_key": "sk-one"}
    probes = {**QUICK, "when": "always"}
    gateway = await start_gateway(upstreams={"one": one}, routing={"probes": probes})
    await upstream.arrived(2)
    assert {(one.method, one.target) for one in upstream.exchanges} == {
        ("GET", b"/api/version" if asking.dialect == "ollama" else b"/v1/models")
    }
    sent = upstream.exchanges[0]
    assert sent.header("x-api-key" if asking.dialect == "anthropic" else "authorization") in ("sk-one", "Bearer sk-one")
    assert sent.header("anthropic-version") == ("2023-06-01" if asking.dialect == "anthropic" else None)
    assert (await one_when(gateway, lambda one: one.probe != "")).probe in ("ok", "status 404")
    await start_gateway(upstreams={"one": {**one, "probe_path": "/ready?x=1"}}, routing={"probes": probes})
    async with asyncio.timeout(30):
        while all(one.target != b"/ready?x=1" for one in upstream.exchanges):
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("probes", [{**QUICK, "when": "never"}, QUICK], ids=["never", "no trouble"])
async def test_nobody_is_asked_who_is_not_to_be(start: Any, upstream: FaultUpstream, probes: dict[str, Any]) -> None:
    gateway = await start(probes=probes)
    await asyncio.sleep(0.1)
    assert not upstream.exchanges
    upstream.faults.append(ABSENT)
    await upstream_of(gateway)
    gateway.runtime._gateway.pool.set_state("one", "frozen")
    await asyncio.sleep(0.1)
    assert [one.method for one in upstream.exchanges].count("GET") <= 1
