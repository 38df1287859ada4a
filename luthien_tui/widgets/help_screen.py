"""The help: every action that works here, searchable, and enter runs it."""

from __future__ import annotations

from collections.abc import Iterable

from luthien_tui.actions import Action, key_names
from luthien_tui.widgets.pick_screen import PickItem, PickScreen


class HelpScreen(PickScreen):
    """Made from the registry of actions."""

    def __init__(self, actions: Iterable[Action]) -> None:
        actions = list(actions)
        items: list[PickItem] = []
        for group in dict.fromkeys(action.group for action in actions):
            items.append(PickItem("", "", group))
            items += [
                PickItem(action.name, key_names(action), action.title, action.description)
                for action in actions
                if action.group == group
            ]
        super().__init__("Keys that work here", items, searchable=True)
