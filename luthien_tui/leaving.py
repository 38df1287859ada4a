"""How the screen is left: ask while something runs, have the gateway drained, show what is left, go when it is closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from luthien_tui.widgets.quit_screen import DrainScreen, QuitScreen
from proxy_core.tasks import spawn

if TYPE_CHECKING:
    from textual.app import App


class Leaving:
    """`active` counts what runs, `begin` asks the gateway to drain and, again, to end, `closed` waits until it has."""

    def __init__(
        self, app: App[Any], active: Callable[[], int], begin: Callable[[], None], closed: Callable[[], Awaitable[None]]
    ) -> None:
        self.app = app
        self.active = active
        self._begin = begin
        self._closed = closed
        self._is_leaving = False

    def ask(self) -> None:
        """Leave; while something runs the operator has to say so once more."""
        if not self.active() or self._is_leaving:
            self.begin("")
            return

        def decided(answer: bool | None) -> None:
            if answer:
                self.begin("")

        self.app.push_screen(QuitScreen(self.active), decided)

    def begin(self, why: str) -> None:
        """Drain and leave without asking; called again, force the end."""
        if self._is_leaving:
            if isinstance(self.app.screen, DrainScreen):
                self.app.screen.action_force()
            else:
                self._begin()
            return
        self._is_leaving = True
        self._begin()
        self.app.call_later(self._show_draining, why)
        spawn(self._leave(), name="leave")

    async def _show_draining(self, why: str) -> None:
        while len(self.app.screen_stack) > 1:
            await self.app.pop_screen()
        await self.app.push_screen(DrainScreen(self.active, self._begin, why))

    async def _leave(self) -> None:
        try:
            await self._closed()
        finally:
            self.app.exit(return_code=0)
