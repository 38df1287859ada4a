"""A field of many lines in which an operator changes a text: ctrl+s takes it, escape leaves it as it was.

What is put in has been made visible before, so nothing in it acts. Pasting only inserts; no key but ctrl+s sends anything.
"""

from __future__ import annotations

from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

EDIT_LIMIT = 300_000
"""Characters that can be edited here."""


class TextEditor(TextArea):
    """Without highlighting or border."""

    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        Binding("ctrl+s", "take", show=False),
        Binding("escape", "leave", show=False),
    ]
    DEFAULT_CSS = """
    TextEditor, TextEditor:focus { border: none; padding: 0 1; background: $boost; height: 1fr; }
    """

    class Taken(Message):
        """ctrl+s was pressed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """Escape was pressed."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text, show_line_numbers=True, compact=True)
        self.cursor_blink = False

    def action_take(self) -> None:
        self.post_message(self.Taken(self.text))

    def action_leave(self) -> None:
        self.post_message(self.Left())
