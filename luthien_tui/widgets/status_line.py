"""The line above the keys: filter and counts, whether the list follows, the store, the loop."""

from __future__ import annotations

from dataclasses import dataclass

from luthien_tui import figures
from luthien_tui.text import cell
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.paint import Piece, pieces_width, spread
from luthien_tui.widgets.strip_bar import StripBar
from proxy_core.control.plane import GatewayState


@dataclass(frozen=True, slots=True)
class Standing:
    """What the status line says about the view."""

    filter_text: str = ""
    shown: int = 0
    total: int = 0
    progress: float = 1.0
    count: str = ""
    """What stands in the place of the counts of rows; empty: those."""
    mode: str = "FOLLOW"
    search: str = ""
    missed: int = 0
    """Feed records that were lost because the screen was behind."""
    facts: str = ""
    """What is worth a look where there is room for all of it."""
    said: str = ""
    """A word to the operator where a toast would cover what they decide on."""
    is_warning: bool = False


def search_words(body: BodyView | None) -> str:
    """How a search in this text stands; empty where there is none."""
    if body is None or not body.query_text:
        return ""
    found = len(body.matches)
    return f"{body.query_text}  {f'{body.current_match + 1}/{found}' if found else 'nothing found'}"


class StatusLine(StripBar):
    """One line, drawn from a Standing and the gateway's state."""

    DEFAULT_CSS = "StatusLine { background: $surface; }"

    def __init__(self, state: GatewayState) -> None:
        super().__init__(id="status")
        self.state = state
        self.standing = Standing()

    def update(self, state: GatewayState, standing: Standing) -> None:
        if (state, standing) != (self.state, self.standing):
            self.state, self.standing = state, standing
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        standing, state = self.standing, self.state
        left: list[Piece] = []
        if standing.filter_text:
            left += [(" filter ", "quiet@edit_filter"), (cell(standing.filter_text), "accent@edit_filter")]
        if standing.search:
            left += [(" / ", "quiet"), (cell(standing.search), "notice")]
        if standing.said:
            left.append((f" {cell(standing.said)}", "warning" if standing.is_warning else "notice"))
        right: list[Piece] = []
        if standing.progress < 1:
            right.append((f"filtering {standing.progress:.0%}   ", "busy"))
        elif standing.count:
            right.append((f"{standing.count}   ", "strong" if standing.filter_text else "quiet"))
        elif standing.filter_text:
            right.append((f"{standing.shown:,}/{standing.total:,}   ", "strong"))
        elif standing.mode:
            right.append((f"{standing.total:,} rows   ", "quiet"))
        if standing.missed:
            right.append((f"{standing.missed:,} skipped   ", "warning"))
        if standing.mode:
            tone = {"FOLLOW": "ok", "FROZEN": "badge"}.get(standing.mode, "warning")
            text = f" {standing.mode} " if standing.mode == "FROZEN" else standing.mode
            right += [(text, f"{tone}@follow"), ("   ", "")]
        journal_ok = state.journal_status == "ok"
        right.append(
            (f"{state.store} {'✓' if journal_ok else '✗ ' + state.journal_status}", "quiet" if journal_ok else "warning")
        )
        if width >= 100 or state.journal_queue:
            right.append((f" {state.journal_queue} queued", "quiet"))
        right.append((f"   lag {figures.duration(state.loop_lag_ms)} ", "quiet" if state.loop_lag_ms < 20 else "warning"))
        if standing.facts and not left and len(standing.facts) + 2 + pieces_width(right) <= width:
            left.append((f" {standing.facts}", "quiet"))
        return spread(left, right, width)
