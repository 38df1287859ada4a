"""uvicorn inside a loop that is somebody else's, with the ingress limits that it lacks.

`EmbeddedServer` captures no signals and says when it is ready. `IngressProtocol` bounds the size and the time of request
heads, refuses what two readers could read differently, and answers HTTP/1.0 clients without chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from proxy_core.errors import BadRequest, Face, HeadersTooLarge, ListenError, LuthienError, RequestTimeout
from proxy_core.settings import ServerSettings
from proxy_core.wire.dialects import Dialect
from proxy_core.wire.errors import error_body

log = logging.getLogger(__name__)

DRAIN_POLL_S = 0.01
SWEEP_S = 0.5
"""How often slow heads and idle connections are looked for."""
MAX_HEADERS = 256
_HOST = re.compile(rb"[A-Za-z0-9._~%-]*(?:\[[0-9A-Fa-f:.%]+\])?(?::[0-9]{0,5})?")
_NOT_IN_NAMES = bytes(range(0x21)) + b'\x7f()<>@,;:\\[]={}"'
_NOT_IN_VALUES = bytes(set(range(0x20)) - {0x09}) + b"\x7f"
"""Looked for in all headers at once, which costs far less than a search in each."""


class ServerStartupError(LuthienError):
    """The server could not start, though its address was free."""


def listen(host: str, port: int, *, remedy: str = "choose another with --host and --port") -> socket.socket:
    """A socket that listens already, so that clients queue while the rest starts. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --host") from error
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[0][4])
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}; {remedy}") from error
    return listener


class EmbeddedServer(uvicorn.Server):
    """uvicorn without signal handling; `ready` is set when it accepts."""

    def __init__(self, config: uvicorn.Config, settings: ServerSettings) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._settings = settings

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def stop(self) -> None:
        """Stop accepting and drain."""
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        """Serve until `stop`. Wakes only to look for slow heads and idle connections, not ten times a second as uvicorn does."""
        await self.on_tick(0)
        while not self.should_exit:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), SWEEP_S)
            self._sweep()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let what runs finish within the drain time, then stop it. As uvicorn's, without its fixed pauses."""
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self._settings.drain_s or 0.001):
                # uvicorn keeps sets, not events
                while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL_S)
        except TimeoutError:
            log.error("the drain time is over: stopping %d transactions", len(self.server_state.tasks))
        for task in list(self.server_state.tasks):
            task.cancel()

    async def run_embedded(self, listener: socket.socket) -> None:
        """Serve until `should_exit`. Raises ServerStartupError; uvicorn's SystemExit never leaves this task."""
        try:
            await self.serve(sockets=[listener])
        except SystemExit as error:
            raise ServerStartupError("the gateway could not start; the log says why") from error

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        oldest = now - self._settings.header_timeout_s
        for connection in list(self.server_state.connections):
            if isinstance(connection, IngressProtocol):
                if connection.head_begun < oldest:
                    connection.head_timed_out()
                elif connection.idle_since + connection.timeout_keep_alive < now:
                    connection.timeout_keep_alive_handler()


