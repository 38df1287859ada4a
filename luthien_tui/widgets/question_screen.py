"""A small window that asks before something is taken away; only a deliberate key says yes, a click says nothing."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from luthien_tui.text import cell
from luthien_tui.widgets.quit_screen import Notice


class QuestionScreen(ModalScreen[bool]):
    """Gives the answer; escape and n are no."""

    DEFAULT_CSS = "QuestionScreen { align: center middle; background: $background 60%; }"
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q", "answer(False)", show=False),
    ]

    def __init__(self, question: str, detail: str, yes: str) -> None:
        super().__init__()
        self.question = question
        self.detail = detail
        self.yes = yes
        self.notice = Notice()

    def compose(self) -> ComposeResult:
        yield self.notice

    def on_mount(self) -> None:
        self.notice.say(
            [(cell(self.question)[:58], "strong")],
            [(cell(self.detail)[:58], "quiet")],
            [("y", "key"), (f" {self.yes}   ", ""), ("esc", "key"), (" leave it", "")],
        )

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)
