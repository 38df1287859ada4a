"""What the official SDKs make of luthien's denials: the right exception, and no second try where none can help."""

from __future__ import annotations

from typing import Any

import anthropic
import ollama
import openai
import pytest

from proxy_core.journal.client_keys import KeyLimits
from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.test_keys import new_key, with_keys
from tests.gateway_fixtures import RunningGateway

ASK: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
NO_KEY = "lth_" + "x" * 43
STATUSES = {"key_unknown": 401, "model_not_allowed": 403, "budget_exhausted": 402, "rate_limited": 429}


async def denied(start_gateway: StartGateway, upstream: FaultUpstream, reason: str) -> tuple[RunningGateway, str]:
    """A gateway that denies for this reason, and the key to ask it with."""
    settled = {"budget_exhausted": {"agents": {"*": {"usd_per_day": 0.0}}}}
    gateway = await start_gateway(**with_keys(upstream, "gateway", limits=settled.get(reason, {})))
    limits = {"model_not_allowed": KeyLimits(models=("other",)), "rate_limited": KeyLimits(tpm=1)}
    key = await new_key(gateway, "ci", limits.get(reason))
    return gateway, NO_KEY if reason == "key_unknown" else key


async def refusals(gateway: RunningGateway, reason: str) -> int:
    rows = await gateway.rows()
    assert all((row.outcome, row.reason, row.status) == ("refused", reason, STATUSES[reason]) for row in rows[:1])
    return sum(row.outcome == "refused" for row in rows)


@pytest.mark.parametrize(
    ("reason", "fault", "code"),
    [
        ("key_unknown", openai.AuthenticationError, "invalid_api_key"),
        ("model_not_allowed", openai.PermissionDeniedError, "model_not_allowed"),
        ("budget_exhausted", openai.APIStatusError, "insufficient_quota"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_openai(
    start_gateway: StartGateway,
    upstream: FaultUpstream,
    reason: str,
    fault: type[openai.APIStatusError],
    code: str,
    stream: bool,
) -> None:
    gateway, key = await denied(start_gateway, upstream, reason)
    more: Any = {"extra_headers": {"x-luthien-agent-id": "a"}, "stream": stream}
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=3) as sdk:
        with pytest.raises(fault) as refused:
            await sdk.chat.completions.create(model="gpt-4o-mini", messages=ASK, **more)
        assert refused.value.status_code == STATUSES[reason]
        assert refused.value.code == code
        with pytest.raises(fault):
            await sdk.responses.create(model="gpt-4o-mini", input="hi", **more)
    assert await refusals(gateway, reason) == 2
    assert not upstream.exchanges


@pytest.mark.parametrize(
    ("reason", "fault", "kind"),
    [
        ("key_unknown", anthropic.AuthenticationError, "authentication_error"),
        ("model_not_allowed", anthropic.PermissionDeniedError, "permission_error"),
        ("budget_exhausted", anthropic.APIStatusError, "billing_error"),
    ],
)
async def test_anthropic(
    start_gateway: StartGateway, upstream: FaultUpstream, reason: str, fault: type[anthropic.APIStatusError], kind: str
) -> None:
    gateway, key = await denied(start_gateway, upstream, reason)
    headers = {"x-luthien-agent-id": "a"}
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=key, max_retries=3) as sdk:
        with pytest.raises(fault) as refused:
            await sdk.messages.create(model="claude-sonnet-5", max_tokens=9, messages=ASK, extra_headers=headers)
    assert refused.value.status_code == STATUSES[reason]
    body: Any = refused.value.body
    assert body["error"]["type"] == kind
    assert await refusals(gateway, reason) == 1
    assert not upstream.exchanges


@pytest.mark.parametrize("reason", ["key_unknown", "model_not_allowed"])
async def test_ollama(start_gateway: StartGateway, upstream: FaultUpstream, reason: str) -> None:
    gateway, key = await denied(start_gateway, upstream, reason)
    sdk = ollama.AsyncClient(host=gateway.url, headers={"authorization": f"Bearer {key}"})
    with pytest.raises(ollama.ResponseError) as refused:
        await sdk.chat(model="llama3.2", messages=ASK)
    assert refused.value.status_code == STATUSES[reason]
    assert "key" in refused.value.error
    await sdk._client.aclose()
    assert await refusals(gateway, reason) == 1
    assert not upstream.exchanges


async def test_a_rate_limit_is_one_to_every_sdk(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway, key = await denied(start_gateway, upstream, "rate_limited")
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as sdk:
        await sdk.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        with pytest.raises(openai.RateLimitError) as refused:
            await sdk.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["x-ratelimit-limit-tokens"] == "1"
        assert int(refused.value.response.headers["retry-after"]) > 60
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=key, max_retries=0) as sdk_of_anthropic:
        with pytest.raises(anthropic.RateLimitError):
            await sdk_of_anthropic.messages.create(model="claude-sonnet-5", max_tokens=9, messages=ASK)
    assert await refusals(gateway, "rate_limited") == 2


async def test_an_sdk_waits_as_long_as_it_is_told_and_passes(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(limits={"upstreams": {"*": {"rpm": 60}}})
    async with (
        gateway.connect() as client,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-x", max_retries=3) as sdk,
    ):
        await sdk.models.list()  # it is ready: from here on a second passes before there is room again
        status = 200
        while status == 200:
            client.request("GET", "/v1/models")
            status = (await client.response()).status
        answer = await sdk.models.with_raw_response.list()
    assert answer.status_code == 200
    assert answer.retries_taken == 1
