"""What must be remembered of sessions to tell their events: which messages are new, which tool calls wait for their result.

A few words a session, the least recently used ones forgotten first. Used from one thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct

MAX_CALLS = 500
"""Tool calls of one session that wait for their result."""


class WaitingCall(Struct, frozen=True):
    """A tool that a model has asked for."""

    name: str
    asked_at: float
    """Unix time in seconds at the end of the answer that asked."""


class KnownSession(Struct):
    """One session that has begun and not ended."""

    session_id: str
    trace_id: str
    agent: str
    workflow: str
    seen_at: float
    """Monotonic clock in seconds."""
    count: int = 0
    """Messages of its latest request."""
    last: bytes = b""
    """The hash of the last of them."""
    calls: OrderedDict[str, WaitingCall] = msgspec.field(default_factory=OrderedDict)
    """By call id, or by name where the dialect has no ids."""

    def ask(self, call_id: str, call: WaitingCall) -> None:
        self.calls[call_id] = call
        if len(self.calls) > MAX_CALLS:
            self.calls.popitem(last=False)

    def first_new(self, hashes: Sequence[bytes], history: Sequence[memoryview]) -> int:
        """Index of the first message that no earlier request of the session had."""
        count = self.count
        if count and len(hashes) >= count and hashes[count - 1] == self.last:
            return count
        return first_after_model(history)

    def reached(self, hashes: Sequence[bytes]) -> None:
        """A request with these messages has been told."""
        if hashes:
            self.count, self.last = len(hashes), hashes[-1]


class KnownSessions:
    """Sessions by id, the least recently used first."""

    def __init__(self, *, limit: int, idle_s: float) -> None:
        self._limit = limit
        self._idle_s = idle_s
        self._sessions: OrderedDict[str, KnownSession] = OrderedDict()

    def get(self, session_id: str, now: float) -> KnownSession | None:
        """A session that has begun; it counts as used."""
        session = self._sessions.get(session_id)
        if session is not None:
            session.seen_at = now
            self._sessions.move_to_end(session_id)
        return session

    def add(self, session: KnownSession) -> KnownSession | None:
        """Remember a new session; returns the one that is forgotten for it."""
        self._sessions[session.session_id] = session
        return self._sessions.popitem(last=False)[1] if len(self._sessions) > self._limit else None

    def idle(self, now: float) -> Iterator[KnownSession]:
        """Take out the sessions of which nothing has come for long."""
        while self._sessions and now - next(iter(self._sessions.values())).seen_at >= self._idle_s:
            yield self._sessions.popitem(last=False)[1]

    def all(self) -> Iterator[KnownSession]:
        """Take out every session."""
        while self._sessions:
            yield self._sessions.popitem(last=False)[1]


class _Entry(Struct):
    role: Any = None
    type: Any = None


_entry = msgspec.json.Decoder(_Entry)
_OF_MODEL = frozenset({"function_call", "reasoning", "custom_tool_call", "local_shell_call", "computer_call"})


def first_after_model(history: Sequence[memoryview]) -> int:
    """Index of the first message after the last one that a model said; 0 where none has spoken."""
    for index in range(len(history) - 1, -1, -1):
        try:
            entry = _entry.decode(history[index])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
        if entry.role in ("assistant", "model") or (isinstance(entry.type, str) and entry.type in _OF_MODEL):
            return index + 1
    return 0
