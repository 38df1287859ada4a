"""Stands in for every upstream of an offline replay: answers each request with what was recorded of it, to the byte.

It is an HTTP server on a free port of this machine, and the transport reaches nothing else. An answer comes in the recorded
pieces, at the recorded times where a speed is given; one that broke off breaks off again. What policies ask models beside the
request is answered as it was, where that was recorded.
"""

from __future__ import annotations

import asyncio
import http
import re
from collections.abc import Callable

from msgspec.structs import replace

from proxy_core.errors import UpstreamError, UpstreamInvalid, UpstreamTimeout, UpstreamTLSError, UpstreamUnreachable
from proxy_core.replay.current import HEADER, Current, current, wait_s
from proxy_core.replay.exchanges import Answered, Exchange, RawHeaders, is_clean, pieces_of
from proxy_core.routing.transport import UpstreamResponse, UpstreamTransport
from proxy_core.routing.upstreams import Upstream
from proxy_core.wire.glance import glance

MAX_HEAD_BYTES = 1024 * 1024
_FRAMING = (b"content-length", b"transfer-encoding", b"connection", b"keep-alive")
_IDENTITY = (b"accept-encoding", b"identity")
"""Stands in each request that a policy makes."""
_RANDOM_NAME = re.compile(rb"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
"""As policies make them for the tags that a judge has to answer in."""
_PLAIN = frozenset((b"content-type", b"accept-encoding", b"anthropic-version", b"authorization", b"x-api-key", b"api-key"))
"""Headers that requests of policies have too."""
_FAULTS: dict[str, type[UpstreamError]] = {
    one.face.openai_code: one for one in (UpstreamError, UpstreamUnreachable, UpstreamTLSError, UpstreamInvalid, UpstreamTimeout)
}
NOT_RECORDED = "a policy asked a model beside the request; that is not in the recording, so it got no answer"
OTHER_WORDS = "a policy asked a model in other words than recorded; it got the recorded answer"
NO_ANSWER = "the request reaches the upstream now, and the recording has no answer to it"


class Loopback:
    """The server. `async with Loopback(find) as server`; `find` tells what a request that names a number is answered with."""

    def __init__(self, find: Callable[[bytes], tuple[Current, Answered] | None], *, speed: float | None = None) -> None:
        self._find = find
        self._speed = speed
        self.url = ""

    async def __aenter__(self) -> Loopback:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_HEAD_BYTES)
        self._connections: set[asyncio.StreamWriter] = set()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for writer in self._connections:
            writer.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request on each connection: what the gateway does with an answer happens in the context in which the connection
        was made, and that has to be the one of the transaction."""
        self._connections.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            headers = dict(line.partition(b": ")[::2] for line in lines[1:-2])
            await reader.readexactly(int(headers.get(b"content-length", b"0")))
            found = self._find(headers.get(HEADER, b""))
            if found is not None:
                await self._answer(writer, lines[0].startswith(b"HEAD "), *found)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, is_head: bool, replayed: Current, answer: Answered) -> None:
        bodiless = is_head or answer.status in (204, 304)
        chunked = not answer.header(b"content-length") and not bodiless
        broken = not answer.complete and not replayed.exchange.cut
        writer.write(_head(answer, chunked=chunked, bodiless=bodiless, broken=broken))
        start = 0
        for end, at_ms in () if bodiless else pieces_of(answer):
            await self._wait(replayed, at_ms)
            piece = answer.body[start:end]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await writer.drain()
            start = end
            # The gateway, on the same loop, reads this piece before the next is written.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if chunked and not broken:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _wait(self, replayed: Current, at_ms: float | None) -> None:
        if self._speed is None or at_ms is None:
            return
        due = replayed.started + at_ms / 1e3 / self._speed
        await asyncio.sleep(wait_s(due - asyncio.get_running_loop().time()))


def _head(answer: Answered, *, chunked: bool, bodiless: bool, broken: bool) -> bytes:
    try:
        phrase = http.HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers: RawHeaders = [one for one in answer.headers if one[0] not in _FRAMING and is_clean(one)]
    headers.append((b"connection", b"close"))
    if chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif broken or bodiless:
        if answer.header(b"content-length"):
            headers.append((b"content-length", answer.header(b"content-length")))
    else:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    lines = [f"HTTP/1.1 {answer.status} {phrase}".encode("ascii"), *map(b": ".join, headers), b"", b""]
    return b"\r\n".join(lines)


class ReplayTransport(UpstreamTransport):
    """The gateway's way to the loopback, and to nothing else."""

    def __init__(self, loopback: Loopback) -> None:
        super().__init__(only_to=loopback.url)

    async def send(self, upstream: Upstream, method: str, target: bytes, headers: RawHeaders, body: bytes) -> UpstreamResponse:
        """The recorded answer, or the recorded failure. Raises UpstreamError."""
        replayed = current()
        if replayed is None:
            raise UpstreamUnreachable("this request is not in the recording")
        exchange = replayed.exchange
        if (call := call_of(replayed, upstream.name, target, headers, body)) is not None:
            name = b"%d.%d" % (replayed.number, call)
            return await super().send(upstream, method, target, [*headers, (HEADER, name)], body)
        if not _is_clients(headers, target, body, exchange):
            replayed.note(NOT_RECORDED)
            raise UpstreamUnreachable(NOT_RECORDED)
        if exchange.fault:
            fault = _FAULTS.get(exchange.fault_code)
            raise (fault or (UpstreamTimeout if exchange.fault_status == 504 else UpstreamUnreachable))(exchange.fault)
        if exchange.upstream is None:
            replayed.note(NO_ANSWER)
            raise UpstreamUnreachable(NO_ANSWER)
        return await super().send(upstream, method, target, [*headers, (HEADER, b"%d" % replayed.number)], body)


