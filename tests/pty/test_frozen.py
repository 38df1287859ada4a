"""A terminal that nobody reads costs no request anything."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from proxy_core.tasks import spawn
from tests.pty.conftest import chat, stream
from tests.pty.terminal import Terminal

pytestmark = pytest.mark.pty

FROZEN_S = 4.0
LIMIT_MS = 1_500.0 if "PYTEST_XDIST_WORKER" in os.environ else 250.0
"""On a quiet machine the slowest takes less than 50 ms, beside other tests some hundred; a loop that waits for the terminal takes
seconds."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Client and upstream live in this process, whose own collections of 50 ms say nothing about the gateway."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_a_frozen_terminal_slows_no_request(start: Callable[..., Terminal], client: aiohttp.ClientSession) -> None:
    async with start() as terminal:
        port = await terminal.port()
        for _ in range(20):
            await chat(client, port)
        await terminal.shows("gpt-4o-mini")
        terminal.freeze()
        slowest = 0.0
        count = 0
        until = time.monotonic() + FROZEN_S
        while time.monotonic() < until:
            before = time.perf_counter()
            await chat(client, port)
            slowest = max(slowest, (time.perf_counter() - before) * 1000)
            count += 1
            await asyncio.sleep(0.005)
        terminal.thaw()
        seen = len(terminal.output)
        await terminal.until(lambda: len(terminal.output) > seen)
        terminal.send("q")
        assert await terminal.ended() == 0
        assert terminal.screen_left
    assert count > 100
    assert slowest < LIMIT_MS, f"{slowest:.0f} ms of {count} requests"


async def test_a_frozen_terminal_does_not_keep_the_gateway_from_ending(
    start: Callable[..., Terminal], client: aiohttp.ClientSession
) -> None:
    async with start() as terminal:
        port = await terminal.port()
        terminal.freeze()
        started = asyncio.Event()
        running = spawn(stream(client, port, started), name="stream")
        await started.wait()
        for _ in range(50):
            await chat(client, port)
        terminal.signal(signal.SIGTERM)
        assert (await running).rstrip().endswith(b"data: [DONE]")
        assert await terminal.ended() == 0
