"""A small HTTP proxy for tests: forwards absolute-form requests and opens CONNECT tunnels, and notes what it was asked for."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from proxy_core.tasks import spawn


class TinyProxy:
    """`async with TinyProxy() as proxy: proxy.url`. Every host leads to this machine, whatever its name."""

    def __init__(self, *, refuse: int | None = None) -> None:
        self.asked: list[str] = []
        """First line of each request."""
        self.heads: list[bytes] = []
        self._refuse = refuse
        self._pipes: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> TinyProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in list(self._pipes):
            task.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            first, _, rest = head.partition(b"\r\n")
            method, target, _ = first.decode().split(" ")
            self.asked.append(f"{method} {target}")
            self.heads.append(head)
            if self._refuse is not None:
                writer.write(f"HTTP/1.1 {self._refuse} No\r\ncontent-length: 0\r\n\r\n".encode())
                return
            if method == "CONNECT":
                to_reader, to_writer = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                parts = urlsplit(target)
                to_reader, to_writer = await asyncio.open_connection("127.0.0.1", parts.port or 80)
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                to_writer.write(f"{method} {path} HTTP/1.1\r\n".encode() + rest)
            back = spawn(_pipe(to_reader, writer), name="tiny proxy back")
            try:
                await _pipe(reader, to_writer)
            finally:
                back.cancel()
                to_writer.transport.abort()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # either side left
        finally:
            self._pipes.discard(task)
            writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()
    except ConnectionError:
        writer.close()
