"""Routing: where requests go and why, and its thresholds, which are prepared here and come into force with enter.

A prepared change is tried on recorded traffic while it is prepared. What is in force can be taken back once with `u`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import ComposeResult
from textual.widget import Widget

from luthien_tui.policy_changes import Pending, can_move, moved
from luthien_tui.text import cell
from luthien_tui.views.tuning import LOOK_EVERY_S, TuningView
from luthien_tui.views.view import Movable, ViewContext
from luthien_tui.widgets.decision_list import DecisionList
from luthien_tui.widgets.pick_screen import PickItem, PickScreen
from luthien_tui.widgets.question_screen import QuestionScreen
from luthien_tui.widgets.routing_panel import RoutingPanel, moves_in_words
from luthien_tui.widgets.value_screen import LEFT, ValueScreen
from proxy_core.control.plane import ControlInvalid, ControlNotFound, GatewayState, ParamInfo
from proxy_core.control.routing_infos import RoutingInfo
from proxy_core.errors import LuthienError
from proxy_core.routing.health import OperatorState
from proxy_core.tasks import spawn

ROUTING_CSS = """
.-normal RoutingView, .-wide RoutingView { layout: horizontal; }
.-normal RoutingView > DecisionList, .-wide RoutingView > DecisionList { height: 1fr; }
.-normal RoutingView > RoutingPanel, .-wide RoutingView > RoutingPanel { width: 55%; height: 1fr;
    border-left: vkey $panel-lighten-1; }
"""


class RoutingView(TuningView):
    """The app tells it which keys were pressed."""

    DEFAULT_CSS = """
    RoutingView { layout: vertical; }
    RoutingView.-shown { display: block; }
    RoutingView > DecisionList { height: 6; }
    RoutingView > RoutingPanel { height: 1fr; }
    """

    def __init__(self, context: ViewContext) -> None:
        super().__init__(context, id="routing")
        self.decisions = DecisionList()
        self.panel = RoutingPanel()
        self.info: RoutingInfo | None = None
        self._pending = Pending()
        self._note = ""
        self._asked: dict[str, Any] = {}
        self._is_asking = False
        self._undo: Callable[[], Awaitable[RoutingInfo]] | None = None
        """Takes back the last change of this view."""

    def compose(self) -> ComposeResult:
        yield self.decisions
        yield self.panel

    @property
    def is_kept_local(self) -> bool:
        """Whether an operator keeps everything local."""
        return self.info is not None and self.info.override == "local"

    def tick(self, state: GatewayState, *, seen: bool) -> None:
        if self.clock() - self._looked >= (LOOK_EVERY_S if seen else 10 * LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        """Ask the gateway how routing stands."""
        self._looked = self.clock()
        self.info = self.plane.routing()
        self._pending.settle_params(self.info.rules)
        self.decisions.show(self.info.recent)
        self._show()

    def _show(self) -> None:
        if self.info is not None:
            self.panel.show(self.info, self._pending, self._note)

    def _changed(self) -> None:
        """Something else is prepared: show it, and ask what it would move."""
        if self._pending:
            self._note = "asking the recorded traffic …"
            if not self._is_asking:
                spawn(self._try(), name="try routing on recorded traffic")
        self._show()

    async def _try(self) -> None:
        self._is_asking = True
        try:
            while self._pending and self._asked != self._pending.params:
                self._asked = dict(self._pending.params)
                try:
                    found = await self.plane.what_if(self._asked)
                except ControlInvalid as error:
                    note = f"✗ {cell(error.message)}"
                except LuthienError as error:
                    note = f"cannot be tried: {cell(str(error))}"
                else:
                    note = moves_in_words(found)
                if self._asked == self._pending.params:
                    self._note = note
        finally:
            self._is_asking = False
            self._asked = {}
        if self.is_attached:
            self._show()

    # --- keys ----------------------------------------------------------------------------------------------------

    def home(self) -> Widget:
        return self.panel

    def moved(self) -> Movable:
        return self.decisions if self.decisions.has_focus else self.panel

    def switch_pane(self) -> None:
        (self.panel if self.decisions.has_focus else self.decisions).focus()

    def allows(self, action: str) -> bool:
        param = self.panel.param
        if action in ("raise", "lower", "raise_far", "lower_far"):
            return param is not None and can_move(param)
        if action == "drop":
            return bool(self._pending) or self.decisions.has_focus
        if action == "edit_param":
            return param is not None
        if action in ("drain", "freeze_upstream"):
            return self.panel.upstream is not None
        if action == "apply":
            return bool(self._pending) or param is not None
        if action == "undo":
            return self._undo is not None
        return True

    def step(self, steps: int) -> None:
        """Move the chosen number."""
        param = self.panel.param
        if param is not None and can_move(param):
            self._set(param, moved(param, self._pending.value_of(param), steps))

    def edit_param(self) -> None:
        """Choose or type a value for the chosen rule."""
        param = self.panel.param
        if param is None:
            return
        value = self._pending.value_of(param)
        if param.kind == "choice":
            items = [PickItem(choice, "", cell(choice)) for choice in param.choices]
            screen = PickScreen(cell(param.name), items, start=str(value or ""))
            self.ask(screen, lambda choice: self._set(param, choice) if choice else None)
        else:
            self.ask(ValueScreen(param, value), lambda new: None if new is LEFT else self._set(param, new))

    def _set(self, param: ParamInfo, value: Any) -> None:
        self._pending.set_value(param, value)
        self._changed()

    def apply(self) -> None:
        """Put what is prepared in force; without a change, edit the chosen rule."""
        if not self._pending:
            self.edit_param()
        elif self.info is not None:
            params = dict(self._pending.params)
            before = {one.name: one.value for one in self.info.rules if one.name in params}
            self._change(lambda: self.plane.set_routing(params), lambda: self.plane.set_routing(before))

    def _change(self, change: Callable[[], Awaitable[RoutingInfo]], undo: Callable[[], Awaitable[RoutingInfo]] | None) -> None:
        if not self._is_applying:
            self._is_applying = True
            spawn(self._do(change, undo), name="change routing")

    async def _do(self, change: Callable[[], Awaitable[RoutingInfo]], undo: Callable[[], Awaitable[RoutingInfo]] | None) -> None:
        try:
            await change()
        except ControlInvalid as error:
            self._pending.wrong = {error.field: error.message}
        except (ControlNotFound, LuthienError) as error:
            self.say(f"not done: {cell(str(error))}", warn=True)
        else:
            self._undo = undo
        finally:
            self._is_applying = False
        if self.is_attached:
            self.look()

    def drop(self) -> None:
        if self._pending:
            self._pending = Pending()
            self._show()
        else:
            self.panel.focus()

    def force_local(self) -> None:
        """Ask, then keep everything local, or no more."""
        on = not self.is_kept_local

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                self._change(lambda: self.plane.force_local(on), lambda: self.plane.force_local(not on))

        if on:
            question = QuestionScreen("Keep every request local?", "what no local upstream takes is refused", "keep it local")
        else:
            question = QuestionScreen("Let the rules decide again?", "requests may go to clouds then", "let the rules decide")
        self.ask(question, answered)

    def turn(self, state: OperatorState) -> None:
        """Drain or freeze the chosen upstream; one that is so already serves again."""
        upstream = self.panel.upstream
        if upstream is None:
            return
        name, before = upstream.name, upstream.state
        wanted = "active" if before == state else state
        self._change(lambda: self.plane.set_upstream(name, wanted), lambda: self.plane.set_upstream(name, before))

    def undo(self) -> None:
        """Take back the last change of this view."""
        if self._undo is not None:
            self._change(self._undo, None)
