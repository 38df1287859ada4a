"""The last line: the keys that work here, the most used first. A click runs what it names, but never a decision."""

from __future__ import annotations

from dataclasses import replace

from rich.cells import cell_len

from luthien_tui.actions import Action, key_name
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.strip_bar import StripBar

WAYS_BACK = ("close", "leave_hold")


class KeyBar(StripBar):
    """As many hints as fit; help is always among them."""

    DEFAULT_CSS = "KeyBar { background: $panel; }"

    def __init__(self) -> None:
        super().__init__(id="keys")
        self.actions: tuple[Action, ...] = ()
        self.typing: tuple[tuple[str, str], ...] = ()

    def update(self, actions: tuple[Action, ...], *, typing: tuple[tuple[str, str], ...], is_reading: bool) -> None:
        """Show these. `typing`: keys and words instead, while something is typed. Reading: the keys move an open text, so
        the way back comes first."""
        if is_reading:
            actions = tuple(replace(action, rank=-1) if action.name in WAYS_BACK else action for action in actions)
        if (actions, typing) != (self.actions, self.typing):
            self.actions, self.typing = actions, typing
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        pieces: list[Piece] = [(" ", "")]
        if self.typing:
            for key, words in self.typing:
                pieces += [(key, "key"), (f" {words}  ", "quiet")]
            return pieces
        room = width - 1
        limit = 6 if width < 100 else 12
        chosen: list[Action] = []
        for action in sorted(self.actions, key=lambda action: action.rank):
            length = cell_len(self._key(action)) + len(action.hint) + 3
            if length > room or len(chosen) == limit:
                break
            room -= length
            chosen.append(action)
        helps = [action for action in chosen if action.name == "help"]
        for action in [*[action for action in chosen if action.name != "help"], *helps]:
            click = "" if action.by_key_only else f"@{action.name}"
            pieces += [(self._key(action), f"key{click}"), (f" {action.hint}  ", f"quiet{click}")]
        return pieces

    @staticmethod
    def _key(action: Action) -> str:
        return "←→" if action.name in ("next_tab", "raise", "next_turn") else key_name(action.keys[0])
