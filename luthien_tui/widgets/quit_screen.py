"""Leaving: a question while transactions run, then the count of what is still being drained."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.strip_bar import StripBar


class Notice(StripBar):
    """A few centred lines."""

    DEFAULT_CSS = """
    Notice { width: 62; max-width: 96%; height: 5; background: $surface; border: round $warning; padding: 1 0; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[Piece]] = []

    def say(self, *rows: list[Piece]) -> None:
        if list(rows) != self.rows:
            self.rows = list(rows)
            self.styles.height = len(rows) + 4
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        if not 0 <= y < len(self.rows):
            return [(" ", "")]
        length = sum(len(text) for text, _ in self.rows[y])
        return [(" " * max(1, (width - length) // 2), ""), *self.rows[y]]


class QuitScreen(ModalScreen[bool]):
    """Asks whether to drain and quit; gives the answer."""

    DEFAULT_CSS = "QuitScreen { align: center middle; background: $background 60%; }"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        Binding("y,q,ctrl+q,enter", "answer(True)", show=False),
        Binding("n,escape", "answer(False)", show=False),
    ]

    def __init__(self, active: Callable[[], int]) -> None:
        super().__init__()
        self.active = active
        self.notice = Notice()

    def compose(self) -> ComposeResult:
        yield self.notice

    def on_mount(self) -> None:
        self.tick()

    def tick(self) -> None:
        self.notice.say(
            [(f"{self.active()} in flight: ", "strong"), ("q", "key"), (" again or ", ""),
             ("y", "key"), (" to drain and quit", "")],
            [("They finish first; new requests are refused.  ", "quiet"), ("esc", "key"), (" stays", "quiet")],
        )  # fmt: skip

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class DrainScreen(ModalScreen[None]):
    """Shows what is left; pressing again forces the end."""

    DEFAULT_CSS = "DrainScreen { align: center middle; background: $background 60%; }"
    BINDINGS = [Binding("q,ctrl+q,ctrl+c,y,enter", "force", show=False)]  # noqa: RUF012

    def __init__(self, active: Callable[[], int], force: Callable[[], None], why: str) -> None:
        super().__init__()
        self.active = active
        self.force = force
        self.why = why
        self.forced = False
        self.notice = Notice()

    def compose(self) -> ComposeResult:
        yield self.notice

    def on_mount(self) -> None:
        self.tick()

    def tick(self) -> None:
        count = self.active()
        why = f" ({self.why})" if self.why else ""
        what = "Ending now" if self.forced else f"Draining, {count} in flight" if count else "Closing the journal"
        second: list[Piece] = (
            [("what runs is cut off and recorded as such", "quiet")]
            if self.forced
            else [("q", "key"), (" again ends them now", "quiet")]
        )
        self.notice.say([(f"{what}{why}…", "strong")], second)

    def action_force(self) -> None:
        if not self.forced:
            self.forced = True
            self.tick()
            self.force()
