"""Live: the transactions as they happen, and the open one beside, below or over them, as the width allows."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget

from luthien_tui.feed_reader import FeedReader
from luthien_tui.views.view import Movable, View
from luthien_tui.waiting import Waiting
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.detail_pane import DetailPane
from luthien_tui.widgets.empty_state import EmptyState
from luthien_tui.widgets.status_line import Standing, search_words
from luthien_tui.widgets.transaction_table import TransactionTable
from proxy_core.control.filters import EVERYTHING, parse
from proxy_core.control.plane import ControlPlane, GatewayState
from proxy_core.control.rows import TransactionRow
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


class LiveView(View):
    """The table and the detail pane; the app tells it what to do."""

    DEFAULT_CSS = """
    LiveView { layout: vertical; }
    LiveView.-shown { display: block; }
    LiveView > #list { height: 1fr; width: 1fr; }
    LiveView.-empty TransactionTable { height: 1; }
    LiveView DetailPane { height: 52%; }
    """

    def __init__(
        self,
        plane: ControlPlane,
        rows: TransactionList,
        reader: FeedReader,
        waiting: Waiting,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        super().__init__(id="live")
        self.rows = rows
        self.reader = reader
        self.waiting = waiting
        self.table = TransactionTable(rows, clock, wall, waiting)
        self.detail = DetailPane(plane)
        self.empty = EmptyState("")
        self._share = 52

    def compose(self) -> ComposeResult:
        with ListSide(id="list"):
            yield self.table
            yield self.empty
        yield self.detail

    def tick(self, state: GatewayState, *, seen: bool) -> None:
        if not seen:
            return
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

    @property
    def chosen(self) -> TransactionRow | None:
        """The open transaction, else the selected one."""
        wanted = self.detail.transaction_id or self.table.selected_id
        return self.rows.row(wanted) if wanted is not None else None

    def open_or_read(self) -> None:
        """Open the selected transaction; where one is open already, or covers the list, go to its text."""
        was_open = self.detail.is_open
        if self.open_selected() and (was_open or self.screen.has_class("-narrow")):
            self.detail.body.focus()

    def show(self, row: TransactionRow) -> None:
        """Open this transaction, whether the list has it or not."""
        self.table.select(row.transaction_id)
        self.detail.open(row)
        self.add_class("-detail")

    def close_or_clear(self) -> None:
        """Close what is open, else clear the filter."""
        if self.detail.is_open:
            self.close_detail()
            self.table.focus()
        else:
            self.rows.set_filter(EVERYTHING)

    # --- for the app ---------------------------------------------------------------------------------------------

    def home(self) -> Widget:
        return self.detail.body if self.detail.is_open and self.screen.has_class("-narrow") else self.table

    def moved(self) -> Movable:
        return self.detail.body if self.is_reading else self.table

    @property
    def is_reading(self) -> bool:
        return self.detail.body.has_focus

    def search_target(self) -> BodyView | None:
        return self.detail.body if self.detail.is_open else None

    @property
    def filter_text(self) -> str:
        return str(self.rows.filter)

    def set_filter(self, text: str) -> None:
        self.rows.set_filter(parse(text))

    def switch_pane(self) -> None:
        (self.table if self.is_reading else self.detail.body).focus()

    def allows(self, action: str) -> bool:
        match action:
            case "open":
                return bool(self.rows.shown) and not self.is_reading
            case "close":
                return bool(self.detail.is_open or self.rows.filter or self.rows.filtering)
            case "next_tab" | "previous_tab" | "switch_pane" | "larger" | "smaller":
                return self.detail.is_open
            case "freeze" | "copy" | "follow":
                return bool(self.rows.shown)
            case "copy_setup":
                return not self.rows.total
            case "go_to_hold":
                chosen = self.chosen
                return chosen is not None and self.waiting.of_transaction(chosen.transaction_id) is not None
            case "show_session":
                chosen = self.chosen
                return chosen is not None and bool(chosen.session_id)
            case "kill":
                chosen = self.chosen
                return chosen is not None and chosen.state != "done"
        return True

    def standing(self) -> Standing:
        table = self.table
        return Standing(
            filter_text=str(self.rows.filter),
            shown=len(self.rows.shown),
            total=self.rows.total,
            progress=self.rows.progress,
            mode="FROZEN" if table.frozen else "FOLLOW" if table.follow else "PAUSED",
            search=search_words(self.search_target()),
            missed=self.reader.missed,
        )

    # --- the open transaction ------------------------------------------------------------------------------------

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
