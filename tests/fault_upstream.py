"""An upstream that behaves like OpenAI, Anthropic and Ollama, and misbehaves when asked to.

Raw sockets on the test's own loop: every request is kept exactly as it came, every byte sent has its time, and a peer that
leaves is noticed at once. A fault is asked for by the request's `x-fault: {json}` header, or queued with `upstream.faults`.

    async with FaultUpstream() as upstream:
        upstream.faults.append(Fault(reset_after=3))
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from proxy_core.tasks import spawn
from tests.fault_payloads import Answer, Pairs, answer

FOREVER_S = 60.0
HTML = b"<!doctype html><html><body>Sign in to the hotel network</body></html>"


@dataclass
class Fault:
    """What goes wrong, counted in pieces: an event of a stream, or the whole body of any other answer."""

    status: int | None = None
    headers: Pairs = field(default_factory=list)
    """Added to the answer's own, in order."""
    body: str | None = None
    raw_body_hex: str | None = None
    """A body that is no text, as hexadecimal digits."""
    latency_s: float = 0.0
    """Before the head."""
    interval_s: float = 0.0
    """Before each piece but the first."""
    stall_after: int | None = None
    """After so many pieces (-1: before the head) nothing comes until the peer leaves, 60 s at most."""
    drip: bool = False
    """One byte at a time, each in a packet of its own."""
    reset_after: int | None = None
    """RST after so many pieces; -1: before the head."""
    cut_after: int | None = None
    """The connection is closed after so many pieces, without the end that its framing calls for."""
    half_close_after: int | None = None
    """Only the sending side is closed so."""
    end_after: int | None = None
    """A clean HTTP end after so many pieces, although the API's own end has not been sent."""
    content_length: int | None = None
    """Claimed instead of the true one."""
    repeat: int = 1
    """The pieces are sent so many times over."""
    insert: dict[str, str] = field(default_factory=dict)
    """Raw text sent before the piece with that number."""
    bad_chunk_size: bool = False
    """The second chunk's size is not a number."""
    te_and_cl: bool = False
    gzip: bool = False
    huge_header: int = 0
    """Length of one extra header value."""
    many_headers: int = 0
    interim: int = 0
    """So many 103 answers first."""
    close_delimited: bool = False
    """No length and no chunks: the end of the connection is the end of the body."""
    html: bool = False
    echo_key: bool = False
    """The body is an error that repeats the key it was sent."""
    garbage: str | None = None
    """Sent instead of any HTTP, then the connection is closed."""

    @classmethod
    def of(cls, text: str) -> Fault:
        return cls(**json.loads(text))

    def header(self) -> dict[str, str]:
        """This fault as the request header that asks for it."""
        changed = {name: value for name, value in vars(self).items() if value != getattr(Fault(), name)}
        return {"x-fault": json.dumps(changed)}


@dataclass
class Exchange:
    """One request as it came, and what was done with it."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    head: bytes
    body: bytes
    arrived_ns: int
    answer: Answer = field(default_factory=Answer)
    sent_head: bytes = b""
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    """Time and bytes of each piece handed to the socket, framing aside."""
    connection: int = 0
    """Number of the connection it came on, from 1."""
    peer_gone: asyncio.Event = field(default_factory=asyncio.Event)
    peer_gone_ns: int | None = None
    """When the peer closed the connection, if it did so before the answer was whole."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing more will be sent."""

    def header(self, name: str) -> str | None:
        values = self.header_values(name)
        return values[0] if values else None

    def header_values(self, name: str) -> list[str]:
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == name.encode()]

    @property
    def sent_body(self) -> bytes:
        return b"".join(piece for _, piece in self.sent)

    def json(self) -> Any:
        return json.loads(self.body)


