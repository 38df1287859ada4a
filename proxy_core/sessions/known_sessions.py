"""The sessions that are remembered, and the points of their histories by which a later request finds them.

A point is the hash of a history up to one of its messages. Twins, which open with the same words, stand at the same point.
Bounded: the session that was used longest ago goes first, and so do the oldest points.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

POINTS_PER_SESSION = 16
"""On average; a session may have more while others have less."""
IDS_PER_SESSION = 2
"""Of responses, of tool calls, and of the words of answers, on average."""
MAX_TWINS = 24
"""Sessions at one point; more of them forget the oldest."""
MAX_REPLIES = 16
_SWEEP_MASK = 63
TAIL_MESSAGES = 12
"""Messages at the end of its history by which a session is recognised when the client has dropped the beginning."""


class Session(Struct, eq=False, gc=False):
    """What is remembered of a session."""

    name: str
    seen: float
    head: int
    """The beginning of its system prompt as a number; -1 where that is not known."""
    client: int = 0
    """A number for the program and key that opened it; 0 where they are not known."""
    root: bytes = b""
    """The point at which it began."""
    tip: bytes = b""
    """The point that it has reached."""
    replies: tuple[int, ...] = ()
    """What was answered at its tip."""
    pending: int = 0
    """Requests that have not been answered."""
    failed: bool = False
    """Whether its latest request ended without a whole answer."""
    calls: bool = False
    """Whether a tool call of its latest answer may have started a sub-agent."""
    parent: str = ""
    tail: Sequence[bytes] = ()
    """Hashes of the latest messages of its history."""
    forgotten: bool = False
    expired: bool = False


class KnownSessions:
    """Sessions by name and by point."""

    def __init__(self, max_sessions: int, keep_s: float) -> None:
        self._keep_s = keep_s
        self._max_sessions = max_sessions
        self._max_points = max_sessions * POINTS_PER_SESSION
        self._max_ids = max_sessions * IDS_PER_SESSION
        self._by_name: OrderedDict[str, Session] = OrderedDict()
        self._points: OrderedDict[bytes, Session | list[Session]] = OrderedDict()
        self._responses: OrderedDict[str, Session] = OrderedDict()
        self._tips: OrderedDict[bytes, Session] = OrderedDict()
        self._calls: OrderedDict[str, Session | None] = OrderedDict()
        self._words: OrderedDict[int, Session | None] = OrderedDict()
        self.created = 0
        self.evicted = 0
        self.expired = 0

    def named(self, name: str) -> Session | None:
        return self._by_name.get(name)

    def create(self, name: str, now: float, head: int, client: int = 0) -> Session:
        """A new session; makes room for it, and forgets what was not seen for long."""
        by_name = self._by_name
        session = by_name[name] = Session(name, now, head, client)
        self.created += 1
        if len(by_name) > self._max_sessions:
            self.evicted += 1
            self._forget(by_name.popitem(last=False)[1])
        if not self.created & _SWEEP_MASK:
            self._sweep(now - self._keep_s)
        return session

    def _sweep(self, keep_from: float) -> None:
        while self._by_name and (oldest := next(iter(self._by_name.values()))).seen < keep_from:
            del self._by_name[oldest.name]
            self._forget(oldest)
            self.expire(oldest)

    def _forget(self, session: Session) -> None:
        """Keep nothing of the session but the points of its middle, which go with their age."""
        session.forgotten = True
        points = self._points
        for point in {session.root, session.tip}:
            found = points.get(point)
            if found is session or found == [session]:
                del points[point]
            elif isinstance(found, list) and session in found:
                found.remove(session)
        if session.tail and self._tips.get(session.tail[-1]) is session:
            del self._tips[session.tail[-1]]

    def expire(self, session: Session) -> None:
        """Count a session that nothing can continue any more."""
        if not session.expired:
            session.expired = True
            self.expired += 1

    def touch(self, session: Session, now: float) -> None:
        """A request belongs to the session."""
        session.seen = now
        self._by_name.move_to_end(session.name)

    def at(self, point: bytes) -> Sequence[Session]:
        """The sessions that have been at a point, those that have been forgotten among them; the latest stands last."""
        found = self._points.get(point, ())
        return (found,) if isinstance(found, Session) else found

    def furthest(self, chain: Sequence[bytes], place: int) -> int:
        """The last place in a chain, at `place` or before it, at which sessions are known; -1 without one."""
        points = self._points
        while place >= 0 and chain[place] not in points:
            place -= 1
        return place

    def reach(self, point: bytes, session: Session) -> None:
        """The session has been at this point."""
        points = self._points
        found = points.get(point)
        if found is None:
            points[point] = session
            if len(points) > self._max_points:
                points.popitem(last=False)
        elif found is session:
            return
        elif isinstance(found, list):
            if found[-1] is not session:
                if session.tip and session in found:
                    found.remove(session)
                found.append(session)
                if len(found) > MAX_TWINS:
                    del found[0]
                points.move_to_end(point)
        else:
            points[point] = session if found.forgotten else [found, session]
            points.move_to_end(point)

    def response(self, response_id: str) -> Session | None:
        """The session in which a response was given."""
        session = self._responses.get(response_id)
        return None if session is None or session.forgotten else session

    def gave(self, response_id: str, session: Session) -> None:
        self._responses[response_id] = session
        if len(self._responses) > self._max_ids:
            self._responses.popitem(last=False)

    def called(self, call_id: str) -> Session | None:
        """The session in which a tool was called by this id, where it was no other session, too."""
        session = self._calls.get(call_id)
        return None if session is None or session.forgotten else session

    def calls(self, call_id: str, session: Session) -> None:
        """An answer in the session calls a tool by this id. Ids that come twice tell nothing."""
        known = self._calls.setdefault(call_id, session)
        if known is not session:
            self._calls[call_id] = None
        if len(self._calls) > self._max_ids:
            self._calls.popitem(last=False)

    def said(self, words: int) -> Session | None:
        """The session that was answered in these words, where it was no other session, too."""
        session = self._words.get(words)
        return None if session is None or session.forgotten else session

    def says(self, words: int, session: Session) -> None:
        """An answer in the session has these words. Words that two sessions were answered tell nothing."""
        known = self._words.setdefault(words, session)
        if known is not session:
            self._words[words] = None
        if len(self._words) > self._max_ids:
            self._words.popitem(last=False)

    def ends_with(self, message: bytes) -> Session | None:
        """The session whose latest request ended with this message."""
        session = self._tips.get(message)
        return None if session is None or session.forgotten else session

    def ended_with(self, message: bytes, session: Session) -> None:
        self._tips[message] = session
        if len(self._tips) > self._max_sessions:
            self._tips.popitem(last=False)

    def since(self, limit: float) -> int:
        """Sessions seen at `limit` or later."""
        count = 0
        for session in reversed(self._by_name.values()):
            if session.seen < limit:
                break
            count += 1
        return count
