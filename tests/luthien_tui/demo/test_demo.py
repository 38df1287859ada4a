"""The demo plays whole stories: its upstream answers as the real APIs do, and its agents get through them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import aiohttp
import anthropic
import ollama
import openai
import pytest

from luthien_tui.demo import DemoUpstream, demo_upstreams, run_agents
from luthien_tui.demo.agents import Player
from luthien_tui.demo.script import index_replies
from luthien_tui.demo.stories_code import FLAKY_TEST, MIGRATION, RESEARCH, REVIEW
from luthien_tui.demo.stories_home import HOSTILE, RECIPES
from luthien_tui.demo.stories_office import MAIL_TRIAGE
from luthien_tui.demo.upstream import ALL_STORIES
from proxy_core.tasks import spawn


@pytest.fixture
async def demo() -> AsyncIterator[str]:
    upstream = DemoUpstream(pace=0)
    try:
        yield await upstream.start()
    finally:
        await upstream.close()


def test_stories_are_many_varied_and_each_line_has_one_answer() -> None:
    assert len(ALL_STORIES) >= 12
    assert {story.wire for story in ALL_STORIES} == {"chat", "responses", "messages", "ollama"}
    assert all(3 <= len(story.turns) <= 6 for story in ALL_STORIES if not story.part_of)
    assert {story.named for story in ALL_STORIES} == {True, False}
    index_replies(ALL_STORIES)


def test_every_delegated_story_exists() -> None:
    names = {story.name for story in ALL_STORIES}
    handed = {call.delegate for s in ALL_STORIES for t in s.turns for r in t.replies for call in r.calls if call.delegate}
    assert handed
    assert handed <= names


def test_settings_name_the_three_providers() -> None:
    upstreams = demo_upstreams("http://127.0.0.1:1")
    assert {name: one.api for name, one in upstreams.items()} == {
        "openai": "openai",
        "anthropic": "anthropic",
        "ollama": "ollama",
    }


async def test_openai_sdk_reads_a_stream_with_tool_calls(demo: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{demo}/v1", api_key="none") as client:
        question = REVIEW.turns[0]
        async with client.chat.completions.stream(
            model="gpt-4o", messages=[{"role": "user", "content": question.user}]
        ) as stream:
            answer = (await stream.get_final_completion()).choices[0]
        assert answer.finish_reason == "tool_calls"
        assert answer.message.tool_calls is not None
        assert answer.message.tool_calls[0].function.name == "get_diff"
        again = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "hello, who is there?"}]
        )
        assert "hello, who is there?" in str(again.choices[0].message.content)


async def test_responses_sdk_reads_a_stream(demo: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{demo}/v1", api_key="none") as client:
        stream = await client.responses.create(model="gpt-5-mini", input=MAIL_TRIAGE.turns[0].user, stream=True)
        last: Any = None
        async for event in stream:
            last = event
        assert last.type == "response.completed"
        assert last.response.output[0].name == "list_mail"


async def test_anthropic_sdk_reads_thinking_and_is_refused_once_with_529(demo: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=demo, api_key="none", max_retries=0) as client:
        async with client.messages.stream(
            model="claude-sonnet-5", max_tokens=100, messages=[{"role": "user", "content": FLAKY_TEST.turns[0].user}]
        ) as stream:
            message = await stream.get_final_message()
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        ask = {"role": "user", "content": MIGRATION.turns[1].user}
        with pytest.raises(anthropic.APIStatusError) as refused:
            await client.messages.create(model="m", max_tokens=9, messages=[ask])  # type: ignore[list-item]
        assert refused.value.status_code == 529
        assert (await client.messages.create(model="m", max_tokens=9, messages=[ask])).stop_reason == "tool_use"  # type: ignore[list-item]


async def test_ollama_sdk_reads_chinese(demo: str) -> None:
    client = ollama.AsyncClient(host=demo)
    asked = [{"role": "user", "content": RECIPES.turns[1].user}]
    parts = [part async for part in await client.chat(model="qwen3:8b", messages=asked, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == RECIPES.turns[1].replies[0].text
    assert parts[-1].done
    await client._client.aclose()


async def test_every_story_is_played_to_its_end(demo: str) -> None:
    statuses: Counter[int] = Counter()

    async def noted(session: aiohttp.ClientSession, context: Any, params: aiohttp.TraceRequestEndParams) -> None:
        statuses[params.response.status] += 1

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(noted)
    async with aiohttp.ClientSession(demo, trace_configs=[trace]) as http:
        for story in ALL_STORIES:
            await Player(http, Random(1), 0).play(story, f"{story.name}-1")
    assert {status for status in statuses if status >= 400} == {429, 500, 529}
    assert statuses[200] >= sum(len(story.turns) for story in ALL_STORIES)


async def test_hostile_model_says_what_a_careless_terminal_would_obey(demo: str) -> None:
    asked = {"model": "gpt-4o", "stream": False, "messages": [{"role": "user", "content": HOSTILE.turns[1].user}]}
    async with aiohttp.ClientSession(demo) as http, http.post("/v1/chat/completions", json=asked) as response:
        text = (await response.json())["choices"][0]["message"]["content"]
    for mark in ("\x1b]52;", "\x1b]0;", "\x1b[2J", "\x9b", "[@click=app.quit]", "[/nope]"):
        assert mark in text


async def test_sub_agents_work_at_the_same_time() -> None:
    upstream = DemoUpstream(pace=0.02)
    running = most = 0

    async def begun(session: Any, context: Any, params: aiohttp.TraceRequestStartParams) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)

    async def ended(session: Any, context: Any, params: Any) -> None:
        nonlocal running
        running -= 1

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(begun)
    trace.on_request_end.append(ended)
    try:
        async with aiohttp.ClientSession(await upstream.start(), trace_configs=[trace]) as http:
            await Player(http, Random(1), 0.02).play(RESEARCH, "plan-1")
    finally:
        await upstream.close()
    assert most == 3


async def test_agents_go_on_without_a_gateway_and_stop_when_cancelled() -> None:
    agents = spawn(run_agents("http://127.0.0.1:9", pace=0.01), name="agents")
    await asyncio.wait([agents], timeout=0.3)
    assert not agents.done()
    agents.cancel()
    await asyncio.wait([agents], timeout=2)
    assert agents.cancelled()
