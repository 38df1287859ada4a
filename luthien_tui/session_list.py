"""The sessions and agents that the screen knows, kept up to date without hurting the traffic.

The gateway is asked off the loop, one question at a time, no sooner than a second after the answer before and ten times as long
as that took (three seconds at most), and only where the feed says that something happened. A refresh asks for the newest page;
what was loaded beyond it stays as it was. At most KEPT sessions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from luthien_tui.recent_sessions import RecentSessions
from luthien_tui.text import cell
from proxy_core.control.filter_language import FilterError
from proxy_core.control.plane import ControlInvalid, ControlPlane
from proxy_core.control.session_infos import AgentInfo, SessionCounts, SessionInfo
from proxy_core.errors import LuthienError
from proxy_core.tasks import spawn

PAGE = 200
KEPT = 1_000
EVERY_S = 1.0
"""The least time between two questions."""
QUIET_S = 10.0
"""After so long it is asked even where nothing happened: sessions end by waiting."""
REST = 10.0
"""How many times as long as an answer took there is no other question."""
LONGEST_REST_S = 3.0
"""And no longer than so: one slow answer, such as the first of all, must not leave an old list standing."""


class SessionList:
    """What is shown in the list; `version` grows when it is another one."""

    def __init__(self, plane: ControlPlane, recent: RecentSessions, clock: Callable[[], float]) -> None:
        self.plane = plane
        self.recent = recent
        self.clock = clock
        self.sessions: list[SessionInfo] = []
        self.agents: list[AgentInfo] = []
        self.counts = SessionCounts()
        self.filter_text = ""
        self.is_loaded = False
        """Whether the gateway has answered once to this filter."""
        self.trouble = ""
        """Why the list could not be brought up to date; empty where it could."""
        self.version = 0
        self._cursor: str | None = None
        self._is_asking = False
        self._is_due = True
        self._asked_at = 0.0
        self._rests_until = 0.0
        self._seen_version = -1
        self._questions = 0
        """Grows with each filter: what was asked for another one is not taken."""
        self._is_paged = False

    @property
    def has_more(self) -> bool:
        """Whether the gateway has sessions that are not here."""
        return self._cursor is not None

    def set_filter(self, text: str) -> None:
        """Show other sessions; those of before stay until the answer comes."""
        self.filter_text = text
        self._questions += 1
        self._is_paged = False
        self.is_loaded = False
        self.look()

    def look(self) -> None:
        """Ask as soon as may be."""
        self._is_due = True
        self._rests_until = 0.0

    def tick(self, *, agents: bool) -> None:
        """Ask the gateway where it is time; called by the frame pump while the list is looked at. `agents`: for them instead."""
        now = self.clock()
        if self._is_asking or now < self._rests_until:
            return
        if self._is_due or self.recent.version != self._seen_version or now - self._asked_at >= QUIET_S:
            self._is_due = False
            self._seen_version = self.recent.version
            self._asked_at = now
            self._ask(self._read_agents if agents else self._read_first)

    def more(self) -> None:
        """Ask for the page after the last one."""
        if self._cursor is not None and not self._is_asking and len(self.sessions) < KEPT:
            self._ask(self._read_more)

    def _ask(self, read: Callable[[], Awaitable[None]]) -> None:
        self._is_asking = True
        spawn(self._try(read), name="sessions")

    async def _try(self, read: Callable[[], Awaitable[None]]) -> None:
        started, asked, trouble = self.clock(), self._questions, ""
        try:
            await read()
        except (FilterError, ControlInvalid, LuthienError) as error:
            trouble = cell(str(error))
        finally:
            self._is_asking = False
            if asked == self._questions:
                self._rests_until = self.clock() + max(EVERY_S, min(REST * (self.clock() - started), LONGEST_REST_S))
        if trouble != self.trouble:
            self.trouble = trouble
            self.version += 1

    async def _read_agents(self) -> None:
        agents = await self.plane.agents()
        if agents != self.agents:
            self.agents = agents
            self.version += 1

    async def _read_first(self) -> None:
        asked = self._questions
        page = await self.plane.sessions(filter=self.filter_text, limit=PAGE)
        if asked != self._questions:
            return
        self.counts = page.counts
        sessions = list(page.sessions)
        cursor = page.next
        if self._is_paged and self.is_loaded and sessions:
            since, new = sessions[-1].last_at, {one.id for one in sessions}
            sessions += [one for one in self.sessions if one.last_at < since and one.id not in new]
            cursor = self._cursor
        self._take(sessions, cursor)

    async def _read_more(self) -> None:
        asked = self._questions
        page = await self.plane.sessions(filter=self.filter_text, limit=PAGE, cursor=self._cursor)
        if asked == self._questions:
            self._is_paged = True
            known = {one.id for one in self.sessions}
            self._take([*self.sessions, *(one for one in page.sessions if one.id not in known)], page.next)

    def _take(self, sessions: list[SessionInfo], cursor: str | None) -> None:
        changed = (sessions[:KEPT], cursor is not None, True) != (self.sessions, self.has_more, self.is_loaded)
        self.sessions, self._cursor = sessions[:KEPT], cursor
        self.is_loaded = True
        if changed:
            self.version += 1
