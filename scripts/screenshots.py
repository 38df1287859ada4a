"""Takes the pictures in screenshots/ from the running demo: `python scripts/screenshots.py`.

The whole thing runs: built-in upstream, gateway, agents, screen; only the terminal is Textual's own off-screen one.
Fonts are left to the viewer, so that a picture loads nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from luthien_tui.app import LuthienApp
from luthien_tui.commands.demo import DemoAgents, usual_or_free_port
from proxy_core.control.rows import TransactionRow
from proxy_core.logs import LogRing
from proxy_core.runtime import GatewayRuntime
from proxy_core.settings import ServerSettings, Settings

FOLDER = Path(__file__).resolve().parent.parent / "screenshots"
SIZE = (120, 36)
ROWS = 60
"""Transactions to wait for before the picture is taken."""


async def take(folder: Path) -> None:
    """Write screenshots/live.svg."""
    settings = Settings(server=ServerSettings(port=usual_or_free_port(None), drain_s=1))
    agents = DemoAgents()
    settings = await agents.prepare(settings)
    runtime = GatewayRuntime(settings, data_dir=folder, demo=True)
    await runtime.start()
    app = LuthienApp(
        runtime.plane, ui=settings.ui, logs=LogRing(), begin_shutdown=runtime.begin_shutdown, wait_closed=runtime.wait_closed
    )
    async with app.run_test(size=SIZE) as pilot:
        agents.begin(runtime.address)
        while runtime.plane.state().total < ROWS:
            await pilot.pause(0.2)
        while not _worth_seeing(app.rows.shown[-8:]):
            await pilot.pause(0.1)
        await pilot.press("enter")
        for _ in range(_steps_up(app.rows.shown)):
            await pilot.press("k")
        await pilot.pause(0.4)
        _write("live.svg", app.export_screenshot(title="luthien"))
    agents.leave()
    runtime.begin_shutdown()
    runtime.begin_shutdown()
    await runtime.wait_closed()
    await agents.end()


def _worth_seeing(rows: list[TransactionRow]) -> bool:
    """Streams under way, something that went wrong, and an answer that calls a tool."""
    streaming = any(row.state == "streaming" for row in rows)
    called = any(row.state == "done" and row.tool_calls for row in rows)
    return streaming and called and any(row.outcome == "error" for row in rows)


def _steps_up(rows: list[TransactionRow]) -> int:
    """From the newest row to the newest whole answer with a tool call."""
    return next(steps for steps, row in enumerate(reversed(rows)) if row.state == "done" and row.tool_calls)


def _write(name: str, picture: str) -> None:
    picture = re.sub(r"@font-face\s*\{.*?\}", "", picture, flags=re.DOTALL)
    picture = picture.replace("font-family: Fira Code, monospace", "font-family: ui-monospace, Menlo, Consolas, monospace")
    if found := set(re.findall(r"https?://(?!www\.w3\.org/|www\.textualize\.io)[^\s\"'<)]+", picture)):
        print(f"{name} names other places: {sorted(found)[:3]}", file=sys.stderr)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(picture, "utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="luthien-screenshots-") as temporary:
        asyncio.run(take(Path(temporary)))
