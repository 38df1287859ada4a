"""What the keys of single views do: each hands its key to the view, and some lead from one view to another."""

from __future__ import annotations

from textual.app import App

from luthien_tui.views.holds import HoldsView
from luthien_tui.views.live import LiveView
from luthien_tui.views.policies import PoliciesView
from luthien_tui.views.routing import RoutingView
from luthien_tui.views.sessions import SessionsView
from luthien_tui.waiting import Waiting
from proxy_core.control.view import TransactionList


class ViewActions(App[None], inherit_bindings=False):
    """The part of the app that knows which view a key belongs to; actions.py names the keys."""

    view: str
    """The name of the view that is shown."""
    rows: TransactionList
    waiting: Waiting
    live: LiveView
    holds: HoldsView
    sessions: SessionsView
    policies: PoliciesView
    routing: RoutingView

    def show_view(self, view: str) -> None:
        """Bring a view to the front."""
        raise NotImplementedError

    def pump(self) -> None:
        """Look at the gateway and draw what changed."""
        raise NotImplementedError

    def action_go_to_hold(self) -> None:
        chosen = self.live.chosen
        hold = self.waiting.of_transaction(chosen.transaction_id) if chosen is not None else None
        if hold is not None:
            self.show_hold(hold.id)

    def show_hold(self, hold_id: str) -> None:
        self.show_view("holds")
        self.holds.go_to(hold_id)
        self.holds.home().focus()
        self.pump()

    # --- holds ---------------------------------------------------------------------------------------------------

    def action_read_hold(self) -> None:
        self.holds.read()

    def action_leave_hold(self) -> None:
        self.holds.leave()

    def action_approve(self) -> None:
        self.holds.approve()

    def action_edit_held(self) -> None:
        self.holds.edit()

    def action_deny(self) -> None:
        self.holds.deny()

    def action_more_time(self) -> None:
        self.holds.more_time()

    # --- sessions ------------------------------------------------------------------------------------------------

    def action_show_session(self) -> None:
        """From a transaction to its session."""
        chosen = self.live.chosen
        if chosen is not None and chosen.session_id:
            self.show_view("sessions")
            self.sessions.open_session(chosen.session_id)
            self.pump()

    def action_show_transaction(self) -> None:
        """From a turn to its transaction."""
        turn = self.sessions.turn
        if turn is not None:
            self.show_view("live")
            self.live.show(self.rows.row(turn.transaction_id) or turn.row)
            self.live.home().focus()
            self.pump()

    def action_decide_turn(self) -> None:
        if (hold_id := self.sessions.hold_id) is not None:
            self.show_hold(hold_id)

    def action_toggle_agents(self) -> None:
        self.sessions.toggle_agents()
        self.pump()

    def action_sessions_of_agent(self) -> None:
        self.sessions.sessions_of_agent()
        self.pump()

    def action_sort_sessions(self) -> None:
        self.sessions.choose_sort()

    def action_reverse_sort(self) -> None:
        self.sessions.reverse_sort()
        self.pump()

    def action_fold(self) -> None:
        self.sessions.fold()
        self.pump()

    def action_unfold_all(self) -> None:
        self.sessions.pane.unfold_all()

    def action_next_turn(self) -> None:
        self.sessions.pane.talk.step_turn(1)

    def action_previous_turn(self) -> None:
        self.sessions.pane.talk.step_turn(-1)

    def action_diff_turn(self) -> None:
        self.sessions.pane.diff()

    # --- policies ------------------------------------------------------------------------------------------------

    def action_cycle_mode(self) -> None:
        self.policies.cycle_mode()

    @property
    def _tuned(self) -> PoliciesView | RoutingView:
        """The view whose parameters the keys move."""
        return self.routing if self.view == "routing" else self.policies

    def action_raise(self) -> None:
        self._tuned.step(1)

    def action_lower(self) -> None:
        self._tuned.step(-1)

    def action_raise_far(self) -> None:
        self._tuned.step(10)

    def action_lower_far(self) -> None:
        self._tuned.step(-10)

    def action_apply(self) -> None:
        self._tuned.apply()

    def action_edit_param(self) -> None:
        self._tuned.edit_param()

    def action_drop(self) -> None:
        self._tuned.drop()

    # --- routing -------------------------------------------------------------------------------------------------

    def action_force_local(self) -> None:
        self.routing.force_local()

    def action_drain(self) -> None:
        self.routing.turn("drained")

    def action_freeze_upstream(self) -> None:
        self.routing.turn("frozen")

    def action_undo(self) -> None:
        self.routing.undo()
