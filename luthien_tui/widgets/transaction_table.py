"""The live table: as many rows as there are, of which only the visible lines are ever drawn.

It reads a TransactionList and draws from a cache; it holds no rows. Selection is by transaction id, so it stays on its
transaction while the list moves. While it follows, the newest row is the last line; else new rows are counted in a pill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.style import Style
from textual.cache import LRUCache
from textual.events import Click, MouseScrollUp, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from luthien_tui import figures, glyphs
from luthien_tui.text import cell
from luthien_tui.textual_compat import grow, jump
from luthien_tui.waiting import Waiting
from luthien_tui.widgets.columns import Column, Placed, arrange, head
from luthien_tui.widgets.paint import Painter, Piece, fit
from proxy_core.control.rows import TransactionRow
from proxy_core.control.view import TransactionList


def _verdict(row: TransactionRow, now: float) -> Piece:
    sign, word, tone = glyphs.face(row)
    return f"{sign} {word}", tone


def _total(row: TransactionRow, now: float) -> Piece:
    if row.state == "done":
        return f"{figures.duration(row.total_ms)}  ", "" if row.total_ms is not None else "quiet"
    elapsed = max(0.0, now - row.started_monotonic)
    pulse = glyphs.PULSE[int(elapsed) % len(glyphs.PULSE)]
    return f"{figures.duration(int(elapsed) * 1_000) if elapsed >= 1 else '0s'} {pulse}", "busy"


def _number(value: float | None, show: Callable[[float | None], str]) -> Piece:
    return show(value), "quiet" if value is None else ""


def _name(value: str, tone: str = "") -> Piece:
    return (cell(value), tone) if value else (figures.UNKNOWN, "quiet")


def _status(row: TransactionRow, now: float) -> Piece:
    if row.status is None:
        return ("···" if row.state != "done" else figures.UNKNOWN), "quiet"
    return str(row.status), glyphs.status_tone(row.status)


COLUMNS: tuple[Column[TransactionRow], ...] = (
    Column("time", "time", 8, lambda row, now: (figures.clock(row.started_at), "quiet")),
    Column("session", "session", 12, lambda row, now: _name(row.session_id), share=2),
    Column("agent", "agent", 10, lambda row, now: _name(row.agent, "quiet"), share=2, from_width=108),
    Column("model", "model", 15, lambda row, now: _name(row.model), share=3),
    Column("via", "via", 9, lambda row, now: _name(row.upstream, "quiet"), share=1, from_width=100),
    Column("status", "st", 3, _status),
    Column("verdict", "verdict", 11, _verdict, share=1),
    Column("in", "in", 6, lambda row, now: _number(row.input_tokens, figures.count), from_width=100, right=True),
    Column("out", "out", 6, lambda row, now: _number(row.output_tokens, figures.count), from_width=100, right=True),
    Column("cost", "cost", 7, lambda row, now: _number(row.cost_usd, figures.usd), right=True),
    Column("ttft", "ttft", 6, lambda row, now: _number(row.ttft_ms, figures.duration), from_width=90, right=True),
    Column("total", "total  ", 8, _total, right=True),
    Column("preview", "last message", 24, lambda row, now: _name(row.preview, "quiet"), share=20, from_width=150),
)
MARK = "▶"
KEPT_SCREENS = 3
"""So many screens of drawn rows are kept: a drawn row takes the room of ten that are not."""
EXPENDABLE = ("cost", "time", "session", "total")
"""Columns that go first where the width does not hold them all."""


def layout(width: int) -> Placed[TransactionRow]:
    """The columns that fit `width` cells, with their widths."""
    return arrange(COLUMNS, width, expendable=EXPENDABLE, widest=("preview", "model"))


class TransactionTable(ScrollView, Painter, can_focus=True, inherit_bindings=False):
    """Line 0 is the head; the rest shows the rows from `scroll_y` on."""

    DEFAULT_CSS = """
    TransactionTable { height: 1fr; width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    class Selected(Message):
        """Another transaction is selected."""

        def __init__(self, transaction_id: str) -> None:
            super().__init__()
            self.transaction_id = transaction_id

    class Opened(Selected):
        """The selected transaction was clicked again."""

    def __init__(self, rows: TransactionList, clock: Callable[[], float], wall: Callable[[], float], waiting: Waiting) -> None:
        super().__init__(id="table")
        self.rows = rows
        self.clock = clock
        self.wall = wall
        self.waiting = waiting
        self.follow = True
        self.frozen = False
        self.selected_id: str | None = None
        self._count = 0
        self._seen = 0
        self._pending = 0
        self._generation = rows.generation
        self._filter_seen = rows.filter
        self._anchor: str | None = None
        self._strips: LRUCache[tuple[object, ...], Strip] = LRUCache(KEPT_SCREENS)  # of no size yet
        self._painted: dict[int, tuple[object, ...]] = {}
        self._columns = layout(80)
        self._layout_width = 80
        self._bases: dict[str, Style] = {}

    # --- what is shown -------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """New rows below that the operator has not seen, while the list does not follow."""
        return self._pending

    @property
    def visible_lines(self) -> int:
        return max(0, self.size.height - 1)

    @property
    def line_width(self) -> int:
        """Cells of a row; the last cell of the table is the scrollbar's."""
        return self.size.width - 1

    @property
    def top(self) -> int:
        return int(self.scroll_y)

    def tick(self) -> None:
        """Bring the screen up to the list; called by the frame pump."""
        if not self.size.height or self.frozen:
            return
        moved = self.rows.generation != self._generation
        count = len(self.rows.shown)
        grown = count - self._count
        if moved:
            self._generation = self.rows.generation
            self._resize(count)
            if not self.follow:
                self._restore_anchor()
                self._see(count)
            self.refresh()
        elif grown:
            self._resize(count)
        if self.follow:
            self._seen = count
            self._pending = 0
            if grown or moved:
                jump(self, self.max_scroll_y)
                self.refresh()
                return
        elif grown > 0:
            if self.top + self.visible_lines > self._count - grown:
                self.refresh()
            self._seen = max(self._seen, min(count, self.top + self.visible_lines))
            pending = count - self._seen
            if pending != self._pending:
                self._pending = pending
                self._refresh_line(self.size.height - 1)
        self._refresh_changed()

    def _resize(self, count: int) -> None:
        self._count = count
        grow(self, Size(self.size.width, count + 1))

    def _refresh_changed(self) -> None:
        now = self.clock()
        shown = self.rows.shown
        for y, painted in list(self._painted.items()):
            index = self.top + y - 1
            if index >= len(shown) or self._key(shown[index], now) != painted:
                self._refresh_line(y)

    def _refresh_line(self, y: int) -> None:
        self.refresh(Region(0, y, self.size.width, 1))

    def _see(self, count: int) -> None:
        """The list is another one: what was added to it by the filter or the past is not new."""
        self._seen = count if self._filter_seen is not self.rows.filter else min(self._seen, count)
        self._filter_seen = self.rows.filter
        self._pending = count - self._seen

    def _restore_anchor(self) -> None:
        if self._anchor is not None:
            jump(self, self.rows.nearest(self._anchor))

    def _keep_anchor(self) -> None:
        shown = self.rows.shown
        self._anchor = shown[self.top].transaction_id if self.top < len(shown) else None

    # --- moving --------------------------------------------------------------------------------------------------

    def set_follow(self, follow: bool) -> None:
        self.follow = follow
        if follow:
            self.frozen = False
            self._count = len(self.rows.shown)
            self._seen, self._pending = self._count, 0
            self._resize(self._count)
            jump(self, self.max_scroll_y)
        else:
            self._seen = len(self.rows.shown)
            self._keep_anchor()
        self.refresh()

    def set_frozen(self, frozen: bool) -> None:
        self.frozen = frozen
        if not frozen:
            self.tick()
        self.refresh()

    def select(self, transaction_id: str) -> None:
        """Select a shown transaction and bring it into sight."""
        index = self.rows.index(transaction_id)
        if index is None:
            return
        if index != len(self.rows.shown) - 1 or not self.follow:
            self.follow = False
        self._select_index(index)

    def move(self, lines: int) -> None:
        """Move the selection; the first move starts at the last visible row."""
        shown = self.rows.shown
        if not shown:
            return
        bottom = min(len(shown), self.top + self.visible_lines) - 1
        current = self.rows.index(self.selected_id) if self.selected_id is not None else None
        if self.selected_id is not None and current is None:
            current = self.rows.nearest(self.selected_id)
        if current is None or (self.follow and not self.top <= current <= bottom):
            target = bottom if abs(lines) == 1 else bottom + lines
        else:
            target = current + lines
        if self.follow:
            self._seen = len(shown)
        self.follow = False
        self._select_index(max(0, min(target, len(shown) - 1)))

    def move_first(self) -> None:
        if self.rows.shown:
            self.follow = False
            self._seen = len(self.rows.shown)
            self._select_index(0)

    def move_last(self) -> None:
        if self.rows.shown:
            self._select_index(len(self.rows.shown) - 1)
        self.set_follow(True)

    def _select_index(self, index: int) -> None:
        row = self.rows.shown[index]
        top = self.top
        if index < top:
            top = index
        elif index >= top + self.visible_lines:
            top = index - self.visible_lines + 1
        if len(self.rows.shown) != self._count:
            self._resize(len(self.rows.shown))
        jump(self, top)
        self._keep_anchor()
        self._mark_seen()
        changed = row.transaction_id != self.selected_id
        self.selected_id = row.transaction_id
        self.refresh()
        if changed:
            self.post_message(self.Selected(row.transaction_id))

    def _mark_seen(self) -> None:
        self._seen = max(self._seen, min(len(self.rows.shown), self.top + self.visible_lines))
        self._pending = 0 if self.follow else len(self.rows.shown) - self._seen

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(new_value) < self.max_scroll_y and self.follow and round(new_value) < round(old_value):
            self.follow = False
            self._seen = len(self.rows.shown)
        self._keep_anchor()
        self._mark_seen()

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        if self.follow and self.max_scroll_y > 0:
            self.follow = False
            self._seen = len(self.rows.shown)

    def on_click(self, event: Click) -> None:
        if event.y == self.size.height - 1 and self._pending and event.x >= self.line_width - len(self._pill()):
            self.set_follow(True)
            return
        index = self.top + event.y - 1
        if event.y < 1 or index >= len(self.rows.shown):
            return
        transaction_id = self.rows.shown[index].transaction_id
        if transaction_id == self.selected_id:
            self.post_message(self.Opened(transaction_id))
            return
        if self.follow:
            self.follow = False
            self._seen = len(self.rows.shown)
        self._select_index(index)

    # --- drawing -------------------------------------------------------------------------------------------------

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()
        self._bases.clear()

    def forget_tones(self) -> None:
        super().forget_tones()
        self._strips.clear()
        self._bases.clear()

    def on_resize(self, event: Resize) -> None:
        self._strips = LRUCache(KEPT_SCREENS * max(1, self.size.height))
        self._painted.clear()
        self._resize(len(self.rows.shown))
        if self.follow:
            jump(self, self.max_scroll_y)
        elif self.selected_id is not None and (index := self.rows.index(self.selected_id)) is not None:
            if not self.top <= index < self.top + self.visible_lines:
                jump(self, index - self.visible_lines // 2)
            self._keep_anchor()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def _key(self, row: TransactionRow, now: float) -> tuple[object, ...]:
        ticking = int(now - row.started_monotonic) if row.state != "done" else -1
        if row.state == "held" and (hold := self.waiting.of_transaction(row.transaction_id)) is not None:
            ticking = int(self.wall() - hold.created)
        selected = row.transaction_id == self.selected_id
        return row.transaction_id, row.version, ticking, self.size.width, selected, selected and self.has_focus, row.state

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines in `crop`, straight from the cache: the table has no border or padding that would have to be drawn."""
        filters = self.get_line_filters()
        background = self.background_colors[1]
        width = self.outer_size.width
        strips = []
        for y in crop.line_range:
            strip = self.render_line(y)
            for line_filter in filters:
                strip = strip.apply_filter(line_filter, background)
            strips.append(strip)
        if width != self.size.width:
            strips = [strip.extend_cell_length(width) for strip in strips]
        return strips if crop.column_span == (0, width) else [strip.crop(crop.x, crop.right) for strip in strips]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        self._fit_columns()
        if y == 0:
            return self._head(width)
        index = self.top + y - 1
        shown = self.rows.shown
        if index >= len(shown) or (self.frozen and index >= self._count):
            self._painted.pop(y, None)
            strip = Strip.blank(width, self.rich_style)
        else:
            now = self.clock()
            row = shown[index]
            key = self._key(row, now)
            self._painted[y] = key
            found = self._strips.get(key)
            if found is None:
                found = self._strips[key] = self._draw(row, now, width)
            strip = found
        if y == self.size.height - 1:
            self._painted = {line: key for line, key in self._painted.items() if line <= y}
            if self._pending and not self.follow:
                pill = self._pill()
                strip = Strip.join([strip.crop(0, self.line_width - len(pill)), self.paint([(pill, "pill")], len(pill))])
        return strip

    def _pill(self) -> str:
        return f" +{self._pending:,} new · G to follow "

    def _head(self, width: int) -> Strip:
        base = self.rich_style + self.tone("head")
        return self.paint([(head(self._columns), "head")], width, base)

    def _fit_columns(self) -> None:
        if self._layout_width != self.line_width:
            self._layout_width = self.line_width
            self._columns = layout(self.line_width)

    def _draw(self, row: TransactionRow, now: float, width: int) -> Strip:
        selected = row.transaction_id == self.selected_id
        base = self._base("cursor" if selected and self.has_focus else "cursor-away" if selected else "")
        return self.paint(self._pieces(row, now, selected), width, base)

    def _pieces(self, row: TransactionRow, now: float, selected: bool) -> Iterator[Piece]:
        yield MARK if selected else " ", "accent"
        last = len(self._columns) - 1
        for place, (column, column_width) in enumerate(self._columns):
            text, tone = column.piece(row, now)
            if column.name == "verdict" and row.state == "held":
                text = f"{text}{self._held_for(row)}"
            yield fit(text, column_width, right=column.right) + ("" if place == last else " "), tone

    def _held_for(self, row: TransactionRow) -> str:
        hold = self.waiting.of_transaction(row.transaction_id)
        return "" if hold is None else f" {figures.countdown(self.wall() - hold.created)}"

    def _base(self, name: str) -> Style:
        base = self._bases.get(name)
        if base is None:
            base = self._bases[name] = self.rich_style + self.tone(name)
        return base
