"""Whose history a request carries: the session with the longest prefix of it, told among twins by what they were answered.

Where no prefix is known, its latest messages, or the tool calls and words that it was answered, may still tell. It changes
nothing that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from proxy_core.sessions.history_hashes import HashedHistory
from proxy_core.sessions.known_sessions import KnownSessions, Session
from proxy_core.sessions.prompts import Prompt
from proxy_core.sessions.replies import NOTHING_SAID, call_ids, given, is_reply, said_in_history, words_in_history

UNKNOWN_HEAD = -1
RETRIED_WITHIN_S = 300.0
"""Of a request that failed: the same opening later than this opens another session."""
LATEST_TWINS = 2
"""How many of the sessions at a point are asked whether a history that came once more is theirs."""
LONG_OPENING = 5
"""A first request with so many messages comes from a conversation that began elsewhere: the same again is no twin."""
MAX_NEW_MESSAGES = 64
_RETRIES = b"x-stainless-retry-count"
"""By which client libraries say that they try again."""


class Asked(Struct, frozen=True, gc=False):
    """One request, as far as its history and its sender tell its session."""

    headers: Mapping[bytes, bytes]
    history: Sequence[memoryview]
    hashed: HashedHistory
    prompt: Prompt
    turn: bool
    now: float
    """In seconds, of the detector's clock."""

    def after(self, place: int) -> Sequence[memoryview]:
        """The messages after a place in the chain."""
        return self.history[len(self.history) - len(self.hashed.chain) + place + 1 :]


class Match(Struct, frozen=True, gc=False):
    """A session that a history belongs to."""

    session: Session
    shared: int
    """Place in the chain of the last message that both are known to have."""
    inferred: bool = False


