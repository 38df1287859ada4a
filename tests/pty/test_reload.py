"""SIGHUP and the configuration file while the command runs: read again, or the end, as the terminal's fate tells."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fault_upstream import FaultUpstream
from tests.luthien_tui.command import COMMAND, clean_environ
from tests.pty.conftest import chat
from tests.pty.terminal import Terminal

pytestmark = pytest.mark.pty
Start = Callable[..., Terminal]


def replacing(word: str) -> str:
    return f"""
policies:
  - use: string_replacement
    params:
      replacements: [["chat.completion", "x"], ["Hello", "{word}"]]
      apply_to: request
"""


class Served:
    """The command without a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self.log = folder / "data" / "logs" / "luthien.log"

    async def logs(self, text: str) -> str:
        """The log, as soon as it has `text`."""
        async with asyncio.timeout(30):
            while text not in (found := self.log.read_text() if self.log.exists() else ""):
                await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def served(folder: Path, upstream: FaultUpstream, *arguments: str, **environ: str) -> AsyncIterator[Served]:
    """`environ` in place of variables that name the upstream."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--port", "0", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=clean_environ(folder, **(environ or {"LLM_BASE_URL": upstream.url, "LLM_TYPE": "openai"})),
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
        port = int(line.partition("http://127.0.0.1:")[2].split()[0])
        yield Served(process, port, folder)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def asked_for(upstream: FaultUpstream, client: aiohttp.ClientSession, port: int) -> str:
    """What the upstream got to read, of a request that says Hello."""
    await chat(client, port)
    return upstream.last.body.decode()


async def test_without_a_terminal_sighup_reads_the_file_again(
    tmp_path: Path, upstream: FaultUpstream, client: aiohttp.ClientSession
) -> None:
    file = tmp_path / "luthien.yaml"
    file.write_text(replacing("Bonjour"))
    async with served(tmp_path, upstream, "--config", "luthien.yaml") as gateway:
        assert "Bonjour" in await asked_for(upstream, client, gateway.port)
        file.write_text(replacing("Ciao"))
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.logs("luthien.yaml changed string_replacement")
        assert "Ciao" in await asked_for(upstream, client, gateway.port)
        file.write_text(replacing("Servus").replace("apply_to: request", "apply_to: nowhere"))
        gateway.process.send_signal(signal.SIGHUP)
        said = await gateway.logs("was not taken")
        assert "policies[0].params.apply_to (file luthien.yaml:6): " in said
        assert "Ciao" in await asked_for(upstream, client, gateway.port)


async def test_a_changed_file_changes_routing_by_itself_and_a_bad_one_does_not(
    tmp_path: Path, upstream: FaultUpstream, client: aiohttp.ClientSession
) -> None:
    file = tmp_path / "luthien.yaml"
    file.write_text("routing:\n  sensitivity: {keywords: [a]}\n")

    async def rules(port: int) -> dict[str, Any]:
        async with client.get(f"http://127.0.0.1:{port}/v1/routes") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async with served(tmp_path, upstream, "--config", "luthien.yaml") as gateway:
        assert (await rules(gateway.port))["sensitivity_keyword_count"] == 1
        file.write_text("routing:\n  sensitivity: {keywords: [a, b]}\n  cost: {max_prompt_length_for_local: 7}\n")
        await gateway.logs("luthien.yaml changed routing: ")
        found = await rules(gateway.port)
        assert (found["sensitivity_keyword_count"], found["cost_max_prompt_length_for_local"]) == (2, 7)
        async with client.get(f"http://127.0.0.1:{gateway.port}/config") as answer:
            shown = await answer.json()
        assert shown["routing"]["sensitivity"]["keywords"] == ["[set]", "[set]"]
        file.write_text("routing:\n  sensitivity: {keywords: [a]}\n  coast: {max_prompt_length_for_local: 7}\n")
        said = await gateway.logs("was not taken")
        assert "unknown setting routing.coast (file luthien.yaml:3); did you mean cost?" in said
        assert await rules(gateway.port) == found


async def test_without_a_file_sighup_changes_nothing(
    tmp_path: Path, upstream: FaultUpstream, client: aiohttp.ClientSession
) -> None:
    async with served(tmp_path, upstream) as gateway:
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.logs("nothing in it has changed")
        assert "Hello" in await asked_for(upstream, client, gateway.port)


async def test_in_a_living_terminal_sighup_reads_the_file_again(
    start: Start, client: aiohttp.ClientSession, upstream: FaultUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "luthien.yaml"
    file.write_text(replacing("Bonjour"))
    log = tmp_path / "data" / "logs" / "luthien.log"
    async with start("--no-ui", LUTHIEN_CONFIG="luthien.yaml") as terminal:
        port = await terminal.port()
        file.write_text(replacing("Ciao"))
        terminal.signal(signal.SIGHUP)
        await terminal.until(lambda: "luthien.yaml changed string_replacement" in log.read_text())
        assert "Ciao" in await asked_for(upstream, client, port)
        terminal.send("\x03")
        assert await terminal.ended() == 0


async def test_with_a_screen_sighup_leaves_the_screen(start: Start, client: aiohttp.ClientSession, tmp_path: Path) -> None:
    log = tmp_path / "data" / "logs" / "luthien.log"
    async with start() as terminal:
        port = await terminal.port()
        terminal.signal(signal.SIGHUP)
        await terminal.until(lambda: "nothing in it has changed" in log.read_text())
        await chat(client, port)
        await terminal.shows("gpt-4o-mini")
        terminal.send("q")
        assert await terminal.ended() == 0


async def test_headless_in_a_terminal_that_goes_away_it_ends(start: Start, client: aiohttp.ClientSession) -> None:
    async with start("--no-ui") as terminal:
        port = await terminal.port()
        await chat(client, port)
        terminal.hang_up()
        assert await terminal.ended() == 0
