"""What the views share in which a change is prepared by keys and put in force with enter."""

from __future__ import annotations

from luthien_tui.views.view import View, ViewContext

LOOK_EVERY_S = 1.0
"""How often the gateway is asked how things stand while they are looked at."""


class TuningView(View):
    """Asks the gateway how things stand, and says and asks things of the operator."""

    def __init__(self, context: ViewContext, *, id: str) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.plane = context.plane
        self.clock = context.clock
        self.say = context.say
        self.ask = context.ask
        self._is_applying = False
        self._looked = -float("inf")

    def entered(self) -> None:
        self.look()

    def look(self) -> None:
        """Ask the gateway how things stand."""
        raise NotImplementedError
