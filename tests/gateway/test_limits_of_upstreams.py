"""Limits of upstreams that stand in for each other, and of what policies ask in the name of a client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, error_message
from tests.gateway.test_limits import SMALL, ask, cost_of_one, spent
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse

PASS = Fault(
    status=200,
    body=json.dumps(
        {
            "object": "chat.completion",
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": '{"action": "pass"}'}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010},
        }
    ),
)
"""What the model of `simple_llm` says to leave an answer as it is."""
JUDGED = {"use": "simple_llm", "params": {"upstream": "judge", "model": "gpt-4o-mini", "instructions": "x", "max_retries": 0}}


@pytest.fixture
async def second() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream) -> Any:
    """Two upstreams that stand in for each other, `one` first, with limits of their own."""

    async def start(one: dict[str, Any], two: dict[str, Any], **sections: Any) -> RunningGateway:
        upstreams = {
            "one": {"api": "openai", "base_url": upstream.url, "api_key": "sk-one"},
            "two": {"api": "openai", "base_url": second.url, "api_key": "sk-two", "priority": 1},
        }
        given = {name: limits for name, limits in (("one", one), ("two", two)) if limits}
        return await start_gateway(upstreams=upstreams, limits={"upstreams": given, **sections.pop("limits", {})}, **sections)

    return start


@pytest.fixture
def judged(start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream) -> Any:
    """A model at the second upstream reads every answer of the first."""

    async def judged(judge: dict[str, Any] | None = None, **sections: Any) -> RunningGateway:
        upstreams = {
            "openai": {"api": "openai", "base_url": upstream.url},
            "judge": {"api": "openai", "base_url": second.url, "api_key": "sk-judge", **(judge or {})},
        }
        return await start_gateway(upstreams=upstreams, policies=[JUDGED], **sections)

    return judged


async def agent_asks(gateway: RunningGateway) -> RawResponse:
    return await gateway.ask("POST", CHAT.path, CHAT.bytes(**SMALL), CHAT.headers | {"x-luthien-agent-id": "a"})


async def test_one_that_has_reached_its_limit_hands_over(start: Any) -> None:
    gateway = await start({"rpm": 1}, {})
    assert (await ask(gateway)).header("x-luthien-upstream") == "one"
    answer = await ask(gateway)
    assert (answer.status, answer.header("x-luthien-upstream")) == (200, "two")
    assert answer.header("x-luthien-reason") == "default,rate_limited"
    assert answer.header("x-luthien-attempts") == "1"
    assert (await gateway.row()).reason == "default,rate_limited"


async def test_one_whose_budget_is_spent_hands_over_until_all_are(start: Any, start_gateway: StartGateway) -> None:
    one = await cost_of_one(start_gateway)
    gateway = await start({"usd_per_day": one / 2}, {"usd_per_day": one / 2})
    assert (await ask(gateway, **SMALL)).header("x-luthien-upstream") == "one"
    answer = await ask(gateway, **SMALL)
    assert (answer.status, answer.header("x-luthien-reason")) == (200, "default,budget_exhausted")
    answer = await ask(gateway, **SMALL)
    assert answer.status == 402
    assert "upstream 'one'" in error_message(answer, "openai")


async def test_a_limit_of_the_client_moves_nothing(start: Any, second: FaultUpstream) -> None:
    gateway = await start({"rpm": 9}, {}, limits={"agents": {"*": {"rpm": 1}}})
    assert [(await agent_asks(gateway)).status for _ in range(2)] == [200, 429]
    assert not second.exchanges


@pytest.mark.parametrize("limits", [{"rpm": 1}, {"usd_per_day": 1e-9}, {"models": ["other"]}], ids=["rate", "budget", "models"])
async def test_a_stand_in_is_asked_for_its_limits(
    start: Any, upstream: FaultUpstream, second: FaultUpstream, limits: dict[str, Any]
) -> None:
    gateway = await start({}, limits)
    upstream.faults.extend([Fault(status=503)] * 2)
    answers = [await ask(gateway) for _ in range(2)]
    passing = "models" not in limits
    assert [answer.status for answer in answers] == [200 if passing else 503, 503]
    assert len(second.exchanges) == int(passing)
    assert answers[1].header("x-luthien-upstream") == "one"


async def test_who_answers_is_paid_and_who_failed_is_not(start: Any, upstream: FaultUpstream, database_url: str | None) -> None:
    journal = {"database_url": database_url} if database_url else {}
    budget = {"usd_per_day": 1_000.0}
    gateway = await start(budget, budget, journal=journal, limits={"agents": {"*": budget}})
    upstream.faults.append(Fault(status=503))
    answer = await agent_asks(gateway)
    assert answer.header("x-luthien-upstream") == "two"
    cost = (await gateway.row()).cost_usd
    assert cost
    await gateway.stop()
    found = {scope.partition(" ")[0]: amounts for scope, amounts in (await spent(gateway)).items()}
    nano = round(cost * 1e9)
    assert found.pop("upstream:one", (0, 0)) == (0, 0)
    assert found == {"agent:a": (nano, 0), "upstream:two": (nano, 0)}


async def test_a_policy_that_changes_the_upstream_asks_that_ones_limits(
    start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream
) -> None:
    gateway = await start_gateway(
        upstreams={
            "one": {"api": "openai", "base_url": upstream.url},
            "two": {"api": "openai", "base_url": second.url},
        },
        policies=[{"use": "set_backend", "params": {"backend_url": second.url}}],
        limits={"upstreams": {"one": {"rpm": 1}, "two": {"rpm": 2}}},
    )
    answers = [await ask(gateway) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429], "what is given back to one may be asked for again"
    assert "upstream 'two'" in error_message(answers[2], "openai")
    assert not upstream.exchanges
    assert (await gateway.row()).outcome == "refused"


# --- what policies ask ---


async def test_what_a_policy_asks_is_paid_by_who_it_is_for(judged: Any, second: FaultUpstream, database_url: str | None) -> None:
    journal = {"database_url": database_url} if database_url else {}
    second.faults.append(PASS)
    gateway = await judged(journal=journal, limits={name: {"*": {"usd_per_day": 9.0}} for name in ("agents", "upstreams")})
    answer = await agent_asks(gateway)
    assert answer.status == 200
    total = (await gateway.row()).cost_usd
    assert total
    await gateway.stop()
    found = {scope.partition(" ")[0]: amounts for scope, amounts in (await spent(gateway)).items()}
    assert {reserved for _, reserved in found.values()} == {0}
    assert found["agent:a"][0] == pytest.approx(total * 1e9, abs=2)
    assert found["upstream:openai"][0] + found["upstream:judge"][0] == pytest.approx(total * 1e9, abs=2)
    assert found["upstream:judge"][0] > found["upstream:openai"][0]


async def test_a_limit_of_the_judges_upstream_is_a_fault_of_the_policy(judged: Any, second: FaultUpstream) -> None:
    second.faults.extend([PASS, PASS])
    gateway = await judged(limits={"upstreams": {"judge": {"rpm": 1}}, "agents": {"*": {"rpm": 3}}})
    assert [(await agent_asks(gateway)).status for _ in range(2)] == [200, 400]
    assert len(second.exchanges) == 1
    detail = await gateway.detail()
    (verdict,) = [one for one in detail.verdicts if one.ran == "error"]
    assert (verdict.reason, verdict.action) == ("judge_unavailable", "deny")
    assert "requests a minute" in verdict.message
    assert [(await agent_asks(gateway)).status for _ in range(2)] == [400, 429], "the client asked once, whatever policies ask"


async def test_a_budget_that_is_spent_stops_what_policies_ask_too(judged: Any, second: FaultUpstream) -> None:
    gateway = await judged(limits={"upstreams": {"judge": {"usd_per_day": 0.0}}})
    answer = await ask(gateway)
    assert answer.status == 400
    assert not second.exchanges


async def test_a_judge_of_the_same_upstream_needs_no_second_place(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    """With room for one request, the answer that is read would wait for itself."""
    one = {"api": "openai", "base_url": upstream.url, "max_concurrency": 1, "queue_timeout_s": 60}
    gateway = await start_gateway(upstreams={"judge": one}, policies=[JUDGED])
    upstream.faults.extend([Fault(), PASS])
    async with asyncio.timeout(30):
        assert (await ask(gateway)).status == 200
    assert len(upstream.exchanges) == 2
    assert gateway.runtime._gateway.pool.members["judge"].health.in_flight == 0


async def test_a_judge_waits_for_room_and_takes_the_next_key(judged: Any, second: FaultUpstream) -> None:
    gateway = await judged({"max_concurrency": 1, "api_keys": ["sk-next"]})
    second.faults.extend([Fault(status=429), PASS, PASS])
    answers = await asyncio.gather(ask(gateway), ask(gateway))
    assert [answer.status for answer in answers] == [200, 200]
    keys = [exchange.header("authorization") for exchange in second.exchanges]
    assert keys == ["Bearer sk-judge", "Bearer sk-next", "Bearer sk-next"]


async def test_what_policies_ask_is_told_to_the_health_of_the_upstream(judged: Any, second: FaultUpstream) -> None:
    gateway = await judged(routing={"breaker": {"failures": 2}})
    second.faults.extend([Fault(status=503), Fault(reset_after=-1)])
    assert [(await ask(gateway)).status for _ in range(2)] == [400, 400]
    _, judge = gateway.runtime._gateway.pool.views()
    assert (judge.breaker, judge.in_flight, judge.failures_in_a_row) == ("open", 0, 2)
    gateway.runtime._gateway.pool.set_state("judge", "frozen")
    assert (await ask(gateway)).status == 400
    assert len(second.exchanges) == 2


async def test_a_policy_that_sends_is_counted_once(
    start_gateway: StartGateway, upstream: FaultUpstream, database_url: str | None
) -> None:
    """What it sends is admitted in place of the client's request: with a budget for one, one passes."""
    journal = {"database_url": database_url} if database_url else {}
    cost = await cost_of_one(start_gateway)
    gateway = await start_gateway(
        journal=journal,
        policies=[{"use": "backend_call"}],
        limits={"agents": {"*": {"usd_per_day": cost, "rpm": 2}}, "upstreams": {"*": {"rpm": 9}}},
    )
    answers = [await agent_asks(gateway) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 402]
    assert answers[0].header("x-luthien-ratelimit-remaining-requests") == "1"
    row = await gateway.row()
    assert (row.outcome, row.reason) == ("refused", "budget_exhausted")
    await gateway.stop()
    assert [amounts for scope, amounts in (await spent(gateway)).items() if "agent" in scope] == [(round(cost * 1e9), 0)]


