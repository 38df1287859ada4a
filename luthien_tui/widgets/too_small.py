"""What stands on a terminal that is too small; the gateway goes on."""

from __future__ import annotations

from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.strip_bar import StripBar

LEAST_WIDTH, LEAST_HEIGHT = 60, 15


def too_small(width: int, height: int) -> bool:
    return width < LEAST_WIDTH or height < LEAST_HEIGHT


class TooSmall(StripBar):
    DEFAULT_CSS = "TooSmall { height: 1fr; display: none; }"

    def line(self, y: int, width: int) -> list[Piece]:
        if y:
            return [("", "")]
        return [(f"luthien needs {LEAST_WIDTH}x{LEAST_HEIGHT}, this is {self.app.size.width}x{self.app.size.height}", "warning")]
