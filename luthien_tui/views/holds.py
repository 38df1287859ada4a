"""Holds: the queue of what waits for a person, and the whole story of the selected one.

A decision is made by its key alone, and binds to what was on the screen: it names the hash of the displayed hold, it is refused
until the end of its content was in sight, and for a moment after the displayed hold has changed, so that no key that was on
its way decides on something else. Nothing that happens elsewhere moves the selection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Input

from luthien_tui import figures, glyphs
from luthien_tui.documents import Document
from luthien_tui.hold_documents import Story, one_line, story
from luthien_tui.text import cell, hides, json_escaped
from luthien_tui.views.view import Hints, Movable, View
from luthien_tui.waiting import Waiting
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.decision_row import Complaint, DecisionRow, ReasonInput
from luthien_tui.widgets.hold_queue import HoldQueue
from luthien_tui.widgets.hold_title import HoldTitle
from luthien_tui.widgets.status_line import Standing, search_words
from luthien_tui.widgets.text_editor import EDIT_LIMIT, TextEditor
from proxy_core.control.plane import (
    ControlConflict,
    ControlInvalid,
    ControlNotFound,
    ControlPlane,
    GatewayState,
    HoldInfo,
)
from proxy_core.control.rows import TransactionRow
from proxy_core.tasks import spawn
from proxy_core.verdicts import Verdict

GUARD_S = 0.5
"""No key decides for so long after another hold is displayed."""
MORE_TIME_S = 300.0
IN_THREAD = 50_000
"""Characters of content above which its text is prepared off the loop."""

HOLDS_CSS = """
.-narrow HoldsView > #queue-side { width: 1fr; }
.-narrow HoldsView.-reading > #queue-side { display: none; }
.-narrow HoldsView #story { display: none; border-left: none; }
.-narrow HoldsView.-reading #story { display: block; }
"""
"""Where the story stands on a narrow screen: over the queue."""


class HoldsView(View):
    """The app tells it which keys were pressed."""

    DEFAULT_CSS = """
    HoldsView { layout: horizontal; }
    HoldsView.-shown { display: block; }
    HoldsView > #queue-side { width: 42%; height: 1fr; }
    HoldsView > #story { width: 1fr; height: 1fr; border-left: vkey $panel-lighten-1; }
    HoldsView TextEditor { display: none; }
    HoldsView.-editing TextEditor { display: block; }
    HoldsView.-editing BodyView { display: none; }
    """

    def __init__(
        self,
        plane: ControlPlane,
        waiting: Waiting,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        row_of: Callable[[str], TransactionRow | None],
        say: Callable[..., None],
    ) -> None:
        super().__init__(id="holds")
        self.plane = plane
        self.waiting = waiting
        self.clock = clock
        self.wall = wall
        self.row_of = row_of
        self.say = say
        self.queue = HoldQueue(waiting, wall, row_of)
        self.header = HoldTitle(wall)
        self.body = BodyView(id="hold-body")
        self.editor = TextEditor()
        self.complaint = Complaint()
        self.reason = ReasonInput()
        self.decision = DecisionRow()
        self._shown: HoldInfo | None = None
        """The hold that is displayed, as it was when it was displayed; decisions name this one."""
        self._shown_at = 0.0
        self._story: Story | None = None
        self._was_seen = False
        self._width = 0
        self._verdicts: tuple[Verdict, ...] = ()
        self._asked = 0
        self._is_sending = False

    def compose(self) -> ComposeResult:
        with Vertical(id="queue-side"):
            yield self.queue
        with Vertical(id="story"):
            yield self.header
            yield self.body
            yield self.editor
            yield self.complaint
            yield self.reason
            yield self.decision

    # --- what is displayed ---------------------------------------------------------------------------------------

    def entered(self) -> None:
        self._shown_at = self.clock()
        self.queue.tick()
        if self._pending() is None and self.waiting.pending:
            self.queue.select(self.waiting.pending[0].id)

    def go_to(self, hold_id: str) -> None:
        """Display this hold, with its text in front."""
        self.queue.tick()
        self.queue.select(hold_id)
        self._shown_at = self.clock()
        self.add_class("-reading")

    def tick(self, state: GatewayState, *, seen: bool) -> None:
        if not seen:
            return
        self.queue.tick()
        if self.queue.selected is None and not self.typing and self.waiting.pending:
            self.queue.select(self.waiting.pending[0].id)
        selected = self.queue.selected
        if not self.typing:
            self._display(selected)
        elif self.screen.is_active and not self.home().has_focus:
            self.home().focus()
        self._notice_seen()
        self.header.refresh()
        self._tell()

    def _display(self, hold: HoldInfo | None) -> None:
        """Show a hold; the same one anew where it has changed."""
        if self.body.size.width and self.body.text_width != self._width and self._shown is not None:
            self._build(keep_top=True)
        if hold == self._shown:
            return
        is_other = hold is None or self._shown is None or (hold.id, hold.shown) != (self._shown.id, self._shown.shown)
        self._shown = self.header.hold = hold
        if is_other:
            self._shown_at = self.clock()
            self._was_seen = False
            self._verdicts = ()
            self.complaint.say("")
            if hold is not None:
                spawn(self._ask_verdicts(hold), name="hold's verdicts")
        self._build(keep_top=not is_other)

    def _build(self, *, keep_top: bool) -> None:
        self._asked += 1
        hold = self._shown
        if hold is None:
            self._story = None
            self.body.show(Document())
            return
        if len(hold.content) > IN_THREAD:
            if not keep_top:
                self._story = None
                self.body.show(Document())
            spawn(self._build_off_loop(hold, self._asked, keep_top=keep_top), name="hold's text")
        else:
            width = self._width = self.body.text_width
            self._put(story(hold, self.row_of(hold.transaction_id), self._verdicts, width), keep_top=keep_top)

    async def _build_off_loop(self, hold: HoldInfo, asked: int, *, keep_top: bool) -> None:
        width = self._width = self.body.text_width
        found = await asyncio.to_thread(story, hold, self.row_of(hold.transaction_id), self._verdicts, width)
        if asked == self._asked and self.is_attached:
            self._put(found, keep_top=keep_top)

    def _put(self, found: Story, *, keep_top: bool) -> None:
        self._story = found
        self.body.show(found.document, top=self.body.top if keep_top else 0)

    async def _ask_verdicts(self, hold: HoldInfo) -> None:
        detail = await self.plane.detail(hold.transaction_id)
        if detail is not None and detail.verdicts and self._shown is not None and self._shown.id == hold.id and self.is_attached:
            self._verdicts = detail.verdicts
            self._build(keep_top=True)

    # --- the lock ------------------------------------------------------------------------------------------------

    def _below(self) -> int:
        """Rows of the content below the lowest row in sight."""
        if self._story is None:
            return 0
        return max(0, self._story.content_end - self.body.top - self.body.size.height)

    def _notice_seen(self) -> None:
        is_in_front = self.screen.is_active and self.body.is_on_screen and self.body.size.height
        if self._story is not None and is_in_front and not self._below():
            self._was_seen = True

    def _pending(self) -> HoldInfo | None:
        """The displayed hold, while it waits and is the selected one."""
        hold, now = self._shown, self.queue.selected
        if hold is None or now is None or (now.id, now.shown, now.status) != (hold.id, hold.shown, "pending"):
            return None
        return hold

    @property
    def _is_settled(self) -> bool:
        """Whether the displayed hold has been on screen long enough for a key to mean it."""
        return not self._is_sending and self.clock() - self._shown_at >= GUARD_S

    @property
    def can_approve(self) -> bool:
        is_shown = self._was_seen and self._story is not None and self._story.is_whole
        return is_shown and self._pending() is not None and self._is_settled

    def _tell(self) -> None:
        hold = self._shown
        note, tone = "", "quiet"
        if self.typing:
            what = (
                "you change a copy; what is held waits" if self.has_class("-editing") else "type a reason for the client, or none"
            )
            self.decision.update(what, "notice", can_approve=False, can_decide=False)
            return
        if hold is None:
            note = "nothing is selected"
        elif self._pending() is None:
            face = glyphs.HOLDS.get(hold.status, glyphs.HOLDS["withdrawn"])
            note, tone = f"{face.sign} {face.word}" + (f" by {cell(hold.decided_by)}" if hold.decided_by else ""), face.tone
        elif self._story is not None and not self._story.is_whole:
            note, tone = "too long to be shown whole: it can only be denied here", "warning"
        elif not self._was_seen:
            below = self._below()
            note = f"{below:,} more line{'s' if below != 1 else ''} below: scroll to see them, then approve" if below else "…"
            tone = "warning"
        elif not self._is_settled:
            note = "a moment: look at it"
        else:
            note, tone = "seen whole; your decision binds to exactly this", "ok"
        can_decide = self._pending() is not None and self._is_settled
        self.decision.update(note, tone, can_approve=self.can_approve, can_decide=can_decide)

    # --- keys ----------------------------------------------------------------------------------------------------

    def home(self) -> Widget:
        if self.typing:
            return self.editor if self.has_class("-editing") else self.reason
        return self.body if self.has_class("-reading") and self.screen.has_class("-narrow") else self.queue

    def moved(self) -> Movable:
        return self.body if self.is_reading else self.queue

    @property
    def is_reading(self) -> bool:
        return self.body.has_focus

    @property
    def typing(self) -> Hints:
        if self.has_class("-editing"):
            return (("ctrl+s", "approve this text"), ("esc", "leave as it was"))
        if self.reason.has_class("-open"):
            return (("enter", "deny"), ("esc", "leave as it was"))
        return ()

    def search_target(self) -> BodyView | None:
        return self.body if self._shown is not None else None

    def standing(self) -> Standing:
        return Standing(mode="", search=search_words(self.search_target()))

    def allows(self, action: str) -> bool:
        if action in ("approve", "edit_held", "deny", "more_time"):
            return self._pending() is not None and not self.typing
        if action == "read_hold":
            return self._shown is not None and not self.is_reading
        if action == "leave_hold":
            return self.is_reading or self.has_class("-reading")
        return True

    def read(self) -> None:
        self.add_class("-reading")
        self.body.focus()

    def leave(self) -> None:
        self.remove_class("-reading")
        self.queue.focus()

    def switch_pane(self) -> None:
        if self.is_reading:
            self.leave()
        else:
            self.read()

    @on(HoldQueue.Selected)
    def _selected(self) -> None:
        if not self.typing:
            self._display(self.queue.selected)

    def approve(self) -> None:
        hold = self._decidable(approving=True)
        if hold is not None:
            self._send(hold, "approve")

    def edit(self) -> None:
        hold = self._decidable(approving=True)
        if hold is None:
            return
        if len(hold.content) > EDIT_LIMIT:
            self.say(f"{len(hold.content):,} characters are too many to be edited here", warn=True)
            return
        is_json = hold.stage == "tool_call" or hold.content.lstrip()[:1] in ("{", "[")
        if hides(hold.content) and not is_json:
            self.say("it holds characters that an editor would obey or hide, so it cannot be edited here", warn=True)
            return
        self.editor.load_text(json_escaped(hold.content))
        self.complaint.say("")
        self.add_class("-editing")
        self.editor.focus()

    def deny(self) -> None:
        if self._decidable(approving=False) is not None:
            self.reason.value = ""
            self.complaint.say("")
            self.reason.add_class("-open")
            self.reason.focus()

    def more_time(self) -> None:
        hold = self._decidable(approving=False)
        if hold is not None:
            spawn(self._try(lambda: self.plane.extend_hold(hold.id, MORE_TIME_S)), name="more time")

    def _decidable(self, *, approving: bool) -> HoldInfo | None:
        """The displayed hold where a decision on it may be made now; None, and a word why, where it may not."""
        hold = self._pending()
        if hold is None or not self._is_settled:
            return None  # a key that was on its way
        if not self.body.is_on_screen:
            self._shown_at = self.clock()
            self.read()
            return None
        if approving and not self.can_approve:
            self.say("look at all of it first: scroll to its end", warn=True)
            return None
        return hold

    @on(TextEditor.Taken)
    def _edited(self, event: TextEditor.Taken) -> None:
        event.stop()
        if self._shown is not None and not self._is_sending:
            self._send(self._shown, "edit", edited=event.text)

    @on(Input.Submitted)
    def _reasoned(self, event: Input.Submitted) -> None:
        event.stop()
        if self._shown is not None and not self._is_sending:
            self._send(self._shown, "deny", reason=event.value.strip())

    @on(TextEditor.Left)
    @on(ReasonInput.Left)
    def _stop_typing(self) -> None:
        self.remove_class("-editing")
        self.reason.remove_class("-open")
        self.complaint.say("")
        self.home().focus()

    # --- decisions -----------------------------------------------------------------------------------------------

    def _send(self, hold: HoldInfo, decision: str, *, edited: str | None = None, reason: str = "") -> None:
        def decide() -> Awaitable[HoldInfo]:
            return self.plane.decide_hold(hold.id, decision=decision, shown=hold.shown, edited=edited, reason=reason)

        self._is_sending = True
        spawn(self._try(decide, hold, self.waiting.after(hold.id)), name="decision")

    async def _try(
        self, act: Callable[[], Awaitable[HoldInfo]], decided: HoldInfo | None = None, following: HoldInfo | None = None
    ) -> None:
        """Do it, and tell what came of it; `decided`: the hold that is decided by it, `following`: what is looked at then."""
        try:
            done = await act()
        except ControlInvalid as error:
            self.complaint.say(f"{error.field}: {error.message}")
            return
        except (ControlConflict, ControlNotFound) as error:
            self.say(f"not done: {error}", warn=True)
        else:
            if decided is None:
                self.say(f"more time: until {figures.clock(done.deadline)}")
            else:
                face = glyphs.HOLDS.get(done.status, glyphs.HOLDS["withdrawn"])
                self.say(f"{face.word}: {one_line(done, self.row_of(done.transaction_id))[:60]}")
        finally:
            self._is_sending = False
        if self.is_attached:
            self._go_on(decided, following)

    def _go_on(self, decided: HoldInfo | None, following: HoldInfo | None) -> None:
        """Look again; after a decision at the next one that waits."""
        if decided is not None and self.typing:
            self._stop_typing()
        self.waiting.look(decided=True)
        self.queue.tick()
        selected = self.queue.selected
        if decided is not None and selected is not None and selected.id == decided.id and selected.status != "pending":
            ids = [hold.id for hold in self.waiting.pending]
            if ids:
                self.queue.select(following.id if following is not None and following.id in ids else ids[0])
        self._display(self.queue.selected)
