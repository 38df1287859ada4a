"""What is open of the sessions: a conversation, followed while it goes on; a diff of two turns; or an agent.

Sub-sessions are opened over the one that they belong to, and closed to where it stood. A search unfolds everything, so that it
finds what was folded too; after it all is folded again but what is under the cursor. Only turns that are new or other than
they were are asked for and built; large ones are built in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.events import Resize

from luthien_tui.detail_documents import note
from luthien_tui.documents import Document
from luthien_tui.open_session import OpenSession
from luthien_tui.recent_sessions import RecentSessions
from luthien_tui.sections import Folding, Section
from luthien_tui.session_documents import agent_document, turn_diff_document
from luthien_tui.shown_session import ShownSession, length, write_aside, write_sections
from luthien_tui.text import cell
from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.conversation_view import ConversationView
from luthien_tui.widgets.session_title import SessionTitle
from proxy_core.control.plane import ControlPlane
from proxy_core.control.session_infos import AgentDetail, Turn
from proxy_core.errors import LuthienError
from proxy_core.tasks import spawn

EVERY_S = 0.5
"""The least time between two questions about an open session."""
REST = 5.0
"""How many times as long as an answer took there is no other question."""
LONGEST_REST_S = 3.0
"""And no longer than so."""
INLINE = 20_000
"""Characters of turns above which they are built in a thread."""


class SessionPane(Vertical):
    """Hidden until something is opened."""

    DEFAULT_CSS = """
    SessionPane { background: $background; display: none; }
    SessionPane.-open { display: block; }
    SessionPane #aside { display: none; }
    SessionPane.-aside #aside { display: block; }
    SessionPane.-aside #talk { display: none; }
    """

    def __init__(self, plane: ControlPlane, recent: RecentSessions, clock: Callable[[], float], say: Callable[..., None]) -> None:
        super().__init__(id="session-pane")
        self.plane = plane
        self.recent = recent
        self.clock = clock
        self.say = say
        self.title_bar = SessionTitle()
        self.talk = ConversationView(id="talk")
        self.aside = BodyView(id="aside")
        self.waiting: Collection[str] = frozenset()
        """Sessions of which something waits for the operator."""
        self._stack: list[ShownSession] = []
        self._agent: AgentDetail | None = None
        self._note = ""
        self._asked = 0
        self._is_asking = False
        self._is_building = False
        self._rests_until = 0.0
        self._width = 0
        self._search_begins = False
        """Whether the first match is to be gone to as soon as everything is unfolded."""

    def compose(self) -> ComposeResult:
        yield self.title_bar
        yield self.talk
        yield self.aside

    # --- what is open --------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self.has_class("-open")

    @property
    def body(self) -> BodyView:
        """What is read now."""
        return self.aside if self.has_class("-aside") else self.talk

    @property
    def shows_talk(self) -> bool:
        return self.is_open and not self.has_class("-aside")

    @property
    def session(self) -> OpenSession | None:
        return self._stack[-1].session if self._stack else None

    @property
    def turn(self) -> Turn | None:
        """The turn under the cursor."""
        session = self.session
        if session is None or not session.turns:
            return None
        return session.turn(self.talk.here.turn or session.turns[0].number)

    @property
    def place(self) -> str:
        """Where in the conversation the cursor is, in words."""
        session = self.session
        if session is None or not session.turns:
            return ""
        return f"turn {self.talk.here.turn or session.turns[0].number:,}/{session.turns[-1].number:,}"

    def open(self, session_id: str) -> None:
        """Show a session alone."""
        if self._stack and len(self._stack) == 1 and self._stack[0].session.id == session_id:
            self.leave_aside()
            return
        self._stack.clear()
        self.open_over(session_id)

    def open_over(self, session_id: str) -> None:
        """Show a session over the one that is open; one that is open below is gone back to."""
        self._agent = None
        if self._stack:
            self._stack[-1].place = self.talk.cursor
        for place, shown in enumerate(self._stack):
            if shown.session.id == session_id:
                del self._stack[place + 1 :]
                self._come_back()
                return
        shown = ShownSession(OpenSession(self.plane, session_id))
        self._stack.append(shown)
        self.add_class("-open")
        self.leave_aside()
        self.talk.begin(Section(), at_end=False)
        self._ask(lambda: self._load(shown))

    def open_agent(self, agent_id: str) -> None:
        """Show an agent."""
        self._stack.clear()
        self.add_class("-open")
        self._ask(lambda: self._load_agent(agent_id))

    def back(self) -> bool:
        """Close the topmost of what is open; False where it was the last."""
        if self.has_class("-aside") and self._stack and self._stack[-1].is_begun:
            self.leave_aside()
            return True
        if self._stack:
            self._stack.pop()
        if self._stack:
            self._come_back()
            return True
        self.close()
        return False

    def close(self) -> None:
        self._asked += 1
        self._stack.clear()
        self._agent = None
        self._is_asking = False
        self.remove_class("-open")
        self.leave_aside()
        self.talk.begin(Section(), at_end=False)

    def leave_aside(self) -> None:
        self._note = ""
        self.remove_class("-aside")
        self.aside.show(Document())

    def _come_back(self) -> None:
        """Show the session again that another one was open over."""
        self._asked += 1
        self._is_asking = False
        self._rests_until = 0.0
        self._stack[-1].is_begun = False
        self.leave_aside()
        self._build()

    # --- asking --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Follow the session; called by the frame pump while it may be seen."""
        if self._agent is not None:
            self.title_bar.show_agent(self._agent.info)
        if not self._stack:
            return
        shown = self._stack[-1]
        session = shown.session
        path = [one.session.id for one in self._stack]
        parent = self._stack[0].session.parent
        if parent is not None and parent.id not in path:
            path.insert(0, parent.id)
        self.title_bar.show_session(tuple(path), session.info, waits=session.id in self.waiting, note=self._note)
        if shown.is_begun and bool(self.talk.query_text) != (shown.searched is not None):
            shown.search(begins=bool(self.talk.query_text), here=self.talk.here)
            self._search_begins = shown.searched is not None
            self._build()
        has_changed = shown.seen != self.recent.version_of(session.id) or session.is_running
        if has_changed and shown.is_begun and not self._is_asking and self.clock() >= self._rests_until:
            self._ask(lambda: self._update(shown))

    def _ask(self, read: Callable[[], Awaitable[None]]) -> None:
        self._is_asking = True
        self._asked += 1
        spawn(self._try(read, self._asked), name="session")

    async def _try(self, read: Callable[[], Awaitable[None]], asked: int) -> None:
        started = self.clock()
        try:
            await read()
        except LuthienError as error:
            if asked == self._asked and self.is_attached:
                self.say(f"the session cannot be read: {cell(str(error))}", warn=True)
        finally:
            if asked == self._asked:
                self._is_asking = False
                self._rests_until = self.clock() + max(EVERY_S, min(REST * (self.clock() - started), LONGEST_REST_S))

    def _is_on_top(self, shown: ShownSession) -> bool:
        return self.is_attached and bool(self._stack) and self._stack[-1] is shown

    async def _load(self, shown: ShownSession) -> None:
        shown.seen = self.recent.version_of(shown.session.id)
        is_known = await shown.session.load()
        if not self._is_on_top(shown):
            return
        if is_known:
            self._build()
        else:
            self._show_aside(note("The gateway does not know this session any more."), "")

    async def _update(self, shown: ShownSession) -> None:
        shown.seen = self.recent.version_of(shown.session.id)
        children = shown.session.children
        changed = await shown.session.update()
        shown.drop(changed)
        if children != shown.session.children:
            shown.drop_parents()
        if self._is_on_top(shown) and shown.missing:
            self._build()

    async def _load_earlier(self, shown: ShownSession) -> None:
        found = await shown.session.load_earlier()
        shown.drop()
        if self._is_on_top(shown):
            if not found:
                self.say("there are no earlier turns to show")
            self._build()

    async def _load_agent(self, agent_id: str) -> None:
        asked = self._asked
        detail = await self.plane.agent(agent_id)
        if asked != self._asked or not self.is_attached:
            return
        self._agent = detail
        if detail is None:
            self._show_aside(note("The gateway does not know this agent any more."), "")
        else:
            self._show_aside(await asyncio.to_thread(agent_document, detail, self._text_width), "")

    # --- building ------------------------------------------------------------------------------------------------

    @property
    def _text_width(self) -> int:
        return self.body.text_width if self.body.size.width else max(8, self.size.width - 3)

    def _build(self) -> None:
        """Build what is missing, and show all of it; what is long in a thread."""
        shown = self._stack[-1]
        if self._is_building or not self.size.width:
            return
        self._width = self._text_width
        missing = shown.missing
        if sum(map(length, missing)) < INLINE:
            shown.sections |= write_sections(missing, shown.setting(self._width))
            self._put(shown)
        else:
            self._is_building = True
            spawn(self._build_off_loop(shown, missing), name="conversation")

    async def _build_off_loop(self, shown: ShownSession, missing: list[Turn]) -> None:
        version = shown.version
        try:
            found = await asyncio.to_thread(write_aside, missing, shown.setting(self._width))
        finally:
            self._is_building = False
        if version == shown.version:
            shown.sections |= found
        if self.is_attached and self._stack:
            self._build()

    def _put(self, shown: ShownSession) -> None:
        whole = shown.whole(self._width)
        if shown.is_begun:
            self.talk.put(whole)
            if self._search_begins:
                self._search_begins = False
                self.talk.search(self.talk.query_text)
        else:
            shown.is_begun = True
            self.talk.begin(whole, at_end=shown.session.is_running)
            if shown.place is not None:
                self.talk.go_to(shown.place)

    def on_resize(self, event: Resize) -> None:
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        """Lay everything out for another width."""
        if self._stack and self._text_width != self._width and self._stack[-1].session.turns:
            for shown in self._stack:
                shown.drop()
            self._build()

    # --- keys ----------------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Unfold or fold what is under the cursor, open the sub-session, or bring the earlier turns."""
        if not self._stack or not self.shows_talk:
            return
        shown, here = self._stack[-1], self.talk.here
        if here.kind == "session":
            self.open_over(here.key)
        elif here.kind == "earlier" and not self._is_asking:
            self._ask(lambda: self._load_earlier(shown))
        elif here.kind == "fold":
            shown.unfold(shown.unfolded.toggle(here.key))
            shown.drop([here.turn])
            self._build()

    def unfold_all(self) -> None:
        """Unfold everything, or fold it again."""
        if self._stack and self.shows_talk:
            shown = self._stack[-1]
            shown.unfold(Folding(not shown.unfolded.all_open))
            shown.drop()
            self._build()

    def diff(self) -> None:
        """Show what changed from the turn before to the one under the cursor."""
        turn = self.turn
        if turn is None or not self._stack:
            return
        before = self._stack[-1].session.before(turn)
        if before is None:
            self.say("there is no turn before it to compare it with")
        else:
            self._ask(lambda: self._diff(before, turn))

    async def _diff(self, before: Turn, turn: Turn) -> None:
        asked = self._asked
        one, other = await self.plane.detail(before.transaction_id), await self.plane.detail(turn.transaction_id)
        if one is None or other is None:
            self.say("the record of one of the two turns is not at hand any more", warn=True)
            return
        document = await asyncio.to_thread(turn_diff_document, before, turn, one, other, self._text_width)
        if asked == self._asked and self.is_attached:
            self._show_aside(document, f"turn {before.number:,} → {turn.number:,}")

    def _show_aside(self, document: Document, words: str) -> None:
        had_focus = self.talk.has_focus
        self._note = words
        self.add_class("-aside")
        self.aside.show(document)
        if had_focus:
            self.aside.focus()
