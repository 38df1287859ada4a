"""What a list of traffic says before there is anything to show: how to point each client here, or why a filter hides all."""

from __future__ import annotations

from dataclasses import dataclass

from luthien_tui.text import cell
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.strip_bar import StripBar


@dataclass(frozen=True, slots=True)
class Setup:
    """A line to paste into a shell so that a client's traffic comes here."""

    client: str
    line: str


def setups(address: str) -> tuple[Setup, ...]:
    root = f"http://{cell(address)}"
    return (
        Setup("OpenAI", f"export OPENAI_BASE_URL={root}/v1"),
        Setup("Anthropic", f"export ANTHROPIC_BASE_URL={root}"),
        Setup("Ollama", f"export OLLAMA_HOST={root}"),
    )


class EmptyState(StripBar):
    """Shown instead of the table's rows."""

    DEFAULT_CSS = """
    EmptyState { height: 1fr; display: none; }
    EmptyState.-shown { display: block; }
    """

    def __init__(self, address: str, *, things: str = "transaction", hint: tuple[Piece, ...] = ()) -> None:
        """`things`: what the list is of, in the singular; `hint`: a line more for those who have none yet."""
        super().__init__(id="empty")
        self.address = address
        self.things = things
        self.hint = hint
        self.hidden_rows = 0
        self.filter_text = ""
        self.is_demo = False

    def show_for(self, address: str, hidden_rows: int, filter_text: str, is_demo: bool) -> None:
        """Say why the list is empty. `hidden_rows`: how many the filter hides; negative where nobody has counted."""
        told = (address, hidden_rows, filter_text, is_demo)
        if told != (self.address, self.hidden_rows, self.filter_text, self.is_demo):
            self.address, self.hidden_rows, self.filter_text, self.is_demo = told
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        lines = self._hidden() if self.hidden_rows else self._waiting(width)
        longest = max((sum(len(text) for text, _ in line) for line in lines), default=0)
        top = max(1, (self.size.height - len(lines)) // 3)
        if not top <= y < top + len(lines):
            return [(" ", "")]
        return [(" " * max(1, (width - longest) // 2), ""), *lines[y - top]]

    def _hidden(self) -> list[list[Piece]]:
        hidden = f"{self.hidden_rows:,} hidden · " if self.hidden_rows > 0 else ""
        return [
            [(f"No {self.things} matches ", ""), (cell(self.filter_text), "accent")],
            [(hidden, "quiet"), ("esc", "key"), (" clears the filter · ", "quiet"), ("f", "key"), (" edits it", "quiet")],
        ]

    def _waiting(self, width: int) -> list[list[Piece]]:
        lines: list[list[Piece]] = [
            [("Waiting for the first request.", "strong")],
            [("Point a client here; paste the line for the one you use:", "quiet")],
            [("", "")],
        ]
        for setup in setups(self.address):
            lines += [[(f"{setup.client:<11}", "accent"), (setup.line, "")]]
        lines += [
            [("", "")],
            [("c", "key"), (" copies one of them  ", "quiet"), ("·  ", "quiet"),
             ("luthien env", "strong"), (" prints them all", "quiet")],
        ]  # fmt: skip
        if self.hint:
            lines.append(list(self.hint))
        if self.is_demo:
            lines.append([("The demo's agents start in a moment.", "quiet")])
        else:
            lines.append([("luthien demo", "strong"), (" shows it at work, without a key or a network", "quiet")])
        return lines
