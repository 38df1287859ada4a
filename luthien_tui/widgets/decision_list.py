"""Where the latest transactions went, and by which rule and reason; the newest stands first."""

from __future__ import annotations

from collections.abc import Sequence

from textual.events import Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from luthien_tui import figures
from luthien_tui.text import cell
from luthien_tui.textual_compat import grow, jump
from luthien_tui.widgets.paint import Painter, Piece, fit
from proxy_core.control.routing_infos import DecisionInfo


class DecisionList(ScrollView, Painter, can_focus=True, inherit_bindings=False):
    """Line 0 is the head; the keys of movement scroll."""

    DEFAULT_CSS = """
    DecisionList { width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    def __init__(self) -> None:
        super().__init__(id="decisions")
        self.decisions: Sequence[DecisionInfo] = ()

    def show(self, decisions: Sequence[DecisionInfo]) -> None:
        """Draw these."""
        self.decisions = decisions
        grow(self, Size(self.size.width, len(decisions) + 1))
        self.refresh()

    def move(self, lines: int) -> None:
        last = max(0, len(self.decisions) + 1 - self.size.height)
        jump(self, max(0, min(int(self.scroll_y) + lines, last)))

    def move_first(self) -> None:
        jump(self, 0)

    def move_last(self) -> None:
        self.move(len(self.decisions))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        grow(self, Size(self.size.width, len(self.decisions) + 1))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        rule_room = 12 if width >= 70 else 0  # the reason names the rule well enough
        model = max(8, min(24, width - 46 - rule_room))
        if y == 0:
            head = f" {fit('time', 8)} {fit('model', model)} {fit('via', 10)} {fit('rule', rule_room)}reason"
            marked = "accent" if self.has_focus else "head"
            return self.paint([(head, marked)], width, self.rich_style + self.tone("head"))
        place = int(self.scroll_y) + y - 1
        if not self.decisions and y == 2:
            return self.paint([("  Nothing was routed yet.", "quiet")], width)
        if place >= len(self.decisions):
            return Strip.blank(width, self.rich_style)
        one = self.decisions[place]
        via: Piece = (fit(cell(one.upstream), 10), "strong") if one.upstream else (fit("✗ refused", 10), "error")
        pieces: list[Piece] = [
            (f" {figures.clock(one.at)} ", "quiet"),
            (fit(cell(one.model) or figures.UNKNOWN, model) + " ", ""),
            via,
            (f" {fit(one.rule or figures.UNKNOWN, rule_room)}", "quiet"),
            (", ".join(map(cell, one.reasons)), "notice" if one.rule not in ("default", "") else "quiet"),
        ]
        return self.paint(pieces, width)
