"""What can be copied of a transaction, as exact text, and how it gets to the terminal's clipboard: whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from luthien_tui.detail_documents import curl
from luthien_tui.text import decode, visible
from luthien_tui.widgets.empty_state import setups
from luthien_tui.widgets.pick_screen import PickItem, PickScreen
from proxy_core.control.plane import ControlPlane, TransactionDetail
from proxy_core.tasks import spawn

if TYPE_CHECKING:
    from textual.app import App

CLIPBOARD_LIMIT = 74_000
"""Bytes that terminals take over OSC 52; more is refused."""
_CHOICES = (
    ("id", "i", "transaction id"),
    ("request body", "b", "as it was sent"),
    ("response body", "r", "as it arrived"),
    ("curl command", "c", "sends the request again, through this gateway"),
)


def copy_items() -> list[PickItem]:
    return [PickItem(name, key, name, note) for name, key, note in _CHOICES]


def copy_text(what: str, detail: TransactionDetail, address: str) -> str:
    """The text of one choice."""
    match what:
        case "request body":
            return decode(detail.request_body)
        case "response body":
            return decode(detail.response_body)
        case "curl command":
            return curl(detail, address)
    return detail.row.transaction_id


class Copying:
    """Asks what to copy, copies it, and says so through `say`."""

    def __init__(self, app: App[Any], plane: ControlPlane, say: Callable[..., None]) -> None:
        self.app = app
        self.plane = plane
        self.say = say

    def ask(self, transaction_id: str) -> None:
        """Copy a part of a transaction."""

        def copy(what: str | None) -> None:
            if what:
                spawn(self._copy(what, transaction_id), name="copy")

        self.app.push_screen(PickScreen(f"Copy from {visible(transaction_id)}", copy_items()), copy)

    async def _copy(self, what: str, transaction_id: str) -> None:
        detail = await self.plane.detail(transaction_id)
        if detail is None:
            self.say("its record is not at hand any more", warn=True)
            return
        self.to_clipboard(copy_text(what, detail, self.plane.state().address), what)

    def ask_setup(self) -> None:
        """Copy the line that points a client here."""
        items = [
            PickItem(setup.line, setup.client[0].lower() if setup.client != "Ollama" else "l", setup.client, setup.line)
            for setup in setups(self.plane.state().address)
        ]

        def copy(line: str | None) -> None:
            if line:
                self.to_clipboard(line, "line")

        self.app.push_screen(PickScreen("Copy a line", items), copy)

    def to_clipboard(self, text: str, what: str) -> None:
        """Hand text to the terminal's clipboard as it is, and say so; too much is refused, never cut."""
        length = len(text.encode())
        if not text:
            self.say(f"there is no {what} to copy", warn=True)
        elif length > CLIPBOARD_LIMIT:
            self.say(f"{what}: {length:,} bytes are more than a terminal's clipboard takes ({CLIPBOARD_LIMIT:,})", warn=True)
        else:
            self.app.copy_to_clipboard(text)
            self.say(f"copied the {what}: {length:,} bytes")