class CloseDelimitedCycle(RequestResponseCycle):
    """The answer to an HTTP/1.0 client: never chunked, the end of the connection ends the body where no length does."""

    unbounded = False

    @classmethod
    def of(cls, cycle: RequestResponseCycle) -> CloseDelimitedCycle:
        own = cls.__new__(cls)
        own.__dict__.update(cycle.__dict__)
        return own

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.unbounded = all(name.lower() != b"content-length" for name, _ in message["headers"])
            if self.unbounded:
                self.chunked_encoding = False
        elif self.unbounded:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class IngressProtocol(HttpToolsProtocol):
    """One client connection."""

    settings = ServerSettings()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.head_begun = float("inf")
        """The loop's clock when the head that is awaited began; infinity while none is."""
        self.idle_since = float("inf")
        """The loop's clock when the last answer was complete; infinity while there is something to do."""
        self._head_bytes = 0
        self._in_head = True
        self._refusal: LuthienError | None = None
        self._last_host = b""
        """A Host header that was found valid."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.head_begun = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if not self._head_bytes:
                self.head_begun = self.loop.time()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.settings.max_header_bytes and not self.transport.is_closing():
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.idle_since = float("inf")
        self.scope["extensions"] = {"luthien.cut": self._cut}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self.head_begun = float("inf")
        self._check_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        """As uvicorn's, without its timer for each answer: the sweep closes what stays idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.idle_since = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        refusal = self._refusal or BadRequest("this is not a valid HTTP request; check the client's request line and headers")
        self._refuse(refusal)

    def head_timed_out(self) -> None:
        """The head did not come in time: say so where one had begun, close either way."""
        self.head_begun = float("inf")
        if self._head_bytes:
            self._refuse(RequestTimeout("the request's headers did not arrive in time; see 'server.header_timeout_s'"))
        elif not self.transport.is_closing():
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        extensions: dict[str, Any] = cycle.scope["extensions"]
        extensions["luthien.write"] = partial(self._write_piece, cycle)
        extensions["luthien.answer"] = partial(self._answer, cycle)
        if cycle.scope["http_version"] == "1.0":
            own = CloseDelimitedCycle.of(cycle)
            if self.cycle is cycle:
                self.cycle = own
            cycle = own
        super()._start_asgi_task(cycle, app)

    def _check_head(self) -> None:
        """Refuse what another server could read differently. Raises, which ends the parsing."""
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts:
            host = self.headers[names.index(b"host")][1]
            if host != self._last_host:
                if not _HOST.fullmatch(host):
                    self._refusal = BadRequest("the Host header is not a host name with an optional port")
                    raise self._refusal
                self._last_host = host
        size = len(self.url) + 4 * len(names) + sum(map(len, chain.from_iterable(self.headers)))
        if size > self.settings.max_header_bytes or len(self.headers) > MAX_HEADERS:
            self._refusal = self._too_large()
            raise self._refusal
        version = self.parser.get_http_version()
        if hosts > 1 or (not hosts and version == "1.1"):
            self._refusal = BadRequest("a request needs exactly one Host header")
            raise self._refusal
        if version == "1.0" and b"transfer-encoding" in names:
            self._refusal = BadRequest("HTTP/1.0 has no transfer-encoding")
            raise self._refusal
        if not self.url.startswith(b"/") and self.url != b"*":
            self._check_absolute(hosts)

    def _check_absolute(self, hosts: int) -> None:
        host = next((value for name, value in self.headers if name == b"host"), b"")
        _, _, rest = self.url.partition(b"://")
        if not hosts or rest.partition(b"/")[0] != host:
            self._refusal = BadRequest("the request target and the Host header name different servers; send the path alone")
            raise self._refusal

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"the request's headers are larger than {self.settings.max_header_bytes:,} bytes; see 'server.max_header_bytes'"
        )

    def _refuse(self, error: LuthienError) -> None:
        """Answer outside of any transaction, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            face: Face = error.face
            url = getattr(self, "url", b"") or b""
            dialect = Dialect.ANTHROPIC if b"/messages" in url else Dialect.OLLAMA if url.startswith(b"/api") else Dialect.OPENAI
            body = error_body(
                dialect,
                message=str(error),
                openai_type=face.openai_type,
                openai_code=face.openai_code,
                anthropic_type=face.anthropic_type,
                transaction_id="",
            )
            self.transport.write(
                STATUS_LINE[face.status]
                + b"content-type: application/json\r\nx-should-retry: false\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
                % len(body)
                + body
            )
        self.transport.close()

    def _write_piece(self, cycle: RequestResponseCycle, body: bytes) -> bool:
        """A piece of a body without announced length, after its head: what `send` does, without its task switch."""
        if cycle.disconnected or not body:
            return True
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body) if cycle.chunked_encoding else body)
        return not self.flow.write_paused

    def _answer(self, cycle: RequestResponseCycle, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
        """A whole answer in one write: what two calls of `send` do, at a quarter of their cost.

        False, and nothing is written, where anything about it is out of the ordinary; `send` has the rules for that.
        """
        if (
            cycle.response_started
            or cycle.disconnected
            or not cycle.keep_alive
            or cycle.default_headers
            or self.flow.write_paused
            or cycle.scope["method"] == "HEAD"
            or (b"content-length", b"%d" % len(body)) not in headers
        ):
            return False
        names = b"".join([name for name, _ in headers])
        if b"connection" in names or b"transfer-" in names or names.count(b"content-length") > 1:
            return False
        if len(names.translate(None, _NOT_IN_NAMES)) != len(names):
            return False
        head = b"\r\n".join(map(b": ".join, headers))
        if len(head.translate(None, _NOT_IN_VALUES)) != len(head) - 2 * (len(headers) - 1):
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(b"%b%b\r\n\r\n%b" % (STATUS_LINE[status], head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _cut(self) -> None:
        """Close in the middle of an answer, so that the client sees that it is not whole."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.close()
