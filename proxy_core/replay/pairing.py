"""Which recorded answer belongs to which request, where the recording names no transaction.

Cylestio writes an answer when it has ended, without a word of its request. But an answer says how long it took and when it
ended, so it says when its request began; it shows which API it speaks and whether it streams. Among the requests that still wait
and fit (or all that wait, where none fits), the one that began nearest to that moment is taken; without times, the first. Two
requests of one API that began in the same moment may be exchanged for each other: nothing in such a recording could tell.
"""

from __future__ import annotations

from sys import intern

from msgspec import Struct

from proxy_core.interceptors.recording_format import Error, Request, Response, pairs_of
from proxy_core.replay.kept import Source

TOLERANCE_S = 0.5
"""An answer that began further from every request that waits is tied by order alone."""


class Line(Struct, frozen=True):
    """Where a record stands."""

    file: str
    number: int
    source: Source
    start: int
    size: int

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"


class Pair(Struct):
    """A request, and how it ended as far as that is recorded; without their bodies."""

    asked: Line
    started_at: float | None
    path: str
    method: str
    provider: str | None
    is_streaming: bool | None
    ended: Line | None = None
    is_broken: bool = False
    """Whether there is something in it that cannot be used."""
    is_answered: bool = False
    """Whether its end says how it went."""


class Pairing:
    """Takes the records of one recording in order."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.guessed = 0
        """Answers that were tied by order alone although more than one request waited."""
        self._waiting: list[Pair] = []
        self._named: dict[str, Pair] = {}

    def take(self, line: Line, record: Request | Response | Error) -> Pair | str:
        """Tie the record to the others; returns the pair that it belongs to, or what is wrong with it."""
        if isinstance(record, Request):
            return self._request(line, record)
        if record.transaction_id:
            named = self._named.pop(record.transaction_id, None)
            if named is None:
                return "the request that this line belongs to is not in the recording"
            named.ended = line
            return named
        pair = self._nearest(record)
        if pair is None:
            return "no request waits for this answer"
        self._waiting.remove(pair)
        pair.ended = line
        return pair

    def _request(self, line: Line, record: Request) -> Pair | str:
        pair = Pair(
            line, record.start_time, intern(record.path), intern(record.method), record.provider and intern(record.provider),
            record.is_streaming,
        )  # fmt: skip
        if record.transaction_id:
            if record.transaction_id in self._named:
                return f"the transaction {record.transaction_id[:40]} begins a second time"
            self._named[record.transaction_id] = pair
        else:
            self._waiting.append(pair)
        self.pairs.append(pair)
        return pair

    def _nearest(self, record: Response | Error) -> Pair | None:
        """The request that most likely belongs to an answer; None where none waits."""
        shape = _shape(record)
        waiting = [pair for pair in self._waiting if _fits(pair, record, shape)] or self._waiting
        if len(waiting) <= 1:
            return waiting[0] if waiting else None
        began = _began(record)
        if began is not None:
            distances = [
                (abs(pair.started_at - began), number) for number, pair in enumerate(waiting) if pair.started_at is not None
            ]
            if distances and (nearest := min(distances))[0] <= TOLERANCE_S:
                return waiting[nearest[1]]
        self.guessed += 1
        return waiting[0]


def _began(record: Response | Error) -> float | None:
    if record.end_time is None or record.duration_ms is None:
        return None
    return record.end_time - record.duration_ms / 1e3


class _Shape(Struct, frozen=True):
    """What an answer shows of its request."""

    streams: bool = False
    spoken: str = ""


def _shape(ended: Response | Error) -> _Shape:
    if isinstance(ended, Error) or ended.status_code >= 400:
        return _Shape()
    headers = dict(pairs_of(ended.headers, ended.header_list))
    streams = headers.get(b"content-type", b"").startswith((b"text/event-stream", b"application/x-ndjson"))
    return _Shape(streams, _spoken(bytes(ended.body.content)[:20_000] if ended.body is not None else b""))


def _fits(asked: Pair, ended: Response | Error, shape: _Shape) -> bool:
    """Whether nothing speaks against this answer belonging to that request."""
    if isinstance(ended, Error):
        return (ended.path or asked.path, ended.method or asked.method) == (asked.path, asked.method)
    if ended.status_code >= 400:
        return True
    if asked.is_streaming is not None and asked.is_streaming != shape.streams:
        return False
    return not shape.spoken or not asked.provider or shape.spoken == asked.provider


def _spoken(body: bytes) -> str:
    """The API whose words an answer uses; empty where that cannot be told."""
    if (
        b'"chat.completion' in body
        or b'"object": "response"' in body
        or b'"object":"response"' in body
        or b"response.created" in body
    ):
        return "openai"
    if b"message_start" in body or b'"type": "message"' in body or b'"type":"message"' in body:
        return "anthropic"
    return ""
