"""Policies: the chain in order, and the controls of the selected policy.

What keys change is only prepared; enter puts it in force, and the gateway validates it: what it refuses is said at its field
and stays prepared. A change made elsewhere is shown at once; what is prepared here survives it.
"""

from __future__ import annotations

from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.events import Resize
from textual.widget import Widget

from luthien_tui.policy_changes import Pending, can_move, moved, next_mode
from luthien_tui.text import cell
from luthien_tui.views.tuning import LOOK_EVERY_S, TuningView
from luthien_tui.views.view import Movable, ViewContext
from luthien_tui.widgets.paint import Piece
from luthien_tui.widgets.pick_screen import PickItem, PickScreen
from luthien_tui.widgets.policy_panel import PolicyPanel
from luthien_tui.widgets.policy_table import PolicyTable
from luthien_tui.widgets.question_screen import QuestionScreen
from luthien_tui.widgets.strip_bar import StripBar
from luthien_tui.widgets.value_screen import LEFT, ValueScreen
from proxy_core.control.plane import ControlInvalid, ControlNotFound, GatewayState, ParamInfo, PolicyInfo
from proxy_core.tasks import spawn

POLICIES_CSS = """
.-wide PoliciesView { layout: horizontal; }
.-wide PoliciesView > PolicyTable { height: 1fr; max-height: 100%; }
.-wide PoliciesView > #policy-rule { display: none; }
.-wide PoliciesView > PolicyPanel { width: 40%; height: 1fr; border-left: vkey $panel-lighten-1; }
"""


class PolicyRule(StripBar):
    """Between the table and the panel: whose parameters these are."""

    DEFAULT_CSS = "PolicyRule { background: $surface; }"
    name_shown = ""

    def line(self, y: int, width: int) -> list[Piece]:
        return [(f" {cell(self.name_shown)}", "accent")]


