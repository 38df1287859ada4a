"""A conversation with a cursor: the viewer of long texts over sections, in which what is under the cursor can be acted on.

The cursor stays on what it stands on while turns come in or are unfolded. While the view follows, it is on the last row.
"""

from __future__ import annotations

from rich.style import Style
from textual.events import Click, Resize
from textual.message import Message

from luthien_tui.sections import Anchor, Section
from luthien_tui.textual_compat import jump
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.paint import Piece

MARK = "▶ "
_NOWHERE = Anchor("turn")


class ConversationView(BodyView):
    """Shows one Section."""

    class Acted(Message):
        """What is under the cursor was clicked once more."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.section = Section()
        self.cursor = 0

    @property
    def here(self) -> Anchor:
        """What the row under the cursor belongs to."""
        return self.section.anchors[self.cursor] if self.cursor < len(self.section) else _NOWHERE

    def put(self, section: Section) -> None:
        """Show this in place of what is shown; cursor and sight stay on what they stand on, if it is there still."""
        above = self.cursor - self.top
        if len(self.section):
            self.cursor = _same_place(self.section.anchors, self.cursor, section.anchors)
        self.section = section
        self.cursor = max(0, min(self.cursor, len(section) - 1))
        if self.follow:
            self.cursor = max(0, len(section) - 1)
        self.show(section, top=self.cursor - above)

    def begin(self, section: Section, *, at_end: bool) -> None:
        """Show another conversation, from its beginning or its end."""
        self.section = section
        self.follow = at_end
        self.cursor = max(0, len(section) - 1) if at_end else 0
        self.show(section)

    def go_to(self, row: int) -> None:
        """Put the cursor there and bring it into sight."""
        if not len(self.section):
            return
        row = max(0, min(row, len(self.section) - 1))
        for changed in (self.cursor, row):
            self._strips.discard(changed)
        self.cursor = row
        room = max(1, self.size.height)
        if row < self.top:
            jump(self, row)
        elif row >= self.top + room:
            jump(self, row - room + 1)
        self.refresh()

    # --- moving --------------------------------------------------------------------------------------------------

    def move(self, lines: int) -> None:
        self.follow = False
        if not self.top <= self.cursor < self.top + max(1, self.size.height):  # the wheel has left it behind
            self.go_to(self.top if lines > 0 else self.top + self.size.height - 1)
        self.go_to(self.cursor + lines)

    def move_first(self) -> None:
        self.follow = False
        self.go_to(0)

    def move_last(self) -> None:
        self.go_to(len(self.section) - 1)

    def step_turn(self, step: int) -> None:
        """Go to the line of the next turn, or of one before."""
        self.follow = False
        anchors = self.section.anchors
        row = self.cursor + step
        while 0 <= row < len(anchors) and not self._begins_turn(row):
            row += step
        if 0 <= row < len(anchors):
            self.go_to(row)
            jump(self, row)
            self.refresh()

    def _begins_turn(self, row: int) -> bool:
        anchor = self.section.anchors[row]
        return anchor.kind == "fold" and anchor.key == str(anchor.turn)

    def on_click(self, event: Click) -> None:
        row = self.top + event.y
        if row >= len(self.section):
            return
        if row == self.cursor:
            self.post_message(self.Acted())
        else:
            self.follow = False
            self.go_to(row)

    def on_resize(self, event: Resize) -> None:
        if self.cursor >= self.top + self.size.height:
            jump(self, self.cursor - self.size.height + 1)

    def _show_match(self) -> None:
        self.follow = False
        super()._show_match()
        self.go_to(self.matches[self.current_match][0])

    # --- drawing -------------------------------------------------------------------------------------------------

    def _base(self, index: int) -> Style:
        if index != self.cursor:
            return self.rich_style
        return self.rich_style + self.tone("cursor" if self.has_focus else "cursor-away")

    def _gutter(self, index: int) -> Piece:
        return (MARK, "accent") if index == self.cursor else super()._gutter(index)


def _same_place(before: list[Anchor], row: int, after: list[Anchor]) -> int:
    """Where the row is now that the rows are others: as many rows of what it belongs to stand before it."""
    anchor = before[row]
    number = before[:row].count(anchor)
    found = row
    for place, other in enumerate(after):
        if other == anchor:
            found = place
            number -= 1
            if number < 0:
                break
    return found
