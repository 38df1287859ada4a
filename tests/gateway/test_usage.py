"""What transactions used and cost, as recorded: told by the upstream, estimated and marked, or unknown."""

from __future__ import annotations

import json

import pytest

from proxy_core.journal.usage_reads import UsageReads
from proxy_core.settings import PricesSettings
from tests.conftest import StartGateway
from tests.fault_payloads import CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, TEXT
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, OLLAMA_CHAT, RESPONSES, Asking, name_of
from tests.gateway_fixtures import RunningGateway

SAID = -(-len(TEXT) // 4)
PRICE = {"input": 2.0, "output": 10.0, "cache_read": 0.5}
PRICES = {"models": {"*": PRICE}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_what_the_upstream_tells_is_recorded_and_priced(start_gateway: StartGateway, asking: Asking, stream: bool) -> None:
    gateway = await start_gateway(prices=PRICES)
    more = {"stream_options": {"include_usage": True}} if asking is CHAT and stream else {}
    await gateway.ask("POST", asking.path, asking.bytes(stream=stream, **more), asking.headers)
    row = await gateway.row()
    cached = 0 if asking.dialect == "ollama" else CACHED_TOKENS
    told = INPUT_TOKENS + (CACHED_TOKENS if asking is MESSAGES else 0)
    assert (row.input_tokens, row.output_tokens, row.cached_tokens or 0, row.estimated) == (told, OUTPUT_TOKENS, cached, False)
    assert row.cost_usd == pytest.approx(((told - cached) * 2.0 + cached * 0.5 + OUTPUT_TOKENS * 10.0) / 1e6)


async def test_a_stream_that_tells_no_usage_is_estimated(stored_gateway: RunningGateway) -> None:
    await stored_gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    row = await stored_gateway.row()
    assert (row.input_tokens, row.output_tokens, row.estimated) == (
        -(-len(json.dumps(CHAT.body["messages"][0])) // 4),
        SAID,
        True,
    )
    assert row.cost_usd is not None
    (total,) = await UsageReads(stored_gateway.runtime._journal.engine).usage()
    assert (total.estimated, total.input_tokens, total.cost_usd) == (1, row.input_tokens, row.cost_usd)


async def test_without_estimates_it_is_unknown(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(prices={"estimate_usage": False})
    await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    row = await gateway.row()
    assert (row.input_tokens, row.output_tokens, row.cost_usd, row.estimated) == (None, None, None, False)


async def test_a_stream_that_breaks_off_has_used_what_was_seen(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    upstream.faults.append(Fault(end_after=6))
    await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(stream=True), MESSAGES.headers)
    row = await gateway.row()
    assert (row.outcome, row.input_tokens, row.estimated) == ("truncated", INPUT_TOKENS + CACHED_TOKENS, True)
    assert row.output_tokens is not None
    assert 1 < row.output_tokens < SAID


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500, body='{"error":{"message":"no","type":"server_error"}}'), Fault(body="not JSON"), Fault(body="{}")],
    ids=["error", "no JSON", "no answer"],
)
async def test_what_is_no_answer_has_no_usage(gateway: RunningGateway, upstream: FaultUpstream, fault: Fault) -> None:
    upstream.faults.append(fault)
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    row = await gateway.row()
    assert (row.input_tokens, row.output_tokens, row.cost_usd, row.estimated) == (None, None, None, False)


async def test_counting_tokens_uses_none(gateway: RunningGateway) -> None:
    await gateway.ask("POST", "/v1/messages/count_tokens", MESSAGES.bytes(), MESSAGES.headers)
    row = await gateway.row()
    assert (row.outcome, row.input_tokens, row.cost_usd, row.estimated) == ("ok", None, None, False)


async def test_a_translated_answer_costs_what_its_upstream_tells(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(routing={"models": {"gpt-*": "anthropic"}}, prices=PRICES)
    await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    row = await gateway.row()
    told = INPUT_TOKENS + CACHED_TOKENS
    assert (row.upstream, row.input_tokens, row.output_tokens, row.estimated) == ("anthropic", told, OUTPUT_TOKENS, False)
    assert row.cost_usd == pytest.approx((INPUT_TOKENS * 2.0 + CACHED_TOKENS * 0.5 + OUTPUT_TOKENS * 10.0) / 1e6)


async def test_prices_by_upstream(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(prices={"upstreams": {"ollama": {"models": {"*": {"input": 0, "output": 0}}}}})
    await gateway.ask("POST", OLLAMA_CHAT.path, OLLAMA_CHAT.bytes(), OLLAMA_CHAT.headers)
    assert (await gateway.row()).cost_usd == 0.0
    await gateway.ask("POST", RESPONSES.path, RESPONSES.bytes(), RESPONSES.headers)
    assert ((await gateway.row()).cost_usd or 0.0) > 0.0


async def test_prices_change_while_traffic_runs(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(prices=PRICES)
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    before = await gateway.row()
    changed = {"models": {"*": {name: usd * 2 for name, usd in PRICE.items()}}, "estimate_usage": False}
    gateway.runtime._take(gateway.settings.model_copy(update={"prices": PricesSettings.model_validate(changed)}))
    await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
    assert before.cost_usd is not None
    assert (await gateway.row()).cost_usd == pytest.approx(before.cost_usd * 2)
    await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), CHAT.headers)
    assert (await gateway.row()).input_tokens is None
