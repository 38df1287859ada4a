"""Start and end of the command in a real terminal: keys, signals, hang-ups, taken ports, defects of the screen."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from proxy_core.tasks import spawn
from tests.luthien_tui.command import COMMAND, clean_environ, luthien
from tests.pty.conftest import chat, stream
from tests.pty.terminal import ENTER_SCREEN, Terminal

pytestmark = pytest.mark.pty
Start = Callable[..., Terminal]

CRASH_ON_DEMAND = """
from pathlib import Path
import luthien_tui.app as app
pump = app.LuthienApp.pump
def faulty(self):
    if Path("crash").exists():
        secret_in_a_local = "sk-canary-" + "7f3a19c2d4"
        raise RuntimeError("boom \\x1b]52;c;UFdO\\x07 happened")
    pump(self)
app.LuthienApp.pump = faulty
"""


async def test_start_and_quit(start: Start, client: aiohttp.ClientSession) -> None:
    async with start() as terminal:
        port = await terminal.port()
        await chat(client, port)
        await terminal.shows("gpt-4o-mini")
        terminal.send("q")
        assert await terminal.ended() == 0
        assert terminal.screen_left
        assert terminal.modes_restored
        assert terminal.after_screen.strip() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_running_stream_finish(start: Start, client: aiohttp.ClientSession, number: signal.Signals) -> None:
    async with start() as terminal:
        port = await terminal.port()
        started = asyncio.Event()
        running = spawn(stream(client, port, started), name="stream")
        await started.wait()
        terminal.signal(number)
        assert (await running).rstrip().endswith(b"data: [DONE]")
        assert await terminal.ended() == 0
        assert terminal.screen_left
        assert terminal.modes_restored


async def test_a_second_signal_forces(start: Start, client: aiohttp.ClientSession) -> None:
    async with start() as terminal:
        port = await terminal.port()
        started = asyncio.Event()
        running = spawn(stream(client, port, started, interval_s=20), name="stream")
        await started.wait()
        terminal.signal(signal.SIGTERM)
        await terminal.shows("rain")  # Draining
        terminal.signal(signal.SIGTERM)
        assert await terminal.ended() == 0
        assert terminal.screen_left
        assert terminal.after_screen.strip() == ""
        assert b"luthien was stopped" in await running


async def test_a_screen_that_no_longer_reacts_is_ended_by_the_third_signal(start: Start) -> None:
    deaf = "import luthien_tui.app as app\napp.LuthienApp.begin_shutdown_from_signal = lambda self, name: None"
    async with start(patch=deaf) as terminal:
        await terminal.port()
        for _ in range(3):
            terminal.signal(signal.SIGTERM)
            await asyncio.sleep(0.05)  # signals of one kind that wait are one
        assert await terminal.ended() == 0
        assert terminal.screen_left
        assert terminal.modes_restored


async def test_a_closed_terminal_drains_and_stops(start: Start, client: aiohttp.ClientSession) -> None:
    async with start() as terminal:
        port = await terminal.port()
        started = asyncio.Event()
        running = spawn(stream(client, port, started), name="stream")
        await started.wait()
        terminal.hang_up()
        terminal.signal(signal.SIGHUP)  # some systems tell twice, which is not a second wish to end
        assert (await running).rstrip().endswith(b"data: [DONE]")
        assert await terminal.ended() == 0


async def test_being_told_to_go_on_without_a_stop_changes_nothing(start: Start) -> None:
    async with start() as terminal:
        await terminal.port()
        for _ in range(5):
            terminal.signal(signal.SIGCONT)
            await asyncio.sleep(0.03)
        terminal.send("q")
        assert await terminal.ended() == 0
        assert terminal.screen_left


async def test_a_closed_terminal_goes_on_headless_as_configured(start: Start, client: aiohttp.ClientSession) -> None:
    async with start(LUTHIEN_UI__ON_CLOSE="headless") as terminal:
        port = await terminal.port()
        started = asyncio.Event()
        running = spawn(stream(client, port, started), name="stream")
        await started.wait()
        terminal.hang_up()
        assert (await running).rstrip().endswith(b"data: [DONE]")
        assert b"chat.completion" in await chat(client, port)
        assert terminal.process.poll() is None
        terminal.signal(signal.SIGTERM)
        assert await terminal.ended() == 0


async def test_a_crashed_screen_stops_in_order(start: Start, client: aiohttp.ClientSession, tmp_path: Path) -> None:
    async with start(patch=CRASH_ON_DEMAND) as terminal:
        port = await terminal.port()
        started = asyncio.Event()
        running = spawn(stream(client, port, started), name="stream")
        await started.wait()
        (tmp_path / "crash").touch()
        assert (await running).rstrip().endswith(b"data: [DONE]")
        assert await terminal.ended() == 1
        assert terminal.screen_left
        assert terminal.modes_restored
        assert "the screen ended by a defect" in terminal.after_screen
        assert "canary" not in terminal.text
        assert b"\x1b]52" not in terminal.output


async def test_a_crashed_screen_goes_on_headless_as_configured(
    start: Start, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with start(patch=CRASH_ON_DEMAND, LUTHIEN_UI__ON_CLOSE="headless") as terminal:
        port = await terminal.port()
        await chat(client, port)
        (tmp_path / "crash").touch()
        await terminal.shows("the gateway goes on at http://127.0.0.1")
        assert terminal.screen_left
        assert terminal.modes_restored
        assert b"chat.completion" in await chat(client, port)
        terminal.send("\x03")
        assert await terminal.ended() == 0
    assert "boom" in (tmp_path / "data" / "logs" / "luthien.log").read_text()


async def test_a_taken_port_is_one_line_and_no_screen(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with start("--port", str(port)) as terminal:
            assert await terminal.ended() == 3
            assert ENTER_SCREEN not in terminal.output
            assert terminal.text.count("\n") == 1
            assert terminal.text.startswith(f"luthien: cannot listen on 127.0.0.1:{port}")


async def test_ctrl_c_ends_the_gateway_alone(start: Start, client: aiohttp.ClientSession) -> None:
    async with start("--no-ui") as terminal:
        port = await terminal.port()
        await chat(client, port)
        assert terminal.text.count("\n") == 1
        assert terminal.text.startswith(f"luthien: serving on http://127.0.0.1:{port} (")
        terminal.send("\x03")
        assert await terminal.ended() == 0
        assert ENTER_SCREEN not in terminal.output


async def test_ctrl_c_before_serving_is_130(start: Start, tmp_path: Path) -> None:
    patch = """
