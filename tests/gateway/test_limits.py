"""Limits and budgets, from outside: who is refused, when, with which words, and what is left on record."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from proxy_core.errors import ConfigurationError
from proxy_core.journal.client_keys import KeyLimits
from proxy_core.journal.schema import budget_reservations, budgets
from proxy_core.limits.accounts import Line, periods_at
from proxy_core.limits.ledgers import LEASE_S, LocalLedger, SharedLedger
from proxy_core.runtime import GatewayRuntime
from proxy_core.settings_sources import LoadedSettings
from proxy_core.settings_sources import load as load_settings
from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, OLLAMA_CHAT, ONE_OF_EACH_DIALECT, Asking, error_message, name_of
from tests.gateway.test_keys import bearer, new_key, with_keys
from tests.gateway_fixtures import RunningGateway, settings_for
from tests.raw_http import RawResponse

SMALL: dict[str, Any] = {"max_tokens": 17}
"""About what the upstream's answer uses."""


async def ask(
    gateway: RunningGateway, asking: Asking = CHAT, *, fault: dict[str, Any] | None = None, stream: bool = False, **more: Any
) -> RawResponse:
    headers = asking.headers | ({"x-fault": json.dumps(fault)} if fault else {})
    return await gateway.ask("POST", asking.path, asking.bytes(stream=stream, **more), headers)


async def cost_of_one(start_gateway: StartGateway, **more: Any) -> float:
    plain = await start_gateway()
    assert (await ask(plain, **SMALL, **more)).status == 200
    cost = (await plain.row()).cost_usd
    assert cost
    return cost


async def spent(gateway: RunningGateway) -> dict[str, tuple[int, int]]:
    """Spent and reserved, by scope and period, as the store has it."""
    url = gateway.settings.journal.database_url or f"sqlite+aiosqlite:///{gateway.data_dir / 'luthien.db'}"
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(select(budgets))).all()
            return {f"{one.scope} {one.period}": (one.spent, one.reserved) for one in rows}
    finally:
        await engine.dispose()


def limited(**upstream: Any) -> dict[str, Any]:
    return {"limits": {"upstreams": {"*": upstream}}}


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_too_many_requests(start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking) -> None:
    gateway = await start_gateway(**limited(rpm=2))
    for remaining in ("1", "0"):
        answer = await ask(gateway, asking)
        assert answer.status == 200
        # The upstream sends headers of its own; so luthien's have other names.
        assert answer.header("x-luthien-ratelimit-limit-requests") == "2"
        assert answer.header("x-luthien-ratelimit-remaining-requests") == remaining
    answer = await ask(gateway, asking)
    assert answer.status == 429
    assert 28 <= int(answer.header("retry-after") or 0) <= 30
    assert 28_000 <= int(answer.header("retry-after-ms") or 0) <= 30_000
    assert answer.header("x-should-retry") is None
    assert answer.header("x-ratelimit-remaining-requests") == "0"
    assert (answer.header("x-ratelimit-reset-requests") or "").endswith("s")
    message = error_message(answer, asking.dialect)
    assert "2 requests a minute" in message
    assert f"upstream '{asking.dialect}'" in message
    row = await gateway.row()
    assert (row.outcome, row.status, row.reason, row.verdict) == ("refused", 429, "rate_limited", "deny")
    assert len(upstream.exchanges) == 2
    # Others are not held to it.
    other = next(one for one in ONE_OF_EACH_DIALECT if one is not asking)
    assert (await ask(gateway, other)).status == 200


