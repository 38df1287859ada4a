"""The lines over an open session or agent: which it is and how it stands, its figures, and whose it is."""

from __future__ import annotations

from luthien_tui import figures, glyphs
from luthien_tui.text import cell
from luthien_tui.widgets.paint import Piece, fit, spread
from luthien_tui.widgets.session_table import tags_in_words
from luthien_tui.widgets.strip_bar import StripBar
from proxy_core.control.session_infos import AgentInfo, SessionInfo

MOST_OF_PATH = 3
"""Sessions of the way here that are named."""


class SessionTitle(StripBar):
    """Two lines."""

    DEFAULT_CSS = "SessionTitle { height: 2; background: $surface; }"

    def __init__(self) -> None:
        super().__init__()
        self.path: tuple[str, ...] = ()
        """The sessions that were gone through, the open one last."""
        self.info: SessionInfo | None = None
        self.agent: AgentInfo | None = None
        self.waits = False
        self.note = ""

    def show_session(self, path: tuple[str, ...], info: SessionInfo | None, *, waits: bool, note: str) -> None:
        """Over a conversation; `note` says what is shown of it, where it is not the conversation."""
        told = (path, info, None, waits, note)
        if told != (self.path, self.info, self.agent, self.waits, self.note):
            self.path, self.info, self.agent, self.waits, self.note = told
            self.refresh()

    def show_agent(self, agent: AgentInfo) -> None:
        if agent != self.agent:
            self.path, self.info, self.agent, self.waits, self.note = (), None, agent, False, ""
            self.refresh()

    def line(self, y: int, width: int) -> list[Piece]:
        if self.agent is not None:
            return self._agent(self.agent, width) if y == 0 else [(f" {cell(', '.join(self.agent.models))}", "quiet")]
        return self._title(width) if y == 0 else self._facts(width)

    def _agent(self, agent: AgentInfo, width: int) -> list[Piece]:
        seen = f"{figures.moment(agent.first_at)} to {figures.moment(agent.last_at)} "
        return spread([(" agent ", "quiet"), (cell(agent.id) or figures.UNKNOWN, "strong")], [(seen, "quiet")], width)

    def _title(self, width: int) -> list[Piece]:
        left: list[Piece] = [(" ", "")]
        if self.info is not None:
            face = glyphs.session(self.info, waits=self.waits)
            left.append((f"{face.sign} {face.word}  ", face.tone))
        *before, name = self.path[-MOST_OF_PATH:] or ("",)
        if len(self.path) > MOST_OF_PATH:
            left.append(("… › ", "quiet"))
        for one in before:
            left += [(fit(cell(one), min(24, len(cell(one)))), "quiet"), (" › ", "quiet")]
        left.append((cell(name), "strong"))
        if self.note:
            left.append((f"  {self.note}", "notice"))
        return spread(left, self._figures(width), width)

    def _figures(self, width: int) -> list[Piece]:
        info = self.info
        if info is None:
            return []
        totals = info.totals
        facts = [f"{info.turns:,} turns", f"{figures.count(totals.tokens)} tok", figures.usd(totals.cost_usd)]
        pieces: list[Piece] = [(f" {'  '.join(facts)}", "")]
        if width >= 90:
            pieces.append((f"  {totals.tool_calls:,} tools", "" if totals.tool_calls else "quiet"))
        if totals.held:
            pieces.append((f"  ‖ {totals.held:,} held", "warning"))
        if totals.errors:
            pieces.append((f"  ✗ {totals.errors:,} err", "error"))
        if info.risk is not None:
            pieces.append((f"  risk {info.risk:.2f}", "warning" if info.risk >= 0.5 else ""))
        return [*pieces, (" ", "")]

    def _facts(self, width: int) -> list[Piece]:
        info = self.info
        if info is None:
            return [(" ", "")]
        facts = [
            ("agent ", cell(info.agent)),
            ("of ", cell(info.parent) if info.parent not in self.path else ""),
            ("after ", cell(info.predecessor)),
            ("user ", cell(info.user)),
            ("workflow ", cell(info.workflow)),
            ("", tags_in_words(info.tags)),
            ("", cell(", ".join(info.models))),
            ("told by ", cell(info.link)),
        ]
        pieces: list[Piece] = []
        for title, value in facts:
            if value:
                pieces += [("  · " if pieces else " ", "quiet"), (title, "quiet"), (value, "")]
        return spread(pieces, [], width)
