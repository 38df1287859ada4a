"""The app under test, driven by keys and by a frame pump that the test turns by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.segment import Segment
from textual.pilot import Pilot

from luthien_tui.app import LuthienApp
from luthien_tui.textual_compat import screen_lines
from proxy_core.settings import UiSettings
from tests.luthien_tui.fake_plane import FakeLogs, FakePlane

SMALL = (80, 24)
NORMAL = (120, 36)
WIDE = (180, 40)
RESTING_FRAMES = 4
"""Equal frames after which a screen is taken to be at rest."""
SIZES = {"80x24": SMALL, "120x36": NORMAL}
KEYS = {" ": "space", ":": "colon", ">": "greater_than_sign", "<": "less_than_sign", "*": "asterisk", "=": "equals_sign",
        "-": "minus", "(": "left_parenthesis", ")": "right_parenthesis", '"': "quotation_mark",
        "/": "slash", ".": "full_stop", "_": "underscore"}  # fmt: skip


def sample_logs() -> FakeLogs:
    logs = FakeLogs()
    logs.add("INFO", "proxy_core.server", "serving on http://127.0.0.1:4000")
    logs.add("WARNING", "proxy_core.routing.transport", "upstream openai: connection reset, tried again on a new one")
    logs.add(
        "ERROR", "proxy_core.journal.writer", "the store does not answer: disk is full; records go to the spool until it does"
    )
    return logs


class Ending:
    """Stands for the gateway's shutdown: it is closed when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.closed = asyncio.Event()

    def begin(self) -> None:
        self.asked += 1

    async def wait(self) -> None:
        await self.closed.wait()


class Console:
    """One running app."""

    def __init__(self, app: LuthienApp, plane: FakePlane, ending: Ending, pilot: Pilot[None]) -> None:
        self.app = app
        self.plane = plane
        self.ending = ending
        self.pilot = pilot

    async def frame(self) -> None:
        """Let the app look at the gateway once, and draw."""
        self.app._frame = 0
        self.app.pump()
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.frame()

    async def type(self, text: str) -> None:
        await self.pilot.press(*[KEYS.get(letter, letter) for letter in text])
        await self.frame()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Draw frames until something holds."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if condition():
                await self.frame()
                return
            await asyncio.sleep(0.005)
            await self.frame()
        raise AssertionError("it never came to hold:\n" + self.text)

    async def settle(self) -> None:
        """Draw frames until the same is drawn again and again: no text is on its way, and nothing is being laid out."""
        drawn: list[list[Segment]] = []

        def is_at_rest() -> bool:
            drawn.append(self.segments)
            return len(drawn) >= RESTING_FRAMES and all(each == drawn[-1] for each in drawn[-RESTING_FRAMES:])

        await self.until(is_at_rest)

    async def see(self, text: str) -> None:
        """Draw frames until the screen shows `text`."""
        await self.until(lambda: text in self.text)

    async def open(self, transaction_id: str, tab: str = "Summary") -> None:
        """Open a transaction at one of its tabs and wait for its text."""
        self.app.live.table.select(transaction_id)
        await self.press("enter")
        detail = self.app.live.detail
        if tab != "Summary":
            detail.show_tab(tab)
        await self.until(lambda: not detail._loading and len(detail.body.document) > 0)

    @property
    def lines(self) -> list[str]:
        return screen_lines(self.app)

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def segments(self) -> list[Segment]:
        """Everything that is drawn now, as it goes to the terminal."""
        return [segment for strip in self.app.screen._compositor.render_strips() for segment in strip]


def make_app(
    plane: FakePlane, *, logs: FakeLogs | None = None, ending: Ending | None = None, ui: UiSettings | None = None
) -> LuthienApp:
    ending = ending or Ending()
    return LuthienApp(
        plane,
        ui=ui or UiSettings(),
        logs=logs or sample_logs(),
        begin_shutdown=ending.begin,
        wait_closed=ending.wait,
        clock=plane.clock,
        wall=plane.wall,
        auto_pump=False,
    )


@asynccontextmanager
async def console(
    plane: FakePlane, size: tuple[int, int] = NORMAL, *, logs: FakeLogs | None = None, ui: UiSettings | None = None
) -> AsyncIterator[Console]:
    """Run the app at `size` over `plane`."""
    ending = Ending()
    app = make_app(plane, logs=logs, ending=ending, ui=ui)
    async with app.run_test(size=size, notifications=True) as pilot:
        shown = Console(app, plane, ending, pilot)
        await shown.frame()
        await shown.frame()
        yield shown
        ending.closed.set()
