"""Sessions as a tree with their figures, and agents with the same."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from luthien_tui import figures, glyphs
from luthien_tui.session_tree import SessionLine, Sort, relative_name
from luthien_tui.text import cell
from luthien_tui.widgets.columns import Column
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.row_table import RowTable
from proxy_core.control.session_infos import AgentInfo, Totals

WORDS_FROM = 100
"""Table width from which on the state is a sign and a word."""


def _some(value: int) -> Piece:
    return (figures.count(value), "") if value else (figures.UNKNOWN, "quiet")


def _text(value: str, tone: str = "quiet") -> Piece:
    return (cell(value), tone) if value else (figures.UNKNOWN, "quiet")


def _tokens(totals: Totals) -> Piece:
    """`~` where some are estimated."""
    return (
        (f"{'~' if totals.estimated else ''}{figures.count(totals.tokens)}", "") if totals.tokens else (figures.UNKNOWN, "quiet")
    )


def _cost(totals: Totals) -> Piece:
    """`+` where a price is missing in the sum."""
    if totals.cost_usd is None:
        return figures.UNKNOWN, "quiet"
    return f"{figures.usd(totals.cost_usd)}{'+' if totals.unpriced else ''}", ""


def _errors(totals: Totals) -> Piece:
    return (f"✗{figures.count(totals.errors)}", "error") if totals.errors else (figures.UNKNOWN, "quiet")


def _held(totals: Totals) -> Piece:
    return (f"‖{figures.count(totals.held)}", "warning") if totals.held else (figures.UNKNOWN, "quiet")


def tags_in_words(tags: Sequence[tuple[str, str]]) -> str:
    """`env:prod team:search`."""
    return " ".join(f"{cell(name)}:{cell(value)}" if value else cell(name) for name, value in tags)


def _name(line: SessionLine, now: float) -> Piece:
    name = relative_name(line.info.id, line.info.parent if line.lead else "")
    hidden = f" ▸{line.below}" if line.is_folded else ""
    return f"{line.lead}{name}{hidden}", "strong" if not line.lead else ""


def session_columns(waits: Callable[[str], bool], *, with_risk: bool) -> tuple[Column[SessionLine], ...]:
    """The columns of sessions. `waits`: whether something of a session waits for the operator."""

    def sign(line: SessionLine, now: float) -> Piece:
        face = glyphs.session(line.info, waits=waits(line.info.id))
        return face.sign, face.tone

    def state(line: SessionLine, now: float) -> Piece:
        face = glyphs.session(line.info, waits=waits(line.info.id))
        return f"{face.sign} {face.word}", face.tone

    def risk(line: SessionLine, now: float) -> Piece:
        value = line.info.risk
        if value is None:
            return figures.UNKNOWN, "quiet"
        return f"{value:.2f}", "error" if value >= 0.8 else "warning" if value >= 0.5 else ""

    shown: list[Column[SessionLine]] = [
        Column("sign", "", 1, sign, until_width=WORDS_FROM),
        Column("name", "session", 16, _name, share=4),
        Column("state", "state", 10, state, from_width=WORDS_FROM),
        Column("agent", "agent", 9, lambda line, now: _text(line.info.agent), share=2, from_width=64),
        Column("turns", "turns", 5, lambda line, now: _some(line.info.turns), right=True),
        Column("tokens", "tokens", 7, lambda line, now: _tokens(line.info.totals), right=True),
        Column("cost", "cost", 7, lambda line, now: _cost(line.info.totals), right=True),
        Column("tools", "tools", 5, lambda line, now: _some(line.info.totals.tool_calls), right=True),
        Column("errors", "err", 4, lambda line, now: _errors(line.info.totals), right=True),
        Column("held", "held", 4, lambda line, now: _held(line.info.totals), right=True),
    ]
    if with_risk:
        shown.append(Column("risk", "risk", 4, risk, right=True))
    return (
        *shown,
        Column("last", "last", 5, lambda line, now: (figures.age(now - line.info.last_at), "quiet"), right=True),
        Column("tags", "tags", 14, lambda line, now: _text(tags_in_words(line.info.tags)), share=3, from_width=WORDS_FROM),
        Column("user", "user", 9, lambda line, now: _text(line.info.user), share=1, from_width=130),
        Column("preview", "last message", 24, lambda line, now: _text(line.info.preview), share=20, from_width=150),
    )


AGENT_COLUMNS: tuple[Column[AgentInfo], ...] = (
    Column("name", "agent", 16, lambda one, now: _text(one.id, "strong"), share=4),
    Column("sessions", "sessions", 8, lambda one, now: _some(one.sessions), right=True),
    Column("active", "active", 6, lambda one, now: (f"●{one.active_sessions}", "ok") if one.active_sessions else _some(0),
           from_width=70, right=True),
    Column("requests", "requests", 8, lambda one, now: _some(one.totals.requests), right=True),
    Column("tokens", "tokens", 7, lambda one, now: _tokens(one.totals), right=True),
    Column("cost", "cost", 7, lambda one, now: _cost(one.totals), right=True),
    Column("tools", "tools", 5, lambda one, now: _some(one.totals.tool_calls), right=True),
    Column("errors", "err", 4, lambda one, now: _errors(one.totals), right=True),
    Column("held", "held", 4, lambda one, now: _held(one.totals), from_width=74, right=True),
    Column("last", "last", 5, lambda one, now: (figures.age(now - one.last_at), "quiet"), right=True),
    Column("models", "models", 20, lambda one, now: _text(", ".join(one.models)), share=20, from_width=WORDS_FROM),
)  # fmt: skip


class SessionTable(RowTable[SessionLine]):
    """The lines of a tree."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.waiting: Collection[str] = frozenset()
        """Sessions of which something waits for the operator."""
        super().__init__(
            self._columns(with_risk=False), lambda line: line.info.id, wall,
            id="session-table", expendable=("held", "tools", "turns"), widest=("preview", "tags", "name"),
        )  # fmt: skip

    def _columns(self, *, with_risk: bool) -> tuple[Column[SessionLine], ...]:
        return session_columns(lambda session_id: session_id in self.waiting, with_risk=with_risk)

    def show_sorted(self, lines: Sequence[SessionLine], sort: Sort, *, is_reversed: bool, waiting: Collection[str]) -> None:
        """Draw these, with a mark at the column that they are sorted by."""
        self.waiting = waiting
        self.columns = self._columns(with_risk=any(line.info.risk is not None for line in lines))
        self.marks = {sort.name: "▼" if sort.largest_first != is_reversed else "▲"}
        self.show(lines)


class AgentTable(RowTable[AgentInfo]):
    """Those with the latest requests first."""

    def __init__(self, wall: Callable[[], float]) -> None:
        super().__init__(
            AGENT_COLUMNS, lambda one: one.id, wall,
            id="agent-table", expendable=("tools", "requests"), widest=("models", "name"),
        )  # fmt: skip
