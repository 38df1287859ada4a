"""The operator's screen: one app over a ControlPlane, in this process or elsewhere.

It pulls and never is pushed: ten times a second a frame pump reads the feed for at most a few milliseconds and draws what
changed, and it draws nothing while the terminal does not keep up. The app owns no traffic: when it ends, crashes or
freezes, the gateway goes on. Text of the traffic reaches the screen only through `luthien_tui.text`.
"""

from __future__ import annotations

import time
from bisect import bisect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar

from textual import on
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.events import Resize
from textual.filter import LineFilter
from textual.screen import Screen
from textual.theme import Theme

from luthien_tui import textual_compat
from luthien_tui.actions import ACTIONS, BY_NAME, Action, bindings, key_names
from luthien_tui.copying import CLIPBOARD_LIMIT, copy_items, copy_text
from luthien_tui.text import visible
from luthien_tui.themes import LUTHIEN
from luthien_tui.views.live import PLACING_CSS, LiveView
from luthien_tui.views.log import LogSource, LogView
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.empty_state import setups
from luthien_tui.widgets.filter_line import FilterLine
from luthien_tui.widgets.header_bar import HeaderBar
from luthien_tui.widgets.help_screen import HelpScreen
from luthien_tui.widgets.key_bar import KeyBar
from luthien_tui.widgets.paint import TONE_CSS, Painter, ToneScreen
from luthien_tui.widgets.pick_screen import PickItem, PickScreen
from luthien_tui.widgets.quit_screen import DrainScreen, QuitScreen
from luthien_tui.widgets.status_line import Standing, StatusLine
from luthien_tui.widgets.too_small import TooSmall, too_small
from luthien_tui.widgets.transaction_table import TransactionTable
from proxy_core.control.filters import EVERYTHING, parse
from proxy_core.control.plane import ControlPlane
from proxy_core.control.rates import RollingRates
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


class ActionProvider(Provider):
    """The command palette's commands, from the registry."""

    def _actions(self) -> Iterable[Action]:
        app = self.app
        return app.valid_actions() if isinstance(app, LuthienApp) else ()

    async def discover(self) -> Hits:
        for action in self._actions():
            yield DiscoveryHit(
                Content(f"{action.title}  {key_names(action)}"), self._run(action), action.title, action.description
            )

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for action in self._actions():
            if (score := matcher.match(f"{action.title} {action.description}")) > 0:
                yield Hit(score, Content(action.title), self._run(action), action.title, action.description)

    def _run(self, action: Action) -> Callable[[], Awaitable[Any]]:
        async def run() -> None:
            await self.app.run_action(action.name)

        return run


