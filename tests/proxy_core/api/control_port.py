"""A control port on a real socket, over a plane that the test fills, and what a test asks of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from proxy_core.api.server import ControlServer
from proxy_core.server import listen
from proxy_core.settings import ControlSettings
from tests.luthien_tui.fake_plane import FakePlane
from tests.raw_http import RawClient, RawResponse

TOKEN = "t0k3n-" + "x" * 37


class ControlPort:
    """A running control server."""

    def __init__(self, server: ControlServer, plane: FakePlane, port: int) -> None:
        self.server = server
        self.plane = plane
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"

    def connect(self) -> RawClient:
        return RawClient("127.0.0.1", self.port)

    async def ask(
        self,
        method: str,
        target: str,
        given: Any = None,
        *,
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> RawResponse:
        """One request; `given` goes as JSON, `body` as it is."""
        pairs = {"authorization": f"Bearer {token}"} if token is not None else {}
        if body is None and given is not None:
            body = json.dumps(given).encode()
            pairs["content-type"] = "application/json"
        async with self.connect() as client:
            client.request(method, target, body or b"", {**pairs, **(headers or {})})
            return await client.response(method=method)


@asynccontextmanager
async def control_port(plane: FakePlane | None = None, **settings: Any) -> AsyncIterator[ControlPort]:
    plane = plane or FakePlane()
    listener = listen("127.0.0.1", 0)
    server = ControlServer(plane, settings=ControlSettings(**settings), token=TOKEN, listener=listener)
    server.start()
    try:
        yield ControlPort(server, plane, listener.getsockname()[1])
    finally:
        await server.close()


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: str
    event: str
    data: Any


class EventReader:
    """Follows `/api/events` as a browser's EventSource would."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self._lines = response.aiter_lines()
        self.comments: list[str] = []

    async def next(self) -> Event:
        fields: dict[str, str] = {}
        async with asyncio.timeout(30):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments.append(line[1:].strip())
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    return Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
        raise EOFError("the stream has ended")

    async def take(self, count: int) -> list[Event]:
        return [await self.next() for _ in range(count)]


@asynccontextmanager
async def following(url: str, token: str, query: str = "", *, last: str | None = None) -> AsyncIterator[EventReader]:
    """The events of the control port at `url`."""
    headers = {"authorization": f"Bearer {token}".encode()}
    if last is not None:
        headers["last-event-id"] = last.encode()
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("GET", f"{url}/api/events{query}", headers=headers) as response,
    ):
        yield EventReader(response)
