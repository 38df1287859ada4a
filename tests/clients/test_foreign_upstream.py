"""The SDKs through the gateway to a mock of the providers that was written elsewhere: `@copilotkit/aimock` from npm.

Skipped where it is not installed (`npm install -g @copilotkit/aimock`); nothing is downloaded here.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.clients.test_translated import CALLED, CLIENTS
from tests.conftest import StartGateway
from tests.fault_payloads import TEXT as OUR_TEXT
from tests.fault_payloads import TOOL_ARGUMENTS, TOOL_NAME
from tests.fault_upstream import FaultUpstream
from tests.gateway_fixtures import APIS, RunningGateway

FIXTURES = {
    "fixtures": [
        {"match": {"userMessage": "Paris", "hasToolResult": True}, "response": {"content": "Sunny in Paris, 18°."}},
        {
            "match": {"userMessage": "Paris", "hasToolResult": False},
            "response": {"toolCalls": [{"name": TOOL_NAME, "arguments": json.loads(TOOL_ARGUMENTS)}]},
        },
        {
            "match": {"userMessage": "overload"},
            "response": {"error": {"message": "Overloaded", "type": "overloaded_error"}, "status": 529},
        },
        {
            "match": {"userMessage": "weather"},
            "response": {"toolCalls": [{"name": "get_weather", "arguments": {"city": "Łódź"}}]},
        },
        {"match": {"userMessage": "hello"}, "response": {"content": "Hello! 你好! How can I help you today?"}},
    ]
}
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WEATHER: list[Any] = [{"role": "user", "content": "weather"}]
TEXT = "Hello! 你好! How can I help you today?"


@pytest.fixture(scope="module")
def command() -> list[str]:
    """How to start the mock; skips where it is not there."""
    if found := shutil.which("llmock"):
        return [found]
    if npx := shutil.which("npx"):
        given = [npx, "--no-install", "--package=@copilotkit/aimock", "llmock"]
        if subprocess.run([*given, "--help"], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
            return given
    pytest.skip("@copilotkit/aimock is not installed")


@pytest.fixture
async def aimock(tmp_path: Path, command: list[str]) -> AsyncIterator[str]:
    """Where the mock listens."""
    fixtures = tmp_path / "fixtures.json"
    fixtures.write_text(json.dumps(FIXTURES))
    arguments = ["--port", "0", "--fixtures", str(fixtures), "--chunk-size", "7"]
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    try:
        said = b""
        async with asyncio.timeout(30):
            while (found := re.search(rb"listening on (http://\S+)", said)) is None:
                line = await process.stdout.readline()
                assert line, said.decode()
                said += line
        yield found[1].decode()
    finally:
        process.terminate()
        await process.communicate()


@pytest.fixture
async def mocked_gateway(start_gateway: StartGateway, aimock: str) -> RunningGateway:
    return await start_gateway(upstreams={api: {"api": api, "base_url": aimock} for api in APIS})


@pytest.mark.parametrize("stream", [False, True])
async def test_openai(mocked_gateway: RunningGateway, stream: bool) -> None:
    async with openai.AsyncOpenAI(base_url=f"{mocked_gateway.url}/v1", api_key="k", max_retries=0) as sdk:
        if stream:
            chunks = [chunk async for chunk in await sdk.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
        else:
            answer = await sdk.chat.completions.create(model="gpt-4o", messages=HELLO)
            assert answer.choices[0].message.content == TEXT
        assert (await mocked_gateway.row()).outcome == "ok"
        async with sdk.responses.stream(model="gpt-4o", input="weather") as responses:
            final = await responses.get_final_response()
        assert final.output[0].type == "function_call"
        row = await mocked_gateway.row()
        assert (row.outcome, row.operation, row.tool_calls) == ("ok", "responses", 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic(mocked_gateway: RunningGateway, stream: bool) -> None:
    async with anthropic.AsyncAnthropic(base_url=mocked_gateway.url, api_key="k", max_retries=0) as sdk:
        if stream:
            async with sdk.messages.stream(model="claude-sonnet-5", max_tokens=99, messages=WEATHER) as events:
                answer: Any = await events.get_final_message()
        else:
            answer = await sdk.messages.create(model="claude-sonnet-5", max_tokens=99, messages=WEATHER)
    assert answer.content[-1].input == {"city": "Łódź"}
    row = await mocked_gateway.row()
    assert (row.outcome, row.stop_reason, row.tool_calls, row.stream) == ("ok", "tool_use", 1, stream)


@pytest.mark.parametrize("stream", [False, True])
async def test_ollama(mocked_gateway: RunningGateway, stream: bool) -> None:
    sdk = ollama.AsyncClient(host=mocked_gateway.url)
    if stream:
        parts = [part async for part in await sdk.chat(model="llama3.2", messages=HELLO, stream=True)]
        assert "".join(part.message.content or "" for part in parts) == TEXT
    else:
        assert (await sdk.chat(model="llama3.2", messages=HELLO)).message.content == TEXT
    await sdk._client.aclose()
    row = await mocked_gateway.row()
    assert (row.outcome, row.dialect, row.stream) == ("ok", "ollama", stream)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("client", "there"), [(client, there) for client in APIS for there in APIS if client != there])
async def test_a_tool_is_called_and_answered_in_another_dialect(
    start_gateway: StartGateway, aimock: str, client: str, there: str, stream: bool
) -> None:
    upstreams = {
        client: {"api": client, "base_url": "http://127.0.0.1:1"},
        "there": {"api": there, "base_url": aimock, "api_key": "sk-house", "default_model": "m-there"},
    }
    gateway = await start_gateway(upstreams=upstreams, routing={"default_provider": "there"})
    called, text = await CLIENTS[client](gateway.url, stream)
    assert (called, text) == (CALLED, "Sunny in Paris, 18°.")
    rows = await gateway.rows()
    assert {(row.outcome, row.upstream, row.stream) for row in rows} == {("ok", "there", stream)}
    assert [row.tool_calls for row in rows] == [0, 1]


@pytest.mark.parametrize("there", ["anthropic", "ollama"])
async def test_its_failure_is_taken_over_in_another_dialect(
    start_gateway: StartGateway, aimock: str, upstream: FaultUpstream, there: str
) -> None:
    upstreams = {
        "one": {"api": "openai", "base_url": aimock},
        "two": {"api": there, "base_url": upstream.url, "api_key": "sk", "default_model": "m", "stands_in_for": ["openai"]},
    }
    gateway = await start_gateway(upstreams=upstreams)
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="k", max_retries=0) as sdk:
        messages: Any = [{"role": "user", "content": "overload"}]
        answer = await sdk.chat.completions.create(model="gpt-4o", messages=messages)
    assert answer.choices[0].message.content == OUR_TEXT
    row = await gateway.row()
    assert (row.upstream, row.reason) == ("two", "default,fallback_after_failure")
