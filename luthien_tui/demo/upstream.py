"""The demo's upstream: OpenAI, Anthropic and Ollama in one server on a free port of this machine.

It speaks at human speed, thinks, calls tools, is slow at times, refuses a first try with 429, 500 and 529 where the story
says so, and ends a stream early. Deterministic by seed; it needs no key and never looks at one.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import count as counting
from random import Random
from typing import Any

from aiohttp import web

from luthien_tui.demo import stories_code, stories_home, stories_office
from luthien_tui.demo.replies import Asked, events, pieces, read_request, whole
from luthien_tui.demo.script import Reply, Story, Wire, index_replies, key_of

ALL_STORIES: tuple[Story, ...] = (*stories_code.STORIES, *stories_office.STORIES, *stories_home.STORIES)
PACE_TOKEN_S = (0.008, 0.05)
PACE_FIRST_S = (0.15, 0.9)
SLOW_FIRST_S = 5.0
MAX_BODY_BYTES = 64 * 1024 * 1024
_WIRES: dict[str, Wire] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/api/chat": "ollama",
}
_TROUBLES: dict[str, tuple[int, str, str]] = {
    "429": (429, "rate_limit_error", "Rate limit reached for this model: 40 requests per minute. Try again in 2 s."),
    "500": (500, "api_error", "The server had an error while processing your request."),
    "529": (529, "overloaded_error", "Overloaded"),
}


class DemoUpstream:
    """`pace` stretches every wait: 1 is human speed, 0 answers at once."""

    def __init__(self, *, seed: int = 7, pace: float = 1.0) -> None:
        self._random = Random(seed)  # noqa: S311 - for the pace of tokens, not for secrets
        self._pace = pace
        self._replies = index_replies(ALL_STORIES)
        self._asked: Counter[str] = Counter()
        self._numbers = counting(1)
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen; returns the base URL."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=0.2)
        self._runner = runner
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {"x-request-id": f"req_demo_{next(self._numbers):06d}", "server": "luthien-demo"}
        wire = _WIRES.get(request.path) if request.method == "POST" else None
        if wire is None:
            return await self._other(request, headers)
        try:
            body: Any = json.loads(await request.read())
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return _error(wire, 400, "invalid_request_error", "The body is not a JSON object.", headers)
        asked = read_request(wire, body)
        key = key_of(asked.text)
        reply = self._replies.get(key) or _made_up(asked.text)
        self._asked[key] += 1
        fails = self._asked[key] % 2 == 1  # so that the second try succeeds, in every round
        await self._first_wait(reply)
        if reply.trouble in _TROUBLES and fails:
            status, kind, message = _TROUBLES[reply.trouble]
            if status == 429:
                headers |= {"retry-after": "2", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}
            return _error(wire, status, kind, message, headers)
        if not asked.streamed:
            await self._speak(len(pieces(reply.text)))
            return web.json_response(whole(asked, reply, key), headers=headers)
        return await self._stream(request, asked, reply, key, headers, cut=reply.trouble == "cut" and fails)

    async def _stream(
        self, request: web.Request, asked: Asked, reply: Reply, key: str, headers: dict[str, str], *, cut: bool
    ) -> web.StreamResponse:
        kind = "application/x-ndjson" if asked.wire == "ollama" else "text/event-stream; charset=utf-8"
        response = web.StreamResponse(headers={**headers, "content-type": kind, "cache-control": "no-cache"})
        await response.prepare(request)
        every = list(events(asked, reply, key))
        for event in every[: len(every) * 2 // 3] if cut else every:
            if event.spoken:
                await self._speak(1)
            await response.write(event.data)
        await response.write_eof()
        return response

    async def _other(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        if request.path == "/v1/messages/count_tokens":
            return web.json_response({"input_tokens": len(await request.read()) // 4}, headers=headers)
        if request.path == "/v1/embeddings":
            return web.json_response(_embedding(await request.read()), headers=headers)
        names = sorted({story.model for story in ALL_STORIES})
        if request.path == "/v1/models":
            listed = [{"id": name, "object": "model", "created": 1, "owned_by": "demo"} for name in names]
            return web.json_response({"object": "list", "data": listed}, headers=headers)
        if request.path == "/api/tags":
            local = sorted({story.model for story in ALL_STORIES if story.wire == "ollama"})
            models = [{"name": name, "model": name, "size": 4_700_000_000} for name in local]
            return web.json_response({"models": models}, headers=headers)
        return _error("chat", 404, "invalid_request_error", "The demo's upstream does not have this path.", headers)

    async def _first_wait(self, reply: Reply) -> None:
        if reply.trouble == "slow":
            await asyncio.sleep(SLOW_FIRST_S * self._pace)
        await asyncio.sleep(self._random.uniform(*PACE_FIRST_S) * self._pace)

    async def _speak(self, tokens: int) -> None:
        if self._pace:
            await asyncio.sleep(tokens * self._random.uniform(*PACE_TOKEN_S) * self._pace)


def _made_up(text: str) -> Reply:
    said = " ".join(text.split())[:60] or "nothing"
    return Reply(
        f"This is the demo's upstream: no model is behind it. You said “{said}”. Your request went through luthien like any "
        "other, so you can find it on the screen, open it, and read both sides of it."
    )


def _embedding(body: bytes) -> dict[str, Any]:
    numbers = Random(body)  # noqa: S311
    vector = [round(numbers.uniform(-1, 1), 6) for _ in range(64)]
    usage = {"prompt_tokens": len(body) // 4, "total_tokens": len(body) // 4}
    return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}], "usage": usage,
            "model": "text-embedding-3-small"}  # fmt: skip


def _error(wire: Wire, status: int, kind: str, message: str, headers: dict[str, str]) -> web.Response:
    body: dict[str, Any]
    if wire == "messages":
        body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": headers["x-request-id"]}
    elif wire == "ollama":
        body = {"error": message}
    else:
        body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return web.json_response(body, status=status, headers=headers)
