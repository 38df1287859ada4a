"""The command in a terminal, in front of an upstream that can misbehave."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fault_upstream import FaultUpstream
from tests.luthien_tui.command import COMMAND, clean_environ
from tests.pty.terminal import Terminal

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(autouse=True)
def hang_up_is_not_ignored() -> Iterator[None]:
    """A test run under nohup hands its deafness down, and luthien respects that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
async def upstream() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, upstream: FaultUpstream) -> Callable[..., Terminal]:
    """Make a terminal that runs `luthien` on a free port; `patch` is Python that runs before it, in the same process."""

    def make(*arguments: str, patch: str = "", size: tuple[int, int] = (120, 36), **environ: str) -> Terminal:
        command = [*COMMAND]
        if patch:
            program = f"{patch}\nfrom luthien_tui.cli import main\nmain()\n"
            command = [sys.executable, "-c", program]
        if "--port" not in arguments:
            arguments = ("--port", "0", "--control-port", "0", *arguments)
        settings = {"LLM_BASE_URL": upstream.url, "LLM_TYPE": "openai"}
        return Terminal([*command, *arguments], clean_environ(tmp_path, **settings, **environ), folder=tmp_path, size=size)

    return make


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def chat(client: aiohttp.ClientSession, port: int, **more: Any) -> bytes:
    """One chat completion through the gateway; the body."""
    headers = more.pop("headers", {})
    async with client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=CHAT | more, headers=headers) as answer:
        body = await answer.read()
        assert answer.status == 200, body
        return body


async def stream(client: aiohttp.ClientSession, port: int, started: asyncio.Event, interval_s: float = 0.15) -> bytes:
    """One streamed completion; `started` is set at its first piece."""
    fault = {"x-fault": json.dumps({"interval_s": interval_s})}
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with client.post(url, json=CHAT | {"stream": True}, headers=fault) as answer:
        body = b""
        async for piece in answer.content.iter_any():
            body += piece
            started.set()
        return body
