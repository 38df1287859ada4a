"""Under what is held: which decision its keys make now, or why they make none yet. Nothing here can be clicked."""

from __future__ import annotations

from textual.binding import Binding
from textual.events import Resize
from textual.message import Message

from luthien_tui.documents import wrap
from luthien_tui.text import cell
from luthien_tui.textual_compat import VisibleInput
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.strip_bar import StripBar


class DecisionRow(StripBar):
    """Two lines: what hinders, then the keys."""

    DEFAULT_CSS = "DecisionRow { height: 2; background: $surface; }"

    def __init__(self) -> None:
        super().__init__()
        self.told: tuple[str, str, bool, bool] = ("", "", False, False)

    def update(self, note: str, tone: str, *, can_approve: bool, can_decide: bool) -> None:
        """`note`: what the operator should know first."""
        if (told := (note, tone, can_approve, can_decide)) != self.told:
            self.told = told
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        note, tone, can_approve, can_decide = self.told
        if y == 0:
            return [(" ", ""), (note, tone)]
        pieces: list[Piece] = [(" ", "")]
        for key, word, live in (
            ("a", "approve", can_approve), ("e", "edit", can_approve), ("x", "deny", can_decide), ("t", "more time", can_decide),
        ):  # fmt: skip
            pieces += [(f"[{key}]", "key" if live else "quiet"), (f" {word}  ", "strong" if live else "quiet")]
        return pieces


class Complaint(StripBar):
    """Why what was typed is not taken, in up to three lines."""

    DEFAULT_CSS = "Complaint { background: $surface; display: none; } Complaint.-shown { display: block; }"
    LINES = 3

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.message = ""

    def say(self, message: str) -> None:
        """Show a text; an empty one hides the line."""
        self.message = cell(message)
        self.set_class(bool(message), "-shown")
        self._wrap(max(20, self.app.size.width // 2))

    def on_resize(self, event: Resize) -> None:
        self._wrap(event.size.width)

    def _wrap(self, width: int) -> None:
        self.rows = wrap(self.message, width - 4)[: self.LINES]
        self.styles.height = max(1, len(self.rows))
        self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        text = self.rows[y] if y < len(self.rows) else ""
        return [(" ✗ " if y == 0 else "   ", "error"), (text, "error")]


class ReasonInput(VisibleInput):
    """One line for the reason of a denial; enter sends it, also empty; escape leaves."""

    BINDINGS = [Binding("escape", "leave", show=False), Binding("tab", "cursor_right", show=False)]  # noqa: RUF012
    DEFAULT_CSS = """
    ReasonInput, ReasonInput:focus { border: none; height: 1; padding: 0 1; background: $boost; display: none; }
    ReasonInput.-open { display: block; }
    """

    class Left(Message):
        """Escape was pressed."""

    def __init__(self) -> None:
        super().__init__(placeholder="why it is denied, for the client; enter sends, esc leaves", select_on_focus=False)
        self.cursor_blink = False

    def action_leave(self) -> None:
        self.post_message(self.Left())