import asyncio, pathlib
from proxy_core.runtime import GatewayRuntime
async def never(self):
    pathlib.Path("starting").touch()
    await asyncio.Event().wait()
GatewayRuntime.start = never
"""
    async with start("--no-ui", patch=patch) as terminal:
        await terminal.until((tmp_path / "starting").exists)
        terminal.send("\x03")
        assert await terminal.ended() == 130
        assert "Traceback" not in terminal.text


async def test_a_dumb_terminal_gets_one_line(start: Start) -> None:
    terminal = start()
    terminal.environ["TERM"] = "dumb"
    async with terminal:
        await terminal.shows("no screen: TERM is dumb")
        assert terminal.text.count("\n") == 1
        assert b"\x1b" not in terminal.output
        terminal.send("\x03")
        assert await terminal.ended() == 0


async def test_small_terminals_say_what_they_need(start: Start, client: aiohttp.ClientSession) -> None:
    async with start(size=(40, 10)) as terminal:
        await terminal.shows("60")
        terminal.send("q")
        assert await terminal.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_without_a_terminal_it_serves_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--port",
        "0",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=clean_environ(tmp_path),
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
        assert line.startswith("luthien: serving on http://127.0.0.1:")
        assert "no screen: stdin is not one" in line
        process.send_signal(number)
        said = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0
    assert said == (b"", b"")


def test_no_screen_where_one_is_asked_for_is_exit_2(tmp_path: Path) -> None:
    result = luthien(tmp_path, "--ui")
    assert result.returncode == 2
    assert result.stderr.startswith("luthien: --ui needs a terminal")


async def test_the_demo_works_without_anything_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    async with start("demo", TMPDIR=str(temporary), OPENAI_API_KEY="sk-canary-7f3a19c2d4") as terminal:
        await terminal.shows("DEMO")
        await terminal.shows("claude-")
        await terminal.shows("allow")
        assert list(temporary.iterdir())
        terminal.signal(signal.SIGTERM)
        assert await terminal.ended() == 0
        assert terminal.screen_left
        assert terminal.after_screen.strip() == ""
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "data").exists()