class HistoryMatcher:
    """Looks histories up among the known sessions."""

    def __init__(self, known: KnownSessions, *, ttl_s: float, min_common_messages: int) -> None:
        self._known = known
        self._ttl_s = ttl_s
        self._min_common = min_common_messages

    def find(self, asked: Asked) -> Match | None:
        """The session of a request with a history; None where it opens one."""
        known, chain = self._known, asked.hashed.chain
        last = len(chain) - 1
        place = known.furthest(chain, last)
        while place >= 0:
            point = chain[place]
            sessions = known.at(point)
            if place < last:
                session = self._continuing(sessions, point, asked.after(place), asked)
                if session is not None:
                    return Match(session, place) if session.tip == point else self._elsewhere(session, place, asked)
            else:
                session = self._repeated(sessions, point, asked)
                if session is not None:
                    return self._waiting_twin(session, place, asked) or Match(session, place)
            place = known.furthest(chain, place - 1)
        return None if last == 0 else self._common_run(asked) or self._answered(asked)

    def _repeated(self, sessions: Sequence[Session], point: bytes, asked: Asked) -> Session | None:
        """Whose history it is that came once more: a regeneration, or another try after a failure.

        An opening that comes once more opens another session, unless the client says that it tries again or has to.
        """
        again = not asked.turn or asked.headers.get(_RETRIES, b"0") != b"0" or len(asked.hashed.chain) >= LONG_OPENING
        for session in sessions[: -LATEST_TWINS - 1 : -1]:
            if session.forgotten:
                continue
            if again or session.root != point:
                return session
            failed = session.failed and session.tip == point and asked.now - session.seen <= RETRIED_WITHIN_S
            if failed and _may_be_of(session, asked):
                return session
        return None

    def _continuing(
        self, sessions: Sequence[Session], point: bytes, following: Sequence[memoryview], asked: Asked
    ) -> Session | None:
        """Which of the sessions at `point` goes on with `following`."""
        head = asked.prompt.head
        replied = is_reply(following[0])
        if replied and len(sessions) == 1 and sessions[0].head == head and not sessions[0].forgotten:
            return sessions[0]
        if replied:
            sessions = [session for session in sessions if not session.forgotten]
        else:
            # Without a reply in between it is another opening that begins alike, unless there was no reply.
            sessions = [session for session in sessions if not session.forgotten and _goes_on_unanswered(session, point)]
        fresh = [session for session in sessions if asked.now - session.seen <= self._ttl_s] or sessions
        fresh = [session for session in fresh if _may_be_of(session, asked)] or fresh
        same = [session for session in fresh if session.head in (head, UNKNOWN_HEAD)]
        if len(same) <= 1 and len(fresh) == len(same):
            return same[0] if same else None
        told = _answered_so([session for session in same or fresh if session.tip == point], said_in_history(following))
        if told is not None:
            return told
        if not same:
            # Another agent: only the session's own words show that it is the same conversation.
            return next((session for session in reversed(fresh) if session.root != point), None)
        waiting = [session for session in same if session.tip == point]
        return ([one for one in waiting if not one.pending] or waiting or same)[-1]

    def _elsewhere(self, session: Session, place: int, asked: Asked) -> Match:
        """The session that has been at `place` and has left it, or one for which more speaks."""
        twin = self._waiting_twin(session, place, asked)
        if twin is not None:
            return twin
        if session.root == asked.hashed.chain[place]:
            # Only the opening is the same. What came after it may tell of another session.
            other = self._answered(asked)
            if other is not None and other.session is not session:
                return other
        return Match(session, place)

    def _waiting_twin(self, session: Session, place: int, asked: Asked) -> Match | None:
        """Another session that waits for just this: it was answered with what follows its tip, and has not gone on yet."""
        known, chain, head = self._known, asked.hashed.chain, asked.prompt.head
        while (place := known.furthest(chain, place - 1)) >= 0:
            point = chain[place]
            waiting = [
                twin
                for twin in known.at(point)
                if twin is not session and twin.tip == point and twin.replies and twin.head == head and not twin.forgotten
            ]
            if waiting and (waiting := [twin for twin in waiting if _may_be_of(twin, asked)]):
                following = asked.after(place)
                if _replies_again(following):
                    # The twin would have asked for the later answer, too.
                    return None
                twin = _answered_so(waiting, said_in_history(following))
                if twin is not None:
                    return Match(twin, place)
        return None

    def _common_run(self, asked: Asked) -> Match | None:
        """The session that shares the latest messages of a history whose beginning is not known."""
        steady = asked.hashed.steady
        if len(steady) < self._min_common:
            return None
        for place in range(len(steady) - 1, max(-1, len(steady) - MAX_NEW_MESSAGES), -1):
            session = self._known.ends_with(steady[place])
            if session is None:
                continue
            common = 0
            for theirs, ours in zip(reversed(session.tail), reversed(steady[: place + 1]), strict=False):
                if theirs != ours:
                    break
                common += 1
            if common and session.replies:
                common += given(said_in_history(asked.after(place)), session.replies)
            if common >= self._min_common:
                return Match(session, place, inferred=True)
        return None

    def _answered(self, asked: Asked) -> Match | None:
        """The session that was answered with a tool call or with words that the history holds; all else may be rewritten."""
        known, history = self._known, asked.history
        last = len(asked.hashed.chain) - 1
        latest = range(len(history) - 1, max(-1, len(history) - MAX_NEW_MESSAGES - 1), -1)
        for place in latest:
            for call_id in call_ids(history[place]):
                if (session := known.called(call_id)) is not None:
                    return Match(session, last, inferred=True)
        for place in latest:
            if is_reply(history[place]) and not (place and is_reply(history[place - 1])):
                for words in reversed(words_in_history(history[place:])):
                    if words != NOTHING_SAID and (session := known.said(words)) is not None:
                        return Match(session, last, inferred=True)
        return None


def client_of(headers: Mapping[bytes, bytes]) -> int:
    """A number for the program and the key that a request comes from; it says nothing of them and is no proof."""
    return hash((headers.get(b"user-agent"), headers.get(b"authorization"), headers.get(b"x-api-key"))) or 1


def _may_be_of(session: Session, asked: Asked) -> bool:
    """Whether a session may have been opened by the client that asks."""
    return not session.client or session.client == client_of(asked.headers)


def _goes_on_unanswered(session: Session, point: bytes) -> bool:
    return session.root != point or (session.tip == point and (session.failed or session.pending > 0))


def _replies_again(entries: Sequence[memoryview]) -> bool:
    """Whether these entries hold a reply after something that the client said."""
    replied = [is_reply(entry) for entry in entries]
    return any(now and not before for before, now in pairwise(replied))


def _answered_so(sessions: Sequence[Session], said: Sequence[int]) -> Session | None:
    """The session that was answered with most of what `said` tells of; None where none was.

    Of several that were answered alike the latest: most of those before it were left where they stand.
    """
    best, most = None, 1
    for session in sessions:
        count = given(said, session.replies)
        if count >= most:
            best, most = session, count
    return best