async def test_a_connection_goes_on_after_a_refusal(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**limited(rpm=1))
    async with gateway.connect() as client:
        for status in (200, 429, 429):
            client.request("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
            assert (await client.response()).status == status


async def test_tokens_are_taken_on_an_estimate_and_put_right_by_the_answer(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**limited(tpm=1_000))
    answer = await ask(gateway, max_tokens=900)
    assert int(answer.header("x-luthien-ratelimit-remaining-tokens") or 1_000) < 100
    # 31 and 17 were used: the estimate is back.
    answer = await ask(gateway, max_tokens=800)
    assert answer.status == 200
    assert answer.header("x-luthien-ratelimit-limit-tokens") == "1000"
    assert (await ask(gateway, max_tokens=700)).status == 200
    first = asyncio.ensure_future(ask(gateway, max_tokens=700, fault={"latency_s": 0.3}))
    await asyncio.sleep(0.1)
    refused = await ask(gateway, max_tokens=700)
    assert refused.status == 429
    assert "1,000 tokens a minute" in error_message(refused, "openai")
    assert (await first).status == 200


@pytest.mark.parametrize("asking", ONE_OF_EACH_DIALECT, ids=name_of)
async def test_models_that_are_not_allowed(start_gateway: StartGateway, upstream: FaultUpstream, asking: Asking) -> None:
    gateway = await start_gateway(**limited(models=["gpt-4o", "o*"]))
    answer = await ask(gateway, asking)
    assert answer.status == 403
    assert answer.header("x-should-retry") == "false"
    message = error_message(answer, asking.dialect)
    assert f"'{asking.body['model']}'" in message
    assert "gpt-4o, o*" in message
    assert (await gateway.row()).reason == "model_not_allowed"
    assert (await ask(gateway, asking, model="gpt-4o")).status == 200
    for body in (
        b"",
        b"not json",
        b'{"model": 5}',
        b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\ngpt-4o\r\n--x--',
    ):
        assert (await gateway.ask("POST", "/v1/audio/transcriptions", body)).status == 403
    assert (await gateway.ask("GET", "/v1/models")).status == 200
    assert len(upstream.exchanges) == 2


async def test_a_key_brings_limits_of_its_own(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(**with_keys(upstream, "gateway", limits={"keys": {"*": {"rpm": 50}, "named": {"rpm": 2}}}))
    made = await new_key(gateway, "made", KeyLimits(rpm=1, models=("gpt-*",)))
    named = await new_key(gateway, "named", KeyLimits(rpm=30))
    for key, passing in ((made, 1), (named, 2)):
        statuses = [(await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status for _ in range(passing + 1)]
        assert statuses == [200] * passing + [429]
    answer = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(), bearer(MESSAGES, made))
    assert answer.status == 403
    assert "the key 'made'" in error_message(answer, "anthropic")


async def test_clients_that_pass_their_own_key_on_are_told_apart(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        keys={"alice": {"key": "sk-alices-key"}}, limits={"keys": {"*": {"rpm": 1}, "alice": {"rpm": 2}}}
    )
    for key, passing in (("sk-alices-key", 2), ("sk-somebodys-key", 1), ("sk-somebody-elses", 1)):
        statuses = [(await gateway.ask("POST", CHAT.path, CHAT.bytes(), bearer(CHAT, key))).status for _ in range(passing + 1)]
        assert statuses == [200] * passing + [429], key


async def test_changed_limits_hold_at_once_and_what_was_used_stays_used(upstream: FaultUpstream, tmp_path: Path) -> None:
    rpm = [3]

    def load() -> LoadedSettings:
        return LoadedSettings(settings_for(upstream.url, **limited(rpm=rpm[0])), {})

    folder = tmp_path / "live"
    folder.mkdir()
    runtime = GatewayRuntime(load().settings, data_dir=folder, load=load)
    await runtime.start()
    gateway = RunningGateway(runtime, load().settings, folder)
    try:
        assert [(await ask(gateway)).status for _ in range(4)] == [200, 200, 200, 429]
        rpm[0] = 60_000
        assert await runtime.reload()
        assert [(await ask(gateway)).status for _ in range(3)] == [200, 200, 200]
        rpm[0] = 1
        assert await runtime.reload()
        assert [(await ask(gateway)).status for _ in range(2)] == [200, 429]
    finally:
        await gateway.stop()


def test_limits_of_an_upstream_that_is_not_there_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "luthien.yaml"
    file.write_text("limits:\n  upstreams:\n    opnai: {rpm: 3}\n")
    with pytest.raises(ConfigurationError, match=r"opnai.*luthien.yaml:3"):
        load_settings(file, {}, {}, None)


# --- budgets ---


async def test_200_at_once_against_a_budget_for_10(
    start_gateway: StartGateway, upstream: FaultUpstream, database_url: str | None
) -> None:
    """On SQLite one gateway, on Postgres two that share the budget."""
    one = await cost_of_one(start_gateway)
    journal = {"database_url": database_url} if database_url else {}
    limits = {"upstreams": {"openai": {"usd_per_day": 10 * one}}}
    gateways = [await start_gateway(journal=journal, limits=limits) for _ in range(2 if database_url else 1)]
    before = len(upstream.exchanges)
    answers = await asyncio.gather(
        *(ask(gateways[number % len(gateways)], fault={"latency_s": 0.05}, **SMALL) for number in range(200))
    )
    passed = sum(answer.status == 200 for answer in answers)
    assert 1 <= passed <= 11
    assert {answer.status for answer in answers} == {200, 402}
    while (answer := await ask(gateways[passed % len(gateways)], **SMALL)).status == 200:
        passed += 1
    assert 10 <= passed <= 11
    assert len(upstream.exchanges) - before == passed
    assert answer.header("x-should-retry") == "false"
    assert answer.header("x-luthien-attempts") == "0"
    assert answer.json()["error"]["code"] == "insufficient_quota"
    message = error_message(answer, "openai")
    assert "upstream 'openai'" in message
    assert "the next day begins at 20" in message
    row = await gateways[passed % len(gateways)].row()
    assert (row.outcome, row.status, row.reason) == ("refused", 402, "budget_exhausted")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_was_spent_survives_a_restart(start_gateway: StartGateway, database_url: str | None, stream: bool) -> None:
    one = await cost_of_one(start_gateway)
    journal = {"database_url": database_url} if database_url else {}
    gateway = await start_gateway(journal=journal, **limited(usd_per_day=1.5 * one, usd_per_month=100.0))
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    assert (await ask(gateway, stream=stream, **SMALL, **more)).status == 200
    await gateway.restart()
    day, month = periods_at((await gateway.row()).started_at)
    nano = round(one * 1e9)
    assert await spent(gateway) == {f"upstream:openai {day}": (nano, 0), f"upstream:openai {month}": (nano, 0)}
    assert (await ask(gateway, **SMALL)).status == 200
    assert (await ask(gateway, **SMALL)).status == 402


@pytest.mark.parametrize(
    ("fault", "pays"),
    [
        ({"status": 500}, False),
        ({"status": 429}, False),
        ({"reset_after": -1}, False),
        ({"garbage": "hello"}, False),
        ({"reset_after": 3}, True),
    ],
    ids=["500", "429", "reset", "garbage", "cut"],
)
async def test_failures_settle_too(
    start_gateway: StartGateway, database_url: str | None, fault: dict[str, Any], pays: bool
) -> None:
    journal = {"database_url": database_url} if database_url else {}
    gateway = await start_gateway(journal=journal, **limited(usd_per_day=1_000.0))
    await ask(gateway, fault=fault, stream=True)
    await gateway.row_when(lambda row: row.outcome != "")
    await gateway.stop()
    found = await spent(gateway)
    assert all(reserved == 0 for _, reserved in found.values())
    assert any(amount > 0 for amount, _ in found.values()) is pays


async def test_a_client_that_leaves_pays_for_what_was_made(
    start_gateway: StartGateway, upstream: FaultUpstream, database_url: str | None
) -> None:
    journal = {"database_url": database_url} if database_url else {}
    gateway = await start_gateway(journal=journal, **limited(usd_per_day=1_000.0))
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers | {"x-fault": '{"stall_after": 3}'})
        await upstream.arrived()
        await asyncio.sleep(0.4)
    row = await gateway.row_when(lambda row: row.outcome == "cancelled")
    assert row.outcome == "cancelled"
    await gateway.stop()
    ((amount, reserved),) = (await spent(gateway)).values()
    assert amount > 0
    assert reserved == 0


async def test_a_refused_request_has_used_nothing_up(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limits={"upstreams": {"*": {"rpm": 3}}, "agents": {"*": {"usd_per_day": 0.0}}})
    for _ in range(5):
        answer = await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers | {"x-luthien-agent-id": "poor"})
        assert answer.status == 402
    assert "the agent 'poor'" in error_message(answer, "openai")
    answer = await gateway.ask("POST", OLLAMA_CHAT.path, OLLAMA_CHAT.bytes(), {"x-luthien-agent-id": "poor"})
    assert answer.status == 200, "a model of one's own costs nothing"


