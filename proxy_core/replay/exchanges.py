"""One recorded transaction, whatever kind of recording it comes from: what was asked, what the upstream said, what came of it.

Only what was recorded stands here; what a recording does not say is None or empty.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct

from proxy_core.interceptors.recording_format import Facts

RawHeaders = list[tuple[bytes, bytes]]
STREAM_TYPES = (b"text/event-stream", b"application/x-ndjson")
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_METHOD = re.compile(r"[A-Za-z]{1,20}")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_IN_TARGETS = re.compile(rb"[\x00-\x20\x7f]")
MADE_UP = "replay-to-"
"""Begins the names of upstreams that only a live replay has: those of an address."""
_TO_MADE_UP = re.compile(rb"(/agent-workflow/[^/]+)?/" + MADE_UP.encode() + rb"[a-z]+(?=/)")
MAX_PROBLEMS = 1_000
"""Problems that are kept with their words; more are counted."""
MAX_PIECES = 20_000
"""Pieces that a stream without recorded timing is cut into at most."""


class Answered(Struct, kw_only=True):
    """An answer with its body."""

    status: int
    headers: RawHeaders = []
    """Names in lower case."""
    body: bytes = b""
    chunks: list[tuple[int, float]] = []
    """Pieces of the body as they came, as far as that was recorded: offset of the end, ms since the first byte of the request."""
    duration_ms: float | None = None
    """From the first byte of the request to the end."""
    complete: bool = True
    """False where it broke off, or only its beginning was recorded."""
    redacted: bool = False
    """Whether something was taken out of the body."""

    def header(self, wanted: bytes) -> bytes:
        """The first value of a header (lower case); empty where it is absent."""
        return next((value for name, value in self.headers if name == wanted), b"")

    @property
    def is_stream(self) -> bool:
        return self.header(b"content-type").startswith(STREAM_TYPES)


class AskedByPolicy(Struct, frozen=True, kw_only=True):
    """A request that a policy made of its own, with its answer."""

    upstream: str
    target: bytes
    body: bytes
    answer: Answered


class Exchange(Struct, kw_only=True):
    """One recorded transaction."""

    where: str
    """File and line, or another way to find it."""
    kind: str
    """`luthien`, `cylestio`, `har` or `journal`."""
    transaction_id: str = ""
    """Empty where the recording has none."""
    method: str
    target: bytes
    """Raw path and query."""
    headers: RawHeaders
    """Names in lower case."""
    body: bytes
    started_at: float | None = None
    """Unix time in seconds."""
    session_id: str = ""
    provider: str = ""
    model: str = ""
    stream: bool = False
    upstream: Answered | None = None
    """What the upstream said; None where none was asked or none answered."""
    upstream_api: str = ""
    """The API in which that stands here; where it is not the upstream's own, the answer was translated before it was recorded."""
    fault: str = ""
    """What luthien told the client because the upstream did not answer; empty where it did."""
    fault_status: int = 0
    """The status that the client got then."""
    fault_code: str = ""
    """And the code, where the dialect has room for one."""
    calls: tuple[AskedByPolicy, ...] = ()
    """What policies asked upstreams themselves."""
    client: Answered | None = None
    """What the client was given."""
    facts: Facts | None = None
    """What luthien recorded of it; None in recordings of other programs."""
    redacted: tuple[str, ...] = ()
    """Parts of request or answer that something was taken out of."""
    body_redacted: bool = False
    """Whether the request's body is one of them."""
    cut: bool = False
    """Whether a body is not whole in the recording."""
    lost: str = ""
    """Why it could not be read again, for people; nothing else is known of it then."""

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def name(self) -> str:
        """How people find it again."""
        return self.transaction_id or self.where


def is_clean(header: tuple[bytes, bytes]) -> bool:
    """Whether a recorded header can stand in a message without changing what follows."""
    name, value = header
    return _NAME.fullmatch(name) is not None and _NOT_IN_VALUES.search(value) is None