def call_of(replayed: Current, upstream: str, target: bytes, headers: RawHeaders, body: bytes) -> int | None:
    """The number of the recorded call that a policy makes again, its answer made ready; None where it is none of them.

    Policies may ask in other words than they did, such as with a fresh name for a tag; those are put into the answer.
    """
    exchange = replayed.exchange
    if _IDENTITY not in headers:
        return None
    there = [
        number
        for number, call in enumerate(exchange.calls)
        if number not in replayed.used and (call.upstream, call.target) == (upstream, target)
    ]
    if not there:
        return None
    number = next((one for one in there if exchange.calls[one].body == body), None)
    if number is None:
        if exchange.upstream is not None and _is_clients(headers, target, body, exchange):
            return None
        number = there[0]
    call = exchange.calls[number]
    replayed.used.add(number)
    answer, as_recorded = _renamed(call.answer.body, call.body, body)
    if not as_recorded:
        replayed.note(OTHER_WORDS)
    replayed.answered[number] = replace(call.answer, body=answer)
    return number


def _renamed(answer: bytes, recorded: bytes, asked: bytes) -> tuple[bytes, bool]:
    """A recorded answer with the random names of the question that is asked now, and whether the question is the same else."""
    before, now = (list(dict.fromkeys(_RANDOM_NAME.findall(one))) for one in (recorded, asked))
    gone, come = [one for one in before if one not in now], [one for one in now if one not in before]
    if len(gone) == len(come):
        for old, new in zip(gone, come, strict=True):
            answer, recorded = answer.replace(old, new), recorded.replace(old, new)
    return answer, recorded == asked


def _is_clients(sent: RawHeaders, target: bytes, body: bytes, exchange: Exchange) -> bool:
    """Whether a request is the client's, as policies left it, and not one that a policy made: those have none of its headers."""
    own = {name for name, _ in exchange.headers if name not in _PLAIN}
    if own & {name for name, _ in sent}:
        return True
    if _IDENTITY not in sent:
        return True
    if b"user-agent" in own:
        return False
    path = target.partition(b"?")[0].decode("latin-1")
    return exchange.path.endswith(path) and glance(body).model == glance(exchange.body).model
