"""The first two lines: where traffic goes in and how it fares, then the views with their counts."""

from __future__ import annotations

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
        self._late = 0
        self.log_errors = 0
        """Messages of level ERROR and above that nobody has looked at yet."""

    def update(self, state: GatewayState, rates: Rates, view: str, log_errors: int) -> None:
        """Show these; repaints only where something changed."""
        was_late = self._late >= LASTING
        self._late = self._late + 1 if state.loop_lag_ms > LAG_LIMIT_MS else 0
        told = (self.state, self.rates, self.view, self.log_errors, was_late)
        if (state, rates, view, log_errors, self._late >= LASTING) == told:
            return
        self.state, self.rates, self.view, self.log_errors = state, rates, view, log_errors
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
        active = f" {self.state.active}" if self.state.active else ""
        errors = f" ✗{self.log_errors}" if self.log_errors else ""
        for key, name, title, count in (("1", "live", "Live", active), ("2", "log", "Log", errors)):
            if name == self.view:
                pieces.append((f" {key} {title}{count} ", f"tab@show_{name}"))
            else:
                pieces += [(f" {key}", f"key@show_{name}"), (f" {title}", f"@show_{name}"), (f"{count} ", f"error@show_{name}")]
            pieces.append((" ", ""))
        summary = f"{self.state.total:,} since {figures.clock(self.state.started_at)} "
        gap = width - pieces_width(pieces) - cell_len(summary)
        if gap > 0:
            pieces += [(" " * gap, ""), (summary, "quiet")]
        return pieces
