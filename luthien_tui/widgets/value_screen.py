"""A window in which the value of a parameter is typed; ctrl+s takes it where it can be read."""

from __future__ import annotations

from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from luthien_tui.policy_changes import as_typed, from_typed
from luthien_tui.text import cell, json_escaped
from luthien_tui.widgets.decision_row import Complaint
from luthien_tui.widgets.pick_screen import PickTitle
from luthien_tui.widgets.text_editor import TextEditor
from proxy_core.control.plane import ParamInfo

LEFT: Any = object()
"""Given where nothing was taken."""


class ValueScreen(ModalScreen[Any]):
    """Gives the value, or LEFT."""

    DEFAULT_CSS = """
    ValueScreen { align: center middle; background: $background 60%; }
    ValueScreen > Vertical { width: 76; max-width: 96%; background: $surface; border: round $accent-muted; }
    """

    def __init__(self, param: ParamInfo, value: Any) -> None:
        super().__init__()
        self.param = param
        self.editor = TextEditor(json_escaped(as_typed(param, value)))
        self.complaint = Complaint()

    def compose(self) -> ComposeResult:
        rows = self.editor.text.count("\n") + 1
        with Vertical() as window:
            yield PickTitle(f"{cell(self.param.name)}  {self.param.kind}", "ctrl+s take · esc leave")
            yield self.editor
            yield self.complaint
        window.styles.height = min(max(4, rows + 2) + 3, max(7, int(self.app.size.height * 0.8)))

    def on_mount(self) -> None:
        self.editor.focus()

    @on(TextEditor.Taken)
    def _take(self, event: TextEditor.Taken) -> None:
        try:
            self.dismiss(from_typed(self.param, event.text))
        except ValueError as error:
            self.complaint.say(str(error))

    @on(TextEditor.Left)
    def _leave(self) -> None:
        self.dismiss(LEFT)