class LuthienApp(App[None], inherit_bindings=False):
    """Live and Log over one gateway."""

    CSS = (
        TONE_CSS
        + PLACING_CSS
        + """
    ToneScreen { layers: base; }
    ToneScreen.-too-small > * { display: none; }
    ToneScreen.-too-small > TooSmall { display: block; }
    LiveView.-away { display: none; }
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
        auto_pump: bool = True,
    ) -> None:
        super().__init__(driver_class=textual_compat.driver_class())
        self.animation_level = "none"
        self.plane = plane
        self.ui = ui
        self.clock = clock
        self.auto_pump = auto_pump
        self.rows = TransactionList(ui.rows)
        self.rates = RollingRates()
        self.view = "live"
        self.missed = 0
        self._begin_shutdown = begin_shutdown
        self._wait_closed = wait_closed
        self._sequence = 0
        self._frame = 0
        self._width_class = 0
        self._leaving = False
        self._search_text = ""
        self._gate = textual_compat.ControlGate()
        state = plane.state()
        self.state = state
        self.header = HeaderBar(state, self.rates.snapshot(clock()))
        self.live = LiveView(plane, self.rows, clock)
        self.log_view = LogView(logs)
        self.status = StatusLine(state)
        self.prompt = FilterLine()
        self.keys = KeyBar()

    # --- frame ---------------------------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[None]:
        return ToneScreen(id="_default")

    def get_line_filters(self) -> list[LineFilter]:
        return [*super().get_line_filters(), self._gate]

    def _fatal_error(self) -> None:
        textual_compat.crash_report(self)

    def compose(self) -> ComposeResult:
        yield self.header
        yield self.live
        yield self.log_view
        yield self.prompt
        yield self.status
        yield self.keys
        yield TooSmall()

    def on_mount(self) -> None:
        self.register_theme(LUTHIEN)
        known = self.ui.theme in self.available_themes
        self.theme = self.ui.theme if known else LUTHIEN.name
        if not known:
            self.say(f"there is no theme {self.ui.theme!r}; t shows those there are", warn=True)
        if self.auto_pump:
            self.set_interval(FRAME_S, self.pump)
            spawn(self.load_history(), name="history")
        self.theme_changed_signal.subscribe(self, self._repaint)
        self.pump()

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
        self._take_feed()
        self.log_view.tick(seen=self.view == "log")
        self._frame += 1
        if self._frame % HEADER_FRAMES == 1:
            self.state = self.plane.state()
            rates = self.rates.snapshot(self.clock())
            self.header.update(self.state, rates, self.view, self.log_view.unseen_errors)
        if self.view == "live":
            self.live.tick(self.state)
        self.status.update(self.state, self._standing())
        hinted = tuple(action for action in self.valid_actions() if action.hint)
        self.keys.update(hinted, is_prompting=self.prompt.is_open, is_reading=self._is_body_focused())
        if isinstance(self.screen, QuitScreen | DrainScreen):
            self.screen.tick()

    def _take_feed(self) -> None:
        deadline = time.perf_counter() + BUDGET_S
        now = self.clock()
        while True:
            records, lost = self.plane.events(self._sequence, 200)
            self.missed += lost
            if lost and not records:
                self._sequence += lost
            for record in records:
                row = record.row
                if row is None:
                    continue
                self.rows.fold(row)
                if record.kind == "started":
                    self._count_started(row.started_monotonic, now)
                elif record.kind == "finished":
                    ended = row.started_monotonic + (row.total_ms or 0.0) / 1_000
                    if now - ended < self.rates.window_s:
                        self.rates.finished(row, min(ended, now))
            if records:
                self._sequence = records[-1].sequence
            if not records or time.perf_counter() >= deadline:
                break
        self.rows.advance(max(0.001, deadline - time.perf_counter()), time.perf_counter)

    def _count_started(self, started: float, now: float) -> None:
        if now - started < self.rates.window_s:
            self.rates.started(min(started, now))

    def _standing(self) -> Standing:
        table = self.live.table
        body = self.search_target()
        search = ""
        if body is not None and body.query_text:
            found = len(body.matches)
            place = f"{body.current_match + 1}/{found}" if found else "nothing found"
            search = f"{body.query_text}  {place}"
        if self.view == "log":
            return Standing(
                search=search, mode="FOLLOW" if self.log_view.body.follow else "PAUSED", total=len(self.log_view.body.document)
            )
        return Standing(
            filter_text=str(self.rows.filter),
            shown=len(self.rows.shown),
            total=self.rows.total,
            progress=self.rows.progress,
            mode="FROZEN" if table.frozen else "FOLLOW" if table.follow else "PAUSED",
            search=search,
            missed=self.missed,
        )

    async def load_history(self) -> None:
        """Put the journal's latest transactions before what happens now."""
        found = await self.plane.history(min(HISTORY_ROWS, self.ui.rows))
        self.rows.prepend(reversed(found))

    # --- what is valid here --------------------------------------------------------------------------------------

    def valid_actions(self) -> list[Action]:
        """The actions that make sense now, in the registry's order."""
        return [action for action in ACTIONS if self._is_valid(action)]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        known = BY_NAME.get(action)
        return True if known is None else self._is_valid(known)

    def _is_valid(self, action: Action) -> bool:
        is_live = self.view == "live"
        if action.where == "live" and not is_live:
            return False
        if action.where == "list" and not (is_live and self.rows.shown):
            return False
        if action.where == "detail" and not (is_live and self.live.detail.is_open):
            return False
        if action.name == "copy_setup":
            return not self.rows.total
        if action.name == "follow":
            return not is_live or bool(self.rows.shown)
        if action.name == "open":
            return not self._is_body_focused()
        if action.name in ("search", "next_match", "previous_match"):
            target = self.search_target()
            return target is not None and (action.name == "search" or bool(target.matches))
        if action.name == "close":
            return is_live and bool(self.live.detail.is_open or self.rows.filter or self.rows.filtering)
        return True

    def search_target(self) -> BodyView | None:
        """The text that a search looks through."""
        if self.view == "log":
            return self.log_view.body
        return self.live.detail.body if self.live.detail.is_open else None

    def _is_body_focused(self) -> bool:
        return self.focused is self.live.detail.body

    def _moved(self) -> TransactionTable | BodyView:
        """What the keys of movement move."""
        if self.view == "log":
            return self.log_view.body
        return self.live.detail.body if self._is_body_focused() else self.live.table

    def say(self, text: str, *, warn: bool = False) -> None:
        """One toast."""
        self.notify(visible(text), markup=False, severity="warning" if warn else "information", timeout=4)

    # --- views and moving ----------------------------------------------------------------------------------------

    def action_show_live(self) -> None:
        self._show("live")

    def action_show_log(self) -> None:
        self._show("log")

    def _show(self, view: str) -> None:
        self.view = view
        self.live.set_class(view != "live", "-away")
        self.log_view.set_class(view == "log", "-shown")
        (self.log_view.body if view == "log" else self._list_or_body()).focus()
        self._frame = 0
        self.pump()

    def _list_or_body(self) -> TransactionTable | BodyView:
        covers = self.live.detail.is_open and self.screen_stack[0].has_class("-narrow")
        return self.live.detail.body if covers else self.live.table

    def action_cursor_down(self) -> None:
        self._moved().move(1)

    def action_cursor_up(self) -> None:
        self._moved().move(-1)

    def action_page_down(self) -> None:
        moved = self._moved()
        moved.move(max(1, moved.size.height - 2))

    def action_page_up(self) -> None:
        moved = self._moved()
        moved.move(-max(1, moved.size.height - 2))

    def action_first(self) -> None:
        self._moved().move_first()

    def action_last(self) -> None:
        moved = self._moved()
        moved.move_last()
        if isinstance(moved, BodyView) and (self.view == "log" or self.live.detail.is_growing):
            moved.follow = True

    def action_open(self) -> None:
        was_open = self.live.detail.is_open
        if self.live.open_selected() and (was_open or self.screen_stack[0].has_class("-narrow")):
            self.live.detail.body.focus()
        self.pump()

    def action_close(self) -> None:
        if self.live.detail.is_open:
            self.live.close_detail()
            self.live.table.focus()
        else:
            self.rows.set_filter(EVERYTHING)
        self.pump()

    def action_next_tab(self) -> None:
        self.live.detail.step_tab(1)

    def action_previous_tab(self) -> None:
        self.live.detail.step_tab(-1)

    def action_show_tab(self, tab: str) -> None:
        self.live.detail.show_tab(tab)

    def action_switch_pane(self) -> None:
        if self._is_body_focused():
            self.live.table.focus()
        else:
            self.live.detail.body.focus()

    def action_larger(self) -> None:
        self.live.resize_detail(8)

    def action_smaller(self) -> None:
        self.live.resize_detail(-8)

    def action_follow(self) -> None:
        if self.view == "log" or self._is_body_focused():
            body = self._moved()
            body.follow = not body.follow
            if body.follow:
                body.move_last()
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

    # --- filter and search ---------------------------------------------------------------------------------------

    def action_edit_filter(self) -> None:
        self._open_prompt("filter", str(self.rows.filter))

    def action_search(self) -> None:
        target = self.search_target()
        if target is not None:
            self._search_text = target.query_text
            self._open_prompt("search", target.query_text)

    def _open_prompt(self, mode: Any, text: str) -> None:
        self.status.display = False
        self.prompt.open(mode, text)

    def _close_prompt(self) -> None:
        was_search = self.prompt.mode == "search"
        self.prompt.close()
        self.status.display = True
        target = self.search_target() if was_search else None
        (target or self._list_or_body()).focus()
        self.pump()

    @on(FilterLine.Changed)
    def _prompt_changed(self, event: FilterLine.Changed) -> None:
        if event.mode == "search" and (target := self.search_target()) is not None:
            target.search(event.text)

    @on(FilterLine.Accepted)
    def _prompt_accepted(self, event: FilterLine.Accepted) -> None:
        if event.mode == "filter":
            self.rows.set_filter(parse(event.text))
        else:
            self._prompt_changed(event)
        self._close_prompt()

    @on(FilterLine.Cancelled)
    def _prompt_cancelled(self) -> None:
        if not self.prompt.is_open:
            return
        if self.prompt.mode == "search" and (target := self.search_target()) is not None:
            target.search(self._search_text, jump_to_first=False)
        self._close_prompt()

    def action_next_match(self) -> None:
        if (target := self.search_target()) is not None:
            target.step_match(1)

    def action_previous_match(self) -> None:
        if (target := self.search_target()) is not None:
            target.step_match(-1)

    # --- taking along --------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        chosen = self.live.detail.transaction_id if self.live.detail.is_open else self.live.table.selected_id
        if chosen is None:
            chosen = self.rows.shown[-1].transaction_id

        def copy(what: str | None) -> None:
            if what:
                spawn(self._copy(what, chosen), name="copy")

        self.push_screen(PickScreen(f"Copy from {visible(chosen)}", copy_items()), copy)

    async def _copy(self, what: str, transaction_id: str) -> None:
        detail = await self.plane.detail(transaction_id)
        if detail is None:
            self.say("its record is not at hand any more", warn=True)
            return
        self.to_clipboard(copy_text(what, detail, self.state.address), what)

    def to_clipboard(self, text: str, what: str) -> None:
        """Hand text to the terminal's clipboard as it is, and say so; too much is refused, never cut."""
        length = len(text.encode())
        if not text:
            self.say(f"there is no {what} to copy", warn=True)
        elif length > CLIPBOARD_LIMIT:
            self.say(f"{what}: {length:,} bytes are more than a terminal's clipboard takes ({CLIPBOARD_LIMIT:,})", warn=True)
        else:
            self.copy_to_clipboard(text)
            self.say(f"copied the {what}: {length:,} bytes")

    def action_copy_setup(self) -> None:
        lines = setups(self.state.address)
        items = [
            PickItem(setup.line, setup.client[0].lower() if setup.client != "Ollama" else "l", setup.client, setup.line)
            for setup in lines
        ]

        def copy(line: str | None) -> None:
            if line:
                self.to_clipboard(line, "line")

        self.push_screen(PickScreen("Copy a line", items), copy)

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
            if name:
                self.call_later(self.run_action, name)

        self.push_screen(HelpScreen(self.valid_actions()), run)

    def action_hint_quit(self) -> None:
        self.say("ctrl+q quits")

    async def action_quit(self) -> None:
        active = self.plane.state().active
        if not active or self._leaving:
            self.begin_shutdown("")
            return

        def decided(answer: bool | None) -> None:
            if answer:
                self.begin_shutdown("")

        self.push_screen(QuitScreen(self._active), decided)

    def begin_shutdown_from_signal(self, name: str) -> None:
        """Drain and end without asking; a second time forces. To be called on the app's own loop through `call_later`."""
        self.begin_shutdown(name)

    def begin_shutdown(self, why: str) -> None:
        """Ask the gateway to drain, show what is left, and leave when it is closed; called again, force the end."""
        if self._leaving:
            if isinstance(self.screen, DrainScreen):
                self.screen.action_force()
            else:
                self._begin_shutdown()
            return
        self._leaving = True
        self._begin_shutdown()
        self.call_later(self._show_draining, why)
        spawn(self._leave(), name="leave")

    async def _show_draining(self, why: str) -> None:
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        await self.push_screen(DrainScreen(self._active, self._begin_shutdown, why))

    async def _leave(self) -> None:
        try:
            await self._wait_closed()
        finally:
            self.exit(return_code=0)

    def _active(self) -> int:
        return self.plane.state().active