class PoliciesView(TuningView):
    """The app tells it which keys were pressed."""

    DEFAULT_CSS = """
    PoliciesView { layout: vertical; }
    PoliciesView.-shown { display: block; }
    PoliciesView > PolicyTable { max-height: 50%; }
    PoliciesView > PolicyPanel { height: 1fr; }
    """

    def __init__(self, context: ViewContext) -> None:
        super().__init__(context, id="policies")
        self.table = PolicyTable()
        self.rule = PolicyRule(id="policy-rule")
        self.panel = PolicyPanel()
        self._pending: dict[str, Pending] = {}

    def compose(self) -> ComposeResult:
        yield self.table
        yield self.rule
        yield self.panel

    @property
    def pending_count(self) -> int:
        """Policies with a change that is not in force yet."""
        return sum(bool(one) for one in self._pending.values())

    def tick(self, state: GatewayState, *, seen: bool) -> None:
        if seen and self.clock() - self._looked >= LOOK_EVERY_S:
            self.look()

    def look(self) -> None:
        """Ask the gateway how the policies stand."""
        self._looked = self.clock()
        policies = self.plane.policies()
        for policy in policies:
            if (pending := self._pending.get(policy.name)) is not None:
                pending.settle(policy)
        self.table.show(policies, self._pending)
        self._show_selected()

    def _show_selected(self) -> None:
        policy = self.table.selected
        self.panel.show(policy, self._of(policy) if policy is not None else Pending())
        name = policy.name if policy is not None else ""
        if name != self.rule.name_shown:
            self.rule.name_shown = name
            self.rule.refresh()

    def _param(self) -> ParamInfo | None:
        """The chosen parameter of the selected policy; keys may be quicker than the word that another one is selected."""
        if self.panel.policy is not self.table.selected:
            self._show_selected()
        return self.panel.param

    def _of(self, policy: PolicyInfo) -> Pending:
        return self._pending.setdefault(policy.name, Pending())

    def _changed(self) -> None:
        self.table.refresh()
        self._show_selected()

    @on(PolicyTable.Selected)
    def _selected(self) -> None:
        self._show_selected()

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._show_selected)

    # --- keys ----------------------------------------------------------------------------------------------------

    def home(self) -> Widget:
        return self.table

    def moved(self) -> Movable:
        return self.panel if self.panel.has_focus else self.table

    def switch_pane(self) -> None:
        (self.table if self.panel.has_focus else self.panel).focus()

    def allows(self, action: str) -> bool:
        policy = self.table.selected
        if policy is None:
            return False
        pending = self._pending.get(policy.name)
        if action == "cycle_mode":
            return not policy.sends
        if action in ("raise", "lower", "raise_far", "lower_far"):
            param = self._param()
            return param is not None and can_move(param)
        if action == "drop":
            return bool(pending) or self.panel.has_focus
        if action == "apply":
            return bool(pending) or self._param() is not None
        if action == "edit_param":
            return self._param() is not None
        return True

    def cycle_mode(self) -> None:
        policy = self.table.selected
        if policy is None or policy.sends:
            return
        pending = self._of(policy)
        mode = next_mode(pending.mode_of(policy))
        if mode == "off" and policy.mode == "enforce":
            stopped = f"it acted on {policy.acted_today:,} today" if policy.acted_today else "it acted on nothing today"

            def answered(is_sure: bool | None) -> None:
                if is_sure:
                    pending.set_mode(policy, "off")
                    self._changed()

            self.ask(QuestionScreen(f"Turn {policy.name} off?", f"{stopped}; enter then applies it", "off"), answered)
            return
        pending.set_mode(policy, mode)
        self._changed()

    def step(self, steps: int) -> None:
        """Move the chosen number."""
        policy, param = self.table.selected, self._param()
        if policy is not None and param is not None and can_move(param):
            pending = self._of(policy)
            pending.set_value(param, moved(param, pending.value_of(param), steps))
            self._changed()

    def edit_param(self) -> None:
        """Choose or type a value for the chosen parameter."""
        policy, param = self.table.selected, self._param()
        if policy is None or param is None:
            return
        pending = self._of(policy)
        value = pending.value_of(param)

        def take(new: Any) -> None:
            pending.set_value(param, new)
            self._changed()

        if param.kind == "boolean":
            take(not value)
        elif param.kind == "choice":
            items = [PickItem(choice, "", cell(choice)) for choice in param.choices]
            self.ask(PickScreen(cell(param.name), items, start=str(value)), lambda choice: take(choice) if choice else None)
        else:
            self.ask(ValueScreen(param, value), lambda new: None if new is LEFT or (new is None and value is None) else take(new))

    def apply(self) -> None:
        """Put what is prepared for the selected policy in force; without a change, edit the chosen parameter."""
        policy = self.table.selected
        if policy is None or self._is_applying:
            return
        pending = self._pending.get(policy.name)
        if not pending:
            self.edit_param()
        else:
            spawn(self._apply(policy, pending), name="apply policy")

    async def _apply(self, policy: PolicyInfo, pending: Pending) -> None:
        self._is_applying = True
        try:
            await self.plane.set_policy(policy.name, mode=pending.mode, params=dict(pending.params) or None)
        except ControlInvalid as error:
            pending.wrong = {_field(error.field, policy): error.message}
        except ControlNotFound as error:
            self.say(f"not done: {error}", warn=True)
            self._pending.pop(policy.name, None)
        else:
            self._pending.pop(policy.name, None)
        finally:
            self._is_applying = False
        if self.is_attached:
            self.look()

    def drop(self) -> None:
        policy = self.table.selected
        if policy is not None and self._pending.get(policy.name):
            del self._pending[policy.name]
            self._changed()
        else:
            self.table.focus()


def _field(field: str, policy: PolicyInfo) -> str:
    """The parameter that a complaint belongs to: `params.rules.0.find` is said at `rules`."""
    name = field.removeprefix("params.").partition(".")[0]
    return f"params.{name}" if any(param.name == name for param in policy.params) else field
