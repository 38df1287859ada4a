"""Log: the program's own messages, the newest at the end."""

from __future__ import annotations

from typing import Protocol

from textual.app import ComposeResult
from textual.events import Resize
from textual.widget import Widget

from luthien_tui import figures
from luthien_tui.documents import PieceDocument, wrap
from luthien_tui.text import cell
from luthien_tui.views.view import Movable, View
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.status_line import Standing, search_words
from proxy_core.control.plane import GatewayState
from proxy_core.logs import LogLine

KEPT_LINES = 5_000
_TONES = {"DEBUG": "quiet", "INFO": "ok", "WARNING": "warning", "ERROR": "error", "CRITICAL": "alarm"}


class LogSource(Protocol):
    """Where messages come from."""

    def since(self, sequence: int) -> list[LogLine]:
        """Lines after `sequence`, oldest first."""
        ...


class LogView(View):
    """Reads the source and shows it."""

    def __init__(self, source: LogSource) -> None:
        super().__init__(id="log")
        self.source = source
        self.body = BodyView(id="log-body")
        self.body.follow = True
        self.unseen_errors = 0
        self._lines: list[LogLine] = []
        self._sequence = 0
        self._document = PieceDocument()

    def compose(self) -> ComposeResult:
        yield self.body

    def home(self) -> Widget:
        return self.body

    def moved(self) -> Movable:
        return self.body

    def search_target(self) -> BodyView | None:
        return self.body

    def standing(self) -> Standing:
        mode = "FOLLOW" if self.body.follow else "PAUSED"
        return Standing(search=search_words(self.body), mode=mode, total=len(self.body.document))

    def tick(self, state: GatewayState, *, seen: bool) -> None:
        new = self.source.since(self._sequence)
        if new:
            self._sequence = new[-1].sequence
            self._lines += new
            self.unseen_errors += sum(line.level in ("ERROR", "CRITICAL") for line in new)
            if len(self._lines) > KEPT_LINES + KEPT_LINES // 10:
                del self._lines[: len(self._lines) - KEPT_LINES]
                self._rebuild()
            else:
                before = len(self._document)
                self._add(new)
                self.body.grown(before)
        if seen:
            self.unseen_errors = 0

    def on_resize(self, event: Resize) -> None:
        self._rebuild()

    def _rebuild(self) -> None:
        top = self.body.top
        self._document = PieceDocument()
        self._add(self._lines)
        self.body.show(self._document, top=top)

    def _add(self, lines: list[LogLine]) -> None:
        indent = 18
        width = max(20, self.body.text_width - indent)
        for line in lines:
            lead = [(figures.clock(line.time), "quiet"), (f" {line.level[:8]:<9}", _TONES.get(line.level, ""))]
            text = f"{line.logger.removeprefix('proxy_core.').removeprefix('luthien_tui.')}  {line.message}"
            for place, row in enumerate(wrap(cell(text), width)):
                self._document.line(*(lead if place == 0 else [(" " * indent, "")]), (row, ""))
                self._document.continued[-1] = place > 0
