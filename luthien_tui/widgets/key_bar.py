"""The last line: the keys that work here, the most used first."""

from __future__ import annotations

from rich.cells import cell_len

from luthien_tui.actions import Action, key_name
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.strip_bar import StripBar


class KeyBar(StripBar):
    """As many hints as fit; help is always among them."""

    DEFAULT_CSS = "KeyBar { background: $panel; }"

    def __init__(self) -> None:
        super().__init__(id="keys")
        self.actions: tuple[Action, ...] = ()

    def update(self, actions: tuple[Action, ...]) -> None:
        if actions != self.actions:
            self.actions = actions
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
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
        pieces: list[Piece] = [(" ", "")]
        for action in [*[action for action in chosen if action.name != "help"], *helps]:
            pieces += [(self._key(action), f"key@{action.name}"), (f" {action.hint}  ", f"quiet@{action.name}")]
        return pieces

    @staticmethod
    def _key(action: Action) -> str:
        return "←→" if action.name == "next_tab" else key_name(action.keys[0])
