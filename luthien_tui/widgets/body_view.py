"""The viewer of long texts: draws only the rows in sight, searches, and can stay at the end while a text grows.

Each row stands behind a gutter that the text cannot draw on, so nothing in a body can pass for a part of the program.
"""

from __future__ import annotations

import asyncio

from rich.segment import Segment
from rich.style import Style
from textual.cache import LRUCache
from textual.events import Resize
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from luthien_tui.documents import Document
from luthien_tui.textual_compat import grow, jump
from luthien_tui.widgets.paint import Painter, Piece
from proxy_core.tasks import spawn

LONG_TEXT = 5_000
"""Rows above which a search leaves the loop."""
GUTTER = 2
"""Cells before the text."""


class BodyView(ScrollView, Painter, can_focus=True, inherit_bindings=False):
    """Shows one Document."""

    DEFAULT_CSS = """
    BodyView { height: 1fr; width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.document = Document()
        self.follow = False
        """Whether the view stays at the end of a growing text."""
        self.query_text = ""
        self.matches: list[tuple[int, int, int]] = []
        self.current_match = -1
        self._strips: LRUCache[int, Strip] = LRUCache(400)
        self._spans: dict[int, list[tuple[int, int, int]]] = {}

    @property
    def text_width(self) -> int:
        """Cells that a row of text has, between gutter and scrollbar."""
        return max(8, self.size.width - GUTTER - 1)

    @property
    def top(self) -> int:
        return int(self.scroll_y)

    def show(self, document: Document, *, top: int = 0) -> None:
        """Show another document from row `top` on; a search goes on in it."""
        self.document = document
        self.search(self.query_text, jump_to_first=False)
        self._strips.clear()
        grow(self, Size(self.size.width, len(document)))
        jump(self, self.max_scroll_y if self.follow else top)
        self.refresh()

    def grown(self, first_changed: int) -> None:
        """Rows from `first_changed` on were added or replaced."""
        for row in range(first_changed, len(self.document)):
            self._strips.discard(row)
        grow(self, Size(self.size.width, len(self.document)))
        if self.follow:
            before = self.top
            jump(self, self.max_scroll_y)
            if self.top != before:
                self.refresh()
                return
        low = max(0, first_changed - self.top)
        if low < self.size.height:
            self.refresh(Region(0, low, self.size.width, self.size.height - low))

    # --- moving --------------------------------------------------------------------------------------------------

    def move(self, lines: int) -> None:
        jump(self, self.top + lines)
        self.follow = self.follow and self.top >= self.max_scroll_y
        self.refresh()

    def move_first(self) -> None:
        self.follow = False
        jump(self, 0)
        self.refresh()

    def move_last(self) -> None:
        jump(self, self.max_scroll_y)
        self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(new_value) < round(old_value):
            self.follow = False

    # --- searching -----------------------------------------------------------------------------------------------

    def search(self, text: str, *, jump_to_first: bool = True) -> None:
        """Mark every match; go to the first at or below the top row. A long text is searched in a thread."""
        self.query_text = text
        if text and len(self.document) > LONG_TEXT:
            spawn(self._search_long(text, self.document, jump_to_first), name="search")
        else:
            self._mark(self.document.find(text), jump_to_first)

    async def _search_long(self, text: str, document: Document, jump_to_first: bool) -> None:
        matches = await asyncio.to_thread(document.find, text)
        if (text, document) == (self.query_text, self.document) and self.is_attached:
            self._mark(matches, jump_to_first)

    def _mark(self, matches: list[tuple[int, int, int]], jump_to_first: bool) -> None:
        self.matches = matches
        self._spans.clear()
        for place, (row, low, high) in enumerate(self.matches):
            self._spans.setdefault(row, []).append((low, high, place))
        self._strips.clear()
        below = [place for place, (row, _, _) in enumerate(self.matches) if row >= self.top]
        self.current_match = (below or [0])[0] if self.matches else -1
        if jump_to_first and self.matches:
            self._show_match()
        self.refresh()

    def step_match(self, step: int) -> None:
        if self.matches:
            self.current_match = (self.current_match + step) % len(self.matches)
            self._strips.clear()
            self._show_match()
            self.refresh()

    def _show_match(self) -> None:
        row = self.matches[self.current_match][0]
        if not self.top <= row < self.top + self.size.height:
            self.follow = False
            jump(self, row - self.size.height // 3)

    # --- drawing -------------------------------------------------------------------------------------------------

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()

    def forget_tones(self) -> None:
        super().forget_tones()
        self._strips.clear()

    def on_focus(self) -> None:
        self._strips.clear()
        self.refresh()

    def on_blur(self) -> None:
        self._strips.clear()
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        self._strips.clear()
        grow(self, Size(self.size.width, len(self.document)))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        index = self.top + y
        if index >= len(self.document):
            return Strip.blank(width, self.rich_style)
        strip = self._strips.get(index)
        if strip is None:
            strip = self._strips[index] = self._draw(index)
        return strip.adjust_cell_length(width, self._base(index))

    def _base(self, index: int) -> Style:
        """The style that a row stands on."""
        return self.rich_style

    def _gutter(self, index: int) -> Piece:
        """What stands before a row."""
        return "┊ " if self.document.continued[index] else "│ ", "bar" if self.has_focus else "gutter"

    def _draw(self, index: int) -> Strip:
        base = self._base(index)
        mark, mark_tone = self._gutter(index)
        segments = [Segment(mark, base + self.tone(mark_tone))]
        spans = self._spans.get(index)
        pieces = self.document.pieces(index)
        if not spans:
            segments += [Segment(text, base + self.tone(tone)) for text, tone in pieces]
            return Strip(segments)
        position = 0
        for text, tone in pieces:
            start, end = position, position + len(text)
            for low, high, place in spans:
                if high <= start or low >= end:
                    continue
                low, high = max(low, start), min(high, end)
                if low > start:
                    segments.append(Segment(text[start - position : low - position], base + self.tone(tone)))
                name = "match-here" if place == self.current_match else "match"
                segments.append(Segment(text[low - position : high - position], base + self.tone(name)))
                start = high
            if start < end:
                segments.append(Segment(text[start - position :], base + self.tone(tone)))
            position = end
        return Strip(segments)
