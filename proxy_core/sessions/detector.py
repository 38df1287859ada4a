"""Which session a request belongs to.

In this order: a header, a mark in the body, the response that it continues, else the longest known prefix of its
history. The prefix is recognised by a hash chain over every message: each request leaves the hash of its whole history,
and a later request that starts with the same messages continues it. What is known can be given back after a restart.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

import msgspec
from msgspec import Struct

from proxy_core.sessions.identity import agent_in_headers, names_nothing, session_in_headers, session_in_marks
from proxy_core.wire.glance import Glance

POINTS_PER_SESSION = 2
_Key = TypeVar("_Key", bytes, str)
_CHAIN_BYTES = 16
_CACHE_CONTROL = b'"cache_control"'
_new_link = blake2b(digest_size=_CHAIN_BYTES).copy
_START = b"\x00" * _CHAIN_BYTES


class Belonging(Struct, frozen=True):
    """What the detector says of one request."""

    session_id: str
    agent: str
    predecessor: str = ""
    """The session that this one continues after it had expired."""
    chain: bytes = b""
    """Hash of the whole history; empty without one."""
    message_hashes: tuple[bytes, ...] = ()
    """Keyed hash of each entry of the history, by which the journal stores it."""
    parent_session: str = ""
    """The session that started this one as its sub-agent; empty where none is known."""
    link: str = ""
    """How the session was told: header, mark, response, prefix, inferred, new, or none where there is no session."""
    side: bool = False
    """A side request of its session: a title, a summary, memory; not a turn of the conversation."""


class _Point(Struct, frozen=True, gc=False):
    session_id: str
    seen: float


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
    ) -> None:
        self._digest = digest
        self._new_id = new_id
        self._ttl_s = ttl_s
        self._clock = clock
        self._max_points = max_sessions * POINTS_PER_SESSION
        self._chains: OrderedDict[bytes, _Point] = OrderedDict()
        self._responses: OrderedDict[str, _Point] = OrderedDict()
        self.lookups = {"header": 0, "mark": 0, "response": 0, "prefix": 0, "new": 0, "none": 0}

    def belonging(self, headers: Mapping[bytes, bytes], body: Glance, raw: bytes) -> Belonging:
        """Tell session and agent of a request with the body `raw`, and remember the point that it reaches."""
        history = body.history
        hashes = tuple(map(self._digest, history))
        steady: Sequence[bytes] = hashes
        if _CACHE_CONTROL in raw:
            # Clients move their cache marks from turn to turn: the chain is over the messages without them.
            steady = [self._digest(_without_cache_control(bytes(entry))) for entry in history]
        chain = _chain(steady)
        unnamed = names_nothing(headers)
        agent = "" if unnamed else agent_in_headers(headers)
        if not agent and body.system:
            system = _without_cache_control(body.system) if _CACHE_CONTROL in body.system else body.system
            agent = "agent-" + blake2b(system, digest_size=4).hexdigest()
        session_id, predecessor, link = self._session(headers, unnamed, body, chain, history)
        head = chain[-1] if chain else b""
        if session_id and head:
            self._remember(self._chains, head, _Point(session_id, self._clock()))
        return Belonging(session_id, agent, predecessor, head, hashes, link=link)

    def answered(self, session_id: str, response_id: str) -> None:
        """Remember a response, so that a request that continues it finds its session."""
        if session_id and response_id:
            self._remember(self._responses, response_id, _Point(session_id, self._clock()))

    def recall(self, points: Iterable[tuple[str, bytes, str, float]]) -> None:
        """Give back what the journal knows: (session, chain, response id, age in seconds), newest first."""
        now = self._clock()
        for session_id, chain, response_id, age in reversed(list(points)):
            point = _Point(session_id, now - age)
            if chain:
                self._remember(self._chains, bytes(chain), point)
            if response_id:
                self._remember(self._responses, response_id, point)

    @property
    def active(self) -> int:
        """Sessions seen within the time to live, at most those remembered."""
        limit = self._clock() - self._ttl_s
        return len({point.session_id for point in self._chains.values() if point.seen >= limit})

    def _session(
        self,
        headers: Mapping[bytes, bytes],
        unnamed: bool,
        body: Glance,
        chain: Sequence[bytes],
        history: Sequence[memoryview],
    ) -> tuple[str, str, str]:
        if not unnamed and (named := session_in_headers(headers)):
            return self._found("header", named)
        if body.marks:
            previous = body.marks.get("previous_response_id")
            point = self._responses.get(previous) if isinstance(previous, str) else None
            if point is not None:
                return self._continued("response", point)
            if named := session_in_marks(body.marks):
                return self._found("mark", named)
        if not chain:
            self.lookups["none"] += 1
            return "", "", "none"
        retried = headers.get(b"x-stainless-retry-count", b"0") != b"0"
        last = len(chain) - 1
        for reached in range(last, -1, -1):
            point = self._chains.get(chain[reached])
            # The same opening again is another run of the same task, unless a client says that it tries again.
            if point is not None and (reached < last or retried or (last > 1 and _has_reply(history))):
                return self._continued("prefix", point)
        return self._found("new", self._new_id())

    def _found(self, how: str, session_id: str) -> tuple[str, str, str]:
        self.lookups[how] += 1
        return session_id, "", how

    def _continued(self, how: str, point: _Point) -> tuple[str, str, str]:
        if self._clock() - point.seen > self._ttl_s:
            self.lookups["new"] += 1
            return self._new_id(), point.session_id, "new"
        self.lookups[how] += 1
        return point.session_id, "", how

    def _remember(self, points: OrderedDict[_Key, _Point], key: _Key, point: _Point) -> None:
        points[key] = point
        points.move_to_end(key)
        if len(points) > self._max_points:
            points.popitem(last=False)


def _chain(hashes: Sequence[bytes]) -> list[bytes]:
    chain = []
    reached = _START
    for one in hashes:
        link = _new_link()
        link.update(reached + one)
        reached = link.digest()
        chain.append(reached)
    return chain


_REPLY = re.compile(rb'"assistant"|"model"|"function_call"|"reasoning"|"tool"')


def _has_reply(history: Sequence[memoryview]) -> bool:
    """Whether a model has spoken in this history already; looks at both ends of large entries only, the latest first."""
    return any(
        _REPLY.search(entry) if len(entry) <= 400 else _REPLY.search(entry[:200]) or _REPLY.search(entry[-200:])
        for entry in reversed(history)
    )


def _without_cache_control(raw: bytes) -> bytes:
    """A message or system prompt in one form, whether its parts carry cache marks or not."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return raw
    if isinstance(value, dict):
        value.pop("cache_control", None)
        parts = value.get("content")
    else:
        parts = value
    if isinstance(parts, list):
        for part in parts:
            if isinstance(part, dict):
                part.pop("cache_control", None)
        # A lone text part is what many clients write without the mark as a plain string.
        if isinstance(value, dict) and len(parts) == 1 and isinstance(parts[0], dict) and set(parts[0]) == {"type", "text"}:
            value["content"] = parts[0]["text"]
    return msgspec.json.encode(value, order="sorted")
