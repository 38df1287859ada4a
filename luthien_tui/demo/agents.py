"""The demo's agents: they play the stories through a gateway, over and over, until they are cancelled.

Some say who they are in headers; the others can only be told by what they send. They wait when told to retry later, run tools,
hand work to sub-agents that run at the same time, and one hangs up in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

import aiohttp

from luthien_tui.demo.script import Reply, Story, call_id, key_of, results_key
from luthien_tui.demo.upstream import ALL_STORIES

PAUSE_BETWEEN_TURNS_S = (0.8, 4.0)
PAUSE_BETWEEN_STORIES_S = (3.0, 9.0)
TOOL_TAKES_S = (0.2, 1.5)
ATTEMPTS = 3
HANGS_UP_AFTER_CHUNKS = 12
_PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "ollama": "/api/chat",
}


async def run_agents(base_url: str, *, seed: int = 7, pace: float = 1.0) -> None:
    """Play until cancelled. `pace` stretches every pause; 0 leaves none out of a story but the network's own."""
    by_agent: dict[str, list[Story]] = defaultdict(list)
    for story in ALL_STORIES:
        if not story.part_of:
            by_agent[story.agent].append(story)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=120)
    async with aiohttp.ClientSession(base_url, timeout=timeout) as http, asyncio.TaskGroup() as group:
        for number, (agent, stories) in enumerate(by_agent.items()):
            player = Player(http, Random(seed * 1000 + number), pace)  # noqa: S311 - pauses, not secrets
            group.create_task(player.play_forever(stories, number), name=f"demo-agent-{agent}")


class Player:
    """One agent at work."""

    def __init__(self, http: aiohttp.ClientSession, random: Random, pace: float) -> None:
        self._http = http
        self._random = random
        self._pace = pace

    async def play_forever(self, stories: Sequence[Story], number: int) -> None:
        await asyncio.sleep(number * 0.7 * self._pace)
        round_number = 1
        while True:
            for story in stories:
                try:
                    await self.play(story, f"{story.name}-{round_number}", round_number)
                except* (aiohttp.ClientError, TimeoutError):
                    await asyncio.sleep(max(0.05, 2 * self._pace))  # the gateway said no, or is gone: begin the next one
                await self._pause(PAUSE_BETWEEN_STORIES_S)
            round_number += 1

    async def play(self, story: Story, session: str, round_number: int = 1, *, parent: str = "") -> None:
        """One conversation from its first message to its last. Raises aiohttp.ClientError where it cannot go on.

        From the second round on its first message says which one it is, so that it is not taken for the one before. `parent`:
        the session that it is a sub-agent of.
        """
        headers = {"authorization": "Bearer demo", "user-agent": f"demo-{story.agent}/1.0"}
        if story.wire == "messages":
            headers = {"x-api-key": "demo", "anthropic-version": "2023-06-01", "user-agent": f"demo-{story.agent}/1.0"}
        if story.named:
            headers |= {"x-luthien-agent-id": story.agent, "x-luthien-session-id": session}
            headers |= {"x-luthien-tags": story.tags} if story.tags else {}
            headers |= {"x-luthien-parent-session-id": parent} if parent else {}
        history: list[dict[str, Any]] = []
        if story.first:
            await self._ask_first(story, headers)
        for index, one in enumerate(story.turns):
            reference = f"[{round_number}] " if index == 0 and round_number > 1 else ""
            before = len(history)
            history.append({"role": "user", "content": reference + one.user})
            key = key_of(one.user)
            for number, reply in enumerate(one.replies):
                last = number == len(one.replies) - 1
                whole = await self._ask(story, headers, history, hang_up=one.interrupted and last)
                if not whole:
                    del history[before:]  # nothing was understood: the next turn asks in its place
                    break
                await self._use_tools(reply, session, round_number)
                key = _remember(story, history, reply, key)
            await self._pause(PAUSE_BETWEEN_TURNS_S)

    async def _use_tools(self, reply: Reply, session: str, round_number: int) -> None:
        if not reply.calls:
            return
        await self._pause(TOOL_TAKES_S)
        handed = {one.delegate for one in reply.calls if one.delegate}
        async with asyncio.TaskGroup() as group:
            for story in ALL_STORIES:
                if story.name in handed:
                    helper = Player(self._http, Random(self._random.random()), self._pace)  # noqa: S311
                    name = f"{session}/{story.name.removeprefix('sub-')}"
                    group.create_task(helper.play(story, name, round_number, parent=session), name=f"demo-agent-{story.agent}")

    async def _ask(self, story: Story, headers: dict[str, str], history: list[dict[str, Any]], *, hang_up: bool) -> bool:
        """Ask until there is a whole answer; False where there is none. Raises aiohttp.ClientError where it cannot go on."""
        body = _request_body(story, history)
        for attempt in range(1, ATTEMPTS + 1):
            async with self._http.post(_PATHS[story.wire], json=body, headers=headers) as response:
                if response.status >= 400:
                    wait_s = float(response.headers.get("retry-after", attempt))
                    await response.read()
                    if attempt == ATTEMPTS or (response.status < 500 and response.status != 429):
                        response.raise_for_status()
                    await asyncio.sleep(wait_s * self._pace)
                    continue
                chunks = 0
                ended = b""
                async for chunk in response.content.iter_any():
                    chunks += 1
                    ended = (ended + chunk)[-4096:]
                    if hang_up and chunks >= HANGS_UP_AFTER_CHUNKS:
                        response.close()
                        return False
                if not story.streamed or any(mark in ended for mark in _TERMINATORS):
                    return True
        return False

    async def _ask_first(self, story: Story, headers: dict[str, str]) -> None:
        if story.first.endswith("count_tokens"):
            history = [{"role": "user", "content": story.turns[0].user}]
            body = {"model": story.model, "system": story.system, "messages": history}
            async with self._http.post(story.first, json=body, headers=headers) as response:
                await response.read()
        else:
            async with self._http.get(story.first, headers=headers) as response:
                await response.read()

    async def _pause(self, between_s: tuple[float, float]) -> None:
        await asyncio.sleep(self._random.uniform(*between_s) * self._pace)


