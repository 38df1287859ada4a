"""The line over a hold: what it is, how it stands, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable

from luthien_tui import figures, glyphs
from luthien_tui.hold_documents import one_line, stage_name
from luthien_tui.text import cell
from luthien_tui.widgets.paint import Piece, spread
from luthien_tui.widgets.strip_bar import StripBar
from proxy_core.control.plane import HoldInfo


class HoldTitle(StripBar):
    """What is displayed, and the time that is left."""

    DEFAULT_CSS = "HoldTitle { background: $surface; }"

    def __init__(self, wall: Callable[[], float]) -> None:
        super().__init__()
        self.wall = wall
        self.hold: HoldInfo | None = None

    def line(self, y: int, width: int) -> list[Piece]:
        hold = self.hold
        if hold is None:
            return [(" ", "")]
        face = glyphs.HOLDS.get(hold.status, glyphs.Face("?", cell(hold.status), "notice"))
        left: list[Piece] = [(f" {face.sign} {face.word} ", face.tone), (f" {stage_name(hold)} ", "strong")]
        left.append((one_line(hold, None) if hold.stage == "tool_call" else cell(hold.session_id), "quiet"))
        if hold.status != "pending":
            return spread(left, [], width)
        end = {"deny": "denies", "approve": "approves"}.get(hold.on_timeout, "ends")
        return spread(left, [(f"  {end} itself in {figures.countdown(hold.deadline - self.wall())} ", "warning")], width)
