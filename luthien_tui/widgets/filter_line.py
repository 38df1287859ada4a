"""The line where a filter or a search is typed, and the line under it that says what is wrong.

A filter that cannot be read is pointed at by its column while it is typed; enter puts a good one in force, and until then the
old one stays. A search acts while it is typed. Escape leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.events import Blur
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input

from luthien_tui.textual_compat import VisibleInput
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.strip_bar import StripBar
from proxy_core.control.filters import FIELDS, FilterError, FilterField, parse

Mode = Literal["filter", "search"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What may be asked for in a filter."""

    fields: Mapping[str, FilterField]
    parse: Callable[[str], object]
    """Raises FilterError."""


TRANSACTIONS = Vocabulary(FIELDS, parse)


class Complaint(StripBar):
    """What is wrong with the filter, under the place where it is wrong."""

    DEFAULT_CSS = "Complaint { background: $surface; display: none; } Complaint.-shown { display: block; }"

    def __init__(self) -> None:
        super().__init__()
        self.message = ""
        self.column = 0

    def line(self, y: int, width: int) -> list[Piece]:
        text = f"column {self.column}: {self.message}"
        indent = min(self.column - 1 + len(Prompt.LABELS["filter"]), max(0, width - len(text) - 3))
        return [(" " * indent, ""), ("^ ", "warning"), (text, "error")]


class Prompt(StripBar):
    """The word before the input."""

    LABELS = {"filter": " filter  ", "search": " search  "}  # noqa: RUF012 - a constant of labels
    DEFAULT_CSS = "Prompt { width: 9; background: $surface; }"
    mode: Mode = "filter"

    def line(self, y: int, width: int) -> list[Piece]:
        return [(self.LABELS[self.mode], "accent")]


class FieldSuggester(Suggester):
    """Completes the name of a field at the end of what is typed."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.fields: Mapping[str, FilterField] = FIELDS

    async def get_suggestion(self, value: str) -> str | None:
        word = value.rpartition(" ")[2].lstrip("(")
        if not word or ":" in word:
            return None
        name = next((name for name in self.fields if name.startswith(word.lower()) and name != word), None)
        return None if name is None else value + name[len(word) :] + ("" if self.fields[name].number else ":")


class LineInput(VisibleInput):
    """One line, without border; escape leaves."""

    BINDINGS = [Binding("escape", "leave", show=False), Binding("tab", "cursor_right", show=False)]  # noqa: RUF012
    DEFAULT_CSS = """
    LineInput, LineInput:focus { border: none; height: 1; padding: 0; background: $surface; width: 1fr; }
    """

    def action_leave(self) -> None:
        self.post_message(FilterLine.Cancelled())


class FilterLine(Vertical):
    """Hidden until it is opened."""

    DEFAULT_CSS = """
    FilterLine { height: auto; display: none; }
    FilterLine.-open { display: block; }
    FilterLine > Horizontal { height: 1; }
    """

    class Changed(Message):
        """What is typed can be used."""

        def __init__(self, mode: Mode, text: str) -> None:
            super().__init__()
            self.mode: Mode = mode
            self.text = text

    class Accepted(Changed):
        """Enter was pressed on something that can be used."""

    class Cancelled(Message):
        """Escape was pressed, or the line lost the focus."""

    def __init__(self) -> None:
        super().__init__(id="prompt")
        self.mode: Mode = "filter"
        self.label = Prompt()
        self.vocabulary = TRANSACTIONS
        self.suggester = FieldSuggester()
        self.input = LineInput(suggester=self.suggester, select_on_focus=False)
        self.input.cursor_blink = False
        self.complaint = Complaint()

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield self.label
            yield self.input
        yield self.complaint

    @property
    def is_open(self) -> bool:
        return self.has_class("-open")

    def open(self, mode: Mode, text: str, vocabulary: Vocabulary = TRANSACTIONS) -> None:
        self.mode = self.label.mode = mode
        self.vocabulary = vocabulary
        self.suggester.fields = vocabulary.fields
        self.label.refresh()
        self.add_class("-open")
        with self.input.prevent(Input.Changed):
            self.input.value = text
        self.input.cursor_position = len(text)
        self._complain(None)
        self.input.focus()

    def close(self) -> None:
        self.remove_class("-open")

    def _complain(self, error: FilterError | None) -> None:
        self.complaint.set_class(error is not None, "-shown")
        if error is not None:
            self.complaint.message, self.complaint.column = error.message, error.column
            self.complaint.refresh()

    def _check(self, text: str, *, is_finished: bool) -> bool:
        if self.mode == "search":
            return True
        try:
            self.vocabulary.parse(text)
        except FilterError as error:
            self._complain(error if is_finished or not error.unfinished else None)
            return False
        self._complain(None)
        return True

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.is_open and self._check(event.value, is_finished=False):
            self.post_message(self.Changed(self.mode, event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._check(event.value, is_finished=True):
            self.post_message(self.Accepted(self.mode, event.value))

    def on_descendant_blur(self, event: Blur) -> None:
        if self.is_open and self.screen.is_active:
            self.post_message(self.Cancelled())
