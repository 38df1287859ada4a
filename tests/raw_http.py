"""An HTTP/1.x client that sends exactly the bytes it is given and shows exactly the bytes it gets, with their times."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RawResponse:
    """One response as it came."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes = b""
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    """Chunks of a chunked body with the time of their arrival, in perf_counter_ns."""
    whole: bool = True
    """Whether the body ended as its framing says."""

    def header(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection. `async with RawClient(host, port) as client`."""

    def __init__(self, host: str, port: int, *, timeout_s: float = 30.0) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._buffer = b""

    async def __aenter__(self) -> RawClient:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.transport.abort()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def send_all(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, *, version: str = "1.1"
    ) -> None:
        pairs = {"host": f"{self._host}:{self._port}", **(headers or {})}
        if body or method in ("POST", "PUT", "PATCH"):
            pairs.setdefault("content-length", str(len(body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in pairs.items())
        self.send(f"{method} {target} HTTP/{version}\r\n{lines}\r\n".encode("latin-1") + body)

    def leave(self) -> None:
        """Close at once, with RST."""
        raw = self._writer.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def half_close(self) -> None:
        self._writer.write_eof()

    def close(self) -> None:
        """Close in order, with FIN."""
        self._writer.close()

    async def _more(self) -> bytes:
        async with asyncio.timeout(self._timeout_s):
            return await self._reader.read(65536)

    async def closed(self) -> bool:
        """Wait until the server closes; False where more bytes come first."""
        try:
            return self._buffer == b"" and await self._more() == b""
        except ConnectionError:
            return True

    async def head(self) -> RawResponse:
        """Status line and headers of the next response. Raises EOFError where the connection is closed first."""
        while b"\r\n\r\n" not in self._buffer:
            try:
                data = await self._more()
            except ConnectionError as error:
                raise EOFError(self._buffer) from error
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return RawResponse(int(status), version.removeprefix("HTTP/"), pairs)

    async def response(self, *, method: str = "POST") -> RawResponse:
        """The next final response with its body, to the end that its framing names."""
        answer = await self.head()
        while 100 <= answer.status < 200:
            answer = await self.head()
        if method == "HEAD" or answer.status in (204, 304):
            return answer
        if answer.header("transfer-encoding"):
            answer.whole = await self._chunked(answer)
        elif (length := answer.header("content-length")) is not None:
            answer.whole = await self._fill(int(length))
            answer.body, self._buffer = self._buffer[: int(length)], self._buffer[int(length) :]
        else:
            await self._fill(1 << 40)
            answer.body, self._buffer = self._buffer, b""
        return answer

    async def _fill(self, count: int) -> bool:
        while len(self._buffer) < count:
            try:
                data = await self._more()
            except ConnectionError:
                return False
            if not data:
                return False
            self._buffer += data
        return True

    async def _chunked(self, answer: RawResponse) -> bool:
        while True:
            while b"\r\n" not in self._buffer:
                if not await self._fill(len(self._buffer) + 1):
                    return False
            size_line, _, self._buffer = self._buffer.partition(b"\r\n")
            size = int(size_line.split(b";")[0], 16)
            whole = await self._fill(size + 2)
            chunk, self._buffer = self._buffer[:size], self._buffer[size + 2 :]
            if chunk:
                answer.chunks.append((time.perf_counter_ns(), chunk))
                answer.body += chunk
            if not whole or size == 0:
                return whole
