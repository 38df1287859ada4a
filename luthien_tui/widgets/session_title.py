"""The lines over an open session or agent: which it is and how it stands, its figures, and whose it is."""

from __future__ import annotations

from luthien_tui import figures, glyphs
from luthien_tui.session_tree import relative_name
from luthien_tui.text import cell
from luthien_tui.widgets.paint import Piece, pieces_width, spread
from luthien_tui.widgets.session_table import tags_in_words
from luthien_tui.widgets.strip_bar import StripBar
from proxy_core.control.session_infos import AgentInfo, SessionInfo


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
        figures_of_it = self._figures(width)
        room = width - pieces_width(left) - pieces_width(figures_of_it) - len(self.note) - 3
        left += self._way(room)
        if self.note:
            left.append((f"  {self.note}", "notice"))
        return spread(left, figures_of_it, width)

    def _way(self, room: int) -> list[Piece]:
        """The sessions that were gone through, as many of the last ones as there is room for."""
        if not self.path:
            return []
        *before, last = [cell(name) for name in self.path]
        shown: list[Piece] = [(relative_name(self.path[-1], self.path[-2]) if before else last, "strong")]
        for place in range(len(before) - 1, -1, -1):
            name = before[place] if place == 0 else relative_name(self.path[place], self.path[place - 1])
            more: list[Piece] = [(name, "quiet"), (" › ", "quiet")]
            if pieces_width([*more, *shown]) > room:
                return [("… › ", "quiet"), *shown]
            shown = [*more, *shown]
        return shown

    def _figures(self, width: int) -> list[Piece]:
        info = self.info
        if info is None:
            return []
        totals = info.totals
        facts = [
            f"{info.turns:,} turn{'' if info.turns == 1 else 's'}",
            f"{figures.count(totals.tokens)} tok",
            figures.usd(totals.cost_usd),
        ]
        pieces: list[Piece] = [(f" {'  '.join(facts)}", "")]
        if width >= 90:
            pieces.append(
                (f"  {totals.tool_calls:,} tool{'' if totals.tool_calls == 1 else 's'}", "" if totals.tool_calls else "quiet")
            )
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
