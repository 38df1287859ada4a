"""Which recorded answer belongs to which request, where the recording names no transaction.

Cylestio writes an answer when it has ended, without a word of its request. But an answer says how long it took and when it
ended, so it says when its request began; it shows which API it speaks and whether it streams. Among the requests that still wait
and fit (or all that wait, where none fits), the one that began nearest to that moment is taken; without times, the first. Two
requests of one API that began in the same moment may be exchanged for each other: nothing in such a recording could tell.
"""

from __future__ import annotations

from msgspec import Struct

from proxy_core.interceptors.recording_format import Error, Request, Response, pairs_of

TOLERANCE_S = 0.5
"""An answer that began further from every request that waits is tied by order alone."""


class Line(Struct):
    """A record and where it stands."""

    where: str
    record: Request | Response | Error


class Pair(Struct):
    """A request, and how it ended as far as that is recorded."""

    asked: Line
    ended: Line | None = None


class Pairing:
    """Takes the lines of one recording in order."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.guessed = 0
        """Answers that were tied by order alone although more than one request waited."""
        self._waiting: list[Pair] = []
        self._named: dict[str, Pair] = {}

    def take(self, line: Line) -> str:
        """Tie the line to the others; returns what is wrong with it, empty where nothing is."""
        record = line.record
        if isinstance(record, Request):
            return self._request(line, record)
        if record.transaction_id:
            pair = self._named.pop(record.transaction_id, None)
            if pair is None:
                return "the request that this line belongs to is not in the recording"
            pair.ended = line
            return ""
        pair = self._nearest(record)
        if pair is None:
            return "no request waits for this answer"
        self._waiting.remove(pair)
        pair.ended = line
        return ""

    def _request(self, line: Line, record: Request) -> str:
        pair = Pair(line)
        if record.transaction_id:
            if record.transaction_id in self._named:
                return f"the transaction {record.transaction_id[:40]} begins a second time"
            self._named[record.transaction_id] = pair
        else:
            self._waiting.append(pair)
        self.pairs.append(pair)
        return ""

    def _nearest(self, record: Response | Error) -> Pair | None:
        """The request that most likely belongs to an answer; None where none waits."""
        waiting = [pair for pair in self._waiting if _fits(pair.asked.record, record)] or self._waiting
        if len(waiting) <= 1:
            return waiting[0] if waiting else None
        began = _began(record)
        if began is not None:
            distances = [
                (abs(start - began), number) for number, pair in enumerate(waiting) if (start := _start(pair)) is not None
            ]
            if distances and (nearest := min(distances))[0] <= TOLERANCE_S:
                return waiting[nearest[1]]
        self.guessed += 1
        return waiting[0]


def _start(pair: Pair) -> float | None:
    record = pair.asked.record
    return record.start_time if isinstance(record, Request) else None


def _began(record: Response | Error) -> float | None:
    if record.end_time is None or record.duration_ms is None:
        return None
    return record.end_time - record.duration_ms / 1e3


def _fits(asked: Request | Response | Error, ended: Response | Error) -> bool:
    """Whether nothing speaks against this answer belonging to that request."""
    if not isinstance(asked, Request):
        return False
    if isinstance(ended, Error):
        return (ended.path or asked.path, ended.method or asked.method) == (asked.path, asked.method)
    if ended.status_code >= 400:
        return True
    headers = dict(pairs_of(ended.headers, ended.header_list))
    streams = headers.get(b"content-type", b"").startswith((b"text/event-stream", b"application/x-ndjson"))
    if asked.is_streaming is not None and asked.is_streaming != streams:
        return False
    spoken = _spoken(bytes(ended.body.content)[:20_000] if ended.body is not None else b"")
    return not spoken or not asked.provider or spoken == asked.provider


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
