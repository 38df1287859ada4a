"""HTTP/1.1 on loopback without a framework, so that the headers and bytes on both sides are exact.

An upstream that answers what it is told to, in pieces cut as it is told to, and a client that keeps every byte.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

Headers = list[tuple[str, str]]

MAX_LINE_BYTES = 1 << 20


@dataclass
class Message:
    """What one side sent: the first line's parts, the headers in order with lower-case names, the body without framing."""

    first_line: tuple[str, str, str]
    headers: Headers
    body: bytes
    truncated: bool = False


@dataclass
class Planned:
    """What the upstream answers next."""

    status: int
    headers: Headers
    body: bytes
    cuts: list[int] = field(default_factory=list)
    framing: str = "length"
    """`length`, `chunked` or `close`."""


class Upstream:
    """Answers each request with what `planned` holds then, and keeps the request in `seen`."""

    def __init__(self) -> None:
        self.planned = Planned(500, [], b"nothing is planned")
        self.seen: list[Message] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_LINE_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await read_message(reader, is_response=False)
                self.seen.append(request)
                await self._answer(writer, self.planned, request.first_line[0])
                if self.planned.framing == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, planned: Planned, method: str) -> None:
        lines = [f"HTTP/1.1 {planned.status} Recorded"]
        lines += [f"{name}: {value}" for name, value in planned.headers]
        without_body = method == "HEAD" or planned.status in (204, 304)
        if without_body:
            pass
        elif planned.framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        elif planned.framing == "length":
            lines.append(f"Content-Length: {len(planned.body)}")
        else:
            lines.append("Connection: close")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if without_body:
            return
        start = 0
        for cut in [*sorted(planned.cuts), len(planned.body)]:
            piece = planned.body[start:cut]
            start = cut
            if not piece:
                continue
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if planned.framing == "chunked" else piece)
            await writer.drain()
            await asyncio.sleep(0)
        if planned.framing == "chunked":
            writer.write(b"0\r\n\r\n")
        await writer.drain()


class Client:
    """One connection to the gateway, opened again where the other side closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, target: str, headers: Headers, body: bytes) -> Message:
        """Send one request and read its whole answer. Raises OSError, asyncio.IncompleteReadError."""
        if self._writer is None or self._reader is None or self._reader.at_eof() or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection(*self._address, limit=MAX_LINE_BYTES)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._address[0]}:{self._address[1]}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        await self._writer.drain()
        response = await read_message(self._reader, is_response=True, method=method)
        if ("connection", "close") in response.headers or response.truncated:
            await self.close()
        return response

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


async def read_message(reader: asyncio.StreamReader, *, is_response: bool, method: str = "") -> Message:
    """One whole message. Raises asyncio.IncompleteReadError where the connection ends before its body begins."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    one, two, three = [*first.split(" ", 2), "", ""][:3]
    headers = [(name.lower(), value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
    fields = dict(headers)
    message = Message((one, two, three), headers, b"")
    try:
        if is_response and (method == "HEAD" or two in ("204", "304")):
            return message
        if "chunked" in fields.get("transfer-encoding", ""):
            message.body = await _read_chunks(reader)
        elif "content-length" in fields:
            message.body = await reader.readexactly(int(fields["content-length"]))
        elif is_response:
            message.body = await reader.read()
    except asyncio.IncompleteReadError as error:
        message.body += error.partial
        message.truncated = True
    return message


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            await reader.readuntil(b"\r\n")
            return b"".join(parts)
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
