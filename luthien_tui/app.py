"""The operator's screen: one app over a ControlPlane, in this process or elsewhere.

It pulls and never is pushed: ten times a second a frame pump reads the feed for at most a few milliseconds and draws what
changed, and it draws nothing while the terminal does not keep up. The app owns no traffic: when it ends, crashes or
freezes, the gateway goes on. Text of the traffic reaches the screen only through `luthien_tui.text`. What a view shows and
allows is the view's own; the app has the frame around them.
"""

from __future__ import annotations

import time
from bisect import bisect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Resize
from textual.filter import LineFilter
from textual.screen import Screen
from textual.theme import Theme

from luthien_tui import textual_compat
from luthien_tui.actions import ACTIONS, BY_NAME, Action, bindings
from luthien_tui.alerts import HoldAlerts
from luthien_tui.copying import Copying
from luthien_tui.feed_reader import FeedReader
from luthien_tui.leaving import Leaving
from luthien_tui.palette import ActionProvider
from luthien_tui.text import cell, visible
from luthien_tui.themes import LUTHIEN
from luthien_tui.view_actions import ViewActions
from luthien_tui.views.holds import HOLDS_CSS, HoldsView
from luthien_tui.views.live import PLACING_CSS, LiveView
from luthien_tui.views.log import LogSource, LogView
from luthien_tui.views.policies import POLICIES_CSS, PoliciesView
from luthien_tui.views.routing import ROUTING_CSS, RoutingView
from luthien_tui.views.sessions import SESSIONS_CSS, SessionsView
from luthien_tui.views.view import View, ViewContext
from luthien_tui.waiting import Waiting
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.filter_line import FilterLine
from luthien_tui.widgets.header_bar import Counts, HeaderBar
from luthien_tui.widgets.help_screen import HelpScreen
from luthien_tui.widgets.key_bar import KeyBar
from luthien_tui.widgets.paint import TONE_CSS, Painter, ToneScreen
from luthien_tui.widgets.pick_screen import PickItem, PickScreen
from luthien_tui.widgets.question_screen import QuestionScreen
from luthien_tui.widgets.quit_screen import DrainScreen, QuitScreen
from luthien_tui.widgets.status_line import StatusLine
from luthien_tui.widgets.too_small import TooSmall, too_small
from luthien_tui.widgets.transaction_table import TransactionTable
from proxy_core.control.plane import ControlPlane
from proxy_core.control.rates import RollingRates
from proxy_core.control.rows import TransactionRow
from proxy_core.control.view import TransactionList
from proxy_core.settings import UiSettings
from proxy_core.tasks import spawn

FRAME_S = 0.1
"""Time between two looks at the feed."""
BUDGET_S = 0.004
"""Time that one look may take."""
HEADER_FRAMES = 5
"""The header is brought up to date every so many frames."""
MAX_BACKLOG = 4
"""Writes waiting for the terminal above which nothing is drawn."""
HISTORY_ROWS = 500
"""Transactions of the past that are read from the journal at the start."""
SAID_S = 5.0
"""How long a word stands in the status line."""
PROMPT_KEYS = (("enter", "apply"), ("esc", "leave as it was"), ("→", "complete"))