@pytest.mark.parametrize(("setting", "status"), [("allow", 200), ("deny", 402)])
async def test_an_unknown_price(start_gateway: StartGateway, setting: str, status: int) -> None:
    limits = {"unknown_price": setting, "upstreams": {"*": {"usd_per_day": 1.0}}}
    gateway = await start_gateway(limits=limits)
    answer = await ask(gateway, model="nobody-knows-this-model")
    assert answer.status == status
    if status == 402:
        assert "limits.unknown_price" in error_message(answer, "openai")
        assert (await gateway.row()).reason == "price_unknown"
    assert (await gateway.ask("GET", "/v1/models")).status == 200


async def test_a_body_that_cannot_be_read_is_counted_by_its_answer(start_gateway: StartGateway, database_url: str | None) -> None:
    journal = {"database_url": database_url} if database_url else {}
    gateway = await start_gateway(journal=journal, **limited(usd_per_day=1e-9))
    usage = {"prompt_tokens": 31, "completion_tokens": 17, "total_tokens": 48}
    answered = {"object": "chat.completion", "model": "gpt-4o-mini", "choices": [], "usage": usage}
    fault = json.dumps({"status": 200, "body": json.dumps(answered)})
    headers = CHAT.headers | {"content-encoding": "gzip", "x-fault": fault}
    body = gzip.compress(CHAT.bytes())
    assert (await gateway.ask("POST", CHAT.path, body, headers)).status == 200
    cost = (await gateway.row()).cost_usd
    assert cost
    assert (await gateway.ask("POST", CHAT.path, body, headers)).status == 402
    await gateway.stop()
    assert [amount for amount, _ in (await spent(gateway)).values()] == [round(cost * 1e9)]


