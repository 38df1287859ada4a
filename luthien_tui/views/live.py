"""Live: the transactions as they happen, and the open one beside, below or over them, as the width allows."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Container, Vertical

from luthien_tui.widgets.detail_pane import DetailPane
from luthien_tui.widgets.empty_state import EmptyState
from luthien_tui.widgets.transaction_table import TransactionTable
from proxy_core.control.plane import ControlPlane, GatewayState
from proxy_core.control.view import TransactionList

PLACING_CSS = """
.-narrow LiveView.-detail > #list { display: none; }
.-narrow LiveView DetailPane { height: 1fr; }
.-wide LiveView { layout: horizontal; }
.-wide LiveView DetailPane { width: 48%; height: 1fr; border-left: vkey $panel-lighten-1; }
"""
"""Where the open transaction stands at each width of the screen."""


class ListSide(Vertical):
    """The table, or why it is empty."""

    BLANK = True


class LiveView(Container):
    """The table and the detail pane; the app tells it what to do."""

    DEFAULT_CSS = """
    LiveView { layout: vertical; height: 1fr; }
    LiveView > #list { height: 1fr; width: 1fr; }
    LiveView.-empty TransactionTable { height: 1; }
    LiveView DetailPane { height: 52%; }
    """

    BLANK = True

    def __init__(self, plane: ControlPlane, rows: TransactionList, clock: Callable[[], float]) -> None:
        super().__init__(id="live")
        self.rows = rows
        self.table = TransactionTable(rows, clock)
        self.detail = DetailPane(plane)
        self.empty = EmptyState("")
        self._share = 52

    def compose(self) -> ComposeResult:
        with ListSide(id="list"):
            yield self.table
            yield self.empty
        yield self.detail

    def tick(self, state: GatewayState) -> None:
        """Draw what changed; called by the frame pump."""
        is_empty = not self.rows.shown
        if is_empty:
            self.empty.show_for(state.address, self.rows.total, str(self.rows.filter), state.demo)
        if is_empty != self.has_class("-empty"):
            self.set_class(is_empty, "-empty")
            self.empty.set_class(is_empty, "-shown")
        self.table.tick()
        self.detail.tick()

    def open_selected(self) -> bool:
        """Open the selected transaction, or the last one; returns whether there was one."""
        table = self.table
        if table.selected_id is None or self.rows.index(table.selected_id) is None:
            if not self.rows.shown:
                return False
            table.move(1)
        row = self.rows.row(table.selected_id) if table.selected_id is not None else None
        if row is None:
            return False
        self.detail.open(row)
        self.add_class("-detail")
        return True

    def follow_selection(self, transaction_id: str) -> None:
        """Where the detail pane is open it shows what is selected."""
        row = self.rows.row(transaction_id)
        if self.detail.is_open and row is not None:
            self.detail.open(row)

    def close_detail(self) -> None:
        self.detail.close()
        self.remove_class("-detail")

    def resize_detail(self, step: int) -> None:
        """Give the detail pane more or less of the room, in percent."""
        self._share = max(25, min(80, self._share + step))
        if self.screen.has_class("-wide"):
            self.detail.styles.width = f"{self._share}%"
        elif self.screen.has_class("-normal"):
            self.detail.styles.height = f"{self._share}%"

    def forget_sizes(self) -> None:
        """The screen has another width: what the operator set for the old one does not fit."""
        self._share = 52
        self.detail.styles.clear_rule("width")
        self.detail.styles.clear_rule("height")