class LuthienApp(ViewActions, inherit_bindings=False):
    """The views over one gateway."""

    CSS = (
        TONE_CSS
        + PLACING_CSS
        + HOLDS_CSS
        + SESSIONS_CSS
        + POLICIES_CSS
        + ROUTING_CSS
        + """
    ToneScreen { layers: base; }
    ToneScreen.-too-small > * { display: none; }
    ToneScreen.-too-small > TooSmall { display: block; }
    ToastRack { margin-bottom: 2; }
    """
    )
    BINDINGS: ClassVar[list[BindingType]] = [*bindings()]
    COMMANDS = {ActionProvider}  # noqa: RUF012 - Textual's own declaration
    AUTO_FOCUS = "#table"
    ALLOW_SELECT = False
    TITLE = "luthien"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012 - Textual's own declaration

    def __init__(
        self,
        plane: ControlPlane,
        *,
        ui: UiSettings,
        logs: LogSource,
        begin_shutdown: Callable[[], None],
        wait_closed: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        auto_pump: bool = True,
    ) -> None:
        """`clock` gives steady seconds, `wall` Unix time."""
        super().__init__(driver_class=textual_compat.driver_class())
        self.animation_level = "none"
        self.plane = plane
        self.ui = ui
        self.clock = clock
        self.wall = wall
        self.auto_pump = auto_pump
        self.rows = TransactionList(ui.rows)
        self.rates = RollingRates()
        self.reader = FeedReader(plane, self.rows, self.rates, clock)
        self.waiting = Waiting(plane)
        self.alerts = HoldAlerts(self)
        self.leaving = Leaving(self, lambda: self.plane.state().active, begin_shutdown, wait_closed)
        self.copying = Copying(self, plane, self.say)
        self.view = "live"
        self._frame = 0
        self._width_class = 0
        self._search_text = ""
        self._said = ("", False)
        self._said_until = 0.0
        self._gate = textual_compat.ControlGate()
        state = plane.state()
        self.state = state
        self.header = HeaderBar(state, self.rates.snapshot(clock()))
        self.live = LiveView(plane, self.rows, self.reader, self.waiting, clock, wall)
        self.holds = HoldsView(plane, self.waiting, clock=clock, wall=wall, row_of=self._row_of, say=self.say)
        context = ViewContext(plane, clock, wall, self.say, self.push_screen)
        self.sessions = SessionsView(context, self.reader.sessions, self.waiting)
        self.policies = PoliciesView(context)
        self.routing = RoutingView(context)
        self.log_view = LogView(logs)
        self.views: dict[str, View] = {
            "live": self.live,
            "holds": self.holds,
            "sessions": self.sessions,
            "policies": self.policies,
            "routing": self.routing,
            "log": self.log_view,
        }
        self.status = StatusLine(state)
        self.prompt = FilterLine()
        self.keys = KeyBar()

    # --- frame ---------------------------------------------------------------------------------------------------

    @property
    def current(self) -> View:
        """The view that is shown."""
        return self.views[self.view]

    def get_default_screen(self) -> Screen[None]:
        return ToneScreen(id="_default")

    def get_line_filters(self) -> list[LineFilter]:
        return [*super().get_line_filters(), self._gate]

    def _fatal_error(self) -> None:
        textual_compat.crash_report(self)

    def compose(self) -> ComposeResult:
        yield self.header
        yield from self.views.values()
        yield self.prompt
        yield self.status
        yield self.keys
        yield TooSmall()

    def on_mount(self) -> None:
        self.register_theme(LUTHIEN)
        known = self.ui.theme in self.available_themes
        self.theme = self.ui.theme if known else LUTHIEN.name
        if not known:
            self.say(f"there is no theme {self.ui.theme!r}; T shows those there are", warn=True)
        self.live.add_class("-shown")
        if self.auto_pump:
            self.set_interval(FRAME_S, self.pump)
            spawn(self.load_history(), name="history")
        self.theme_changed_signal.subscribe(self, self._repaint)
        self.pump()

    def on_unmount(self) -> None:
        self.alerts.leave()

    def _repaint(self, theme: Theme) -> None:
        for screen in self.screen_stack:
            for painter in screen.query(Painter):
                painter.forget_tones()

    def on_resize(self, event: Resize) -> None:
        width, height = event.size
        self.screen_stack[0].set_class(too_small(width, height), "-too-small")
        if bisect([each for each, _ in self.HORIZONTAL_BREAKPOINTS], width) != self._width_class:
            self._width_class = bisect([each for each, _ in self.HORIZONTAL_BREAKPOINTS], width)
            self.live.forget_sizes()

    def pump(self) -> None:
        """One frame: take in what happened, draw what changed."""
        if textual_compat.backlog(self) > MAX_BACKLOG or not self.screen_stack:
            return
        self.reader.read(BUDGET_S)
        self._look_at_holds()
        self._tell_changes()
        self._frame += 1
        is_header_due = self._frame % HEADER_FRAMES == 1
        if is_header_due:
            self.state = self.plane.state()
        for name, view in self.views.items():
            view.tick(self.state, seen=name == self.view)
        if is_header_due:
            self.header.update(self.state, self.rates.snapshot(self.clock()), self.view, self._counts())
        standing = self.current.standing()
        if self.view == "holds" and self.clock() < self._said_until:
            standing = replace(standing, said=self._said[0], is_warning=self._said[1])
        self.status.update(self.state, standing)
        hinted = tuple(action for action in self.valid_actions() if action.hint)
        typing = PROMPT_KEYS if self.prompt.is_open else self.current.typing
        self.keys.update(hinted, typing=typing, is_reading=self.current.is_reading)
        if isinstance(self.screen, QuitScreen | DrainScreen):
            self.screen.tick()

    def _counts(self) -> Counts:
        return Counts(
            held=len(self.waiting.pending),
            active_sessions=self.reader.sessions.active(self.clock()),
            prepared=self.policies.pending_count,
            is_kept_local=self.routing.is_kept_local,
            log_errors=self.log_view.unseen_errors,
        )

    def _look_at_holds(self) -> None:
        """Ask for what waits, where the feed says that it is other than it was."""
        if not self.reader.holds_changed:
            return
        self.reader.holds_changed = False
        new = self.waiting.look(decided=self.view == "holds")
        if new and self.view != "holds":
            self.alerts.tell(new, self.waiting.pending)
        self.alerts.title(len(self.waiting.pending))
        self.header.update(self.state, self.header.rates, self.view, self._counts())

    def _tell_changes(self) -> None:
        """Say who changed what in the control of the traffic."""
        if not self.reader.changes:
            return
        *others, last = self.reader.changes
        self.reader.changes.clear()
        more = f" (and {len(others)} changes before)" if others else ""
        self.say(f"{cell(last)[:200]}{more}")
        if self.view == "policies":
            self.policies.look()
        self.routing.look()

    def _row_of(self, transaction_id: str) -> TransactionRow | None:
        return self.rows.row(transaction_id)

    async def load_history(self) -> None:
        """Put the journal's latest transactions before what happens now."""
        found = await self.plane.history(min(HISTORY_ROWS, self.ui.rows))
        self.rows.prepend(reversed(found))
        for row in reversed(found):
            self.reader.sessions.note(row.session_id, self.clock() - max(0.0, self.wall() - row.started_at))

    # --- what is valid here --------------------------------------------------------------------------------------

    def valid_actions(self) -> list[Action]:
        """The actions that make sense now, in the registry's order."""
        return [action for action in ACTIONS if self._is_valid(action)]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        known = BY_NAME.get(action)
        return True if known is None else self._is_valid(known)

    def _is_valid(self, action: Action) -> bool:
        if action.name in ("search", "next_match", "previous_match"):
            target = self.current.search_target()
            return target is not None and (action.name == "search" or bool(target.matches))
        if action.views:
            return self.view in action.views and self.current.allows(action.name)
        return True

    def say(self, text: str, *, warn: bool = False) -> None:
        """One toast; where it would cover what is decided on, a word in the status line."""
        if self.view == "holds":
            self._said, self._said_until = (text, warn), self.clock() + SAID_S
            return
        self.notify(visible(text), markup=False, severity="warning" if warn else "information", timeout=4)

    # --- views and moving ----------------------------------------------------------------------------------------

    def action_show_live(self) -> None:
        self.show_view("live")

    def action_show_holds(self) -> None:
        self.show_view("holds")

    def action_show_sessions(self) -> None:
        self.show_view("sessions")

    def action_show_policies(self) -> None:
        self.show_view("policies")

    def action_show_routing(self) -> None:
        self.show_view("routing")

    def action_show_log(self) -> None:
        self.show_view("log")

    def show_view(self, view: str) -> None:
        self.view = view
        for name, each in self.views.items():
            each.set_class(name == view, "-shown")
        if view == "holds":
            self.clear_notifications()
            self.waiting.look(decided=True)
        self.current.entered()
        self.current.home().focus()
        self._frame = 0
        self.pump()

    def action_cursor_down(self) -> None:
        self.current.moved().move(1)

    def action_cursor_up(self) -> None:
        self.current.moved().move(-1)

    def action_page_down(self) -> None:
        moved = self.current.moved()
        moved.move(max(1, moved.size.height - 2))

    def action_page_up(self) -> None:
        moved = self.current.moved()
        moved.move(-max(1, moved.size.height - 2))

    def action_first(self) -> None:
        self.current.moved().move_first()

    def action_last(self) -> None:
        moved = self.current.moved()
        moved.move_last()
        if isinstance(moved, BodyView) and (self.view != "live" or self.live.detail.is_growing):
            moved.follow = self.view != "holds"

    def action_switch_pane(self) -> None:
        self.current.switch_pane()

    # --- live ----------------------------------------------------------------------------------------------------

    def action_open(self) -> None:
        if self.view == "sessions":
            self.sessions.act()
        else:
            self.live.open_or_read()
        self.pump()

    def action_close(self) -> None:
        if self.view == "sessions":
            self.sessions.back()
        else:
            self.live.close_or_clear()
        self.pump()

    def action_next_tab(self) -> None:
        self.live.detail.step_tab(1)

    def action_previous_tab(self) -> None:
        self.live.detail.step_tab(-1)

    def action_show_tab(self, tab: str) -> None:
        self.live.detail.show_tab(tab)

    def action_larger(self) -> None:
        self.live.resize_detail(8)

    def action_smaller(self) -> None:
        self.live.resize_detail(-8)

    def action_follow(self) -> None:
        moved = self.current.moved()
        if isinstance(moved, BodyView):
            moved.follow = not moved.follow
            if moved.follow:
                moved.move_last()
        else:
            self.live.table.set_follow(not self.live.table.follow)
        self.pump()

    def action_freeze(self) -> None:
        self.live.table.set_frozen(not self.live.table.frozen)
        self.pump()

    @on(TransactionTable.Selected)
    def _selected(self, event: TransactionTable.Selected) -> None:
        self.live.follow_selection(event.transaction_id)

    @on(TransactionTable.Opened)
    def _opened(self, event: TransactionTable.Opened) -> None:
        self.action_open()

    def action_kill(self) -> None:
        chosen = self.live.chosen
        if chosen is None:
            return
        transaction_id = chosen.transaction_id

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                spawn(self._kill(transaction_id), name="kill")

        what = f"{cell(chosen.model) or 'a request'} of {cell(chosen.session_id or chosen.agent) or 'a client'}"
        self.push_screen(QuestionScreen("End this transaction now?", what, "end it: the client gets an error"), answered)

    async def _kill(self, transaction_id: str) -> None:
        ended = await self.plane.kill(transaction_id)
        self.say("ended" if ended else "it does not run any more", warn=not ended)

    # --- filter and search ---------------------------------------------------------------------------------------

    def action_edit_filter(self) -> None:
        self._open_prompt("filter", self.current.filter_text)

    def action_search(self) -> None:
        target = self.current.search_target()
        if target is not None:
            self._search_text = target.query_text
            self._open_prompt("search", target.query_text)

    def _open_prompt(self, mode: Any, text: str) -> None:
        self.status.display = False
        self.prompt.open(mode, text, self.current.vocabulary)

    def _close_prompt(self) -> None:
        was_search = self.prompt.mode == "search"
        self.prompt.close()
        self.status.display = True
        target = self.current.search_target() if was_search else None
        (target or self.current.home()).focus()
        self.pump()

    @on(FilterLine.Changed)
    def _prompt_changed(self, event: FilterLine.Changed) -> None:
        if event.mode == "search" and (target := self.current.search_target()) is not None:
            target.search(event.text)

    @on(FilterLine.Accepted)
    def _prompt_accepted(self, event: FilterLine.Accepted) -> None:
        if event.mode == "filter":
            self.current.set_filter(event.text)
        else:
            self._prompt_changed(event)
        self._close_prompt()

    @on(FilterLine.Cancelled)
    def _prompt_cancelled(self) -> None:
        if not self.prompt.is_open:
            return
        if self.prompt.mode == "search" and (target := self.current.search_target()) is not None:
            target.search(self._search_text, jump_to_first=False)
        self._close_prompt()

    def action_next_match(self) -> None:
        if (target := self.current.search_target()) is not None:
            target.step_match(1)

    def action_previous_match(self) -> None:
        if (target := self.current.search_target()) is not None:
            target.step_match(-1)

    # --- taking along --------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        if self.view == "sessions":
            if self.sessions.turn is not None:
                self.copying.ask(self.sessions.turn.transaction_id)
            return
        row = self.live.chosen
        chosen = self.live.detail.transaction_id or (row or self.rows.shown[-1]).transaction_id
        self.copying.ask(chosen)

    def action_export_session(self) -> None:
        self.sessions.export()

    def action_copy_setup(self) -> None:
        self.copying.ask_setup()

    # --- program -------------------------------------------------------------------------------------------------

    def action_choose_theme(self) -> None:
        before = self.theme
        items = [
            PickItem(name, "", name, "dark" if theme.dark else "light") for name, theme in sorted(self.available_themes.items())
        ]

        def choose(name: str | None) -> None:
            self.theme = name or before

        def try_out(name: str) -> None:
            self.theme = name

        self.push_screen(PickScreen("Theme", items, searchable=True, highlighted=try_out, start=before), choose)

    def action_palette(self) -> None:
        self.action_command_palette()

    def action_help(self) -> None:
        def run(name: str | None) -> None:
            if name and BY_NAME[name].by_key_only:
                self.say(f"{BY_NAME[name].title}: press its key while you look at it", warn=True)
            elif name:
                self.call_later(self.run_action, name)

        self.push_screen(HelpScreen(self.valid_actions()), run)

    def action_hint_quit(self) -> None:
        self.say("ctrl+q quits")

    async def action_quit(self) -> None:
        self.leaving.ask()

    def begin_shutdown_from_signal(self, name: str) -> None:
        """Drain and end without asking; a second time forces. To be called on the app's own loop through `call_later`."""
        self.leaving.begin(name)
