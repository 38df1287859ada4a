"""A table of things with an id, drawn by lines: a head, columns that fit the width, and a selection that stays on its thing.

It draws what it is given; who gives it decides the order. Nothing in it is asked of the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from luthien_tui.textual_compat import grow, jump
from luthien_tui.widgets.columns import Column, Placed, arrange, head
from luthien_tui.widgets.paint import Painter, Piece, fit

Row = TypeVar("Row")
MARK = "▶"


class Opened(Message):
    """The selected row was clicked again."""


class RowTable(ScrollView, Painter, Generic[Row], can_focus=True, inherit_bindings=False):
    """Line 0 is the head."""

    DEFAULT_CSS = """
    RowTable { height: 1fr; width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        id_of: Callable[[Row], str],
        wall: Callable[[], float],
        *,
        id: str,  # noqa: A002 - Textual's own name
        expendable: Sequence[str],
        widest: Sequence[str],
    ) -> None:
        """`expendable` and `widest`: as in `columns.arrange`. `wall` gives Unix time."""
        super().__init__(id=id)
        self.columns = columns
        self.id_of = id_of
        self.wall = wall
        self.expendable = expendable
        self.widest = widest
        self.rows: Sequence[Row] = ()
        self.selected_id = ""
        self.marks: Mapping[str, str] = {}
        """What stands behind the titles of columns."""
        self._places: dict[str, int] = {}
        self._was_moved = False
        self._drawn_at = 0

    @property
    def selected(self) -> Row | None:
        place = self._places.get(self.selected_id)
        return None if place is None else self.rows[place]

    @property
    def is_at_end(self) -> bool:
        """Whether the last row is selected."""
        return bool(self.rows) and self._places.get(self.selected_id) == len(self.rows) - 1

    def show(self, rows: Sequence[Row]) -> None:
        """Draw these. The selection stays on its row, and the row where it was on the screen, once somebody has moved."""
        before = self._places.get(self.selected_id, 0)
        self.rows = rows
        self._places = {self.id_of(row): place for place, row in enumerate(rows)}
        grow(self, Size(self.size.width, len(rows) + 1))
        if rows and (not self._was_moved or self.selected_id not in self._places):
            self.selected_id = self.id_of(rows[min(before, len(rows) - 1) if self._was_moved else 0])
        if self._was_moved and rows:
            jump(self, int(self.scroll_y) + self._places[self.selected_id] - before)
            self._reveal()
        self.refresh()

    def tick(self) -> None:
        """Ages grow; called by the frame pump."""
        if int(self.wall()) != self._drawn_at:
            self._drawn_at = int(self.wall())
            self.refresh()

    # --- moving --------------------------------------------------------------------------------------------------

    def select(self, row_id: str) -> None:
        """Select a row and bring it into sight."""
        if row_id in self._places:
            self.selected_id = row_id
            self._was_moved = True
            self._reveal()
            self.refresh()

    def move(self, lines: int) -> None:
        if self.rows:
            place = self._places.get(self.selected_id, 0) + lines
            self.select(self.id_of(self.rows[max(0, min(place, len(self.rows) - 1))]))

    def move_first(self) -> None:
        self.move(-len(self.rows))
        self._was_moved = False

    def move_last(self) -> None:
        self.move(len(self.rows))

    def _reveal(self) -> None:
        place, top, room = self._places.get(self.selected_id, 0), int(self.scroll_y), max(1, self.size.height - 1)
        if place < top:
            jump(self, place)
        elif place >= top + room:
            jump(self, place - room + 1)

    def on_click(self, event: Click) -> None:
        place = int(self.scroll_y) + event.y - 1
        if event.y < 1 or place >= len(self.rows):
            return
        row_id = self.id_of(self.rows[place])
        if row_id == self.selected_id:
            self.post_message(Opened())
        self.select(row_id)

    # --- drawing -------------------------------------------------------------------------------------------------

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        grow(self, Size(self.size.width, len(self.rows) + 1))
        self._reveal()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        placed: Placed[Row] = arrange(self.columns, width - 1, expendable=self.expendable, widest=self.widest)
        if y == 0:
            return self.paint([(head(placed, self.marks), "head")], width, self.rich_style + self.tone("head"))
        place = int(self.scroll_y) + y - 1
        if place >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        row = self.rows[place]
        here = self.id_of(row) == self.selected_id
        base = self.rich_style + self.tone("cursor" if here and self.has_focus else "cursor-away") if here else self.rich_style
        pieces: list[Piece] = [(MARK if here else " ", "accent")]
        now = self.wall()
        for column, room in placed:
            text, tone = column.piece(row, now)
            pieces.append((fit(text, room, right=column.right) + " ", tone))
        return self.paint(pieces, width, base)
