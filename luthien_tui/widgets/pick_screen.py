"""A small window with a list to choose from: by arrows and enter, by the item's own key, or by typing what to look for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Click, Key
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input

from luthien_tui.textual_compat import VisibleInput, grow, jump
from luthien_tui.widgets.paint import Painter, Piece, fit
from luthien_tui.widgets.strip_bar import StripBar


@dataclass(frozen=True, slots=True)
class PickItem:
    """One line: what it gives, the key that chooses it, its title, and a note at its right. No key and no value: a heading."""

    value: str
    key: str
    title: str
    note: str = ""


class PickTitle(StripBar):
    DEFAULT_CSS = "PickTitle { background: $panel; }"

    def __init__(self, title: str, hint: str) -> None:
        super().__init__()
        self.title = title
        self.hint = hint

    def line(self, y: int, width: int) -> list[Piece]:
        space = max(1, width - len(self.title) - len(self.hint) - 2)
        return [(f" {self.title}", "strong"), (" " * space, ""), (f"{self.hint} ", "quiet")]


class PickList(ScrollView, Painter, can_focus=False, inherit_bindings=False):
    """The items in sight."""

    DEFAULT_CSS = "PickList { height: 1fr; background: $surface; overflow-x: hidden; scrollbar-size-vertical: 1; }"

    def __init__(self, items: Sequence[PickItem], key_width: int) -> None:
        super().__init__()
        self.all_items = list(items)
        self.items = list(items)
        self.key_width = key_width
        self.cursor = 0
        self.move(0)

    def narrow(self, wanted: str) -> None:
        words = wanted.lower().split()
        self.items = [
            item
            for item in self.all_items
            if (item.value or not words) and all(word in f"{item.key} {item.title} {item.note}".lower() for word in words)
        ]
        self.cursor = 0
        grow(self, Size(self.size.width, len(self.items)))
        self.move(0)

    @property
    def chosen(self) -> PickItem | None:
        return self.items[self.cursor] if self.items and self.items[self.cursor].value else None

    def move(self, lines: int) -> None:
        places = [place for place, item in enumerate(self.items) if item.value]
        if places:
            step = 1 if lines >= 0 else -1
            wanted = max(places[0], min(self.cursor + lines, places[-1]))
            while not self.items[wanted].value:
                wanted += step
            self.cursor = wanted
        if self.is_attached and self.size.height:
            top = int(self.scroll_y)
            if self.cursor < top or (self.cursor == places[0] if places else False):
                jump(self, self.cursor - 1)
            elif self.cursor >= top + self.size.height:
                jump(self, self.cursor - self.size.height + 1)
        self.refresh()

    def on_mount(self) -> None:
        grow(self, Size(self.size.width, len(self.items)))

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        index = int(self.scroll_y) + y
        if index >= len(self.items):
            text = "  nothing found" if not self.items and y == 0 else ""
            return self.paint([(text, "quiet")], width)
        item = self.items[index]
        if not item.value:
            return self.paint([(f" {item.title}", "accent")], width)
        here = index == self.cursor
        base = self.rich_style + self.tone("cursor") if here else self.rich_style
        key = fit(item.key, self.key_width)
        title_width = min(24, max(len(each.title) for each in self.all_items) + 2)
        pieces: list[Piece] = [("▶ " if here else "  ", "accent"), (key, "key"), ("  " if self.key_width else "", "")]
        pieces += [(fit(item.title, title_width), ""), (item.note, "quiet")]
        return self.paint(pieces, width, base)

    async def on_click(self, event: Click) -> None:
        index = int(self.scroll_y) + event.y
        if index < len(self.items) and self.items[index].value:
            self.cursor = index
            screen = self.screen
            if isinstance(screen, PickScreen):
                screen.choose()


class PickScreen(ModalScreen[str]):
    """Gives the value of the chosen item, or an empty text where none was chosen."""

    DEFAULT_CSS = """
    PickScreen { align: center middle; background: $background 60%; }
    PickScreen > Vertical { width: 76; max-width: 96%; height: auto; max-height: 90%; background: $surface;
        border: round $accent-muted; }
    PickScreen PickTitle { height: 1; }
    PickScreen PickList { height: auto; }
    PickScreen Input, PickScreen Input:focus { border: none; height: 1; padding: 0 1; background: $boost; }
    """
    BINDINGS = [  # noqa: RUF012 - Textual's own declaration
        Binding("escape", "leave", show=False),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("pagedown", "move(10)", show=False, priority=True),
        Binding("pageup", "move(-10)", show=False, priority=True),
        Binding("enter", "choose", show=False, priority=True),
    ]

    def __init__(
        self,
        title: str,
        items: Sequence[PickItem],
        *,
        searchable: bool = False,
        highlighted: Callable[[str], None] | None = None,
        start: str = "",
    ) -> None:
        super().__init__()
        self._title = title
        self._items = items
        self._searchable = searchable
        self._highlighted = highlighted
        key_width = max((len(item.key) for item in items), default=0)
        self.list = PickList(items, key_width)
        for place, item in enumerate(items):
            if start and item.value == start:
                self.list.cursor = place

    def compose(self) -> ComposeResult:
        with Vertical() as window:
            yield PickTitle(self._title, "enter choose · esc close")
            if self._searchable:
                found = VisibleInput(placeholder="type to search", select_on_focus=False)
                found.cursor_blink = False
                yield found
            yield self.list
        window.styles.height = min(len(self._items) + 3 + self._searchable, max(6, int(self.app.size.height * 0.9)))
        self.list.styles.height = "1fr"

    def on_mount(self) -> None:
        if self._searchable:
            self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.list.narrow(event.value)
        self._tell()

    def on_key(self, event: Key) -> None:
        if self._searchable:
            return
        for item in self._items:
            if item.key and item.value and event.key == item.key:
                event.stop()
                self.dismiss(item.value)
                return
        if event.key in ("j", "k"):
            self.action_move(1 if event.key == "j" else -1)
        elif event.key == "q":
            self.action_leave()

    def _tell(self) -> None:
        if self._highlighted is not None and (chosen := self.list.chosen) is not None:
            self._highlighted(chosen.value)

    def action_move(self, lines: int) -> None:
        self.list.move(lines)
        self._tell()

    def action_leave(self) -> None:
        self.dismiss("")

    def action_choose(self) -> None:
        self.choose()

    def choose(self) -> None:
        chosen = self.list.chosen
        self.dismiss(chosen.value if chosen is not None else "")
