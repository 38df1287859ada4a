"""Sessions: the conversations that requests belong to, sub-agents under their parents; and the agents that hold them.

The list follows the traffic without a part in it: it asks the gateway off the loop and seldom. An open session covers the list,
or stands beside it where there is room.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize
from textual.widget import Widget

from luthien_tui.exporting import export_session
from luthien_tui.recent_sessions import RecentSessions
from luthien_tui.session_list import SessionList
from luthien_tui.session_tree import BY_NAME, SORTS, session_lines
from luthien_tui.text import cell
from luthien_tui.views.view import Movable, View, ViewContext
from luthien_tui.waiting import Waiting
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.conversation_view import ConversationView
from luthien_tui.widgets.empty_state import EmptyState
from luthien_tui.widgets.filter_line import Vocabulary
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.pick_screen import PickItem, PickScreen
from luthien_tui.widgets.row_table import Opened
from luthien_tui.widgets.session_pane import SessionPane
from luthien_tui.widgets.session_table import AgentTable, SessionTable
from luthien_tui.widgets.status_line import Standing, search_words
from proxy_core.control.plane import ControlNotFound, GatewayState
from proxy_core.control.session_export import ExportFormat, file_name
from proxy_core.control.session_filters import FIELDS, parse_sessions
from proxy_core.control.session_infos import SessionCounts, Turn
from proxy_core.errors import LuthienError
from proxy_core.tasks import spawn

SESSIONS_CSS = """
.-narrow SessionsView.-reading > #session-side, .-normal SessionsView.-reading > #session-side { display: none; }
.-wide SessionsView { layout: horizontal; }
.-wide SessionsView > SessionPane { width: 55%; border-left: vkey $panel-lighten-1; }
"""
"""Where the open session stands at each width of the screen."""
HINT: tuple[Piece, ...] = (("Requests tell their session; a header names one: ", "quiet"), ("x-luthien-session-id", "strong"))
VOCABULARY = Vocabulary(FIELDS, parse_sessions)


class ListSide(Vertical):
    """The tables, or why they are empty."""

    BLANK = True


class SessionsView(View):
    """The app tells it which keys were pressed."""

    DEFAULT_CSS = """
    SessionsView { layout: vertical; }
    SessionsView.-shown { display: block; }
    SessionsView > #session-side { height: 1fr; width: 1fr; }
    SessionsView AgentTable { display: none; }
    SessionsView.-agents AgentTable { display: block; }
    SessionsView.-agents SessionTable { display: none; }
    SessionsView.-empty SessionTable { height: 1; }
    SessionsView.-agents EmptyState { display: none; }
    SessionsView > SessionPane { height: 1fr; }
    """
    vocabulary: ClassVar[Vocabulary] = VOCABULARY

    def __init__(self, context: ViewContext, recent: RecentSessions, waiting: Waiting) -> None:
        super().__init__(id="sessions")
        self.context = context
        self.waiting = waiting
        self.list = SessionList(context.plane, recent, context.clock)
        self.table = SessionTable(context.wall)
        self.agents = AgentTable(context.wall)
        self.empty = EmptyState("", things="session", hint=HINT)
        self.pane = SessionPane(context.plane, recent, context.clock, context.say)
        self._sort = SORTS[0]
        self._is_reversed = False
        self._folded: frozenset[str] = frozenset()
        self._drawn: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        with ListSide(id="session-side"):
            yield self.table
            yield self.agents
            yield self.empty
        yield self.pane

    # --- what is shown -------------------------------------------------------------------------------------------

    @property
    def shows_agents(self) -> bool:
        return self.has_class("-agents")

    @property
    def _shows_list(self) -> bool:
        return not self.pane.is_open or self.screen.has_class("-wide")

    def entered(self) -> None:
        self.list.look()

    def tick(self, state: GatewayState, *, seen: bool) -> None:
        if not seen:
            return
        if self._shows_list:
            self.list.tick(agents=self.shows_agents)
            self._draw_list(state)
        if self.pane.is_open:
            self.pane.waiting = self._waiting_sessions()
            self.pane.tick()

    def _waiting_sessions(self) -> frozenset[str]:
        return frozenset(hold.session_id for hold in self.waiting.pending if hold.session_id)

    def _draw_list(self, state: GatewayState) -> None:
        waiting = self._waiting_sessions()
        drawn = (self.list.version, self._sort, self._is_reversed, self._folded, waiting)
        if drawn != self._drawn:
            self._drawn = drawn
            lines = session_lines(self.list.sessions, self._sort, is_reversed=self._is_reversed, folded=self._folded)
            self.table.show_sorted(lines, self._sort, is_reversed=self._is_reversed, waiting=waiting)
            self.agents.show(self.list.agents)
        is_empty = self.list.is_loaded and not self.list.sessions
        if is_empty:
            self.empty.show_for(state.address, -1 if self.list.filter_text else 0, self.list.filter_text, state.demo)
        self.set_class(is_empty, "-empty")
        self.empty.set_class(is_empty, "-shown")
        (self.agents if self.shows_agents else self.table).tick()
        if not self.shows_agents and self.table.is_at_end:
            self.list.more()

    # --- for the app ---------------------------------------------------------------------------------------------

    def home(self) -> Widget:
        if self.pane.is_open and not self._shows_list:
            return self.pane.body
        return self.agents if self.shows_agents else self.table

    def moved(self) -> Movable:
        if self.is_reading:
            return self.pane.body
        return self.agents if self.shows_agents else self.table

    @property
    def is_reading(self) -> bool:
        return self.pane.is_open and (self.pane.body.has_focus or not self._shows_list)

    def search_target(self) -> BodyView | None:
        return self.pane.body if self.pane.is_open else None

    def switch_pane(self) -> None:
        (self._table if self.is_reading else self.pane.body).focus()

    @property
    def _table(self) -> Widget:
        return self.agents if self.shows_agents else self.table

    @property
    def filter_text(self) -> str:
        return self.list.filter_text

    def set_filter(self, text: str) -> None:
        if self.shows_agents:
            self.toggle_agents()
        self.list.set_filter(text.strip())

    def allows(self, action: str) -> bool:
        talk = self.is_reading and self.pane.shows_talk
        match action:
            case "open":
                return talk or (not self.is_reading and self.moved_row is not None)
            case "close":
                return self.pane.is_open or bool(self.list.filter_text) or self.shows_agents
            case "edit_filter" | "toggle_agents":
                return not self.is_reading
            case "sort_sessions" | "reverse_sort":
                return not self.is_reading and not self.shows_agents and bool(self.table.rows)
            case "fold":
                line = self.table.selected
                return talk or (not self.is_reading and not self.shows_agents and line is not None and bool(line.below))
            case "follow" | "unfold_all" | "next_turn" | "previous_turn" | "diff_turn":
                return talk
            case "show_transaction" | "copy":
                return talk and self.pane.turn is not None
            case "decide_turn":
                return talk and self.hold_id is not None
            case "copy_setup":
                return self.has_class("-empty") and not self.list.filter_text
            case "export_session":
                return self._to_export is not None
            case "sessions_of_agent":
                return self.shows_agents and self.agents.selected is not None
            case "switch_pane":
                return self.pane.is_open and self._shows_list
        return True

    @property
    def moved_row(self) -> object | None:
        """What is selected in the list."""
        return self.agents.selected if self.shows_agents else self.table.selected

    def standing(self) -> Standing:
        search = search_words(self.search_target())
        if self.is_reading and not self.pane.shows_talk:
            return Standing(mode="", search=search)
        if self.is_reading:
            mode = "FOLLOW" if self.pane.talk.follow else "PAUSED"
            return Standing(mode=mode, count=self.pane.place, search=search)
        if self.list.trouble:
            return Standing(mode="", said=self.list.trouble, is_warning=True)
        if self.shows_agents:
            return Standing(mode="", count=f"{len(self.list.agents):,} agents", search=search)
        number = len(self.list.sessions)
        if not number:
            return Standing(mode="", filter_text=self.list.filter_text, count="none" if self.list.filter_text else "")
        many = f"{number:,}{'+' if self.list.has_more else ''} session{'' if number == 1 else 's'}"
        count = f"{many} by {self._sort.title}{' reversed' if self._is_reversed else ''}"
        return Standing(mode="", count=count, filter_text=self.list.filter_text, search=search, facts=_told(self.list.counts))

    # --- keys of the list ----------------------------------------------------------------------------------------

    def act(self) -> None:
        """Open what is selected; in a conversation, what is under the cursor."""
        if self.is_reading:
            self.pane.act()
        elif self.shows_agents:
            agent = self.agents.selected
            if agent is not None:
                self.pane.open_agent(agent.id)
                self._opened()
        elif (line := self.table.selected) is not None:
            self.open_session(line.info.id)

    def open_session(self, session_id: str) -> None:
        """Show a session, whether the list has it or not."""
        self.table.select(session_id)
        self.pane.open(session_id)
        self._opened()

    def _opened(self) -> None:
        self.add_class("-reading")
        self.pane.body.focus()

    def back(self) -> None:
        """Close the topmost of what is open, then the agents, then clear the filter."""
        if self.pane.is_open:
            if self.pane.back():
                self.pane.body.focus()
            else:
                self.remove_class("-reading")
                self.list.look()
                self._table.focus()
        elif self.shows_agents:
            self.toggle_agents()
        else:
            self.set_filter("")

    def toggle_agents(self) -> None:
        """Show agents in place of sessions, or sessions again."""
        self.toggle_class("-agents")
        self.list.look()
        self._table.focus()

    def sessions_of_agent(self) -> None:
        """Show the sessions of the selected agent."""
        agent = self.agents.selected
        if agent is not None:
            if self.pane.is_open:
                self.pane.close()
                self.remove_class("-reading")
            self.toggle_agents()
            self.set_filter(f'agent:"{agent.id}"' if agent.id else 'agent:""')

    def choose_sort(self) -> None:
        """Ask by what to sort."""
        items = [PickItem(sort.name, "", sort.title, "the present order" if sort == self._sort else "") for sort in SORTS]

        def sort_by(name: str | None) -> None:
            if name:
                self._sort = BY_NAME[name]
                self._is_reversed = False

        self.context.ask(PickScreen("Sort sessions by", items, start=self._sort.name), sort_by)

    def reverse_sort(self) -> None:
        """The other way round."""
        self._is_reversed = not self._is_reversed

    def fold(self) -> None:
        """Hide or show what is below the selected session; in a conversation, fold what is under the cursor."""
        if self.is_reading:
            self.pane.act()
        elif (line := self.table.selected) is not None:
            self._folded ^= {line.info.id}

    @property
    def _to_export(self) -> str | None:
        """The open session, else the selected one."""
        if self.pane.session is not None:
            return self.pane.session.id
        line = self.table.selected
        return line.info.id if line is not None and not self.shows_agents else None

    def export(self) -> None:
        """Ask for a form, and write the session to a file in the working folder."""
        session_id = self._to_export
        if session_id is None:
            return
        folder = Path.cwd()
        items = [
            PickItem("markdown", "m", "Markdown", f"{file_name(session_id, 'markdown')}, as a person reads it"),
            PickItem("jsonl", "j", "JSON lines", f"{file_name(session_id, 'jsonl')}, one transaction a line"),
        ]

        def write(form: str | None) -> None:
            if form:
                wanted: ExportFormat = "markdown" if form == "markdown" else "jsonl"
                spawn(self._export(session_id, wanted, folder), name="export session")

        self.context.ask(PickScreen(f"Write the session to {cell(str(folder))}", items), write)

    async def _export(self, session_id: str, form: ExportFormat, folder: Path) -> None:
        try:
            path = await export_session(self.context.plane, session_id, form, folder)
        except (ControlNotFound, LuthienError, OSError) as error:
            self.context.say(f"not written: {cell(str(error))}", warn=True)
        else:
            self.context.say(f"written: {cell(str(path))}")

    @on(Opened)
    def _row_opened(self) -> None:
        self.act()

    @on(ConversationView.Acted)
    def _talk_acted(self) -> None:
        self.pane.act()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._keep_focus)

    def _keep_focus(self) -> None:
        """At another width the list may be hidden."""
        if self.has_class("-shown") and self.screen.is_active and self.pane.is_open and not self._shows_list:
            self.pane.body.focus()

    # --- the turn under the cursor -------------------------------------------------------------------------------

    @property
    def turn(self) -> Turn | None:
        return self.pane.turn

    @property
    def hold_id(self) -> str | None:
        """What waits of it for the operator."""
        hold = self.waiting.of_transaction(self.turn.transaction_id) if self.turn is not None else None
        return None if hold is None else hold.id


def _told(counts: SessionCounts) -> str:
    """How the gateway has told sessions; empty before the first."""
    shown = (("live", counts.active), ("hits", counts.hits), ("new", counts.created))
    rarely = (("inferred", counts.inferred), ("evicted", counts.evicted))
    return "  ".join(f"{name} {count:,}" for name, count in (*shown, *rarely)) if counts.hits or counts.misses else ""
