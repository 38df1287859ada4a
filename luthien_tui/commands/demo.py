"""`luthien demo`: a built-in upstream and a few agents at work, with nothing kept and nothing reached.

Settings of files and the environment do not hold here, so that no key and no journal of the user takes part. The data folder is
temporary and gone at the end.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from luthien_tui.commands.given import Given
from proxy_core.settings import Settings
from proxy_core.settings_sources import load
from proxy_core.tasks import spawn

if TYPE_CHECKING:
    from luthien_tui.demo import DemoUpstream


class DemoAgents:
    """The upstream before the gateway, and the agents behind it; a Companion of the session."""

    def __init__(self) -> None:
        self._upstream: DemoUpstream | None = None
        self._agents: asyncio.Task[None] | None = None

    async def prepare(self, settings: Settings) -> Settings:
        from luthien_tui.demo import DemoUpstream, demo_policies, demo_upstreams

        self._upstream = DemoUpstream()
        base_url = await self._upstream.start()
        return settings.model_copy(update={"upstreams": demo_upstreams(base_url), "policies": demo_policies()})

    def begin(self, address: str) -> None:
        from luthien_tui.demo import run_agents

        self._agents = spawn(run_agents(f"http://{address}"), name="demo agents")

    def leave(self) -> None:
        if self._agents is not None:
            self._agents.cancel()

    async def end(self) -> None:
        self.leave()
        if self._agents is not None:
            await asyncio.wait([self._agents])
        if self._upstream is not None:
            await self._upstream.close()


def run_demo(given: Given, *, screen: bool, remark: str) -> int:
    """Run until the screen is left or a signal comes; returns the exit code."""
    from luthien_tui.embed import Launch, run_headless, run_with_ui
    from luthien_tui.launch import start_logs

    usual = Settings()
    overrides: dict[str, object] = {
        "server.host": given.host,
        "server.port": given.port
        if given.port is not None
        else usual_or_free_port(given.host or usual.server.host, usual.server.port),
        "control.port": (
            given.control_port if given.control_port is not None else usual_or_free_port(usual.control.host, usual.control.port)
        ),
        "logging.level": given.log_level,
        "ui.mouse": False if given.no_mouse else None,
    }
    loaded = load(None, overrides, {}, None)
    with tempfile.TemporaryDirectory(prefix="luthien-demo-") as name:
        folder = Path(name)
        ring, log_file = start_logs(loaded, folder, screen=screen)
        launch = Launch(loaded.settings, folder, ring, log_file, remark, demo=True, companion=DemoAgents())
        return run_with_ui(launch) if screen else run_headless(launch)


def usual_or_free_port(host: str, usual: int) -> int:
    """The usual port, or 0 where something, perhaps luthien itself, has it already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, usual))
        except OSError:
            return 0
    return usual
