"""The control API's own server, on the gateway's loop and on a port of its own.

It listens before the gateway serves, so that a taken port is known at once, and costs nothing until somebody calls: FastAPI is
imported and the routes are built for the first request that the guard lets in, in a thread. No signal is touched; the
gateway's runtime starts and ends it.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn

from proxy_core.api.building import built_beside_traffic
from proxy_core.api.guard import App, Guard, Receive, Scope, Send
from proxy_core.control.plane import ControlPlane
from proxy_core.server import EmbeddedServer, IngressProtocol
from proxy_core.settings import ControlSettings, ServerSettings
from proxy_core.tasks import spawn

log = logging.getLogger(__name__)

DRAIN_S = 2.0
"""Requests have so long to finish at the end; streams of events end at once."""
KEEP_ALIVE_S = 75


class ControlServer:
    """Serves a ControlPlane on a socket that listens already."""

    def __init__(self, plane: ControlPlane, *, settings: ControlSettings, token: str, listener: socket.socket) -> None:
        self._plane = plane
        self._mcp_write = settings.mcp_write
        self._listener = listener
        self._stopping = asyncio.Event()
        self._built: asyncio.Task[App] | None = None
        guard = Guard(
            self._call,
            token=token,
            host=settings.host,
            port=listener.getsockname()[1],
            allowed_hosts=settings.allowed_hosts,
        )
        server_settings = ServerSettings(drain_s=DRAIN_S)
        self._server = EmbeddedServer(
            uvicorn.Config(
                guard,
                http=type("ControlIngress", (IngressProtocol,), {"settings": server_settings}),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            ),
            server_settings,
        )

    def start(self) -> None:
        self._serving = spawn(self._server.run_embedded(self._listener), name="control api")

    async def close(self) -> None:
        """Stop accepting, end the streams, let requests finish."""
        self._stopping.set()
        self._server.stop()
        await asyncio.wait([self._serving])

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._built is None:
            self._built = spawn(self._build(), name="build the control api")
        app = await asyncio.shield(self._built)
        await app(scope, receive, send)

    async def _build(self) -> App:
        def build() -> App:
            from proxy_core.api.app import control_app

            app: App = control_app(self._plane, self._stopping, mcp_write=self._mcp_write)
            return app

        return await built_beside_traffic(build)
