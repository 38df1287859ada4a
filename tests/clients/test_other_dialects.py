"""A client whose own API has no upstream at all: what it asks is said in another dialect, and its key goes nowhere."""

from __future__ import annotations

from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.conftest import StartGateway
from tests.fault_payloads import TEXT
from tests.fault_upstream import FaultUpstream

ASK: list[Any] = [{"role": "user", "content": "What is the capital of France? 法国"}]
KEY = "sk-of-the-client-0000000000000000000000"
UPSTREAM_KEY = "sk-of-the-upstream-00000000000000000000"


async def with_openai(url: str) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as sdk:
        return (await sdk.chat.completions.create(model="m", messages=ASK)).choices[0].message.content


async def with_anthropic(url: str) -> Any:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as sdk:
        return (await sdk.messages.create(model="m", max_tokens=9, messages=ASK)).content[0].text  # type: ignore[union-attr]


async def with_ollama(url: str) -> Any:
    sdk = ollama.AsyncClient(host=url, headers={"authorization": f"Bearer {KEY}"})
    answer = await sdk.chat(model="m", messages=ASK)
    await sdk._client.aclose()
    return answer.message.content


@pytest.mark.parametrize(
    ("ask", "api"),
    [
        (with_openai, "anthropic"), (with_openai, "ollama"), (with_anthropic, "openai"), (with_anthropic, "ollama"),
        (with_ollama, "openai"), (with_ollama, "anthropic"),
    ],
)  # fmt: skip
async def test_the_clients_key_is_not_for_another_provider(
    start_gateway: StartGateway, upstream: FaultUpstream, ask: Any, api: str
) -> None:
    other = {"api": api, "base_url": upstream.url, "api_key": UPSTREAM_KEY}
    gateway = await start_gateway(upstreams={"other": other}, routing={"default_provider": "other"})
    assert await ask(gateway.url) == TEXT
    sent = upstream.last
    assert KEY.encode() not in sent.head
    assert UPSTREAM_KEY in (sent.header("authorization") or sent.header("x-api-key") or "")
    assert (sent.header("anthropic-version") is not None) == (api == "anthropic")
