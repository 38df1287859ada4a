"""The command palette's commands, from the registry of actions; what decides on something held is not among them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content

from luthien_tui.actions import Action, key_names


class ActionProvider(Provider):
    """Offers the actions that make sense now."""

    def _actions(self) -> Iterable[Action]:
        valid_actions: Callable[[], list[Action]] | None = getattr(self.app, "valid_actions", None)
        return [action for action in valid_actions() if not action.by_key_only] if valid_actions is not None else ()

    async def discover(self) -> Hits:
        for action in self._actions():
            yield DiscoveryHit(
                Content(f"{action.title}  {key_names(action)}"), self._run(action), action.title, action.description
            )

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._actions():
            if (score := matcher.match(f"{action.title} {action.description}")) > 0:
                yield Hit(score, Content(action.title), self._run(action), action.title, action.description)

    def _run(self, action: Action) -> Callable[[], Awaitable[Any]]:
        async def run() -> None:
            await self.app.run_action(action.name)

        return run
