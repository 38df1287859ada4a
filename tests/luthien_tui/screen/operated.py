"""The screen over a gateway that serves, its pump turned by the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from luthien_tui.app import LuthienApp
from luthien_tui.textual_compat import screen_lines
from proxy_core.settings import UiSettings
from tests.gateway_fixtures import RunningGateway
from tests.luthien_tui.screen.console import NORMAL, sample_logs


class Operated:
    """A screen over a real gateway, its pump turned by the test."""

    def __init__(self, app: LuthienApp, pilot: Any) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def text(self) -> str:
        return "\n".join(screen_lines(self.app))

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("it never came to hold:\n" + self.text)
            self.app._frame = 0
            self.app.pump()
            await self.pilot.pause()
            await asyncio.sleep(0.01)

    async def see(self, text: str) -> None:
        await self.until(lambda: text in self.text)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        self.app.pump()
        await self.pilot.pause()


@asynccontextmanager
async def operated(gateway: RunningGateway, size: tuple[int, int] = NORMAL) -> AsyncIterator[Operated]:
    app = LuthienApp(
        gateway.plane,
        ui=UiSettings(),
        logs=sample_logs(),
        begin_shutdown=lambda: None,
        wait_closed=asyncio.Event().wait,  # type: ignore[arg-type]
        auto_pump=False,
    )
    async with app.run_test(size=size, notifications=True) as pilot:
        yield Operated(app, pilot)
