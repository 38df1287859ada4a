"""What an SDK sends reaches the upstream the same through the gateway as without it, header by header and byte by byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.fault_upstream import Exchange, FaultUpstream
from tests.gateway_fixtures import RunningGateway

ASK: list[Any] = [{"role": "user", "content": "Où est la gare ? 駅はどこ"}]
OF_THE_HOP = (b"host", b"connection")


async def with_openai(root: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{root}/v1", api_key="sk-x", organization="org-1") as sdk:
        await sdk.chat.completions.create(model="gpt-4o", messages=ASK, extra_body={"new_field": [None, 1.0]})
        async for _ in await sdk.responses.create(model="gpt-4o", input="hi", stream=True):
            pass
        await sdk.files.create(file=("ä.txt", b"\x00\x01"), purpose="assistants", extra_headers={"X-Odd": "Value, other"})


async def with_anthropic(root: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=root, api_key="sk-ant-x") as sdk:
        await sdk.messages.create(model="claude-sonnet-5", max_tokens=9, messages=ASK, extra_query={"beta": "true"})
        await sdk.messages.count_tokens(model="claude-sonnet-5", messages=ASK)


async def with_ollama(root: str) -> None:
    sdk = ollama.AsyncClient(host=root)
    await sdk.chat(model="llama3.2", messages=ASK, options={"temperature": 0})
    await sdk.list()
    await sdk._client.aclose()


@pytest.mark.parametrize("use", [with_openai, with_anthropic, with_ollama])
async def test_requests_arrive_as_they_were_sent(
    gateway: RunningGateway, upstream: FaultUpstream, use: Callable[[str], Awaitable[None]]
) -> None:
    await use(upstream.url)
    direct = upstream.exchanges[:]
    upstream.exchanges.clear()
    await use(gateway.url)
    assert [_seen(one) for one in upstream.exchanges] == [_seen(one) for one in direct]


def _seen(exchange: Exchange) -> tuple[str, bytes, list[tuple[bytes, bytes]], bytes]:
    """All of a request but what belongs to the hop; boundaries of multipart bodies are drawn anew each time."""
    boundary = next((value.partition(b"boundary=")[2] for _, value in exchange.headers if b"boundary=" in value), b"")
    headers = [(name.lower(), value) for name, value in exchange.headers if name.lower() not in OF_THE_HOP]
    body = exchange.body
    if boundary:
        headers = [(name, value.replace(boundary, b"-")) for name, value in headers]
        body = body.replace(boundary, b"-")
    return exchange.method, exchange.target, sorted(headers), body
