"""The installed command as a process of its own, to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from proxy_core.tasks import spawn

_ADDRESS = re.compile(rb"serving on http://([^\s:]+):(\d+)")
_KEPT_OUT = ("LUTHIEN", "OPENAI", "ANTHROPIC", "OLLAMA", "DATABASE_URL", "HTTP_PROXY", "HTTPS_PROXY")


class GatewayProcess:
    """`luthien --no-ui` on a free port. Only this process is ever signalled."""

    def __init__(self, settings: dict[str, Any], data_dir: Path) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self.said = b""

    async def start(self, *, within_s: float = 30.0) -> None:
        """Start it and wait until it serves."""
        config = self._data_dir / "luthien.yaml"
        config.write_text(json.dumps(self._settings))
        command = Path(sys.executable).with_name("luthien")
        arguments = ("--no-ui", "--port", "0", "--control-port", "0", "--config", str(config), "--data-dir", str(self._data_dir))
        environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(_KEPT_OUT)}
        self._process = await asyncio.create_subprocess_exec(
            command, *arguments, env=environment, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        assert self._process.stderr is not None
        async with asyncio.timeout(within_s):
            while (found := _ADDRESS.search(self.said)) is None:
                line = await self._process.stderr.readline()
                assert line, f"the gateway ended: {self.said.decode()}"
                self.said += line
        self.host, self.port = found[1].decode(), int(found[2])
        self._listening = spawn(self._listen(), name="stderr of the gateway")

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self.said += line

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(30):
            code = await self._process.wait()
            await self._listening
        return code
