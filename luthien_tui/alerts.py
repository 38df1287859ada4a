"""How the screen says that something waits: one toast for all that is new, and a count in the terminal's title.

It takes no focus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from textual.notifications import Notification

from luthien_tui import textual_compat
from luthien_tui.text import cell, visible
from proxy_core.control.plane import HoldInfo

if TYPE_CHECKING:
    from textual.app import App

TOAST_S = 6.0
TITLE = "luthien"


class HoldAlerts:
    """Tells of holds; what is new while a toast stands is added to that toast."""

    def __init__(self, app: App[Any]) -> None:
        self.app = app
        self._toast: Notification | None = None
        self._told: list[HoldInfo] = []
        self._title_count = 0
        self._was_titled = False

    def tell(self, new: Sequence[HoldInfo], pending: Sequence[HoldInfo]) -> None:
        """Say that these are new."""
        standing = self._toast is not None and not self._toast.has_expired
        waits = {hold.id for hold in pending}
        self._told = [hold for hold in self._told if standing and hold.id in waits] + list(new)
        toast = Notification(visible(_words(self._told)), severity="warning", timeout=TOAST_S)
        textual_compat.replace_toast(self.app, self._toast if standing else None, toast)
        self._toast = toast

    def title(self, count: int) -> None:
        """Put the count into the terminal's title; the title that was there comes back at the end."""
        if count != self._title_count:
            title = f"{TITLE} ({count} held)" if count else TITLE
            textual_compat.set_title(self.app, title, first=not self._was_titled)
            self._title_count, self._was_titled = count, True

    def leave(self) -> None:
        """Give the terminal its title back."""
        if self._was_titled:
            textual_compat.restore_title(self.app)


def _words(holds: Sequence[HoldInfo]) -> str:
    if len(holds) == 1:
        hold = holds[0]
        what = f"{cell(hold.tool)[:30]} of " if hold.tool else f"a {cell(hold.stage)} of "
        return f"‖ held: {what}{cell(hold.session_id or hold.agent)[:30] or 'a client'} · 2 shows it"
    return f"‖ {len(holds)} new holds wait for you · 2 shows them"
