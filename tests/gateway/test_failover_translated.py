"""Upstreams of another dialect that stand in: when, for whom, and what never goes to them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clients.test_translated import CALLED, CLIENTS, TARGETS
from tests.conftest import StartGateway
from tests.fault_payloads import INPUT_TOKENS, OUTPUT_TOKENS, TEXT
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, ONE_OF_EACH_DIALECT, Asking
from tests.gateway.test_fault_matrix import TIMES, TROUBLES, ask
from tests.gateway_fixtures import RunningGateway

PAIRS = [(client, there) for client in TARGETS for there in TARGETS if client != there]


@pytest.fixture
async def second() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
def start(start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream) -> Any:
    async def start(api: str, there: str, one: dict[str, Any] | None = None, **sections: Any) -> RunningGateway:
        upstreams = {
            "one": {"api": api, "base_url": upstream.url, **(one or {})},
            "two": {
                "api": there,
                "base_url": second.url,
                "api_key": "sk-two",
                "default_model": "m-there",
                "stands_in_for": [api],
                **sections.pop("two", {}),
            },
        }
        return await start_gateway(upstreams=upstreams, **sections)

    return start


def chat(text: str, **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more}).encode()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("client", "there"), PAIRS)
async def test_the_sdk_sees_nothing_of_it(
    start: Any, upstream: FaultUpstream, second: FaultUpstream, client: str, there: str, stream: bool
) -> None:
    gateway = await start(client, there)
    upstream.faults.extend([Fault(status=503), Fault(status=529)])
    called, text = await CLIENTS[client](gateway.url, stream)
    assert (called, text) == (CALLED, TEXT)
    serves_as_it_is = (client, there) == ("openai", "ollama")
    assert {one.target for one in second.exchanges} == {TARGETS[client if serves_as_it_is else there]}
    assert {one.json()["model"] for one in second.exchanges} == {"m-there"}
    assert all(b"sk-mine" not in one.head for one in second.exchanges)
    row = await gateway.row()
    assert (row.outcome, row.upstream, row.reason, row.stream) == ("ok", "two", "default,fallback_after_failure", stream)
    if not serves_as_it_is:
        assert row.input_tokens is not None
        assert row.input_tokens >= INPUT_TOKENS
        assert row.output_tokens == OUTPUT_TOKENS
        detail = await gateway.detail()
        assert detail.sent_body == second.last.body


async def test_it_comes_after_all_that_need_no_translation(
    start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream
) -> None:
    def one(api: str, at: FaultUpstream, **more: Any) -> dict[str, Any]:
        return {"api": api, "base_url": at.url, "api_key": "sk-x", **more}

    async with FaultUpstream() as third:
        gateway = await start_gateway(
            upstreams={
                "far": one("anthropic", third, priority=0, stands_in_for=["openai"]),
                "one": one("openai", upstream),
                "two": one("openai", second, priority=9),
            },
        )
        upstream.faults.append(Fault(status=503))
        assert (await gateway.ask("POST", CHAT.path, chat("hi"))).header("x-luthien-upstream") == "two"
        upstream.faults.append(Fault(status=503))
        second.faults.append(Fault(status=503))
        response = await gateway.ask("POST", CHAT.path, chat("hi"))
        assert (response.header("x-luthien-upstream"), response.header("x-luthien-attempts")) == ("far", "3")
        gateway.runtime._gateway.pool.set_state("one", "drained")
        gateway.runtime._gateway.pool.set_state("two", "drained")
        response = await gateway.ask("POST", CHAT.path, chat("hi"))
        assert response.header("x-luthien-upstream") == "far"
        assert response.header("x-luthien-reason") == "default,operator_override"
        assert third.last.target == b"/v1/messages"


async def test_what_cannot_be_said_there_stays(start: Any, upstream: FaultUpstream, second: FaultUpstream) -> None:
    gateway = await start("openai", "anthropic")
    upstream.faults.append(Fault(status=503))
    response = await gateway.ask("POST", CHAT.path, chat("hi", logit_bias={"1": 2}))
    assert (response.status, response.header("x-luthien-attempts")) == (503, "1")
    assert not second.exchanges
    gateway = await start("openai", "anthropic", routing={"on_unsupported": "drop"})
    upstream.faults.append(Fault(status=503))
    assert (await gateway.ask("POST", CHAT.path, chat("hi", logit_bias={"1": 2}))).status == 200
    assert "logit_bias" not in second.last.json()
    (moved, left_out) = (await gateway.detail()).verdicts
    assert (moved.reason, left_out.detail["lost"]) == ("fallback_after_failure", ["logit_bias"])


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/v1/files"])
async def test_what_is_not_translated_stays(start: Any, upstream: FaultUpstream, second: FaultUpstream, path: str) -> None:
    gateway = await start("openai", "anthropic", routing={"retries": {"unsafe": True}})
    upstream.faults.append(Fault(status=503))
    assert (await gateway.ask("POST", path, b'{"model":"m","input":"hi"}')).status == 503
    assert not second.exchanges


async def test_a_path_that_names_an_upstream_goes_there_or_nowhere(
    start: Any, upstream: FaultUpstream, second: FaultUpstream
) -> None:
    gateway = await start("openai", "anthropic")
    upstream.faults.append(Fault(status=503))
    assert (await gateway.ask("POST", "/one/v1/chat/completions", chat("hi"))).status == 503
    assert not second.exchanges


async def test_an_upstream_that_translates_hands_over_to_its_like_and_back(
    start_gateway: StartGateway, upstream: FaultUpstream, second: FaultUpstream
) -> None:
    """The rules send a request to an Ollama, which fails: another Ollama takes it, and where none does, its own API."""
    near = {"api": "ollama", "stands_in_for": ["anthropic"], "default_model": "m-near"}
    gateway = await start_gateway(
        upstreams={
            "cloud": {"api": "anthropic", "base_url": second.url, "api_key": "sk-x"},
            "near": {**near, "base_url": upstream.url},
            "nearer": {**near, "base_url": upstream.url},
        },
        routing={"default_provider": "near", "retries": {"max_attempts": 3}},
    )
    upstream.faults.append(Fault(status=503))
    response = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(), MESSAGES.headers)
    assert (response.status, response.header("x-luthien-upstream")) == (200, "nearer")
    upstream.faults.extend([Fault(status=503), Fault(status=503)])
    response = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(), MESSAGES.headers)
    assert (response.status, response.header("x-luthien-upstream")) == (200, "cloud")
    assert second.last.body == MESSAGES.bytes()


@pytest.mark.parametrize("trouble", [one for one in TROUBLES if not one.tls], ids=lambda one: one.name)
async def test_every_trouble(start: Any, upstream: FaultUpstream, second: FaultUpstream, trouble: Any) -> None:
    """As with a stand-in of the same dialect: one attempt at each at most, and none after the first byte."""
    place = TROUBLES.index(trouble) % 3
    asking: Asking = ONE_OF_EACH_DIALECT[place]
    there = next(one for one in TARGETS if one != asking.dialect and (asking.dialect, one) != ("openai", "ollama"))
    where = {"base_url": "http://127.0.0.1:1"} if trouble.fault is None else {}
    gateway = await start(asking.dialect, there, where, routing={"timeouts": TIMES})
    if trouble.fault is not None:
        upstream.faults.append(trouble.fault)
    status, body, whole = await ask(gateway, asking)
    whole = whole or (status == 200 and b'"done":true' in body)
    assert (len(upstream.exchanges), len(second.exchanges)) == (int(trouble.arrives), int(trouble.moves))
    row = await gateway.row_when(lambda row: row.outcome != "")
    if trouble.moves:
        assert (status, whole, row.outcome) == (200, True, "ok")
        assert (row.upstream, row.reason) == ("two", "default,fallback_after_failure")
    else:
        assert (status, whole) == (trouble.status, trouble.whole)
        assert (row.upstream, row.reason) == ("one", "default")