async def test_what_was_not_reserved_is_counted_all_the_same(start_gateway: StartGateway, database_url: str | None) -> None:
    journal = {"database_url": database_url} if database_url else {}
    gateway = await start_gateway(journal=journal)
    engine = create_async_engine(database_url or f"sqlite+aiosqlite:///{gateway.data_dir / 'luthien.db'}")
    ledger = SharedLedger(engine, time.time, "one") if database_url else LocalLedger(engine, time.time)
    await ledger.open()
    day, month = periods_at(time.time())
    lines = [Line("key:ci", month, 100, 1), Line("key:ci", day, 100, 1)]
    await ledger.charge(lines, 30)
    await ledger.charge(lines, 40)
    refusal = await ledger.reserve("t1", [Line("key:ci", day, 70, 1)])
    assert refusal is not None
    await ledger.close()
    assert await spent(gateway) == {f"key:ci {day}": (70, 0), f"key:ci {month}": (70, 0)}
    await engine.dispose()


async def test_budgets_that_cannot_be_looked_up_let_nobody_pass(start_gateway: StartGateway, postgres_url: str) -> None:
    gateway = await start_gateway(journal={"database_url": postgres_url}, **limited(usd_per_day=1_000.0))
    assert (await ask(gateway)).status == 200
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE budgets RENAME TO away")
    answer = await ask(gateway)
    assert answer.status == 503
    assert (await gateway.row()).reason == "budget_unavailable"
    async with engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE away RENAME TO budgets")
    await engine.dispose()
    assert (await ask(gateway)).status == 200


async def test_what_a_dead_gateway_had_reserved_counts_as_spent(start_gateway: StartGateway, postgres_url: str) -> None:
    gateway = await start_gateway(journal={"database_url": postgres_url})
    engine = create_async_engine(postgres_url)
    now = [1_800_000_000.0]
    dead, alive = (SharedLedger(engine, lambda: now[0], name) for name in ("dead", "alive"))
    day = periods_at(now[0])[0]
    line = Line("key:ci", day, 100, 60)
    assert await dead.reserve("t1", [line]) is None
    refusal = await alive.reserve("t2", [line])
    assert refusal is not None
    assert (refusal.spent, refusal.reserved) == (0, 60)
    await alive.sweep()
    assert await spent(gateway) == {f"key:ci {day}": (0, 60)}
    now[0] += LEASE_S + 1
    await asyncio.gather(alive.sweep(), alive.sweep())
    assert await spent(gateway) == {f"key:ci {day}": (60, 0)}
    await dead.settle("t1", 5)
    assert await spent(gateway) == {f"key:ci {day}": (60, 0)}
    async with engine.connect() as connection:
        assert not (await connection.execute(select(budget_reservations))).all()
    await engine.dispose()
