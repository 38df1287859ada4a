"""Which session a request belongs to.

In this order: a header, a mark in the body, the response that it continues, else its history: the longest prefix that a
session is known to have had, told among twins by what each of them was answered; else, for a history whose beginning was
dropped, the session that it shares its latest messages with. What is known can be given back after a restart.
The rest of a request is never looked at, and nothing here raises on hostile input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from proxy_core.sessions.history_hashes import HashedHistory, HistoryHasher
from proxy_core.sessions.identity import (
    agent_in_headers,
    names_nothing,
    parent_in_headers,
    session_in_headers,
    session_in_marks,
)
from proxy_core.sessions.known_sessions import MAX_REPLIES, TAIL_MESSAGES, KnownSessions, Session
from proxy_core.sessions.lineage import RunningCalls, SideOpenings
from proxy_core.sessions.matching import UNKNOWN_HEAD, Asked, HistoryMatcher, client_of
from proxy_core.sessions.prompts import NO_PROMPT, Prompt, Prompts
from proxy_core.sessions.replies import NOTHING_SAID, is_reply, said_in_answer
from proxy_core.wire.conversation import Block, ToolCallBlock
from proxy_core.wire.glance import Glance

UNKNOWN_POINT = b"?"
FORGET_AFTER_TTLS = 2.0
"""A session that has expired is remembered for as long again, so that its continuation can name it."""
MIN_CALL_ID = 16
MAX_CALL_ID = 128
"""Shorter ids are numbers that come again in every session."""
_NEVER_CONTINUED = ("chatcmpl", "cmpl-", "msg_")
"""Ids of answers that no request names as the one before it."""
_PARTIAL = frozenset({"previous_response_id", "conversation"})
"""Marks of requests that carry only the new part of their history."""


class Belonging(Struct, frozen=True):
    """What the detector says of one request."""

    session_id: str
    agent: str
    predecessor: str = ""
    """The session that this one continues after it had expired."""
    chain: bytes = b""
    """Hash of the whole history; empty without one, and where only a part of it was sent."""
    message_hashes: tuple[bytes, ...] = ()
    """Keyed hash of each entry of the history, by which the journal stores it."""
    parent_session: str = ""
    """The session that started this one as its sub-agent; empty where none is known."""
    link: str = ""
    """How the session was told: header, mark, response, prefix, inferred, new, or none where there is no session."""
    side: bool = False
    """A side request of its session: a title, a summary, memory; not a turn of the conversation."""


class KnownPoint(Struct, frozen=True):
    """What is given back after a restart: a request that was seen before."""

    session_id: str
    chain: bytes
    response_id: str
    age_s: float
    parent_session: str = ""
    link: str = ""
    side: bool = False


class _Told(Struct, frozen=True):
    """A session, and how it was found."""

    session: Session
    link: str
    predecessor: str = ""
    shared: int = -1
    """Place in the chain of the last message that the session is known to share; -1 without one."""


class SessionDetector:
    """Remembers the points that sessions have reached; bounded, least recently used forgotten first."""

    def __init__(
        self,
        *,
        digest: Callable[[bytes | memoryview], bytes],
        new_id: Callable[[], str],
        ttl_s: float,
        max_sessions: int,
        clock: Callable[[], float],
        min_common_messages: int = 3,
    ) -> None:
        self._hasher = HistoryHasher(digest)
        self._prompts = Prompts(digest)
        self._known = KnownSessions(max_sessions, FORGET_AFTER_TTLS * ttl_s)
        self._calls = RunningCalls()
        self._openings = SideOpenings()
        self._new_id = new_id
        self._ttl_s = ttl_s
        self._clock = clock
        self._matcher = HistoryMatcher(self._known, ttl_s=ttl_s, min_common_messages=min_common_messages)
        self.lookups = {"header": 0, "mark": 0, "response": 0, "prefix": 0, "inferred": 0, "new": 0, "none": 0}

    def belonging(self, headers: Mapping[bytes, bytes], body: Glance, raw: bytes, *, turn: bool = True) -> Belonging:
        """Tell session and agent of a request with the body `raw`, and remember the point that it reaches.

        What is no `turn` of a conversation (a count of tokens, embeddings) finds a session but never opens one.
        """
        now = self._clock()
        prompt = self._prompts.of(body.system) if body.system else NO_PROMPT
        hashed = self._hasher.of(body, raw, prompt.digest)
        unnamed = names_nothing(headers)
        agent = prompt.agent if unnamed else agent_in_headers(headers) or prompt.agent
        told = None
        if not unnamed and (name := session_in_headers(headers)):
            told = self._named("header", name, prompt, now)
        elif body.marks:
            told = self._by_marks(body.marks, prompt, turn, now)
        if told is None and hashed.chain:
            asked = Asked(headers, body.history, hashed, prompt, turn, now)
            match = self._matcher.find(asked)
            if match is not None:
                told = self._continued("inferred" if match.inferred else "prefix", match.session, match.shared, now)
            elif turn:
                told = self._opened(asked)
        if told is None:
            self.lookups["none"] += 1
            return Belonging("", agent, "", b"", hashed.entries, "", "none")
        self.lookups[told.link] += 1
        session = told.session
        if not unnamed:
            session.parent = parent_in_headers(headers, session.name) or session.parent
        point = self._advance(told, hashed, body, prompt, now) if turn else b""
        return Belonging(session.name, agent, told.predecessor, point, hashed.entries, session.parent, told.link, prompt.side)

    def answered(
        self, session_id: str, response_id: str, *, point: bytes = b"", blocks: Sequence[Block] = (), failed: bool = False
    ) -> None:
        """Remember how the request that reached `point` was answered: what a later request continues, and by which id.

        `failed`: it had no whole answer, so that the same request again is another try.
        """
        session = self._known.named(session_id)
        if session is None:
            return
        if session.pending:
            session.pending -= 1
        if response_id and not response_id.startswith(_NEVER_CONTINUED):
            self._known.gave(response_id, session)
        session.failed = failed
        if failed or not blocks:
            return
        calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
        if point and session.tip == point and len(session.replies) < MAX_REPLIES:
            said, words = said_in_answer(blocks, calls)
            if said != NOTHING_SAID:
                session.replies += (said,)
            if words != NOTHING_SAID:
                self._known.says(words, session)
        for call in calls:
            if MIN_CALL_ID <= len(call.call_id) <= MAX_CALL_ID:
                self._known.calls(call.call_id, session)
        if calls and self._calls.started(session.name, calls, self._clock()):
            session.calls = True

    def recall(self, points: Iterable[KnownPoint]) -> None:
        """Give back what the journal knows, newest first."""
        now = self._clock()
        known = self._known
        created = known.created
        for one in reversed(list(points)):
            session = known.named(one.session_id)
            if session is None:
                session = known.create(one.session_id, now - one.age_s, UNKNOWN_HEAD)
                session.parent = one.parent_session
            known.touch(session, now - one.age_s)
            if one.chain:
                point = bytes(one.chain)
                # Only the request that opened it tells where it began.
                session.root = point if one.link == "new" else session.root or UNKNOWN_POINT
                if not one.side:
                    session.tip = point
                known.reach(point, session)
            if one.response_id and not one.response_id.startswith(_NEVER_CONTINUED):
                known.gave(one.response_id, session)
        # They were created before the start.
        known.created = created

    @property
    def active(self) -> int:
        """Sessions seen within the time to live, at most those remembered."""
        return self._known.since(self._clock() - self._ttl_s)

    @property
    def events(self) -> dict[str, int]:
        """Counts since the start of what became of sessions."""
        known = self._known
        return {"created": known.created, "evicted": known.evicted, "expired": known.expired}

    @property
    def statistics(self) -> dict[str, int]:
        """Counts since the start: active, hits (the session was known), misses, created, inferred, evicted, expired."""
        created = self._known.created
        told = sum(self.lookups.values()) - self.lookups["none"]
        return {
            "active": self.active,
            "hits": told - created,
            "misses": created,
            "inferred": self.lookups["inferred"],
            **self.events,
        }

    def _by_marks(self, marks: Mapping[str, Any], prompt: Prompt, turn: bool, now: float) -> _Told | None:
        previous = marks.get("previous_response_id")
        previous = previous if isinstance(previous, str) else ""
        session = self._known.response(previous) if previous else None
        if session is not None:
            return self._continued("response", session, -1, now)
        if name := session_in_marks(marks):
            return self._named("mark", name, prompt, now)
        if not previous or not turn:
            return None
        # Nobody here knows that response; others that continue it belong to the same session.
        session = self._known.create(self._new_id(), now, prompt.head)
        self._known.gave(previous, session)
        return _Told(session, "new")

    def _named(self, link: str, name: str, prompt: Prompt, now: float) -> _Told:
        return _Told(self._known.named(name) or self._known.create(name, now, prompt.head), link)

    def _opened(self, asked: Asked) -> _Told:
        """A new session, or the one that this opening stands beside."""
        openings, history, prompt, now = self._openings, asked.history, asked.prompt, asked.now
        client = client_of(asked.headers)
        if prompt.side:
            beside = self._known.named(openings.quoted_by(client, history, now))
            if beside is not None:
                return _Told(beside, "inferred")
            session = self._known.create(self._new_id(), now, prompt.head, client)
            openings.waits(session.name, client, history, now)
            return _Told(session, "new")
        if openings.waiting:
            beside = self._known.named(openings.waiting_for(client, history, now))
            if beside is not None:
                beside.head, beside.root = prompt.head, b""
                return _Told(beside, "inferred")
        session = self._known.create(self._new_id(), now, prompt.head, client)
        if self._calls.running:
            session.parent = self._calls.parent_of(history, now)
        openings.conversation(session.name, client, history, now)
        return _Told(session, "new")

    def _continued(self, link: str, session: Session, shared: int, now: float) -> _Told:
        if now - session.seen <= self._ttl_s:
            return _Told(session, link, "", shared)
        again = self._known.create(self._new_id(), now, session.head, session.client)
        again.parent = session.parent
        self._known.expire(session)
        return _Told(again, "new", session.name, shared)

    def _advance(self, told: _Told, hashed: HashedHistory, body: Glance, prompt: Prompt, now: float) -> bytes:
        """Move the session to where the request has taken it; returns that point, empty where the history is not whole."""
        session, known = told.session, self._known
        if told.link != "new":
            known.touch(session, now)
        session.pending += 1
        session.failed = False
        chain = hashed.chain
        if not chain or (body.marks and not _PARTIAL.isdisjoint(body.marks)):
            return b""
        point = chain[-1]
        if prompt.side and told.shared < 0:
            # The same words are asked beside other conversations, too.
            return point
        if not session.root:
            session.root = point
        known.reach(point, session)
        if len(chain) > 1:
            if 0 <= told.shared < len(chain) - 2:
                # The reply alone tells twins apart, and is what an edit of the message after it leaves standing.
                known.reach(chain[told.shared + 1], session)
            elif is_reply(body.history[-1]):
                # The beginning of a reply, given by the client: its whole will stand in its place.
                known.reach(chain[-2], session)
        if session.tip != point and not prompt.side:
            if session.calls:
                self._calls.ended(session.name)
                session.calls = False
            if session.head == UNKNOWN_HEAD:
                session.head = prompt.head
            session.tip = point
            session.replies = ()
            if len(chain) > 1:
                session.tail = hashed.steady[-TAIL_MESSAGES:]
                known.ended_with(session.tail[-1], session)
        return point
