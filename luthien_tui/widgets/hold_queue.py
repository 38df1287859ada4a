"""The queue of holds: those that wait, two lines each, oldest first; below them, dim, the latest that were decided.

Selection is by id and stays where it is: neither a new hold nor a decision made elsewhere moves it. A click selects and does
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from luthien_tui import figures, glyphs
from luthien_tui.hold_documents import one_line, stage_name
from luthien_tui.text import cell
from luthien_tui.textual_compat import grow, jump
from luthien_tui.waiting import Waiting
from luthien_tui.widgets.paint import Painter, Piece, fit, pieces_width, spread
from proxy_core.control.plane import HoldInfo
from proxy_core.control.rows import TransactionRow

GAUGE_WIDTH = 8
SHOWN_DECIDED = 50


class _Line(NamedTuple):
    hold_id: str
    """Empty: a heading or a gap."""
    part: int
    """0: the first line of its hold; 1: the second; 2: all of a decided one."""


class HoldQueue(ScrollView, Painter, can_focus=True, inherit_bindings=False):
    """Draws what `waiting` holds."""

    DEFAULT_CSS = """
    HoldQueue { height: 1fr; width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    class Selected(Message):
        """Another hold is selected."""

        def __init__(self, hold_id: str) -> None:
            super().__init__()
            self.hold_id = hold_id

    def __init__(self, waiting: Waiting, wall: Callable[[], float], row_of: Callable[[str], TransactionRow | None]) -> None:
        super().__init__(id="queue")
        self.waiting = waiting
        self.wall = wall
        self.row_of = row_of
        self.selected_id: str | None = None
        self._holds: dict[str, HoldInfo] = {}
        self._lines: list[_Line] = []
        self._drawn: tuple[int, int] = (-1, -1)

    @property
    def selected(self) -> HoldInfo | None:
        """The selected hold as it stands; None where there is none any more."""
        return self._holds.get(self.selected_id) if self.selected_id is not None else None

    def tick(self) -> None:
        """Bring the lines up to what waits; countdowns move once a second."""
        drawn = (self.waiting.version, int(self.wall()))
        if drawn == self._drawn:
            return
        if drawn[0] != self._drawn[0]:
            self._take_lines()
        self._drawn = drawn
        self.refresh()

    def _take_lines(self) -> None:
        decided = self.waiting.decided[:SHOWN_DECIDED]
        self._holds = {hold.id: hold for hold in (*self.waiting.pending, *decided)}
        self._lines = [_Line(hold.id, part) for hold in self.waiting.pending for part in (0, 1)]
        if decided:
            self._lines += [_Line("", 0), _Line("", 1), *(_Line(hold.id, 2) for hold in decided)]
        grow(self, Size(self.size.width, len(self._lines)))

    # --- moving --------------------------------------------------------------------------------------------------

    def select(self, hold_id: str) -> None:
        """Select a hold and bring it into sight."""
        places = [place for place, line in enumerate(self._lines) if line.hold_id == hold_id]
        if not places:
            return
        top = int(self.scroll_y)
        if places[0] < top:
            jump(self, places[0])
        elif places[-1] >= top + self.size.height:
            jump(self, places[-1] - self.size.height + 1)
        changed = hold_id != self.selected_id
        self.selected_id = hold_id
        self.refresh()
        if changed:
            self.post_message(self.Selected(hold_id))

    def move(self, lines: int) -> None:
        ids = list(self._holds)
        if not ids:
            return
        place = ids.index(self.selected_id) if self.selected_id in self._holds else -1 if lines > 0 else len(ids)
        if abs(lines) > 1:
            lines = max(1, abs(lines) // 2) * (1 if lines > 0 else -1)
        self.select(ids[max(0, min(place + lines, len(ids) - 1))])

    def move_first(self) -> None:
        if self._holds:
            self.select(next(iter(self._holds)))

    def move_last(self) -> None:
        if self._holds:
            self.select(list(self._holds)[-1])

    def on_click(self, event: Click) -> None:
        place = int(self.scroll_y) + event.y
        if place < len(self._lines) and self._lines[place].hold_id:
            self.select(self._lines[place].hold_id)

    # --- drawing -------------------------------------------------------------------------------------------------

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        grow(self, Size(self.size.width, len(self._lines)))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        place = int(self.scroll_y) + y
        if not self._lines and y == 1:
            return self.paint([("  Nothing waits for you.", "quiet")], width)
        if place >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        line = self._lines[place]
        if not line.hold_id:
            return self.paint([(" decided" if line.part else "", "head" if line.part else "")], width)
        hold = self._holds[line.hold_id]
        here = hold.id == self.selected_id
        base = self.rich_style + self.tone("cursor" if here and self.has_focus else "cursor-away") if here else self.rich_style
        mark = ("▶" if here and line.part != 1 else " ", "accent")
        pieces = (self._first, self._second, self._decided)[line.part](hold, width - 2)
        return self.paint([mark, *pieces], width, base)

    def _first(self, hold: HoldInfo, width: int) -> list[Piece]:
        now = self.wall()
        whole = max(1.0, hold.deadline - hold.created)
        left = max(0.0, hold.deadline - now)
        full, rest = figures.gauge(left / whole, GAUGE_WIDTH)
        tone = "error" if left < 30 else "warning" if left < 120 else "bar"
        end = {"deny": "denies", "approve": "approves"}.get(hold.on_timeout, "ends")
        pieces: list[Piece] = [
            (fit(figures.countdown(now - hold.created), 6, right=True), "strong"),
            (" ", ""), (full, tone), (rest, "bar-rest"),
            (f" {end} in {figures.countdown(left)}", tone if tone != "bar" else "quiet"),
        ]  # fmt: skip
        many = (
            [(f" {hold.waiting} wait", "notice")] if hold.waiting > 1 else [(" client left", "quiet")] if not hold.waiting else []
        )
        return spread(pieces, many, width)

    def _second(self, hold: HoldInfo, width: int) -> list[Piece]:
        session = cell(hold.session_id) or cell(hold.agent) or figures.UNKNOWN
        right = fit(session, min(len(session) + 1, max(10, width // 3)), right=True)
        left: list[Piece] = [(f"  {stage_name(hold)} ", "notice")]
        room = max(4, width - pieces_width(left) - len(right) - 1)
        return [*left, (fit(one_line(hold, self.row_of(hold.transaction_id)), room), ""), (f" {right}", "quiet")]

    def _decided(self, hold: HoldInfo, width: int) -> list[Piece]:
        face = glyphs.HOLDS.get(hold.status, glyphs.Face("?", cell(hold.status), "quiet"))
        by = f" by {cell(hold.decided_by)}" if hold.decided_by else ""
        left = f" {face.sign} {face.word}{by}  {one_line(hold, self.row_of(hold.transaction_id))}"
        return [(fit(left, width), "quiet")]
