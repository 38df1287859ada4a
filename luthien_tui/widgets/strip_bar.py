"""A bar of fixed height that is drawn, never laid out; parts of it can be clicked to run an action."""

from __future__ import annotations

from rich.cells import cell_len
from textual.events import Click
from textual.geometry import Size
from textual.strip import Strip

from luthien_tui.widgets.paint import Painter, Piece


class StripBar(Painter):
    """Subclasses give the pieces of each line; a tone ending in `@action` makes the piece clickable."""

    DEFAULT_CSS = "StripBar { height: 1; width: 1fr; }"

    def line(self, y: int, width: int) -> list[Piece]:
        """The pieces of line `y`."""
        raise NotImplementedError

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        pieces = [(text, tone.partition("@")[0]) for text, tone in self.line(y, width)]
        return self.paint(pieces, width)

    async def on_click(self, event: Click) -> None:
        position = 0
        for text, tone in self.line(event.y, self.size.width):
            position += cell_len(text)
            if event.x < position:
                if action := tone.partition("@")[2]:
                    event.stop()
                    await self.app.run_action(action)
                return
