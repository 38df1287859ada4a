"""The way of an answer to the client, unchanged: each piece as it comes, all but the last.

The last piece is what makes the answer whole for the client: the end of a body of known length, the terminator of a
stream. It is returned in place of being sent, for it may go only when the outcome is durable.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from proxy_core.control.feed import Feed
from proxy_core.recording import Recorder
from proxy_core.routing.transport import UpstreamResponse
from proxy_core.running import RawHeaders, Running
from proxy_core.wire.headers import content_length, response_headers, value_of
from proxy_core.wire.terminator import TerminatorScan, terminator_scan

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TERMINATOR_GRACE_S = 0.05
"""How long the terminator of a stream is held back for the upstream's end of body to be recorded with it."""
STREAM_TYPES = ("text/event-stream", "application/x-ndjson")


class Relay:
    """Sends answers on as they are."""

    def __init__(self, *, recorder: Recorder, feed: Feed, own_headers: bool) -> None:
        self._recorder = recorder
        self._feed = feed
        self._own_headers = own_headers
        self._now = time.monotonic

    async def relay(self, running: Running, response: UpstreamResponse, send: Send) -> bytes:
        """Send the answer on as it comes; returns its last piece. Raises UpstreamError."""
        headers = self.begin(running, response.status, response.headers)
        length = content_length(headers)
        start = self.start_message(running, response.status, headers)
        if length is not None:
            return await self._known_length(running, response, send, start, length)
        await send(start)
        running.sent = True
        return await self._stream(running, response, send)

    def begin(self, running: Running, status: int, raw_headers: RawHeaders) -> RawHeaders:
        """Note the head of the response; returns its end-to-end headers."""
        headers = response_headers(raw_headers)
        row = running.row
        running.response_headers = headers
        running.content_type = value_of(headers, b"content-type")
        running.content_encoding = value_of(headers, b"content-encoding")
        row.status = status
        row.stream = running.content_type.startswith(STREAM_TYPES)
        row.state = "streaming"
        return headers

    def start_message(self, running: Running, status: int, headers: RawHeaders) -> Message:
        return {"type": "http.response.start", "status": status, "headers": self.with_own(running, headers)}

    async def _known_length(self, running: Running, response: UpstreamResponse, send: Send, start: Message, length: int) -> bytes:
        """A body whose end is known beforehand. One that came whole waits with its head, and both leave in one write."""
        if not response.waiting:
            await send(start)
            running.sent = True
        held = b""
        while chunk := await response.read():
            self.take(running, chunk)
            if running.received >= length:
                held = chunk
                if response.ended:
                    break
                continue
            if not running.sent:
                await send(start)
                running.sent = True
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        running.start_message = None if running.sent else start
        return held

    async def _stream(self, running: Running, response: UpstreamResponse, send: Send) -> bytes:
        """A body that ends when it ends: each piece leaves as it comes, from the dialect's terminator on it is held."""
        scan = scan_for(running, response.status)
        outbox: list[bytes] = []
        write = running.write or put_into(outbox)
        terminator: list[bytes] = []

        def forward(chunk: bytes) -> bool:
            self.take(running, chunk)
            if scan is not None and not terminator and (at := scan.feed(chunk)) is not None:
                if at:
                    write(chunk[:at])
                terminator.append(chunk[at:])
                return False
            return write(chunk)

        while not response.ended:
            await response.pump(forward)
            for chunk in outbox:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            outbox.clear()
            if terminator and (held := terminator[0]):
                if response.ended or await response.ends_within(TERMINATOR_GRACE_S):
                    while chunk := await response.read():
                        self.take(running, chunk)
                        held += chunk
                    return held
                # The upstream keeps the connection open after its last word: record now, let the client go on.
                await self._recorder.outcome(running, "")
                running.leaving = False
                terminator[0] = b""
                await send({"type": "http.response.body", "body": held, "more_body": True})
            elif not response.ended:
                # The client reads more slowly than the upstream writes: wait for it.
                await send({"type": "http.response.body", "body": b"", "more_body": True})
        return b""

    def take(self, running: Running, chunk: bytes) -> None:
        """Note a piece that goes to the client."""
        now = self._now()
        running.take(chunk, now)
        if running.row.chunks == 1:
            # The first byte stands for the first token until the whole answer is read.
            running.row.ttft_ms = running.ms_at(now)
            self._feed.publish("first_token", running.row)

    def with_own(self, running: Running, headers: RawHeaders) -> RawHeaders:
        """The headers with luthien's own beside them."""
        if not self._own_headers:
            return headers
        row = running.row
        reason = row.reason
        if running.control is not None and (more := running.control.reasons):
            reason = f"{reason},{more}" if reason else more
        own = [
            (b"x-luthien-transaction-id", row.transaction_id.encode("ascii")),
            *_route_headers(row.upstream, reason, row.verdict, len(running.tried) + bool(running.address)),
            (b"x-luthien-overhead-ms", b"%.2f" % (row.overhead_ms or 0.0)),
        ]
        if row.session_id:
            own.append((b"x-luthien-session-id", row.session_id.encode("latin-1", "replace")))
        if running.admission is not None:
            own += running.admission.headers(headers)
        return headers + own


def scan_for(running: Running, status: int) -> TerminatorScan | None:
    """A scan for the terminator of the response; None where none is to be expected."""
    if running.content_encoding or status >= 400:
        return None
    return terminator_scan(running.operation, running.content_type)


def put_into(outbox: list[bytes]) -> Callable[[bytes], bool]:
    """What stands for a direct way to the client where the server offers none: pieces wait to be sent the ASGI way."""

    def put(chunk: bytes) -> bool:
        outbox.append(chunk)
        return False

    return put


@lru_cache(maxsize=256)
def _route_headers(upstream: str, reason: str, verdict: str, attempts: int) -> RawHeaders:
    """The headers that are the same for all transactions of a route."""
    return [
        (b"x-luthien-upstream", upstream.encode("ascii")),
        (b"x-luthien-reason", reason.encode("ascii")),
        (b"x-luthien-verdict", verdict.encode("ascii")),
        (b"x-luthien-attempts", b"%d" % attempts),
    ]
