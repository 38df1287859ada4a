"""A panel of prepared lines, some of which belong to something that can be chosen: the cursor stands on one such thing.

Subclasses give the lines for a width; a click chooses, and the chosen thing is marked on all of its lines.
"""

from __future__ import annotations

from textual.events import Click, Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from luthien_tui.textual_compat import grow, jump
from luthien_tui.widgets.paint import Painter, Piece

Line = tuple[list[Piece], int | None]
"""The pieces, and the thing that they belong to."""
LEAST_WIDTH = 30


class LinePanel(ScrollView, Painter, can_focus=True, inherit_bindings=False):
    """Draws `lines_for(width)`; `take_lines` asks for them anew."""

    DEFAULT_CSS = """
    LinePanel { width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; background: $background; }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.cursor = 0
        self._lines: list[Line] = []

    def lines_for(self, width: int) -> list[Line]:
        """Everything to be shown, in lines of at most `width` cells."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """How many things can be chosen."""
        raise NotImplementedError

    def take_lines(self) -> None:
        """Draw what there is now."""
        self._lines = self.lines_for(max(LEAST_WIDTH, self.size.width - 2))
        grow(self, Size(self.size.width, len(self._lines)))
        self.refresh()

    def reveal(self) -> None:
        """Bring what is chosen into sight, with what stands above the first."""
        places = [place for place, (_, thing) in enumerate(self._lines) if thing == self.cursor]
        if places and self.size.height:
            top = int(self.scroll_y)
            if places[0] < top:
                jump(self, 0 if self.cursor == 0 else places[0])
            elif places[-1] >= top + self.size.height:
                jump(self, places[-1] - self.size.height + 1)

    def move(self, lines: int) -> None:
        """Choose another thing; beyond the first and the last there is more to read."""
        at_end = lines > 0 and self.cursor >= self.count - 1
        at_start = lines < 0 and self.cursor == 0
        if at_end or at_start:
            jump(self, int(self.scroll_y) + lines)
        else:
            self.cursor = max(0, min(self.cursor + lines, self.count - 1))
            self.reveal()
        self.refresh()

    def move_first(self) -> None:
        self.cursor = 0
        jump(self, 0)
        self.refresh()

    def move_last(self) -> None:
        self.cursor = max(0, self.count - 1)
        jump(self, len(self._lines) - self.size.height)
        self.refresh()

    def on_click(self, event: Click) -> None:
        place = int(self.scroll_y) + event.y
        if place < len(self._lines) and (thing := self._lines[place][1]) is not None:
            self.cursor = thing
            self.refresh()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        self.take_lines()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        place = int(self.scroll_y) + y
        if place >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        pieces, thing = self._lines[place]
        here = thing is not None and thing == self.cursor
        is_first = here and (place == 0 or self._lines[place - 1][1] != thing)
        base = self.rich_style + self.tone("cursor" if self.has_focus else "cursor-away") if here else self.rich_style
        return self.paint([("▶" if is_first else " ", "accent"), *pieces], width, base)