async def test_samples_are_counted_each(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(
        policies=[{"use": "backend_sampling", "params": {"samples": 3}}, {"use": "noop"}],
        limits={"upstreams": {"openai": {"rpm": 4}}},
    )
    answers = [await ask(gateway) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert len(upstream.exchanges) == 4
    partial = await gateway.plane.detail((await gateway.rows())[1].transaction_id)
    assert partial is not None
    (verdict,) = [one for one in partial.verdicts if one.policy == "backend_sampling"]
    assert (verdict.ran, verdict.detail["good"]) == ("partial", 1)


async def test_200_at_once_that_all_fail_over_to_a_budget_for_10(
    start: Any, start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream, database_url: str | None
) -> None:
    one = await cost_of_one(start_gateway)
    journal = {"database_url": database_url} if database_url else {}
    retries = {"budget": 1, "budget_window_s": 60}
    routing = {"retries": retries, "timeouts": {"connect_s": 30.0}}
    gateway = await start({}, {"usd_per_day": 10 * one}, journal=journal, routing=routing)
    upstream.faults.extend([Fault(status=503)] * 300)
    answers = await asyncio.gather(*(ask(gateway, **SMALL) for _ in range(200)))
    passed = sum(answer.status == 200 for answer in answers)
    assert {answer.status for answer in answers} <= {200, 402, 503}
    while (await ask(gateway, **SMALL)).status == 200:
        passed += 1
    assert 10 <= passed <= 11
    assert len(second.exchanges) == passed
    await gateway.stop()
    assert {reserved for _, reserved in (await spent(gateway)).values()} == {0}


async def test_who_leaves_while_the_limits_are_asked_leaves_no_connection_behind(start: Any, upstream: FaultUpstream) -> None:
    """A store of budgets may take its time: the failed answer waits for it, and so does its connection."""
    gateway = await start({"rpm": 100}, {"rpm": 100})
    admissions, asked = gateway.runtime._gateway.admissions, asyncio.Event()
    admit = admissions.admit

    async def slow(*given: Any, attempted: bool = False) -> None:
        if attempted:
            asked.set()
            await asyncio.Event().wait()
        await admit(*given)

    admissions.admit = slow
    fault = Fault(status=503, stall_after=0)
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(), CHAT.headers | fault.header())
        await asked.wait()
        client.leave()
        async with asyncio.timeout(30):
            await upstream.last.peer_gone.wait()
    assert (await gateway.row_when(lambda row: row.outcome == "cancelled")).outcome == "cancelled"
