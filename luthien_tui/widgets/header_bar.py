"""The first two lines: where traffic goes in and how it fares, then the views with their counts."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len

from luthien_tui import figures
from luthien_tui.text import cell
from luthien_tui.widgets.paint import Piece, pieces_width
from luthien_tui.widgets.strip_bar import StripBar
from proxy_core.control.plane import GatewayState
from proxy_core.control.rates import Rates

LAG_LIMIT_MS = 50.0
"""Loop lag above which the header warns, if it lasts."""
LASTING = 4
"""Updates in a row after which a lag lasts; one late moment is seen by two."""
SPARKLINE_WIDTH = 8
_SIGNS = {"serving": ("●", "ok"), "draining": ("◐", "warning"), "stopped": ("○", "error")}


def trouble(state: GatewayState, *, lags: bool = True) -> str:
    """What is wrong with the gateway, in a few words; empty if nothing is. `lags`: whether a late loop is worth a word."""
    if state.status != "serving":
        return state.status
    if state.journal_status != "ok":
        return f"journal {state.journal_status}" + (f", {state.spilled:,} in the spool" if state.spilled else "")
    if lags and state.loop_lag_ms > LAG_LIMIT_MS:
        return f"loop lags {figures.duration(state.loop_lag_ms)}"
    return ""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the names of the views carry."""

    held: int = 0
    """Holds that wait for the operator."""
    active_sessions: int = 0
    """Sessions with a request in the last five minutes."""
    prepared: int = 0
    """Policies with a change that is not in force yet."""
    is_kept_local: bool = False
    """Whether an operator keeps every request local."""
    log_errors: int = 0
    """Messages of level ERROR and above that nobody has looked at yet."""


class HeaderBar(StripBar):
    """Address, health and rates; views."""

    DEFAULT_CSS = """
    HeaderBar { height: 2; background: $panel; }
    HeaderBar.-trouble { background: $warning-muted; }
    """

    def __init__(self, state: GatewayState, rates: Rates) -> None:
        super().__init__(id="header")
        self.state = state
        self.rates = rates
        self.view = "live"
        self.counts = Counts()
        self._late = 0

    def update(self, state: GatewayState, rates: Rates, view: str, counts: Counts) -> None:
        """Show these; repaints only where something changed."""
        was_late = self._late >= LASTING
        self._late = self._late + 1 if state.loop_lag_ms > LAG_LIMIT_MS else 0
        told = (self.state, self.rates, self.view, self.counts, was_late)
        if (state, rates, view, counts, self._late >= LASTING) == told:
            return
        self.state, self.rates, self.view, self.counts = state, rates, view, counts
        self.set_class(bool(self._trouble()), "-trouble")
        self.refresh()

    def _trouble(self) -> str:
        return trouble(self.state, lags=self._late >= LASTING)

    def line(self, y: int, width: int) -> list[Piece]:
        return self._health(width) if y == 0 else self._views(width)

    def _health(self, width: int) -> list[Piece]:
        state, rates = self.state, self.rates
        sign, tone = _SIGNS.get(state.status, ("?", "warning"))
        pieces: list[Piece] = [(" luthien", "accent"), (f"  {cell(state.address)}", "strong"), (f"  {sign} ", tone)]
        wrong = self._trouble()
        if wrong and state.status == "serving":
            pieces[-1] = ("  ▲ ", "warning")
        pieces.append((wrong or state.status, "warning" if wrong else "ok"))
        if state.demo:
            pieces += [("  ", ""), (" DEMO ", "badge")]
        spark = figures.sparkline(rates.sparkline, SPARKLINE_WIDTH if width >= 110 else 0)
        facts: list[list[Piece]] = [
            [(figures.rate(rates.rps), "strong"), (" rps ", "quiet"), (spark, "bar")],
            [("p50 ", "quiet"), (figures.duration(rates.p50_ms), ""), (" p99 ", "quiet"), (figures.duration(rates.p99_ms), "")],
            [("err ", "quiet"), (figures.share(rates.error_share), "error" if rates.error_share else "")],
            [("ttft ", "quiet"), (figures.duration(rates.ttft_ms), "")],
            [(figures.rate(rates.tokens_per_s), ""), (" tok/s", "quiet")],
            [("–" if rates.usd_per_hour is None else f"${rates.usd_per_hour:,.2f}", ""), ("/h", "quiet")],
        ]
        used = pieces_width(pieces)
        taken: list[list[Piece]] = []
        for fact in facts:
            length = pieces_width(fact) + 2
            if used + length + 1 > width:
                break
            used += length
            taken.append(fact)
        gap = 3 if used + len(taken) + 1 <= width else 2
        for fact in taken:
            pieces += [(" " * gap, ""), *fact]
        return pieces

    def _views(self, width: int) -> list[Piece]:
        pieces: list[Piece] = [(" ", "")]
        counts = self.counts
        views = (
            ("1", "live", "Live", f" {self.state.active}" if self.state.active else "", "quiet"),
            ("2", "holds", "Holds", f" ●{counts.held:,}" if counts.held else "", "warning"),
            ("3", "sessions", "Sessions", f" {counts.active_sessions:,}" if counts.active_sessions else "", "quiet"),
            ("4", "policies", "Policies", f" *{counts.prepared}" if counts.prepared else "", "warning"),
            ("5", "routing", "Routing", " ■local" if counts.is_kept_local else "", "warning"),
            ("8", "log", "Log", f" ✗{counts.log_errors}" if counts.log_errors else "", "error"),
        )
        for key, name, title, count, tone in views:
            if name == self.view:
                pieces.append((f" {key} {title}{count} ", f"tab@show_{name}"))
            else:
                pieces += [(f" {key}", f"key@show_{name}"), (f" {title}", f"@show_{name}"), (f"{count} ", f"{tone}@show_{name}")]
            pieces.append((" ", ""))
        summary = f"{self.state.total:,} since {figures.clock(self.state.started_at)} "
        gap = width - pieces_width(pieces) - cell_len(summary)
        if gap > 0:
            pieces += [(" " * gap, ""), (summary, "quiet")]
        return pieces
