"""One connection to an upstream: parses responses with httptools and hands the body on as it comes.

It lives in aiohttp's pool and stays aiohttp's own protocol while a proxy tunnel is opened; from `begin` on it reads the
response itself, which costs a third of what aiohttp's reader does for each piece of a stream.
Back-pressure: reading stops while more than `HIGH_WATER_BYTES` wait to be sent on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httptools
from aiohttp.client_proto import ResponseHandler

from proxy_core.errors import UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamUnreachable

HIGH_WATER_BYTES = 256 * 1024
MAX_HEAD_BYTES = 256 * 1024
_NO_BODY = frozenset({204, 304})


class ResponseProtocol(ResponseHandler):
    """The client's side of one connection; one response at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.now = time.monotonic
        self._reads_itself = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        """As received and in order, of the final response; `1xx` ones are skipped."""
        self.ended = False
        """Whether the whole body has arrived; pieces of it may still wait to be read."""
        self._failure: UpstreamError | None = None
        self._pieces: list[bytes] = []
        self._waiting_bytes = 0
        self._held_back = False
        self._reader: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._sink_is_full = False
        self._pause_timer: asyncio.TimerHandle | None = None
        self._pause_checked_at = 0.0
        """The loop's clock when the timer fires."""
        self._last_byte_at = 0.0
        self._limit_s = 0.0
        self._head_done = False
        self._head_bytes = 0
        self._without_body = False
        self._until_close = False
        self._keep_alive = False
        self._name = ""

    # --- for the transport ---

    def begin(self, name: str, *, without_body: bool, first_byte_s: float) -> None:
        """Expect one response to a request that is about to be written. `name` is how errors call the upstream."""
        self._reads_itself = True
        self._name = name
        self.status = 0
        self.headers = []
        self.ended = self._head_done = self._until_close = self._keep_alive = self._held_back = False
        self._without_body = without_body
        self._failure = None
        self._pieces = []
        self._waiting_bytes = self._head_bytes = 0
        self._response_parser = httptools.HttpResponseParser(self)
        self._expect_within(first_byte_s)

    def write(self, request: bytes) -> None:
        """Send the request. Raises UpstreamUnreachable where the connection is gone."""
        if self.transport is None:
            raise UpstreamUnreachable(f"{self._name} closed the connection")
        self.transport.write(request)

    async def head(self) -> None:
        """Wait for the response's headers. Raises UpstreamError."""
        while not self._head_done:
            await self._wait()

    async def piece(self) -> bytes:
        """The next bytes of the body, all that wait; empty at its end. Raises UpstreamError."""
        pieces = self._pieces
        while not pieces:
            if self.ended:
                return b""
            if self._failure is not None:
                raise self._failure
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
            pieces = self._pieces
        return self._take_pieces()

    async def pump(self, sink: Callable[[bytes], bool]) -> None:
        """Call `sink` with each piece as it comes, without a task switch in between, until it returns False or the body ends.

        `sink` must not raise. Raises UpstreamError, after every piece that came before has gone to `sink`.
        """
        while True:
            if self._pieces:
                if not sink(self._take_pieces()):
                    return
            elif self.ended:
                return
            elif self._failure is not None:
                raise self._failure
            else:
                self._sink = sink
                try:
                    await self._wait()
                finally:
                    self._sink = None
                if self._sink_is_full:
                    self._sink_is_full = False
                    return

    def _take_pieces(self) -> bytes:
        pieces = self._pieces
        self._pieces = []
        self._waiting_bytes = 0
        if self._held_back:
            self._held_back = False
            self._last_byte_at = self.now()
            if self.transport is not None:
                self.transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def has_pieces(self) -> bool:
        return bool(self._pieces)

    async def end(self) -> None:
        """Wait until the whole body has arrived, without reading it. Raises UpstreamError."""
        while not self.ended:
            await self._wait()

    def limit_idle(self, seconds: float) -> None:
        """From now on no pause may be longer than this."""
        self._expect_within(seconds)

    @property
    def _broken(self) -> bool:
        return self._failure is not None

    @property
    def should_close(self) -> bool:
        if not self._reads_itself:
            return super().should_close
        return not (self.ended and self._keep_alive) or self._broken

    # --- for the loop ---

    def data_received(self, data: bytes) -> None:
        if not self._reads_itself:
            super().data_received(data)
            return
        if self.ended or self._broken:
            # Bytes that nobody asked for: whatever they are, this connection is not used again.
            self._keep_alive = False
            return
        self._last_byte_at = self.now()
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and len(data) < self._head_bytes:
                self._fail(UpstreamInvalid(f"{self._name} sent more than {MAX_HEAD_BYTES:,} bytes of headers"))
                return
        try:
            self._response_parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamInvalid(f"{self._name} switched protocols without being asked"))
            return
        except httptools.HttpParserError as error:
            self._not_http(error)
        sink = self._sink
        if sink is not None:
            if self._pieces and not sink(self._take_pieces()):
                self._sink = None
                self._sink_is_full = True
                self._wake()
            return
        if self._waiting_bytes > HIGH_WATER_BYTES and not self._held_back and self.transport is not None:
            self._held_back = True
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        if not self._reads_itself:
            super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._reads_itself and not self.ended:
            if self._head_done and self._until_close and exc is None:
                self._finish()
            elif self._head_done:
                self._fail(UpstreamInvalid(f"{self._name} ended its answer in the middle"))
            else:
                self._fail(
                    UpstreamInvalid(f"{self._name} closed the connection before it answered")
                    if exc is None
                    else UpstreamUnreachable(f"the connection to {self._name} was lost before it answered: {exc}")
                )
        self._drop_timer()
        super().connection_lost(exc)

    # --- for the parser ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._response_parser.get_status_code()
        if status < 200 and status != 101:
            self.headers = []
            return
        self.status = status
        self._head_done = True
        self._keep_alive = self._response_parser.should_keep_alive()
        if self._without_body:
            # The parser cannot know that it was a HEAD; what may follow is not looked at.
            self._keep_alive = self._keep_alive and status in _NO_BODY
            self._finish()
            return
        bounded = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        self._until_close = not bounded and status not in _NO_BODY

    def on_body(self, body: bytes) -> None:
        if not self.ended:
            self._pieces.append(body)
            self._waiting_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._head_done and not self.ended:
            self._finish()

    # --- inside ---

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _finish(self) -> None:
        self.ended = True
        self._wake()

    def _fail(self, failure: UpstreamError) -> None:
        if self._failure is None:
            self._failure = failure
        self._drop_timer()
        self._wake()
        if self.transport is not None:
            self.transport.close()

    def _not_http(self, error: Exception) -> None:
        """Before the end of the answer that is a failure; behind it, a reason not to use the connection again."""
        self._keep_alive = False
        if not self.ended:
            self._fail(UpstreamInvalid(f"{self._name} sent something that is not HTTP: {str(error)[:200]}"))

    def _expect_within(self, seconds: float) -> None:
        """The timer stays through many pieces and many answers, and is only replaced where it would fire too late."""
        self._limit_s = seconds
        now = self._last_byte_at = self.now()
        if not self.ended and (self._pause_timer is None or self._pause_checked_at > now + seconds):
            self._check_pause_at(now + seconds)

    def _check_pause_at(self, when: float) -> None:
        self._drop_timer()
        self._pause_checked_at = when
        self._pause_timer = self._loop.call_at(when, self._check_pause)

    def _check_pause(self) -> None:
        """See how long the pause really is."""
        self._pause_timer = None
        if self.ended or self._failure is not None:
            return
        now = self.now()
        if self._pieces or self._held_back:
            self._last_byte_at = now
        due = self._last_byte_at + self._limit_s
        if due > now + 0.001:
            self._check_pause_at(due)
            return
        when = "between two pieces of its answer" if self._head_done else "before it answered"
        self._fail(UpstreamTimeout(f"{self._name} was silent for {self._limit_s:g} s {when}; see 'routing.timeouts'"))

    def _drop_timer(self) -> None:
        if self._pause_timer is not None:
            self._pause_timer.cancel()
            self._pause_timer = None
