"""The last line: the keys that work here, the most used first."""

from __future__ import annotations

from dataclasses import replace

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
        self.is_prompting = False

    def update(self, actions: tuple[Action, ...], *, is_prompting: bool, is_reading: bool) -> None:
        """Show these. Prompting: something is typed. Reading: the keys move an open text, so the way back comes first."""
        if is_reading:
            actions = tuple(replace(action, rank=-1) if action.name == "close" else action for action in actions)
        if (actions, is_prompting) != (self.actions, self.is_prompting):
            self.actions, self.is_prompting = actions, is_prompting
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        if self.is_prompting:
            return [
                (" enter", "key"),
                (" apply  ", "quiet"),
                ("esc", "key"),
                (" leave as it was  ", "quiet"),
                ("→", "key"),
                (" complete", "quiet"),
            ]
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