class FaultUpstream:
    """Listens on a free port while it is entered."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.faults: deque[Fault] = deque()
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self._tls = tls
        self._host = host
        self._grown = asyncio.Event()
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}" if self._tls else f"http://{self._host}:{self.port}"

    @property
    def last(self) -> Exchange:
        return self.exchanges[-1]

    async def arrived(self, count: int = 1, timeout_s: float = 30.0) -> Exchange:
        """Wait until `count` requests have come in all; the last of them."""
        async with asyncio.timeout(timeout_s):
            while len(self.exchanges) < count:
                self._grown.clear()
                await self._grown.wait()
        return self.exchanges[count - 1]

    async def __aenter__(self) -> FaultUpstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), self._host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.leave()
        await self._server.wait_closed()
        await asyncio.gather(*(link.task for link in list(self._links)), return_exceptions=True)

    def drop_idle_connections(self) -> None:
        """Close every connection that is not answering, as servers do without a word."""
        for link in list(self._links):
            if link.current is None or link.current.done.is_set():
                link.transport.close()

    def note(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self._grown.set()


class _Link(asyncio.Protocol):
    """One connection: reads requests one after the other and answers each."""

    def __init__(self, upstream: FaultUpstream) -> None:
        self.upstream = upstream
        self.buffer = bytearray()
        self.fresh = asyncio.Event()
        self.gone = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.current: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.upstream.connections += 1
        self.number = self.upstream.connections
        self.upstream._links.add(self)
        self.task = spawn(self._serve(), name=f"fault-upstream-{self.number}")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.fresh.set()

    def eof_received(self) -> bool:
        self._mark_gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._mark_gone()
        self.upstream._links.discard(self)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def leave(self) -> None:
        self.transport.abort()
        self.task.cancel()

    def _mark_gone(self) -> None:
        exchange = self.current
        if exchange is not None and not exchange.done.is_set() and exchange.peer_gone_ns is None:
            exchange.peer_gone_ns = time.perf_counter_ns()
            exchange.peer_gone.set()
        self.gone.set()
        self.fresh.set()
        self.room.set()

    async def _serve(self) -> None:
        try:
            while not self.gone.is_set():
                exchange = await self._request()
                self.current = exchange
                try:
                    keep = await self._answer(exchange)
                finally:
                    exchange.done.set()
                if not keep:
                    break
        except ConnectionError:
            pass  # the peer left: the exchange says so
        finally:
            self.transport.close()

    async def _more(self) -> None:
        if self.gone.is_set():
            raise ConnectionResetError
        self.fresh.clear()
        await self.fresh.wait()

    async def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            await self._more()
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def _until(self, mark: bytes) -> bytes:
        while (found := self.buffer.find(mark)) < 0:
            await self._more()
        return await self._take(found + len(mark))

    async def _request(self) -> Exchange:
        head = await self._until(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        method, target, version = first.split(b" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        known = {name.lower(): value for name, value in headers}
        if known.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange = Exchange(
            method.decode(), target, version.decode(), headers, head, b"", time.perf_counter_ns(), connection=self.number
        )
        if known.get(b"transfer-encoding", b"").lower() == b"chunked":
            while size := int((await self._until(b"\r\n")).split(b";")[0], 16):
                exchange.body += (await self._take(size + 2))[:-2]
            await self._until(b"\r\n")
        else:
            exchange.body = await self._take(int(known.get(b"content-length", b"0")))
        self.upstream.note(exchange)
        return exchange

    async def _answer(self, exchange: Exchange) -> bool:
        """Send the answer with its fault; whether the connection goes on."""
        asked = exchange.header("x-fault")
        fault = Fault.of(asked) if asked else self.upstream.faults.popleft() if self.upstream.faults else Fault()
        path = exchange.target.partition(b"?")[0].decode("latin-1")
        if path.startswith("http"):
            path = "/" + path.split("/", 3)[3]
        lower = {name.lower().decode(): value.decode("latin-1") for name, value in exchange.headers}
        given = exchange.answer = _with_fault(answer(exchange.method, path, lower, exchange.body), fault, lower)
        if fault.latency_s:
            await self._pause(fault.latency_s)
        if fault.reset_after == -1:
            return self._reset()
        if fault.stall_after == -1:
            return await self._pause(FOREVER_S)
        if fault.garbage is not None:
            self.transport.write(fault.garbage.encode("latin-1"))
            return False
        chunked = given.streamed and not fault.close_delimited and fault.content_length is None
        number = len(self.upstream.exchanges)
        exchange.sent_head = _head(given, fault, chunked, number)
        self.transport.write(exchange.sent_head)
        if exchange.method == "HEAD":
            return True
        for index, piece in enumerate(given.pieces):
            if fault.stall_after == index:
                return await self._pause(FOREVER_S)
            if fault.reset_after == index:
                return self._reset()
            if fault.end_after == index:
                break
            if index in (fault.cut_after, fault.half_close_after):
                return await self._cut(half=fault.half_close_after is not None)
            if index and fault.interval_s:
                await self._pause(fault.interval_s)
            await self._piece(exchange, piece, chunked, bad_size=fault.bad_chunk_size and index == 1, drip=fault.drip)
            if self.gone.is_set():
                return False
        if chunked:
            self.transport.write(b"0\r\n\r\n")
        wrong_length = fault.content_length is not None or fault.te_and_cl
        return not (fault.close_delimited or wrong_length or lower.get("connection") == "close")

    async def _piece(self, exchange: Exchange, piece: bytes, chunked: bool, *, bad_size: bool, drip: bool) -> None:
        size = b"xyz" if bad_size else b"%x" % len(piece)
        framed = b"%s\r\n%s\r\n" % (size, piece) if chunked else piece
        await self.room.wait()
        exchange.sent.append((time.perf_counter_ns(), piece))
        if not drip:
            self.transport.write(framed)
            return
        for place in range(len(framed)):
            self.transport.write(framed[place : place + 1])
            await asyncio.sleep(0)

    async def _pause(self, seconds: float) -> bool:
        """Wait, but no longer than the peer stays. Always False."""
        try:
            async with asyncio.timeout(seconds):
                await self.gone.wait()
        except TimeoutError:
            pass
        return False

    def _reset(self) -> bool:
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
        return False

    async def _cut(self, *, half: bool) -> bool:
        if half:
            self.transport.write_eof()
            await self._pause(FOREVER_S)
        return False


def _with_fault(given: Answer, fault: Fault, headers: dict[str, str]) -> Answer:
    """The answer that the fault's content asks for."""
    if fault.status is not None:
        given.status = fault.status
        given.streamed = given.streamed and fault.status < 300
    if fault.echo_key:
        key = headers.get("authorization") or headers.get("x-api-key") or ""
        given.pieces = [json.dumps({"error": {"message": f"Incorrect API key provided: {key}", "type": "auth"}}).encode()]
        given.streamed = False
    if fault.body is not None:
        given.pieces, given.streamed = [fault.body.encode()], False
    if fault.raw_body_hex is not None:
        given.pieces, given.streamed = [bytes.fromhex(fault.raw_body_hex)], False
    if fault.html:
        given.pieces, given.streamed, given.headers = [HTML], False, [("content-type", "text/html")]
    for place, text in sorted(((int(place), text) for place, text in fault.insert.items()), reverse=True):
        given.pieces.insert(place, text.encode())
    given.pieces = given.pieces * fault.repeat
    if fault.gzip:
        given.pieces = [gzip.compress(given.body, mtime=0)]
        given.headers = [*given.headers, ("content-encoding", "gzip")]
    return given


def _head(given: Answer, fault: Fault, chunked: bool, number: int) -> bytes:
    pairs: Pairs = [
        *given.headers,
        ("x-request-id", f"req_{number:06d}"),
        ("X-RateLimit-Remaining-Requests", "41"),
        ("anthropic-ratelimit-requests-remaining", "41"),
        *fault.headers,
    ]
    if fault.huge_header:
        pairs.append(("x-huge", "h" * fault.huge_header))
    pairs += [(f"x-many-{index}", "v") for index in range(fault.many_headers)]
    if chunked or fault.te_and_cl:
        pairs.append(("transfer-encoding", "chunked"))
    if fault.te_and_cl or not (chunked or fault.close_delimited or given.status in (204, 304)):
        length = len(given.body) if fault.content_length is None else fault.content_length
        pairs.append(("content-length", str(length)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * fault.interim
    return f"{interim}HTTP/1.1 {given.status} Anything\r\n{lines}\r\n".encode("latin-1")
