"""The policies of every chain in order: how each is set, how often it ran and acted, what it costs and keeps back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from textual.events import Click, Resize
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from luthien_tui import figures, glyphs
from luthien_tui.policy_changes import Pending
from luthien_tui.text import cell
from luthien_tui.textual_compat import grow, jump
from luthien_tui.widgets.paint import Painter, Piece, fit
from proxy_core.control.plane import PolicyInfo

_NOTHING = Pending()


def _mode(policy: PolicyInfo, pending: Pending) -> Piece:
    if policy.sends:
        return "● sends", "quiet"
    face = glyphs.MODES.get(pending.mode_of(policy), glyphs.Face("?", cell(policy.mode), "notice"))
    mark = " *" if pending else ""
    return f"{face.sign} {face.word}{mark}", "warning" if pending else face.tone


def _count(value: int, *, of: PolicyInfo) -> Piece:
    return (figures.UNKNOWN, "quiet") if of.sends or not value else (figures.count(value), "")


def _errors(policy: PolicyInfo) -> Piece:
    if policy.errors_1h:
        return f"{cell(policy.on_error)} ✗{figures.count(policy.errors_1h)}", "error"
    return ("" if policy.sends else cell(policy.on_error)), "quiet"


@dataclass(frozen=True, slots=True)
class PolicyColumn:
    title: str
    width: int
    piece: Callable[[PolicyInfo, Pending], Piece]
    from_width: int = 0
    right: bool = False


COLUMNS: tuple[PolicyColumn, ...] = (
    PolicyColumn("#", 3, lambda one, pending: (str(one.position), "quiet"), right=True),
    PolicyColumn("policy", 20, lambda one, pending: (cell(one.name), "quiet" if one.mode == "off" else "strong")),
    PolicyColumn("mode", 11, _mode),
    PolicyColumn("on error", 9, lambda one, pending: _errors(one)),
    PolicyColumn("hits 1h", 7, lambda one, pending: (figures.count(one.hits_1h), "" if one.hits_1h else "quiet"), right=True),
    PolicyColumn("60 min", 15, lambda one, pending: (figures.sparkline(one.per_minute, 15), "bar"), from_width=96),
    PolicyColumn("acted", 6, lambda one, pending: _count(one.acted_1h, of=one), 64, right=True),
    PolicyColumn("shadow", 6, lambda one, pending: _count(one.shadow_1h, of=one), 71, right=True),
    PolicyColumn("p99", 6, lambda one, pending: (figures.duration(one.p99_ms), "" if one.p99_ms else "quiet"), 78, right=True),
    PolicyColumn("buffers", 7, lambda one, pending: ("" if one.sends else cell(one.release), "quiet"), 88),
    PolicyColumn("source", 9, lambda one, pending: (cell(one.source).partition(" ")[0], "quiet"), 118),
)  # fmt: skip


class PolicyTable(ScrollView, Painter, can_focus=True, inherit_bindings=False):
    """Line 0 is the head; a chain begins with its name where there are several."""

    DEFAULT_CSS = """
    PolicyTable { height: auto; width: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    """

    class Selected(Message):
        """Another policy is selected."""

    def __init__(self) -> None:
        super().__init__(id="policies-table")
        self.policies: Sequence[PolicyInfo] = ()
        self.pending: Mapping[str, Pending] = {}
        self.selected_name = ""
        self._lines: list[PolicyInfo | str] = []

    @property
    def selected(self) -> PolicyInfo | None:
        return next((one for one in self.policies if one.name == self.selected_name), None)

    def show(self, policies: Sequence[PolicyInfo], pending: Mapping[str, Pending]) -> None:
        """Draw these."""
        self.policies, self.pending = policies, pending
        before = len(self._lines)
        chains = list(dict.fromkeys(one.chain for one in policies))
        self._lines = []
        for chain in chains:
            if len(chains) > 1:
                self._lines.append(chain)
            self._lines += [one for one in policies if one.chain == chain]
        if self.selected is None and policies:
            self.selected_name = policies[0].name
        grow(self, Size(self.size.width, len(self._lines) + 1))
        self.refresh(layout=len(self._lines) != before)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(3, len(self._lines) + 1) + 1

    def _select(self, place: int) -> None:
        line = self._lines[place]
        if isinstance(line, str) or line.name == self.selected_name:
            return
        self.selected_name = line.name
        top, room = int(self.scroll_y), self.size.height - 1
        if place < top:
            jump(self, place)
        elif place >= top + room:
            jump(self, place - room + 1)
        self.refresh()
        self.post_message(self.Selected())

    def move(self, lines: int) -> None:
        places = [place for place, line in enumerate(self._lines) if not isinstance(line, str)]
        here = next((i for i, place in enumerate(places) if self._name_at(place) == self.selected_name), 0)
        if places:
            self._select(places[max(0, min(here + lines, len(places) - 1))])

    def _name_at(self, place: int) -> str:
        line = self._lines[place]
        return line if isinstance(line, str) else line.name

    def move_first(self) -> None:
        self.move(-len(self._lines))

    def move_last(self) -> None:
        self.move(len(self._lines))

    def on_click(self, event: Click) -> None:
        place = int(self.scroll_y) + event.y - 1
        if event.y >= 1 and place < len(self._lines):
            self._select(place)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def on_resize(self, event: Resize) -> None:
        grow(self, Size(self.size.width, len(self._lines) + 1))

    # --- drawing -------------------------------------------------------------------------------------------------

    def _columns(self, width: int) -> list[tuple[PolicyColumn, int]]:
        shown = [column for column in COLUMNS if width >= column.from_width]
        spare = max(0, width - 2 - sum(column.width + 1 for column in shown))
        return [(column, column.width + (min(spare, 20) if column.title == "policy" else 0)) for column in shown]

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            titles = " ".join(fit(column.title, room, right=column.right) for column, room in self._columns(width - 1))
            return self.paint([(f" {titles}", "head")], width, self.rich_style + self.tone("head"))
        place = int(self.scroll_y) + y - 1
        if not self._lines and y == 2:
            return self.paint([("  No policy is configured: requests go straight to their upstream.", "quiet")], width)
        if place >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        line = self._lines[place]
        if isinstance(line, str):
            return self.paint([(" chain ", "quiet"), (cell(line), "accent")], width)
        here = line.name == self.selected_name
        base = self.rich_style + self.tone("cursor" if here and self.has_focus else "cursor-away") if here else self.rich_style
        pieces: list[Piece] = [("▶" if here else " ", "accent")]
        for column, room in self._columns(width - 1):
            text, tone = column.piece(line, self.pending.get(line.name, _NOTHING))
            pieces.append((fit(text, room, right=column.right) + " ", tone))
        return self.paint(pieces, width, base)