def usual_target(target: bytes) -> bytes:
    """The target of a request without the name of an upstream that only a live replay had."""
    found = _TO_MADE_UP.match(target)
    return target if found is None else (found[1] or b"") + target[found.end() :]


def check(exchange: Exchange) -> None:
    """Raise ValueError where an exchange could not stand in HTTP, so that it cannot be sent again."""
    if _METHOD.fullmatch(exchange.method) is None:
        raise ValueError(f"{exchange.method[:40]!r} is no HTTP method")
    if not exchange.target.startswith(b"/") or _NOT_IN_TARGETS.search(exchange.target) is not None:
        raise ValueError("the path and query of the request are not those of an HTTP request")
    for answer in (exchange.client, exchange.upstream, *(call.answer for call in exchange.calls)):
        if answer is not None and not 200 <= answer.status <= 999:
            raise ValueError(f"the status {answer.status} ends no answer")


class Problem(Struct, frozen=True):
    """Something in a recording that could not be used."""

    where: str
    """File, or file and line."""
    message: str


class Recording(Struct, kw_only=True):
    """What was found in files of recordings."""

    exchanges: Sequence[Exchange] = ()
    """In the order in which they began; each may be read anew whenever it is asked for."""
    problems: list[Problem] = []
    """The first MAX_PROBLEMS of them."""
    broken: int = 0
    """How many there are."""
    guessed: int = 0
    """Answers that could be tied to their request only by order, because nothing in the recording says more."""
    unanswered: int = 0
    """Requests without a recorded end."""
    others: int = 0
    """Entries that are no requests of an API that luthien knows, and were left out."""

    def trouble(self, where: str, message: str) -> None:
        """Note something that could not be used."""
        self.broken += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(where, message))


def pieces_of(answer: Answered) -> list[tuple[int, float | None]]:
    """Where the pieces of a body end, and when each is due, in ms since the first byte of the request.

    As recorded; what has no recorded pieces is cut between the events of a stream, spread over the time that is left.
    """
    length = len(answer.body)
    pieces: list[tuple[int, float | None]] = [(end, at) for end, at in _sound(answer.chunks, length)]
    done, at = pieces[-1] if pieces else (0, None)
    if done >= length:
        return pieces
    ends = [length]
    if answer.is_stream:
        pattern = _EVENT_END if answer.header(b"content-type").startswith(STREAM_TYPES[0]) else re.compile(b"\n")
        found = [match.end() for match in pattern.finditer(answer.body, done)][:MAX_PIECES]
        ends = found if found and found[-1] == length else [*found, length]
    if answer.duration_ms is None:
        return pieces + [(end, None) for end in ends]
    begin = at if at is not None else answer.duration_ms / 2 if len(ends) > 1 else answer.duration_ms
    before = 1 if pieces else 0
    step = max(0.0, answer.duration_ms - begin) / max(1, len(ends) - 1 + before)
    return pieces + [(end, begin + step * (number + before)) for number, end in enumerate(ends)]


def carried_over(chunks: list[tuple[int, float]], length: int, answer: Answered) -> list[tuple[int, float]]:
    """The pieces of a body of `length` bytes as pieces of another form of it, the answer's: in proportion, at ends of events.

    Where policies changed a stream, only the pieces that the client got are recorded."""
    ends = [end for end, _ in pieces_of(Answered(status=0, headers=answer.headers, body=answer.body))]
    pieces: list[tuple[int, float]] = []
    for end, at in _sound(chunks, length):
        wanted = end * len(answer.body) / length
        place = bisect_left(ends, wanted)
        near = min(ends[max(0, place - 1) : place + 1], key=lambda one: abs(one - wanted), default=0)
        pieces.append((near, at))
    return _sound(pieces, len(answer.body))


def _sound(chunks: list[tuple[int, float]], length: int) -> list[tuple[int, float]]:
    """The recorded pieces that fit the body: growing, and within it."""
    kept: list[tuple[int, float]] = []
    last = 0
    for end, at in chunks:
        if last < end <= length:
            kept.append((end, at))
            last = end
    return kept