_TERMINATORS = (b"data: [DONE]", b'"message_stop"', b'"response.completed"', b'"done": true', b'"done":true')


def _request_body(story: Story, history: list[dict[str, Any]]) -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": True}
    body: dict[str, Any] = {"model": story.model, "stream": story.streamed}
    if story.wire == "messages":
        tools = [{"name": name, "description": text, "input_schema": schema} for name, text in story.tools.items()]
        body |= {"max_tokens": 4096, "system": story.system, "messages": history}
    elif story.wire == "responses":
        tools = [
            {"type": "function", "name": name, "description": text, "parameters": schema} for name, text in story.tools.items()
        ]
        body |= {"instructions": story.system, "input": history}
    else:
        functions = [{"name": name, "description": text, "parameters": schema} for name, text in story.tools.items()]
        tools = [{"type": "function", "function": one} for one in functions]
        body |= {"messages": [{"role": "system", "content": story.system}, *history]}
        if story.wire == "chat" and story.streamed:
            body["stream_options"] = {"include_usage": True}
    return {**body, "tools": tools} if tools else body


def _remember(story: Story, history: list[dict[str, Any]], reply: Reply, key: str) -> str:
    """Append what the model said and what the tools answered; returns the key of the reply to come."""
    ids = [call_id(key, number) for number in range(len(reply.calls))]
    texts = [json.dumps(one.arguments, ensure_ascii=False) for one in reply.calls]
    calls = list(zip(ids, reply.calls, texts, strict=True))
    if story.wire == "messages":
        content: list[dict[str, Any]] = []
        if reply.thinking:
            content.append({"type": "thinking", "thinking": reply.thinking, "signature": call_id(key, 98)})
        if reply.text:
            content.append({"type": "text", "text": reply.text})
        content += [{"type": "tool_use", "id": f"toolu_{one}", "name": c.name, "input": c.arguments} for one, c, _ in calls]
        history.append({"role": "assistant", "content": content})
        if calls:
            results = [{"type": "tool_result", "tool_use_id": f"toolu_{one}", "content": c.result} for one, c, _ in calls]
            history.append({"role": "user", "content": results})
    elif story.wire == "responses":
        if reply.text:
            history.append({"role": "assistant", "content": reply.text})
        for one, c, text in calls:
            history.append({"type": "function_call", "call_id": f"call_{one}", "name": c.name, "arguments": text})
        history += [{"type": "function_call_output", "call_id": f"call_{one}", "output": c.result} for one, c, _ in calls]
    else:
        said: dict[str, Any] = {"role": "assistant", "content": reply.text}
        if calls:
            functions = [(one, {"name": c.name, "arguments": text}) for one, c, text in calls]
            said["tool_calls"] = [{"id": one, "type": "function", "function": function} for one, function in functions]
        history.append(said)
        history += [{"role": "tool", "tool_call_id": one, "content": c.result} for one, c, _ in calls]
    return results_key(one.result for one in reply.calls)
